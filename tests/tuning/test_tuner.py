"""Whole searches on a few small pictures."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from support.fake_folder import write_folder

from fcn_keras.cli import main
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import RunFolder
from fcn_keras.tuning import tuner
from fcn_keras.tuning.search import JOURNAL, Search, claim_folder, open_study, trial_run
from fcn_keras.tuning.summary import read_trials

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "shapes")


def command(folder, directory, *flags):
    flags = ["--crops", "32x32", "--output-stride", "32", "--backbone", "tiny", *flags]
    return ["tune", "--dataset", str(folder), "--search-dir", str(directory), *flags]


def start_process(arguments):
    code = "import sys; from fcn_keras.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def attributes_of(directory, name):
    """An attribute of each trial."""
    return [trial.user_attrs[name] for trial in open_study(directory).trials]


def planned_learning_rates(search):
    """Those of an uninterrupted search, without training."""
    study = optuna.create_study()
    values = [tuner.suggest(study.ask(), search) for _ in range(search.trials)]
    return [search.settings(trial).learning_rate for trial in values]


@pytest.mark.slow
def test_killed_search_goes_on_with_the_same_trials(folder, tmp_path):
    directory = tmp_path / "search"
    flags = "--steps 2 --seed 1 --trials 3 --batch-sizes 2 3".split()
    arguments = command(folder, directory, *flags)
    process = start_process(arguments)
    for line in process.stdout:
        if "Run folder:" in line and "trial_1" in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = open_study(directory).trials[0]
    assert [row["status"] for row in read_trials(directory)] == ["completed", "unfinished"]

    process = start_process(arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert f"{directory}: 1 trials are done, continuing with trial 1." in output
    assert "Trial 0:" not in output
    assert attributes_of(directory, "starts") == [[0], [0, 0], [0]]
    assert open_study(directory).trials[0] == first

    rows = sorted(read_trials(directory), key=lambda row: row["trial"])
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert all(row["steps"] == 2 and row["seconds"] > 0 for row in rows)
    planned = planned_learning_rates(Search.read(directory))
    assert [row["learning_rate"] for row in rows] == planned
    assert len(set(planned)) == 3
    best = min(rows, key=lambda row: row["rank"])
    models = [path.relative_to(directory) for path in directory.rglob("*.keras")]
    assert models == [Path(f"trial_{best['trial']}", "run", "best.keras")]
    run = RunFolder(directory / f"trial_{best['trial']}" / "run")
    assert run.read_metrics()["mean_iou"] == pytest.approx(best["val_mean_iou"], abs=1e-5)
    assert f"fcn-keras train --recipe strong --dataset {folder}" in output

    # Run again, it only reports; with other settings it is refused.
    assert main(arguments) == 0
    assert attributes_of(directory, "starts") == [[0], [0, 0], [0]]


@pytest.mark.slow
def test_failed_trials_are_recorded_and_the_search_goes_on(folder, tmp_path, capfd):
    directory = tmp_path / "search"
    # With this seed the first rate is 3e29 and the second 2e-3.
    flags = "--steps 2 --trials 2 --seed 2111 --learning-rates 1e-4 1e30 --batch-sizes 2 3".split()
    assert main(command(folder, directory, *flags)) == 0
    good, bad = read_trials(directory)
    assert (good["trial"], bad["trial"]) == ("1", "0")
    planned = planned_learning_rates(Search.read(directory))
    assert [bad["learning_rate"], good["learning_rate"]] == planned
    assert bad["status"] == "failed" and "loss became nan in epoch 1" in bad["error"]
    captured = capfd.readouterr()
    assert "Trial 0 failed: The" in captured.out and "Traceback" not in captured.err
    other = [*command(folder, directory, *flags), "--flip"]
    other[other.index("--steps") + 1] = "3"
    other.append("--no-flip")
    assert main(other) == 1
    assert "--steps 2 there, 3 here; --flip True there, False here" in capfd.readouterr().err


def test_a_mistake_in_all_trials_ends_the_search_at_once(folder, tmp_path, capfd):
    flags = ["--steps", "2", "--trials", "2", "--class-weights", "1", "2"]
    assert main(command(folder, tmp_path / "search", *flags)) == 1
    assert "error: --class-weights needs one weight for each of the 3" in capfd.readouterr().err
    assert not list(tmp_path.glob("search/trial_*/run"))


def test_a_trial_that_kills_the_process_again_and_again_fails(tmp_path):
    trial, run = optuna.create_study().ask(), RunFolder(tmp_path / "run")

    def die(error):
        with tuner._deaths_counted(trial, run):
            raise error

    for error in (SystemExit, KeyboardInterrupt, SystemExit, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            die(error)
    with pytest.raises(MemoryError, match="killed 3 times in epoch 1"):
        die(SystemExit)


@pytest.mark.parametrize("name", tuner.SAMPLERS)
def test_a_search_that_stops_before_each_trial_tries_the_same(tmp_path, name):
    search = Search(TrainConfig(), name, learning_rates=(0.01, 0.1), batch_sizes=(2, 4))
    claim_folder(search, tmp_path)
    whole = optuna.create_study(direction="maximize")
    for number in range(12):  # bayesian learns after 10
        trial = whole.ask()
        values = tuner.suggest(trial, search)
        whole.tell(trial, values["learning_rate"])
        open_study(tmp_path).ask()  # but not run
        stopped = open_study(tmp_path)
        trial = optuna.Trial(stopped, stopped.trials[number]._trial_id)
        assert tuner.suggest(trial, search) == values
        stopped.tell(trial, values["learning_rate"])
    assert len({trial.params["learning_rate"] for trial in whole.trials}) == 12


def test_a_trial_that_stops_between_two_values_keeps_the_first():
    study = optuna.create_study()
    search = Search(TrainConfig(), learning_rates=(0.01, 0.1))
    trial = study.ask()
    values = tuner.suggest(trial, search)
    again = tuner.suggest(
        optuna.Trial(study, trial._trial_id), dataclasses.replace(search, batch_sizes=(2, 4))
    )
    assert again == {**values, "batch_size": again["batch_size"]} and again["batch_size"] in (2, 4)


class Training:
    """Instead of training: a mean IoU that equals the learning rate in every epoch."""

    def __init__(self, monkeypatch, stop_at=None):
        self.epochs, self.stop_at = [], stop_at
        monkeypatch.setattr(tuner, "_train", self.train)
        monkeypatch.setattr(tuner, "_steps_per_epoch", lambda config: 10)

    def train(self, run, config):
        epochs = config.max_steps // 10 if config.max_steps else config.epochs
        self.epochs.append((run.path.parent.name, epochs))
        run.path.mkdir(exist_ok=True, parents=True)
        row = {"val_mean_iou": config.learning_rate, "seconds": 1.0}
        run.write_history([{"epoch": epoch, **row} for epoch in range(1, epochs + 1)])
        if len(self.epochs) == self.stop_at:
            raise KeyboardInterrupt


def hyperband(folder):
    train = TrainConfig(dataset=str(folder), epochs=9)
    return Search(train, "hyperband", trials=16, learning_rates=(0.01, 0.1))


def test_hyperband_prunes_after_few_epochs(folder, tmp_path, monkeypatch):
    training = Training(monkeypatch)
    tuner.run_search(hyperband(folder), tmp_path)
    rows = read_trials(tmp_path)
    done = [row for row in rows if row["status"] == "completed"]
    pruned = [row for row in rows if row["status"] == "pruned"]
    assert len(done) + len(pruned) == 16 and {row["epochs"] for row in done} == {9}
    assert len(pruned) >= 5 and {row["epochs"] for row in pruned} == {1, 3}
    assert max(row["val_mean_iou"] for row in pruned) < done[0]["val_mean_iou"]
    assert [epochs for name, epochs in training.epochs if name == "trial_0"] == [1, 3, 9]


@pytest.mark.parametrize("stop_at", [1, 2, 3, 6])
def test_hyperband_goes_on_within_a_trial(folder, tmp_path, monkeypatch, stop_at):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = Training(monkeypatch)
    tuner.run_search(hyperband(folder), whole)
    before = Training(monkeypatch, stop_at)
    with pytest.raises(KeyboardInterrupt):
        tuner.run_search(hyperband(folder), stopped)
    after = Training(monkeypatch)
    tuner.run_search(hyperband(folder), stopped)
    assert before.epochs + after.epochs[1:] == expected.epochs  # the last one is repeated
    assert read_trials(stopped) == read_trials(whole)


@pytest.mark.slow
def test_hyperband_trains_in_stages(folder, tmp_path):
    flags = "--tuner hyperband --trials 3 --epochs 2 --batch-size 3 --seed 1".split()
    assert main(command(folder, tmp_path / "search", *flags)) == 0
    rows = read_trials(tmp_path / "search")
    statuses = {row["epochs"]: row["status"] for row in rows}
    assert len(rows) == 3 and statuses[2] == "completed"
    assert all(row["steps"] == 2 * row["epochs"] for row in rows)  # 6 images
    config = trial_run(tmp_path / "search", rows[0]["trial"]).read_config()
    assert (config.epochs, config.max_steps) == (2, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((None, "lacks trials"), ("{", "not exist"), ("{\n", "Expecting"), ("{}\n", "op_code")),
        ("[" * 100_000 + "\n", "recursion"),
        ('{"op_code": 99}\n{}\n', "Should not reach"),
    ],
)
def test_damaged_journals_are_named(folder, tmp_path, content, message):
    search = Search(TrainConfig(dataset=str(folder)), trials=1, learning_rates=(0.01, 0.1))
    claim_folder(search, tmp_path)
    trial_run(tmp_path, 0).path.mkdir(parents=True)
    if content:
        (tmp_path / JOURNAL).write_text(content)
    with pytest.raises(UserError, match=f"{JOURNAL} is damaged .*{message}"):
        tuner.run_search(search, tmp_path)


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    search = Search(TrainConfig(), learning_rates=(0.01, 0.1))
    claim_folder(search, tmp_path)
    trial = open_study(tmp_path).ask()
    trial_run(tmp_path, 0).path.mkdir(parents=True)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code":5,"worker_id":"1')
    assert [row["status"] for row in read_trials(tmp_path)] == ["unfinished"]
    claim_folder(search, tmp_path)
    study = open_study(tmp_path)
    study.tell(trial.number, 0.5)
    assert open_study(tmp_path).best_value == 0.5


def test_trials_start_alike_when_a_search_goes_on_elsewhere(tmp_path):
    train = TrainConfig.from_recipe("strong", seed=3, class_weights="auto")
    assert tuner._as_before(train, tmp_path) == train
    decided = {"weights": "none", "batch_size": 4, "class_weights": (1.5, 9.0)}
    first = dataclasses.replace(train, **decided, seed=9)
    run = tmp_path / "trial_0" / "run"
    run.mkdir(parents=True)
    RunFolder(run).write_config(first, LabelSet(("a", "b")))
    expected = dataclasses.replace(train, **decided)
    assert tuner._as_before(train, tmp_path) == expected
    tuned = TrainConfig.from_recipe(
        "finetune", seed=3, epochs=7, crop=(32, 64), class_weights="auto"
    )
    assert tuner._as_before(tuned, tmp_path) == dataclasses.replace(
        expected, epochs=7, crop=(32, 64)
    )
    changes = {"weights": "imagenet", "batch_size": 8, "class_weights": (1.0, 2.0)}
    given = dataclasses.replace(train, **changes)
    assert tuner._as_before(given, tmp_path) == given
