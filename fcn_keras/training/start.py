"""What a run starts from: weights, and the plan that is printed."""

from __future__ import annotations

import sys

import keras

from fcn_keras.data import pipeline
from fcn_keras.data.split import LabelSet, Split, placeholder_names
from fcn_keras.errors import UserError, few
from fcn_keras.files.published import require_flags
from fcn_keras.inference.loading import load_model, read_labels, require_network
from fcn_keras.models.fcn import copy_weights, is_dilated, upsampling_of, without_auxiliary_head
from fcn_keras.models.graph import nested_layers
from fcn_keras.models.pretrained import backbone_name_of
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import model_file


def pace_statistics(model: keras.Model, steps: int) -> None:
    """Lets the moving averages of BatchNorm settle within a run of few steps.

    A momentum of 0.9 averages over about ten steps. A run of fewer than a hundred averages
    over a tenth of its steps, but over at least two.
    """
    for layer in nested_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, max(0.5, 1 - 10 / steps))


def seed_dropout(model: keras.Model, seed: int, steps_done: int) -> None:
    """Sets the states of dropout, which Keras does not save, to those after some steps."""
    for layer in nested_layers(model):
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign([seed, steps_done])


def copy_run(init_from: str, model: keras.Model, labels: LabelSet) -> None:
    """Copies the layers of a run or model file to a network; a note says if classes differ.

    Raises:
        UserError: If it cannot be loaded or has another backbone, or only it is dilated.
    """
    path = model_file(init_from)
    source = load_model(path, auxiliary_head=True)
    single = without_auxiliary_head(source)
    require_network(single, path)
    if is_dilated(source):
        own = backbone_name_of(model) or "an unknown one"
        require_flags(init_from, backbone_name_of(source), own, is_dilated(model))
    placeholders = placeholder_names(single.output_shape[-1])
    known = read_labels(path, len(placeholders))
    names = known.names if known else placeholders
    nameless = names == placeholders
    same = names == labels.names or (nameless and len(names) == len(labels))
    ids = [names.index(name) if name in names else None for name in labels.names]
    try:
        copied = copy_weights(source, model, None if same else ids)
    except UserError as error:
        raise UserError(f"--init-from {init_from}: {error}") from error
    kinds = upsampling_of(source), upsampling_of(model)
    if kinds[0] != kinds[1]:
        print(
            f"Note: --init-from {init_from} was trained with --upsampling {kinds[0]}, not "
            f"{kinds[1]}; upsampling starts as bilinear.",
            file=sys.stderr,
        )
    if names == labels.names:
        return
    if same:
        note = f"does not name its classes; they are taken to be {few(labels.names)} in this order."
    else:
        kept = [name for name in labels.names if name in names]
        anew = [name for name in labels.names if name not in names]
        layers = ", ".join(name for name in copied if name.startswith(("score_", "upscore_")))
        if not kept:
            rest = f"{layers} start{'s' * (', ' not in layers)} afresh."
        elif anew:
            rest = f"in {layers}: {few(kept)} keep their values; {few(anew)} start afresh."
        else:
            rest = f"in {layers}, values are matched by class name."
        note = f"has other classes ({few(names)}): the backbone is copied; {rest}"
    print(f"Note: --init-from {init_from} {note}", file=sys.stderr)


def plan(config: TrainConfig, splits: tuple[Split, Split]) -> str:
    """A run in short: network, start, images, steps and class weights."""
    weights = {"none": "random values", "imagenet": "ImageNet weights"}
    start = config.init_from or weights.get(config.weights, config.weights)
    steps = pipeline.steps_per_epoch(splits[0], config.batch_size)
    of_classes = [
        f"{name} {weight:g}"
        for name, weight in zip(splits[0].labels.names, config.class_weights or ())
    ]
    side = f", resized to a shorter side of {config.short_side}" if config.short_side else ""
    ends_early = 0 < (config.max_steps or 0) < config.epochs * steps
    return (
        f"{config.network} on {config.backbone}, starting from {start}. "
        f"Images: {len(splits[0])} for training, {len(splits[1])} for validation{side}. "
        f"Recipe {config.recipe}: {_counted(config.epochs, 'epoch')}, each of "
        f"{_counted(steps, 'step')} of {_counted(config.batch_size, 'image')}, "
        f"{_counted(config.epochs * steps, 'step')} in all"
        + (f"; ends after {config.max_steps} of them." if ends_early else ".")
        + (f" Class weights: {', '.join(of_classes)}." if of_classes else "")
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
