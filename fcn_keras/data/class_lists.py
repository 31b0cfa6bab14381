"""The text of a class list, of this program or of another -> a `LabelSet`.

| form                                | written by                                       |
|-------------------------------------|--------------------------------------------------|
| name, or name<TAB>R G B             | this program; the first line is id 0             |
| name:r,g,b:parts:actions            | CVAT's labelmap.txt                              |
| a name and numbers, as in `FORMS`   | class_dict.csv, _classes.csv, CamVid's           |
|                                     | label_colors.txt, and others                     |
| YAML, JSON                          | ultralytics' data.yaml, COCO, Supervisely, others|

A colour may also be "(r, g, b)" or "#rrggbb". In the forms of lines, "#" begins a comment, and a
first line that only has the columns' titles is left out. A list of mixed forms is refused, as a
title taken for a class would shift all ids.
"""

from __future__ import annotations

import collections
import itertools
import re
from typing import NamedTuple

from fcn_keras.data.split import IGNORE_ID, MAX_CLASSES, LabelSet, voc_palette
from fcn_keras.errors import UserError
from fcn_keras.files.reading import damage_as_user_errors, parse_json

MAX_NAME = 200  # characters of a class's name
MAX_YAML = 1 << 16  # characters; PyYAML reads some 100 kB per second
REMEDY = "Write one class name per line, the first for id 0."
# What a line has, by the count of numbers before and after the name.
FORMS = {
    (0, 1): "name,id",
    (0, 3): "name,r,g,b",
    (0, 4): "name,id,r,g,b",
    (1, 0): "id,name",
    (1, 3): "id,name,r,g,b",
    (1, 4): "id,name,r,g,b,a",
    (3, 0): "r,g,b,name",
    (4, 0): "id,r,g,b,name",
}
CVAT = re.compile(r"(?P<name>.+):(?P<color>\d+,\d+,\d+|):[^:]*:[^:]*")
PLAIN = re.compile(r"[^\t]+\t\s*\d+[\s,;]+\d+[\s,;]+\d+\s*")  # this program's form with a colour
HEX = re.compile(r"#([0-9a-fA-F]{6})(?![0-9a-zA-Z])")
TRIPLE = re.compile(r"[(\[]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*[)\]]")
COMMENT = re.compile(r"(^\s*#|\s#\s).*")
COLOR_BEHIND = re.compile(r"[\s,;:]\d+[\s,;]+\d+[\s,;]+\d+\s*$")
TITLES = set(
    "a actions alpha b blue category class classes classname color color_rgb colour g green id "
    "idx ids index klasse label labels name names number parts pixel r red rgb tag title value "
    "values".split()
)
LONE_TITLES = set(
    "category class classes classname id ids index klasse label labels name names title".split()
)
ID_TITLES = {"", "id", "idx", "index", "value", "pixel value", "class id", "label id"}
OTHER = {  # beginnings
    r"<[?!]|<[^<>]*>\s*?[\r\n]": "XML or HTML",
    r"\|": "a table in Markdown",
    "PK\3\4": "a workbook",
}
KEYS = ("names", "classes", "labels", "categories", "id2label")  # of YAML and JSON
NAME_KEYS = ("name", "title", "label")  # of an object in them


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
    labels, ids = parse_numbered_list(text, path)
    for wanted, id, name in zip(itertools.count(), ids, labels.names):
        if wanted != id:
            raise UserError(
                f"{path}: ids must be 0 to {len(ids) - 1}, each once, and {name!r} has {id}. "
                f"{REMEDY} Masks of such ids: fcn-keras data convert FOLDER --format folders "
                "--output NEW"
            )
    return labels


def parse_numbered_list(text: str, path) -> tuple[LabelSet, tuple[int, ...]]:
    """Reads a class list whose ids may have gaps: the classes in the order of ids, and these.

    Raises:
        UserError: As `parse_class_list`; ids must be 0 to 254, each once.
    """
    text = HEX.sub(lambda found: " ".join(map(str, bytes.fromhex(found[1]))), text)
    for begin, kind in OTHER.items():
        if re.match(begin, text.lstrip()):
            raise UserError(f"{path}: {kind} is not a class list. {REMEDY}")
    if re.search(r"^item\s*\{", text, re.MULTILINE):
        raise UserError(f"{path}: TensorFlow's label map is not a class list. {REMEDY}")
    if text.lstrip().startswith(("{", "[")):
        rows = _rows_of_json(text, path)
    elif re.search(r"^(names\s*:|[\w -]+:\s*$)", text, re.MULTILINE):
        rows = _rows_of_yaml(text, path)
    else:
        rows = _rows_of_lines(text, path)
    rows, ids = _in_order_of_ids(rows, path)
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
    return labels, ids


