"""Checks spelling and grammar of what people read, with Harper, which works offline.

python docs/proofread.py      prints each finding; the exit code is 1 if there are any

It reads the manual, the notebooks' text and the help of every command. Words that are right and
that Harper does not know go into docs/words.txt.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import harper

from fcn_keras import cli

ROOT = Path(__file__).parents[1]
# Rules for prose that do not fit tables, flags and units; and matters of taste.
OFF = """
    CompoundNouns Dashes DisjointPrefixes EllipsisLength ExpandConfiguration ExpandControl
    ExpandDirectory ExpandMemoryShorthands ExpandMinimum ExpandStandardInputAndOutput
    ExpandTimeShorthands LongSentences MassNouns MergeWords MissingPreposition MissingTo
    OrthographicConsistency OxfordComma RepeatedWords SentenceCapitalization Spaces SplitWords
    Overall PhrasalVerbAsCompoundNoun UseEllipsisCharacter UseTitleCase
""".split()
COMMIT = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{7}\b")


def main() -> int:
    linter = harper.Linter(harper.Dialect.BRITISH)
    words = (ROOT / "docs/words.txt").read_text(encoding="utf-8").split()
    linter.import_words([*words, *(f"{word}'s" for word in words)])
    linter.set_lint_config({**linter.get_lint_config(), **dict.fromkeys(OFF, False)})
    found = 0
    for name, text in sorted(texts()):
        text = COMMIT.sub("0", text)
        for rule, lints in linter.organized_lints(text, language=harper.Language.MARKDOWN).items():
            for lint in lints:
                found += 1
                span = lint.span
                line = text.count("\n", 0, span.start) + 1
                print(f"{name}:{line}: {rule}: {text[span.start : span.end]!r}: {lint.message}")
    return 1 if found else 0


def texts() -> Iterator[tuple[str, str]]:
    """What is read, by the name of its file or command, as Markdown."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fcn_keras/**/*.md")]:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        yield str(path.relative_to(ROOT)), text
    yield from help_texts(cli._parser())


def help_texts(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    parts = [parser.description, parser.epilog, *(action.help for action in parser._actions)]
    yield parser.prog, "\n\n".join(part for part in parts if part and part != argparse.SUPPRESS)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from help_texts(command)


if __name__ == "__main__":
    sys.exit(main())
