import json
import os

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory):
    """A folder with an untrained FCN-8s and the classes of the fake data set."""
    import keras
    from fake_folder import CLASSES

    from fcn_keras.datasets.base import voc_palette
    from fcn_keras.models.fcn import build_fcn

    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(1)
    build_fcn("resnet18", len(CLASSES), 8, weights=None).save(folder / "best.keras")
    labels = {"names": CLASSES, "palette": voc_palette(len(CLASSES))}
    (folder / "config.json").write_text(json.dumps({"labels": labels, "git_commit": "abc"}))
    return folder


@pytest.fixture(scope="session")
def exported(untrained_run, tmp_path_factory):
    """The version folder that `fcn-keras export` made of `untrained_run`, with side limit 300."""
    from fcn_keras.cli import main

    output = tmp_path_factory.mktemp("models") / "fcn"
    command = ["export", "--model", str(untrained_run), "--output", str(output)]
    assert main([*command, "--max-side", "300", "--max-pixels", "1000000"]) == 0
    return output / "1"
