"""`TrainConfig`: every setting of a run, and the recipes that preset them."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

from fcn_keras.errors import UserError
from fcn_keras.reading import has_control_characters

MAX_INTEGER = 2**32 - 1  # NumPy takes no larger seed


def _setting(default: Any, help: str, choices: tuple | None = None, metavar=None):
    metadata = {"help": help, "choices": choices, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of one run; the command line makes its flags from these fields.

    `TrainConfig.from_recipe` fills the fields from a recipe. The meaning of each
    field stands beside it.

    Raises:
        UserError: If a value is of another type or out of its range.
    """

    # The data
    recipe: str = _setting("sample", "named preset of the settings below")
    dataset: str = _setting("sample", "sample, voc2012, voc2012_aug, or a folder in VOC's layout")
    data_dir: str | None = _setting(None, "folder that holds VOCdevkit", metavar="DIR")
    limit: int | None = _setting(None, "use the first N images of each split", metavar="N")
    skip_smaller: bool = _setting(False, "drop training images smaller than the crop, do not pad")
    cache_mb: int = _setting(1024, "memory for decoded images, in MiB", metavar="MIB")

    # The model
    backbone: str = _setting("resnet18", "resnet18, resnet34, resnet50, resnet101 or resnet152")
    weights: str = _setting(
        "none", "backbone's weights: imagenet, none, a preset's directory, or a KerasHub handle"
    )
    init_from: str | None = _setting(
        None, "run or .keras file whose layers start this one", metavar="RUN"
    )
    output_stride: int = _setting(32, "32, 16 or 8 for FCN-32s, FCN-16s or FCN-8s", (32, 16, 8))
    upsampling_initializer: str = _setting(
        "bilinear", "bilinear, or a Keras initializer such as glorot_uniform", metavar="NAME"
    )
    trainable_upsampling: bool = _setting(True, "train the upsampling kernels")
    freeze: str = _setting("none", "what of the backbone stays", ("none", "batchnorm", "backbone"))
    synchronized_batchnorm: bool = _setting(False, "batch statistics over all devices")
    fused_batchnorm: bool = _setting(True, "train it by one kernel of TensorFlow")

    # The examples
    crop: tuple[int, int] = _setting((320, 480), "height and width of a crop", metavar=("H", "W"))
    scale: tuple[float, float] = _setting(
        (1.0, 1.0), "bounds of the random scaling before the crop", metavar=("LOW", "HIGH")
    )
    flip: bool = _setting(False, "mirror half of the images")
    brightness: float = _setting(0.0, "largest change, as a share of white", metavar="SHARE")
    contrast: float = _setting(0.0, "largest relative change", metavar="SHARE")
    saturation: float = _setting(0.0, "largest relative change", metavar="SHARE")
    hue: float = _setting(0.0, "largest turn, as a share of the colour circle", metavar="SHARE")
    coarse_epochs: int = _setting(
        0, "the first epochs, trained at half the scale and crop", metavar="EPOCHS"
    )
    batch_size: int = _setting(32, "images a step, over all devices", metavar="N")

    # The optimisation
    epochs: int = _setting(5, "passes over the training images", metavar="N")
    max_steps: int | None = _setting(
        None, "end after N steps in all, the schedule as if it went on", metavar="N"
    )
    validate_every: int = _setting(
        1, "validate after each N-th epoch and after the last", metavar="N"
    )
    early_stopping: int | None = _setting(
        None, "end after N epochs without a better val_mean_iou", metavar="N"
    )
    optimizer: str = _setting("sgd", "the optimizer", ("sgd", "adamw"))
    learning_rate: float = _setting(
        0.01, "at the start, for the mean loss of a batch", metavar="LR"
    )
    schedule: str = _setting("constant", "of the learning rate", ("constant", "poly", "cosine"))
    warmup_steps: int = _setting(0, "the first steps, whose rate rises linearly", metavar="STEPS")
    momentum: float = _setting(0.0, "of SGD", metavar="M")
    weight_decay: float = _setting(
        0.0, "decoupled: a step shrinks weights by learning rate times this", metavar="WD"
    )
    decay_all: bool = _setting(False, "decay biases, BatchNorm and upsampling kernels too")
    class_weights: tuple[float, ...] | None = _setting(
        None, "one weight a class in the loss", metavar="W"
    )
    jaccard_weight: float = _setting(
        0.0, "share of the soft Jaccard loss that is added", metavar="SHARE"
    )

    # The run
    seed: int = _setting(0, "of initial weights, order and augmentation")
    deterministic: bool = _setting(
        False, "bit-identical weights from the same seed on the same machine"
    )
    devices: int | None = _setting(
        None, "GPUs to use (all by default); without GPUs, that many CPU devices", metavar="N"
    )
    mixed_precision: str = _setting(
        "off",
        "compute type; auto is bfloat16 where the machine is faster with it",
        ("off", "auto", "bfloat16", "float16"),
    )
    tensorboard_images: int = _setting(
        4, "validation images shown in TensorBoard each epoch; 0 for none", metavar="IMAGES"
    )
    run_dir: str | None = _setting(None, "new folder for the results", metavar="DIR")

    def __post_init__(self):
        for name in ("crop", "scale", "class_weights"):  # JSON has lists only
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        require_types(self)
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.metadata["metavar"] == "N" and value is not None and value < 1:
                raise UserError(f"{_flag(name)} must be at least 1. Received: {value}.")
        for name in (
            *("brightness", "contrast", "saturation", "hue", "coarse_epochs"),
            *("momentum", "weight_decay", "warmup_steps", "jaccard_weight", "cache_mb", "seed"),
            "tensorboard_images",
        ):
            if getattr(self, name) < 0:
                raise UserError(
                    f"{_flag(name)} must not be negative. Received: {getattr(self, name)}."
                )
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"--learning-rate must be positive. Received: {self.learning_rate}.")
        if min(self.crop) < 1:
            raise UserError(f"--crop must be at least 1 pixel each way. Received: {self.crop}.")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(f"--scale needs 0 < LOW <= HIGH. Received: {self.scale}.")
        for field in dataclasses.fields(self):
            choices, value = field.metadata["choices"], getattr(self, field.name)
            if choices and value not in choices:
                raise UserError(
                    f"{_flag(field.name)} must be one of {', '.join(map(str, choices))}. "
                    f"Received: {value!r}."
                )
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(map(math.isfinite, (n for n in numbers if isinstance(n, float)))):
                raise UserError(f"{_flag(field.name)} must be finite. Received: {value}.")

    @classmethod
    def from_recipe(cls, recipe: str | None = None, **settings) -> TrainConfig:
        """A recipe's settings, with some of them replaced.

        Args:
            recipe: A key of `RECIPES`. Left out, it follows from the data set:
                `sample`, `voc2012`, or `strong` for a folder.
            **settings: Fields of `TrainConfig`.

        Raises:
            UserError: If the recipe is unknown or a value is out of its range.
        """
        recipe = recipe or _recipe_of(settings.get("dataset") or "sample")
        if recipe not in RECIPES:
            raise UserError(f"--recipe must be one of {', '.join(RECIPES)}. Received: {recipe!r}.")
        return cls(**{**RECIPES[recipe], **settings, "recipe": recipe})


