"""The results of images in a folder: their names, which exist, which may be replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from fcn_keras.errors import UserError
from fcn_keras.files import storage
from fcn_keras.files.finding import FoundImage
from fcn_keras.files.writing import write_file

EXTRAS = ("overlay", "confidence", "probabilities")
SCALE = "confidence_scale"  # is written with the confidence
FOLDERS = (*EXTRAS, SCALE)  # beside the masks
POLYGONS = ("labelme", "coco")  # folders of JSON files, which share no name with masks
MERGED = {"coco": "coco.json"}  # written once, from all files of the folder
LABELME_START = b'{"version"'  # as predict writes it; labelme indents what it saves
# In the output folder: the list of the results written there. One JSON string per line, since a
# file name may contain a line break; other lines are ignored.
LIST = ".fcn-keras-results"


def folders_of(extras: Iterable[str]) -> tuple[str, ...]:
    """The folders that these extras need."""
    wanted = {*extras}
    if "confidence" in wanted:
        wanted.add(SCALE)
    return tuple(folder for folder in (*FOLDERS, *POLYGONS) if folder in wanted)


def result_name(name: str, kind: str) -> str:
    """A result's path below the output folder, for an image's mask (`"mask"`) or an extra."""
    ending = {"probabilities": ".npz", "labelme": ".json", "coco": ".json"}.get(kind, ".png")
    return f"{name}{ending}" if kind == "mask" else f"{kind}/{name}{ending}"


class Results:
    """The results in an output folder, or at its address; holds one folder's listing at a time."""

    def __init__(self, output, extras: Iterable[str] = ()):
        self._output, self._kinds = str(output) or ".", (*folders_of(extras), "mask")
        self._merged = [MERGED[kind] for kind in self._kinds if kind in MERGED]
        self._folder: str | None = None
        self._changed: dict[str, float] = {}
        self._owned: set[str] | None = None

    def have(self, name: str, changed: float) -> bool:
        """Whether all results of an image exist and are not older than it."""
        self._look_into(name.rpartition("/")[0])
        return all(self._changed.get(result, -1) >= changed for result in self._names(name))

    def planned(
        self, images: Iterable[FoundImage], skip_existing: bool = False, overwrite: bool = False
    ) -> list[str]:
        """The names of the images whose results are to be written.

        Args:
            images: All images; folder by folder, as `found_images` yields them.
            skip_existing: Leave out images whose results exist, by `have`.
            overwrite: Let a result replace an image, a file that is not in the list, or one
                that was corrected in labelme.

        Raises:
            UserError: If one would without `overwrite`, or the folder cannot be read.
        """
        listed, planned = self._listed(), []
        sources, replaced, foreign = set(), {}, {}
        unlisted = f"a file that is not listed in {LIST}"
        for image in images:
            sources.add(_identity(image.path))
            if skip_existing and self.have(image.name, image.changed):
                continue
            planned.append(image.name)
            for result in () if overwrite else self._existing(image.name):
                replaced[result] = _identity(self._path(result))
                if result not in listed:
                    foreign[result] = unlisted
                elif self._corrected(result):
                    foreign[result] = "a file that was corrected (keep it by --skip-existing)"
        for result in () if overwrite else self._merged:
            if self._exists(result) and result not in listed:
                foreign[result] = unlisted
        sources.discard(None)
        taken = [result for result, identity in replaced.items() if identity in sources]
        if taken or foreign:
            first = next(iter(taken or foreign))
            what = "an image to predict" if taken else foreign[first]
            count = len({*taken, *foreign}) - 1
            raise UserError(
                f"{self._path(first)}: the result would replace {what}"
                f"{f', and {count} more files' if count else ''}. Choose another --output, or "
                "allow this with --overwrite."
            )
        return planned

    def claim(self, names: Iterable[str]) -> None:
        """Adds the results of images to the folder's list, before they are written.

        So they may be replaced later, even after a kill. A local list is appended to, as
        other processes may do the same; one at an address is rewritten.

        Raises:
            UserError: If the list cannot be written.
        """
        listed = self._listed()
        results = [*(result for name in names for result in self._names(name)), *self._merged]
        missing = [result for result in results if result not in listed]
        if not missing:
            return
        listed.update(missing)
        path = self._path(LIST)
        if storage.is_address(path):
            write_file(path, lambda partial: partial.write_text("".join(map(_line, listed))))
            return
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab", buffering=0) as file:
                after_a_kill = ["\n"] if file.tell() else []  # the last line may be cut off
                file.write("".join([*after_a_kill, *map(_line, missing)]).encode())
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}). Choose another path."
            ) from error

    def _listed(self) -> set[str]:
        if self._owned is None:
            path = self._path(LIST)
            if storage.is_address(path):
                data = storage.read(path) if storage.changed(path) else b""
            else:
                data = Path(path).read_bytes() if os.path.isfile(path) else b""
            names = map(_string, data.splitlines())
            self._owned = {name for name in names if name is not None}
        return self._owned

    def _existing(self, name: str) -> list[str]:
        """The results of an image whose names are taken, by anything at all."""
        if not storage.is_address(self._output):  # the disk decides whether case matters
            return [name for name in self._names(name) if os.path.lexists(self._path(name))]
        self._look_into(name.rpartition("/")[0])
        return [name for name in self._names(name) if name in self._changed]

    def _exists(self, result: str) -> bool:
        path = self._path(result)
        return storage.changed(path) > 0 if storage.is_address(path) else os.path.lexists(path)

    def _corrected(self, result: str) -> bool:
        path = self._path(result)
        if not result.startswith("labelme/") or not result.endswith(".json"):
            return False
        if storage.is_address(path):
            return not storage.read(path).startswith(LABELME_START)
        try:
            with open(path, "rb") as file:
                return file.read(len(LABELME_START)) != LABELME_START
        except OSError:
            return True

    def _look_into(self, folder: str) -> None:
        if folder != self._folder:
            self._folder, self._changed = folder, {}
            for result in self._names(f"{folder}/x" if folder else "x"):
                below = result.rpartition("/")[0]
                for entry in storage.list_folder(self._path(below)):
                    if not entry.is_folder:
                        self._changed["/".join(filter(None, (below, entry.name)))] = entry.changed

    def _names(self, name: str) -> list[str]:
        return [result_name(name, kind) for kind in self._kinds]

    def _path(self, result: str) -> str:
        return storage.join(self._output, result)


def _identity(path: str):
    """A value that two paths of the same file share; `None` if there is no file."""
    if storage.is_address(path):
        return path
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _line(result: str) -> str:
    return f"{json.dumps(result)}\n"


def _string(line: bytes) -> str | None:
    if not line.startswith(b'"'):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None
