"""torchvision's names for the weights of a ResNet or a dilated FCN."""

from __future__ import annotations

import re
from collections.abc import Mapping

import keras
import numpy as np

from fcn_keras.errors import UserError

_HEADS = {"head": "classifier", "auxiliary": "aux_classifier"}
_HEAD_LAYERS = {"conv": 0, "bn": 1, "score": 4}  # positions in torchvision's FCNHead
_WEIGHTS = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def torchvision_names(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights of a model by torchvision's names.

    Args:
        model: A dilated FCN, as torchvision's `fcn_resnet50`; or a backbone (`build_features`), as
            torchvision's `resnet50` without its last layer.
    """
    found: dict[str, keras.Variable] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            nested = torchvision_names(layer)
            found |= {f"backbone.{name}": weight for name, weight in nested.items()}
        elif layer.weights and (name := torchvision_layer(layer.name)):
            found |= {f"{name}.{_WEIGHTS[weight.name]}": weight for weight in layer.weights}
    return found


def set_torchvision_weights(model: keras.Model, state: Mapping[str, np.ndarray], source) -> None:
    """Sets the weights of a model to those of a state dict of torchvision.

    Args:
        model: As of `torchvision_names`.
        state: Arrays by torchvision's names. More than the model has are ignored, such as those
            of a classifier or an auxiliary head.
        source: Where they come from, for errors.

    Raises:
        UserError: If one is missing, has another shape or is not finite; the model is then
            unchanged.
    """
    values = []
    for name, weight in torchvision_names(model).items():
        if name not in state:
            raise UserError(f"{source}: not the weights of this network: it lacks {name!r}.")
        value, shape = np.asarray(state[name]), tuple(weight.shape)
        if len(shape) == 4:  # PyTorch's kernels are (out, in, height, width)
            shape = tuple(shape[axis] for axis in (3, 2, 0, 1))
        if value.shape != shape:
            raise UserError(
                f"{source}: not the weights of this network: {name!r} has the shape "
                f"{value.shape}, not {shape}."
            )
        if not np.isfinite(value).all():
            raise UserError(f"{source}: {name!r} has values that are not finite. Train it again.")
        values.append((weight, value.transpose(2, 3, 1, 0) if len(shape) == 4 else value))
    for weight, value in values:
        weight.assign(value)


def torchvision_layer(name: str) -> str | None:
    """torchvision's name of a layer, e.g. `layer1.0.conv2` of `stack0_block0_2_conv`."""
    if match := re.fullmatch(r"conv1_(conv|bn)", name):
        return f"{match[1]}1"
    if match := re.fullmatch(r"stack(\d)_block(\d+)_(\d)_(conv|bn)", name):
        stage, block, position, kind = match.groups()
        part = f"downsample.{int(kind == 'bn')}" if position == "0" else kind + position
        return f"layer{int(stage) + 1}.{block}.{part}"
    first, _, second = name.partition("_")
    head, kind = (second, first) if first == "score" else (first, second)
    return f"{_HEADS[head]}.{_HEAD_LAYERS[kind]}" if head in _HEADS else None
