"""The harness that times contestants in turn, and the speed benchmarks on tiny work."""

import importlib.util
import math
import subprocess
import sys
import time

import pytest
from support.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from contest import Contestant, compete
from speed_tables import print_aims

CONTESTANTS = """
import os, time

def sleep(seconds, log):
    def work():
        with open(log, "a") as file:
            file.write(f"{seconds} ")
        time.sleep(seconds)
    return work

def nothing():
    return lambda: 0.25

def cannot_start():
    raise ValueError("no such thing\\nand more")

def dies():
    return lambda: os._exit(3)
"""


@pytest.fixture
def maker(tmp_path, monkeypatch):
    (tmp_path / "contestants_of_a_test.py").write_text(CONTESTANTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "contestants_of_a_test:{}".format


def test_contestants_work_in_turn_and_are_timed_a_unit(maker, tmp_path):
    log = str(tmp_path / "log")
    slow, fast = (
        Contestant(name, maker("sleep"), {"seconds": s, "log": log}, amount=2, calls=2, warm_up=1)
        for name, s in (("slow", 0.2), ("fast", 0.1))
    )
    compete([slow, fast], rounds=2)
    # One call each to warm up, then two per round.
    assert (
        tmp_path / "log"
    ).read_text().split() == "0.2 0.1 0.2 0.2 0.1 0.1 0.2 0.2 0.1 0.1".split()
    assert len(slow.seconds) == 2 and slow.median >= 0.1 > fast.median >= 0.05
    assert 5 < slow.peak_mb < 1000 and not slow.problem


def test_those_that_fail_are_named_and_the_others_go_on(maker, capfd):
    bad, dying = Contestant("bad", maker("cannot_start")), Contestant("dying", maker("dies"))
    dying.warm_up = 0
    good = Contestant("good", maker("nothing"), calls=3)
    compete([bad, dying, good], rounds=2)
    assert len(good.seconds) == 2 and max(good.seconds) < 0.2
    assert bad.problem == "ValueError: no such thing" and dying.problem == "its process died"
    assert math.isnan(bad.median) and not dying.seconds
    assert "bad: ValueError: no such thing" in capfd.readouterr().err


@pytest.mark.slow
def test_who_has_not_answered_by_the_deadline_is_ended(maker, tmp_path):
    log = str(tmp_path / "log")
    slow = Contestant("slow", maker("sleep"), {"seconds": 60, "log": log}, warm_up=0)
    good = Contestant("good", maker("nothing"))
    started = time.monotonic()
    compete([good, slow], rounds=2, together=True, deadline=started + 3)
    assert time.monotonic() - started < 12  # and not 60
    assert len(good.seconds) == 1 and slow.problem == "no time left" and not slow.seconds


def test_aims_are_ratios_of_medians(capsys):
    def found(seconds):
        return {"seconds": [9.0, seconds, 0.0], "problem": ""}

    figures = {task: {} for task in ("peak", "forward", "predict", "pipeline")}
    figures["step"] = {
        "ours, float32": found(2.0),
        "ours without loss and metrics, float32": found(1.5),
        "PyTorch eager, float32": found(5.0),
        "PyTorch compiled, float32": found(3.0),
        "PyTorch compiled, bfloat16": found(1.0),
    }
    figures["epoch"] = {"float32": [(1.0, 1.0), (3.0, 2.0), (1.2, 1.0)]}
    print_aims(figures, ["float32"])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert {line[0].partition(":")[2].strip(): float(line[-1]) for line in lines} == {
        "times as fast as PyTorch's best": 1.5,  # 3 / 2
        "share of loss and metrics": 0.25,  # 1 - 1.5 / 2
        "to its bare steps": 1.2,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "speed.py --rounds 1",
        "growth.py --rounds 1",
        "profile_step.py --batch 1 --size 64 96",
    ],
)
def test_the_benchmarks_run(command):
    pytest.importorskip("torch")
    words = [sys.executable, *f"benchmarks/{command}".split()]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "nan" not in done.stdout and done.stdout.count("|---") >= 2
    # A profile has operations, not what runs them.
    assert not any(name in done.stdout for name in ("__inference", "| Process |", "| Run |"))


def test_operations_of_the_gpu_benchmark():
    torch = pytest.importorskip("torch")
    from gpu import CLASSES, GFLOP
    from torch.utils.flop_counter import FlopCounterMode
    from torch_network import FCN32s

    for depth in (18, 50):
        network = FCN32s(CLASSES, depth).to("meta")
        with FlopCounterMode(display=False) as forward:
            loss = network(torch.empty(1, 3, 320, 480, device="meta")).sum()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
        counts = [counter.get_total_flops() / 1e9 for counter in (forward, backward)]
        expected = GFLOP[depth, "forward"], GFLOP[depth, "step"]
        assert (counts[0], sum(counts)) == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_the_gpu_benchmark_on_a_cpu(capsys, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compilation takes minutes
    import gpu

    flags = "--precision float32 --size 32 64 --batch 2 --side 64 --rounds 1 --depth 18".split()
    code = gpu.main([*flags, "--seconds", "300"])
    out, err = capsys.readouterr()
    has_jax = importlib.util.find_spec("jax") is not None  # or only JAX is reported and left out
    assert code == (0 if has_jax else 1)
    assert err.count("No module named 'jax'") == (0 if has_jax else 3)
    lines = [line.strip("| ").split(" | ") for line in out.splitlines()[-2:]]
    assert [line[0] for line in lines] == [
        f"{task}, ResNet-18, batch 2" for task in ("step", "forward")
    ]
    assert all(float(line[2]) > 0 and float(line[5]) > 0 for line in lines)
