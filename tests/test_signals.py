"""Signals that stop a process: real ones, sent to real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from support import processes
from support.processes import FCN_KERAS, ROOT, heed_signals, until_epoch
from support.runs import QUICK, history_of

TRAIN = [*QUICK, "--dataset"]


def ignore_hangups():
    """As `nohup` does."""
    heed_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def start(*command, preexec_fn=heed_signals):
    """Starts `fcn-keras`; its output is on `stdout`."""
    return processes.start(*FCN_KERAS[1:], *command, preexec_fn=preexec_fn)


def wait_for(condition, process, seconds=120):
    for _ in range(100 * seconds):
        if condition():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    pytest.fail("It did not happen.")


def require_stopped(process, number, remedy):
    output, _ = process.communicate(timeout=120)
    name = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    remedy = remedy and f": {remedy}"
    assert output.splitlines()[-1] == f"Interrupted{name}{remedy}.", output
    assert output.count("Interrupted") == 1 and "Traceback" not in output
    assert process.returncode == 128 + number


@pytest.mark.parametrize("hangups_ignored", [False, True])
def test_a_training_that_is_told_to_stop_says_how_to_go_on(hangups_ignored, shapes, tmp_path):
    """What was ignored at the start stays ignored."""
    run = tmp_path / "run"
    command = ["train", *TRAIN, shapes, "--run-dir", run, "--epochs", "500"]
    process = start(*command, preexec_fn=ignore_hangups if hangups_ignored else heed_signals)
    until_epoch(process, 3)
    number = signal.SIGHUP
    if hangups_ignored:
        process.send_signal(number)
        until_epoch(process, int(history_of(run)[-1]["epoch"]) + 3)
        number = signal.SIGTERM
    for _ in range(2):  # as `timeout` sends them
        process.send_signal(number)
    require_stopped(process, number, f"continue with --resume {run}")
    assert len(history_of(run)) >= 2 and not list(run.rglob(".partial-*"))


def test_a_prediction_that_is_told_to_stop_leaves_whole_files(untrained_run, tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(300):
        Image.new("RGB", (300, 300)).save(tmp_path / "in" / f"{index}.png")
    output = tmp_path / "out"
    command = ["--model", untrained_run, tmp_path / "in", "--output", output]
    process = start("predict", *command)
    wait_for(lambda: len(list(output.glob("[0-9]*.png"))) > 3, process)
    process.send_signal(signal.SIGTERM)
    require_stopped(process, signal.SIGTERM, "continue with --skip-existing")
    assert 3 < len(list(output.glob("[0-9]*.png"))) < 300
    assert not list(output.rglob(".partial-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_conversion_that_is_told_to_stop_leaves_nothing(number, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for index in range(1000):
            mode = "RGB" if name == "images" else "L"
            Image.new(mode, (40, 40)).save(tmp_path / name / f"{index}.png")
    (tmp_path / "classes.txt").write_text("background\n")
    given = ["--images", tmp_path / "images", "--masks", tmp_path / "masks"]
    given += ["--classes", tmp_path / "classes.txt", "--output", tmp_path / "data"]
    before = sorted(tmp_path.iterdir())
    process = start("data", "convert", *given)
    wait_for(lambda: list(tmp_path.glob(".partial-*/folder/JPEGImages/*")), process)
    process.send_signal(number)
    require_stopped(process, number, "")  # nothing can continue it
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("program", [["-m", "fcn_keras"], [ROOT / "train.py"]])
def test_ctrl_c_during_the_first_imports_is_told_in_one_line(program, tmp_path):
    (tmp_path / "argparse.py").write_text(
        'import signal; print("Epoch 1/1", flush=True); signal.pause()'
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = processes.start(*program, preexec_fn=heed_signals, env=environment)
    until_epoch(process, 1)
    process.send_signal(signal.SIGINT)
    require_stopped(process, signal.SIGINT, "")


def test_a_call_that_never_returns_to_python_is_ended(tmp_path):
    """Like TensorFlow's wait for another worker; a second signal ends it sooner."""
    program = tmp_path / "deaf.py"
    program.write_text("""
import ctypes, sys
from fcn_keras import signals

signals.DEAF_SECONDS = float(sys.argv[1])
with signals.raised("go on"):
    print("Epoch 1/1", flush=True)
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second time it waits, which no signal ends
        ctypes.CDLL(None).pthread_mutex_lock(lock)
""")
    for seconds, times in ((1, 1), (300, 2)):
        process = processes.start(program, seconds, preexec_fn=heed_signals)
        until_epoch(process, 1)
        for _ in range(times):
            time.sleep(0.5)  # longer than what counts as one
            process.send_signal(signal.SIGTERM)
        require_stopped(process, signal.SIGTERM, "go on")


def test_signals_that_the_program_handles_are_its_own(tmp_path):
    """The thread that watches for our signals leaves nothing behind."""
    program = tmp_path / "parent.py"
    program.write_text("""
import os, signal, subprocess, sys, threading, time
from fcn_keras import signals

signals.DEAF_SECONDS, signals.BURST_SECONDS = 1, 0.1
signal.signal(signal.SIGCHLD, lambda *_: None)
before = len(os.listdir("/proc/self/fd"))
with signals.raised():
    subprocess.run(["true"])
    time.sleep(2)
time.sleep(0.5)
print("open:", len(os.listdir("/proc/self/fd")) - before, threading.active_count())
""")
    process = processes.start(program, preexec_fn=heed_signals)
    output, _ = process.communicate(timeout=120)
    assert (process.returncode, output) == (0, "open: 0 1\n")


def test_a_stray_signal_ends_the_tests_with_its_name(tmp_path):
    """Even if the code under test takes the signal's exception for its own."""
    test = tmp_path / "test_long.py"
    test.write_text("""
import contextlib, os, signal, time

def test_swallows():
    with contextlib.suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

def test_never():
    time.sleep(60)
""")
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=heed_signals,
        timeout=300,
    )
    assert done.returncode != 0 and "ended by SIGTERM" in done.stdout, done.stdout
    assert "1 passed" in done.stdout and "test_never" not in done.stdout
