"""Whether memory stays flat in a long training run.

    python benchmarks/train_memory.py --minutes 60         # on the sample data

Runs `train.py` with more epochs than fit into the time, records its resident memory
every minute, then stops it. Compares the medians of the second and the last quarter; in
the first, buffers still grow.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from kept_runs import row, table

from fcn_keras.runs.folder import RunFolder

ROOT = Path(__file__).parents[1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Other flags are passed to train.py."
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=60, metavar="SECONDS")
    arguments, flags = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunFolder(Path(scratch, "run"))
        command = [sys.executable, "train.py", "--epochs", "1000000", *flags]
        command += ["--run-dir", str(run.path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        samples = watch(process, arguments.minutes * 60, arguments.every, run)
        process.terminate()
        process.wait()
    print(table(["| minute | epochs | resident memory, MB |", *(row(*s) for s in samples)]))
    if len(samples) < 4:
        print("error: the training ended too early.", file=sys.stderr)
        return 1
    quarter = len(samples) // 4
    second, last = (
        statistics.median(sample[-1] for sample in part)
        for part in (samples[quarter : 2 * quarter], samples[-quarter:])
    )
    print(f"\nFrom the second to the last quarter: {second:.0f} to {last:.0f} MB.")
    return 0


def watch(process, seconds: float, every: float, run: RunFolder) -> list[tuple[float, int, int]]:
    """Minutes, finished epochs and megabytes, while the process is alive."""
    samples, start = [], time.monotonic()
    while time.monotonic() - start < seconds and process.poll() is None:
        time.sleep(every)
        if process.poll() is None:
            memory = psutil.Process(process.pid).memory_info().rss
            minutes = (time.monotonic() - start) / 60
            samples.append((minutes, len(run.read_history()), memory >> 20))
    return samples


if __name__ == "__main__":
    sys.exit(main())
