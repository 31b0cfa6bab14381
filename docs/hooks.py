"""MkDocs hooks: notebooks become pages, and formulas MathML, which browsers show by themselves."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

import latex2mathml.converter
from mkdocs.structure.files import File, Files

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config) -> Files:
    """Adds a page for each notebook, and its pictures."""
    for path in sorted((Path(config.config_file_path).parent / "notebooks").glob("*.ipynb")):
        text, pictures = notebook_markdown(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_content(text: str, **_) -> str:
    """Replaces the formulas that the extension `arithmatex` has marked."""

    def mathml(match) -> str:
        display = "inline" if match[2] == "(" else "block"
        return latex2mathml.converter.convert(html.unescape(match[3]), display=display)

    return FORMULA.sub(mathml, text)


def notebook_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, not run, and its pictures by file name.

    Its links are those of the repository: `../docs/` and other notebooks.
    """
    parts, pictures = [], {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown":
            source = source.replace("](../docs/", "](../").replace(".ipynb)", ".md)")
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(_fenced(source, "python"))
            for place, output in enumerate(_joined(cell["outputs"])):
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


def _joined(outputs: list[dict]) -> list[dict]:
    """The outputs, with texts that were printed one after the other as one."""
    joined: list[dict] = []
    for output in outputs:
        if joined and "text" in output and "text" in joined[-1]:
            output = {"text": "".join([*joined.pop()["text"], *output["text"]])}
        joined.append(output)
    return joined


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}{language}\n{text}\n{fence}"
