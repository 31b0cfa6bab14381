"""`TrainConfig`: every setting of a run."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import TYPE_CHECKING, Any

from fcn_keras.errors import UserError
from fcn_keras.files.reading import has_control_characters
from fcn_keras.runs.recipes import RECIPES

if TYPE_CHECKING:
    from fcn_keras.data.split import Split

MAX_INTEGER = 2**32 - 1  # NumPy takes no larger seed


# Those that KerasHub's ResNet can be; `tiny`, which is for tests, is taken but not offered.
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
# The groups of `train --help`, by the field that each begins with.
GROUPS = {
    "recipe": "data",
    "backbone": "model",
    "crop": "training examples",
    "epochs": "optimization",
    "seed": "run",
}
# Settings that earlier versions had, with the values that are fixed now.
DROPPED = {"trainable_upsampling": True, "fused_batchnorm": True, "tensorboard_images": 4}


def _setting(
    default: Any, help: str, *, choices: tuple | None = None, metavar=None, minimum=-math.inf
):
    """A field; `minimum` is the least value of a number, or of each number in a tuple."""
    metadata = {"help": help, "choices": choices, "metavar": metavar, "minimum": minimum}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of one run; the command line makes its flags from these fields.

    `TrainConfig.from_recipe` fills the fields from a recipe. The meaning of each
    field stands beside it.

    Raises:
        UserError: If a value is of another type or out of its range.
    """

    # Data
    recipe: str = _setting(
        "sample",
        "preset of the settings below (sample or voc2012 by --dataset, else strong)",
    )
    dataset: str = _setting("sample", "sample, voc2012, voc2012_aug, or a folder in VOC's layout")
    data_dir: str | None = _setting(
        None, "folder that holds VOCdevkit ($TFDS_DATA_DIR or ~/tensorflow_datasets)", metavar="DIR"
    )
    limit: int | None = _setting(
        None, "use the first N images of each split (all)", metavar="N", minimum=1
    )
    skip_smaller: bool = _setting(
        False, "drop training images smaller than the crop instead of padding them"
    )
    cache_mb: int = _setting(1024, "memory for decoded images, in MiB", metavar="MIB", minimum=0)

    # Model
    backbone: str = _setting("resnet18", f"{', '.join(BACKBONES[:-1])} or {BACKBONES[-1]}")
    weights: str = _setting(
        "none",
        "backbone's weights: imagenet, none, auto for imagenet if it can be fetched, a preset's "
        "directory, or a KerasHub handle",
    )
    init_from: str | None = _setting(
        None, "run or .keras file whose layers initialize this model (none)", metavar="RUN"
    )
    output_stride: int = _setting(
        32, "32, 16 or 8 for FCN-32s, FCN-16s or FCN-8s", choices=(32, 16, 8)
    )
    upsampling_initializer: str = _setting(
        "bilinear", "bilinear, or a Keras initializer such as glorot_uniform", metavar="NAME"
    )
    freeze: str = _setting(
        "none", "which part of the backbone to freeze", choices=("none", "batchnorm", "backbone")
    )
    synchronized_batchnorm: bool = _setting(False, "compute batch statistics over all devices")

    # Training examples
    crop: tuple[int, int] = _setting(
        (320, 480), "height and width of a crop", metavar=("H", "W"), minimum=1
    )
    scale: tuple[float, float] = _setting(
        (1.0, 1.0), "bounds of the random scaling before the crop", metavar=("LOW", "HIGH")
    )
    flip: bool = _setting(False, "mirror half of the images")
    brightness: float = _setting(
        0.0, "largest change of brightness, as a share of white", metavar="SHARE", minimum=0
    )
    contrast: float = _setting(
        0.0, "largest relative change of contrast", metavar="SHARE", minimum=0
    )
    saturation: float = _setting(
        0.0, "largest relative change of saturation", metavar="SHARE", minimum=0
    )
    hue: float = _setting(
        0.0, "largest turn of hue, as a share of the colour circle", metavar="SHARE", minimum=0
    )
    coarse_epochs: int = _setting(
        0, "number of first epochs at half the scale and crop", metavar="EPOCHS", minimum=0
    )
    batch_size: int = _setting(
        32,
        "images per step, over all devices; 0 is up to 16, by the number of images",
        metavar="N",
        minimum=0,
    )

    # Optimization
    epochs: int = _setting(5, "passes over the training images", metavar="N", minimum=1)
    max_steps: int | None = _setting(
        None,
        "end after N steps in all; the schedule does not change (no limit)",
        metavar="N",
        minimum=1,
    )
    validate_every: int = _setting(
        1, "validate after every N epochs and after the last", metavar="N", minimum=1
    )
    early_stopping: int | None = _setting(
        None, "end after N epochs without a better val_mean_iou (never)", metavar="N", minimum=1
    )
    optimizer: str = _setting("sgd", "optimizer", choices=("sgd", "adamw"))
    learning_rate: float = _setting(
        0.01, "initial learning rate, for the mean loss of a batch", metavar="LR"
    )
    schedule: str = _setting(
        "constant", "learning-rate schedule", choices=("constant", "poly", "cosine")
    )
    warmup_steps: int = _setting(
        0, "first steps, in which the rate rises linearly", metavar="STEPS", minimum=0
    )
    momentum: float = _setting(0.0, "momentum of SGD", metavar="M", minimum=0)
    weight_decay: float = _setting(
        0.0, "decoupled: shrinks weights by rate × decay per step", metavar="WD", minimum=0
    )
    decay_all: bool = _setting(False, "decay biases, BatchNorm and upsampling kernels too")
    class_weights: tuple[float, ...] | None = _setting(
        None, "weights of the classes in the loss (1 for each)", metavar="W", minimum=0
    )
    jaccard_weight: float = _setting(
        0.0, "weight of the soft Jaccard loss that is added", metavar="WEIGHT", minimum=0
    )

    # Run
    seed: int = _setting(0, "seed of weights, order and augmentation", metavar="N", minimum=0)
    deterministic: bool = _setting(
        False, "bit-identical weights from the same seed on the same machine"
    )
    devices: int | None = _setting(
        None,
        "number of GPUs (all), or of CPU devices if there is no GPU (1)",
        metavar="N",
        minimum=1,
    )
    mixed_precision: str = _setting(
        "off",
        "compute type; auto is bfloat16 where the machine is faster with it",
        choices=("off", "auto", "bfloat16", "float16"),
    )
    run_dir: str | None = _setting(
        None, "new folder for the results (runs/DATASET-TIME)", metavar="DIR"
    )

    def __post_init__(self):
        for name in ("crop", "scale", "class_weights"):  # JSON has lists only
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        require_types(self)
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        if self.backbone not in (*BACKBONES, "tiny"):
            offered = ", ".join(BACKBONES)
            raise UserError(f"--backbone must be one of {offered}. Received: {self.backbone!r}.")
        if self.learning_rate <= 0:
            raise UserError(f"--learning-rate must be positive. Received: {self.learning_rate}.")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(f"--scale needs 0 < LOW <= HIGH. Received: {self.scale}.")

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


