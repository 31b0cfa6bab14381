"""Which versions of a model are served: watches their folder, loads and unloads them.

A version is a folder named with a number; others are ignored. The newest `keep` versions
that can be loaded are served, and those that a label names. A new version is loaded once
its files have stayed the same from one look to the next, and becomes the default when it
can answer; until then the others keep serving. One that fails is left out until its
files change. The last version is kept even if its folder disappears.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fcn_keras.errors import UserError
from fcn_keras.serving.server.memory import give_back_memory

MAX_VERSION = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a version.

    Args:
        name: `LOADING`, `AVAILABLE` or `END`.
        error: Why it ended, unless it was just no longer wanted.
        code: TensorFlow's number for the error; 0 without one.
    """

    name: str
    error: str = ""
    code: int = 0


class LoadError(Exception):
    """A version cannot be loaded; the message is the reason, in one line.

    Attributes:
        code: TensorFlow's number for the error.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class ModelVersions:
    """The versions of one model.

    Args:
        name: What requests call the model.
        base_path: The folder of its versions.
        labels: Versions by the names that requests may use for them.
        keep: How many of the newest versions to serve.

    Raises:
        UserError: If there is no such folder, it has no version, or it lacks one
            that a label names.

    Attributes:
        models: Loaded versions by their numbers; a new dictionary at each change.
        states: The states of all versions that were ever seen.
    """

    def __init__(self, name: str, base_path, labels: dict[str, int] | None = None, keep: int = 2):
        self.name, self.base_path, self.labels = name, Path(base_path), dict(labels or {})
        self.models: dict[int, Any] = {}
        self.states: dict[int, State] = {}
        self._keep = keep
        self._seen: dict[int, tuple] = {}  # files at the last look
        self._failed: dict[int, tuple] = {}  # files that could not be loaded
        self._reported: dict[int, str] = {}  # why, as it was printed
        self._stopped = threading.Event()
        self._check_base_path()

    def start(self, load: Callable[[Path], object], poll_seconds: float) -> None:
        """Loads the versions, then looks for changes until `stop`.

        Args:
            load: Loads a model from a version's folder, or raises `LoadError`.
            poll_seconds: How long to wait between two looks.

        Raises:
            UserError: If no version can be loaded, or one that a label names cannot.
        """
        self._load = load
        failed = []
        while more := self._add(self._folders(), settled_only=False):
            failed += more  # older versions take their places
        missing = [version for version in self.labels.values() if version not in self.models]
        if missing or not self.models:
            version = missing[0] if missing else max(self.states, default=0)
            reason = self.states.get(version, State("END", "it has disappeared")).error
            raise UserError(
                f"{self.base_path / str(version)} cannot be loaded ({reason}). Export it again."
            )
        self._report(failed)
        self._watcher = threading.Thread(target=self._watch, args=(poll_seconds,), daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stops watching, once the version that is being loaded is done."""
        self._stopped.set()
        self._watcher.join()  # TensorFlow may abort if the interpreter ends first

    def look(self) -> None:
        """Loads versions that have appeared, unloads those that are no longer wanted."""
        folders, before = self._folders(), set(self.models)
        self._report(self._add(folders, settled_only=True))
        for version in sorted(set(self.models) - before):
            print(f"Loaded version {version}.", flush=True)
        wanted = self._newest(self.models.keys() & folders.keys()) or {max(self.models)}
        for version in self.models.keys() - wanted:
            self.models = {key: model for key, model in self.models.items() if key != version}
            self.states[version] = State("END")
            give_back_memory()
            print(f"Unloaded version {version}.", flush=True)

    def _watch(self, poll_seconds: float) -> None:
        problem = ""
        while not self._stopped.wait(poll_seconds):
            try:
                self.look()
                problem = ""
            except OSError as error:  # the base path is unavailable; what is loaded stays
                if str(error) != problem:
                    problem = str(error)
                    print(f"error: {problem}", file=sys.stderr, flush=True)

    def _add(self, folders: dict[int, Path], settled_only: bool) -> list[int]:
        """Loads what is missing, the newest first; returns what failed."""
        files = {key: _files_in(folders[key]) for key in folders.keys() - self.models.keys()}
        seen, self._seen = self._seen, files
        new = {version for version in files if self._failed.get(version) != files[version]}
        wanted = self._newest(new | (self.models.keys() & folders.keys()))
        failed = []
        for version in sorted(wanted & new, reverse=True):
            settled = files[version] and seen.get(version) == files[version]
            if (settled or not settled_only) and not self._add_one(version, folders[version]):
                self._failed[version] = files[version]
                failed.append(version)
        return failed

    def _add_one(self, version: int, folder: Path) -> bool:
        self.states[version] = State("LOADING")
        try:
            self.models = {**self.models, version: self._load(folder)}
            self.states[version] = State("AVAILABLE")
            self._reported.pop(version, None)
            return True
        except LoadError as error:
            self.states[version] = State("END", str(error), error.code)
        give_back_memory()
        return False

    def _report(self, failed: list[int]) -> None:
        """Prints why, but not repeatedly while a version is being copied."""
        for version in failed:
            path, reason = self.base_path / str(version), self.states[version].error
            if self._reported.get(version) == reason:
                continue
            self._reported[version] = reason
            print(f"error: {path} cannot be loaded ({reason}).", file=sys.stderr, flush=True)

    def _newest(self, versions: set[int]) -> set[int]:
        return set(sorted(versions)[-self._keep :]) | (versions & set(self.labels.values()))

    def _folders(self) -> dict[int, Path]:
        return {
            int(path.name): path
            for path in sorted(self.base_path.iterdir())
            if path.name.isascii() and path.name.isdecimal() and path.is_dir()
            if int(path.name) <= MAX_VERSION
        }

    def _check_base_path(self) -> None:
        if not self.base_path.is_dir():
            raise UserError(f"{self.base_path}: no such folder. Give the folder of all versions.")
        if (self.base_path / "saved_model.pb").exists():
            raise UserError(
                f"{self.base_path} is a single version. Give the folder that it is in, "
                f"{self.base_path.absolute().parent}."
            )
        folders = self._folders()
        if not folders:
            raise UserError(
                f"{self.base_path} contains no version (a folder named with a number). Export a "
                f"model there: fcn-keras export --model RUN --output {self.base_path}"
            )
        for label, version in self.labels.items():
            if version not in folders:
                known = ", ".join(map(str, sorted(folders)))
                raise UserError(
                    f"{self.base_path} has no version {version} for the label {label!r}. "
                    f"There are: {known}."
                )


def _files_in(folder: Path) -> tuple:
    """A value that changes when a folder's files do."""
    try:
        stats = ((str(path), path.lstat()) for path in sorted(folder.rglob("*")))
        return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    except OSError:  # it is changing at this moment
        return ()
