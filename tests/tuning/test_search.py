"""A search's settings, the owner of its folder, and its report; nothing is trained."""

import json
import shlex
from unittest import mock

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from fcn_keras.cli import main
from fcn_keras.cli.train import add_config_flags, given_settings
from fcn_keras.cli.tune import _search
from fcn_keras.errors import UserError
from fcn_keras.runs.command import train_command
from fcn_keras.runs.config import TrainConfig
from fcn_keras.tuning.search import Search, claim_folder, open_study, trial_run
from fcn_keras.tuning.summary import format_table, read_trials, write_report


def parse_search(*flags):
    """The search that the command line makes from flags."""
    from fcn_keras.cli import _parser

    return _search(_parser().parse_args(["tune", "--search-dir", "x", *flags]))


def test_ranges_follow_from_the_recipe_and_train_flags_fix():
    search = parse_search("--dataset", "/my", "--batch-size", "5", "--weights", "none")
    assert (search.train.recipe, search.train.epochs) == ("strong", 60)
    assert search.learning_rates == (0.001, 0.1) and search.weight_decays == (1e-4, 1e-2)
    assert search.crops == ("160x240", "320x480") and search.batch_sizes is None
    assert search.train.batch_size == 5 and search.trials == 12


def test_a_trial_is_as_long_as_asked_for():
    search = Search(TrainConfig(epochs=60), steps=200)
    config = search.settings({"crop": "32x48", "learning_rate": 0.0123456}, steps_per_epoch=90)
    # 200 steps end within the third epoch of 90; a schedule ends there too.
    assert (config.epochs, config.max_steps) == (3, 200)
    assert config.crop == (32, 48) and config.learning_rate == 0.01235


def test_the_command_gives_the_settings_again():
    import argparse

    config = TrainConfig.from_recipe(
        "sample", crop=(32, 48), flip=False, learning_rate=1.2345e-5, class_weights=(1.0, 2.5)
    )
    changes = {"dataset": "/a folder", "max_steps": 7, "loss": "ohem", "label_smoothing": 0.1}
    config = config.replaced(**changes, region_loss="dice", region_weight=2.0)
    words = shlex.split(train_command(config))
    assert words[:2] == ["fcn-keras", "train"]
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    given = given_settings(parser.parse_args(words[2:]))
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    assert TrainConfig.from_recipe(given.pop("recipe"), **given) == config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1. Received: 0."),
        (["--steps", "2", "--epochs", "2"], "--steps and --epochs exclude each other"),
        (["--learning-rates", "0.1", "0.01"], "--learning-rates needs 0 < LOW < HIGH"),
        (["--weight-decays", "0", "1"], "--weight-decays needs 0 < LOW < HIGH. Received: 0.0 1.0"),
        (["--batch-sizes", "4", "0"], "--batch-sizes must be at least 1. Received: 0."),
        (["--crop", "3", "3", "--crops", "4x4"], "--crop fixes what --crops searches"),
        (["--tuner", "hyperband"], "--tuner hyperband compares many short trials: give --trials."),
        (["--tuner", "hyperband", "--trials", "4", "--steps", "2"], "give --epochs, not --steps"),
        (["--dataset", "/no/such"], "Received: '/no/such'"),
    ],
)
def test_mistakes_are_named(flags, message, tmp_path, capfd):
    assert main(["tune", "--search-dir", str(tmp_path / "search"), *flags]) == 1
    stderr = capfd.readouterr().err
    assert message in stderr and "Traceback" not in stderr
    assert not (tmp_path / "search").exists()


def test_malformed_crop_is_one_line(capfd):
    with pytest.raises(SystemExit, match="2"):
        main(["tune", "--search-dir", "x", "--crops", "32"])
    message = "error: argument --crops: must look like 160x224. Received: '32'"
    assert capfd.readouterr().err.startswith(message)


def test_a_missing_package_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["tune", "--search-dir", str(tmp_path / "search")]) == 1
    assert "pip install 'fcn_keras[tune]'\n" in capfd.readouterr().err


def test_ctrl_c_tells_how_to_go_on(tmp_path, capfd, monkeypatch):
    interrupted = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("fcn_keras.tuning.tuner.run_search", interrupted)
    assert main(["tune", "--search-dir", str(tmp_path / "search")]) == 130
    assert "Interrupted: run the same command to continue the search." in capfd.readouterr().err


def test_other_settings_are_refused_with_the_difference(tmp_path):
    search = Search(TrainConfig(), batch_sizes=(4, 8))
    assert not claim_folder(search, tmp_path)
    (tmp_path / "trial_0" / "run").mkdir(parents=True)  # training has started
    assert claim_folder(Search(TrainConfig(), trials=20, batch_sizes=(4, 8)), tmp_path)
    other = Search(TrainConfig(seed=3), batch_sizes=(4, 16))
    with pytest.raises(UserError) as refused:
        claim_folder(other, tmp_path)
    assert "--batch-sizes 4 8 there, 4 16 here; --seed 0 there, 3 here" in str(refused.value)


