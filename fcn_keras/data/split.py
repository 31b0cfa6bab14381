"""What every data source yields: a `Split` of examples and its `LabelSet`."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from fcn_keras.errors import UserError
from fcn_keras.files.images import resized_size
from fcn_keras.files.reading import has_control_characters

IGNORE_ID = 255
MAX_CLASSES = 255  # ids 0..254 fit into a byte beside the ignore id


def voc_palette(size: int = 256) -> tuple[tuple[int, int, int], ...]:
    """Colours of the ids `0..size-1` by the rule of the VOC devkit.

    The bits of an id are dealt out in turn to red, green and blue, the lowest
    ones to the colours' highest bits, so that neighbouring ids look different
    (`VOClabelcolormap.m`).

    Args:
        size: How many colours; at most 256.

    Returns:
        `size` tuples `(red, green, blue)` of integers in 0..255.
    """
    palette = []
    for class_id in range(size):
        red = green = blue = 0
        for shift in range(8):
            three_bits = class_id >> (3 * shift)
            red |= (three_bits & 1) << (7 - shift)
            green |= (three_bits >> 1 & 1) << (7 - shift)
            blue |= (three_bits >> 2 & 1) << (7 - shift)
        palette.append((red, green, blue))
    return tuple(palette)


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes of a data set: id `i` is called `names[i]` and drawn in `palette[i]`.

    Args:
        names: One name per class, at most 255.
        palette: One `(red, green, blue)` in 0..255 per class. Default: the
            colours by VOC's rule.
        ignore_id: The id of pixels that are not labelled.

    Raises:
        UserError: If there are no names, too many, duplicates, or one that is empty
            or has control characters; if there are more or fewer colours than names; or
            if a colour or the ignore id is out of range.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    ignore_id: int = IGNORE_ID

    def __post_init__(self):
        if not _is_list(self.names) or not all(map(_is_name, self.names)):
            raise UserError(
                "Class names must be a list of strings, none empty or with control characters. "
                f"Received: {ascii(self.names)[:100]}."
            )
        # Tuples, so that label sets from JSON equal those from code.
        object.__setattr__(self, "names", tuple(self.names))
        palette = self.palette or voc_palette(len(self.names))
        if not _is_list(palette) or not all(map(_is_color, palette)):
            raise UserError(
                "A palette must be a list of colours, each three integers in 0..255. "
                f"Received: {ascii(palette)[:100]}."
            )
        object.__setattr__(self, "palette", tuple(tuple(map(int, rgb)) for rgb in palette))
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise UserError(
                f"A label set needs 1 to {MAX_CLASSES} classes, as ids are bytes and "
                f"{IGNORE_ID} means unlabelled. Received: {len(self.names)} classes."
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise UserError(f"Class names must differ. Received more than once: {twice}.")
        if len(self.palette) != len(self.names):
            raise UserError(
                f"A label set needs one colour per class. Received: {len(self.palette)} colours "
                f"for {len(self.names)} classes."
            )
        if not _is_byte(self.ignore_id) or self.ignore_id < len(self.names):
            raise UserError(
                f"The ignore id must be in {len(self.names)}..255, which no class has. Received: "
                f"{ascii(self.ignore_id)[:100]}."
            )

    def __len__(self) -> int:
        return len(self.names)

    def colors(self) -> np.ndarray:
        """The colour of every id: uint8 `(256, 3)`, unlabelled ids in VOC's cream."""
        table = np.tile(np.array(voc_palette()[IGNORE_ID], np.uint8), (256, 1))
        table[: len(self)] = self.palette
        return table


def placeholder_names(size: int) -> tuple[str, ...]:
    """Names for the classes of a model whose file has none."""
    return tuple(f"class_{index}" for index in range(size))


def _is_list(value) -> bool:
    return isinstance(value, (list, tuple))


def _is_name(value) -> bool:
    text = isinstance(value, str) and value.strip() and not has_control_characters(value)
    return bool(text) and value == value.encode(errors="ignore").decode()  # no lone surrogates


def _is_byte(value) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and 0 <= value <= 255


def _is_color(value) -> bool:
    return _is_list(value) and len(value) == 3 and all(map(_is_byte, value))


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one part of a data set, read one at a time by their index.

    Args:
        name: The part's name, such as `"train"`.
        labels: The classes that its masks use.
        ids: One name per example, unique within the split.
        read: Takes an index; returns `(image, mask)`: uint8 `(H, W, 3)` in RGB
            and uint8 `(H, W)` of class ids, 255 where unlabelled. Raises
            `UserError` naming the file if that cannot be read.
        read_mask: The same for the mask alone, if that takes less time.
    """

    name: str
    labels: LabelSet
    ids: tuple[str, ...]
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    read_mask: Callable[[int], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, index: int) -> np.ndarray:
        """The mask of an example, uint8 `(H, W)`."""
        return self.read_mask(index) if self.read_mask else self.read(index)[1]

    def select(self, indices: Iterable[int]) -> Split:
        """The split's examples at these indices, in this order."""
        chosen = list(indices)
        return dataclasses.replace(
            self,
            ids=tuple(self.ids[index] for index in chosen),
            read=lambda index: self.read(chosen[index]),
            read_mask=self.read_mask and (lambda index: self.mask(chosen[index])),
        )

    def take(self, count: int) -> Split:
        """The split's first `count` examples."""
        return self.select(range(min(count, len(self))))

    def spread(self, count: int) -> Split:
        """At most `count` examples, evenly spread, as neighbours may be frames of one video."""
        step = max(1, -(-len(self) // count))
        return self.select(range(0, len(self), step))


def resized(split: Split, short_side: int) -> Split:
    """The examples at the size at which a network sees them, given a `short_side`.

    Images are resized as `Segmenter` does it; masks take the nearest pixel.
    """

    def read(index: int):
        image, mask = map(Image.fromarray, split.read(index))
        size = resized_size(*image.size, short_side)
        image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image), np.asarray(mask.resize(size, Image.Resampling.NEAREST))

    return dataclasses.replace(split, read=read, read_mask=None)


def drop_smaller(split: Split, crop: tuple[int, int]) -> Split:
    """The examples of at least the crop's height and width, like those d2l trains on.

    Raises:
        UserError: If none is that large, or one cannot be read.
    """
    shapes = [split.read(index)[1].shape for index in range(len(split))]
    large = [
        i for i, (height, width) in enumerate(shapes) if height >= crop[0] and width >= crop[1]
    ]
    if not large:
        raise UserError(
            f"No image of {split.name} is as large as the crop {crop[0]}×{crop[1]}. Use a smaller "
            "--crop."
        )
    return split.select(large)
