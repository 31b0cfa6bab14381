"""A training run from start to end."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from fcn_keras.data import in_data_dir, pipeline
from fcn_keras.data.inspection import inspect_before_training
from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError, printable
from fcn_keras.evaluation import charts
from fcn_keras.evaluation.model_card import write_model_card
from fcn_keras.evaluation.scores import evaluate
from fcn_keras.files.writing import atomic_path
from fcn_keras.inference.loading import restore
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.models.fcn import build_fcn
from fcn_keras.runs.additions import additions_of, require_additions
from fcn_keras.runs.checks import flag
from fcn_keras.runs.config import TrainConfig, require_class_weights, split_of
from fcn_keras.runs.folder import RunFolder, require_free
from fcn_keras.runs.history import out_of_patience
from fcn_keras.runs.paths import require_relative, shown
from fcn_keras.training import objectives
from fcn_keras.training.accumulation import accumulate
from fcn_keras.training.automatic import settle
from fcn_keras.training.averages import Averages
from fcn_keras.training.callbacks import (
    Interruption,
    Recorder,
    ShareStatistics,
    StopAtStep,
    UnfreezeBackbone,
)
from fcn_keras.training.cluster import Cluster
from fcn_keras.training.devices import (
    compute_deterministically,
    is_chief,
    lost_workers_as_user_errors,
    make_strategy,
    meet,
    several_workers,
)
from fcn_keras.training.examples import as_seen, augmentation_of, fit_data, load_splits
from fcn_keras.training.faults import faults_as_user_errors
from fcn_keras.training.keras_bridge import prepare_fit
from fcn_keras.training.optimizers import make_optimizer
from fcn_keras.training.start import copy_run, pace_statistics, plan, seed_dropout
from fcn_keras.training.tensorboard import TensorBoard

PREDICTION_COLUMNS = 4


@lost_workers_as_user_errors()
def train(
    config: TrainConfig, augment: Callable | None = None, callbacks: Sequence = ()
) -> RunFolder | None:
    """Trains an FCN from the start, in a new run folder.

    If `TF_CONFIG` names several workers, each of them calls this; only the chief writes.

    Args:
        config: All settings.
        augment: A further augmentation, before all others: takes the whole image, uint8
            `(H, W, 3)` in RGB, and its mask, uint8 `(H, W)` of class ids and 255, both NumPy
            arrays, and returns both, perhaps of another size. It is called in several threads
            at once, and first with one example, to find mistakes early. A resumed run is
            exactly what it would have been only if the result depends on nothing but the
            arguments.
        callbacks: Further callbacks for `fit`. Their state is not saved for `resume`.

    Returns:
        The finished run's folder, with `metrics.json`, models and pictures; `None`
        for a worker that is not the chief.

    Raises:
        UserError: If a setting, file, folder or result of `augment` is unusable, or the loss
            diverges.
    """
    if not Cluster.from_environment():
        require_free(config.run_dir)  # with several workers, the chief checks once all have met
    if config.deterministic:
        compute_deterministically()
    strategy = make_strategy(config.devices)
    splits = load_splits(config)
    _note(_inspected(config, splits))
    config, reasons = settle(config, splits[0], strategy.num_replicas_in_sync)
    _note(_doubts(config, splits[0]))
    splits, additions = as_seen(config, splits, augment), additions_of(augment, callbacks)
    model, averages = _build_and_compile(config, splits, strategy)
    meet(strategy, _what_workers_share(config, splits), additions)
    run = RunFolder.create(config) if is_chief(strategy) else None
    with faults_as_user_errors(run):
        if run:
            run.remove_partials()
            run.write_config(config, splits[0].labels, additions)
            print(
                "\n".join([plan(config, splits), *reasons, f"Run folder: {run.path}"]), flush=True
            )
        return _fit_and_finish(run, config, splits, model, averages, callbacks, history=[])


@lost_workers_as_user_errors()
def resume(
    run_dir, augment: Callable | None = None, callbacks: Sequence = (), **changes
) -> RunFolder | None:
    """Continues a run after its last finished epoch, as if it had never stopped.

    Args:
        run_dir: The run's folder.
        augment: As for `train`. A run that began with one needs it.
        callbacks: The same.
        **changes: Settings that may differ from the run's: `epochs` to train
            beyond its end, and `max_steps`, `devices`, `data_dir`.

    Returns:
        The finished run's folder; `None` for a worker that is not the chief. A run
        that was already finished is not changed.

    Raises:
        UserError: If the folder is not a run, its files are unusable, or `augment` or
            callbacks that it began with are missing.
    """
    run = RunFolder(run_dir)
    saved = run.read_config()
    run.require_known_settings()
    if Cluster.from_environment():  # may continue what one machine began
        changes = {"devices": None, **changes}
    config = saved.resumed(**changes)
    history = run.read_history()
    if run.is_finished(saved, config):
        print(f"{run.path} is finished: {len(history)} epochs. Raise --epochs to train further.")
        return run

    additions = additions_of(augment, callbacks)
    require_additions(run, additions)
    begun = run.last.is_file()
    needed = {"dataset", "data_dir"} | (set() if begun else {"init_from", "weights"})
    require_relative(config, run.config, needed - {*changes})
    if config.deterministic:
        compute_deterministically()
    strategy = make_strategy(config.devices)
    splits = load_splits(config)
    if splits[0].labels != run.read_labels():
        raise UserError(f"{config.dataset}: its classes are no longer those of {run.path}.")
    splits = as_seen(config, splits, augment)
    if begun:
        # All weights come from the run: what it started from may be gone by now.
        bare = dataclasses.replace(config, weights="none", init_from=None)
        model, averages = _build_and_compile(bare, splits, strategy)
        with strategy.scope():
            restore(model, run.last)
    else:
        model, averages = _build_and_compile(config, splits, strategy)
    steps = pipeline.steps_per_epoch(splits[0], config.batch_size)
    steps_done = int(model.optimizer.iterations.numpy())
    epochs_done, rest = divmod(steps_done, steps)
    if config.max_steps and steps_done >= config.max_steps:
        epochs_done = len(history)  # its last epoch may be cut short
    elif rest:
        raise UserError(f"{run.path}: --max-steps ended it mid-epoch. Start a new run.")
    meet(strategy, _what_workers_share(config, splits), additions, steps_done)
    own = run if is_chief(strategy) else None
    with faults_as_user_errors(own):
        if own:
            own.remove_partials()
            own.metrics.unlink(missing_ok=True)
            own.write_config(config, splits[0].labels, additions)
            print(f"Run folder: {own.path}, after epoch {epochs_done}", flush=True)
        done = history[:epochs_done], steps_done
        return _fit_and_finish(own, config, splits, model, averages, callbacks, *done)


def build_model(config: TrainConfig, labels: LabelSet) -> keras.Model:
    """The network that a configuration describes, initialized from `init_from` if given."""
    model = build_fcn(
        config.backbone,
        len(labels),
        config.output_stride,
        dilated=config.dilated,
        auxiliary_head=bool(config.auxiliary_weight),
        weights=None if config.init_from or config.weights == "none" else config.weights,
        upsampling=config.upsampling,
        upsampling_initializer=config.upsampling_initializer,
        # New skips start at zero (Long et al., section 4.2).
        skip_initializer="zeros" if config.init_from else "glorot_uniform",
        freeze=config.freeze,
        synchronized_batchnorm=config.synchronized_batchnorm,
        short_side=config.short_side or None,
        dtype="float32" if config.mixed_precision == "off" else f"mixed_{config.mixed_precision}",
    )
    if config.init_from:
        copy_run(config.init_from, model, labels)
    return model


def _note(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"Note: {printable(note)}", file=sys.stderr)


def _inspected(config: TrainConfig, splits: tuple[Split, Split]) -> list[str]:
    """What is doubtful in a folder's masks; `UserError` if they are worth nothing."""
    if config.dataset == "sample" or in_data_dir(config.dataset):
        return []
    return inspect_before_training(config.dataset, splits)


