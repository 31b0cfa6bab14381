"""Checks of settings: types, choices and bounds of a dataclass's fields, by their flags."""

from __future__ import annotations

import dataclasses
import math
import types
import typing

from fcn_keras.errors import UserError
from fcn_keras.files.reading import has_control_characters

MAX_INTEGER = 2**32 - 1  # NumPy accepts no larger seed
BOTH_FORMS = "--output-stride does not apply to --dilated. Give only one of them."


def check_value(field: dataclasses.Field, value) -> None:
    """Raises `UserError` if a value of the right type is not one that its field allows."""
    choices = field.metadata["choices"]
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    if choices and value not in (None, *choices):
        fault = f"be one of {', '.join(map(str, choices))}"
    else:
        values = value if isinstance(value, tuple) else (value,)
        numbers = [number for number in values if isinstance(number, int | float)]
        if not all(map(math.isfinite, numbers)):
            fault = "be finite"
        elif min(numbers, default=minimum) < minimum:
            fault = f"be at least {minimum}"
        elif max(numbers, default=maximum) > maximum:
            fault = f"be at most {maximum}"
        else:
            return
    raise UserError(f"{flag(field.name)} must {fault}. Received: {value!r}.")


def require_consistent(config) -> None:
    """Raises `UserError` if a `TrainConfig` has values that do not go together."""
    size, crop, initializer = config.short_side, config.crop, config.upsampling_initializer
    faults = {
        f"--learning-rate must be positive. Received: {config.learning_rate}.": (
            config.learning_rate <= 0
        ),
        f"--ema must be below 1. Received: {config.ema}.": config.ema >= 1,
        f"--label-smoothing must be below 1, such as 0.1. Received: {config.label_smoothing}.": (
            config.label_smoothing >= 1
        ),
        f"--scale needs 0 < LOW <= HIGH. Received: {config.scale}.": (
            not 0 < config.scale[0] <= config.scale[1]
        ),
        f"--crop needs two sides, or 0 0. Received: {crop}.": 0 in crop and crop != (0, 0),
        "--skip-smaller needs a --crop, and does not apply to --short-side.": (
            config.skip_smaller and (crop == (0, 0) or size != 0)
        ),
        BOTH_FORMS: config.dilated != (config.output_stride is None),
        "--auxiliary-weight requires --dilated.": (
            not config.dilated and config.auxiliary_weight is not None
        ),
        "--upsampling does not apply to --dilated, which resizes.": (
            config.dilated and config.upsampling != "dense"
        ),
        "--upsampling-initializer does not apply to --dilated, which resizes.": (
            config.dilated and initializer != "bilinear"
        ),
        "--upsampling-initializer requires --upsampling dense.": (
            initializer != "bilinear" and config.upsampling != "dense"
        ),
        "--frozen-epochs does not apply to --freeze backbone.": (
            config.frozen_epochs and config.freeze == "backbone"
        ),
        "--label-smoothing does not apply to --loss focal. Leave out one.": (
            config.label_smoothing and config.loss == "focal"
        ),
        f"--region-loss {config.region_loss} requires a positive --region-weight, such as 1.": (
            config.region_loss != "jaccard" and not config.region_weight
        ),
    }
    for message, wrong in faults.items():
        if wrong:
            raise UserError(message)


def require_types(settings) -> None:
    """Checks the values of a dataclass against its annotations.

    Raises:
        UserError: If one has the wrong type, is an integer too large for any use, or
            contains control characters, such as line breaks.
    """
    for name, hint in typing.get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        fault = None if _fits(value, hint) else f"be {_typename(hint)}"
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, int) and abs(part) > MAX_INTEGER:
                fault = fault or f"be at most {MAX_INTEGER}"
            elif isinstance(part, str) and has_control_characters(part):
                fault = fault or "not contain control characters"
        if fault:
            raise UserError(f"{flag(name)} must {fault}. Received: {ascii(value)[:100]}.")


def _fits(value, hint) -> bool:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if arguments:  # tuple[int, int] or tuple[float, ...]
        if not isinstance(value, tuple):
            return False
        hints = arguments if arguments[-1] is not ... else arguments[:1] * len(value)
        return len(value) == len(hints) and all(map(_fits, value, hints))
    if isinstance(value, bool):  # an int to Python
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _typename(hint) -> str:
    return str(hint) if typing.get_args(hint) else hint.__name__


def flag(name: str) -> str:
    """The flag of a setting, such as `--run-dir` for `run_dir`."""
    return "--" + name.replace("_", "-")
