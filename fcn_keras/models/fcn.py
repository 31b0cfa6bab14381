"""The fully convolutional network: backbone, scores, upsampling, skips."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np

from fcn_keras.errors import UserError
from fcn_keras.models.backbones import STRIDES, build_features
from fcn_keras.models.block_upsampling import BlockwiseConv2DTranspose
from fcn_keras.models.normalization import FusedBatchNormalization, fuse_batchnorm
from fcn_keras.models.short_side import ShortSide
from fcn_keras.models.upsampling import (
    BilinearInitializer,
    BilinearUpsampling,
    CropLike,
    PerClassUpsampling,
)

# ImageNet's channel means and standard deviations, for RGB in 0..255.
IMAGENET_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * value for value in (0.229, 0.224, 0.225))
FREEZE_CHOICES = ("none", "batchnorm", "backbone")
UPSAMPLING_CHOICES = ("dense", "per-class", "fixed")


def build_fcn(
    backbone="resnet18",
    num_classes: int = 21,
    output_stride: int | None = None,
    *,
    dilated: bool = False,
    auxiliary_head: bool = False,
    weights: str | None = "imagenet",
    upsampling: str = "dense",
    upsampling_initializer="bilinear",
    trainable_upsampling: bool = True,
    skip_initializer="glorot_uniform",
    freeze: str = "none",
    synchronized_batchnorm: bool = False,
    fused_batchnorm: bool = True,
    short_side: int | None = None,
    dtype=None,
) -> keras.Model:
    """Builds FCN-32s, FCN-16s or FCN-8s, or the dilated FCN of torchvision.

    1x1 convolutions score the features of the coarsest stride. For FCN-16s and
    FCN-8s these scores are upsampled by a factor of 2 and added to the scores of the
    next finer stride, once or twice; finally they are upsampled to the image's size.

    The dilated FCN has no skips: its backbone has stride 8 throughout (see `dilate`), and a 3x3
    convolution comes before the scores, which are resized bilinearly. For images whose height
    and width are divisible by 8 it computes what torchvision's `fcn_resnet50` and
    `fcn_resnet101` do. For others, torchvision stretches the `ceil(H / 8)` rows of scores over
    the `H` rows; here each spans 8, and what lies beyond the image is cropped, so that scores
    stay above the pixels they belong to.

    Source: Long, Shelhamer and Darrell 2015, sections 3 and 4.2, and *Dive into
    Deep Learning*, "Fully Convolutional Networks"; torchvision's `models.segmentation.fcn`.

    Args:
        backbone: `"resnet18"`, `"resnet34"`, `"resnet50"`, `"resnet101"`,
            `"resnet152"`, or a KerasHub backbone with `pyramid_outputs`.
        num_classes: Channels of the logits.
        output_stride: 32, 16 or 8: the stride of the finest features that are scored. 32 where
            `None`; not for the dilated FCN.
        dilated: Whether to build the dilated FCN. The arguments on upsampling and skips have no
            effect on it.
        auxiliary_head: Whether the dilated FCN also scores the features of stage three, which
            helps its training (see `without_auxiliary_head`).
        weights: `"imagenet"`, `None`, a preset directory or a KerasHub handle
            (see `build_features`).
        upsampling: `"dense"`, transposed convolutions whose kernels mix all classes, as in d2l:
            their size and time grow with the square of the classes. `"per-class"`, a trained
            kernel for each class; `"fixed"`, bilinear interpolation, without weights. All three
            start with the same results.
        upsampling_initializer: Of dense kernels: `"bilinear"`, or a Keras initializer or its
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
        short_side: The shorter side, in pixels, that the photographs were or will be resized to
            for training (torchvision's FCNs: 520). The model stores it, for `Segmenter` and
            exports; it does not resize.
        dtype: Dtype policy of the backbone; Keras's global policy where `None`.
            Scores and upsampling are always float32; the convolutions before the scores of a
            dilated FCN are not.

    Returns:
        A functional model from RGB images in 0..255, `(B, H, W, 3)` of any
        height and width, to float32 logits `(B, H, W, num_classes)`; to a list of two such
        logits with an auxiliary head, its own last.

    Raises:
        UserError: If an argument's value is none of the above.
    """
    if dilated and output_stride is not None:
        raise UserError(
            f"A dilated FCN has no output stride: leave out one of dilated=True (--dilated) and "
            f"output_stride={output_stride!r} (--output-stride)."
        )
    if auxiliary_head and not dilated:
        raise UserError("auxiliary_head=True needs dilated=True: other FCNs have no such head.")
    output_stride = 32 if output_stride is None else output_stride
    if output_stride not in STRIDES:
        raise UserError(f"output_stride must be 32, 16 or 8. Received: {output_stride!r}.")
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1. Received: {num_classes!r}.")
    if freeze not in FREEZE_CHOICES:
        raise UserError(f"freeze must be one of {', '.join(FREEZE_CHOICES)}. Received: {freeze!r}.")
    if upsampling not in UPSAMPLING_CHOICES:
        choices = ", ".join(UPSAMPLING_CHOICES)
        raise UserError(f"upsampling must be one of {choices}. Received: {upsampling!r}.")

    features = build_features(backbone, weights, dtype, dilated)
    fused = fused_batchnorm and not synchronized_batchnorm  # the kernel sees only one replica
    if fused:
        features = fuse_batchnorm(features)
    _set_batchnorm(features, synchronized_batchnorm, trainable=freeze == "none")
    if freeze == "backbone":
        features.trainable = False

    images = keras.Input((None, None, 3), name="images")
    x = images
    if short_side is not None:
        x = ShortSide(short_side, dtype="float32", name="short_side")(x)
    # float32, as bfloat16 is too imprecise for 0..255.
    x = keras.layers.Normalization(
        mean=IMAGENET_MEAN,
        variance=[std**2 for std in IMAGENET_STD],
        dtype="float32",
        name="normalization",
    )(x)
    if dilated:
        options = {"dtype": dtype, "synchronized": synchronized_batchnorm}
        norm = FusedBatchNormalization if fused else keras.layers.BatchNormalization
        make_norm = functools.partial(norm, epsilon=1e-5, momentum=0.9, **options)
        _, middle, last = features(x)  # each (B, ceil(H/8), ceil(W/8), D)
        outputs = [_head(last, images, num_classes, "head", "logits", make_norm, dtype)]
        if auxiliary_head:
            names = "auxiliary", "auxiliary_logits"
            outputs.append(_head(middle, images, num_classes, *names, make_norm, dtype))
        return keras.Model(images, outputs if auxiliary_head else outputs[0], name="fcn_dilated")
    maps = dict(zip(STRIDES, features(x)))  # stride -> (B, ceil(H/stride), ceil(W/stride), D)

    def score(stride, initializer="glorot_uniform"):
        name = f"score_{stride}"
        return keras.layers.Conv2D(
            num_classes, 1, kernel_initializer=initializer, dtype="float32", name=name
        )

    def upsample(factor, name):
        if upsampling == "fixed":
            return BilinearUpsampling(factor, zero_edges=True, dtype="float32", name=name)
        options = {"trainable": trainable_upsampling, "dtype": "float32", "name": name}
        if upsampling == "per-class":
            return PerClassUpsampling(factor, **options)
        return BlockwiseConv2DTranspose(
            num_classes,
            kernel_size=2 * factor,
            strides=factor,
            padding="same",
            kernel_initializer=_initializer(upsampling_initializer),
            **options,
        )

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


def _head(maps, images, num_classes: int, name: str, logits: str, make_norm, dtype):
    """Logits of a dilated FCN from maps of stride 8, as in torchvision's `FCNHead`."""
    layers = keras.layers
    x = layers.Conv2D(
        maps.shape[-1] // 4,
        3,
        padding="same",
        use_bias=False,
        dtype=dtype,
        name=f"{name}_conv",
    )(maps)
    x = make_norm(name=f"{name}_bn")(x)
    x = layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)
    x = layers.Dropout(0.1, dtype=dtype, name=f"{name}_dropout")(x)
    scores = layers.Conv2D(num_classes, 1, dtype="float32", name=f"score_{name}")(x)
    scores = BilinearUpsampling(8, dtype="float32", name=f"{name}_upsampling")(scores)
    return CropLike(dtype="float32", name=logits)([scores, images])


