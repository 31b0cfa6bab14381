"""Draws who imports whom: the rooms of the package by floors, and circles if there are any.

python docs/imports.py [ROOT]      ROOT is the folder that holds fcn_keras, by default this checkout

A room is a folder or file in `fcn_keras/`. It is on the floor above the highest room that it
imports. Imports within functions count, too.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = "fcn_keras"


def modules(root: Path) -> dict[str, set[str]]:
    """Each module of the package below `root` with the modules that it imports."""
    files = {_name(path.relative_to(root)): path for path in (root / PACKAGE).rglob("*.py")}
    arrows: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for imported in _imports(ast.parse(file.read_text(encoding="utf-8"))):
            while imported not in files and "." in imported:  # a name within a module
                imported = imported.rpartition(".")[0]
            if imported in files and imported != name:
                arrows[name].add(imported)
    return arrows


def rooms(root: Path) -> dict[str, set[str]]:
    """Each room with the rooms that it imports."""
    arrows: dict[str, set[str]] = {}
    for module, targets in modules(root).items():
        room = _room(module)
        arrows.setdefault(room, set()).update(set(map(_room, targets)) - {room})
    return arrows


def floors(arrows: dict[str, set[str]]) -> tuple[list[list[str]], set[str]]:
    """Names by floors, from the ground up, and those that a circle keeps from having one."""
    found: list[list[str]] = []
    left = dict(arrows)
    while ready := sorted(room for room, targets in left.items() if not targets & left.keys()):
        found.append(ready)
        left = {room: targets for room, targets in left.items() if room not in ready}
    return found, set(left)


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _imports(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def main() -> None:
    root = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1]
    arrows = rooms(root)
    levels, circle = floors(arrows)
    for number, level in reversed(list(enumerate(levels))):
        for room in level:
            print(f"{number:2}  {room:16} {', '.join(sorted(arrows[room])) or '-'}")
    if circle:
        print(f"In or above a circle: {', '.join(sorted(circle))}")
    count = sum(map(len, arrows.values()))
    print(
        f"{len(modules(root))} modules, {len(arrows)} rooms, {len(levels)} floors, {count} arrows"
    )


if __name__ == "__main__":
    main()