def _recipe_of(dataset: str) -> str:
    return {"sample": "sample", "voc2012": "voc2012", "voc2012_aug": "voc2012"}.get(
        dataset, "strong"
    )


def require_types(settings) -> None:
    """Checks the values of a dataclass by its annotations.

    Raises:
        UserError: If one is of another type, a whole number too large for any use, or a
            text with control characters, such as a line's end.
    """
    for name, hint in typing.get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        fault = None if _fits(value, hint) else f"be {_typename(hint)}"
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, int) and abs(part) > MAX_INTEGER:
                fault = fault or f"be at most {MAX_INTEGER}"
            elif isinstance(part, str) and has_control_characters(part):
                fault = fault or "not hold control characters"
        if fault:
            raise UserError(f"{_flag(name)} must {fault}. Received: {ascii(value)[:100]}.")


def _fits(value, hint) -> bool:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if arguments:  # tuple[int, int] or tuple[float, ...]
        if not isinstance(value, tuple):
            return False
        hints = arguments if arguments[-1] is not ... else arguments[:1] * len(value)
        return len(value) == len(hints) and all(map(_fits, value, hints))
    if isinstance(value, bool):  # which Python takes for a number
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _typename(hint) -> str:
    return str(hint) if typing.get_args(hint) else hint.__name__


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


