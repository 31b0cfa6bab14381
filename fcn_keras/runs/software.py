"""The software that is running."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path


def software() -> dict:
    """The versions of Python and the packages that are running, and this package's git commit."""
    packages = ("fcn_keras", "tensorflow", "keras", "keras-hub", "numpy")
    versions = {package: _version(package) for package in packages}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
