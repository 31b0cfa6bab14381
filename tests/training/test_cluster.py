"""Training by two workers, which are real processes on this machine."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest
from support.fake_folder import write_folder
from support.processes import start, until_epoch
from support.runs import history_of

from fcn_keras.cli import main
from fcn_keras.errors import UserError
from fcn_keras.training import cluster
from fcn_keras.training.cluster import Cluster

TWO = {"worker": ["a:1", "b:2"]}
FIRST = {"type": "worker", "index": 0}
# One step per epoch, so that the history has the loss of every step.
FLAGS = (
    "--weights none --batch-size 8 --crop 64 64 --output-stride 32 --scale 1 1 --epochs 4".split()
)
# Float error changes gradients by up to a percent, probably by switching ReLUs.
FLAGS += "--learning-rate 2e-5 --validate-every 2 --no-flip --brightness 0 --contrast 0".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Without 255, as the loss of a replica is the mean over its own labelled pixels."""
    path = tmp_path_factory.mktemp("data")
    return write_folder(path, train=8, val=4, size=(64, 64), void=False)


@pytest.fixture(scope="module")
def two_workers(folder, tmp_path_factory):
    """The run folder of two workers that trained to the end."""
    run_dir = tmp_path_factory.mktemp("runs") / "two"
    flags = ["--dataset", folder, *FLAGS, "--synchronized-batchnorm", "--run-dir", run_dir]
    for output, code in finish(start_workers("train.py", *flags)):
        assert code == 0, output
    return run_dir


def start_workers(*command) -> list[subprocess.Popen]:
    """Starts a Python program as two workers; each one's output is on its `stdout`."""
    with socket.create_server(("localhost", 0)) as one, socket.create_server(("", 0)) as two:
        ports = [server.getsockname()[1] for server in (one, two)]
    workers = {"worker": [f"localhost:{port}" for port in ports]}
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": workers, "task": task})
        processes.append(start(*command, env={**os.environ, "TF_CONFIG": config}))
    return processes


def finish(processes) -> list[tuple[str, int]]:
    """The rest of each process's output and its exit code."""
    try:
        return [(p.communicate(timeout=300)[0], p.returncode) for p in processes]
    finally:
        for process in processes:
            process.kill()


def column(run_dir, name):
    return [float(row[name]) for row in history_of(run_dir)]


@pytest.mark.slow
def test_two_workers_give_the_losses_of_one_process(two_workers, folder, tmp_path):
    flags = ["--dataset", str(folder), *FLAGS, "--synchronized-batchnorm"]
    assert main(["train", *flags, "--run-dir", str(tmp_path / "one")]) == 0
    losses = column(two_workers, "loss")
    assert losses == pytest.approx(column(tmp_path / "one", "loss"), rel=3e-4)
    assert losses[0] - losses[-1] > 0.01  # the steps have the right length, too
    for name in ("val_loss", "val_pixel_accuracy", "val_mean_iou"):
        ours, theirs = column(two_workers, name), column(tmp_path / "one", name)
        assert ours == pytest.approx(theirs, abs=2e-3, nan_ok=True)


