"""Real faults in the middle of a run: what is saved stays sound, and `--resume` continues.

The runs are deterministic, so "continues" means the weights of an undisturbed run, bit
for bit. `KILLS=50 pytest -m slow tests/training/test_death.py` kills more often.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import processes
from support.fake_folder import write_folder
from support.processes import heed_signals, until_epoch
from support.runs import history_of

import fcn_keras

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "10"))
EPOCHS = 8
FLAGS = "--batch-size 2 --crop 32 32 --output-stride 32 --momentum 0 --learning-rate 1e-3".split()
FLAGS += ["--weights", "none", "--deterministic", "--cache-mb", "0", "--epochs", str(EPOCHS)]
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An undisturbed run, and the seconds that it takes."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    start = time.monotonic()
    finish(new_run(data, run_dir))
    return run_dir, time.monotonic() - start


def new_run(data, run_dir):
    return ["--dataset", data, "--run-dir", run_dir, *FLAGS]


def start(flags, **options):
    return processes.start("train.py", *flags, **options)


def finish(flags, **options):
    return processes.finish("train.py", *flags, **options)


def kill_in_epoch_3(data, run_dir):
    process = start(new_run(data, run_dir))
    until_epoch(process, 3)
    process.kill()
    process.communicate()


def flags_to_go_on(data, run_dir):
    """A run that was killed before it wrote its settings is started again."""
    begun = (run_dir / "config.json").is_file()
    return ["--resume", run_dir] if begun else new_run(data, run_dir)


def require_same_result(run_dir, whole):
    ours, theirs = (
        fcn_keras.load_model(folder / "last.keras").get_weights() for folder in (run_dir, whole[0])
    )
    for weights, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(weights, expected)
    for name in ("metrics.json", "MODEL_CARD.md", "predictions.png", "curves.png", "best.keras"):
        assert (run_dir / name).is_file()
    assert json.loads((run_dir / "metrics.json").read_text()) == json.loads(
        (whole[0] / "metrics.json").read_text()
    )
    rows, expected = (history_of(folder) for folder in (run_dir, whole[0]))
    for row in (*rows, *expected):
        row.pop("seconds")
    assert rows == expected
    assert not list(run_dir.glob(".partial-*"))


def require_sound(run_dir):
    """Each file with its final name is complete, and where there is a history there is a model."""
    models = list(run_dir.glob("[!.]*.keras"))
    for path in models:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None and "model.weights.h5" in archive.namelist()
    if (run_dir / "config.json").is_file():
        json.loads((run_dir / "config.json").read_text())
    if (run_dir / "history.csv").is_file():
        rows = history_of(run_dir)
        assert [row["epoch"] for row in rows] == [str(i + 1) for i in range(len(rows))]
        assert (run_dir / "best.keras") in models
        assert len(rows) < 2 or (run_dir / "last.keras") in models


def test_a_kill_at_any_moment_loses_nothing(data, whole, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    killed = finished = 0
    run_dir = tmp_path / "run"
    while killed < KILLS:
        process = start(flags_to_go_on(data, run_dir))
        try:
            output, _ = process.communicate(timeout=moments.uniform(0, whole[1]))
            assert process.returncode == 0, output
            require_same_result(run_dir, whole)
            shutil.rmtree(run_dir)
            finished += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
            require_sound(run_dir)
    finish(flags_to_go_on(data, run_dir))
    require_same_result(run_dir, whole)
    print(f"{killed} kills, {finished + 1} runs with the same bits")


@pytest.mark.parametrize("size", ["20k", "20m", "100m"])  # of logs, of best, of last
def test_a_full_disk_is_named_and_survived(data, whole, tmp_path, size):
    with small_disk(tmp_path / "disk", size) as disk:
        run_dir = disk / "run"
        output = finish(new_run(data, run_dir), expected=1)
        assert "No space left on device. Free space or allow writing, then continue" in output
        assert "Traceback" not in output and not list(run_dir.glob(".partial-*"))
        require_sound(run_dir)
        mount("-o", "remount,size=1g", disk)
        finish(["--resume", run_dir])
        require_same_result(run_dir, whole)


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("only root can mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def test_a_folder_that_cannot_be_written_is_named(data, whole, tmp_path):
    run_dir = tmp_path / "run"
    kill_in_epoch_3(data, run_dir)
    before = sorted(run_dir.iterdir())
    run_dir.chmod(0o555)
    output = finish(["--resume", run_dir], expected=1, preexec_fn=without_root_s_rights)
    assert re.search(r"error: .*run/.*: Permission denied\. Free space or allow writing", output)
    assert "Traceback" not in output
    new = new_run(data, run_dir / "inner")
    output = finish(new, expected=1, preexec_fn=without_root_s_rights)
    assert "inner: cannot be written (Permission denied)" in output
    run_dir.chmod(0o755)
    assert sorted(run_dir.iterdir()) == before
    finish(["--resume", run_dir])
    require_same_result(run_dir, whole)


def without_root_s_rights():
    """Makes root obey the files' modes like anyone else; other users do already."""
    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_lost_data_are_named(data, whole, tmp_path):
    run_dir, away = tmp_path / "run", data.with_name("away")
    process = start(new_run(data, run_dir))
    until_epoch(process, 3)
    data.rename(away)
    try:
        output, _ = process.communicate(timeout=300)
    finally:
        away.rename(data)
    assert process.returncode == 1 and "Traceback" not in output
    missing = r"(no such folder|cannot be read \(No such file or directory\))"
    assert re.search(rf"error: {data}/.*: {missing}", output), output
    require_sound(run_dir)
    finish(["--resume", run_dir])
    require_same_result(run_dir, whole)


