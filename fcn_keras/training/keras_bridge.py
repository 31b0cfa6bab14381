"""A bridge: what Keras's `fit` lacks for TensorFlow's strategies.

Keras 3 takes a batch at the beginning of each validation only to learn its shape, and then
makes a new iterator. With several workers it averages that batch over the replicas, which
fails for masks and for local batches, and reduces each step's logs along an axis that scalars
do not have (keras-team/keras issue 20585). Tested with Keras 3.15.1 and TensorFlow 2.21.
`tests/training/test_cluster.py` fails once Keras works without the part for several workers.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from fcn_keras.training.devices import several_workers


def prepare_fit(model: keras.Model) -> None:
    """Makes `fit` and `evaluate` of a compiled model work under its strategy.

    Replaces methods of the instance, not its class, so that it is saved as a plain model.

    Args:
        model: Built and compiled under the strategy. Its data must be `tf.data` or distributed.
    """
    strategy = model.distribute_strategy

    def build_from_spec(iterator=None, data_batch=None):
        if iterator is not None:
            data_batch = tf.nest.map_structure(
                lambda spec: getattr(spec, "_value_specs", [spec])[0],  # of the first replica
                iterator._distributed_dataset.element_spec,
            )
        with strategy.scope():
            model._symbolic_build(data_batch=data_batch)

    model._maybe_symbolic_build = build_from_spec
    if several_workers(strategy):
        model.train_step = _with_logs_of_shape_1(model.train_step)
        model.test_step = _with_logs_of_shape_1(model.test_step)


def _with_logs_of_shape_1(step):
    return lambda data: tf.nest.map_structure(lambda log: tf.reshape(log, (1,)), step(data))


def with_one_iterator(batches):
    """Makes all iterations over an endless distributed dataset share one iterator.

    `fit` makes a new one for each validation; a strategy is slow to end the previous one,
    of which 0.2 MB stay in memory.

    Args:
        batches: What a strategy's `experimental_distribute_dataset` or
            `distribute_datasets_from_function` returns.
    """
    iterator = iter(batches)
    own = {"__iter__": lambda self: iterator}
    batches.__class__ = type("WithOneIterator", (type(batches),), own)  # Keras checks the type
    return batches
