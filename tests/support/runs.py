"""Short training runs and what they leave."""

import csv
from pathlib import Path

# One step per epoch, as fast as a run can be.
QUICK = "--backbone tiny --batch-size 6 --crop 32 32 --output-stride 32".split()
QUICK += ["--learning-rate", "0.01"]


def history_of(run_dir) -> list[dict[str, str]]:
    """The rows of a run's `history.csv`."""
    with (Path(run_dir) / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))