def test_a_search_of_an_earlier_version_goes_on(tmp_path):
    search = Search(TrainConfig(region_weight=2.0))
    claim_folder(search, tmp_path)
    path = tmp_path / "search.json"
    content = json.loads(path.read_text())
    settings = content["search"]["train"]
    for name in ("loss", "label_smoothing", "region_loss", "region_weight"):
        del settings[name]
    path.write_text(
        json.dumps({"search": {**content["search"], "train": settings | {"jaccard_weight": 2.0}}})
    )
    assert Search.read(tmp_path).train.region_weight == 2.0


def test_a_search_that_never_trained_gives_way(tmp_path):
    claim_folder(Search(TrainConfig()), tmp_path)
    (tmp_path / "trial_0").mkdir()
    assert not claim_folder(Search(TrainConfig(seed=3)), tmp_path)
    assert Search.read(tmp_path).train.seed == 3 and not (tmp_path / "trial_0").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        claim_folder(Search(TrainConfig()), tmp_path)
    with pytest.raises(UserError, match="not a search"):
        write_report(tmp_path)


@pytest.mark.parametrize("content", ["{}", "mine", json.dumps({"search": {"query": "trees"}})])
def test_another_programs_search_json_is_refused(tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    (tmp_path / "thesis.json").write_text("{}")
    (tmp_path / "trial_1").mkdir()
    with pytest.raises(UserError, match="holds something else. Choose another --search-dir."):
        claim_folder(Search(TrainConfig()), tmp_path)
    assert (tmp_path / "search.json").read_text() == content
    assert (tmp_path / "thesis.json").exists() and (tmp_path / "trial_1").exists()


def test_a_search_by_kerastuner_is_refused(tmp_path, capfd):
    search = Search(TrainConfig())
    claim_folder(search, tmp_path)
    (tmp_path / "journal.log").unlink()
    (tmp_path / "oracle.json").write_text("{}")
    (tmp_path / "trial_00" / "run").mkdir(parents=True)
    with pytest.raises(UserError, match="an earlier version, .* Choose another --search-dir."):
        claim_folder(search, tmp_path)
    assert main(["tune", "--search-dir", str(tmp_path), "--report"]) == 1
    assert "a search by an earlier version" in capfd.readouterr().err


def write_trial(directory, state, score=None, attributes=None, **values):
    """Adds a trial to the journal; its run has two epochs if it has a score."""
    study = open_study(directory)
    run = trial_run(directory, len(study.trials))
    distributions = {name: FloatDistribution(0.001, 1, log=True) for name in values}
    study.add_trial(
        create_trial(
            state=state,
            value=score,
            params=values,
            distributions=distributions,
            user_attrs=attributes,
        )
    )
    run.path.mkdir(parents=True)
    config = TrainConfig(recipe="sample", run_dir=str(run.path), **values)
    run.config.write_text(json.dumps({"train": vars(config)}))
    if score:
        row = {"val_mean_iou": score, "seconds": 30.25}
        run.write_history([{"epoch": epoch, **row} for epoch in (1, 2)])


def test_report_ranks_completed_trials_and_tells_of_the_others(tmp_path, capfd):
    claim_folder(Search(TrainConfig(recipe="sample"), steps=7), tmp_path)
    write_trial(tmp_path, TrialState.COMPLETE, 0.25, {"steps_per_epoch": 3}, learning_rate=0.1)
    failure = {"error": "The loss became nan."}
    write_trial(tmp_path, TrialState.FAIL, attributes=failure, learning_rate=0.5)
    write_trial(tmp_path, TrialState.COMPLETE, 0.75, {"steps_per_epoch": 4}, learning_rate=0.02)
    write_trial(tmp_path, TrialState.RUNNING, learning_rate=0.3)
    write_trial(tmp_path, TrialState.PRUNED, 0.9, learning_rate=0.2)
    assert main(["tune", "--search-dir", str(tmp_path), "--report"]) == 0
    output = capfd.readouterr().out
    assert "Trial 1 failed after 0 epochs: The loss became nan." in output
    assert "Trial 3 unfinished after 0 epochs." in output
    assert "Trial 4 pruned after 2 epochs." in output
    rows = json.loads((tmp_path / "report.json").read_text())["trials"]
    assert [(row["trial"], row["rank"]) for row in rows] == [
        *(("2", 1), ("0", 2), ("1", None), ("3", None), ("4", None))
    ]
    assert rows[0]["val_mean_iou"] == 0.75 and rows[0]["seconds"] == 60.5
    assert [row["steps"] for row in rows] == [7, 6, None, None, None]  # 2 epochs, but at most 7
    assert "fcn-keras train --recipe sample" in output and "--learning-rate 0.02" in output
    report = (tmp_path / "report.md").read_text()
    assert format_table(read_trials(tmp_path)) in report
    assert "2 completed, 1 pruned, 1 failed, 1 unfinished" in report
