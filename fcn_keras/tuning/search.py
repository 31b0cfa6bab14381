"""The settings of a hyperparameter search, and its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from fcn_keras.errors import UserError, first_line
from fcn_keras.files.reading import as_object, build, damage_as_user_errors, read_object, read_text
from fcn_keras.files.writing import atomic_path
from fcn_keras.runs.checks import flag, require_types
from fcn_keras.runs.config import TrainConfig, renamed
from fcn_keras.runs.folder import RunFolder
from fcn_keras.runs.paths import absolute
from fcn_keras.runs.software import software

# Each range or list, and the setting of a run that it varies.
FIELDS = {
    "learning_rates": "learning_rate",
    "weight_decays": "weight_decay",
    "crops": "crop",
    "batch_sizes": "batch_size",
}
JOURNAL = "journal.log"
RUNS = "trial_*/run"


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched, and how. With `None` for a range or list, `train`'s value stays fixed.

    Args:
        train: The settings that all trials share.
        tuner: `"random"`, `"bayesian"` or `"hyperband"`.
        trials: Number of trials.
        steps: Optimizer steps per trial; `None` for `train.epochs`.
        learning_rates: Smallest and largest value, searched on a logarithmic scale.
        weight_decays: The same.
        crops: Sizes such as `"160x224"`, height first.
        batch_sizes: Images per step.

    Raises:
        UserError: If a value has the wrong type or is out of range.
    """

    train: TrainConfig
    tuner: str = "random"
    trials: int = 12
    steps: int | None = None
    learning_rates: tuple[float, float] | None = None
    weight_decays: tuple[float, float] | None = None
    crops: tuple[str, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None

    def __post_init__(self):
        for name in FIELDS:  # JSON has lists only
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        require_types(self)
        for name in ("trials", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1. Received: {value}.")
        for name in ("learning_rates", "weight_decays"):
            low, high = getattr(self, name) or (1, 2)
            if not 0 < low < high < math.inf:
                raise UserError(f"{flag(name)} needs 0 < LOW < HIGH. Received: {low} {high}.")
        if self.tuner == "hyperband" and self.steps:
            raise UserError(
                "--tuner hyperband compares trials after whole epochs: give --epochs, not --steps."
            )
        for crop in self.crops or ():
            self.settings({"crop": crop})
        smallest = min(self.batch_sizes or (1,))
        if smallest < 1:
            raise UserError(f"--batch-sizes must be at least 1. Received: {smallest}.")

    def settings(self, values: dict, steps_per_epoch: int | None = None) -> TrainConfig:
        """The settings of a trial.

        Args:
            values: Of the hyperparameters, by the names of `TrainConfig`'s fields.
            steps_per_epoch: Of this trial, to convert `steps` to epochs.
        """
        changes = {name: values[name] for name in FIELDS.values() if name in values}
        for name in {"learning_rate", "weight_decay"} & set(changes):
            changes[name] = float(f"{changes[name]:.4g}")  # legible, and as reported
        if "crop" in changes:
            changes["crop"] = tuple(map(int, changes["crop"].split("x")))
        if self.steps and steps_per_epoch:
            # The schedule is that of the trial, not of a longer run.
            changes |= {"epochs": -(-self.steps // steps_per_epoch), "max_steps": self.steps}
        return dataclasses.replace(self.train, **changes)

    def to_dict(self) -> dict:
        """The settings as `search.json` holds them."""
        return {**vars(self), "train": vars(absolute(self.train))}

    @classmethod
    def read(cls, directory) -> Search:
        """The search that a folder belongs to.

        Raises:
            UserError: If there is none, its `search.json` is damaged, or KerasTuner ran it.
        """
        path = Path(directory, "search.json")
        if not path.is_file():
            raise UserError(f"{directory}: not a search, as it has no search.json.")
        if not path.with_name(JOURNAL).is_file():
            raise UserError(
                f"{directory}: a search by an earlier version, as it has no {JOURNAL}. Choose "
                "another --search-dir."
            )
        return cls._parsed(path)

    @classmethod
    def _parsed(cls, path: Path) -> Search:
        with damage_as_user_errors(f"{path}: damaged or of another version"):
            content = as_object(read_object(path)["search"], "search")
            train = renamed(as_object(content["train"], "train"))
            return build(cls, {**content, "train": build(TrainConfig, train)})


def claim_folder(search: Search, directory) -> bool:
    """Makes the folder of a search, or checks that an existing one matches it.

    The number of trials may grow. A search whose trials never started is replaced.

    Returns:
        Whether an earlier search continues.

    Raises:
        UserError: If the folder holds something else, or a search with other settings.
    """
    directory = Path(directory)
    path, journal = directory / "search.json", directory / JOURNAL
    begun = any(directory.glob(RUNS))
    if path.is_file() and begun:
        different = _differences(Search.read(directory), search)
        if different:
            raise UserError(
                f"{directory}: holds a search with other settings: {'; '.join(different)}. Choose "
                "another --search-dir, or the same settings."
            )
    elif directory.exists() and any(directory.iterdir()):
        try:
            Search._parsed(path)
        except UserError as error:
            raise UserError(
                f"{directory}: holds something else. Choose another --search-dir."
            ) from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stale in () if begun else directory.glob("trial_*"):
            shutil.rmtree(stale)
        for stale in () if begun else (journal, path, directory / "report.json"):
            stale.unlink(missing_ok=True)
        with atomic_path(path) as partial:
            content = {"search": search.to_dict(), **software()}
            partial.write_text(json.dumps(content, indent=2) + "\n")
        if begun:  # a full disk or a loss of power may have cut off the last line
            os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
        else:
            optuna.create_study(storage=_storage(journal), direction="maximize", study_name="tune")
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written ({error.strerror}). Choose another --search-dir."
        ) from error
    return begun


def open_study(directory) -> optuna.Study:
    """Optuna's study of a search, from the journal in its folder.

    Raises:
        UserError: If the journal is damaged.
    """
    path = Path(directory, JOURNAL)
    with journal_damage(directory):
        for line in read_text(path).split("\n")[:-1]:  # without one still being written
            json.loads(line)  # Optuna ignores damage to the last one
        study = optuna.load_study(study_name="tune", storage=_storage(path))
        if len(study.trials) < len(list(path.parent.glob(RUNS))):
            raise ValueError("it lacks trials whose runs exist")
    return study


@contextlib.contextmanager
def journal_damage(directory):
    """Turns any error from a damaged journal into a `UserError`, as Optuna checks little."""
    try:
        yield
    except Exception as error:
        reason = first_line(error).removesuffix(".")
        raise UserError(
            f"{directory}: {JOURNAL} is damaged ({reason}). Choose another --search-dir."
        ) from error


def trial_run(directory, number) -> RunFolder:
    """The run folder of a search's trial."""
    return RunFolder(Path(directory, f"trial_{number}", "run"))


def _storage(path: Path) -> optuna.storages.JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock = JournalFileOpenLock(str(path))  # the default may wait forever for a killed process
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock))


def _differences(old: Search, new: Search) -> list[str]:
    flat = [{**search.to_dict(), **search.to_dict()["train"]} for search in (old, new)]
    return [
        f"{flag(name)} {_text(flat[0][name])} there, {_text(flat[1][name])} here"
        for name in flat[0]
        if name not in ("train", "trials") and flat[0][name] != flat[1][name]
    ]


def _text(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
