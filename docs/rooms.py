"""Draws who imports whom: the rooms of the package by floors, and circles if there are any.

python docs/rooms.py [ROOT]      ROOT is the folder that holds fcn_keras, by default this checkout

A room is a package, or a module that is in `fcn_keras/` itself. It stands on the floor above the
highest room that it imports. Imports within functions count, too.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = "fcn_keras"


def rooms(root: Path) -> dict[str, set[str]]:
    """Each room with the rooms that it imports; names are paths within the package."""
    modules = {path: path.relative_to(root) for path in (root / PACKAGE).rglob("*.py")}
    names = {_name(path): _room(path) for path in modules.values()}
    arrows: dict[str, set[str]] = {room: set() for room in names.values()}
    for file, path in modules.items():
        for imported in _imports(ast.parse(file.read_text(encoding="utf-8"))):
            while imported not in names and "." in imported:  # a name within a module
                imported = imported.rpartition(".")[0]
            if imported in names:
                arrows[_room(path)].add(names[imported])
    return {room: targets - {room} for room, targets in arrows.items()}


def floors(arrows: dict[str, set[str]]) -> tuple[list[list[str]], set[str]]:
    """The rooms by floors, from the ground up, and those that a circle keeps from having one."""
    found: list[list[str]] = []
    left = dict(arrows)
    while ready := sorted(room for room, targets in left.items() if not targets & left.keys()):
        found.append(ready)
        left = {room: targets for room, targets in left.items() if room not in ready}
    return found, set(left)


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _room(path: Path) -> str:
    inner = path.parts[1:]
    return "/".join(inner[:-1]) or inner[0].removesuffix(".py")


def _imports(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def main() -> None:
    arrows = rooms(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
    levels, circle = floors(arrows)
    for number, level in reversed(list(enumerate(levels))):
        for room in level:
            print(f"{number:2}  {room:18} {', '.join(sorted(arrows[room])) or '-'}")
    if circle:
        print(f"In or above a circle: {', '.join(sorted(circle))}")
    count = sum(map(len, arrows.values()))
    print(f"{len(arrows)} rooms, {len(levels)} floors, {count} arrows")


if __name__ == "__main__":
    main()