def test_a_lack_of_memory_leaves_a_sound_run(data, whole, tmp_path):
    run_dir = tmp_path / "run"
    process = start(new_run(data, run_dir))
    until_epoch(process, 3)
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    output, _ = process.communicate(timeout=300)
    # TensorFlow ends the process itself in many of these cases.
    assert process.returncode < 0 or (process.returncode == 1 and "error: " in output), output
    require_sound(run_dir)
    finish(["--resume", run_dir])
    require_same_result(run_dir, whole)


def test_a_loss_that_is_not_finite_replaces_nothing(data, whole, tmp_path):
    run_dir = tmp_path / "run"
    kill_in_epoch_3(data, run_dir)
    config = (run_dir / "config.json").read_text()
    saved = {path: path.read_bytes() for path in run_dir.glob("*.keras")}
    (run_dir / "config.json").write_text(
        config.replace('"learning_rate": 0.001', '"learning_rate": 1e+30')
    )
    output = finish(["--resume", run_dir], expected=1)
    assert re.search(r"error: The .* became nan in epoch \d\. Lower --learning-rate in", output)
    assert {path: path.read_bytes() for path in run_dir.glob("*.keras")} == saved
    (run_dir / "config.json").write_text(config)
    finish(["--resume", run_dir])
    require_same_result(run_dir, whole)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_without_a_traceback(data, whole, tmp_path, presses):
    run_dir = tmp_path / "run"
    codes = []
    for moment in np.linspace(0.2, 0.9, 4) * whole[1]:
        process = start(flags_to_go_on(data, run_dir), preexec_fn=heed_signals)
        time.sleep(moment)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        output, _ = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert "Traceback" not in output and "Exception ignored" not in output
        if presses == 1 and process.returncode and "Run folder" in output:
            assert f"Interrupted: continue with --resume {run_dir}." in output
        require_sound(run_dir)
    ended = {130, -signal.SIGINT} if presses == 2 else {130}  # which a shell shows as 130 too
    assert ended & {*codes} and {*codes} <= ended | {0}  # 0: the run was done before
    finish(flags_to_go_on(data, run_dir))
    require_same_result(run_dir, whole)


def test_a_run_s_settings_repeat_it(whole, tmp_path):
    finish(["--config", whole[0] / "config.json", "--run-dir", tmp_path / "run"])
    require_same_result(tmp_path / "run", whole)
