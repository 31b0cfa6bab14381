"""The fully convolutional network: backbone, scores, upsampling, skips."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from fcn_keras.errors import UserError
from fcn_keras.models.backbones import STRIDES, build_features
from fcn_keras.models.block_upsampling import BlockwiseConv2DTranspose
from fcn_keras.models.normalization import fuse_batchnorm
from fcn_keras.models.upsampling import BilinearInitializer, CropLike

# ImageNet's channel means and standard deviations, for RGB in 0..255.
IMAGENET_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * value for value in (0.229, 0.224, 0.225))
FREEZE_CHOICES = ("none", "batchnorm", "backbone")


def build_fcn(
    backbone="resnet18",
    num_classes: int = 21,
    output_stride: int = 32,
    *,
    weights: str | None = "imagenet",
    upsampling_initializer="bilinear",
    trainable_upsampling: bool = True,
    skip_initializer="glorot_uniform",
    freeze: str = "none",
    synchronized_batchnorm: bool = False,
    fused_batchnorm: bool = True,
    dtype=None,
) -> keras.Model:
    """Builds FCN-32s, FCN-16s or FCN-8s.

    1x1 convolutions score the features of the coarsest stride. For FCN-16s and
    FCN-8s these scores are upsampled by a factor of 2 and added to the scores of the
    next finer stride, once or twice; finally they are upsampled to the image's size.

    Source: Long, Shelhamer and Darrell 2015, sections 3 and 4.2, and *Dive into
    Deep Learning*, "Fully Convolutional Networks".

    Args:
        backbone: `"resnet18"`, `"resnet34"`, `"resnet50"`, `"resnet101"`,
            `"resnet152"`, or a KerasHub backbone with `pyramid_outputs`.
        num_classes: Channels of the logits.
        output_stride: 32, 16 or 8: the stride of the finest features that are scored.
        weights: `"imagenet"`, `None`, a preset directory or a KerasHub handle
            (see `build_features`).
        upsampling_initializer: `"bilinear"`, or a Keras initializer or its
            name; `"glorot_uniform"` is d2l's first exercise.
        trainable_upsampling: Whether training changes the upsampling kernels.
        skip_initializer: Initialises the scores of strides 16 and 8. With `"zeros"`,
            a network that continues a coarser one starts from its predictions.
        freeze: `"backbone"` freezes the whole backbone, `"batchnorm"` the statistics
            and scales of its batch normalisation, `"none"` nothing.
        synchronized_batchnorm: Whether batch statistics span all replicas of a
            distribution strategy (TensorFlow backend only).
        fused_batchnorm: Whether batch normalisation that is not synchronised trains
            by one fused kernel, which is faster (see `FusedBatchNormalization`).
        dtype: Dtype policy of the backbone; Keras's global policy where `None`.
            Scores and upsampling are always float32.

    Returns:
        A functional model from RGB images in 0..255, `(B, H, W, 3)` of any
        height and width, to float32 logits `(B, H, W, num_classes)`.

    Raises:
        UserError: If an argument's value is none of the above.
    """
    if output_stride not in STRIDES:
        raise UserError(f"output_stride must be 32, 16 or 8. Received: {output_stride!r}.")
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1. Received: {num_classes!r}.")
    if freeze not in FREEZE_CHOICES:
        raise UserError(f"freeze must be one of {', '.join(FREEZE_CHOICES)}. Received: {freeze!r}.")

    features = build_features(backbone, weights, dtype)
    if fused_batchnorm and not synchronized_batchnorm:  # the kernel sees only one replica
        features = fuse_batchnorm(features)
    _set_batchnorm(features, synchronized_batchnorm, trainable=freeze == "none")
    if freeze == "backbone":
        features.trainable = False

    def score(stride, initializer="glorot_uniform"):
        name = f"score_{stride}"
        return keras.layers.Conv2D(
            num_classes, 1, kernel_initializer=initializer, dtype="float32", name=name
        )

    def upsample(factor, name):
        return BlockwiseConv2DTranspose(
            num_classes,
            kernel_size=2 * factor,
            strides=factor,
            padding="same",
            kernel_initializer=_initializer(upsampling_initializer),
            trainable=trainable_upsampling,
            dtype="float32",
            name=name,
        )

    images = keras.Input((None, None, 3), name="images")
    # float32, as bfloat16 is too imprecise for 0..255.
    x = keras.layers.Normalization(
        mean=IMAGENET_MEAN,
        variance=[std**2 for std in IMAGENET_STD],
        dtype="float32",
        name="normalization",
    )(images)
    maps = dict(zip(STRIDES, features(x)))  # stride -> (B, ceil(H/stride), ceil(W/stride), D)

    scores = score(32)(maps[32])
    for stride in (16, 8):
        if stride < output_stride:
            break
        skip = score(stride, skip_initializer)(maps[stride])
        scores = upsample(2, f"upscore_2_to_{stride}")(scores)
        scores = CropLike(dtype="float32", name=f"crop_{stride}")([scores, skip])
        scores = keras.layers.Add(dtype="float32", name=f"fuse_{stride}")([scores, skip])

    logits = upsample(output_stride, f"upscore_{output_stride}")(scores)
    logits = CropLike(dtype="float32", name="logits")([logits, images])  # (B, H, W, classes)
    return keras.Model(images, logits, name=f"fcn_{output_stride}s")


def copy_weights(
    source: keras.Model, target: keras.Model, classes: Sequence[int | None] | None = None
) -> list[str]:
    """Copies the weights of all layers that two FCNs share by name.

    This is how FCN-16s starts from a trained FCN-32s (Long et al., section 4.2);
    Keras 3's `load_weights` cannot do it.

    Args:
        source: The trained model.
        target: The model to change.
        classes: For each class of the target its id in the source, or `None` for a class that
            keeps the target's scores and upsampling. Default: the classes are the same.

    Returns:
        The names of the copied top-level layers.

    Raises:
        UserError: If a layer has a different shape in the two models, or the source has no
            backbone.
    """
    copied, names = [], {layer.name for layer in source.layers}
    if "backbone" not in names:
        raise UserError("The source model is not an FCN of this package: no layer 'backbone'.")
    for layer in target.layers:
        if not layer.weights or layer.name not in names:
            continue
        values = source.get_layer(layer.name).get_weights()
        if classes is not None and layer.name.startswith(("score_", "upscore_")):
            values = _values_by_class(layer, values, classes)
        shapes = [value.shape for value in values], [tuple(w.shape) for w in layer.weights]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"Layer {layer.name!r} differs between the two models: both need the same "
                f"backbone. Received: {_first_difference(*shapes)}."
            )
        layer.set_weights(values)
        copied.append(layer.name)
    return copied


def _values_by_class(layer, source_values: list, classes: Sequence[int | None]) -> list:
    """A layer's values, with the source's for the classes that the source has.

    If the shapes differ, just the source's values.
    """
    own = np.array([index for index, id in enumerate(classes) if id is not None], int)
    theirs = np.array([id for id in classes if id is not None], int)
    values = layer.get_weights()
    for value, source in zip(values, source_values):
        mixing = value.ndim == 4 and isinstance(layer, keras.layers.Conv2DTranspose)
        axes = -2 if mixing else -1  # of the classes: the kernel is (height, width, out, in)
        if value.shape[:axes] != source.shape[:axes]:
            return source_values
        if mixing:
            value[..., own[:, None], own] = source[..., theirs[:, None], theirs]
        else:
            value[..., own] = source[..., theirs]
    return values


def _initializer(identifier):
    if identifier == "bilinear":
        return BilinearInitializer()
    try:
        initializer = keras.initializers.get(identifier)
        if isinstance(identifier, str):
            initializer((2, 2, 1, 1), dtype="float32")  # some cannot make such kernels
        return initializer
    except Exception as error:  # each initializer raises its own kinds of errors
        raise UserError(
            "upsampling_initializer must be 'bilinear' or a Keras initializer, such as "
            f"'glorot_uniform'. Received: {identifier!r}."
        ) from error


def _first_difference(source_shapes: list, target_shapes: list) -> str:
    if len(source_shapes) != len(target_shapes):
        return f"{len(source_shapes)} weights to start from, {len(target_shapes)} to set"
    pairs = zip(source_shapes, target_shapes)
    source, target = next(pair for pair in pairs if pair[0] != pair[1])
    return f"shape {source} to start from, {target} to set"


def _set_batchnorm(features: keras.Model, synchronized: bool, trainable: bool) -> None:
    for layer in features.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized
            layer.trainable = trainable
