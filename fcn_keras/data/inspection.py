"""What a sound image and a sound mask do not show, but all of a folder together do.

Masks of 0 and 255, palettes in another order, photographs that EXIF turns: training on these
succeeds and is worth nothing. `data check`, `data convert` and `train` find them by the same rules.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.class_counts import count_pixels, notes_of_counts, problems_of_counts
from fcn_keras.data.decoding import class_ids, decode_image, mask_values
from fcn_keras.data.directory import (
    find_image,
    find_mask,
    read_file,
    require_same_size,
)
from fcn_keras.data.layout import CLASSES_FILE, MASK_FOLDER, convert_command
from fcn_keras.data.mask_survey import MaskSurvey
from fcn_keras.data.split import IGNORE_ID, LabelSet, Split, voc_palette
from fcn_keras.errors import UserError, few
from fcn_keras.files.images import LYING, bad_files_named, open_header, orientation

TURNS = {2: "mirrored", 3: "upside down", 4: "mirrored and upside down", 6: "turned to the right"}
TURNS |= {8: "turned to the left", 5: "mirrored and turned", 7: "mirrored and turned"}
WHITE = (255, 255, 255)
# Before training: examples of a split that are inspected, and pixels of masks that are counted.
INSPECTED, MOST_PIXELS = 8, 10**8


@dataclasses.dataclass
class Inspection:
    """Reads examples one by one; what is odd about several of them is told at the end.

    Args:
        root: The folder.
        labels: Its classes.
        problems: One line for each fault of a file, so far.
        sizes: Height and width of each sound mask, so far.
    """

    root: Path
    labels: LabelSet
    problems: list[str] = dataclasses.field(default_factory=list)
    sizes: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    _looked: int = 0
    _own: list[str] = dataclasses.field(default_factory=list)
    _palettes: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # by their order
    _misread: list[str] = dataclasses.field(default_factory=list)  # with palettes in another order
    _example: str = ""  # of what is wrong with such a palette
    _survey: MaskSurvey = dataclasses.field(default_factory=MaskSurvey)
    _unlabelled: list[str] = dataclasses.field(default_factory=list)
    _turned: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    _swapped: dict[int, list[str]] = dataclasses.field(default_factory=dict)

    def look(self, name: str) -> np.ndarray:
        """Reads an example; returns its pixels per class and unlabelled, int64 `(classes + 1,)`."""
        self._looked += 1
        image, mask, turn = None, None, 1
        try:
            path = find_image(self.root, name)
            data = read_file(path)
            image, turn = decode_image(data, str(path)), orientation(data, str(path))
        except UserError as error:
            self.problems.append(str(error))
        try:
            path = find_mask(self.root, name)
            mask = self._mask(name, image, read_file(path, "Write a mask for each image."), path)
        except UserError as error:
            self.problems.append(str(error))
        if image is None or mask is None:
            return np.zeros(len(self.labels) + 1, np.int64)
        self._compare_sizes(name, image, mask, turn, path)
        counts = count_pixels(mask, self.labels)
        self.sizes.append(mask.shape)
        if not counts[:-1].any():
            self._unlabelled.append(name)
        return counts

    def told(self) -> tuple[list[str], list[str]]:
        """All problems, and notes of what need not be a mistake."""
        problems, masks = list(self.problems), self.root / MASK_FOLDER
        if self._own:
            problems.append(
                f"{masks}: the mask and the photograph are the same picture: "
                f"{self._some(self._own, 'mask')}. Replace one of the two."
            )
        reordered = self._palettes.get("another", [])
        if len(reordered) > len(self._palettes.get("other", [])):  # else colours mean nothing
            problems.append(
                f"{masks}: palettes have the colours of {CLASSES_FILE} in another order (in "
                f"{self._example}): {self._some(reordered, 'mask')}. If the colours are right, "
                f"run: {convert_command(self.root, '--mask-values', 'colors')}"
            )
        else:
            problems += self._misread
            command = convert_command(self.root, "--mask-values", "colors")
            problems += self._survey.problems(command)
        for turn, names in sorted(self._swapped.items()):
            problems.append(
                f"{masks}: masks fit the photographs only as these are stored, but EXIF shows them "
                f"{TURNS[turn]} (orientation {turn}): {self._some(names, 'mask')}. Run: "
                f"{convert_command(self.root, '--exif', 'ignore')}"
            )
        notes = [
            f"EXIF shows {self._some(names, 'photograph')} {TURNS[turn]} (orientation {turn}): "
            "their masks must be drawn so. To settle that, run, with ignore in place of apply if "
            f"they were drawn as stored: {convert_command(self.root, '--exif', 'apply')}"
            for turn, names in sorted(self._turned.items())
        ]
        notes += self._survey.notes()
        if self._unlabelled:
            notes.append(f"{self._some(self._unlabelled, 'mask')} without a labelled pixel.")
        return problems, notes

    def _some(self, names: Sequence[str], noun: str) -> str:
        """As in "3 of 8 masks (a, b, c)"."""
        return f"{len(names)} of {self._looked} {noun}s ({few(sorted(names))})"

    def _mask(self, name: str, image, data: bytes, path: Path) -> np.ndarray | None:
        """The ids of a mask; `None` if what is wrong with it is told at the end."""
        own, order = False, ""
        with contextlib.suppress(UserError), bad_files_named(name):  # which mask_values reports
            picture = open_header(data, name)
            own = image is not None and shows_photograph(picture, image)
            order = self._palette_order(picture, name)
        if own:
            self._own.append(name)
        if order:
            self._palettes.setdefault(order, []).append(name)
        try:
            values = mask_values(data, str(path))
            mask = class_ids(values, self.labels, str(path))
            self._survey.look(values, name)
            return mask
        except UserError as error:
            if own:
                return None
            if order == "another":
                self._misread.append(str(error))
                return None
            raise

    def _palette_order(self, picture: Image.Image, name: str) -> str:
        """How the colours of a palette, as far as the mask uses it, agree with those of the list.

        "same", "another" order, "other" colours, or "" without a palette. The colour of 255,
        which many programs leave black, does not matter; white, which many give to an only
        class, is allowed anywhere.
        """
        if picture.mode != "P":
            return ""
        used = np.flatnonzero(picture.histogram()[:IGNORE_ID])
        palette = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        colors = {int(i): tuple(palette[i].tolist()) for i in used if i < len(palette)}
        named = dict(zip(self.labels.palette, self.labels.names))
        named.setdefault(voc_palette()[IGNORE_ID], "unlabelled pixels")
        if not {*colors.values()} <= {*named, WHITE} or len({*colors.values()}) < len(colors):
            return "other"
        for i, color in colors.items():
            if color in named and self.labels.palette[i : i + 1] != (color,):
                self._example = f"{name}, id {i} has that of {named[color]}"
                return "another"
        return "same"

    def _compare_sizes(self, name: str, image, mask, turn: int, path: Path) -> None:
        height, width = image.shape[:2]
        if turn in LYING and mask.shape == (width, height) and width != height:
            self._swapped.setdefault(turn, []).append(name)
            return
        try:
            require_same_size(image, mask, path)
        except UserError as error:
            self.problems.append(str(error))
            return
        if turn in TURNS and (turn not in LYING or width == height):  # else the size confirms it
            self._turned.setdefault(turn, []).append(name)


def shows_photograph(picture: Image.Image, image: np.ndarray) -> bool:
    """Whether a mask's file shows its photograph itself, unless that has only one colour."""
    height, width = image.shape[:2]
    if picture.format not in ("PNG", "JPEG") or picture.size != (width, height):
        return False
    row = picture.crop((0, height // 2, width, height // 2 + 1))  # which nearly always differs
    return (
        np.array_equal(np.asarray(row.convert("RGB")), image[height // 2 : height // 2 + 1])
        and np.array_equal(np.asarray(picture.convert("RGB")), image)
        and bool((image != image[0, 0]).any())
    )


def inspect_before_training(root, splits: Sequence[Split]) -> list[str]:
    """Looks at some of a folder's examples, as far as that takes little time.

    Some examples of each split are inspected. Then masks are read until each class was found,
    or enough of them. That all masks are of 0 and 255 is only said once all have been read.

    Args:
        root: The folder.
        splits: Its training and validation examples.

    Returns:
        Notes.

    Raises:
        UserError: If there is a problem, or a file cannot be read.
    """
    root, labels = Path(root), splits[0].labels
    inspection = Inspection(root, labels)
    complete: dict[str, np.ndarray] = {}
    begun: dict[str, np.ndarray] = {}
    for split in splits:
        counts, room = np.zeros(len(labels) + 1, np.int64), MOST_PIXELS
        every = [*complete.values(), *begun.values(), counts]
        # In a random order, as neighbours may be frames of one video.
        for place, index in enumerate(np.random.default_rng(0).permutation(len(split))):
            found = counts[:-1].all() or (room <= 0 and any(each[1:-1].any() for each in every))
            if found and place >= INSPECTED:
                begun[f"a part of {split.name}"] = counts
                break
            name = split.ids[index]
            if place < INSPECTED:
                pixels = inspection.look(name)
            else:
                pixels = count_pixels(split.mask(index), labels)
            counts += pixels
            room -= int(pixels.sum())
        else:
            complete[split.name] = counts
    problems, notes = inspection.told()
    problems += problems_of_counts(labels, complete | begun, root)
    if problems:
        raise UserError(problems[0])
    return [*notes, *notes_of_counts(labels, complete, root)]
