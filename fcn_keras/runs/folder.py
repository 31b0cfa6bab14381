"""The files of one training run: `config.json`, `history.csv`, models, pictures."""

from __future__ import annotations

import contextlib
import csv
import datetime
import itertools
import json
import math
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError, first_line
from fcn_keras.files.onnx_files import is_onnx, read_onnx
from fcn_keras.files.published import SUFFIXES, fetched, is_cached, published, require_kind
from fcn_keras.files.reading import as_object, build, damage_as_user_errors, read_object, read_text
from fcn_keras.files.torch_networks import read_fcn
from fcn_keras.files.writing import PARTIAL, atomic_path
from fcn_keras.runs.config import DROPPED, TrainConfig, renamed
from fcn_keras.runs.history import out_of_patience
from fcn_keras.runs.paths import absolute, shown_settings
from fcn_keras.runs.software import software

MODELS = (
    "Give a run's folder, a .keras file, a .pth file with an FCN of torchvision, or a name of "
    "fcn-keras weights list"
)
KERAS_ONLY = (
    "an ONNX file, which only predict, evaluate, demo and Segmenter.load run. Give the model that "
    "it was exported from."
)
LABELS_FILE = "labels.json"  # in exported .keras files
MOST_RUNS = 12  # on one page, whose style sheet has as many lines
# The four metrics of Long et al. 2015: their names in metrics.json and in texts.
MEASURES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
}


