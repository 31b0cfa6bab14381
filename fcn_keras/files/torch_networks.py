"""State dicts of torchvision's networks: which network they are for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcn_keras.errors import UserError, few, printable
from fcn_keras.files.published import published_file
from fcn_keras.files.torch_weights import check_hash, read_state_dict

PREFIX = "backbone."  # of the backbone's weights in an FCN
PARALLEL = "module."  # of all weights, where PyTorch's DataParallel was saved


class Backbone(NamedTuple):
    """A ResNet's form, as in `models.backbones.RESNETS`."""

    block_type: str
    blocks: list[int]


def backbone_of(names: Container[str], prefix: str = PREFIX) -> Backbone:
    """The form of the ResNet that has weights of these names; blocks are numbered from 0."""

    def blocks(stage: int) -> int:
        each = (f"{prefix}layer{stage}.{block}.conv1.weight" for block in itertools.count())
        return next(number for number, name in enumerate(each) if name not in names)

    bottleneck = f"{prefix}layer1.0.conv3.weight" in names
    kind = "bottleneck_block" if bottleneck else "basic_block"
    return Backbone(kind, [blocks(stage) for stage in (1, 2, 3, 4)])


def read_fcn(path: Path) -> dict[str, np.ndarray]:
    """The state dict of an FCN of torchvision, such as `fcn_resnet50`.

    Raises:
        UserError: If the file is damaged, hostile or another network's, or has a published
            file's name, but not its hash.
    """
    state = _read(path)
    if "conv1.weight" in state:
        raise UserError(
            f"{path}: a backbone's weights, not a model. Pass it as train --weights {path}."
        )
    if any(name.startswith("classifier.0.convs.") for name in state):
        raise UserError(f"{path}: a DeepLab's weights, not an FCN's. {_choose(state)}")
    for name in (f"{PREFIX}conv1.weight", "classifier.0.weight", "classifier.4.weight"):
        if name not in state or state[name].ndim != 4:
            raise UserError(f"{path}: not an FCN of torchvision ({name!r}). {_choose(state)}")
    return state


def read_backbone(path: Path) -> dict[str, np.ndarray]:
    """The weights of a ResNet of torchvision, or of the one in an FCN; raises as `read_fcn`."""
    state = _read(path)
    if "conv1.weight" not in state:
        whole = len(PREFIX)
        state = {name[whole:]: state[name] for name in state if name.startswith(PREFIX)} or state
    if "conv1.weight" not in state or "layer4.0.conv1.weight" not in state:
        raise UserError(f"{path}: not the weights of a ResNet of torchvision. {_choose(state)}")
    return state


def _read(path: Path) -> dict[str, np.ndarray]:
    if known := published_file(path):
        check_hash(path, known.file)
    state = read_state_dict(path)
    if all(name.startswith(PARALLEL) for name in state):
        return {name.removeprefix(PARALLEL): value for name, value in state.items()}
    return state


def _choose(names: Iterable[str]) -> str:
    parts = {re.sub(r"\d+", "N", name) for name in itertools.islice(names, 1000)}
    return f"Choose another file. Its names are {printable(few(sorted(parts)))}."