@pytest.mark.slow
def test_the_chief_alone_writes_a_whole_run(two_workers):
    assert {path.name for path in two_workers.iterdir()} == {
        *("config.json", "history.csv", "metrics.json", "best.keras", "last.keras"),
        *("curves.png", "predictions.png", "logs", "MODEL_CARD.md"),
    }
    assert len(list((two_workers / "logs" / "train").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_other_and_all_resume(folder, victim, tmp_path):
    """Without synchronised BatchNorm, so that the workers' statistics differ."""
    flags = ["train.py", "--dataset", folder, *FLAGS, "--run-dir"]
    for output, code in finish(start_workers(*flags, tmp_path / "whole")):
        assert code == 0, output

    workers = start_workers(*flags, tmp_path / "killed")
    until_epoch(workers[0], 3)
    workers[victim].send_signal(signal.SIGKILL)
    results = finish(workers)
    output, code = results[1 - victim]
    assert code == 1 and "error: Another worker stopped" in output, output
    assert "Traceback" not in output
    assert [row["epoch"] for row in history_of(tmp_path / "killed")][:2] == ["1", "2"]

    for output, code in finish(start_workers("train.py", "--resume", tmp_path / "killed")):
        assert code == 0, output
    for name in ("loss", "val_loss", "val_mean_iou"):
        whole, killed = (column(tmp_path / run, name) for run in ("whole", "killed"))
        assert killed == pytest.approx(whole, rel=1e-3, nan_ok=True)
    metrics = json.loads((tmp_path / "killed" / "metrics.json").read_text())
    best = max(value for value in killed if value == value)
    assert metrics["mean_iou"] == pytest.approx(best, abs=1e-5)


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_does_not_wait_for_another(folder, tmp_path):
    flags = ["--dataset", folder, *FLAGS, "--epochs", "500", "--backbone", "tiny"]
    workers = start_workers("train.py", *flags, "--run-dir", tmp_path / "run")
    until_epoch(workers[0], 3)
    workers[0].send_signal(signal.SIGSTOP)
    time.sleep(3)
    workers[1].send_signal(signal.SIGTERM)
    [(output, code)] = finish(workers[1:])
    assert code == 143 and "Interrupted by SIGTERM: " in output, output
    assert "Traceback" not in output
    workers[0].send_signal(signal.SIGCONT)
    [(output, code)] = finish(workers[:1])
    assert code == 1 and "error: Another worker stopped" in output, output


@pytest.mark.slow
def test_a_bad_file_ends_both_workers(tmp_path):
    """Each looks at the data before it trains."""
    folder = write_folder(tmp_path / "data", train=8, val=4, size=(64, 64))
    (folder / "JPEGImages" / "train_3.jpg").write_bytes(b"no picture")
    flags = ["--dataset", folder, *FLAGS, "--run-dir", tmp_path / "run"]
    results = finish(start_workers("train.py", *flags))
    assert [code for _, code in results] == [1, 1], results
    outputs = [output for output, _ in results]
    assert all("train_3.jpg" in output for output in outputs), outputs
    assert not any("Traceback" in output for output in outputs), outputs


@pytest.mark.slow
def test_workers_with_other_flags_are_refused(folder, tmp_path):
    flags = ["--dataset", folder, *FLAGS, "--run-dir", tmp_path / "run", "--batch-size", "7"]
    for output, code in finish(start_workers("train.py", *flags)):
        assert code == 1 and "multiple of the 2 devices of all workers" in output, output


@pytest.mark.slow
def test_keras_still_needs_the_bridge(tmp_path):
    program = tmp_path / "plain_fit.py"
    program.write_text("""
import keras
import numpy as np
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
images, masks = np.zeros((4, 8, 8, 3), "float32"), np.zeros((4, 8, 8), "uint8")
model.fit(tf.data.Dataset.from_tensor_slices((images, masks)).batch(4), verbose=0)
print("Keras's fit has worked.", flush=True)
""")
    for output, _ in finish(start_workers(program)):
        if "Keras's fit has worked." in output:
            pytest.fail("Keras's own fit works now: see fcn_keras/training/keras_bridge.py.")
        assert "Traceback" in output


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not JSON"),
        ("[]", "cluster"),
        (json.dumps({"cluster": {"worker": "a:1"}, "task": FIRST}), "lists of host:port"),
        (json.dumps({"cluster": {"worker": ["a", "b"]}, "task": FIRST}), "lists of host:port"),
        (json.dumps({"cluster": TWO}), "task must be one"),
        (json.dumps({"cluster": TWO, "task": {"type": "worker", "index": 2}}), "task must be one"),
        (json.dumps({"cluster": {**TWO, "ps": ["c:3"]}, "task": FIRST}), "Received: ps"),
        (json.dumps({"cluster": {"worker": ["a:1", "a:1"]}, "task": FIRST}), "different addresses"),
    ],
)
def test_mistakes_in_tf_config(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=message):
        Cluster.from_environment()


def test_chief_comes_first_and_one_worker_is_no_cluster(monkeypatch):
    jobs = {"worker": ["b:2"], "chief": ["a:1"]}
    config = {"cluster": jobs, "task": {"type": "worker", "index": "0"}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert Cluster.from_environment() == Cluster(("a:1", "b:2"), 1)
    for alone in ("", json.dumps({"cluster": {"worker": ["a:1"]}, "task": FIRST})):
        monkeypatch.setenv("TF_CONFIG", alone)
        assert Cluster.from_environment() is None


def test_a_worker_that_never_comes_up_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "START_SECONDS", 1)
    with socket.create_server(("localhost", 0)) as own, socket.create_server(("", 0)) as other:
        ports = [server.getsockname()[1] for server in (own, other)]
        with pytest.raises(UserError, match=f"port {ports[0]} of this worker cannot be opened"):
            Cluster((f"localhost:{ports[0]}", f"localhost:{ports[1]}"), 0).wait_for_all()
    with pytest.raises(UserError, match=f"Worker 1 at localhost:{ports[1]} did not come up"):
        Cluster((f"localhost:{ports[0]}", f"localhost:{ports[1]}"), 0).wait_for_all()
