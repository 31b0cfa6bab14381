import functools
import json

import pytest

from fcn_keras.cli import main
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.runs.additions import additions_of, require_additions, shown_additions
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import RunFolder

LABELS = LabelSet(("sky", "tree"))


def rain(image, mask):
    return image, mask


class Fog:
    def __call__(self, image, mask):
        return image, mask

    def thick(self, image, mask):
        return image, mask


HERE = __name__


def write(folder, additions):
    run = RunFolder(folder)
    run.write_config(TrainConfig.from_recipe("sample"), LABELS, additions)
    return run


@pytest.mark.parametrize(
    ("augment", "name"),
    [
        (rain, f"{HERE}.rain"),
        (Fog(), f"{HERE}.Fog"),
        (Fog().thick, f"{HERE}.Fog.thick"),
        (functools.partial(rain), "functools.partial"),
    ],
)
def test_names_lead_to_the_code(augment, name):
    assert additions_of(augment, [Fog()]) == {"augment": name, "callbacks": [f"{HERE}.Fog"]}
    assert additions_of(None, ()) == {}


def test_they_are_beside_the_settings_and_no_run_without_them_changes(tmp_path):
    additions = additions_of(rain, [Fog()])
    assert write(tmp_path, additions).read_additions() == additions
    assert write(tmp_path, {}).read_additions() == {}
    assert set(json.loads((tmp_path / "config.json").read_text())) == {
        *("train", "labels", "versions", "git_commit", "commands"),
    }


def test_a_run_is_resumed_with_as_many(tmp_path, capsys):
    run = write(tmp_path, additions_of(rain, [Fog(), Fog()]))
    require_additions(run, additions_of(rain, [Fog(), Fog()]))
    assert not capsys.readouterr().err
    for fewer in (additions_of(None, [Fog(), Fog()]), additions_of(rain, [Fog()]), {}):
        with pytest.raises(UserError, match=rf"with augment={HERE}.rain, callbacks=\[{HERE}.Fog, "):
            require_additions(run, fewer)
    require_additions(run, additions_of(Fog(), [Fog(), Fog()]))
    assert f"resumed with augment={HERE}.Fog, callbacks" in capsys.readouterr().err
    plain = write(tmp_path, {})
    require_additions(plain, {})
    assert not capsys.readouterr().err
    require_additions(plain, additions_of(None, [Fog()]))
    assert "trained with no additions, and is resumed with callbacks" in capsys.readouterr().err


def test_the_command_line_says_what_it_cannot_give(tmp_path, capfd):
    run = write(tmp_path, additions_of(rain, []))
    assert main(["train", "--resume", str(run.path)]) == 1
    error = capfd.readouterr().err
    assert f"trained from Python with augment={HERE}.rain. Resume it with them" in error
    assert "fcn_keras.resume(" in error
    # Repeating it is possible, and says what is missing; here it ends at the run's place.
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    command = ["train", "--config", str(run.path), "--run-dir", str(tmp_path / "taken")]
    assert main(command) == 1
    error = capfd.readouterr().err
    assert f"with augment={HERE}.rain, which --config leaves out" in error
    assert "already exists" in error


@pytest.mark.parametrize("python", [[1], 7, {"augment": 3}, {"callbacks": "a"}, {"callbacks": [1]}])
def test_damaged_additions_are_named(tmp_path, python):
    run = write(tmp_path, {})
    content = json.loads(run.config.read_text())
    run.config.write_text(json.dumps({**content, "python": python}))
    with pytest.raises(UserError, match="config.json: damaged"):
        run.read_additions()


def test_they_are_shown_as_arguments():
    assert shown_additions({"augment": None, "callbacks": ["a.B", "c.D"]}) == "callbacks=[a.B, c.D]"
    assert shown_additions({"augment": "a.b", "callbacks": []}) == "augment=a.b"
