"""The tables of `speed.py`, and its figures compared with the targets."""

from __future__ import annotations

import math
import statistics

from contest import Contestant
from kept_runs import row, table

# ResNet-18 FCN-32s at 320×480: two operations per multiply-add of its convolutions; a training
# step is three passes, except for the first layer's gradient of the image.
FORWARD_GFLOP, STEP_GFLOP = 11.7, 34.0


def print_table(title: str, contestants: list[Contestant], is_rate: bool) -> None:
    def shown(seconds: float) -> str:
        return f"{1 / seconds if is_rate else seconds:.4g}"

    lines = [f"| {title} | median | rounds | peak memory, MB |"]
    for c in contestants:
        if c.seconds:
            bounds = sorted((min(c.seconds), max(c.seconds)), reverse=is_rate)
            spread = " to ".join(map(shown, bounds))
            lines.append(row(c.name, shown(c.median), spread, f"{c.peak_mb:.0f}"))
        else:
            lines.append(row(c.name, c.problem, "", ""))
    print(table(lines) + "\n", flush=True)


def print_epochs(pairs: dict[str, list[tuple[float, float]]]) -> None:
    lines = ["| Epoch of `train.py`, seconds | median | its bare steps | ratio |"]
    for precision, seconds in pairs.items():
        epoch, bare = map(statistics.median, zip(*seconds))
        lines.append(row(precision, epoch, bare, _epoch_to_steps(seconds)))
    print(table(lines) + "\n", flush=True)


def print_aims(figures: dict[str, dict], precisions) -> None:
    """Prints ratios of figures that were measured in turn, and their targets."""
    lines = ["| ratio | target | measured |"]
    lines += [row(*aim) for aim in _aims(figures, precisions) if not math.isnan(aim[-1])]
    print(table(lines))


def _aims(figures: dict[str, dict], precisions):
    def seconds(task: str, start: str | tuple[str, ...], end: str = "") -> float:
        """The fastest contestant's, by start and end of its name; NaN if there is none."""
        return min(
            (
                statistics.median(contestant["seconds"])
                for name, contestant in figures[task].items()
                if contestant["seconds"] and name.startswith(start) and name.endswith(end)
            ),
            default=math.nan,
        )

    for p in precisions:
        step, peak = seconds("step", f"ours, {p}"), 1 / seconds("peak", "TensorFlow", p)
        forward = seconds("forward", "ours", p)
        memory = seconds("pipeline", "recipe voc2012, from memory")
        yield (
            f"step, {p}: times as fast as PyTorch's best",
            "at least 1, ideally 1.25",
            seconds("step", "PyTorch", p) / step,
        )
        yield f"step, {p}: times as fast as plain Keras", "", seconds("step", "plain", p) / step
        yield f"step, {p}: share of the peak", "", STEP_GFLOP / step / peak
        bare = seconds("step", "ours without", p)
        yield f"step, {p}: share of loss and metrics", "below 0.05", 1 - bare / step
        peer = seconds("forward", ("PyTorch", "plain"), p)
        yield (
            f"forward, {p}: our best, times as fast as the best peer",
            "at least 1",
            peer / forward,
        )
        tensorflow = seconds("forward", f"ours, {p}")
        yield f"forward, {p}: the same for ours in TensorFlow", "", peer / tensorflow
        yield f"forward, {p}: share of the peak", "", FORWARD_GFLOP / forward / peak
        yield f"images of the pipeline per image of a step, {p}", "at least 10", step / memory
    alone = seconds("predict", "our network alone")
    yield "speed of `predict` to its network alone", "", alone / seconds("predict", "ours", "ours")
    for source in ("memory", "files"):
        yield (
            f"pipeline from {source}: times as fast as a DataLoader of 2 workers",
            "at least 2",
            seconds("pipeline", "DataLoader")
            / seconds("pipeline", f"recipe voc2012, from {source}"),
        )
    for p, pairs in figures["epoch"].items():
        yield f"epoch of train.py, {p}: to its bare steps", "at most 1.05", _epoch_to_steps(pairs)


def _epoch_to_steps(pairs: list[tuple[float, float]]) -> float:
    return statistics.median(epoch / bare for epoch, bare in pairs)