def _doubts(config: TrainConfig, train: Split) -> Iterator[str]:
    """Notes on settings that were most likely not meant together."""
    images = len(train)
    steps = pipeline.steps_per_epoch(train, config.batch_size) * config.epochs
    if images < config.batch_size:
        yield (
            f"{images} training images are repeated to fill a batch of {config.batch_size}; "
            "consider a smaller --batch-size."
        )
    only_head = "learning_rate" in config.given and "backbone_rate" not in config.given
    if config.backbone_rate != 1 and only_head:
        yield (
            f"--learning-rate {config.learning_rate:g} is the head's; the backbone has "
            f"{config.backbone_rate:g} of it, by the recipe's --backbone-rate."
        )
    if config.frozen_epochs >= config.epochs:
        yield (
            f"--frozen-epochs {config.frozen_epochs} covers all epochs ({config.epochs}), so the "
            "backbone is never trained, as with --freeze backbone."
        )
    if config.weights == "none" and not config.init_from:
        for name, off in (("freeze", "none"), ("frozen_epochs", 0)):
            value = getattr(config, name)
            if value != off:
                yield f"--weights none starts from random values, which {flag(name)} {value} keeps."
    if config.optimizer == "adamw" and config.momentum and "momentum" in config.given:
        yield f"--momentum {config.momentum:g} has no effect on --optimizer adamw."
    if config.freeze == "backbone" and {"backbone_rate", "layer_decay"} & {*config.given}:
        yield "--backbone-rate and --layer-decay have no effect with --freeze backbone."
    if config.warmup_steps >= steps:
        yield (
            f"--warmup-steps {config.warmup_steps} covers all steps ({steps}), so the learning "
            "rate never reaches --learning-rate."
        )


