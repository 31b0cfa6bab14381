"""A configuration's optimizer: schedule, decay, and what is done to gradients and rates."""

from __future__ import annotations

import re

import keras
import tensorflow as tf

from fcn_keras.runs.config import TrainConfig
from fcn_keras.training.schedules import WarmUp

POLY_POWER = 0.9
STAGES = 5  # of a ResNet, its stem included


def make_schedule(config: TrainConfig, steps: int):
    """The learning rate of a configuration: a number, or Keras's schedule over `steps`."""
    schedules = keras.optimizers.schedules
    rate = config.learning_rate
    if config.schedule == "poly":
        rate = schedules.PolynomialDecay(rate, steps, 0.0, power=POLY_POWER)
    elif config.schedule == "cosine":
        rate = schedules.CosineDecay(rate, steps)
    return WarmUp(rate, config.warmup_steps) if config.warmup_steps else rate


def make_optimizer(config: TrainConfig, model: keras.Model, steps: int) -> keras.Optimizer:
    """The optimizer of a configuration, for a model and runs of `steps` optimizer steps."""
    rate = make_schedule(config, steps)
    variables = model.trainable_variables
    factors = rate_factors(model, config.backbone_rate, config.layer_decay)
    # Keras takes 0 for "decay by nothing", not for "no decay".
    decay = config.weight_decay or None
    # Decay would pull the bilinear kernels away from interpolation.
    exempt = [v for v in variables if len(v.shape) < 2 or "upscore" in v.path]
    exempt = [] if config.decay_all else exempt
    of_keras = None if factors else decay
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=config.momentum, weight_decay=of_keras)
    elif of_keras:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=of_keras)
    else:  # which AdamW does not do
        optimizer = keras.optimizers.Adam(rate)
    if of_keras:
        optimizer.exclude_from_weight_decay(var_list=exempt)
    if factors:
        spared = {id(variable) for variable in exempt}
        decays = [0.0 if id(v) in spared else config.weight_decay for v in variables]
        _set_rates(optimizer, factors, decays)
    if config.clip_norm:
        _clip_reduced(optimizer, config.clip_norm)
    if config.mixed_precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def rate_factors(model: keras.Model, backbone_rate: float, layer_decay: float) -> list[float]:
    """The factor of the learning rate of each trainable variable; none where all are 1.

    The head has 1, the backbone's last stage `backbone_rate`, and each stage before it
    `layer_decay` times that of the next (Howard and Ruder 2018, "discriminative fine-tuning").
    """
    if backbone_rate == layer_decay == 1:
        return []
    backbone = {id(variable) for variable in model.get_layer("backbone").variables}

    def factor(variable) -> float:
        if id(variable) not in backbone:
            return 1.0
        stage = re.match(r"stack(\d)", variable.path)  # the stem's are called conv1
        depth = int(stage[1]) + 1 if stage else 0
        return backbone_rate * layer_decay ** (STAGES - 1 - depth)

    return [factor(variable) for variable in model.trainable_variables]


def _set_rates(optimizer: keras.Optimizer, factors: list[float], decays: list[float]) -> None:
    """Multiplies the learning rate of each variable, and decouples its decay with that rate.

    Keras has one rate for all. Its `MultiOptimizer` has no `learning_rate` to record. This
    replaces a method of the instance, not its class, so that it is saved as a plain optimizer.
    """
    update_step = optimizer.update_step

    def with_own_rate(gradient, variable, learning_rate):
        index = optimizer._get_variable_index(variable)
        rate = tf.cast(learning_rate, variable.dtype) * factors[index]
        if decays[index]:
            optimizer.assign_sub(variable, variable * (decays[index] * rate))
        update_step(gradient, variable, rate)

    optimizer.update_step = with_own_rate


def _clip_reduced(optimizer: keras.Optimizer, norm: float) -> None:
    """Clips gradients by their global norm, after they were summed over the replicas.

    Keras's `global_clipnorm` clips those of each replica, so that two devices differ from one.
    """
    apply = optimizer.apply

    def apply_clipped(gradients, trainable_variables=None):
        context = tf.distribute.get_replica_context()
        reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
        clipped, _ = tf.clip_by_global_norm(reduced, norm)
        share = 1 / context.num_replicas_in_sync  # the optimizer sums them again
        apply([gradient * share for gradient in clipped], trainable_variables)

    optimizer.apply = apply_clipped