def split_lines(text: str) -> list[str]:
    """str.splitlines() would split at characters, such as U+2028, that names may contain."""
    return re.split(r"\r\n|\r|\n", text)


def _rows_of_lines(text: str, path) -> list[Row]:
    uncommented = ((COMMENT.sub("", line), n) for n, line in enumerate(split_lines(text), 1))
    lines = [(line, f"{path}:{n}") for line, n in uncommented if line.strip(" \t,;")]
    cvat = [CVAT.fullmatch(line.strip()) for line, _ in lines]
    if lines and all(cvat):
        return [Row(**m.groupdict(), place=place) for m, (_, place) in zip(cvat, lines) if m]
    tabs = [line for line, _ in lines if "\t" in line.strip()]
    if lines and not (tabs and all(map(PLAIN.fullmatch, tabs))):
        if rows := _rows_with_numbers(lines, path):
            return rows
    if len(lines) > 1 and _is_title(lines[0][0]) and {*_words(lines[0][0])} & LONE_TITLES:
        line, place = lines[0]
        raise UserError(f"{place}: {line.strip()!r} looks like a title, not a class. Remove it.")
    marks = ",;:=" if len(lines) > 1 else ",;"
    if lines and any(all(mark in line.strip(" ,;") for line, _ in lines) for mark in marks):
        raise _unknown_form(path)
    if all(line.startswith("- ") for line, _ in lines):
        lines = [(line[2:], place) for line, place in lines]
    return [_plain_row(line.rstrip(" ,;"), place) for line, place in lines]


def _unknown_form(path) -> UserError:
    forms = "; ".join(FORMS.values())
    return UserError(f"{path}: a table of an unknown form. {REMEDY} Also read: {forms}.")


def _plain_row(line: str, place: str) -> Row:
    name, tab, color = line.partition("\t")
    if not tab and COLOR_BEHIND.search(line):
        raise UserError(f"{place}: put a tab between name and colour. Received: {line!r}.")
    return Row(name.strip(), color, place=place)


class _Cells(NamedTuple):
    """A line of a table: how many columns it has, the name, and numbers before and after it."""

    columns: int
    before: list[str]
    name: list[str]
    after: list[str]
    mark: str  # between columns

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.before), len(self.after)


def _cells(line: str) -> _Cells:
    line = TRIPLE.sub(r"\1 \2 \3", line).strip(" \t,;")
    marks = next((marks for marks in (",;\t", ":=") if any(mark in line for mark in marks)), "")
    mark = next((mark for mark in marks if mark in line), "")
    columns = [part.strip() for part in re.split(f"[{marks}]", line)] if marks else line.split()
    cells: list[str] = []
    for part in columns:
        several = part.split()
        cells += several if all(map(_is_number, several)) else [part]
    before = [*itertools.takewhile(_is_number, cells)]
    after = [*itertools.takewhile(_is_number, reversed(cells[len(before) :]))][::-1]
    if not mark and not before and len(after) == 1:  # "class 1" is a name
        after = []
    name = [cell for cell in cells[len(before) : len(cells) - len(after)] if cell]
    return _Cells(len(columns), before, name, after, mark)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _rows_with_numbers(lines: list[tuple[str, str]], path) -> list[Row]:
    """The rows of a table of names and numbers; none if it is a list of names alone."""
    cells, titles = [_cells(line) for line, _ in lines], []
    if len(cells) > 1 and cells[0].shape == (0, 0) != cells[1].shape:
        first = cells[0]
        if _is_title(lines[0][0]) or (first.mark and first.columns == cells[1].columns):
            titles = [" ".join(_words(_unquoted(title))) for title in first.name]
            cells, lines = cells[1:], lines[1:]
    shape, count = collections.Counter(row.shape for row in cells).most_common(1)[0]
    numbers_alone = shape == (1, 0) and not any(row.name for row in cells)  # which are names
    if shape == (0, 0) or count <= len(cells) / 2 or numbers_alone:
        return []
    for row, (line, place) in zip(cells, lines):
        if row.shape != shape and shape in FORMS:
            raise UserError(
                f"{place}: not of the form '{FORMS.get(shape)}', which other lines have. "
                f"Received: {line.strip()[:MAX_NAME]!r}."
            )
    texts = any(len(row.name) > 1 and row.columns == len(titles) for row in cells)
    if shape not in FORMS or texts:  # several columns of texts
        raise _unknown_form(path)
    if len(titles) == 1 + sum(shape):
        del titles[shape[0]]
    else:
        titles = []
    opaque = all(row.after[-1:] == ["255"] for row in cells)
    return [
        _row(row, titles, opaque)._replace(place=place) for row, (_, place) in zip(cells, lines)
    ]


