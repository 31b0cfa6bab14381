"""Paths in settings and commands: absolute in a run's files, short where they are shown."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from typing import Any

from fcn_keras.data import TFDS, in_data_dir
from fcn_keras.errors import UserError
from fcn_keras.files.published import SUFFIXES, published
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.validation import flag

# Settings that may be paths, and their values that are not.
NAMES: dict[str, tuple[str, ...]] = {
    "dataset": ("sample", "voc2012", "voc2012_aug"),
    "data_dir": (),
    "weights": ("none", "imagenet", "auto"),
    "init_from": (),
    "run_dir": (),
}


def absolute(config: TrainConfig) -> TrainConfig:
    """The settings with absolute paths, which work from any folder."""
    paths: dict[str, Any] = {
        name: os.path.abspath(os.path.expanduser(path))
        for name, path in _paths(vars(config)).items()
    }
    return dataclasses.replace(config, **paths)


def shown(config: TrainConfig) -> TrainConfig:
    """The settings with the last components of paths, for readers on other machines."""
    return dataclasses.replace(config, **shown_settings(vars(config)))


def shown_settings(settings: dict) -> dict:
    """`shown` for settings from a file, perhaps of another version."""
    return settings | {name: _last(path) for name, path in _paths(settings).items()}


def shown_command(words: Iterable[str]) -> list[str]:
    """A command's words, with the last components of its paths."""
    pairs = (word.partition("=") if word.startswith("-") else ("", "", word) for word in words)
    return [name + equals + _last(value) for name, equals, value in pairs]


def shown_text(text: str, *paths) -> str:
    """A text, such as an error, with the last components of these paths, and `~` for home."""
    for path in sorted(map(os.path.abspath, filter(None, paths)), key=len, reverse=True):
        text = text.replace(path, _last(path))
    home = os.path.expanduser("~")
    # Only where it begins a path, not inside another one.
    whole = rf"(?<![\w.~-]){re.escape(home)}(?![\w-]|\.\w)"
    return re.sub(whole, "~", text) if len(home) > 1 else text


def require_relative(config: TrainConfig, where, names: Iterable[str], remedy: str = "") -> None:
    """Raises `UserError` if relative paths of an earlier version's run do not exist from here.

    Args:
        config: The run's settings.
        where: The file that the settings are from.
        names: Settings that are needed and not replaced.
        remedy: An alternative to changing to the folder where training began.
    """
    used = {*names} - (set() if in_data_dir(config.dataset) else {"data_dir"})
    for name, path in _paths(vars(config)).items():
        if name in used and not os.path.isabs(path) and not os.path.exists(path):
            raise UserError(
                f"{where}: {flag(name)} {path} is relative to the folder where training began; "
                f"{os.path.abspath(path)} does not exist. Run this from that folder{remedy}."
            )


def _paths(settings: dict) -> dict[str, str]:
    values = {name: settings.get(name) for name in NAMES}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str) and value not in ("", *NAMES[name])
        if not value.startswith(TFDS) and not published(value)
        if name != "weights" or _is_path(value)
    }


def _is_path(weights: str) -> bool:
    """Whether it is neither a preset's name nor a KerasHub handle."""
    known = os.path.isdir(weights) or weights.endswith(SUFFIXES)
    return known or (os.sep in weights and "://" not in weights)


def _last(path: str) -> str:
    return (
        path
        if "://" in path or path.startswith(TFDS) or published(path)
        else os.path.basename(path.rstrip(os.sep)) or path
    )
