"""Contents -> one HTML page without scripts or external resources."""

from __future__ import annotations

import datetime
import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from fcn_keras.data.split import LabelSet
from fcn_keras.evaluation.report.comparison import Comparison
from fcn_keras.evaluation.report.contents import Contents
from fcn_keras.evaluation.report.curves import HEIGHT, WIDTH, charts, compared_charts
from fcn_keras.evaluation.report.thumbnails import picture_rows
from fcn_keras.evaluation.scores import Scores
from fcn_keras.files.writing import write_file
from fcn_keras.runs.command import changed_settings, train_command
from fcn_keras.runs.config import SETTINGS, TrainConfig
from fcn_keras.runs.folder import MEASURES
from fcn_keras.runs.history import best_epoch, training_time
from fcn_keras.runs.paths import shown, shown_command, shown_text

MOST_EPOCHS = 200  # more rows and points would be too many to read
CONFUSED = 0.01  # share of a class's pixels above which the class they became is named
TILES = sorted(MEASURES, key="mean_iou".__ne__)  # the mean IoU first
SHOWN = 0.005  # share above which a cell of the confusion matrix has a number


def write_report(contents: Contents | Comparison, output) -> None:
    """Writes the page of a run, or of several, whole or not at all.

    Args:
        contents: What is on it.
        output: The HTML file.

    Raises:
        UserError: If it cannot be written.
    """
    if isinstance(contents, Comparison):
        html = render_comparison(contents)
    else:
        html = render(contents)
    write_file(output, lambda path: path.write_bytes(html.encode("utf-8", "backslashreplace")))


def render(contents: Contents) -> str:
    """The page of a run as text; everything that comes from the user is escaped."""
    config, labels = shown(contents.config), contents.labels
    worst, best = picture_rows([contents.worst, contents.best], labels)
    history = _thinned(contents.history)
    measures = contents.measures
    return _template("page.html").render(
        title=_title(config),
        run=contents.run.path.resolve().name,
        now=_now(),
        notes=_shown_notes(contents.notes, [contents]),
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


def render_comparison(comparison: Comparison) -> str:
    """The page of several runs as text; everything that comes from the user is escaped."""
    runs = list(comparison.runs.values())
    [rows] = picture_rows([comparison.examples], runs[0].labels)
    histories = {name: _thinned(run.history) for name, run in comparison.runs.items()}
    return _template("comparison.html").render(
        title=f"Comparison of {len(runs)} runs",
        now=_now(),
        notes=_shown_notes(comparison.notes, runs),
        runs=list(comparison.runs),
        facts=_facts(runs),
        settings=list(_different_settings(runs)),
        charts=compared_charts(histories),
        chart_size=(WIDTH, HEIGHT),
        metrics=_compared_metrics(runs) if comparison.comparable else [],
        classes=_class_colors(runs[0].labels),
        examples=list(zip(rows, comparison.scores)),
    )


def _facts(runs: list[Contents]) -> list[tuple[str, list]]:
    return [
        ("model and data", [_title(shown(run.config)) for run in runs]),
        ("finished epochs", [f"{len(run.history)} of {run.config.epochs}" for run in runs]),
        ("best epoch", [best_epoch(run.history) for run in runs]),
        ("training time", [training_time(run.history) for run in runs]),
    ]


def _different_settings(runs: list[Contents]) -> Iterator[tuple[str, Iterator[str]]]:
    """Name and values of each setting, and of the software, that is not the same for all runs."""
    software = [
        {"git commit": (run.origin["git_commit"] or "–")[:9], **run.origin["versions"]}
        for run in runs
    ]
    columns = [vars(run.config) | more for run, more in zip(runs, software)]
    shown_columns = [vars(shown(run.config)) | more for run, more in zip(runs, software)]
    for name in dict.fromkeys(itertools.chain(*columns)):
        values = [column.get(name) for column in columns]
        if name == "run_dir" or all(value == values[0] for value in values):
            continue
        pairs = [(value, _text(column.get(name))) for value, column in zip(values, shown_columns)]
        yield name.replace("_", "-"), _told_apart(pairs)


def _told_apart(pairs: list[tuple[Any, str]]) -> Iterator[str]:
    """The texts of values, numbered where different paths have the same last component."""
    for value, text in pairs:
        alike = list(dict.fromkeys(v for v, t in pairs if t == text))
        yield f"{text} ({alike.index(value) + 1})" if len(alike) > 1 else text


def _compared_metrics(runs: list[Contents]) -> list[tuple[dict, list[tuple[str, bool]]]]:
    """For the whole and each class a head and, by run, the metric and whether it is the best."""
    found = [run.measures or {"per_class_iou": {}} for run in runs]
    rows = [({"name": MEASURES[name]}, [each.get(name) for each in found]) for name in TILES]
    for head in _class_colors(runs[0].labels):
        rows.append((head, [each["per_class_iou"].get(head["name"]) for each in found]))
    return [(head, _marked(values)) for head, values in rows] if any(map(len, found)) else []


def _marked(values: list[float | None]) -> list[tuple[str, bool]]:
    texts = [_number(value) for value in values]
    known = {text for text, value in zip(texts, values) if value is not None}
    return [(text, len(known) > 1 and text == max(known)) for text in texts]


def _title(config: TrainConfig) -> str:
    return f"{config.network}, {config.backbone}, {Path(config.dataset).name}"


def _now() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M")


def _shown_notes(notes: list[str], runs: list[Contents]) -> list[str]:
    paths = [
        path for run in runs for path in (run.run.path, run.config.dataset, run.config.data_dir)
    ]
    return [shown_text(note, *paths) for note in notes]


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(name)


def _number(value, digits: int = 3) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _thinned(history: list[dict]) -> list[dict]:
    """At most `MOST_EPOCHS` rows, evenly spread, including the last."""
    step = -(-len(history) // MOST_EPOCHS)
    return history[::-1][::step][::-1]


def _class_rows(contents: Contents) -> list[dict]:
    ious = (contents.measures or {}).get("per_class_iou", {})
    rows = [{**row, "iou": ious.get(row["name"])} for row in _class_colors(contents.labels)]
    if contents.scores is None:
        return rows if ious else []
    confusion = contents.scores.confusion
    truth = confusion.sum(axis=1)
    for index, (row, pixels) in enumerate(zip(rows, truth)):
        row["accuracy"] = confusion[index, index] / pixels if pixels else None
        row["share"] = pixels / truth.sum()
        row["confused"] = _most_confused(confusion, index, contents.labels.names)
    return rows


def _class_colors(labels: LabelSet) -> list[dict]:
    return [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*rgb)}
        for name, rgb in zip(labels.names, labels.palette)
    ]


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
        for field in SETTINGS
    ]


def _text(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