def _row(cells: _Cells, titles: list[str], opaque: bool) -> Row:
    """What the numbers of a line are: an id, a colour and its opacity, by their titles if any."""
    numbers, id = [*cells.before, *cells.after], ""
    titles = titles or [""] * len(numbers)
    name = (f"{cells.mark} " if cells.mark else " ").join(cells.name)
    if len(numbers) != 3:
        alpha = titles[-1] in ("a", "alpha") or (opaque and len(numbers) == 4 and not titles[-1])
        if not alpha or len(numbers) > 4:
            at = next((i for i, title in enumerate(titles) if title in ID_TITLES), 0)
            id = numbers.pop(at)
            titles = titles[:at] + titles[at + 1 :]
    if sorted(title[:1] for title in titles[:3]) == ["b", "g", "r"]:
        numbers = [number for _, number in sorted(zip(titles, numbers), reverse=True)]  # r, g, b
    return Row(name, " ".join(numbers[:3]), id)


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
    import yaml  # which only such lists need

    with damage_as_user_errors(f"{path}: not readable as YAML", REMEDY):
        try:  # all texts stay as they are: a class "no" is no boolean
            content = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from error
        return _rows_of_values(content, path)


def _rows_of_json(text: str, path) -> list[Row]:
    with damage_as_user_errors(f"{path}: not a list of classes in JSON", REMEDY):
        return _rows_of_values(parse_json(text.encode()), path)


def _rows_of_values(content, path) -> list[Row]:
    """Of a list of names or objects, or of an object: ids to names, names to ids or colours."""
    if isinstance(content, dict):
        content = next((content[key] for key in KEYS if key in content), content)
    if isinstance(content, dict):
        if all(re.fullmatch(r"\d+", key) for key in content):
            rows = [_row_of_value(value)._replace(id=_number(id)) for id, value in content.items()]
        else:
            rows = [_row_of_pair(name, value) for name, value in content.items()]
    elif isinstance(content, list):
        rows = [_row_of_value(value) for value in content]
    else:
        raise ValueError("the names are neither a list nor an object")
    return [row._replace(place=str(path)) for row in rows]


def _row_of_value(value) -> Row:
    if not isinstance(value, dict):
        return Row(_text(value))
    key = next((key for key in NAME_KEYS if key in value), NAME_KEYS[0])
    return Row(
        _text(value[key]), _color_text(value.get("color") or ""), _number(value.get("id", ""))
    )


def _row_of_pair(name: str, value) -> Row:
    if isinstance(value, list) or (isinstance(value, str) and len(value.split()) == 3):
        return Row(_text(name), _color_text(value))
    return Row(_text(name), id=_number(value))


def _color_text(value) -> str:
    return " ".join(map(str, value if isinstance(value, list) else [value]))


def _text(value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a name is not a text but of the type {type(value).__name__}")
    return value.strip()


def _number(value) -> str:
    if isinstance(value, (str, int)) and re.fullmatch(r"\d{,9}", str(value)):
        return str(value)
    raise ValueError(f"an id is not a number but of the type {type(value).__name__}")


def _in_order_of_ids(rows: list[Row], path) -> tuple[list[Row], tuple[int, ...]]:
    if not any(row.id for row in rows):
        return rows, tuple(range(len(rows)))
    # A number of more digits is no id; int() refuses thousands of them.
    ids = [int(row.id) if 0 < len(row.id) < 10 else -1 for row in rows]
    counts = collections.Counter(ids)
    for id, row in zip(ids, rows):
        if not 0 <= id < IGNORE_ID or counts[id] > 1:
            raise UserError(
                f"{row.place}: ids must be 0 to {IGNORE_ID - 1}, each once, and {row.name!r} has "
                f"{row.id[:9] or 'none'}. {REMEDY} 255 is unlabelled, and not listed."
            )
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [rows[i] for i in order], tuple(ids[i] for i in order)


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
    raise UserError(
        f"{place}: a colour is 'R G B', three numbers in 0..255. Received: {text[:40]!r}."
    )
