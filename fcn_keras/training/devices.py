"""Several devices and several machines: who takes part, and what they do together."""

from __future__ import annotations

import contextlib
import functools
import signal
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from fcn_keras.errors import UserError
from fcn_keras.training.cluster import Cluster


def compute_deterministically() -> None:
    """Makes TensorFlow compute the same bits each time, for the rest of the process."""
    tf.config.experimental.enable_op_determinism()


def make_strategy(devices: int | None = None) -> tf.distribute.Strategy:
    """A `MirroredStrategy` over GPUs, or over the processor as one or more logical devices.

    If `TF_CONFIG` names several workers, a `MultiWorkerMirroredStrategy` over the GPUs,
    or the processors, of all of them; it waits until they have come up.

    Args:
        devices: Number of devices; by default all GPUs, or the processor as one device.

    Raises:
        UserError: If there are fewer GPUs, if TensorFlow is already running with fewer
            CPU devices, or if the workers cannot reach each other.
    """
    gpus = tf.config.list_physical_devices("GPU")
    with contextlib.suppress(RuntimeError):  # TensorFlow has already started
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    cluster = Cluster.from_environment()
    if cluster:
        if devices:
            raise UserError(
                f"--devices {devices}: on several machines (TF_CONFIG) each worker uses all its "
                "GPUs. Choose them with CUDA_VISIBLE_DEVICES."
            )
        return _join(cluster)
    if gpus:
        if devices and devices > len(gpus):
            raise UserError(f"--devices: there are {len(gpus)} GPUs. Received: {devices}.")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(devices or len(gpus))])
    count = devices or 1
    if count > 1:
        [cpu] = tf.config.list_physical_devices("CPU")
        with contextlib.suppress(RuntimeError):  # TensorFlow has started; its devices may suffice
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UserError(
                f"--devices {count}: TensorFlow is already running with fewer CPU devices. "
                "Call train() before anything else that uses TensorFlow."
            )
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)])


@functools.cache  # TensorFlow joins once per process
def _join(cluster: Cluster) -> tf.distribute.Strategy:
    chief = cluster.addresses[0]
    print(f"Worker {cluster.index} of {len(cluster.addresses)}, chief {chief}", flush=True)
    cluster.wait_for_all()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "TF_CONFIG names several workers, but TensorFlow is already running. Call train() "
            "before anything else that uses TensorFlow."
        ) from error
    with contextlib.suppress(ValueError):  # not in the main thread
        # TensorFlow has made the process ignore it.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def fast_precision() -> str:
    """The fastest `mixed_precision` here: `"bfloat16"`, or `"off"` where it gains nothing.

    bfloat16 is faster on NVIDIA GPUs since Ampere and on CPUs with AVX-512 BF16 or AMX.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = map(tf.config.experimental.get_device_details, gpus)
        fast = all(gpu.get("compute_capability", (0, 0)) >= (8, 0) for gpu in details)
    else:
        processor = Path("/proc/cpuinfo")  # on Linux
        flags = processor.read_text().split() if processor.is_file() else []
        fast = not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
    return "bfloat16" if fast else "off"


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes take part in training."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run's files."""
    return strategy.extended.should_checkpoint


def distribute(strategy: tf.distribute.Strategy, make_batches: Callable):
    """The data that `fit` takes if there are several workers.

    Args:
        strategy: The workers' strategy.
        make_batches: Called with the worker's number, the number of workers and the
            number of replicas in each; returns a dataset of one batch per replica.
    """
    replicas = len(strategy.extended.worker_devices)
    return strategy.distribute_datasets_from_function(
        lambda context: make_batches(
            context.input_pipeline_id, context.num_input_pipelines, replicas
        )
    )


def meet(strategy: tf.distribute.Strategy, *things) -> None:
    """Waits for all workers, and checks that they agree on some things.

    Args:
        strategy: The workers' strategy; a single process does not wait.
        *things: Objects that `repr` shows in full.

    Raises:
        UserError: If they differ.
    """
    if not several_workers(strategy):
        return
    digest = zlib.crc32(repr(things).encode())

    @tf.function
    def gather():
        return strategy.gather(strategy.run(lambda: tf.constant([digest], tf.int64)), axis=0)

    if len(set(gather().numpy())) > 1:
        raise UserError(
            "The workers differ in settings, images or finished epochs. Start all of them with "
            "the same flags, and make sure that they read the same folders."
        )


def share_first(strategy: tf.distribute.Strategy, variables) -> None:
    """Gives all replicas the first one's values of these variables."""
    if not several_workers(strategy):
        for variable in variables:
            variable.assign(keras.ops.convert_to_numpy(variable))
        return

    def of_replica():
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group == 0
        own = [tf.where(first, v.value, tf.zeros_like(v.value)) for v in variables]
        return context.all_reduce("SUM", own)

    values = tf.function(strategy.run)(of_replica)
    for variable, value in zip(variables, values):
        variable.assign(strategy.experimental_local_results(value)[0])


@contextlib.contextmanager
def lost_workers_as_user_errors():
    """Turns TensorFlow's errors about a lost worker into a `UserError`."""
    errors = tf.errors
    try:
        yield
    except (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.FailedPreconditionError,
    ) as error:
        if not Cluster.from_environment():
            raise
        raise UserError(
            "Another worker stopped or cannot be reached; its output says why. Start all "
            "workers again, with --resume if the run has started."
        ) from error
