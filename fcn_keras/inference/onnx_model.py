"""A network in an ONNX file that `export` wrote, which runs without TensorFlow and Keras."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.onnx_files import REMEDY, read_onnx
from fcn_keras.files.reading import as_object, build, damage_as_user_errors
from fcn_keras.inference.field import Field
from fcn_keras.inference.options import MAX_SHORT_SIDE

MAX_REACH = 2**16  # of a receptive field, in pixels


@dataclasses.dataclass(frozen=True)
class OnnxModel:
    """A file that `read_onnx` has checked, and what its metadata say; a `Segmenter`'s model.

    Args:
        path: The file.
        labels: Its classes.
        field: The network's receptive field; `None` where it is not known, as in files of
            earlier versions.
        short_side: The shorter side that the network resizes images to; 0 if it does not.
    """

    path: Path
    labels: LabelSet
    field: Field | None = None
    short_side: int = 0

    def __getstate__(self):  # for Ray's workers, which may run elsewhere
        return {**vars(self), "path": self.path.absolute()}

    @classmethod
    def load(cls, path) -> OnnxModel:
        """Reads all but the network.

        Raises:
            UserError: As for `read_onnx`, or if the metadata are damaged.
        """
        classes, metadata = read_onnx(path)
        with damage_as_user_errors(f"{path}: its metadata are damaged", REMEDY):
            labels = build(LabelSet, json.loads(metadata["labels"]))
            field = _field(json.loads(metadata.get("receptive_field", "null")))
            origin = as_object(json.loads(metadata["provenance"]), "provenance")
            side = origin.get("short_side", 0)
            if type(side) is not int or not 0 <= side <= MAX_SHORT_SIDE:
                raise ValueError("its short side is out of range")
        if len(labels) != classes:
            raise UserError(f"{path}: it has {classes} classes, but names {len(labels)}. {REMEDY}")
        return cls(Path(path), labels, field, side)


def _field(values) -> Field | None:
    if values is None:
        return None
    field = build(Field, values)
    numbers = dataclasses.astuple(field)
    if (
        any(type(number) not in (int, float) for number in numbers)
        or not all(abs(number) <= MAX_REACH for number in numbers)  # NaN is not, either
        or field.low > field.high
        or type(field.stride) is not int
        or field.stride < 1
    ):
        raise ValueError("a receptive field that is out of range")
    return field
