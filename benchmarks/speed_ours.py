"""What `speed.py` measures of this package; each function prepares a task and returns it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fcn_keras.cli.shared import import_tensorflow
from fcn_keras.files.onnx_files import is_onnx

LEARNING_RATE, MOMENTUM = 1e-3, 0.9


def photographs(batch: int, size, classes: int):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (batch, *size, 3)).astype("float32")
    return images, rng.integers(0, classes, (batch, *size)).astype("uint8")


def matmul(precision: str, side: int = 2048):
    import_tensorflow()
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((side, side)), precision)
    product = tf.function(lambda a, b: tf.reduce_sum(tf.matmul(a, b)[:1, :1]))
    return lambda: product(matrix, matrix).numpy()


def training_step(
    precision: str, batch: int, size, classes: int, kind: str = "ours", upsampling: str = "dense"
):
    """A step of SGD with momentum; `kind` is "ours", "plain" or "bare".

    "plain" is what Keras offers: its own BatchNorm, transposed convolution, loss and
    metrics. "bare" has the mean of the logits as its loss and no metrics.
    """
    import_tensorflow()
    import keras
    import tensorflow as tf

    from fcn_keras.models.fcn import build_fcn
    from fcn_keras.training.objectives import SegmentationCrossentropy, SegmentationMetrics

    dtype = "float32" if precision == "float32" else f"mixed_{precision}"
    options = {"dtype": dtype, "fused_batchnorm": kind != "plain", "upsampling": upsampling}
    model = build_fcn("resnet18", classes, weights=None, **options)
    if kind == "plain":
        model = _with_plain_upsampling(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
        metrics = [
            keras.metrics.SparseCategoricalAccuracy(),
            keras.metrics.MeanIoU(classes, ignore_class=255, sparse_y_pred=False),
        ]
    elif kind == "bare":
        loss, metrics = (lambda y_true, y_pred: keras.ops.mean(y_pred, axis=-1)), []
    else:
        loss, metrics = SegmentationCrossentropy(), [SegmentationMetrics(classes)]
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, MOMENTUM), loss, metrics=metrics, jit_compile=False
    )
    images, masks = map(tf.constant, photographs(batch, size, classes))
    return lambda: model.train_on_batch(images, masks) and None


def _with_plain_upsampling(model):
    import keras

    from fcn_keras.models.block_upsampling import BlockwiseConv2DTranspose

    def plain(layer):
        kind = type(layer)
        if kind is BlockwiseConv2DTranspose:
            kind = keras.layers.Conv2DTranspose
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=plain)


def forward(
    precision: str,
    size,
    classes: int,
    runtime: str = "tensorflow",
    batch: int = 1,
    upsampling: str = "dense",
):
    """The network as `predict` runs it, on images of one size."""
    os.environ["TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"] = "1"  # as `fcn_keras.__main__` does
    import_tensorflow()
    from fcn_keras.inference.runtimes import load_network
    from fcn_keras.models.fcn import build_fcn

    model = build_fcn("resnet18", classes, weights=None, upsampling=upsampling)
    network = load_network(model, runtime, precision)
    images, _ = photographs(batch, size, classes)
    return lambda: network(images) is None


def prediction(model: str, photos: str, runtime: str = "tensorflow", masks: bool = True):
    """`fcn-keras predict` over a folder; without masks, only its network on the same pixels."""
    os.environ["TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"] = "1"
    if not is_onnx(model):
        import_tensorflow()
    from fcn_keras.inference.batch import jobs_of_paths, predict_jobs
    from fcn_keras.inference.runtimes import load_network
    from fcn_keras.inference.segmenter import Segmenter

    segmenter = Segmenter.load(model, runtime=runtime)
    output = tempfile.TemporaryDirectory()
    jobs = jobs_of_paths([photos], output.name)
    network = load_network(segmenter.model, runtime)
    images = [] if masks else [np.asarray(job.read(), np.float32)[None] for job in jobs]

    def predict():
        assert not any(problem for _, problem in predict_jobs(segmenter, jobs, output.name))

    def network_alone():
        for image in images:
            network(image)

    return predict if masks else network_alone


def pipeline(dataset: str, recipe: str, batch: int, batches: int, cache: bool):
    """A number of training batches, from files or, after a first epoch, from memory."""
    import_tensorflow()
    from fcn_keras.data import load_split
    from fcn_keras.data.augmentation import Augmentation
    from fcn_keras.data.pipeline import cached, training_batches
    from fcn_keras.runs.config import TrainConfig

    config = TrainConfig.from_recipe(recipe)
    names = {field.name for field in dataclasses.fields(Augmentation)} - {"halve"}
    augment = Augmentation(**{name: getattr(config, name) for name in names})
    split = load_split(dataset, "train")
    split = cached(split, 4 << 30 if cache else 0)
    for index in range(len(split) if cache else 0):
        split.read(index)
    stream = training_batches(split, augment, batch, epochs=(0, 10**6), seed=0).take(batches)

    def read():  # a new iterator each time: an old one would read ahead in others' turns
        for _ in stream:
            pass

    return read


def epoch_and_bare_steps(dataset: str, precision: str, epochs: int, size):
    """`train.py`'s epochs and, after each, as many of its steps on a batch in memory.

    Returns pairs of seconds, without the first and the last epoch.
    """
    import_tensorflow()
    import tensorflow as tf

    from fcn_keras.runs.config import TrainConfig
    from fcn_keras.training import train as training
    from fcn_keras.training.callbacks import Recorder

    pairs = []

    class Timed(Recorder):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            steps, model = self.params["steps"], self.model
            classes = model.output_shape[-1]
            batch = tf.data.Dataset.from_tensors(photographs(8, size, classes)).repeat()
            batches = iter(model.distribute_strategy.experimental_distribute_dataset(batch))
            model.train_function(batches)
            start = time.perf_counter()
            for _ in range(steps):
                logs = model.train_function(batches)
            float(tf.nest.flatten(logs)[0])  # waits for the last one
            pairs.append((self.history[-1]["seconds"], time.perf_counter() - start))

    training.Recorder = Timed
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(mixed_precision="off" if precision == "float32" else precision)
        training.train(
            TrainConfig.from_recipe(
                "voc2012",
                **dict(dataset=dataset, weights="none", batch_size=8, crop=tuple(size)),
                **dict(epochs=epochs, validate_every=10**6),
                **dict(run_dir=f"{folder}/run", **settings),
            )
        )
    return pairs[1:-1]


def command(arguments: list[str]):
    """A whole process, from start to end."""
    words = [sys.executable, *arguments]

    def run():
        subprocess.run(words, check=True, capture_output=True, cwd=Path(__file__).parents[1])

    return run
