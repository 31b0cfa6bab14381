"""Masks' files -> class ids, and what is learned from all of them together.

A value that is no class's is not reported for each mask: all such values are listed once, as
lines of a class list if they are colours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fcn_keras.data.conversion.source import Findings, Options
from fcn_keras.data.decoding import (
    MANY,
    MASK_FORMATS,
    MaskValues,
    class_colors,
    color_code,
    color_of,
    ids_of_color,
    mask_values,
)
from fcn_keras.data.mask_survey import MaskSurvey
from fcn_keras.data.split import IGNORE_ID, MAX_CLASSES, LabelSet, voc_palette
from fcn_keras.errors import UserError, few

UNKNOWN = 256  # in tables of class ids
MANY_COLORS = 32  # of no class beside a list of classes: more are not listed to fill in
MANY_IDS = 64  # of no class in one mask: more are a photograph's grey values
FAR = 64  # of 255 levels between a pixel's colour and its class's, in one channel
FAR_SHARE = 0.25  # of pixels that may be as far: soft edges have fewer, photographs more
MAX_LISTED = 4096  # values that are counted
BLACK, WHITE, WHITE_16 = 0, 0xFFFFFF, 0xFFFF
VOID = color_code(voc_palette()[IGNORE_ID])
BINARY_COLORS = ((0, 0, 0), (255, 255, 255))


@dataclasses.dataclass
class _Seen:
    """A value in masks that is no class's: how many pixels of how many masks."""

    place: str
    pixels: int = 0
    masks: int = 0


