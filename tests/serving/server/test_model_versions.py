"""Which versions are served, with folders whose content a simple loader reads."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fcn_keras.errors import UserError
from fcn_keras.serving.server.model_versions import LoadError, ModelVersions


@pytest.fixture
def loaded():
    """The versions that were tried, in order."""
    return []


@pytest.fixture
def load(loaded):
    def load(folder):
        loaded.append(int(folder.name))
        content = (folder / "content").read_text()
        if content == "broken":
            raise LoadError("It is broken.", 3)
        return content

    return load


def write(base, version, content="model"):
    folder = base / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "content").write_text(content)


def started(base, load, **options):
    versions = ModelVersions("fcn", base, **options)
    versions.start(load, poll_seconds=1e6)
    return versions


def look_twice(versions):
    for _ in range(2):  # files must stay the same between two looks
        versions.look()


def names(versions):
    return {version: state.name for version, state in versions.states.items()}


def test_the_newest_and_the_labelled_are_served(tmp_path, load, loaded):
    for version in (1, 2, 9, 10, 11):
        write(tmp_path, version)
    for name in (".partial-x", "12a", "-13", "14.0", "²"):
        write(tmp_path, name)
    (tmp_path / "15").write_text("no folder")
    versions = started(tmp_path, load, labels={"stable": 2}, keep=2)
    assert sorted(versions.models) == [2, 10, 11] and loaded == [11, 10, 2]
    write(tmp_path, 12)
    look_twice(versions)
    assert sorted(versions.models) == [2, 11, 12] and names(versions)[10] == "END"


def test_a_version_is_loaded_when_its_files_rest(tmp_path, load, loaded):
    write(tmp_path, 1)
    versions = started(tmp_path, load)
    (tmp_path / "2").mkdir()
    look_twice(versions)
    for content in ("m", "mo", "mod"):
        write(tmp_path, 2, content)
        versions.look()
    assert loaded == [1] and 2 not in versions.states
    versions.look()
    assert versions.models == {1: "model", 2: "mod"}


def test_a_broken_version_is_tried_once_until_it_changes(tmp_path, load, loaded, capfd):
    write(tmp_path, 1)
    versions = started(tmp_path, load, keep=1)
    write(tmp_path, 2, "broken")
    for _ in range(5):
        versions.look()
    assert loaded == [1, 2] and sorted(versions.models) == [1]
    state = versions.states[2]
    assert (state.name, state.error, state.code) == ("END", "It is broken.", 3)
    assert capfd.readouterr().err == f"error: {tmp_path}/2 cannot be loaded (It is broken.).\n"
    write(tmp_path, 2, "mended")
    look_twice(versions)
    assert versions.models == {2: "mended"} and names(versions) == {1: "END", 2: "AVAILABLE"}


def test_a_slow_copy_is_reported_once_for_each_reason(tmp_path, capfd):
    write(tmp_path, 1)
    reason = ""

    def load(folder):
        if folder.name == "2" and reason:
            raise LoadError(reason, 3)
        return "model"

    versions = started(tmp_path, load)
    for size, reason in enumerate(["no such file"] * 9 + ["cut off"] * 9 + ["", "cut off"]):
        write(tmp_path, 2, "x" * size)
        look_twice(versions)
        if not reason:  # it is whole, and then replaced by another copy
            shutil.rmtree(tmp_path / "2")
            versions.look()
    lines = [line.split("(")[1] for line in capfd.readouterr().err.splitlines()]
    assert lines == ["no such file).", "cut off).", "cut off)."]


def test_failed_loads_keep_no_memory(tmp_path):
    """A graph with a constant of 8 MiB, whose warm-up fails 10 times and more."""
    tf = pytest.importorskip("tensorflow")
    from fcn_keras.serving.server.saved_model import load_model

    class Heavy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
        def add(self, x):
            return {"y": x + tf.constant(np.random.default_rng(0).random(2**21, np.float32))}

    heavy = Heavy()
    tf.saved_model.save(heavy, str(tmp_path / "1"), {"serving_default": heavy.add})
    versions = started(tmp_path, load_model)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    (tmp_path / "2/assets.extra").mkdir()
    warmup = tmp_path / "2/assets.extra/tf_serving_warmup_requests"
    sizes = []
    for size in range(1, 16):
        warmup.write_bytes(b"x" * (20 + size))
        look_twice(versions)
        assert versions.states[2].name == "END"
        sizes.append(memory_mib())
    assert sizes[-1] - sizes[4] < 30


def memory_mib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_the_old_one_goes_only_when_the_new_one_is_there(tmp_path, loaded):
    write(tmp_path, 1)
    seen = []

    def load(folder):
        if folder.name == "2":
            seen.extend([sorted(versions.models), names(versions)])
        return "model"

    versions = started(tmp_path, load, keep=1)
    write(tmp_path, 2)
    look_twice(versions)
    assert seen == [[1], {1: "AVAILABLE", 2: "LOADING"}] and sorted(versions.models) == [2]


def test_deleted_versions_go_but_for_the_last(tmp_path, load):
    for version in (1, 2):
        write(tmp_path, version)
    versions = started(tmp_path, load)
    shutil.rmtree(tmp_path / "2")
    versions.look()
    assert sorted(versions.models) == [1]
    shutil.rmtree(tmp_path / "1")
    versions.look()
    assert sorted(versions.models) == [1] and names(versions) == {1: "AVAILABLE", 2: "END"}


def test_an_older_version_takes_the_place_of_a_broken_one_at_start(tmp_path, load, capfd):
    write(tmp_path, 1)
    write(tmp_path, 2, "broken")
    versions = started(tmp_path, load, keep=1)
    assert sorted(versions.models) == [1] and names(versions)[2] == "END"
    assert "2 cannot be loaded (It is broken.)." in capfd.readouterr().err


def test_what_cannot_be_loaded_at_start_is_named(tmp_path, load):
    write(tmp_path, 1, "broken")
    with pytest.raises(UserError, match=r"1 cannot be loaded \(It is broken.\). Export it again"):
        started(tmp_path, load)
    write(tmp_path, 2)
    with pytest.raises(UserError, match="1 cannot be loaded"):
        started(tmp_path, load, labels={"stable": 1})
