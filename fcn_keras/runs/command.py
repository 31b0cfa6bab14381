"""Settings -> the command that sets them."""

from __future__ import annotations

import shlex

from fcn_keras.runs.checks import flag
from fcn_keras.runs.config import SETTINGS, TrainConfig
from fcn_keras.runs.recipes import RECIPES


def changed_settings(config: TrainConfig) -> dict:
    """The settings that differ from the recipe's, without the recipe and the run folder."""
    recipe = vars(TrainConfig.from_recipe(config.recipe, dilated=config.dilated))
    recipe["dilated"] = RECIPES[config.recipe].get("dilated", False)
    return {
        field.name: getattr(config, field.name)
        for field in SETTINGS
        if field.name not in ("recipe", "run_dir")
        and getattr(config, field.name) != recipe[field.name]
    }


def train_command(config: TrainConfig) -> str:
    """The `fcn-keras train` command, quoted for a shell, that trains with these settings."""
    words = ["fcn-keras", "train", "--recipe", config.recipe]
    for name, value in changed_settings(config).items():
        if isinstance(value, bool):
            words.append(flag(name if value else f"no_{name}"))
        elif value is not None:
            values = value if isinstance(value, tuple) else (value,)
            words += [flag(name), *map(str, values)]
    return shlex.join(words)
