"""The names that labels use -> photographs on this machine, and the classes of a data set."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fcn_keras.data.class_lists import MAX_NAME
from fcn_keras.data.conversion.files import files_below
from fcn_keras.data.conversion.source import Findings, Options, background_of, is_background
from fcn_keras.data.directory import read_class_list
from fcn_keras.data.split import IGNORE_ID, MAX_CLASSES, LabelSet
from fcn_keras.errors import UserError, few
from fcn_keras.files.finding import IMAGE_SUFFIXES

IGNORED = "__ignore__"  # labelme's name for pixels that are not labelled
SHOWN = 40  # names in a note


class Photographs:
    """The photographs below a folder, to be found by paths of another machine."""

    def __init__(self, root: Path):
        self.root = root
        self.used: set[Path] = set()
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in files_below(root, IMAGE_SUFFIXES):
            self._by_name.setdefault(path.name.lower(), []).append(path)
            self._by_stem.setdefault(path.stem.lower(), []).append(path)

    def exact(self, *names: str) -> Path | None:
        """The first of the paths, relative to the folder, that is there.

        A path without the suffix of an image is that of a file without its suffix.

        Raises:
            UserError: If several photographs differ only in their suffixes.
        """
        for name in names:
            scores = self._scores(name)
            if found := self._best({path: s for path, s in scores.items() if s[0]}, name):
                return found
        return None

    def like(self, name: str) -> Path | None:
        """The photograph whose path ends most like `name`; `None` if no file is called so.

        Raises:
            UserError: If several photographs fit equally well.
        """
        return self._best(self._scores(name), name)

    def _scores(self, name: str) -> dict[Path, tuple]:
        """How well each photograph fits: the whole path, common folders at its end, the case."""
        *folders, last = _parts(name) or [""]
        scores = {}
        whole = PurePosixPath(last).suffix.lower() in IMAGE_SUFFIXES
        for path in (self._by_name if whole else self._by_stem).get(last.lower(), []):
            ours = _parts(path.relative_to(self.root))[:-1]
            pairs = zip(reversed(ours), reversed(folders))
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            scores[path] = ours == folders, shared, path.name == last
        return scores

    def _best(self, scores: dict[Path, tuple], name: str) -> Path | None:
        best = [path for path, score in scores.items() if score == max(scores.values())]
        if len(best) > 1:
            raise UserError(f"{name!r} may be {best[0]} or {best[1]}. Rename or remove one.")
        self.used.update(best)
        return best[0] if best else None

    def unused(self) -> list[Path]:
        paths = {path for paths in self._by_name.values() for path in paths}
        return sorted(paths - self.used)


def _parts(path) -> list[str]:
    """The parts of a path of any system, without what climbs or does nothing."""
    text = os.path.normpath(PureWindowsPath(path).as_posix())
    return [part for part in PurePosixPath(text).parts if part not in ("/", "..", ".")]


def label_set(
    found: Mapping[str, tuple[int, Path]], background: str, options: Options, findings: Findings
) -> tuple[LabelSet, dict[str, int], int]:
    """The classes of labels.

    Args:
        found: Each label with the number of its shapes, and a file that has it.
        background: What pixels outside of all shapes are called, unless a label says it.
        options: `classes` lists the classes; otherwise they are sorted by name.
        findings: Gets a problem for each label that is no class, and notes.

    Returns:
        The classes, the id of each label (others are not labelled), and the id of pixels outside
        of all shapes.
    """
    good = []
    for label, (_, place) in found.items():
        if not 1 <= len(label) <= MAX_NAME or not label.isprintable():
            findings.problems.append(
                f"{place}: {label[:MAX_NAME]!r} is not a class name, which has 1 to {MAX_NAME} "
                "characters, none of them control characters. Rename the label."
            )
        elif label != IGNORED:
            good.append(label)
    if options.classes:
        labels = _listed(options.classes)
        background = background_of(labels.names)
    else:
        background = background_of(good) or background
        names = [background, *sorted(label for label in good if not is_background(label))]
        if len(names) > MAX_CLASSES:
            findings.problems.append(
                f"{found[names[1]][1]}: {len(names) - 1} different labels, such as "
                f"{few(names[1:])}; {MAX_CLASSES} classes are the most, with the background. "
                "Rename some in the tool that wrote them."
            )
            good, names = [], [background]
        labels = LabelSet(tuple(names))
        if good:
            findings.notes.append(
                f"the classes are {background} and the labels sorted by name: "
                f"{', '.join(labels.names[:SHOWN])}. For another order, list them in a file and "
                "name it by --classes."
            )
    ids = {name: number for number, name in enumerate(labels.names)}
    if background:  # a hole that is drawn may be called otherwise than in the list
        ids = {label: ids[background] for label in filter(is_background, good)} | ids
    for label in good:
        if label not in ids:
            count, place = found[label]
            findings.problems.append(
                f"{place}: the label {label!r} (shapes: {count}) is not in {options.classes}. "
                "Add it there, or rename it."
            )
    _note_instances(good, labels, options, findings)
    if not background:
        findings.notes.append(
            f"{options.classes} does not list _background_ or background: pixels outside of all "
            "shapes are unlabelled. Add it as the first line to make them a class."
        )
    return labels, ids, ids.get(background, IGNORE_ID)


def _listed(path: Path) -> LabelSet:
    labels = read_class_list(path)
    names = tuple(name for name in labels.names if name != IGNORED)
    return LabelSet(names) if 0 < len(names) < len(labels) else labels


def _note_instances(
    labels: Sequence[str], classes: LabelSet, options: Options, findings: Findings
) -> None:
    """Tells of labels such as horse-1 and horse-2, which are probably one class."""
    stems: dict[str, list[str]] = {}
    for label in sorted(labels):
        if found := re.fullmatch(r"(.*[^\W\d_])[-_ .#]?\d+", label):
            stems.setdefault(found[1], []).append(label)
    for stem, members in stems.items():
        if len(members) > 1 or stem in labels or stem in classes.names:
            shown = ",".join(members[:SHOWN]) + (",..." if len(members) > SHOWN else "")
            findings.notes.append(
                f"{few(members)} are different labels. If their numbers only count objects, add "
                f"--map {shlex.quote(f'{shown}={stem}')}"
                + (f" and list them in {options.classes}." if options.classes else ".")
            )
