"""A `.pth` file with an FCN of torchvision -> the network, with its weights."""

from __future__ import annotations

from pathlib import Path

import keras

from fcn_keras.errors import UserError
from fcn_keras.files.torch_networks import PREFIX, backbone_of, read_fcn
from fcn_keras.models.backbones import RESNETS
from fcn_keras.models.fcn import build_fcn
from fcn_keras.models.graph import nested_layers
from fcn_keras.models.torchvision_names import set_torchvision_weights, torchvision_layer

SHORT_SIDE = 520  # of torchvision's transforms for its FCNs


def backbone_name(names) -> str | None:
    """The key of `RESNETS` for torchvision's names of an FCN's weights."""
    found = backbone_of(names)
    return next((name for name, form in RESNETS.items() if found == form), None)


def backbone_name_of(model: keras.Model) -> str | None:
    """The key of `RESNETS` for the backbone of an FCN."""
    layers = (layer.name for layer in nested_layers(model))
    backbone = (name for name in layers if name.startswith("stack"))
    return backbone_name({f"{PREFIX}{torchvision_layer(name)}.weight" for name in backbone})


def load_torch_fcn(path: Path) -> keras.Model:
    """Builds the dilated FCN that a state dict of torchvision is for, and sets its weights.

    It has an auxiliary head if the file has one (see `without_auxiliary_head`).

    Raises:
        UserError: If the file is damaged, hostile or another network's.
    """
    state = read_fcn(path)
    name = backbone_name(state)
    if name is None:
        kind, blocks = backbone_of(state)
        raise UserError(f"{path}: not one of {', '.join(RESNETS)}: it has {kind}s {blocks}.")
    model = build_fcn(
        name,
        len(state["classifier.4.weight"]),
        dilated=True,
        auxiliary_head="aux_classifier.4.weight" in state,
        short_side=SHORT_SIDE,
        weights=None,
    )
    set_torchvision_weights(model, state, path)
    return model
