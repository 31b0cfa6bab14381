"""The trials of a search as a table, and the best trial's command."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path

import optuna

from fcn_keras.files.writing import write_file
from fcn_keras.runs.command import train_command
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.paths import shown
from fcn_keras.tuning.search import Search, journal_damage, open_study, trial_run

STATUS = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed"}
COLUMNS = {
    "rank": "{}",
    "trial": "{}",
    "val_mean_iou": "{:.4f}",
    "learning_rate": "{:.4g}",
    "weight_decay": "{:.4g}",
    "crop": "{}",
    "batch_size": "{}",
    "steps": "{:.0f}",
    "seconds": "{:.0f}",
}
TITLES = {"val_mean_iou": "val mean IoU", "batch_size": "batch"}


def read_trials(directory) -> list[dict]:
    """One row per trial of a search: the best first, those without a result last.

    Returns:
        Rows with `trial`, `status` (`completed`, `pruned`, `failed` or `unfinished`),
        `rank`, the settings that were searched or fixed, `val_mean_iou`, `epochs`,
        `steps`, `seconds` and, for a failed trial, `error`. Unknown values are `None`.

    Raises:
        UserError: If the folder holds no search, or its files are damaged.
    """
    search = Search.read(directory)
    rows = [_row(search, trial, directory) for trial in open_study(directory).trials]
    done = [row for row in rows if row["status"] == "completed"]
    done.sort(key=lambda row: -row["val_mean_iou"])
    for rank, row in enumerate(done, start=1):
        row["rank"] = rank
    return done + [row for row in rows if row["status"] != "completed"]


def format_table(rows: list[dict]) -> str:
    """The rows as a Markdown table, whose columns are aligned for a terminal too."""
    cells = [[TITLES.get(name, name.replace("_", " ")) for name in COLUMNS]]
    cells += [[_cell(row, name) for name in COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [" | ".join(text.rjust(width) for text, width in zip(row, widths)) for row in cells]
    lines.insert(1, " | ".join("-" * (width - 1) + ":" for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def write_report(directory) -> str:
    """Writes `report.md` and `report.json` into a search's folder.

    Returns:
        The text for a terminal: the table, failures and the best trial's command.

    Raises:
        UserError: If the folder holds no search, or cannot be written.
    """
    search, rows = Search.read(directory), read_trials(directory)
    best = next((row for row in rows if row["rank"]), None)
    configs = _configs(search, best, directory) if best else {}
    commands = {title: train_command(config) for title, config in configs.items()}
    notes = [
        f"Trial {row['trial']} {row['status']} after {row['epochs']} epochs"
        + (f": {row['error']}" if row["error"] else ".")
        for row in rows
        if row["status"] != "completed"
    ]
    text = "\n".join([format_table(rows), *([""] if notes else []), *notes])
    markdown = [
        f"# Search on {shown(search.train).dataset}",
        _summary(search, rows),
        format_table(rows),
    ]
    markdown += ["\n".join(f"- {note}" for note in notes)] if notes else []
    for title, config in configs.items():
        text += f"\n\n{title}:\n  {commands[title]}"
        markdown.append(f"{title}:\n\n```bash\n{train_command(shown(config))}\n```")
    content = {"search": search.to_dict(), "trials": rows, "commands": commands}
    files = {
        "report.md": "\n\n".join(markdown) + "\n",
        "report.json": json.dumps(content, indent=2) + "\n",
    }
    for name, lines in files.items():
        write_file(Path(directory, name), functools.partial(Path.write_text, data=lines))
    return text


def _row(search: Search, trial: optuna.trial.FrozenTrial, directory) -> dict:
    history = trial_run(directory, trial.number).read_history()
    status = STATUS.get(trial.state.name, "unfinished")
    with journal_damage(directory):
        config = search.settings(trial.params)
        score = _finite(trial.value) if status in ("completed", "pruned") else None
        steps = len(history) * _finite(trial.user_attrs.get("steps_per_epoch", 0))
    return {
        "rank": None,
        "trial": str(trial.number),
        "status": status,
        **{name: getattr(config, name) for name in ("learning_rate", "weight_decay")},
        "crop": "x".join(map(str, config.crop)),
        "batch_size": config.batch_size,
        "val_mean_iou": score,
        "epochs": len(history),
        "steps": min(steps, search.steps or math.inf) or None,
        "seconds": sum(row.get("seconds", 0) for row in history) or None,
        "error": str(trial.user_attrs.get("error")) if status == "failed" else None,
    }


def _finite(value) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


def _cell(row: dict, name: str) -> str:
    return "–" if row[name] is None else COLUMNS[name].format(row[name])


def _summary(search: Search, rows: list[dict]) -> str:
    counts = [
        f"{count} {status}"
        for status in (*STATUS.values(), "unfinished")
        if (count := sum(row["status"] == status for row in rows))
    ]
    length = f"{search.steps} steps" if search.steps else f"{search.train.epochs} epochs"
    if search.tuner == "hyperband":
        length = f"up to {length}"
    return (
        f"Trials of {length} by Optuna's {search.tuner} search, other settings from recipe "
        f"`{search.train.recipe}`: {', '.join(counts) or 'none yet'}. Trials are ranked by the "
        "best validation mean IoU of their epochs."
    )


def _configs(search: Search, best: dict, directory) -> dict[str, TrainConfig]:
    config = trial_run(directory, best["trial"]).read_config()
    configs = {"To repeat the best trial": config}
    full = dataclasses.replace(config, epochs=search.train.epochs, max_steps=None)
    if full != config:
        configs["To train with its settings at full length"] = full
    return configs
