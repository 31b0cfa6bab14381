"""A search by KerasTuner, whose trials are runs of `train` and `resume`."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import json
import math
import re
import shutil
import traceback
from pathlib import Path

import keras
import keras_tuner

from fcn_keras import pipeline, training
from fcn_keras.callbacks import BEST_BY
from fcn_keras.cluster import Cluster
from fcn_keras.config import TrainConfig
from fcn_keras.datasets import load_split
from fcn_keras.errors import UserError
from fcn_keras.files import atomic_path
from fcn_keras.reading import damage_as_user_errors, read_json
from fcn_keras.run_folder import RunFolder
from fcn_keras.tuning.search import FIELDS, Search, claim_folder

ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}
# A process that dies so often at the same epoch of a trial lacks memory for it.
MOST_DEATHS = 3


def run_search(search: Search, directory) -> None:
    """Runs a search to its end, or goes on with one that was stopped.

    Args:
        search: What is searched, and how.
        directory: Its folder. It holds KerasTuner's files, and each trial's run
            folder in `trial_*/run`. Only the best trial's model is kept.

    Raises:
        UserError: If the settings are unusable or not those of the folder.
    """
    if Cluster.from_environment():
        raise UserError("A search runs on one machine, but TF_CONFIG names several. Unset it.")
    training.make_strategy(search.train.devices)  # while TensorFlow has not started
    load_split(search.train.dataset, "train", search.train.data_dir)  # a mistake shows at once
    goes_on = claim_folder(search, directory)
    damage = damage_as_user_errors(
        f"{directory}: KerasTuner's files there are damaged", "Choose another --search-dir."
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it names a file of its own
        with damage if goes_on else contextlib.nullcontext():
            try:
                tuner = _Tuner(search, directory)
            except RecursionError:
                raise
            except (AttributeError, RuntimeError, TypeError) as error:  # of KerasTuner's parsing
                raise ValueError(str(error)) from error
    tuner.save()  # so that a kill within the first trial is one of this search
    if goes_on:
        ended, waiting = len(tuner.oracle.end_order), tuner.oracle._retry_queue
        unfinished = f", going on with trial {', '.join(waiting)}" if waiting else ""
        print(f"{directory}: {ended} trials are done{unfinished}.", flush=True)
    tuner.search()


class _Tuner(keras_tuner.Tuner):
    def __init__(self, search: Search, directory):
        directory = Path(directory)
        self.settings = search
        super().__init__(
            _make_oracle(search), directory=str(directory.parent), project_name=directory.name
        )
        self.oracle.verbose = 0

    def _try_run_and_update_trial(self, trial):
        """In place of KerasTuner's, which prints a traceback of every failure."""
        try:
            self._run_and_update_trial(trial)
            trial.status = "COMPLETED"
        except UserError as error:
            if not self.oracle.end_order and not self._run(trial.trial_id).path.exists():
                raise  # it did not begin to train: a setting of all trials is wrong
            trial.status, trial.message = "FAILED", " ".join(str(error).split())
        except Exception as error:  # such as ResourceExhaustedError
            traceback.print_exc()
            reason = " ".join(str(error).split())[:300]
            trial.status, trial.message = "FAILED", f"{type(error).__name__}: {reason}"

    def run_trial(self, trial):
        """Trains the trial's run from where it stopped, and returns its measures."""
        keras.backend.clear_session()
        gc.collect()
        run = self._run(trial.trial_id)
        values = trial.hyperparameters.values
        shown = [f"{name} {_text(values[name])}" for name in FIELDS.values() if name in values]
        print(f"\nTrial {trial.trial_id}: {', '.join(shown)}", flush=True)
        steps = _steps_per_epoch(self.settings.settings(values))
        config = self.settings.settings(values, steps)
        with _deaths_counted(run):
            _train(run, config)
        history = run.read_history()
        return {
            BEST_BY: max(row[BEST_BY] for row in history if not math.isnan(row[BEST_BY])),
            "epochs": len(history),
            "steps": min(len(history) * steps, config.max_steps or math.inf),
            "seconds": sum(row["seconds"] for row in history),
        }

    def on_trial_end(self, trial):
        """Says how it went, and removes the models of all trials but the best."""
        super().on_trial_end(trial)
        [best] = self.oracle.get_best_trials(1)
        for trial_id in self.oracle.end_order:
            run = self._run(trial_id)
            run.last.unlink(missing_ok=True)
            if trial_id != best.trial_id:
                run.best.unlink(missing_ok=True)
        if trial.status == "COMPLETED":
            score, top = trial.metrics.get_best_value(BEST_BY), best.score
            print(f"Trial {trial.trial_id}: {BEST_BY} {score:.4f}, best so far {top:.4f}")
        else:
            print(f"Trial {trial.trial_id} failed: {trial.message}", flush=True)

    def _run(self, trial_id: str) -> RunFolder:
        return RunFolder(Path(self.get_trial_dir(trial_id), "run"))

    def save(self):
        """Writes KerasTuner's files whole, as a kill may come at any moment."""
        self.oracle.save()
        with atomic_path(Path(self._get_tuner_fname())) as path:
            path.write_text(json.dumps(self.get_state()))


