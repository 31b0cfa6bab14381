"""COCO's polygons and run lengths -> the pixels of an object.

Run lengths go down the columns of an image, and begin with the pixels outside the object.
"""

from __future__ import annotations

import array

import numpy as np

from fcn_keras.data.conversion.shapes import require_inside

MAX_OUTLINE = 10**6  # pixels; pycocotools takes 40 bytes for each


def run_lengths(segmentation, height: int, width: int) -> np.ndarray:
    """The run lengths of an annotation's segmentation, int64 with the sum `height * width`.

    Args:
        segmentation: An object of `counts` and `size`, or a list of polygons.
        height: Height of the image.
        width: Width of the image.

    Raises:
        ValueError: What is wrong with it.
    """
    if isinstance(segmentation, dict):
        return _encoded_runs(segmentation, height, width)
    if isinstance(segmentation, list):
        return _polygon_runs(segmentation, height, width)
    raise ValueError("a segmentation that is neither a list nor an object")


def draw(run_lengths: np.ndarray, class_id: int, columns: np.ndarray) -> None:
    """Writes a class id into the pixels of an object; `columns` is a mask by columns, flat."""
    ends = np.cumsum(run_lengths)
    for start, end in zip(ends[::2], ends[1::2]):
        columns[start:end] = class_id


def _polygon_runs(polygons: list, height: int, width: int) -> np.ndarray:
    from pycocotools import mask as pycocotools

    outline = 0.0
    if not any(isinstance(polygon, list) for polygon in polygons):
        polygons = [polygons]  # of one polygon, without the list around it, as VIA writes it
    for polygon in polygons:
        message = "a segmentation that is not a list of lists of numbers"
        polygon = _numbers("d", polygon, message)
        if len(polygon) % 2 or len(polygon) < 6:
            raise ValueError(f"a polygon of {len(polygon) / 2:g} points; at least 3 are needed")
        points = np.reshape(polygon, (-1, 2))
        if not np.isfinite(points).all():
            raise ValueError("a coordinate that is not a finite number")
        require_inside(points, height, width)
        outline += np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum()
    if outline > MAX_OUTLINE:
        raise ValueError(f"an outline of {outline:.0f} pixels; at most {MAX_OUTLINE} are allowed")
    rle = pycocotools.merge(pycocotools.frPyObjects(polygons, height, width))
    return _decompressed(rle["counts"])


def _encoded_runs(rle: dict, height: int, width: int) -> np.ndarray:
    if rle.get("size") != [height, width]:
        raise ValueError(f"run lengths for the size {rle.get('size')}, not {[height, width]}")
    counts = rle.get("counts")
    if isinstance(counts, str):
        runs = _decompressed(counts.encode(errors="replace"))
    else:
        message = "'counts' that are neither a string nor a list of whole numbers"
        runs = np.array(_numbers("q", counts, message), np.int64)
    # pycocotools would leave pixels undefined if there were too few.
    pixels = height * width
    if not runs.size or runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise ValueError(f"run lengths that do not add up to its {pixels} pixels")
    return runs


def _numbers(kind: str, values, message: str) -> array.array:
    """The list of numbers that a value must be, or a `ValueError` of this message."""
    try:
        return array.array(kind, values if isinstance(values, list) else [None])
    except (TypeError, OverflowError):
        raise ValueError(message) from None


def _decompressed(counts: bytes) -> np.ndarray:
    """Run lengths from a string: digits of 5 bits, the lowest first; a sixth bit if more follow.

    From the fourth on they are stored as differences to the last but one (`rleFrString`).
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    if not ends.size or ends[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        raise ValueError("'counts' that are not a complete compressed string")
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError("run lengths of more than 32 bits")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= np.where(codes[ends] & 16, np.int64(1) << 5 * lengths, 0)
    for part in (runs[1::2], runs[2::2]):
        np.cumsum(part, out=part)
    return runs
