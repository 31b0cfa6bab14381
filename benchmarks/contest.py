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


def compete(
    contestants: list[Contestant],
    rounds: int,
    together: bool = False,
    deadline: float | None = None,
) -> None:
    """Fills in `seconds`, `peak_mb`, and the `problem` of those that could not take part.

    Args:
        contestants: Those to compare.
        rounds: Figures of each.
        together: Whether they prepare themselves at the same time; otherwise one after another,
            so that none is starved.
        deadline: The `time.monotonic()` at which those that have not answered are ended.
    """
    with contextlib.ExitStack() as stack:
        lines = []
        for contestant in contestants:
            lines.append((contestant, stack.enter_context(_process(contestant))))
            if not together:
                _answer(lines[-1][1], contestant, deadline)
        if together:
            for contestant, line in lines:
                _answer(line, contestant, deadline)
        for _ in range(rounds):
            for contestant, line in lines:
                if contestant.problem:
                    continue
                with contextlib.suppress(BrokenPipeError):
                    line.send("go")
                seconds = _answer(line, contestant, deadline)
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
        process.join(3 if contestant.problem else 30)
        process.kill()


def _answer(line, contestant: Contestant, deadline: float | None) -> float | None:
    try:
        if deadline is not None and not line.poll(max(0, deadline - time.monotonic())):
            raise TimeoutError("no time left")
        seconds, contestant.peak_mb, contestant.problem = line.recv()
    except (EOFError, ConnectionResetError):
        seconds, contestant.problem = None, "its process died"
    except TimeoutError as error:
        seconds, contestant.problem = None, str(error)
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
    except (EOFError, BrokenPipeError):  # the parent has finished
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