def _make_oracle(search: Search) -> keras_tuner.Oracle:
    budget = {"max_trials": search.trials}
    if search.tuner == "hyperband":
        budget = {"max_epochs": search.train.epochs}
    return _survivor_of_kills(ORACLES[search.tuner])(
        objective=keras_tuner.Objective(BEST_BY, "max"),
        hyperparameters=_hyperparameters(search),
        seed=search.train.seed + 1,  # KerasTuner takes 0 for none
        max_consecutive_failed_trials=2**31,  # failed trials never end the search
        **budget,
    )


def _hyperparameters(search: Search) -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    for flag, name in FIELDS.items():
        values = getattr(search, flag)
        if values and flag in ("learning_rates", "weight_decays"):
            space.Float(name, *values, sampling="log")
        elif values:
            space.Choice(name, list(values))
    return space


def _survivor_of_kills(oracle_class):
    """The class, with files that are whole or not there."""

    class Oracle(oracle_class):
        def save(self):
            with atomic_path(Path(self._get_oracle_fname())) as path:
                path.write_text(json.dumps(self.get_state()))

        def _save_trial(self, trial):
            with atomic_path(Path(self._get_trial_dir(trial.trial_id), "trial.json")) as path:
                path.write_text(json.dumps(trial.get_state()))

        def reload(self):
            super().reload()
            ids = {*self.trials, *self.start_order, *self.end_order, *self._retry_queue}
            if not all(re.fullmatch(r"\w+", trial_id) for trial_id in ids):  # they name folders
                raise ValueError(f"trials are called {ascii(sorted(ids))[:100]}")
            # One that only its own file knows was being made, and is made again.
            self.trials = {key: self.trials[key] for key in self.start_order}

    return Oracle


def _steps_per_epoch(config: TrainConfig) -> int:
    split = load_split(config.dataset, "train", config.data_dir)
    split = split.take(config.limit) if config.limit else split
    if config.skip_smaller:
        split = pipeline.drop_smaller(split, config.crop)
    return pipeline.steps_per_epoch(split, config.batch_size)


def _train(run: RunFolder, config: TrainConfig) -> None:
    if run.config.is_file():
        training.resume(run.path)
    else:
        shutil.rmtree(run.path, ignore_errors=True)  # killed before it was a run
        training.train(dataclasses.replace(config, run_dir=str(run.path)))


@contextlib.contextmanager
def _deaths_counted(run: RunFolder):
    """Fails a trial in which the process died too often, unless Ctrl-C ended it.

    Without a GPU, the kernel kills a process that takes too much memory.
    """
    path = run.path.with_name("starts.json")
    starts = read_json(path) if path.is_file() else []
    epochs = len(run.read_history())
    if starts.count(epochs) >= MOST_DEATHS:
        raise MemoryError(
            f"the process was killed {MOST_DEATHS} times in epoch {epochs + 1}, perhaps for that"
        )
    with atomic_path(path) as partial:
        partial.write_text(json.dumps([*starts, epochs]))
    try:
        yield
    except KeyboardInterrupt:
        path.write_text(json.dumps(starts))
        raise


def _text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
