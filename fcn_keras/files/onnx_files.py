"""ONNX files that `export` wrote: what is in them besides the network, checked before it is run.

A file may come from anywhere, and the runtime that opens it follows what is in it: paths of other
files, operators of other libraries, programs within programs. So its bytes are walked first, by
protobuf's wire format and without copying the weights. Only fields that exported networks have
are accepted, and every size must be right.

Source: onnx/onnx.proto (numbers of fields), protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple

from fcn_keras.errors import UserError, few, first_line, printable

SUFFIX = ".onnx"
MAX_BYTES = 2**31  # as protobuf's
MAX_TEXT_BYTES = 2**20  # of metadata; ours have about 5,000
MAX_NUMBERS = 300_000  # of fields, sizes and the like; a ResNet-18 FCN-8s has 9,500
MAX_AXES = 8
REMEDY = "Give a file that fcn-keras export --format onnx wrote."
# Of one number, by TensorProto.DataType: float, integers of 8 to 64 bits, bool, float16, double,
# unsigned integers, bfloat16.
ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

# Wire types of a field: a number, 4 bytes, or bytes with their count; lists of numbers may be
# packed. In place of them, a dict is a message, and a text the reason to refuse the file.
_INT, _FIXED, _BYTES = (0,), (5,), (2,)
_INTS, _FLOATS = (*_INT, *_BYTES), (*_FIXED, *_BYTES)
_DIMENSION = {1: ("value", _INT), 2: ("name", _BYTES)}
_SHAPE = {1: ("dimensions", _DIMENSION)}
_TYPE = {1: ("tensor", {1: ("type", _INT), 2: ("shape", _SHAPE)})}
_VALUE = {1: ("name", _BYTES), 2: ("type", _TYPE)}
_TENSOR = {
    **{1: ("dimensions", _INTS), 2: ("type", _INT), 8: ("name", _BYTES), 9: ("raw", _BYTES)},
    **{4: ("numbers", _FLOATS), 5: ("numbers", _INTS), 7: ("numbers", _INTS), 14: ("place", _INT)},
    13: ("external", "weights in another file"),
}
_ATTRIBUTE = {
    **{1: ("name", _BYTES), 2: ("float", _FIXED), 3: ("int", _INT), 4: ("text", _BYTES)},
    **{5: ("tensor", _TENSOR), 7: ("floats", _FLOATS), 8: ("ints", _INTS), 20: ("type", _INT)},
    **{6: ("graph", "a network within an operator"), 11: ("graphs", "networks within an operator")},
}
_NODE = {
    **{1: ("inputs", _BYTES), 2: ("outputs", _BYTES), 3: ("name", _BYTES), 4: ("operator", _BYTES)},
    **{5: ("attributes", _ATTRIBUTE), 6: ("doc", _BYTES), 7: ("domain", _BYTES)},
}
_GRAPH = {
    **{1: ("nodes", _NODE), 2: ("name", _BYTES), 5: ("weights", _TENSOR), 10: ("doc", _BYTES)},
    **{11: ("inputs", _VALUE), 12: ("outputs", _VALUE), 13: ("values", _BYTES)},
}
_MODEL = {
    **{1: ("version", _INT), 2: ("producer", _BYTES), 3: ("producer_version", _BYTES)},
    **{4: ("domain", _BYTES), 5: ("model_version", _INT), 6: ("doc", _BYTES)},
    **{7: ("graph", _GRAPH), 8: ("operators", _BYTES)},
    **{14: ("metadata", {1: ("key", _BYTES), 2: ("value", _BYTES)})},
    **{20: ("training", "a program for training"), 25: ("functions", "functions of its own")},
}


class OnnxFile(NamedTuple):
    """What an exported file holds besides the network: the number of classes, and texts."""

    classes: int
    metadata: dict[str, str]


def is_onnx(run_or_file) -> bool:
    """Whether the name of a model is that of an ONNX file."""
    path = Path(run_or_file)
    return path.suffix == SUFFIX and not path.is_dir()


def read_onnx(path) -> OnnxFile:
    """Checks an ONNX file and reads its metadata. The network is neither loaded nor run.

    Raises:
        UserError: If it is damaged, is not one that `export` writes, or refers to other files.
    """
    path = Path(path)
    try:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path).read()
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = first_line(error).removesuffix(".")
        raise UserError(
            f"{path}: not an ONNX file of fcn_keras, or a damaged one ({reason}). {REMEDY}"
        ) from error


class _Reader:
    """Walks over the bytes of a file. Bytes within it are given as `(start, end)`."""

    def __init__(self, data: mmap.mmap, path: Path):
        self.data, self.path, self.left = data, path, MAX_NUMBERS

    def read(self) -> OnnxFile:
        if len(self.data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 30} GiB")
        model = self.message((0, len(self.data)), _MODEL)
        graph = _only(model, "graph")
        for node in graph.get("nodes", ()):
            if (domain := self.text(_only(node, "domain", (0, 0)))) not in ("", "ai.onnx"):
                raise self.refused(f"an operator of {printable(domain)[:100]!r}")
            for attribute in node.get("attributes", ()):
                if tensor := _only(attribute, "tensor", None):
                    self.check_tensor(tensor)
        for tensor in graph.get("weights", ()):
            self.check_tensor(tensor)
        classes = self.classes(graph)
        texts = [(_only(each, "key"), _only(each, "value")) for each in model.get("metadata", ())]
        if sum(end - start for pair in texts for start, end in pair) > MAX_TEXT_BYTES:
            raise ValueError(f"more than {MAX_TEXT_BYTES >> 20} MiB of metadata")
        return OnnxFile(classes, {self.text(key): self.text(value) for key, value in texts})

    def message(self, place: tuple[int, int], fields: dict) -> dict[str, list]:
        """The values of each field by its name: numbers, places, or messages."""
        found: dict[str, list] = {}
        start, end = place
        while start < end:
            tag, start = self.number(start, end)
            number, wire = tag >> 3, tag & 7
            if number not in fields:
                raise ValueError(f"the unknown field {number}")
            name, kind = fields[number]
            if isinstance(kind, str):
                raise self.refused(kind)
            if wire not in (_BYTES if isinstance(kind, dict) else kind):
                raise ValueError(f"the field {name} of type {wire}")
            value: Any
            if wire == 0:
                value, start = self.number(start, end)
            else:
                size, start = (4, start) if wire == 5 else self.number(start, end)
                value = (start, start := start + size)
                if start > end:
                    raise ValueError(f"the field {name} of {size} bytes, more than there are")
            found.setdefault(name, []).append(
                self.message(value, kind) if isinstance(kind, dict) else value
            )
        return found

    def number(self, start: int, end: int) -> tuple[int, int]:
        """A number of up to 64 bits, and where it ends."""
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"more than {MAX_NUMBERS:,} fields and numbers")
        value = 0
        for index in range(start, min(end, start + 10)):
            byte = self.data[index]
            value |= (byte & 127) << 7 * (index - start)
            if byte < 128:
                return value, index + 1
        raise ValueError("a number without an end")

    def numbers(self, values: list) -> list[int]:
        """Those of a field that may be packed."""
        found = []
        for value in values:
            if not isinstance(value, tuple):
                found.append(value)
                continue
            start, end = value
            while start < end:
                number, start = self.number(start, end)
                found.append(number)
        return found

    def text(self, place: tuple[int, int]) -> str:
        if place[1] - place[0] > MAX_TEXT_BYTES:
            raise ValueError(f"a text of more than {MAX_TEXT_BYTES >> 20} MiB")
        return self.data[slice(*place)].decode()

    def check_tensor(self, tensor: dict) -> None:
        """Raises `ValueError` unless it has as many numbers as its sides claim."""
        kind = _only(tensor, "type")
        if kind not in ITEM_BYTES or _only(tensor, "place", 0):
            raise self.refused(f"a tensor of type {kind}, or in another file")
        sides = self.numbers(tensor.get("dimensions", []))
        if len(sides) > MAX_AXES:
            raise ValueError(f"a tensor of {len(sides)} axes")
        claimed = math.prod(sides) * ITEM_BYTES[kind]
        start, end = _only(tensor, "raw", (0, 0))
        # Numbers that are not raw have at least a byte each, and the runtime counts them.
        others = [x[1] - x[0] if isinstance(x, tuple) else 1 for x in tensor.get("numbers", ())]
        if math.prod(sides) > sum(others) if others else claimed != end - start:
            raise ValueError(f"a tensor of {claimed} bytes that has {end - start + sum(others)}")

    def classes(self, graph: dict) -> int:
        """The number of classes; raises `UserError` if a network does not map images to logits."""
        ends = [list(map(self.described, graph.get(name, ()))) for name in ("inputs", "outputs")]
        match ends:
            case [
                [("images", 1, (None, None, None, 3))],
                [("logits", 1, (None, None, None, int(classes)))],
            ]:
                return classes
        images, logits = (
            few([f"{printable(name[:100])} {sides}".replace("None", "?") for name, _, sides in end])
            for end in ends
        )
        raise UserError(
            f"{self.path}: its network maps {images} to {logits}, not float32 images (?, ?, ?, 3) "
            f"to logits (?, ?, ?, C). {REMEDY}"
        )

    def described(self, value: dict) -> tuple[str, int, tuple]:
        """The name of an input or output, the type of its numbers, and its sides."""
        tensor = _only(_only(value, "type", {}), "tensor", {})
        shape = _only(tensor, "shape", {}).get("dimensions", [])[: MAX_AXES + 1]
        sides = tuple(_only(side, "value", None) for side in shape)
        return self.text(_only(value, "name", (0, 0))), _only(tensor, "type", 0), sides

    def refused(self, what: str) -> UserError:
        return UserError(
            f"{self.path}: refused, as it has {what}, which exported networks do not have. {REMEDY}"
        )


_REQUIRED: Any = object()


def _only(message: dict[str, list], name: str, default=_REQUIRED):
    """The value of a field that is there once, or at most once if there is a default."""
    values = message.get(name, [])
    if len(values) > 1 or (not values and default is _REQUIRED):
        raise ValueError(f"the field {name} {len(values)} times")
    return values[0] if values else default
