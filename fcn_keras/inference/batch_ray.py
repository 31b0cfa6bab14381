"""Many images -> files through Ray Data: lists of names stream to actors that hold the model.

Ray schedules the lists, restarts actors that died and repeats what they were
working on. Only names and outcomes pass through it; each actor reads and writes
files itself, by `predict_jobs`, as without Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from fcn_keras.errors import UserError, first_line
from fcn_keras.files import storage
from fcn_keras.files.finding import FoundImage, found_images
from fcn_keras.files.results import FOLDERS, Results
from fcn_keras.files.silence import silenced
from fcn_keras.inference.batch import job_of_image, predict_jobs
from fcn_keras.inference.segmenter import Segmenter

IMAGES = 32  # in a list, which is repeated if its actor dies
ATTEMPTS = 4  # per list, which may hold an image that kills its actor each time


@contextlib.contextmanager
def ray_session(address: str | None, workers: int, cpus: int):
    """Connects to a cluster, or starts Ray on this machine; ends it afterwards.

    Args:
        address: The cluster's `HOST:PORT`, `auto` for this machine's, or `None` to start Ray.
        workers: How many actors a Ray that is started must have room for.
        cpus: CPUs per actor.

    Raises:
        UserError: If nothing answers at the address.
    """
    import ray
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # With Ray's default of 15, any other job on the machine would starve the workers.
    os.environ.setdefault("RAY_worker_niceness", "0")
    options: dict[str, Any] = {"address": address}
    if address is None:
        # Ray only counts CPUs: as many as are requested. Names need little memory.
        options = {"address": "local", "num_cpus": workers * cpus}
        options |= {"include_dashboard": False, "object_store_memory": 128 << 20}
    try:
        if address not in (None, "auto"):  # where nothing answers, Ray waits for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        with silenced(2):  # Ray's C++ part prints its log level
            handler = signal.getsignal(signal.SIGTERM)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray's own would exit silently
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray {address or ''}: Ray cannot be reached ({first_line(error)}). Use auto or a "
            "cluster's HOST:PORT, or --ray alone to start Ray on this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def predict_on_ray(
    segmenter: Segmenter,
    paths: Iterable[str],
    output,
    extras: Iterable[str] = (),
    skip_existing: bool = False,
    workers: int = 1,
    cpus: int = 1,
) -> Iterator[tuple[str | None, bool]]:
    """Predicts the images of `jobs_of_paths` within a `ray_session`; see `predict_jobs`.

    Args:
        segmenter: The model; it is sent to the actors.
        paths: Files, folders, patterns and addresses that every node can read.
        output: A folder that every node can write to, or an address.
        extras: Names from `results.EXTRAS` and `results.POLYGONS`.
        skip_existing: As in `predict_jobs`.
        workers: Number of actors, each with a model.
        cpus: CPUs per actor, and threads of its runtime.

    Yields:
        For each image, in any order: `None` or the reason it failed, and whether
        its results existed already.

    Raises:
        UserError: If a folder cannot be read, or results cannot be written.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # each row, a list of images, is scheduled alone
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # About max_task_retries, which this version takes no other way, and fewer lists than actors.
    for message in ("`ray_remote_args` is deprecated", "The minimum number of concurrent actors"):
        warnings.filterwarnings("ignore", message=message)
    paths, output = [_seen_elsewhere(path) for path in paths], _seen_elsewhere(output)
    extras = tuple(extras)

    def listed(_):
        yield from _listed(paths, output, extras, skip_existing)

    outcomes = (
        ray.data.from_items([0])
        # Actors start first; if they take all CPUs, the listing would wait for one forever
        # (ray-project/ray issue 44687).
        .map_batches(listed, num_cpus=0)
        .map_batches(
            _Predictor,
            batch_size=None,
            fn_constructor_args=(pickle.dumps(segmenter), output, extras, cpus),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=cpus,
            max_task_retries=ATTEMPTS - 1,
        )
    )
    try:
        for row in outcomes.iter_rows():
            for _ in range(row["there"]):
                yield None, True
            for problem in row["problems"]:
                yield problem or None, False
            if row["stop"]:
                raise UserError(row["stop"])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"Ray gave up ({reason}). Each node needs this package, the inputs and the output. "
            "Continue with --skip-existing."
        ) from error


class _Predictor:
    """An actor: a model that predicts lists of images."""

    def __init__(self, segmenter: bytes, output, extras, cpus: int):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(cpus)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.segmenter = pickle.loads(segmenter)
        self.segmenter.threads = cpus
        self.output, self.extras = output, extras

    def __call__(self, rows) -> dict[str, list]:
        """Predicts the images of one row of `_listed`."""
        (paths,), (names,), (there,), (stop,) = (
            rows[column] for column in ("paths", "names", "there", "stop")
        )
        images = (FoundImage(str(path), str(name), 0.0) for path, name in zip(paths, names))
        problems = []
        try:
            jobs = (job_of_image(image, self.segmenter.max_pixels) for image in images)
            for _, problem in predict_jobs(self.segmenter, jobs, self.output, self.extras):
                problems.append(problem or "")
        except UserError as error:
            stop = str(error)
        return {"problems": [problems], "there": [there], "stop": [stop]}


def _listed(paths, output, extras, skip_existing) -> Iterator[dict[str, list]]:
    """Rows of images to predict, how many others have results, and what ended the listing."""
    results = Results(output, extras)
    todo: list[FoundImage] = []
    there, stop = 0, ""

    def row():
        columns = ([image.path for image in todo], [image.name for image in todo], there, stop)
        return dict(zip(("paths", "names", "there", "stop"), ([value] for value in columns)))

    try:
        for image in found_images(paths, output, FOLDERS):
            if skip_existing and results.have(image.name, image.changed):
                there += 1
            else:
                todo.append(image)
            if len(todo) == IMAGES or there == 1000:
                yield row()
                todo, there = [], 0
    except UserError as error:
        stop = str(error)
    yield row()


def _seen_elsewhere(path) -> str:
    return str(path) if storage.is_address(path) else os.path.abspath(path)
