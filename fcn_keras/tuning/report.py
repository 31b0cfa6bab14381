"""The trials of a search as a table, and the command of the best."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
from pathlib import Path

from fcn_keras.commands import train_command
from fcn_keras.errors import UserError
from fcn_keras.files import write_file
from fcn_keras.reading import damage_as_user_errors, read_json
from fcn_keras.run_folder import RunFolder
from fcn_keras.tuning.search import Search

MEASURES = ("val_mean_iou", "epochs", "steps", "seconds")
STATUS = {"COMPLETED": "completed", "FAILED": "failed"}
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
    """A row for each trial of a search, the best first, then those without a result.

    Returns:
        Rows with `trial`, `status` (`completed`, `failed` or `unfinished`),
        `rank`, the settings that were searched or fixed, the measures of
        `MEASURES` and, of a failed trial, `error`. What is unknown is `None`.

    Raises:
        UserError: If the folder holds no search.
    """
    search = Search.read(directory)
    rows = []
    for path in sorted(Path(directory).glob("trial_*/trial.json")):
        damage = damage_as_user_errors(f"{path}: of another version")
        with contextlib.suppress(UserError, AttributeError, TypeError), damage:
            rows.append(_row(search, read_json(path), path.parent))
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
    commands = _commands(search, best, directory) if best else {}
    notes = [
        f"Trial {row['trial']} {row['status']} after {row['epochs']} epochs"
        + (f": {row['error']}" if row["error"] else ".")
        for row in rows
        if row["status"] != "completed"
    ]
    text = "\n".join([format_table(rows), *([""] if notes else []), *notes])
    markdown = [f"# Search on {search.train.dataset}", _summary(search, rows), format_table(rows)]
    markdown += ["\n".join(f"- {note}" for note in notes)] if notes else []
    for title, command in commands.items():
        text += f"\n\n{title}:\n  {command}"
        markdown.append(f"{title}:\n\n```bash\n{command}\n```")
    content = {"search": search.to_dict(), "trials": rows, "commands": commands}
    files = {
        "report.md": "\n\n".join(markdown) + "\n",
        "report.json": json.dumps(content, indent=2) + "\n",
    }
    for name, lines in files.items():
        write_file(Path(directory, name), functools.partial(_write_text, lines))
    return text


def _write_text(text: str, path: Path) -> None:
    path.write_text(text)


def _row(search: Search, trial: dict, folder: Path) -> dict:
    config = search.settings(trial["hyperparameters"]["values"])
    status = STATUS.get(trial["status"], "unfinished")
    metrics = trial["metrics"]["metrics"]
    measures = {
        name: float(metrics[name]["observations"][0]["value"][0]) if name in metrics else None
        for name in MEASURES
    }
    score = measures["val_mean_iou"]
    if status == "completed" and (score is None or not math.isfinite(score)):
        raise ValueError("its measure is not finite")
    if status != "completed":
        history = RunFolder(folder / "run").read_history()
        measures |= {
            "epochs": len(history),
            "seconds": sum(row["seconds"] for row in history) or None,
        }
    return {
        "rank": None,
        "trial": folder.name.removeprefix("trial_"),
        "status": status,
        **{name: getattr(config, name) for name in ("learning_rate", "weight_decay")},
        "crop": "x".join(map(str, config.crop)),
        "batch_size": config.batch_size,
        **measures,
        "error": str(trial["message"]) if status == "failed" else None,
    }


def _cell(row: dict, name: str) -> str:
    return "–" if row[name] is None else COLUMNS[name].format(row[name])


def _summary(search: Search, rows: list[dict]) -> str:
    counts = [
        f"{count} {status}"
        for status in ("completed", "failed", "unfinished")
        if (count := sum(row["status"] == status for row in rows))
    ]
    length = f"{search.steps} steps" if search.steps else f"{search.train.epochs} epochs"
    if search.tuner == "hyperband":
        length = f"up to {length}"
    return (
        f"Trials of {length} by KerasTuner's {search.tuner} search, the rest as in recipe "
        f"`{search.train.recipe}`: {', '.join(counts) or 'none yet'}. The measure is the best "
        "validation mean IoU of each trial's epochs."
    )


def _commands(search: Search, best: dict, directory) -> dict[str, str]:
    config = RunFolder(Path(directory, f"trial_{best['trial']}", "run")).read_config()
    commands = {"The best trial again": train_command(config)}
    full = dataclasses.replace(config, epochs=search.train.epochs, max_steps=None)
    if full != config:
        commands["Its settings for a run of full length"] = train_command(full)
    return commands