class RunFolder:
    """Paths in a run's folder, and what is written and read there.

    A file appears under its name only when it is complete, as a run may be killed
    at any moment. The run is finished when `metrics.json` exists.
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
        """Makes the folder of a new run: `config.run_dir`, or one in `runs/` named after the time.

        Raises:
            UserError: If it exists and is not empty, or cannot be created.
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
                f"{path}: the run folder cannot be created ({error.strerror}). Choose another "
                "--run-dir."
            ) from error
        return cls(path)

    def remove_partials(self) -> None:
        """Removes files that a killed process left incomplete."""
        for partial in self.path.glob(f"{PARTIAL}*"):
            partial.unlink(missing_ok=True)

    def write_config(
        self, config: TrainConfig, labels: LabelSet, additions: dict | None = None
    ) -> None:
        """Writes the settings, classes, versions, git commit and commands that made this run.

        `additions` are those of `runs.additions`.
        """
        earlier = []
        with contextlib.suppress(UserError):  # of a resumed run
            earlier = self.read_origin()["commands"]
        content = {
            "train": vars(absolute(config)),
            **({"python": additions} if additions else {}),
            "labels": {"names": labels.names, "palette": labels.palette},
            **software(),
            "commands": [*earlier, sys.argv],
        }
        with atomic_path(self.config, durable=True) as path:
            path.write_text(json.dumps(content, indent=2) + "\n")

    def read_config(self) -> TrainConfig:
        """The run's settings.

        Raises:
            UserError: If the folder is not a run, or its `config.json` is damaged.
        """
        with self._config_damage():
            settings = renamed(self._read_settings())
            return build(TrainConfig, {k: v for k, v in settings.items() if k not in DROPPED})

    def require_known_settings(self) -> None:
        """Checks that this version can resume or repeat the run.

        Raises:
            UserError: If it has another value for a setting that is now fixed; also like
                `read_config`.
        """
        with self._config_damage():
            settings = self._read_settings()
        for name, fixed in DROPPED.items():
            value = settings.get(name, fixed)
            if value != fixed:
                raise UserError(
                    f"{self.config}: trained with {name} {value}, which this version fixes at "
                    f"{fixed}. Train again, or continue with the version that made it."
                )

    def read_labels(self) -> LabelSet:
        """The run's classes; raises `UserError` like `read_config`."""
        with self._config_damage():
            return build(LabelSet, read_object(self.config)["labels"])

    def read_origin(self) -> dict:
        """The `versions`, `git_commit` and `commands` that made the run, as far as known.

        Raises:
            UserError: Like `read_config`.
        """
        with self._config_damage():
            content = read_object(self.config)
            versions = as_object(content.get("versions") or {}, "versions")
            commit = content.get("git_commit")
            # Earlier versions wrote a single command.
            commands = content.get("commands") or [content.get("command") or []]
            if not isinstance(commands, list) or not all(isinstance(c, list) for c in commands):
                raise ValueError("commands must be a list of lists")
            known = [text for text in (commit, *versions.values()) if text is not None]
            if not all(isinstance(text, str) for text in itertools.chain(known, *commands)):
                raise ValueError("versions, git_commit and commands must be strings")
            commands = [words for words in commands if words]
            return {"versions": versions, "git_commit": commit, "commands": commands}

    def read_additions(self) -> dict:
        """The names of the run's `augment` and `callbacks` from Python; empty if it has none.

        Raises:
            UserError: Like `read_config`.
        """
        with self._config_damage():
            additions = as_object(read_object(self.config).get("python") or {}, "python")
            augment, callbacks = additions.get("augment"), additions.get("callbacks") or []
            strings = isinstance(callbacks, list) and all(
                isinstance(name, str) for name in (augment or "", *callbacks)
            )
            if not strings:
                raise ValueError("augment must be a string, and callbacks a list of strings")
            return {"augment": augment, "callbacks": callbacks} if augment or callbacks else {}

    def _read_settings(self) -> dict:
        return as_object(read_object(self.config)["train"], "train")

    @contextlib.contextmanager
    def _config_damage(self):
        if not self.config.is_file():
            raise UserError(f"{self.path}: not a run folder, as it has no config.json.")
        with damage_as_user_errors(f"{self.config}: damaged or of another version"):
            yield

    def write_history(self, rows: list[dict]) -> None:
        """Writes `history.csv`, one row per epoch."""
        with atomic_path(self.history, durable=True) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[-1], restval="nan")  # older rows may be shorter
            writer.writeheader()
            writer.writerows(rows)

    def is_finished(self, saved: TrainConfig, config: TrainConfig) -> bool:
        """Whether no training remains once the saved settings become `config`."""
        history = self.read_history()
        return self.metrics.is_file() and (
            config.epochs <= len(history)
            or out_of_patience(history, config.early_stopping)
            or bool(saved.max_steps and config.max_steps == saved.max_steps)
        )

    def read_history(self) -> list[dict]:
        """The rows of `history.csv` with numbers as floats; empty if there is none yet.

        Raises:
            UserError: If the file is damaged.
        """
        if not self.history.is_file():
            return []
        with damage_as_user_errors(f"{self.history}: damaged"):
            names, *lines = csv.reader(read_text(self.history).splitlines())
            rows = [dict(zip(names, map(float, line), strict=True)) for line in lines if line]
            for number, row in enumerate(rows, start=1):
                if row["epoch"] != number or any(map(math.isinf, row.values())):
                    raise ValueError(f"row {number} has a wrong epoch or is infinite")
                row["val_mean_iou"]  # from which the best epoch follows
            return [{**row, "epoch": int(row["epoch"])} for row in rows]

    def require_history(self) -> list[dict]:
        """The rows of `read_history`; also raises `UserError` if there are none."""
        history = self.read_history()
        if not history:
            raise UserError(f"{self.path}: nothing to report yet, as no epoch is finished.")
        return history

    def write_metrics(self, metrics: dict) -> None:
        """Writes `metrics.json`, which marks the run as finished."""
        with atomic_path(self.metrics, durable=True) as path:
            path.write_text(json.dumps(metrics, indent=2) + "\n")

    def read_metrics(self) -> dict:
        """The content of `metrics.json`; raises `UserError` if it is damaged."""
        with damage_as_user_errors(f"{self.metrics}: damaged"):
            metrics = read_object(self.metrics)
            ious = as_object(metrics["per_class_iou"], "per_class_iou").values()
            values = [iou for iou in ious if iou is not None]
            values += [metrics[name] for name in MEASURES]
            if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
                raise ValueError("a metric is not a finite number")
            return metrics


