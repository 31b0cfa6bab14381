"""Contents -> one HTML page without scripts or external resources."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from pathlib import Path

import jinja2
import numpy as np

from fcn_keras.evaluation.report.contents import Contents
from fcn_keras.evaluation.report.curves import HEIGHT, WIDTH, charts
from fcn_keras.evaluation.report.thumbnails import picture_rows
from fcn_keras.evaluation.scores import Scores
from fcn_keras.files.writing import write_file
from fcn_keras.runs.command import changed_settings, train_command
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import MEASURES
from fcn_keras.runs.history import best_epoch, training_time
from fcn_keras.runs.paths import shown, shown_command, shown_text

MOST_EPOCHS = 200  # more rows and points would be too many to read
CONFUSED = 0.01  # share of a class's pixels above which the class they became is named
TILES = sorted(MEASURES, key="mean_iou".__ne__)  # the mean IoU first
SHOWN = 0.005  # share above which a cell of the confusion matrix has a number


def write_report(contents: Contents, output) -> None:
    """Writes the page of a run, whole or not at all.

    Args:
        contents: What is on it.
        output: The HTML file.

    Raises:
        UserError: If it cannot be written.
    """
    html = render(contents)
    write_file(output, lambda path: path.write_bytes(html.encode("utf-8", "backslashreplace")))


def render(contents: Contents) -> str:
    """The page as text; everything that comes from the user is escaped."""
    config, labels = shown(contents.config), contents.labels
    worst, best = picture_rows([contents.worst, contents.best], labels)
    history = _thinned(contents.history)
    measures = contents.measures
    return _template().render(
        title=f"FCN-{config.output_stride}s, {config.backbone}, {Path(config.dataset).name}",
        run=contents.run.path.resolve().name,
        now=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        notes=[
            shown_text(note, contents.run.path, contents.config.dataset, contents.config.data_dir)
            for note in contents.notes
        ],
        epochs=len(contents.history),
        best_epoch=best_epoch(contents.history),
        training_time=training_time(contents.history),
        tiles=[(MEASURES[name], measures[name]) for name in TILES] if measures else [],
        charts=charts(history),
        chart_size=(WIDTH, HEIGHT),
        columns=list(history[-1]),
        history=history,
        all_epochs=len(history) == len(contents.history),
        evaluated=contents.scores is not None,
        classes=_class_rows(contents),
        confusion=_confusion_rows(contents.scores) if contents.scores else [],
        names=labels.names,
        groups=[("Worst images", worst), ("Best images", best)],
        counts=contents.counts,
        config=config,
        settings=_settings(config),
        command=train_command(config),
        commands=[shlex.join(shown_command(words)) for words in contents.origin["commands"]],
        git_commit=contents.origin["git_commit"],
        versions=contents.origin["versions"],
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html")


def _number(value, digits: int = 3) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _thinned(history: list[dict]) -> list[dict]:
    """At most `MOST_EPOCHS` rows, evenly spread, including the last."""
    step = -(-len(history) // MOST_EPOCHS)
    return history[::-1][::step][::-1]


def _class_rows(contents: Contents) -> list[dict]:
    ious = (contents.measures or {}).get("per_class_iou", {})
    rows = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*rgb), "iou": ious.get(name)}
        for name, rgb in zip(contents.labels.names, contents.labels.palette)
    ]
    if contents.scores is None:
        return rows if ious else []
    confusion = contents.scores.confusion
    truth = confusion.sum(axis=1)
    for index, (row, pixels) in enumerate(zip(rows, truth)):
        row["accuracy"] = confusion[index, index] / pixels if pixels else None
        row["share"] = pixels / truth.sum()
        row["confused"] = _most_confused(confusion, index, contents.labels.names)
    return rows


def _most_confused(confusion: np.ndarray, index: int, names: tuple[str, ...]) -> str:
    """The other class that was predicted most often for a class's pixels."""
    counts = confusion[index].copy()
    pixels, counts[index] = counts.sum(), 0
    other = int(counts.argmax())
    if not pixels or counts[other] / pixels < CONFUSED:
        return "–"
    return f"{names[other]} {100 * counts[other] / pixels:.0f} %"


def _confusion_rows(scores: Scores) -> list[dict]:
    shares = scores.confusion_shares
    return [
        {"name": name, "cells": [share if share >= SHOWN else None for share in row]}
        for name, row in zip(scores.labels.names, shares.tolist())
    ]


def _settings(config: TrainConfig) -> list[tuple[str, str, bool]]:
    """Name, value and whether it differs from the recipe's, of every setting."""
    changed = changed_settings(config)
    return [
        (field.name.replace("_", "-"), _text(getattr(config, field.name)), field.name in changed)
        for field in dataclasses.fields(TrainConfig)
    ]


def _text(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
