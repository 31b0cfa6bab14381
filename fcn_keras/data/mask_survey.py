"""What masks of ids show together, though each of them alone is sound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fcn_keras.data.decoding import MaskValues, color_code, color_of
from fcn_keras.data.split import IGNORE_ID
from fcn_keras.errors import few


class MaskSurvey:
    """Looks at masks one by one.

    `moved` says how palettes differ that have the same colours at other indices, as programs
    write that number the colours of each image anew; it is empty if none do. `binary` has the
    masks of 0 and 255 alone.
    """

    def __init__(self) -> None:
        self.masks, self.moved, self.binary = 0, "", list[str]()
        self._indices: dict[int, tuple[int, str]] = {}  # of colours, and in which mask

    def look(self, values: MaskValues, name: str) -> None:
        ids = values.ids()
        if values.pixels.ndim == 3 or ids is None or ids.min() < 0 or ids.max() > 255:
            return  # colours, or no ids
        used = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
        self.masks += 1
        if used == [0, IGNORE_ID]:
            self.binary.append(name)
        if values.palette is not None:
            palette = values.palette.tolist()
            self._compare({i: color_code(palette[i]) for i in used if i != IGNORE_ID}, name)

    def _compare(self, colors: Mapping[int, int], name: str) -> None:
        if self.moved or len({*colors.values()}) < len(colors):
            return
        for index, code in colors.items():
            first, place = self._indices.setdefault(code, (index, name))
            if first != index:
                color = " ".join(map(str, color_of(code)))
                self.moved = f"{color} is index {first} in {place}, but {index} in {name}"

    def problems(self, remedy: str) -> list[str]:
        """That palettes differ; `remedy` is a command or its flags."""
        if not self.moved:
            return []
        return [
            f"Palettes have the same colours in several orders: {self.moved}. If the colours are "
            f"right: {remedy}. If the indices are: ids in place of colors."
        ]

    def notes(self) -> list[str]:
        if not 0 < len(self.binary) < self.masks:
            return []
        return [
            f"{len(self.binary)} of {self.masks} masks have only the values 0 and 255 "
            f"({few(self.binary)}), and 255 is unlabelled. If it is a class in these, save its id."
        ]