def require_free(run_dir: str | None) -> None:
    """Raises `UserError` if the folder of a new run is not empty or cannot be used.

    Files of a run that was killed at its very start do not count.
    """
    path = Path(run_dir or "")
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}: not UTF-8, which TensorFlow needs for writing. Choose another --run-dir."
        ) from error
    if not run_dir or not path.exists():
        return
    if not path.is_dir() or any(not file.name.startswith(PARTIAL) for file in path.iterdir()):
        raise UserError(
            f"{path}: already exists and is never overwritten. Choose another --run-dir, or "
            f"continue the run with --resume {path}."
        )


def run_names(run_dirs: Sequence) -> list[str]:
    """The runs' names for a reader: their folders', and as much of the path as tells them apart.

    Raises:
        UserError: If a run is given twice, or there are more than `MOST_RUNS`.
    """
    paths = [Path(os.path.realpath(run_dir)) for run_dir in run_dirs]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UserError(f"{run_dirs[index]}: given twice. Pass each run once.")
    if len(paths) > MOST_RUNS:
        raise UserError(f"At most {MOST_RUNS} runs can be compared. Received: {len(paths)}.")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [str(Path(*path.parts[-depth:])) for path in paths]


def model_file(run_or_file, onnx: bool = False) -> Path:
    """The file of a model: the `best.keras` of a run's folder, or a `.keras` or `.pth` file.

    Published weights are downloaded if need be. A path has priority over their names.

    Args:
        run_or_file: The folder, file or name.
        onnx: Whether it may be an ONNX file, of which Keras makes no model.

    Raises:
        UserError: If it is missing or has another format.
    """
    if published(run_or_file):
        require_kind(str(run_or_file), is_fcn=True)
        return fetched(str(run_or_file))
    path = Path(run_or_file)
    path = RunFolder(path).best if path.is_dir() else path
    models = f"{MODELS}{', or an .onnx file that export wrote' if onnx else ''}."
    if not path.is_file():
        raise UserError(f"{path}: no such model. {models}")
    if path.suffix in (".h5", ".hdf5"):
        raise UserError(
            f"{path}: only .keras files are read, as others may run code. If you trust it, convert "
            f"it: keras.models.load_model({str(path)!r}).save({str(path.with_suffix('.keras'))!r})."
        )
    if is_onnx(path):
        if onnx:
            return path
        raise UserError(f"{path}: {KERAS_ONLY}")
    if path.suffix not in (".keras", *SUFFIXES):
        raise UserError(f"{path}: not a .keras model. {models}")
    return path


def require_model(run_or_file, onnx: bool = False) -> None:
    """Raises `UserError` for faults of a model that can be found without Keras.

    Those of `model_file`, a file that is not an archive, damaged classes in `config.json`, all of
    a `.pth` file except an unknown backbone, and those of `read_onnx`.
    """
    path = model_file(run_or_file, onnx)
    if path.suffix in SUFFIXES:
        read_fcn(path)
        return
    if is_onnx(path):
        read_onnx(path)
        return
    run = RunFolder(path.parent)
    try:
        with zipfile.ZipFile(path) as archive:
            complete = LABELS_FILE in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a .keras model, or a damaged one ({first_line(error)}). "
            f"{replacement(path)}"
        ) from error
    if not complete and run.config.is_file():
        run.read_labels()


def replacement(path: Path) -> str:
    """What to do about a damaged model file, as a sentence."""
    if is_cached(path):
        return "Delete it; then it is downloaded again."
    return "Choose another file."


def provenance(run_or_file) -> dict:
    """Where a model comes from, for those who do not have its run.

    Args:
        run_or_file: As for `model_file`.

    Returns:
        A dictionary for JSON: the file's name, the software that is running, and the
        run's settings, git commit and metrics. Paths keep their last components only.
    """
    path = model_file(run_or_file)
    origin = {"file": path.name, **software()}
    if path.suffix in SUFFIXES:  # of no run, even in its folder
        return origin
    run = RunFolder(path.parent)
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = read_object(run.config)
        train = shown_settings(as_object(content.get("train") or {}, "train"))
        origin["run"] = {key: content.get(key) for key in ("git_commit", "versions")}
        origin["run"]["train"] = train
        origin["run"]["metrics"] = run.read_metrics() if run.metrics.is_file() else None
    return origin
