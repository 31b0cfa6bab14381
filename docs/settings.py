"""The settings of `train` as Markdown tables, from the help texts of its flags.

python docs/settings.py docs/guide/training.md      writes them between the page's two markers
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fcn_keras.cli.train import add_config_flags

BEGIN, END = "<!-- settings: made by docs/settings.py -->\n", "<!-- /settings -->\n"


def settings_markdown() -> str:
    """A table for each group of flags: the flag, and its help text with the defaults."""
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    parts = []
    for group in parser._action_groups[2:]:  # after those of argparse itself
        rows = [f"| {_flag(action)} | {action.help} |\n" for action in group._group_actions]
        parts += [f"\n### {group.title.capitalize()}\n\n| flag | meaning |\n|---|---|\n", *rows]
    return "".join([*parts, "\n"])


def with_settings(page: str) -> str:
    """A page with today's tables between its markers."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + settings_markdown() + END + rest.partition(END)[2]


def _flag(action: argparse.Action) -> str:
    values = action.metavar or action.choices or ""
    if not isinstance(values, str):
        values = (" " if action.metavar else ", ").join(map(str, values))
    return f"`{action.option_strings[0]} {values}`".replace(" `", "`")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_settings(path.read_text(encoding="utf-8")), encoding="utf-8")