def _build_and_compile(config: TrainConfig, splits: tuple[Split, Split], strategy):
    """The compiled model, and the averages of its weights or `None`."""
    labels, replicas = splits[0].labels, strategy.num_replicas_in_sync
    if config.batch_size % (replicas * config.accumulation_steps):
        parts = [f"{config.accumulation_steps} accumulation steps"]
        parts *= config.accumulation_steps > 1
        if replicas > 1:
            parts.append(f"{replicas} devices{' of all workers' * several_workers(strategy)}")
        raise UserError(
            f"--batch-size must be a multiple of the {' on each of '.join(parts)}. Received: "
            f"{config.batch_size}."
        )
    cluster = Cluster.from_environment()
    workers = len(cluster.addresses) if cluster else 1
    if config.cutmix and config.batch_size < 2 * workers:
        raise UserError(
            f"--cutmix needs a --batch-size of at least 2{' per worker' * (workers > 1)}. "
            f"Received: {config.batch_size}."
        )
    require_class_weights(config, len(labels))
    keras.utils.set_random_seed(config.seed)
    steps = pipeline.steps_per_epoch(splits[0], config.batch_size) * config.epochs
    class_weights: Any = config.class_weights  # no longer "auto"
    pixel_loss = functools.partial(
        objectives.SegmentationCrossentropy,
        class_weights,
        kind=config.loss,
        label_smoothing=config.label_smoothing,
    )
    with strategy.scope():
        model = build_model(config, labels)
        pace_statistics(model, steps)
        model.compile(
            make_optimizer(config, model, steps),
            pixel_loss(region_loss=config.region_loss, region_weight=config.region_weight),
            metrics=[objectives.SegmentationMetrics(len(labels))],
            jit_compile=False,  # XLA doubles a step's time on CPUs and can hang under a strategy
        )
        # So that load_weights finds its state.
        model.optimizer.build(model.trainable_variables)
        averages = Averages(model, config.ema) if config.ema else None
    if config.auxiliary_weight:
        objectives.add_auxiliary_loss(model, config.auxiliary_weight, pixel_loss())
    if config.accumulation_steps > 1:
        accumulate(model, config.accumulation_steps)
    return model, averages


