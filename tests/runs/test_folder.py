import json
import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_keras.cli import main
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.reading import damage_as_user_errors
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import MEASURES, RunFolder
from fcn_keras.tuning.search import JOURNAL, Search
from fcn_keras.tuning.summary import read_trials

LABELS = LabelSet(("sky", "tree"))
HISTORY = [{"epoch": epoch, "loss": 1.5, "val_mean_iou": math.nan} for epoch in (1, 2)]
METRICS = {**dict.fromkeys(MEASURES, 0.5), "per_class_iou": {"sky": 0.5, "tree": None}}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path)
    run.write_config(TrainConfig.from_recipe("sample"), LABELS)
    run.write_history(HISTORY)
    run.write_metrics(METRICS)
    return run


def test_what_is_written_is_read(run):
    assert run.read_config() == TrainConfig.from_recipe("sample")
    assert run.read_labels() == LABELS
    assert [row["epoch"] for row in run.read_history()] == [1, 2]
    assert run.read_metrics() == METRICS
    assert len(run.read_origin()["commands"]) == 1
    run.write_config(run.read_config(), LABELS)  # as a resumed run does
    assert len(run.read_origin()["commands"]) == 2


CONTENTS = {
    "no JSON": b"{",
    "another root": b"[]",
    "null": b"null",
    "a text": b'"train"',
    "no UTF-8": b"\xff\xfe{}",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "large": b" " * (17 << 20),
    "no key": b"{}",
    "another key": b'{"train": {"x": 1}, "labels": {"x": 1}, "versions": 1}',
    "a list": b'{"train": [1], "labels": ["a"], "commands": [[1]]}',
    "infinite": b'{"train": {"momentum": Infinity}, "labels": null, "git_commit": 1}',
    "long number": b'{"train": {"epochs": %s}, "labels": 1, "commands": 1}' % (b"9" * 5000),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_config_is_named(run, name, capfd):
    run.config.write_bytes(CONTENTS[name])
    for read in (run.read_config, run.read_labels):
        with pytest.raises(UserError, match="config.json: damaged or of another version"):
            read()
    assert main(["train", "--resume", str(run.path)]) == 1
    assert main(["report", str(run.path)]) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 2  # and TensorFlow's messages when it is imported
    assert all(error.startswith(f"error: {run.config}: damaged") for error in errors)
    assert max(map(len, errors)) < 600


@pytest.mark.parametrize(
    "origin",
    [{"versions": [1]}, {"commands": [["a", 1]]}, {"commands": [{"a": 1}]}, {"git_commit": 7}],
)
def test_damaged_origins_are_named(run, origin):
    content = json.loads(run.config.read_text())
    run.config.write_text(json.dumps({**content, **origin}))
    with pytest.raises(UserError, match="config.json: damaged"):
        run.read_origin()
    run.write_config(run.read_config(), LABELS)  # a resumed run drops them
    assert len(run.read_origin()["commands"]) == 1


def test_a_run_without_an_origin_is_read(run):
    run.config.write_text(json.dumps({"command": ["train.py", "--epochs", "1"]}))
    assert run.read_origin()["commands"] == [["train.py", "--epochs", "1"]]
    run.config.write_text("{}")
    assert run.read_origin() == {"versions": {}, "git_commit": None, "commands": []}


@pytest.mark.parametrize(
    "text",
    [
        *("epoch,val_mean_iou\n1,high\n", "epoch,loss\n1,2\n", "epoch,val_mean_iou\n2,0.5\n"),
        *("epoch,val_mean_iou\n1\n", "epoch,val_mean_iou\n1,0.5,3\n", "\0,\0\n\0,\0\n"),
        *("epoch,val_mean_iou\nnan,0.5\n", "epoch,val_mean_iou\n1,inf\n", "a\n\xff\n"),
        "epoch,val_mean_iou\n" + "1" * 200_000 + ",0.5\n",
    ],
)
def test_a_damaged_history_is_named(run, text, capfd):
    run.history.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="history.csv: damaged"):
        run.read_history()
    assert main(["report", str(run.path)]) == 1
    assert f"error: {run.history}: damaged" in capfd.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        *({"mean_iou": "0.5"}, {"mean_iou": None}, {"pixel_accuracy": math.nan}),
        *({"per_class_iou": [0.5]}, {"per_class_iou": {"sky": "x"}}, {"mean_iou": 10**400}),
    ],
)
def test_damaged_metrics_are_named(run, change, capfd):
    run.metrics.write_text(json.dumps({**METRICS, **change}))
    with pytest.raises(UserError, match="metrics.json: damaged"):
        run.read_metrics()
    assert main(["report", str(run.path)]) == 1
    assert f"error: {run.metrics}: damaged" in capfd.readouterr().err


