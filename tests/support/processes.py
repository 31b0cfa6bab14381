"""Processes that tests start: `fcn-keras` and `train.py`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from fcn_keras.signals import SIGNALS

ROOT = Path(__file__).parents[2]
FCN_KERAS = [sys.executable, "-m", "fcn_keras"]


def environment(**changes) -> dict[str, str]:
    """The environment of a process that counts for `pytest --cov` if this one does."""
    coverage = sys.modules.get("coverage")
    if coverage and coverage.Coverage.current():
        changes["COVERAGE_PROCESS_START"] = str(ROOT / "setup.cfg")
        changes["COVERAGE_FILE"] = str(ROOT / ".coverage")
    return {**os.environ, **changes}


def start(*command, **options) -> subprocess.Popen:
    """Starts a Python program in the project's folder; its output is on `stdout`."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def finish(*command, expected=0, **options) -> str:
    """Runs a Python program in the project's folder and returns its output."""
    process = start(*command, **options)
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == expected, output
    return output


def heed_signals() -> None:
    """For `preexec_fn`: the tests' parent process may ignore signals, as a shell's `&` does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def until_epoch(process: subprocess.Popen, number: int) -> str:
    """Reads a training run's output until an epoch begins."""
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith(f"Epoch {number}/"):
            break
    return output


def end(process: subprocess.Popen, seconds: float = 20) -> None:
    """Ends a process by SIGTERM, as a killed one records no coverage."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
