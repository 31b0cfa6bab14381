"""What follows from a run's history: best epoch, early stopping, training time."""

from __future__ import annotations

import math

BEST_BY = "val_mean_iou"


def validated(history: list[dict]) -> list[float]:
    """The `val_mean_iou` of the epochs that were validated."""
    return [row[BEST_BY] for row in history if not math.isnan(row[BEST_BY])]


def out_of_patience(history: list[dict], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no better `val_mean_iou`."""
    if patience is None or not validated(history):
        return False
    return history[-1]["epoch"] - best_epoch(history) >= patience


def best_epoch(history: list[dict]) -> int:
    """The epoch that `best.keras` holds, given a history that is not empty."""
    scores = validated(history)
    if not scores:
        return history[-1]["epoch"]
    return next(row["epoch"] for row in history if row[BEST_BY] == max(scores))


def training_time(history: list[dict]) -> str:
    """The total time of all epochs, as text."""
    seconds = [row.get("seconds", math.nan) for row in history]
    known = [value for value in seconds if not math.isnan(value)]
    if not known:
        return "not recorded"
    minutes, rest = divmod(round(sum(known)), 60)
    text = f"{minutes} min {rest} s" if minutes else f"{sum(known):.1f} s"
    missing = len(seconds) - len(known)
    return f"{text} without {missing} epochs whose time was not recorded" if missing else text
