"""A search with Optuna, whose trials are runs of `train` and `resume`."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import random
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

import keras
import optuna
from optuna.trial import TrialState

from fcn_keras.data import pipeline
from fcn_keras.errors import UserError
from fcn_keras.runs.config import TrainConfig, split_of
from fcn_keras.runs.folder import RunFolder
from fcn_keras.runs.history import BEST_BY, validated
from fcn_keras.training import train as training
from fcn_keras.training.cluster import Cluster
from fcn_keras.training.start import settle
from fcn_keras.tuning.search import FIELDS, Search, claim_folder, open_study, trial_run

SAMPLERS = {
    "random": optuna.samplers.RandomSampler,
    "bayesian": optuna.samplers.TPESampler,
    "hyperband": optuna.samplers.RandomSampler,
}
# After 1, 3, 9, ... epochs hyperband continues the best third.
REDUCTION = 3
# A process that dies this often in the same epoch of a trial lacks memory for it.
MOST_DEATHS = 3


def run_search(search: Search, directory) -> None:
    """Runs a search to its end, or continues one that was stopped.

    Args:
        search: What is searched, and how.
        directory: Its folder. It holds Optuna's journal, and each trial's run
            folder in `trial_*/run`. Only the best trial's model is kept.

    Raises:
        UserError: If the settings are unusable or not those of the folder.
    """
    if Cluster.from_environment():
        raise UserError("A search runs on one machine, but TF_CONFIG names several. Unset it.")
    # Before TensorFlow starts.
    replicas = training.make_strategy(search.train.devices).num_replicas_in_sync
    split = split_of(search.train, "train")  # a mistake shows at once
    goes_on = claim_folder(search, directory)
    train = settle(_as_before(search.train, directory), split, replicas)  # once for all trials
    search = dataclasses.replace(search, train=train)
    study = open_study(directory)
    if search.tuner == "hyperband":
        study.pruner = optuna.pruners.HyperbandPruner(1, search.train.epochs, REDUCTION)
    known = study.trials
    waiting = [trial for trial in known if not trial.state.is_finished()]
    if goes_on:
        unfinished = "".join(f", continuing with trial {trial.number}" for trial in waiting)
        print(f"{directory}: {len(known) - len(waiting)} trials are done{unfinished}.", flush=True)
    for trial in waiting:
        _run(optuna.Trial(study, trial._trial_id), search, directory)
    for _ in range(len(known), search.trials):
        _run(study.ask(), search, directory)


def _as_before(train: TrainConfig, directory) -> TrainConfig:
    """The settings, with the automatic ones as the first trial, if any, decided them."""
    for config in sorted(Path(directory).glob("trial_*/run/config.json")):
        first = RunFolder(config.parent).read_config()
        automatic = {
            "weights": "auto",
            "mixed_precision": "auto",
            "class_weights": "auto",
            "batch_size": 0,
        }
        names = [name for name, value in automatic.items() if getattr(train, name) == value]
        return dataclasses.replace(train, **{name: getattr(first, name) for name in names})
    return train


def suggest(trial: optuna.Trial, search: Search) -> dict:
    """The values of a trial, by the names of `TrainConfig`'s fields.

    Values that it lacks depend only on its number and the trials before it, so that a
    search that was stopped continues with the same ones.
    """
    seed = random.Random(f"{search.train.seed}, {trial.number}").getrandbits(32)
    trial.study.sampler = SAMPLERS[search.tuner](seed=seed)
    values: dict[str, float | int | str] = {}
    for flag, name in FIELDS.items():
        choices = getattr(search, flag)
        if choices and flag in ("learning_rates", "weight_decays"):
            values[name] = trial.suggest_float(name, *choices, log=True)
        elif choices:
            values[name] = trial.suggest_categorical(name, choices)
    return values


def _run(trial: optuna.Trial, search: Search, directory) -> None:
    """Runs a trial to success or failure, and prints the outcome."""
    run = trial_run(directory, trial.number)
    try:
        score = _train_trial(trial, search, run)
        trial.study.tell(trial, score)
        outcome = f": {BEST_BY} {score:.4f}, best so far {trial.study.best_value:.4f}"
    except optuna.TrialPruned:
        trial.study.tell(trial, state=TrialState.PRUNED)
        outcome = f" pruned after {len(run.read_history())} epochs."
    except Exception as error:  # such as ResourceExhaustedError
        message = " ".join(str(error).split())
        if not isinstance(error, UserError):
            traceback.print_exc()
            message = f"{type(error).__name__}: {message[:300]}"
        elif trial.number == 0 and not run.path.exists():
            raise  # it never started to train: a setting of all trials is wrong
        trial.set_user_attr("error", message)
        trial.study.tell(trial, state=TrialState.FAIL)
        outcome = f" failed: {message}"
    print(f"Trial {trial.number}{outcome}", flush=True)
    _keep_best_model(trial.study, directory)


def _train_trial(trial: optuna.Trial, search: Search, run: RunFolder) -> float:
    """Trains the trial's run from where it stopped, and returns its best mean IoU."""
    values = suggest(trial, search)
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    ]
    print(f"\nTrial {trial.number}: {', '.join(shown)}", flush=True)
    steps = _steps_per_epoch(search.settings(values))
    config = search.settings(values, steps)
    trial.set_user_attr("steps_per_epoch", steps)
    judged = trial.study.trials[trial.number].last_step or 0
    with _deaths_counted(trial, run):
        for epochs in _rungs(search, judged):
            _train(run, dataclasses.replace(config, max_steps=epochs * steps))
            scores = validated(run.read_history())
            if scores:  # --validate-every may skip it
                trial.report(max(scores), epochs)
                if trial.should_prune():
                    raise optuna.TrialPruned
        _train(run, config)
    return max(validated(run.read_history()))


def _rungs(search: Search, judged: int) -> Iterator[int]:
    """The epochs beyond `judged` after which a trial may be pruned."""
    epochs = 1
    while search.tuner == "hyperband" and epochs < search.train.epochs:
        if epochs > judged:
            yield epochs
        epochs *= REDUCTION


def _keep_best_model(study: optuna.Study, directory) -> None:
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    completed = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    best = study.best_trial.number if completed else None
    for trial in finished:
        run = trial_run(directory, trial.number)
        run.last.unlink(missing_ok=True)
        if trial.number != best:
            run.best.unlink(missing_ok=True)


def _steps_per_epoch(config: TrainConfig) -> int:
    return pipeline.steps_per_epoch(split_of(config, "train"), config.batch_size)


def _train(run: RunFolder, config: TrainConfig) -> None:
    keras.backend.clear_session()
    gc.collect()
    if run.config.is_file():
        training.resume(run.path, max_steps=config.max_steps)
    else:
        shutil.rmtree(run.path, ignore_errors=True)  # killed before it was a run
        training.train(dataclasses.replace(config, run_dir=str(run.path)))


@contextlib.contextmanager
def _deaths_counted(trial: optuna.Trial, run: RunFolder):
    """Fails a trial in which the process died too often, unless Ctrl-C ended it.

    Without a GPU, the kernel kills a process that takes too much memory.
    """
    starts = trial.user_attrs.get("starts", [])
    epochs = len(run.read_history())
    if starts.count(epochs) >= MOST_DEATHS:
        raise MemoryError(
            f"killed {MOST_DEATHS} times in epoch {epochs + 1}, perhaps for lack of memory"
        )
    trial.set_user_attr("starts", [*starts, epochs])
    try:
        yield
    except KeyboardInterrupt:
        trial.set_user_attr("starts", starts)
        raise
