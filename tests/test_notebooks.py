"""The committed notebooks as a reader meets them; `pytest --nbmake notebooks` executes them."""

import itertools
import json
import re
import sys

import pytest
from jupyter_client import KernelManager
from support.processes import ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
MEGABYTE = 10**6
# How paths to a machine's folders begin; "/v1/models" of a URL is not one.
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(tmp|home|root|Users|opt|work|usr|var|mnt)/|[A-Z]:\\\\")
FIGURES_AND_PHOTOS = ("image/png", "image/jpeg")


@pytest.fixture(params=NAMES)
def notebook(request):
    return json.loads((FOLDER / request.param).read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_there_are_four():
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04"]


def test_they_are_small():
    for name in NAMES:
        assert (FOLDER / name).stat().st_size < MEGABYTE, name


def test_each_was_executed_once_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [kind for output in outputs for kind in output.get("data", {})]
    assert any(kind in FIGURES_AND_PHOTOS for kind in pictures)


def test_a_text_stands_above_each_cell_of_code(notebook):
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert kinds[0] == kinds[-1] == "markdown"
    assert ("code", "code") not in set(itertools.pairwise(kinds))
    assert notebook["cells"][0]["source"][0].startswith("# ")


def test_nothing_of_a_machine_is_in_it(notebook):
    assert notebook["metadata"] == {
        "execution": {"timeout": 3600},
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    texts = [json.dumps(notebook["cells"])]
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            texts += [text for kind, text in output.get("data", {}).items() if "text" in kind]
    for text in texts:
        assert not MACHINE_PATH.search("".join(text))


def test_links_lead_to_files(notebook):
    texts = [
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    ]
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", "\n".join(texts))
    assert all((FOLDER / link).is_file() for link in links)


def test_the_kernel_is_this_environments_python():
    assert KernelManager(kernel_name="python3").format_kernel_cmd()[0] == sys.executable
