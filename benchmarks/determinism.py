"""What `--deterministic` costs, and whether the same seed gives the same bits without it.

    python benchmarks/determinism.py                       # 10 minutes on two idle cores

Alternates runs of `train.py` with and without the flag. Time is the median of the epochs
after the first; two runs agree if every weight of `last.keras` has the same bits.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from kept_runs import row, table

import fcn_keras
from fcn_keras.runs.folder import RunFolder

ROOT = Path(__file__).parents[1]
WAYS = ("--deterministic", "--no-deterministic")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Other flags are passed to train.py."
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    arguments, flags = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        runs: dict[str, list[RunFolder]] = {way: [] for way in WAYS}
        for number in range(arguments.rounds):
            for way in WAYS if number % 2 else WAYS[::-1]:
                run = RunFolder(Path(scratch, f"{way}{number}"))
                command = [sys.executable, "train.py", way, "--epochs", str(arguments.epochs)]
                command += ["--run-dir", str(run.path), *flags]
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
                runs[way].append(run)
        lines = ["| | seconds per epoch | largest difference of a weight |"]
        for way in WAYS:
            seconds = [row["seconds"] for run in runs[way] for row in run.read_history()[1:]]
            first, *others = map(last_weights, runs[way])
            difference = max(
                float(np.abs(mine - theirs).max())
                for other in others
                for mine, theirs in zip(first, other)
            )
            lines.append(row(f"`{way}`", statistics.median(seconds), f"{difference:.2g}"))
    print(table(lines))
    return 0


def last_weights(run: RunFolder) -> list[np.ndarray]:
    return fcn_keras.load_model(run.last).get_weights()


if __name__ == "__main__":
    sys.exit(main())