def split_of(config: TrainConfig, part: str) -> Split:
    """The `"train"` or `"val"` part of a run's data set: `limit` and `skip_smaller` apply.

    Raises:
        UserError: Like `load_split`, or if no training image is as large as the crop.
    """
    from fcn_keras.data import load_split  # needs NumPy, which `--help` does without

    split = load_split(config.dataset, part, config.data_dir)
    if config.limit:
        split = split.take(config.limit)
    if config.skip_smaller and part == "train":
        from fcn_keras.data.pipeline import drop_smaller

        split = drop_smaller(split, config.crop)
    return split


def require_class_weights(config: TrainConfig, classes: int) -> None:
    """Raises `UserError` if there are class weights, but not one for each class."""
    if config.class_weights is not None and len(config.class_weights) != classes:
        raise UserError(
            f"--class-weights needs one weight for each of the {classes} classes. Received: "
            f"{len(config.class_weights)}."
        )


def _recipe_of(dataset: str) -> str:
    return {"sample": "sample", "voc2012": "voc2012", "voc2012_aug": "voc2012"}.get(
        dataset, "strong"
    )


def _check_value(field: dataclasses.Field, value) -> None:
    """Raises `UserError` if a value of the right type is not among a field's."""
    choices, minimum = field.metadata["choices"], field.metadata["minimum"]
    if choices and value not in choices:
        fault = f"be one of {', '.join(map(str, choices))}"
    else:
        values = value if isinstance(value, tuple) else (value,)
        numbers = [number for number in values if isinstance(number, int | float)]
        if not all(map(math.isfinite, numbers)):
            fault = "be finite"
        elif min(numbers, default=minimum) < minimum:
            fault = f"be at least {minimum}"
        else:
            return
    raise UserError(f"{flag(field.name)} must {fault}. Received: {value!r}.")


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
            raise UserError(f"{flag(name)} must {fault}. Received: {ascii(value)[:100]}.")


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


def flag(name: str) -> str:
    """The flag of a setting, such as `--run-dir` of `run_dir`."""
    return "--" + name.replace("_", "-")
