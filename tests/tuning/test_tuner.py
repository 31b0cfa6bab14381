"""Whole searches on a few small pictures."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_folder import write_folder

from fcn_keras.cli import main
from fcn_keras.config import TrainConfig
from fcn_keras.errors import UserError
from fcn_keras.run_folder import RunFolder
from fcn_keras.tuning.report import read_trials
from fcn_keras.tuning.search import Search, claim_folder

pytest.importorskip("keras_tuner")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "shapes")


def command(folder, directory, *flags):
    flags = "--steps 2 --crops 32x32 --output-stride 32 --seed 1".split() + list(flags)
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


def starts_of(directory, trial):
    return json.loads((directory / f"trial_{trial}" / "starts.json").read_text())


def planned_learning_rates(search, directory):
    """Those of a search that nothing stops, without training."""
    from fcn_keras.tuning.tuner import _make_oracle

    oracle = _make_oracle(search)
    oracle._set_project_dir(str(directory), "planned")
    trials = [oracle.create_trial(str(index)) for index in range(search.trials)]
    return [search.settings(trial.hyperparameters.values).learning_rate for trial in trials]


@pytest.mark.slow
def test_killed_search_goes_on_with_the_same_trials(folder, tmp_path):
    directory = tmp_path / "search"
    arguments = command(folder, directory, "--trials", "3", "--batch-sizes", "2", "3")
    process = start_process(arguments)
    for line in process.stdout:
        if "Run folder:" in line and "trial_1" in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = json.loads((directory / "trial_0" / "trial.json").read_text())
    assert [row["status"] for row in read_trials(directory)] == ["completed", "unfinished"]

    process = start_process(arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert f"{directory}: 1 trials are done, going on with trial 1." in output
    assert "Trial 0:" not in output
    assert [starts_of(directory, trial) for trial in range(3)] == [[0], [0, 0], [0]]
    assert json.loads((directory / "trial_0" / "trial.json").read_text()) == first

    rows = sorted(read_trials(directory), key=lambda row: row["trial"])
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert all(row["steps"] == 2 and row["seconds"] > 0 for row in rows)
    search = Search.read(directory)
    planned = planned_learning_rates(search, tmp_path)
    assert [row["learning_rate"] for row in rows] == planned
    best = min(rows, key=lambda row: row["rank"])
    models = [path.relative_to(directory) for path in directory.rglob("*.keras")]
    assert models == [Path(f"trial_{best['trial']}", "run", "best.keras")]
    run = RunFolder(directory / f"trial_{best['trial']}" / "run")
    assert run.read_metrics()["mean_iou"] == pytest.approx(best["val_mean_iou"], abs=1e-5)
    assert f"fcn-keras train --recipe strong --dataset {folder}" in output

    # Again it has nothing to do but to report; with other settings it is refused.
    assert main(arguments) == 0
    assert [starts_of(directory, trial) for trial in range(3)] == [[0], [0, 0], [0]]


@pytest.mark.slow
def test_failed_trials_are_recorded_and_the_search_goes_on(folder, tmp_path, capfd):
    directory = tmp_path / "search"
    # With this seed the first rate is 9e29 and the second 7e-3.
    flags = "--trials 2 --seed 624 --learning-rates 1e-4 1e30 --batch-sizes 2 3".split()
    search = Search(
        TrainConfig(seed=624),
        trials=2,
        learning_rates=(1e-4, 1e30),
        weight_decays=(1e-4, 1e-2),
        crops=("32x32",),
        batch_sizes=(2, 3),
    )
    assert main(command(folder, directory, *flags)) == 0
    good, bad = read_trials(directory)
    assert (good["trial"], bad["trial"]) == ("1", "0")
    assert [bad["learning_rate"], good["learning_rate"]] == planned_learning_rates(search, tmp_path)
    assert bad["status"] == "failed" and "loss became nan in epoch 1" in bad["error"]
    captured = capfd.readouterr()
    assert "Trial 0 failed: The" in captured.out and "Traceback" not in captured.err
    other = [*command(folder, directory, *flags), "--flip"]
    other[other.index("--steps") + 1] = "3"
    other.append("--no-flip")
    assert main(other) == 1
    assert "--steps 2 there, 3 here; --flip True there, False here" in capfd.readouterr().err


def test_a_mistake_in_all_trials_ends_the_search_at_once(folder, tmp_path, capfd):
    flags = ["--trials", "2", "--class-weights", "1", "2"]
    assert main(command(folder, tmp_path / "search", *flags)) == 1
    assert "error: --class-weights needs one weight for each of the 3" in capfd.readouterr().err
    assert not list(tmp_path.glob("search/trial_*/run"))


def test_a_trial_that_kills_the_process_again_and_again_fails(tmp_path):
    from fcn_keras.tuning.tuner import _deaths_counted

    run = RunFolder(tmp_path / "run")

    def die(error):
        with _deaths_counted(run):
            raise error

    for error in (SystemExit, KeyboardInterrupt, SystemExit, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            die(error)
    with pytest.raises(MemoryError, match="killed 3 times in epoch 1"):
        die(SystemExit)


def test_hyperband_begins_with_few_epochs(tmp_path):
    from fcn_keras.tuning.tuner import _make_oracle

    search = Search(TrainConfig(epochs=9), "hyperband", None, learning_rates=(0.01, 0.1))
    oracle = _make_oracle(search)
    values = oracle.populate_space("0")["values"]
    assert search.settings(values).epochs == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(("{", "Expecting"), ("{}", "Error reloading"), ("[" * 100_000, "nested too deeply")),
        # Trials name the folders whose models are removed when another is better.
        ('{"end_order": ["../../victim"]}', "trials are called"),
    ],
)
def test_damaged_files_of_a_search_are_named(folder, tmp_path, content, message):
    from fcn_keras.tuning.tuner import _make_oracle, run_search

    search = Search(TrainConfig(dataset=str(folder)), trials=1, learning_rates=(0.01, 0.1))
    claim_folder(search, tmp_path)
    (tmp_path / "trial_0" / "run").mkdir(parents=True)
    (tmp_path / "tuner0.json").write_text("{}")
    if "end_order" in content:
        content = json.dumps({**_make_oracle(search).get_state(), **json.loads(content)})
    (tmp_path / "oracle.json").write_text(content)
    with pytest.raises(UserError, match=f"KerasTuner's files there are damaged .*{message}"):
        run_search(search, tmp_path)
    assert (tmp_path / "oracle.json").read_text() == content
