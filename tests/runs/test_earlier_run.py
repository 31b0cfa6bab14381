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


DROPPED = {"trainable_upsampling": False, "tensorboard_images": 0}


@pytest.fixture(params=DROPPED)
def dropped(request, run):
    """The run with a value other than today's for a setting that was dropped."""
    content = json.loads(run.config.read_text())
    content["train"][request.param] = DROPPED[request.param]
    run.config.write_text(json.dumps(content))
    return request.param


def test_its_model_gives_the_same_logits(run):
    images = np.arange(40 * 56 * 3, dtype=np.float32).reshape(1, 40, 56, 3) % 256
    logits = load_model(run.path).predict_on_batch(images)
    # Printed by the version that wrote the run.
    expected = [2.3025, -0.3613, 0.9739, -1.0715, 0.9644, -0.758, 0.295, 0.4387]
    np.testing.assert_allclose(logits[0, 20, 28], expected, atol=2e-3)


def test_it_can_be_resumed(run):
    config = run.read_config()
    assert (config.region_loss, config.region_weight) == ("jaccard", 1.0)  # jaccard_weight then
    assert main(["train", "--resume", str(run.path), "--max-steps", "6"]) == 0
    history = run.read_history()
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert run.read_metrics()


def test_one_with_a_dropped_setting_is_used_but_not_trained(run, dropped, tmp_path, capsys):
    assert run.read_config().output_stride == 8
    path, data = str(run.path), ["--dataset", "sample", "--limit", "1"]
    assert main(["evaluate", "--model", path, *data]) == 0
    assert main(["predict", "--model", path, *data, "--output", str(tmp_path / "masks")]) == 0
    exported = str(tmp_path / "model.keras")
    assert main(["export", "--model", path, "--format", "keras", "--output", exported]) == 0
    for flag in ("--resume", "--config"):
        capsys.readouterr()
        assert main(["train", flag, path]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert f"trained with {dropped} {DROPPED[dropped]}, which this version fixes" in line
