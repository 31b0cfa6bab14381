"""`MODEL_CARD.md`: what a run trained, on what, how well, and how to use it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from fcn_keras.data import pipeline
from fcn_keras.data.split import Split
from fcn_keras.evaluation.scores import Scores
from fcn_keras.files.writing import atomic_path
from fcn_keras.runs.additions import shown_additions
from fcn_keras.runs.command import changed_settings, train_command
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import MEASURES, RunFolder
from fcn_keras.runs.history import best_epoch, training_time
from fcn_keras.runs.paths import shown, shown_command

RARE = 0.01  # of the labelled pixels in validation
WEAK = 0.5  # IoU
FRONT_MATTER = """\
---
library_name: keras
pipeline_tag: image-segmentation
license: unknown
tags:
- image-segmentation
- semantic-segmentation
- fcn
---"""


def write_model_card(
    run: RunFolder, splits: tuple[Split, Split], scores: Scores, history: list[dict]
) -> None:
    """Writes the model card of a run from its files and its metrics.

    Args:
        run: The run, with its `config.json` and `best.keras`.
        splits: Its training and validation images.
        scores: The metrics of `best.keras` on validation, as in `metrics.json`.
        history: The rows of `history.csv`.
    """
    config, origin = shown(run.read_config()), run.read_origin()
    name = Path(config.dataset).name
    sections = {
        "Data": _data(config, splits),
        "Training": _training(config, run.read_additions(), splits[0], history),
        "Results": _results(scores, history),
        "Intended use and limits": _limits(config, splits, scores),
        "How to load": _loading(run, config),
        "Provenance": _provenance(run, origin),
    }
    network = f"{config.network}, {config.backbone}, {name}"
    text = [FRONT_MATTER, f"# {network}"]
    text += [f"## {title}\n\n{section}" for title, section in sections.items()]
    with atomic_path(run.path / "MODEL_CARD.md") as path:
        content = "\n\n".join(text) + "\n"
        path.write_text(content, encoding="utf-8", errors="backslashreplace")  # names of folders


def _data(config: TrainConfig, splits) -> str:
    train, val = splits
    lines = [
        f"Data set: `{config.dataset}`",
        f"Images: {len(train)} for training, {len(val)} for validation",
        f"Classes: {len(train.labels)}: {', '.join(map(_escaped, train.labels.names))}",
        "Licence of the data: unknown, please fill in",
    ]
    return _list(lines)


def _training(config: TrainConfig, additions: dict, train: Split, history: list[dict]) -> str:
    steps = len(history) * pipeline.steps_per_epoch(train, config.batch_size)
    settings = ", ".join(
        f"`{name}` {_value(value)}" for name, value in changed_settings(config).items()
    )
    lines = [
        f"Recipe: `{config.recipe}`, with these settings changed: {settings or 'none'}",
        *([f"From Python: `{shown_additions(additions)}`"] if additions else []),
        f"Initial weights: `{config.init_from or config.weights}`"
        + (" for all layers that are alike" if config.init_from else " for the backbone"),
        f"Length: {len(history)} epochs, {min(steps, config.max_steps or steps)} steps of "
        f"{config.batch_size} images",
        f"Time: {training_time(history)}, including validation after each epoch",
        f"Hardware of the process that finished the run: {_hardware(config)}",
    ]
    return f"{_list(lines)}\n\n```bash\n{train_command(config)}\n```"


def _hardware(config: TrainConfig) -> str:
    gpus = tf.config.list_physical_devices("GPU")[: config.devices]
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    parts = [f"{names.count(name)} × {name or 'GPU'}" for name in dict.fromkeys(names)]
    return ", ".join([*parts, f"{_processor()}, {os.cpu_count()} logical cores"])


def _processor() -> str:
    with contextlib.suppress(OSError):  # on Linux only
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _results(scores: Scores, history: list[dict]) -> str:
    measures = scores.to_dict()
    ious = measures.pop("per_class_iou")
    rows = [
        (_escaped(name), "–" if iou is None else f"{iou:.4f}", f"{share:.2%}")
        for (name, iou), share in zip(ious.items(), _shares(scores))
    ]
    return "\n\n".join(
        [
            f"`best.keras`, from epoch {best_epoch(history)}, on the validation images at their "
            "original size, without unlabelled pixels. Also in `metrics.json`.",
            _table(
                ("metric", "value"),
                [(MEASURES[name], f"{value:.4f}") for name, value in measures.items()],
            ),
            _table(("class", "IoU", "share of validation pixels"), rows),
        ]
    )


def _limits(config: TrainConfig, splits, scores: Scores) -> str:
    train, val = splits
    shares, names = _shares(scores), list(map(_escaped, scores.labels.names))
    weak = [
        f"{name} ({iou:.2f})"
        for name, iou, share in zip(names, scores.class_iou, shares)
        if 0 < share < RARE and iou < WEAK
    ]
    absent = {name: iou for name, iou, share in zip(names, scores.class_iou, shares) if share == 0}
    predicted = [name for name, iou in absent.items() if iou == 0]  # the others' is NaN
    lines = [
        f"For pictures like those in the data set, and its {len(names)} classes: it was trained on "
        f"{len(train)} images and evaluated on {len(val)}. Other scenes, cameras and lighting were "
        "not evaluated.",
        "The epoch was chosen on the same validation images, so expect slightly lower figures on "
        "new ones.",
    ]
    if weak:
        lines.append(f"Rare classes (under {RARE:.0%}) with an IoU under {WEAK}: {', '.join(weak)}")
    if absent:
        lines.append(f"Not in the validation images, so not evaluated: {', '.join(absent)}")
    if predicted:
        lines.append(f"Predicted there all the same, and in mean IoU as 0: {', '.join(predicted)}")
    if config.weights == "none" and not config.init_from:
        lines.append("The backbone started from random weights: it has seen only these images.")
    return _list([*lines, "Licence of the model: please fill in; it depends on the data's"])


def _loading(run: RunFolder, config: TrainConfig) -> str:
    path = run.path.resolve().name
    quoted, dataset = shlex.quote(path), shlex.quote(config.dataset)
    return f"""```python
from fcn_keras import Segmenter

segmenter = Segmenter.load({path!r})
mask = segmenter("photo.jpg")  # uint8 (H, W), class ids
```

```python
import fcn_keras

model = fcn_keras.load_model({path!r})  # RGB in 0..255 to logits
```

```bash
fcn-keras predict --model {quoted} photos/ --output results --overlay
fcn-keras evaluate --model {quoted} --dataset {dataset} --split val
```"""


def _provenance(run: RunFolder, origin: dict) -> str:
    versions = [f"{name} {version}" for name, version in origin["versions"].items() if version]
    commands = [shlex.join(shown_command(words)) for words in origin["commands"]]
    lines = [
        f"Software: {', '.join(versions)}, on {platform.system()}",
        f"Git commit of fcn_keras: {origin['git_commit'] or 'unknown'}",
        f"`best.keras`: SHA-256 {hashlib.sha256(run.best.read_bytes()).hexdigest()}",
        *(f"Run as: `{command}`" for command in commands),
    ]
    return _list(lines)


def _shares(scores: Scores) -> list[float]:
    truth = scores.confusion.sum(axis=1)
    return list(truth / max(1, truth.sum()))


def _value(value) -> str:
    return f"`{' '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _escaped(name: str) -> str:
    return name.replace("|", "\\|")


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    ruler = ("---", *("---:" for _ in titles[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ruler, *rows))