class MaskReader:
    """Turns masks into class ids and remembers what is wrong with them.

    Args:
        labels: The classes in the order of their ids in masks; `None` if they are not known,
            so that all values are listed.
        options: What a person says about the masks.
        place: The class list, for messages.
        ids: The classes' ids in masks, unless `options` say the first. Default: 0, 1, 2, ...
    """

    def __init__(
        self, labels: LabelSet | None, options: Options, place, ids: Sequence[int] = ()
    ) -> None:
        self.labels, self.options, self.place = labels, options, place
        self.kind = "colors" if options.nearest or options.binary else options.mask_values
        self.ids: dict[int, _Seen] = {}
        self.colors: dict[int, _Seen] = {}
        self.id_pixels, self.id_masks = np.zeros(256, np.int64), np.zeros(256, np.int64)
        self._survey = MaskSurvey()
        self._odd_masks = [0, 0]  # with ids, with colours of no class
        self.pixels = self.changed = self.masks = 0
        self._id_table = np.full(256, UNKNOWN, np.uint16)
        self._id_table[IGNORE_ID] = IGNORE_ID
        size = len(labels) if labels else 0
        if options.ids_from is not None or len(ids) != size:
            ids = range(256)[options.ids_from or 0 :][:size]
        self.class_ids = list(ids)
        self._id_table[self.class_ids] = np.arange(len(ids))
        self._id_table[list(options.unlabelled or ())] = IGNORE_ID
        known = class_colors(labels) if labels else {}
        if options.binary or options.nearest:  # VOC's cream is then a colour like others
            known = {code: id for code, id in known.items() if code != VOID or id != IGNORE_ID}
        known |= {color_code(color): IGNORE_ID for color in options.unlabelled_color or ()}
        self._known = known
        self._color_table = np.full(1 << 24, UNKNOWN, np.uint16)
        for code, id in known.items():
            self._color_table[code] = id

    def read(self, data: bytes, name: str) -> np.ndarray:
        """A mask's ids, uint8 `(H, W)`, 255 also where values are of no class.

        Raises:
            UserError: If the file is no mask.
        """
        formats = (*MASK_FORMATS, "JPEG") if self.options.nearest else MASK_FORMATS
        values = mask_values(data, name, formats)
        least, most = values.pixels.min(), values.pixels.max()
        if most == WHITE_16 and not (values.pixels % 257).any():  # 8 bits, written as 16
            values = dataclasses.replace(values, pixels=values.pixels // 257)
        elif least < 0 or most > 255:
            raise UserError(
                f"{name}: values of {least} to {most}, so numbers of objects rather than of "
                "classes, which are 0 to 255. Replace each number by its object's class. If there "
                "is one class only, save 255 where there is an object and use --binary NAME."
            )
        if self.options.nearest and values.palette is None and values.pixels.ndim == 2:
            if self.labels and any(len({*color}) > 1 for color in self.labels.palette):
                raise UserError(
                    f"{name}: a grey mask, whose values are near no class's colour. --nearest is "
                    "for masks in colours, or in black and white with --binary."
                )
        if self.kind == "colors" or (self.kind is None and values.pixels.ndim == 3):
            codes, table, seen, many = values.colors(), self._color_table, self.colors, MANY
        else:
            codes, table, seen, many = self._ids(values, name), self._id_table, self.ids, MANY_IDS
        mask = table[codes]
        unknown = codes[mask == UNKNOWN]
        self.masks += 1
        self.pixels += mask.size
        if unknown.size:
            found, counts = np.unique(unknown, return_counts=True)
            if self.options.nearest and self._known:
                nearest = self._nearest(found, counts / mask.size, name)
                mask[mask == UNKNOWN] = nearest[np.searchsorted(found, unknown)]
                self.changed += unknown.size
            else:
                self._note(seen, found, counts, name, many)
        return np.where(mask == UNKNOWN, IGNORE_ID, mask).astype(np.uint8)

    def _ids(self, values: MaskValues, name: str) -> np.ndarray:
        ids = values.ids()
        if ids is None:
            raise UserError(f"{name}: colours, not ids. Leave out --mask-values ids.")
        if self.kind is None and self.labels:
            require_palette_agrees(values, self.labels, name)
        counts = np.bincount(ids.ravel(), minlength=256)
        self.id_pixels += counts
        self.id_masks += counts > 0
        if self.kind is None:
            self._survey.look(values, name)
        return ids

    def _note(self, seen: dict[int, _Seen], found, counts, name: str, many: int) -> None:
        if len(found) > many:
            what = "colours that are no class's: a photograph, or a mask after lossy compression"
            remedy = "If it is a mask: --nearest takes the class of the nearest colour" + (
                "." if self.labels else " in the list that --classes names."
            )
            if seen is self.ids:
                what = "values that are no class's: a photograph, or numbers of objects"
                remedy = (
                    "A mask has the number of a class in each pixel. If these are soft edges of "
                    "black and white: --binary NAME --nearest, without --classes."
                )
            raise UserError(f"{name}: {len(found)} {what}. {remedy}")
        self._odd_masks[seen is self.colors] += 1
        for value, count in zip(found.tolist(), counts.tolist()):
            if value in seen or len(seen) < MAX_LISTED:
                entry = seen.setdefault(value, _Seen(name))
                entry.pixels += count
                entry.masks += 1

    def _nearest(self, found: np.ndarray, shares: np.ndarray, name: str) -> np.ndarray:
        """The ids of the nearest known colours, uint16."""
        known = np.array([color_of(code) for code in self._known], np.int32)
        colors = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
        best = np.zeros(len(found), np.int64)
        least = np.full(len(found), np.iinfo(np.int32).max, np.int32)
        for index, color in enumerate(known):
            distance = ((colors - color) ** 2).sum(axis=1)
            closer = distance < least
            best[closer], least[closer] = index, distance[closer]
        far = shares[np.abs(colors - known[best]).max(axis=1) > FAR].sum()
        if far > FAR_SHARE:
            raise UserError(
                f"{name}: {far:.0%} of its pixels are far from every class's colour, as in a "
                f"photograph. Are these the masks, and the colours of {self.place}?"
            )
        return np.array(list(self._known.values()), np.uint16)[best]

    def finish(self, findings: Findings) -> None:
        """Adds what all masks together tell."""
        if self.changed:
            findings.notes.append(
                f"{self.changed / self.pixels:.2%} of the masks' pixels had colours of no class "
                "and got the nearest class's (--nearest)."
            )
        if problems := self._survey.problems("--mask-values colors"):
            findings.problems += problems
            return
        if self.labels is None:
            self._ask_for_classes(findings)
            return
        if self.colors:
            self._report_colors(findings)
        if self.ids:
            self._report_ids(findings)
        self._require_options_used(findings)
        if IGNORE_ID not in (self.options.unlabelled or ()):
            if self._found_ids() == {0, IGNORE_ID}:
                findings.problems.append(_binary(self.masks))
            else:
                findings.notes += self._survey.notes()

    def _found_ids(self) -> set[int]:
        return {*np.flatnonzero(self.id_pixels).tolist()}

    def _require_options_used(self, findings: Findings) -> None:
        """Adds a problem if an option for ids was given, and masks hold colours, or vice versa."""
        if self.masks and not self.id_pixels.any() and not self.options.binary:
            if self.options.ids_from is not None or self.options.unlabelled is not None:
                findings.problems.append(
                    "--ids-from and --unlabelled are for ids, and the masks have colours. If these "
                    "are ids in three channels: --mask-values ids."
                )
        if self.id_pixels.any() and self.options.unlabelled_color:
            findings.problems.append(
                "--unlabelled-color is for colours, and masks have ids: --unlabelled ID, or "
                "--mask-values colors."
            )

    def _report_colors(self, findings: Findings) -> None:
        colors = [color_of(code) for code in self.colors]
        what = self._odd("colour", list(map(str, colors)))
        if self.options.binary and colors == [(1, 1, 1)]:
            remedy = "0 and 1 are ids already: name them by --classes FILE, without --binary."
        elif self.options.binary:
            remedy = "Only black and white are known with --binary; --nearest takes the nearer one."
        elif {*self.colors} <= {BLACK, WHITE}:
            remedy = BINARY_REMEDY
        elif all(ids_of_color(color) & {*self.class_ids} for color in colors):
            remedy = "If they are ids in three channels, or in one of them: --mask-values ids."
        elif len(colors) > MANY_COLORS:
            remedy = (
                "So many come from soft edges or compression: --nearest takes the nearest class."
            )
        else:
            remedy = (
                f"Write them into {self.place}, as 'name<TAB>R G B', or use --unlabelled-color R G "
                "B or --nearest. They are printed in this form."
            )
            findings.class_list += self._color_lines()
        findings.problems.append(f"{what} {remedy}")

    def _report_ids(self, findings: Findings) -> None:
        assert self.labels
        known, size = self.class_ids, len(self.labels)
        values = sorted(self.ids)
        remedy = "Add them to the list, or use --unlabelled ID."
        if values == [0] and known[0]:
            remedy = "If 0 is unlabelled: --unlabelled 0."
        elif values == [size] and known == [*range(size)]:
            remedy = "If the first class is 1: --ids-from 1"
            remedy += " --unlabelled 0." if self.id_pixels[0] else "."
        elif all((value,) * 3 in self.labels.palette for value in values):
            remedy = "They are greys of classes in the list: --mask-values colors."
        elif max(values) > 2 * len(known) + max(known):
            grey = " ".join([str(values[0])] * 3)
            remedy = (
                f"If they are greys of classes: list them, as 'name<TAB>{grey}', and add "
                "--mask-values colors. If they are soft edges in masks of black and white: "
                "--binary NAME --nearest, without --classes."
            )
        what = self._odd("id", list(map(str, values)))
        ids = f"{known[0]} to {known[-1]}"
        if known[-1] - known[0] >= len(known):  # there are gaps
            ids = few(list(map(str, known)))
        findings.problems.append(f"{what} {self.place} has the ids {ids}. {remedy}")

    def _odd(self, kind: str, values: list[str]) -> str:
        """What is no class's, in which mask and how many others."""
        seen = self.colors if kind == "colour" else self.ids
        count = f"the {kind} {values[0]} is" if len(values) == 1 else f"{len(values)} {kind}s are"
        which = f" ({few(values)})" if len(values) > 1 else ""
        others = self._odd_masks[kind == "colour"] - 1
        place = next(iter(seen.values())).place + (f" and {others} other masks" if others else "")
        return f"{place}: {count} no class's{which}."

    def _ask_for_classes(self, findings: Findings) -> None:
        ids = self._found_ids()
        if {*self.colors} == {BLACK, WHITE} or (ids == {0, IGNORE_ID}):
            findings.problems.append(_binary(self.masks))
            return
        if ids == {IGNORE_ID}:
            findings.problems.append(f"All {self.masks} masks have only the value 255.")
        if not self.ids and not self.colors:
            return  # each mask has a problem of its own
        kind, hint = "colours" if self.colors else "ids", ""
        if self.colors and all(
            red == green == blue for red, green, blue in map(color_of, self.colors)
        ):
            hint = " If the greys are ids in three channels: --mask-values ids."
        first = min(self.ids, default=0)
        if self.ids and max(self.ids) > 2 * len(self.ids):
            hint = (
                " As the ids have large gaps, they are listed as greys: add --mask-values colors."
            )
            self._see_unlabelled()
            self.colors, self.ids = {color_code([id] * 3): self.ids[id] for id in self.ids}, {}
        elif first:
            hint = f" Add --ids-from {first}."
        findings.problems.append(
            f"The classes of the masks' {kind} are not known. Save the list that is printed, with "
            f"their names, and give it as --classes FILE.{hint}"
        )
        if self.colors:
            findings.class_list += self._color_lines()
        if self.ids:
            for value in range(first, max(self.ids) + 1):
                seen = self.ids.get(value, _Seen(""))
                findings.class_list += [self._share(seen), f"class_{value}"]

    def _see_unlabelled(self) -> None:
        """Counts 255 as a value like others."""
        if self.id_pixels[IGNORE_ID]:
            pixels, masks = (int(n[IGNORE_ID]) for n in (self.id_pixels, self.id_masks))
            self.ids[IGNORE_ID] = _Seen("", pixels, masks)

    def _color_lines(self) -> list[str]:
        """Lines of a class list with the colours that are no class's, the first for black."""
        order = sorted(self.colors, key=lambda code: (code != BLACK, -self.colors[code].pixels))
        lines, number = [], len(self.labels) if self.labels else 0
        for code in order:
            if code == VOID:
                lines.append("# 224 224 192 is unlabelled.")
                continue
            lines.append(self._share(self.colors[code]))
            lines.append(f"class_{number}\t{' '.join(map(str, color_of(code)))}")
            number += 1
        if number > MAX_CLASSES:
            lines.append(f"# More than {MAX_CLASSES} classes: too many.")
        return lines

    def _share(self, seen: _Seen) -> str:
        return f"# {seen.pixels / self.pixels:.2%}, in {seen.masks} of {self.masks} masks"


BINARY_REMEDY = "If white (255) is a class: --binary NAME, without --classes."


def _binary(masks: int) -> str:
    return f"All {masks} masks have only the values 0 and 255. {BINARY_REMEDY}"


def require_palette_agrees(values: MaskValues, labels: LabelSet, name: str) -> None:
    """Raises `UserError` if indices that a mask uses have the colours of other classes.

    Programs that save only the colours that an image uses number them anew. A palette of colours
    that are not the classes' says nothing, nor does one that repeats a colour, nor the colour of
    255, which many programs leave black.
    """
    if values.palette is None:
        return
    used = np.flatnonzero(np.bincount(values.pixels.ravel(), minlength=256)[:IGNORE_ID])
    classes = class_colors(labels)
    codes = [color_code(color) for color in values.palette[used].tolist()]
    found = [classes.get(code) for code in codes]
    own_colors = labels.palette != voc_palette(len(labels))
    if len({*codes}) < len(codes) or not (own_colors or None not in found):
        return
    for index, id in zip(used.tolist(), found):
        if id not in (None, index):
            other = "unlabelled pixels" if id == IGNORE_ID else f"class {labels.names[id]}"
            raise UserError(
                f"{name}: the palette gives index {index} the colour of {other}. "
                "If the colours are right: --format folders --mask-values colors. If the indices "
                "are: ids in place of colors."
            )
