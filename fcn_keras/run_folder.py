"""The files of one training run: `config.json`, `history.csv`, models, pictures."""

from __future__ import annotations

import contextlib
import csv
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

from fcn_keras.config import TrainConfig
from fcn_keras.datasets.base import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files import atomic_path

# What reading a damaged file raises; RecursionError comes of brackets in brackets.
DAMAGES = (
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    *(csv.Error, OSError),
)


class RunFolder:
    """Paths in a run's folder, and what is written and read there.

    A file appears under its name when it is complete: a run may be killed at
    any moment. The run is finished when `metrics.json` exists.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.history = self.path / "history.csv"
        self.best = self.path / "best.keras"
        self.last = self.path / "last.keras"
        self.metrics = self.path / "metrics.json"
        self.curves = self.path / "curves.png"
        self.predictions = self.path / "predictions.png"
        self.logs = self.path / "logs"

    @classmethod
    def create(cls, config: TrainConfig) -> RunFolder:
        """Makes the folder of a new run: `config.run_dir`, or one in `runs/` named by the time.

        Raises:
            UserError: If it exists and holds something, or cannot be made.
        """
        require_free(config.run_dir)
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = Path(config.dataset).resolve().name
        name = "".join(c if c.isprintable() else "_" for c in name)
        default = Path("runs", f"{name}-{now}")
        path = Path(config.run_dir or default)
        try:
            path.mkdir(parents=True, exist_ok=bool(config.run_dir))
        except OSError as error:
            raise UserError(
                f"{path}: the run folder cannot be made ({error.strerror}). Choose another "
                "--run-dir."
            ) from error
        return cls(path)

    def write_config(self, config: TrainConfig, labels: LabelSet) -> None:
        """Writes the settings, classes, versions, git commit and commands that made this run."""
        earlier = []
        with contextlib.suppress(*DAMAGES):  # of a run that is resumed
            before = json.loads(self.config.read_text())
            earlier = before.get("commands") or [before["command"]]
        content = {
            "train": vars(config),
            "labels": {"names": labels.names, "palette": labels.palette},
            **software(),
            "commands": [*earlier, sys.argv],
        }
        with atomic_path(self.config) as path:
            path.write_text(json.dumps(content, indent=2) + "\n")

    def read_config(self) -> TrainConfig:
        """The run's settings.

        Raises:
            UserError: If the folder is no run, or its `config.json` is damaged.
        """
        return self._parse_config(lambda content: TrainConfig(**content["train"]))

    def read_labels(self) -> LabelSet:
        """The run's classes; raises `UserError` like `read_config`."""
        return self._parse_config(lambda content: LabelSet(**content["labels"]))

    def _parse_config(self, parse):
        if not self.config.is_file():
            raise UserError(f"{self.path}: no run folder, as it has no config.json.")
        try:
            return parse(json.loads(self.config.read_text()))
        except DAMAGES as error:
            raise UserError(f"{self.config}: damaged or of another version ({error}).") from error

    def write_history(self, rows: list[dict]) -> None:
        """Writes `history.csv`, one row an epoch."""
        with atomic_path(self.history) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[-1], restval="nan")  # older rows may have less
            writer.writeheader()
            writer.writerows(rows)

    def read_history(self) -> list[dict]:
        """The rows of `history.csv` with numbers as floats; empty if there is none yet.

        Raises:
            UserError: If the file is damaged.
        """
        if not self.history.is_file():
            return []
        try:
            with self.history.open(newline="") as file:
                rows = [
                    {key: float(value) for key, value in row.items()}
                    for row in csv.DictReader(file)
                ]
            return [{**row, "epoch": int(row["epoch"])} for row in rows]
        except DAMAGES as error:
            raise UserError(f"{self.history}: damaged ({error}).") from error

    def write_metrics(self, metrics: dict) -> None:
        """Writes `metrics.json`, which marks the run as finished."""
        with atomic_path(self.metrics) as path:
            path.write_text(json.dumps(metrics, indent=2) + "\n")

    def read_metrics(self) -> dict:
        """The content of `metrics.json`; raises `UserError` if it is damaged."""
        try:
            return json.loads(self.metrics.read_text())
        except DAMAGES as error:
            raise UserError(f"{self.metrics}: damaged ({error}).") from error


def require_free(run_dir: str | None) -> None:
    """Raises `UserError` if something is in the folder of a new run, or it cannot be one."""
    path = Path(run_dir or "")
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}: not UTF-8, and TensorFlow writes nowhere else. Choose another --run-dir."
        ) from error
    if run_dir and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(
            f"{path}: exists already and is never overwritten. Choose another --run-dir, or "
            f"go on with it by --resume {path}."
        )


def model_file(run_or_file) -> Path:
    """The model that is meant by a run's folder, its `best.keras`, or by a file."""
    path = Path(run_or_file)
    return RunFolder(path).best if path.is_dir() else path


def provenance(run_or_file) -> dict:
    """Where a model comes from, for those who meet it without its run.

    Args:
        run_or_file: A run's folder or a `.keras` file, as for `model_file`.

    Returns:
        A dictionary for JSON: the file's name, the software that is running, and
        of a run its settings, its git commit and its measures.
    """
    path = model_file(run_or_file)
    origin = {"file": path.name, **software()}
    run = RunFolder(path.parent)
    with contextlib.suppress(*DAMAGES):
        content = json.loads(run.config.read_text())
        origin["run"] = {key: content.get(key) for key in ("train", "git_commit", "versions")}
        origin["run"]["metrics"] = run.read_metrics() if run.metrics.is_file() else None
    return origin


def software() -> dict:
    """The versions of Python and the packages that are running, and this package's git commit."""
    packages = ("fcn_keras", "tensorflow", "keras", "keras-hub", "numpy")
    versions = {package: _version(package) for package in packages}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
