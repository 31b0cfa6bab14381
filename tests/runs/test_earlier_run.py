"""A run that an earlier version made, with settings that have been dropped since."""

import json
import shutil

import numpy as np
import pytest
from support.processes import ROOT

from fcn_keras.cli import main
from fcn_keras.inference.loading import load_model
from fcn_keras.runs.folder import RunFolder

EARLIER = ROOT / "tests" / "support" / "earlier_run"


@pytest.fixture
def run(tmp_path):
    """A copy. Its `last.keras` (weights rounded to 8 bits, to be small) is its best model, too."""
    run = RunFolder(shutil.copytree(EARLIER, tmp_path / "run"))
    shutil.copy(run.last, run.best)
    return run


@pytest.fixture
def run_with_dropped_setting(run):
    content = json.loads(run.config.read_text())
    content["train"]["trainable_upsampling"] = False
    run.config.write_text(json.dumps(content))
    return run


def test_its_model_gives_the_same_logits(run):
    images = np.arange(40 * 56 * 3, dtype=np.float32).reshape(1, 40, 56, 3) % 256
    logits = load_model(run.path).predict_on_batch(images)
    # Printed by the version that wrote it.
    expected = [2.3025, -0.3613, 0.9739, -1.0715, 0.9644, -0.758, 0.295, 0.4387]
    np.testing.assert_allclose(logits[0, 20, 28], expected, atol=2e-3)


def test_it_can_be_resumed(run):
    assert main(["train", "--resume", str(run.path), "--max-steps", "6"]) == 0
    history = run.read_history()
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert run.read_metrics()


def test_one_with_a_dropped_setting_is_evaluated_but_not_trained(run_with_dropped_setting, capsys):
    path = str(run_with_dropped_setting.path)
    evaluation = ["evaluate", "--model", path, "--dataset", "sample", "--limit", "1"]
    assert main(evaluation) == 0
    assert run_with_dropped_setting.read_config().output_stride == 8
    for flag in ("--resume", "--config"):
        assert main(["train", flag, path]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "trained with trainable_upsampling False, which this version fixes at True" in line
