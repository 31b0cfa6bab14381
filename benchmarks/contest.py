"""Contestants that take turns, each in its own process: a slow minute hits all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import re
import resource
import statistics
import sys
import time
import traceback
from pathlib import Path


@dataclasses.dataclass
class Contestant:
    """One way to do a task.

    Args:
        name: Its name in tables.
        maker: `"module:function"`; called in its process with `options`, it prepares
            everything and returns a function that does the work once.
        options: Keyword arguments of the maker.
        amount: Units of work in one call, such as images.
        calls: Calls per round.
        warm_up: Calls before the first round.
        seconds: Filled in by `compete`: seconds per unit of work, one figure per round.
        peak_mb: Filled in by `compete`: peak memory of the process.
        problem: Why it could not take part.
    """

    name: str
    maker: str
    options: dict = dataclasses.field(default_factory=dict)
    amount: float = 1
    calls: int = 1
    warm_up: int = 2
    seconds: list[float] = dataclasses.field(default_factory=list)
    peak_mb: float = 0.0
    problem: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")


def compete(contestants: list[Contestant], rounds: int) -> None:
    """Fills in `seconds`, `peak_mb`, and the `problem` of those that could not take part."""
    with contextlib.ExitStack() as stack:
        lines = []
        for contestant in contestants:  # one at a time, so that none is starved
            line = stack.enter_context(_process(contestant))
            if _answer(line, contestant) is not None:
                lines.append((contestant, line))
        for _ in range(rounds):
            for contestant, line in lines:
                with contextlib.suppress(BrokenPipeError):
                    line.send("go")
                seconds = _answer(line, contestant)
                if seconds is not None:
                    contestant.seconds.append(seconds / contestant.amount)


@contextlib.contextmanager
def _process(contestant: Contestant):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, contestant), daemon=False)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(30)
        process.kill()


def _answer(line, contestant: Contestant) -> float | None:
    try:
        seconds, contestant.peak_mb, contestant.problem = line.recv()
    except (EOFError, ConnectionResetError):
        seconds, contestant.problem = None, "its process died"
    if contestant.problem:
        print(f"{contestant.name}: {contestant.problem}", file=sys.stderr)
    return seconds


def _work(line, contestant: Contestant) -> None:
    try:
        module, function = contestant.maker.split(":")
        work = getattr(importlib.import_module(module), function)(**contestant.options)
        for _ in range(contestant.warm_up):
            work()
        line.send((0.0, _peak_mb(), ""))
        while line.recv():
            line.send((_timed(work, contestant.calls), _peak_mb(), ""))
    except EOFError:  # the parent has finished
        pass
    except Exception as error:
        traceback.print_exc()
        line.send((None, _peak_mb(), f"{type(error).__name__}: {error}".splitlines()[0]))


def _timed(work, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def _peak_mb() -> float:
    """For this process and those it started; its own `getrusage` would include its parent."""
    status = Path("/proc/self/status").read_text()
    own = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
