"""Where the time of a training step goes, by kind of operation.

    python benchmarks/profile_step.py --precision bfloat16 --kind plain

TensorFlow's profiler times each operation. Two run at a time and share the CPU's cores, so
the milliseconds add up to more than the step's, and include waiting.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from pathlib import Path

from kept_runs import row, table
from speed_ours import training_step

STEPS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--kind", choices=("ours", "plain", "bare"), default="ours")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 480), metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--top", type=int, default=20, help="lines of each table")
    arguments = parser.parse_args()
    step = training_step(
        arguments.precision, arguments.batch, arguments.size, arguments.classes, arguments.kind
    )
    for _ in range(3):  # compiles, and lets oneDNN choose
        step()
    kinds, single = operations(step)
    total = sum(kinds.values())
    lines = ["| kind of operation | ms per step | share |"]
    for name, ms in kinds.most_common(arguments.top):
        lines.append(row(name, f"{ms:.1f}", f"{ms / total:.1%}"))
    print(table([*lines, row("all", f"{total:.1f}", "")]))
    lines = ["| operation | ms per step |"]
    lines += [row(name, f"{ms:.1f}") for name, ms in single.most_common(arguments.top)]
    print("\n" + table(lines))
    return 0


def operations(step) -> tuple[collections.Counter, collections.Counter]:
    """Milliseconds per step, by kind and by name of operation."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    kinds, single = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(STEPS):
                step()
        [written] = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(written.read_bytes())
    for plane in space.planes:
        if "CPU" not in plane.name:
            continue
        for event in (event for line in plane.lines for event in line.events):
            # "name of the operation:its kind"; others are internal to TensorFlow.
            name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if colon and not name.endswith(":") and not kind.startswith(" "):
                kinds[kind] += event.duration_ps / 1e9 / STEPS
                single[name] += event.duration_ps / 1e9 / STEPS
    return kinds, single


if __name__ == "__main__":
    sys.exit(main())
