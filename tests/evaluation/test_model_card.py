"""The card of a run says what the run's files do."""

import csv
import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from support.fake_folder import CLASSES
from support.runs import history_of

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.evaluation.model_card import _limits
from fcn_keras.evaluation.scores import Scores
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import MEASURES, RunFolder
from fcn_keras.runs.history import training_time


@pytest.fixture(scope="module")
def run(finished_run):
    return RunFolder(finished_run)


@pytest.fixture
def copied(finished_run, tmp_path):
    """A copy of the run that can be resumed."""
    return RunFolder(shutil.copytree(finished_run, tmp_path / "run"))


def card_of(run):
    return (run.path / "MODEL_CARD.md").read_text()


def tables_of(card):
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def seconds_of(run):
    return [float(row["seconds"]) for row in history_of(run.path)]


def time_of(seconds):
    """In minutes if the machine is busy."""
    return training_time([{"seconds": value} for value in seconds])


def test_figures_are_those_of_metrics_json(run):
    metrics, tables = run.read_metrics(), tables_of(card_of(run))
    for name, iou in metrics.pop("per_class_iou").items():
        assert tables[name][0] == f"{iou:.4f}"
    for name, value in metrics.items():
        assert tables[MEASURES[name]] == [f"{value:.4f}"]
    shares = [float(tables[name][1].rstrip("%")) for name in CLASSES]
    assert sum(shares) == pytest.approx(100, abs=0.02)


def test_facts_are_those_of_the_run(run, shapes):
    card = card_of(run)
    assert "# FCN-16s, tiny, shapes" in card
    assert f"Data set: `{shapes.name}`" in card and "ground, box, bar" in card
    assert "6 for training, 5 for validation" in card
    assert "Length: 2 epochs, 6 steps of 2 images" in card
    assert f"Time: {time_of(seconds_of(run))}" in card
    command = re.search(r"^fcn-keras train .*$", card, re.MULTILINE).group()
    assert "--recipe strong" in command and "--crop 48 64" in command
    assert f"--dataset {shapes.name}" in command
    assert hashlib.sha256(run.best.read_bytes()).hexdigest() in card
    written = json.loads(run.config.read_text())
    assert written["git_commit"] in card and written["versions"]["keras"] in card
    assert f"fcn-keras predict --model {run.path.name}" in card


def test_front_matter_is_yaml_at_the_beginning(run):
    yaml = pytest.importorskip("yaml")
    begin, front, _ = card_of(run).split("---\n", 2)
    assert begin == "" and yaml.safe_load(front)["library_name"] == "keras"


def test_its_python_loads_the_model(run, monkeypatch):
    monkeypatch.chdir(run.path.parent)
    code = "\n".join(re.findall(r"```python\n(.*?)```", card_of(run), re.DOTALL))
    scope = {}
    exec(code.replace('mask = segmenter("photo.jpg")', "mask = 0"), scope)
    assert scope["model"].output_shape[-1] == len(CLASSES)
    assert scope["segmenter"].labels.names == CLASSES


@pytest.mark.slow
def test_a_resumed_run_adds_up_its_time_and_commands(copied):
    assert main(["train", "--resume", str(copied.path), "--epochs", "3"]) == 0
    seconds = seconds_of(copied)
    card = card_of(copied)
    assert f"Time: {time_of(seconds)}" in card and "Length: 3 epochs, 9 steps" in card
    assert len(seconds) == 3 and card.count("Run as: `") == 2
    assert 2 == len(json.loads(copied.config.read_text())["commands"])
    assert tables_of(card)["mean IoU"] == [f"{copied.read_metrics()['mean_iou']:.4f}"]


@pytest.mark.slow
def test_a_history_of_before_times_were_recorded_resumes(copied):
    rows = list(csv.reader(copied.history.open(newline="")))
    column = rows[0].index("seconds")
    with copied.history.open("w", newline="") as file:
        csv.writer(file).writerows([row[:column] + row[column + 1 :] for row in rows])
    epochs = len(rows)  # one more than there are
    assert main(["train", "--resume", str(copied.path), "--epochs", str(epochs)]) == 0
    assert np.isnan(seconds_of(copied)[:-1]).all() and seconds_of(copied)[-1] > 0
    assert f"without {epochs - 1} epochs whose time was not recorded" in card_of(copied)


def test_training_time_is_in_minutes_when_long():
    assert training_time([{"seconds": 100.0}, {"seconds": 25.0}]) == "2 min 5 s"


def test_limits_name_rare_and_unmeasured_classes(shapes):
    splits = load_split(str(shapes), "train"), load_split(str(shapes), "val")
    # Truth by prediction: of 1000 pixels 995 are class 0 and 5 are class 1, one of them
    # found: IoU 1 / 5 = 0.2. Class 2 is in the prediction only.
    report = Scores(splits[0].labels, np.array([[994, 0, 1], [4, 1, 0], [0, 0, 0]]))
    text = _limits(TrainConfig(), splits, report)
    assert "IoU under 0.5: box (0.20)" in text and "not evaluated: bar" in text
    assert "Predicted there all the same, and in mean IoU as 0: bar\n" in text
    assert "6 images and evaluated on 5" in text and "random weights" in text
    report = dataclasses.replace(report, confusion=np.diag([990, 5, 5]))
    text = _limits(TrainConfig(weights="imagenet"), splits, report)
    assert "Predicted" not in text
    assert "Rare" not in text and "not evaluated:" not in text and "random weights" not in text
