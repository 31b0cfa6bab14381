"""Random access to TFRecord files, which is how TFDS writes data sets by default.

A record is its length (8 bytes, little-endian), a checksum of that (4), the data, and a
checksum of the data (4). Checksums are not compared: damaged images do not decode.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from fcn_keras.errors import UserError

HEADER, TRAILER = 12, 4


class Records:
    """The records of some files, in the order of the files.

    Raises:
        UserError: If a file cannot be read, or ends within a record.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = paths
        offsets = list(map(_offsets, paths))
        self._ends = np.cumsum([len(found) for found in offsets])
        self._offsets = np.concatenate(offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> bytes:
        """The data of a record; may be called from several threads at once."""
        path = self.paths[int(np.searchsorted(self._ends, index, "right"))]
        try:
            with open(path, "rb") as file:
                file.seek(self._offsets[index])
                return file.read(_length(file.read(HEADER)))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _offsets(path: str) -> np.ndarray:
    offsets, place = [], 0
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while place < size:
                offsets.append(place)
                file.seek(place)
                place += HEADER + _length(file.read(HEADER)) + TRAILER
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    if place != size:
        raise UserError(f"{path}: ends within a record. Delete its folder to prepare it again.")
    return np.array(offsets, np.int64)


def _length(header: bytes) -> int:
    return int.from_bytes(header[:8], "little")
