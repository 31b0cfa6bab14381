"""Processes whose lines count for `pytest --cov` as those of the tests' own process do."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(**changes) -> dict[str, str]:
    """The environment of a process that is measured if this one is."""
    coverage = sys.modules.get("coverage")
    if coverage and coverage.Coverage.current():
        changes["COVERAGE_PROCESS_START"] = str(ROOT / "setup.cfg")
        changes["COVERAGE_FILE"] = str(ROOT / ".coverage")
    return {**os.environ, **changes}


def end(process: subprocess.Popen, seconds: float = 20) -> None:
    """Ends a process by SIGTERM, as one that is killed writes down nothing."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