RECIPES: dict[str, dict[str, Any]] = {
    # A first run on two processor cores, from random weights.
    "sample": dict(
        dataset="sample",
        crop=(160, 240),
        batch_size=8,
        epochs=12,
        flip=True,
        brightness=0.1,
        contrast=0.1,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=1e-4,
        schedule="poly",
    ),
    # d2l's. Its PyTorch loop steps along the sum of 32 per-image losses with lr
    # 0.001, which is lr 0.001 * 32 = 0.032 for their mean. Its weight decay 1e-3
    # is added to the gradient after that sum, so a step shrinks a weight by
    # 0.001 * 1e-3 = 1e-6; Keras's shrinks it by lr * weight_decay, hence
    # weight_decay = 1e-6 / 0.032 = 3.125e-5. Like PyTorch's it acts on all weights.
    "voc2012": dict(
        dataset="voc2012",
        weights="imagenet",
        crop=(320, 480),
        batch_size=32,
        epochs=5,
        optimizer="sgd",
        learning_rate=0.001 * 32,
        weight_decay=0.001 * 1e-3 / (0.001 * 32),
        decay_all=True,
    ),
    # Meant to be the best FCN for VOC here, by what others use; not run where it
    # was written. Sources: [1] DeepLabv3+ (Chen et al. 2018, section 4), [2] MMSegmentation's
    # FCN on VOC train_aug (configs/fcn, schedule_20k), [3] Long et al. 2015.
    "voc2012_best": dict(
        dataset="voc2012_aug",  # [1], [2]
        backbone="resnet101",  # [2]: 71.2 on val where resnet50 has 67.1
        weights="imagenet",
        output_stride=8,  # [3]: skips; [1] and [2] dilate the backbone, which is not built here
        synchronized_batchnorm=True,  # [2]; [1] too trains BatchNorm, with 16 images
        crop=(512, 512),  # [2]; [1] has 513
        scale=(0.5, 2.0),  # [1], [2]
        flip=True,  # [1], [2]
        brightness=0.125,  # [2]: 32 of 255, there in half of the images
        contrast=0.5,  # [2], the same
        batch_size=16,  # [1], [2]
        epochs=50,  # 10,582 images: 33,050 steps, between [1]'s 30,000 and [2]'s 40,000
        optimizer="sgd",
        learning_rate=0.01,  # [2]; [1] has 0.007
        momentum=0.9,  # [2]
        # [2] has 5e-4 of PyTorch's kind, whose effect momentum multiplies by 10.
        weight_decay=5e-3,
        schedule="poly",  # [1], [2]
        # No class weights: [3], section 4.3, finds them unnecessary on VOC.
    ),
    # CamVid's 367 images of 360x480 from random weights, in a hundred minutes on two
    # processor cores. benchmarks/CAMVID.md has what was measured for it.
    "camvid": dict(
        dataset="camvid",
        output_stride=8,
        crop=(320, 448),
        scale=(0.75, 1.75),
        flip=True,
        brightness=0.2,
        contrast=0.2,
        coarse_epochs=66,
        batch_size=4,
        epochs=120,
        validate_every=10,
        optimizer="adamw",
        learning_rate=1e-3,
        schedule="poly",
        weight_decay=1e-4,
        jaccard_weight=3.0,
    ),
    # For long training: SGD with momentum 0.9, poly schedule and scale jitter as
    # in DeepLab (Chen et al. 2017), skips of strides 16 and 8.
    "strong": dict(
        dataset="voc2012",
        crop=(320, 480),
        batch_size=16,
        epochs=60,
        output_stride=8,
        scale=(0.5, 2.0),
        flip=True,
        brightness=0.2,
        contrast=0.2,
        optimizer="sgd",
        learning_rate=0.01,
        momentum=0.9,
        # 1e-4 of PyTorch's kind; decoupled, momentum no longer multiplies it by 10.
        weight_decay=1e-3,
        schedule="poly",
    ),
}
