"""What a reader of a format hands over: photographs, and how the mask of each is made.

A format is a module with two functions:

    recognizes(place: Path) -> bool                        whether a path looks like this format
    read(place: Path, options, findings) -> Source         raises `UserError` if nothing can be read

and `OPTIONS`, the fields of `Options` that it uses. `read` opens lists and descriptions, but no
photograph and no mask: `Example.draw` does that, one image at a time.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from fcn_keras.data.split import LabelSet

BACKGROUND = "background"
PARTS = ("train", "val", "test")
# Other programs' names of splits.
SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val"}
SPLITS |= {"testing": "test"}
SPLIT_NAMES = {*PARTS, *SPLITS}


@dataclasses.dataclass(frozen=True)
class Example:
    """A photograph of a source.

    Args:
        name: Its id in the new data set, unique there; "/" separates subfolders. It must not
            depend on which others there are, as a data set grows by photographs of new names.
        image: Its file, or a function that returns the content of one.
        place: The file that describes its mask, for messages.
        draw: Takes the photograph's height and width; returns its mask, uint8 `(H, W)` of
            class ids, 255 where unlabelled. A fault is raised as `UserError`; several are
            added to the source's `Findings`.
        split: The source's own split or part, by the name that `split_name` gives it; `None` if
            there is none.
        upright: Whether labels refer to the photograph as EXIF turns it (`True`) or to its
            pixels as they are stored (`False`); `None` if the format does not say.
    """

    name: str
    image: Path | Callable[[], bytes]
    place: Path
    draw: Callable[[int, int], np.ndarray]
    split: str | None = None
    upright: bool | None = None

    @property
    def title(self) -> Path:
        """What messages call it: its file, or the file that contains it."""
        return self.image if isinstance(self.image, Path) else self.place


@dataclasses.dataclass(frozen=True)
class Source:
    """The photographs of a source, and the classes that its masks use.

    `finish` is called when all masks are drawn, and adds what only all of them tell to the
    `Findings`.
    """

    labels: LabelSet
    examples: Sequence[Example]
    finish: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Options:
    """What a person may say about a source; each is a flag of `data convert`.

    Args:
        images: The folder of photographs, if they are not where the source says.
        masks: The folder of masks.
        classes: A file that lists the classes.
        mask_suffix: How the name of a mask ends, where that of its photograph does not.
        binary: The class of white in masks of black and white.
        mask_values: What masks hold: `"ids"` or `"colors"`; `None` if their files say it.
        ids_from: The id of the first class in masks.
        unlabelled: Further ids of unlabelled pixels.
        unlabelled_color: Further colours of unlabelled pixels.
        nearest: Whether colours of no class become the class of the nearest colour.
        exif: Whether masks fit photographs that EXIF turns as they are shown (`"apply"`) or
            stored (`"ignore"`); `None` if their sizes say it.
    """

    images: Path | None = None
    masks: Path | None = None
    classes: Path | None = None
    mask_suffix: str | None = None
    binary: str | None = None
    mask_values: str | None = None
    ids_from: int | None = None
    unlabelled: Sequence[int] | None = None
    unlabelled_color: Sequence[Sequence[int]] | None = None
    nearest: bool = False
    exif: str | None = None


@dataclasses.dataclass
class Findings:
    """What is noticed about a source while it is read.

    `problems` has one line for each fault: nothing is written if there are any. `left_out` has,
    for each reason, the places of what the new data set will lack. `notes` tell what was decided
    where the source leaves a choice. `class_list` are lines of a class list to fill in.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    notes: list[str] = dataclasses.field(default_factory=list)
    class_list: list[str] = dataclasses.field(default_factory=list)

    def leave_out(self, reason: str, place) -> None:
        """Notes that something is left out: `reason` is a clause, such as "as it is empty"."""
        self.left_out[reason].append(str(place))


def split_name(name: str) -> str:
    """The name that a split of another program has here, such as `"val"` for `"valid"`."""
    return SPLITS.get(name.lower(), name.lower())


def split_in(words: Iterable[str]) -> str | None:
    """The split that is named by the first of the words that names one."""
    return next((split_name(word) for word in words if word.lower() in SPLIT_NAMES), None)


def is_background(name: str) -> bool:
    """Whether a class is called background, in any case, perhaps between underscores."""
    return name.strip("_").lower() == BACKGROUND


def background_of(names: Iterable[str]) -> str:
    """The class that is the background; empty if there is none."""
    found = [*filter(is_background, names)]
    return next((name for name in found if name == "_background_"), "".join(found[:1]))


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """The classes of a format whose pixels of no shape are background: that is id 0."""
    first = background_of(names) or BACKGROUND
    return (first, *(name for name in names if name != first))
