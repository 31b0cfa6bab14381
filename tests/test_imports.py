"""Imports go downwards in the order of CONTRIBUTING.md's table, and never in a circle."""

import importlib.util
import re

from support.processes import ROOT

spec = importlib.util.spec_from_file_location("imports", ROOT / "docs" / "imports.py")
imports = importlib.util.module_from_spec(spec)
spec.loader.exec_module(imports)

TABLE = re.findall(r"^\| `([a-z]+)[./]", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
OUTSIDE = {"__init__", "__main__"}


def test_rooms_import_only_those_above_them_in_the_table():
    arrows = imports.rooms(ROOT)
    assert set(TABLE) == set(arrows) - OUTSIDE
    upwards = [
        (room, target)
        for room in TABLE
        for target in arrows[room] - OUTSIDE
        if TABLE.index(target) >= TABLE.index(room)
    ]
    assert not upwards
    assert "models" not in arrows["data"] and "data" not in arrows["models"]


def test_no_modules_import_each_other_in_a_circle():
    _, circle = imports.floors(imports.modules(ROOT))
    assert not circle


def test_a_circle_and_an_import_within_a_function_are_seen(tmp_path):
    package = tmp_path / "fcn_keras"
    (package / "models").mkdir(parents=True)
    (package / "models" / "a.py").write_text("from fcn_keras.b import name\n")
    (package / "b.py").write_text("def f():\n    import fcn_keras.models.a\n")
    (package / "c.py").write_text("from fcn_keras import b\n")
    arrows = imports.rooms(tmp_path)
    assert arrows == {"models": {"b"}, "b": {"models"}, "c": {"b"}}
    assert imports.floors(arrows) == ([], {"models", "b", "c"})
