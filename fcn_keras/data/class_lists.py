"""The text of a class list, of this program or of another -> a `LabelSet`.

| form                                | written by                                       |
|-------------------------------------|--------------------------------------------------|
| name, or name<TAB>R G B             | this program; the first line is id 0             |
| name:r,g,b:parts:actions            | CVAT's labelmap.txt                              |
| name,r,g,b                          | class_dict.csv                                   |
| r g b name                          | CamVid's label_colors.txt                        |
| id name; id,name                    | Roboflow's _classes.csv, and others              |
| id,name,r,g,b                       | others                                           |
| names: in YAML                      | ultralytics' data.yaml                           |
| JSON of names, or of objects        | others                                           |

In the forms of lines, "#" begins a comment, and a first line that only has the columns' titles
is left out. A list of mixed forms is refused, as a title taken for a class would shift all ids.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import yaml

from fcn_keras.data.split import MAX_CLASSES, LabelSet, voc_palette
from fcn_keras.errors import UserError
from fcn_keras.files.reading import as_object, damage_as_user_errors, parse_json

MAX_NAME = 200  # characters of a class's name
MAX_YAML = 1 << 16  # characters; PyYAML reads some 100 kB per second
REMEDY = "Write one class name per line, the first for id 0."
_COMMA, _ANY = r"\s*[,;]\s*", r"[\s,;]+"
_RGB, _RGB_ANY = (rf"(?P<color>\d+{gap}\d+{gap}\d+)" for gap in (_COMMA, _ANY))
_FIELD = r"(?P<name>[^\d\s,;][^,;]*)"
# In this order, as "0 0 0 sky" also looks like the id 0 of "0 0 sky".
FORMS = {
    "name:r,g,b:parts:actions": r"(?P<name>[^:]+):(?P<color>\d+,\d+,\d+|):[^:]*:[^:]*",
    "name,r,g,b": rf"{_FIELD}[,;]\s*{_RGB}[,;]?",
    "id,name,r,g,b": rf"(?P<id>\d+){_COMMA}{_FIELD}[,;]\s*{_RGB}",
    "r g b name": rf"{_RGB_ANY}{_ANY}{_FIELD}",
    "id name": r"(?P<id>\d+)(?:\s*[,;:=]\s*|\s+)(?P<name>[^\d\s].*)",
    "name,id": r"(?P<name>[^\d\s,;:=][^,;:=]*)[,;:=]\s*(?P<id>\d+)",
    "- name": r"-\s+(?P<name>\S.*)",
}
_PATTERNS = {form: re.compile(pattern) for form, pattern in FORMS.items()}
COLOR_BEHIND = re.compile(r"[\s,;:]\d+[\s,;]+\d+[\s,;]+\d+\s*$")
TITLES = set(
    "blue class classes classname color color_rgb colour g b r green id ids index label labels "
    "name names pixel red rgb title value values parts actions number".split()
)
LONE_TITLES = set("class classes classname id ids index label labels name names title".split())
OTHER = {"<": "XML or HTML", "item {": "TensorFlow's label map", "item{": "TensorFlow's label map"}


class Row(NamedTuple):
    """A class as a list names it: its colour and its id, if it has them, and where it is."""

    name: str
    color: str = ""
    id: str = ""
    place: str = ""


def parse_class_list(text: str, path) -> LabelSet:
    """Reads a class list; `path` is its file's name.

    Raises:
        UserError: If it is of no known form, or a line is malformed, or two classes have the
            same name or colour, or the ids are not 0, 1, 2 and so on.
    """
    start = text.lstrip()[:6].lower()
    for begin, kind in OTHER.items():
        if start.startswith(begin):
            raise UserError(f"{path}: {kind} is not a class list. {REMEDY}")
    if start.startswith(("{", "[")):
        rows = _rows_of_json(text, path)
    elif re.search(r"^names\s*:", text, re.MULTILINE):
        rows = _rows_of_yaml(text, path)
    else:
        rows = _rows_of_lines(text, path)
    rows = _in_order_of_ids(rows, path)
    names = tuple(_checked_name(_unquoted(row.name), row.place) for row in rows)
    default = voc_palette()
    palette = tuple(
        _parse_color(row.color, row.place) or default[index % MAX_CLASSES]
        for index, row in enumerate(rows)
    )
    try:
        labels = LabelSet(names, palette)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _require_different_colors(labels, rows, path)
    return labels


def split_lines(text: str) -> list[str]:
    """str.splitlines() would split at characters, such as U+2028, that names may contain."""
    return re.split(r"\r\n|\r|\n", text)


def _rows_of_lines(text: str, path) -> list[Row]:
    numbered = enumerate(split_lines(text), 1)
    lines = [
        (number, line) for number, line in numbered if line.strip() and line.lstrip()[0] != "#"
    ]
    titled = bool(lines) and _is_title(lines[0][1])
    body = lines[titled:]

    def place(number: int) -> str:
        return f"{path}:{number}"

    for form, pattern in _PATTERNS.items():
        found = [pattern.fullmatch(line.strip()) for _, line in body]
        if found and all(found):
            return [
                Row(**match.groupdict(), place=place(number))
                for (number, _), match in zip(body, found)
                if match
            ]
        if sum(map(bool, found)) > len(found) / 2:
            number, line = next(line for line, match in zip(body, found) if not match)
            raise UserError(
                f"{place(number)}: not of the form '{form}', which other lines have. "
                f"Received: {line[:MAX_NAME]!r}."
            )
    if len(lines) > 1:
        number, line = lines[0]
        if titled and {*_words(line)} & LONE_TITLES:
            raise UserError(
                f"{place(number)}: {line.strip()!r} looks like a title, not a class. Remove it."
            )
        if any(all(mark in line for _, line in lines) for mark in ",;:="):
            raise UserError(
                f"{path}: a table of an unknown form. {REMEDY} Also read: {'; '.join(FORMS)}."
            )
    return [_plain_row(line, place(number)) for number, line in lines]


def _plain_row(line: str, place: str) -> Row:
    name, tab, color = line.partition("\t")
    if not tab and COLOR_BEHIND.search(line):
        raise UserError(f"{place}: put a tab between name and colour. Received: {line!r}.")
    return Row(name.strip(), color, place=place)


def _is_title(line: str) -> bool:
    return {*_words(line)} <= TITLES


def _words(line: str) -> list[str]:
    return re.findall(r"[^\W_]+", line.lower()) or [""]


def _unquoted(name: str) -> str:
    name = name.strip()
    quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
    return name[1:-1].strip() if quoted else name


def _rows_of_yaml(text: str, path) -> list[Row]:
    if len(text) > MAX_YAML:
        raise UserError(f"{path}: YAML of more than {MAX_YAML >> 10} KiB. {REMEDY}")
    with damage_as_user_errors(f"{path}: not readable as YAML", REMEDY):
        try:  # all texts stay as they are: a class "no" is no boolean
            content = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from error
        return _rows_of_values(as_object(content, "the content")["names"], path)


def _rows_of_json(text: str, path) -> list[Row]:
    with damage_as_user_errors(f"{path}: not a list of classes in JSON", REMEDY):
        content = parse_json(text.encode())
        if isinstance(content, dict):
            keys = [key for key in ("names", "classes", "labels", "categories") if key in content]
            content = content[keys[0]] if keys else content
        return _rows_of_values(content, path)


def _rows_of_values(content, path) -> list[Row]:
    """Of a list of names or objects, or of an object from ids to names or from names to ids."""
    if isinstance(content, dict):
        pairs = list(content.items())
        if not all(re.fullmatch(r"\d+", key) for key in content):
            pairs = [(id, name) for name, id in pairs]
        return [Row(_text(name), id=_number(id), place=str(path)) for id, name in pairs]
    if not isinstance(content, list):
        raise ValueError("the names are neither a list nor an object")
    rows = []
    for entry in content:
        if isinstance(entry, dict):
            color = entry.get("color") or ""
            parts = color if isinstance(color, list) else [color]
            row = Row(_text(entry["name"]), " ".join(map(str, parts)), _number(entry.get("id", "")))
        else:
            row = Row(_text(entry))
        rows.append(row._replace(place=str(path)))
    return rows


def _text(value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a name is not a text but of the type {type(value).__name__}")
    return value.strip()


def _number(value) -> str:
    if isinstance(value, (str, int)) and re.fullmatch(r"\d{,9}", str(value)):
        return str(value)
    raise ValueError(f"an id is not a number but of the type {type(value).__name__}")


def _in_order_of_ids(rows: list[Row], path) -> list[Row]:
    if not any(row.id for row in rows):
        return rows
    # A number of more digits is no id; int() refuses thousands of them.
    ids = [int(row.id) if 0 < len(row.id) < 10 else -1 for row in rows]
    for wanted, found in enumerate(sorted(ids)):
        if wanted != found:
            row = rows[ids.index(found)]
            raise UserError(
                f"{row.place}: ids must be 0 to {len(rows) - 1}, each once, and {row.name!r} has "
                f"{row.id[:9] or 'none'}. {REMEDY} If the first class of the masks is 1: data "
                "convert --ids-from 1."
            )
    return [row for _, row in sorted(zip(ids, rows))]


def _require_different_colors(labels: LabelSet, rows: list[Row], path) -> None:
    seen: dict[tuple[int, int, int], str] = {}
    for name, color, row in zip(labels.names, labels.palette, rows):
        if color in seen:
            raise UserError(
                f"{row.place}: {name} has the colour {' '.join(map(str, color))}, as "
                f"{seen[color]} has{'' if row.color.strip() else ', by default'}. Colours must "
                "differ. List another, or give the two one name with data convert --map."
            )
        seen[color] = name


def _checked_name(name: str, place: str) -> str:
    if not name:
        raise UserError(f"{place}: a colour without a name. Write 'name<TAB>R G B'.")
    if len(name) > MAX_NAME or not name.isprintable():
        raise UserError(
            f"{place}: not a class name, which has at most {MAX_NAME} characters, none of "
            f"them control characters. Received: {name[:MAX_NAME]!r}."
        )
    return name


def _parse_color(text: str, place: str) -> tuple[int, int, int] | None:
    if not text.strip():
        return None
    parts = re.split(r"[\s,;]+", text.strip())
    if len(parts) == 3 and all(re.fullmatch("[0-9]{1,3}", part) for part in parts):
        red, green, blue = map(int, parts)
        if max(red, green, blue) <= 255:
            return red, green, blue
    raise UserError(f"{place}: a colour is 'R G B', three numbers in 0..255. Received: {text!r}.")
