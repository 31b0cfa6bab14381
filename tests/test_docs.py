"""The manual: in step with the code, and built without a broken link."""

import base64
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import pytest
from support.processes import ROOT

from fcn_keras.models.fcn import build_fcn
from fcn_keras.runs.config import GROUPS

PNG = b"\x89PNG not really"


def script(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    return script("hooks")


@pytest.fixture(scope="module")
def figure():
    return script("figure")


@pytest.fixture(scope="module")
def settings():
    return script("settings")


@pytest.fixture(scope="module")
def fcn8s():
    return build_fcn("resnet18", 21, 8, weights=None)


def test_the_figure_is_that_of_the_model(figure, fcn8s):
    assert (ROOT / "docs/images/fcn8s.svg").read_text() == figure.network_svg(fcn8s), (
        "draw it again: python docs/figure.py docs/images/fcn8s.svg"
    )


def test_boxes_have_the_strides_and_ways_of_the_graph(figure, fcn8s):
    boxes = {(box.name, box.row): box for box in figure.network_boxes(fcn8s, (320, 480))}
    # The arithmetic of strides: 320 / 32 = 10 rows and 480 / 32 = 15 columns.
    assert boxes["backbone", 32].shape == (10, 15, 512)
    assert boxes["score_32", 32].sources == [boxes["backbone", 32]]
    assert boxes["score_16", 16].sources == [boxes["backbone", 16]]
    fuse = boxes["fuse_16", 16]
    assert [box.name for box in fuse.sources] == ["crop_16", "score_16"]
    assert [box.name for box in boxes["crop_16", 16].references] == ["score_16"]
    assert [box.name for box in boxes["logits", 1].references] == ["images"]
    assert len(boxes) == 16 and boxes["logits", 1].shape == (320, 480, 21)


def test_the_manual_has_todays_settings(settings):
    page = (ROOT / "docs/guide/training.md").read_text()
    assert page == settings.with_settings(page), (
        "write them again: python docs/settings.py docs/guide/training.md"
    )
    assert "\n| `--crop H W` |" in page and page.count("\n### ") == len(GROUPS)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")), ids=lambda path: path.name)
def test_links_beside_the_manual_lead_to_files_and_headings(path):
    """MkDocs checks those of the manual."""
    text = re.sub("^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match("[a-z]+:", target):
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.is_file(), target
            headings = re.findall("^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in map(slug, headings), target


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_formulas_become_mathml(hooks):
    page = 'a <span class="arithmatex">\\(x &gt; 2\\)</span> <div class="arithmatex">\\[y\\]</div>'
    found = hooks.on_page_content(page)
    assert re.sub(' xmlns="[^"]*"', "", found) == (
        'a <math display="inline"><mrow><mi>x</mi><mo>&#x0003E;</mo><mn>2</mn></mrow></math> '
        '<math display="block"><mrow><mi>y</mi></mrow></math>'
    )


def test_a_notebook_becomes_markdown_without_being_run(hooks, tmp_path):
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["\x1b[31mred\x1b[0m\n"]},
        {"output_type": "stream", "name": "stdout", "text": ["text\n"]},
        {
            "output_type": "display_data",
            "data": {"image/png": base64.b64encode(PNG).decode(), "text/plain": ["<Figure>"]},
        },
    ]
    code = {"cell_type": "code", "source": ["1 / 0  # never run"], "outputs": outputs}
    words = ["# Title\n", "[next](02.ipynb) [page](../docs/guide/serving.md)"]
    cells = [{"cell_type": "markdown", "source": words}, code]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    text, pictures = hooks.notebook_markdown(tmp_path / "n.ipynb")
    assert text == (
        "# Title\n[next](02.md) [page](../guide/serving.md)\n\n"
        "```python\n1 / 0  # never run\n```\n\n"
        "```text\nred\ntext\n```\n\n"
        "![Output of the cell above](n_1_1.png)\n"
    )
    assert pictures == {"n_1_1.png": PNG}


def build(root):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)


@pytest.fixture
def sources(tmp_path):
    """A copy of everything that the documentation is made from."""
    pytest.importorskip("mkdocs")
    for name in ("docs", "fcn_keras", "benchmarks", "notebooks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
    for path in [*ROOT.glob("*.md"), ROOT / "mkdocs.yml"]:
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_it_builds_without_a_warning_and_loads_nothing_from_elsewhere(sources):
    done = build(sources)
    assert done.returncode == 0, done.stderr
    assert not re.search("^WARNING", done.stderr, re.MULTILINE), done.stderr
    site = sources / "build/site"
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"?([^\" >]+)", path.read_text()
        )
        assert loaded and not [link for link in loaded if re.match(r"(https?:)?//", link)]
    assert 'id="fcn_keras.models.fcn.build_fcn"' in (site / "api/models.html").read_text()
    assert "<math" in (site / "guide/how-it-works.html").read_text()


@pytest.mark.slow
def test_a_broken_link_or_anchor_fails_the_build(sources):
    with (sources / "docs/guide/how-it-works.md").open("a") as file:
        file.write("\n[a](gone.md) [b](limits.md#no-such-anchor)\n")
    done = build(sources)
    assert done.returncode == 1
    for broken in ("gone.md", "#no-such-anchor"):
        assert any("WARNING" in line and broken in line for line in done.stderr.splitlines())