def _fit_and_finish(
    run, config, splits, model, averages, further, history, steps_done=0
) -> RunFolder | None:
    """The rest of a run; `run` is `None` for all workers but the chief."""
    train_split, val_split = splits
    complete = (
        len(history) >= config.epochs
        or out_of_patience(history, config.early_stopping)
        or (config.max_steps and steps_done >= config.max_steps)
    )
    steps = pipeline.steps_per_epoch(train_split, config.batch_size)
    recorder = Recorder(run, history, averages, config.early_stopping, _columns(config))
    callbacks = [*([averages] if averages else []), ShareStatistics(), recorder, *further]
    if run:
        callbacks.append(TensorBoard(run.logs, val_split, averages))
    if config.frozen_epochs > len(history):
        callbacks.append(UnfreezeBackbone(model, config.frozen_epochs))
    if config.max_steps:
        callbacks.append(StopAtStep(config.max_steps, steps_done))
    if not complete:
        strategy = model.distribute_strategy
        with strategy.scope():
            seed_dropout(model, config.seed, steps_done)
        batches, validation = fit_data(config, splits, len(history), strategy)
        prepare_fit(model)
        with pipeline.bad_files_as_user_errors(), Interruption() as interruption:
            model.fit(
                batches,
                steps_per_epoch=steps,
                epochs=config.epochs,
                initial_epoch=len(history),
                validation_data=validation,
                validation_steps=-(-len(val_split) // strategy.num_replicas_in_sync),
                validation_freq=_validated_epochs(config),
                callbacks=[*callbacks, interruption],
                shuffle=False,  # training_batches does
                verbose=0 if not run else 1 if sys.stdout.isatty() else 2,
            )
    if run:
        _finish(run, (train_split, split_of(config, "val")), recorder.history)
    meet(model.distribute_strategy)  # to the chief, a worker that ends earlier looks lost
    return run


def _finish(run: RunFolder, splits: tuple[Split, Split], history: list[dict]) -> None:
    val_split = splits[1]
    print(f"Measuring {run.best.name} on {len(val_split)} validation images ...", flush=True)
    segment = Segmenter.load(run.path)
    scores = evaluate(segment, val_split)
    examples = val_split.spread(PREDICTION_COLUMNS)
    images, truths = zip(*map(examples.read, range(len(examples))))
    predictions = [segment(image) for image in images]
    figures = {
        run.curves: charts.draw_curves(history, run.read_config().loss_title),
        run.predictions: charts.draw_grid(images, predictions, truths, val_split.labels),
    }
    for path, figure in figures.items():
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=120)
    write_model_card(run, splits, scores, history)
    run.write_metrics(scores.to_dict())  # last, as it marks the run as finished
    print(f"Mean IoU {scores.mean_iou:.4f}, pixel accuracy {scores.pixel_accuracy:.4f} on val.")
    files = "metrics.json, MODEL_CARD.md, curves.png, predictions.png, best.keras"
    print(f"Results: {run.path}{os.sep}{files}")


def _what_workers_share(config: TrainConfig, splits: tuple[Split, Split]):
    """What must be the same for all workers; the places of files may differ."""
    elsewhere: dict[str, Any] = dict.fromkeys(("data_dir", "run_dir", "init_from"))
    elsewhere |= {"dataset": "", "given": ()}
    elsewhere["weights"] = shown(config).weights
    return dataclasses.replace(config, **elsewhere), [split.ids for split in splits]


def _columns(config: TrainConfig):
    """Maps an epoch to the columns that give its resolution, if that changes."""

    def columns(epoch: int) -> dict:
        if not config.coarse_epochs:
            return {}
        coarse = epoch < config.coarse_epochs
        augment = augmentation_of(config)
        return {"crop_height": float((augment.halved() if coarse else augment).crop[0])}

    return columns


def _validated_epochs(config: TrainConfig) -> list[int]:
    every = range(config.validate_every, config.epochs, config.validate_every)
    return [*every, config.epochs]