@given(VALUES, st.sampled_from([*vars(TrainConfig.from_recipe()), "other"]))
def test_settings_are_sound_or_refused(folder, value, name):
    run = RunFolder(folder)
    run.config.write_text(json.dumps({"train": {name: value}, "labels": LABELS.__dict__}))
    try:
        config = run.read_config()
    except UserError as error:
        assert str(run.config) in str(error)
    else:
        expected = tuple(value) if isinstance(value, list) else value
        assert getattr(config, name) == expected and hash(config) is not None


@given(VALUES, st.sampled_from(["names", "palette", "ignore_id"]))
def test_classes_are_sound_or_refused(folder, value, name):
    run = RunFolder(folder)
    content = {**{"names": ["a", "b"]}, name: value}
    run.config.write_text(json.dumps({"labels": content}))
    try:
        labels = run.read_labels()
    except UserError as error:
        assert str(run.config) in str(error)
    else:
        assert labels.colors().shape == (256, 3) and all(map(str.strip, labels.names))


@given(st.binary(max_size=60) | st.text("0123456789.,\n-einfa", max_size=40).map(str.encode))
def test_histories_are_sound_or_refused(folder, rest):
    run = RunFolder(folder)
    run.history.write_bytes(b"epoch,val_mean_iou\n1,0.5\n" + rest)
    try:
        rows = run.read_history()
    except UserError as error:
        assert str(run.history) in str(error)
    else:
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        assert all(isinstance(value, (int, float)) for row in rows for value in row.values())


@given(VALUES, st.sampled_from(["", *METRICS]))
def test_metrics_are_sound_or_refused(folder, value, name):
    run = RunFolder(folder)
    run.metrics.write_text(json.dumps({**METRICS, name: value} if name else value))
    try:
        metrics = run.read_metrics()
    except UserError as error:
        assert str(run.metrics) in str(error)
    else:
        assert all(math.isfinite(metrics[measure]) for measure in MEASURES)


@given(VALUES, st.sampled_from([*vars(Search(TrainConfig.from_recipe())), "other"]))
def test_searches_are_sound_or_refused(folder, value, name):
    content = {**Search(TrainConfig.from_recipe()).to_dict(), name: value}
    (folder / "search.json").write_text(json.dumps({"search": content}))
    (folder / JOURNAL).touch()
    try:
        search = Search.read(folder)
    except UserError as error:
        assert "search.json" in str(error)
    else:
        assert isinstance(search.settings({"learning_rate": 0.1}), TrainConfig)


FLOATS = optuna.distributions.FloatDistribution(0.01, 1.0, log=True)
TIME = "2026-01-01T00:00:00"
LINES = [  # about a completed trial, as Optuna writes them
    {"op_code": 0, "study_name": "tune", "directions": [2]},
    {"op_code": 4, "study_id": 0, "datetime_start": TIME},
    {"op_code": 5, "trial_id": 0, "param_name": "learning_rate", "param_value_internal": 0.1},
    {"op_code": 8, "trial_id": 0, "user_attr": {"steps_per_epoch": 3}},
    {"op_code": 6, "trial_id": 0, "state": 1, "values": [0.5], "datetime_complete": TIME},
]
LINES[2]["distribution"] = optuna.distributions.distribution_to_json(FLOATS)


@given(VALUES, st.sampled_from(sorted({name for line in LINES for name in line} | {"worker_id"})))
def test_damaged_journals_are_refused(folder, value, name):
    content = {"search": Search(TrainConfig.from_recipe()).to_dict()}
    (folder / "search.json").write_text(json.dumps(content))
    lines = [{"worker_id": "0", **line} for line in LINES]
    changed = [{**line, name: value} if name in line else line for line in lines]
    (folder / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in changed))
    try:
        assert len(read_trials(folder)) in (0, 1)
    except UserError as error:
        assert JOURNAL in str(error)
    (folder / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    [row] = read_trials(folder)
    assert (row["rank"], row["val_mean_iou"], row["learning_rate"]) == (1, 0.5, 0.1)


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_a_mistake_of_the_program_is_not_called_damage(error):
    with pytest.raises(error), damage_as_user_errors("config.json: damaged"):
        raise error
