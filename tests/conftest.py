import fcntl
import gc
import json
import os
import shutil
import signal
import sys

import hypothesis
import pytest
from support.fake_folder import CLASSES, draw_example, write_folder
from support.runs import QUICK

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# At each conversion, OpenVINO would fork this process to send usage data to its makers.
sys.modules["openvino_telemetry"] = None

# The same few examples each time; HYPOTHESIS_PROFILE=long looks for new ones, for minutes.
SHARED = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
}
hypothesis.settings.register_profile("default", max_examples=50, derandomize=True, **SHARED)
hypothesis.settings.register_profile("long", max_examples=20_000, print_blob=True, **SHARED)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_sessionstart(session):
    """Makes a stray signal end the tests with its name and the summary."""

    def stop(number, _):
        session.shouldstop = f"ended by {signal.Signals(number).name}"  # if a test drops the exit
        pytest.exit(session.shouldstop, 128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # and not ignored
            signal.signal(number, stop)


def pytest_collection_finish():
    """Keeps the garbage collector from scanning what imports created, which stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """Builds a folder, which the workers of pytest-xdist share: the first one builds it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def built_once(name, build):
        folder, built = base / name, base / f"{name}.built"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not built.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                build(folder)
                built.touch()
        return folder

    return built_once


@pytest.fixture(scope="session")
def shapes(built_once):
    """A data set of 6 images for training and 5 for validation. Read-only."""
    return built_once("shapes", lambda folder: write_folder(folder, val=5))


@pytest.fixture(scope="session")
def finished_run(shapes, built_once):
    """A finished run of two epochs. Read-only: a test that changes it copies it."""
    from fcn_keras.cli import main

    flags = "--backbone tiny --output-stride 16 --batch-size 2 --crop 48 64 --scale 1 1".split()
    flags += "--epochs 2 --optimizer adamw --learning-rate 1e-2".split()

    def build(run_dir):
        assert main(["train", "--dataset", str(shapes), "--run-dir", str(run_dir), *flags]) == 0

    return built_once("finished", build)


@pytest.fixture(scope="session")
def resumed_run(shapes, built_once):
    """A run of two epochs that was continued to four, validated in the second and fourth."""
    from fcn_keras.cli import main

    flags = ["--epochs", "2", "--validate-every", "2", "--schedule", "poly"]

    def build(run_dir):
        command = ["train", "--dataset", str(shapes), "--run-dir", str(run_dir), *QUICK, *flags]
        assert main(command) == 0
        assert main(["train", "--resume", str(run_dir), "--epochs", "4"]) == 0

    return built_once("resumed", build)


@pytest.fixture(scope="session")
def untrained_run(built_once):
    """A folder with an untrained FCN-8s, whose masks have all classes of the fake data set."""
    return built_once("untrained", _save_untrained_run)


def _save_untrained_run(folder):
    import keras
    import numpy as np

    from fcn_keras.data.split import voc_palette
    from fcn_keras.models.fcn import build_fcn

    keras.utils.set_random_seed(1)
    model = build_fcn("tiny", len(CLASSES), 8, weights=None)
    # Its random scores would favour one class everywhere.
    image, _ = draw_example(np.random.default_rng(1), (64, 96), void=False)
    logits = model(image[None].astype("float32")).numpy()
    model.get_layer("score_8").bias.assign(-logits.mean(axis=(0, 1, 2)))
    classes = model(image[None].astype("float32")).numpy().argmax(axis=-1)
    assert len(np.unique(classes)) == len(CLASSES)
    folder.mkdir()
    model.save(folder / "best.keras")
    labels = {"names": CLASSES, "palette": voc_palette(len(CLASSES))}
    (folder / "config.json").write_text(json.dumps({"labels": labels, "git_commit": "abc"}))


@pytest.fixture(scope="session")
def exported(untrained_run, built_once):
    """The version folder that `fcn-keras export` made from `untrained_run`, with side limit 300."""
    from fcn_keras.cli import main

    def build(output):
        command = ["export", "--model", str(untrained_run), "--output", str(output)]
        assert main([*command, "--max-side", "300", "--max-pixels", "1000000"]) == 0

    return built_once("fcn", build) / "1"
