"""MkDocs hooks: pages from README, other texts and the notebooks, so that nothing stands twice.

Each `##` section of README becomes a page of the guide. A relative link leads to the page that
its file became; where there is none, its text alone is left; a link to no file is a warning, which
`mkdocs build --strict` makes an error.
"""

from __future__ import annotations

import base64
import json
import logging
import posixpath
import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

LOG = logging.getLogger("mkdocs.hooks.fcn_keras")
HOME = "index.md"
# Other texts of the repository, and the pages that they become.
TEXTS = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/CAMVID.md": "camvid.md",
    "benchmarks/SPEED.md": "speed.md",
    "fcn_keras/serving/docker/README.md": "guide/tf-serving.md",
}
# README's sections that have a page of their own under another name, or none.
SECTIONS = {"Limits": "limits.md", "For developers": "contributing.md"}
LIMITS_PLACE = "<!-- README: Limits -->"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```\s*$)", re.MULTILINE | re.DOTALL)


@event_priority(100)
def on_files(files: Files, config) -> Files:
    """Adds the pages and fills the navigation."""
    root = Path(config.config_file_path).parent
    sections = readme_sections((root / "README.md").read_text(encoding="utf-8"))
    pages = {"README.md": HOME}
    pages |= {source: page for source, page in TEXTS.items() if (root / source).is_file()}
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    pages |= {f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in notebooks}
    anchors = {slug(title): section_page(title) for title in sections}

    def add(page: str, text: str, source: str) -> None:
        text = relinked(text, source, page, root, pages, anchors)
        files.append(File.generated(config, page, content=text))

    for title, text in sections.items():
        if title in SECTIONS:  # of which only the links are checked here
            relinked(text, "README.md", SECTIONS[title], root, pages, anchors)
        else:
            add(section_page(title), text, "README.md")
    for source, page in TEXTS.items():
        if source in pages:
            add(page, (root / source).read_text(encoding="utf-8"), source)
    for path in notebooks:
        text, pictures = notebook_markdown(path)
        for name, content in pictures.items():
            pages[f"notebooks/{name}"] = f"notebooks/{name}"
            files.append(File.generated(config, f"notebooks/{name}", content=content))
        add(f"notebooks/{path.stem}.md", text, f"notebooks/{path.name}")
    limits = files.get_file_from_path("limits.md")
    known = relinked(sections["Limits"], "README.md", "limits.md", root, pages, anchors)
    text = limits.content_string.replace(LIMITS_PLACE, known.partition("\n")[2])  # without title
    files.remove(limits)
    files.append(File.generated(config, "limits.md", content=text))
    config.nav = navigation(list(sections), notebooks, pages)
    return files


def navigation(titles: list[str], notebooks: list[Path], pages: dict[str, str]) -> list:
    """The tabs and their pages."""
    guide = [section_page(title) for title in titles if title not in SECTIONS]
    api = ("models", "data", "training", "prediction", "serving")
    docker = [page for page in pages.values() if page == "guide/tf-serving.md"]
    project = [page for page in TEXTS.values() if page in pages.values() and page not in docker]
    nav = [
        {"Guide": [HOME, *guide[1:], *docker]},
        {"How it works": "how-it-works.md"},
        {"API": [f"api/{name}.md" for name in api]},
        {"Limits": ["limits.md", "hostile-input.md"]},
        {"Project": project},
    ]
    if notebooks:
        nav.insert(2, {"Notebooks": [f"notebooks/{path.stem}.md" for path in notebooks]})
    return nav


def readme_sections(text: str) -> dict[str, str]:
    """README's parts by their title, headings raised by one level; the first is its beginning."""
    parts = re.split(r"^## (.+)$", _protected(text), flags=re.MULTILINE)
    found = {"": parts[0]}
    for title, body in zip(parts[1::2], parts[2::2]):
        body = re.sub(r"^#(#+ )", r"\1", body, flags=re.MULTILINE)
        found[title] = f"# {title}\n{body}"
    return {title: _restored(body) for title, body in found.items()}


def section_page(title: str) -> str:
    """The page of a section of README."""
    if not title:
        return HOME
    return SECTIONS.get(title, f"guide/{slug(title)}.md")


def slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def relinked(text, source, page, root, pages, anchors) -> str:
    """The text of a file with its relative links led to pages."""

    def replace(match) -> str:
        mark, label, target = match.groups()
        if re.match(r"[a-z]+:", target):
            return match.group()
        path, _, anchor = target.partition("#")
        file = (
            posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source
        )
        if file == "README.md" and anchor in anchors:
            new, anchor = anchors[anchor], ""
        elif file.startswith("docs/") and (root / file).is_file():
            new = file.removeprefix("docs/")
        elif file in pages:
            new = pages[file]
        elif path and (root / file).exists():
            return label
        else:
            LOG.warning("%s: the link %s leads to no file.", source, target)
            return label
        place = posixpath.relpath(new, posixpath.dirname(page) or ".")
        if new == page and anchor:
            place = ""
        return f"{mark}[{label}]({place}{'#' + anchor if anchor else ''})"

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts)


def notebook_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, not run, and its pictures by file name."""
    parts, pictures = [], {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(_fenced(source, "python"))
            for place, output in enumerate(cell["outputs"]):
                data = output.get("data", {})
                for kind in ("png", "jpeg"):
                    if f"image/{kind}" in data:
                        name = f"{path.stem}_{number}_{place}.{kind}"
                        pictures[name] = base64.b64decode("".join(data[f"image/{kind}"]))
                        parts.append(f"![Output of the cell above]({name})")
                        break
                else:
                    text = "".join(output.get("text") or data.get("text/plain") or [])
                    text = text or "\n".join(output.get("traceback", []))
                    if text.strip():
                        parts.append(_fenced(re.sub(r"\x1b\[[\d;]*m", "", text).rstrip(), "text"))
    return "\n\n".join(parts) + "\n", pictures


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _protected(text: str) -> str:
    """Hides `#` at the beginning of lines within code, which are comments, not headings."""
    return FENCE.sub(lambda match: re.sub(r"^#", "\0#", match.group(), flags=re.MULTILINE), text)


def _restored(text: str) -> str:
    return text.replace("\0", "")