def is_dilated(model: keras.Model) -> bool:
    """Whether it is a dilated FCN of `build_fcn`."""
    return any(layer.name == "score_head" for layer in getattr(model, "layers", ()))


def without_auxiliary_head(model: keras.Model) -> keras.Model:
    """The dilated FCN for inference, with one output. It shares its layers with `model`."""
    if not is_dilated(model) or len(model.outputs) == 1:
        return model
    return keras.Model(model.input, model.outputs[0], name=model.name)


def copy_weights(
    source: keras.Model, target: keras.Model, classes: Sequence[int | None] | None = None
) -> list[str]:
    """Copies the weights of all layers that two FCNs share by name.

    This is how FCN-16s starts from a trained FCN-32s (Long et al., section 4.2);
    Keras 3's `load_weights` cannot do it. Upsampling of another kind is not copied.

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
        if layer.name.startswith("upscore_") and upsampling_of(source) != upsampling_of(target):
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


def upsampling_of(model: keras.Model) -> str | None:
    """Which of `UPSAMPLING_CHOICES` an FCN has; `None` for a dilated one."""
    layer = next((each for each in model.layers if each.name.startswith("upscore_")), None)
    kinds = {type(None): None, PerClassUpsampling: "per-class", BilinearUpsampling: "fixed"}
    return kinds.get(type(layer), "dense")


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
