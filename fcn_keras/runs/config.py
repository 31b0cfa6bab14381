"""`TrainConfig`: every setting of a run."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from fcn_keras.errors import UserError
from fcn_keras.runs.checks import BOTH_FORMS, check_value, require_consistent, require_types
from fcn_keras.runs.recipes import FROM_RANDOM, RECIPES

if TYPE_CHECKING:
    from fcn_keras.data.split import Split


# KerasHub's ResNets; `tiny`, which is for tests, is accepted but not offered.
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
# The groups of `train --help`, by the first field of each.
GROUPS = {
    "recipe": "data",
    "backbone": "model",
    "crop": "training examples",
    "epochs": "optimization",
    "seed": "run",
}
# Settings of earlier versions, with the values that are now fixed.
DROPPED = {"trainable_upsampling": True, "fused_batchnorm": True, "tensorboard_images": 4}


def _setting(
    default: Any,
    help: str,
    *,
    choices: tuple | None = None,
    metavar=None,
    minimum=-math.inf,
    maximum=math.inf,
):
    """A field; `minimum` and `maximum` bound a number, or each number in a tuple."""
    metadata = {"help": help, "choices": choices, "metavar": metavar}
    metadata |= {"minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of one run; the command line makes its flags from these fields.

    `TrainConfig.from_recipe` fills the fields from a recipe. Each field's `help`
    explains it.

    Raises:
        UserError: If a value has the wrong type or is out of range.
    """

    # Data
    recipe: str = _setting(
        "sample",
        "preset of all other settings (sample or voc2012 by --dataset, else finetune, or strong "
        "without pretrained weights)",
    )
    dataset: str = _setting(
        "sample", "data set: sample, voc2012, voc2012_aug, tfds:NAME or a folder in VOC's layout"
    )
    data_dir: str | None = _setting(
        None,
        "folder that holds VOCdevkit or TFDS's data sets ($TFDS_DATA_DIR or ~/tensorflow_datasets)",
        metavar="DIR",
    )
    limit: int | None = _setting(
        None, "use only the first N images of each split (all)", metavar="N", minimum=1
    )
    short_side: int | None = _setting(
        0,
        "resize photographs to this shorter side for the network, in training and, unless told "
        "otherwise, in prediction (0: keep their size)",
        metavar="PIXELS",
        minimum=0,
    )
    skip_smaller: bool = _setting(
        False, "drop training images smaller than the crop instead of padding them"
    )
    cache_mb: int = _setting(1024, "cache for decoded images, in MiB", metavar="MIB", minimum=0)

    # Model
    backbone: str = _setting("resnet18", f"backbone: {', '.join(BACKBONES)}")
    weights: str = _setting(
        "none",
        "initial weights of the backbone: imagenet, none, auto (imagenet if available, else none), "
        "a preset's directory, torchvision's as a .pth file or a name such as "
        "torchvision/resnet18, or a KerasHub handle",
    )
    init_from: str | None = _setting(
        None,
        "run folder, .keras or .pth file, or torchvision/fcn_resnet50 or 101, to initialize the "
        "model from (none)",
        metavar="RUN",
    )
    output_stride: int | None = _setting(
        32,
        "output stride: 32, 16 or 8 for FCN-32s, FCN-16s or FCN-8s; not with --dilated",
        choices=(32, 16, 8),
    )
    dilated: bool = _setting(
        False, "build the dilated FCN: a ResNet that keeps stride 8, and a head without skips"
    )
    auxiliary_weight: float | None = _setting(
        None,
        "weight of the auxiliary head's loss in a dilated FCN; 0 leaves the head out (0.4)",
        metavar="WEIGHT",
        minimum=0,
    )
    upsampling: str = _setting(
        "dense",
        "upsampling of the scores: dense kernels that mix all classes, one trained kernel per "
        "class, or fixed bilinear interpolation; use the latter two with many classes",
        choices=("dense", "per-class", "fixed"),
    )
    upsampling_initializer: str = _setting(
        "bilinear",
        "initial dense upsampling kernels: bilinear, or a Keras initializer such as glorot_uniform",
        metavar="NAME",
    )
    freeze: str = _setting(
        "none", "which part of the backbone to freeze", choices=("none", "batchnorm", "backbone")
    )
    frozen_epochs: int = _setting(
        0, "number of initial epochs with a frozen backbone", metavar="EPOCHS", minimum=0
    )
    synchronized_batchnorm: bool = _setting(
        False, "compute BatchNorm statistics across all devices"
    )

    # Training examples
    crop: tuple[int, int] = _setting(
        (320, 480),
        "height and width of training crops, in pixels; 0 0 chooses by the size of the images",
        metavar=("H", "W"),
        minimum=0,
    )
    scale: tuple[float, float] = _setting(
        (1.0, 1.0), "bounds of the random scale factor before cropping", metavar=("LOW", "HIGH")
    )
    class_crops: float = _setting(
        0.0,
        "share of the crops that have a pixel of a class chosen at random among those in the image",
        metavar="SHARE",
        minimum=0,
        maximum=1,
    )
    flip: bool = _setting(False, "mirror each image with probability 0.5")
    vertical_flip: bool = _setting(False, "mirror each image top to bottom with probability 0.5")
    quarter_turns: bool = _setting(False, "turn each image by 0, 90, 180 or 270 degrees")
    rotation: float = _setting(
        0.0, "largest random rotation to either side", metavar="DEGREES", minimum=0, maximum=180
    )
    shear: float = _setting(
        0.0, "largest random shear to either side", metavar="DEGREES", minimum=0, maximum=80
    )
    elastic: float = _setting(
        0.0, "largest displacement of a random elastic distortion", metavar="PIXELS", minimum=0
    )
    brightness: float = _setting(
        0.0, "largest random change in brightness, as a share of white", metavar="SHARE", minimum=0
    )
    contrast: float = _setting(
        0.0, "largest random relative change in contrast", metavar="SHARE", minimum=0
    )
    saturation: float = _setting(
        0.0, "largest random relative change in saturation", metavar="SHARE", minimum=0
    )
    hue: float = _setting(
        0.0, "largest random hue shift, as a share of the colour wheel", metavar="SHARE", minimum=0
    )
    grey: float = _setting(
        0.0, "probability of a grey image", metavar="PROBABILITY", minimum=0, maximum=1
    )
    blur: float = _setting(
        0.0, "largest sigma of a random Gaussian blur", metavar="PIXELS", minimum=0, maximum=20
    )
    noise: float = _setting(
        0.0,
        "largest standard deviation of Gaussian noise, as a share of white",
        metavar="SHARE",
        minimum=0,
        maximum=1,
    )
    jpeg: int | None = _setting(
        None,
        "lowest quality of random JPEG compression, 1 to 100 (none)",
        metavar="QUALITY",
        minimum=1,
        maximum=100,
    )
    cutout: float = _setting(
        0.0,
        "largest sides of one hidden rectangle, as shares of the crop's",
        metavar="SHARE",
        minimum=0,
        maximum=1,
    )
    cutmix: float = _setting(
        0.0,
        "probability of a rectangle from another example of the batch, with its mask",
        metavar="PROBABILITY",
        minimum=0,
        maximum=1,
    )
    coarse_epochs: int | None = _setting(
        0, "number of initial epochs at half the scale and crop size", metavar="EPOCHS", minimum=0
    )
    batch_size: int = _setting(
        32,
        "images per step, on all devices together; 0 chooses at most 16, by the number of images",
        metavar="N",
        minimum=0,
    )

    accumulation_steps: int = _setting(
        1,
        "compute the gradients of each batch in N parts, to use less memory",
        metavar="N",
        minimum=1,
    )

    # Optimization
    epochs: int = _setting(
        5,
        "passes over the training images; 0 chooses by the number of images",
        metavar="N",
        minimum=0,
    )
    max_steps: int | None = _setting(
        None,
        "stop after N steps in total, without changing the learning-rate schedule (no limit)",
        metavar="N",
        minimum=1,
    )
    validate_every: int = _setting(
        1, "validate after every N epochs, and after the last one", metavar="N", minimum=1
    )
    early_stopping: int | None = _setting(
        None, "stop after N epochs without a better val_mean_iou (never)", metavar="N", minimum=1
    )
    optimizer: str = _setting("sgd", "optimizer, SGD or AdamW", choices=("sgd", "adamw"))
    learning_rate: float = _setting(
        0.01, "initial learning rate, for the mean loss over a batch", metavar="LR"
    )
    schedule: str = _setting(
        "constant", "learning-rate schedule", choices=("constant", "poly", "cosine")
    )
    warmup_steps: int = _setting(
        0, "initial steps over which the learning rate rises linearly", metavar="STEPS", minimum=0
    )
    backbone_rate: float = _setting(
        1.0, "learning rate of the backbone, relative to the head's", metavar="FACTOR", minimum=0
    )
    layer_decay: float = _setting(
        1.0,
        "learning rate of each stage of the backbone, relative to the next stage's",
        metavar="FACTOR",
        minimum=0,
        maximum=1,
    )
    clip_norm: float = _setting(
        0.0, "largest global norm of the gradients (0: no limit)", metavar="NORM", minimum=0
    )
    ema: float = _setting(
        0.0,
        "decay of the moving average of the weights that is validated and saved as best.keras, "
        "such as 0.999 (0: no average)",
        metavar="DECAY",
        minimum=0,
    )
    momentum: float = _setting(0.0, "momentum of SGD", metavar="M", minimum=0)
    weight_decay: float = _setting(
        0.0, "decoupled weight decay per step, scaled by the learning rate", metavar="WD", minimum=0
    )
    decay_all: bool = _setting(False, "decay biases, BatchNorm and upsampling kernels, too")
    loss: str = _setting(
        "crossentropy",
        "loss of the pixels: cross-entropy, focal loss, or cross-entropy of the hardest pixels",
        choices=("crossentropy", "focal", "ohem"),
    )
    class_weights: tuple[float, ...] | str | None = _setting(
        None,
        "weight of each class in the loss, or auto, which gives rare classes larger ones, "
        "1 / ln(1.02 + share of the training pixels) (1 for each)",
        metavar="W",
        minimum=0,
    )
    label_smoothing: float = _setting(
        0.0,
        "share of each pixel's target that is spread evenly over all classes; not with --loss "
        "focal",
        metavar="SHARE",
        minimum=0,
    )
    region_loss: str = _setting(
        "jaccard",
        "loss of the classes' regions, added to that of the pixels by --region-weight",
        choices=("jaccard", "dice", "tversky", "lovasz"),
    )
    region_weight: float = _setting(0.0, "weight of the region loss", metavar="WEIGHT", minimum=0)

    # Run
    seed: int = _setting(0, "seed of weights, image order and augmentation", metavar="N", minimum=0)
    deterministic: bool = _setting(
        False, "train to bit-identical weights for the same seed and machine"
    )
    devices: int | None = _setting(
        None,
        "number of GPUs (all), or of CPU devices if there is no GPU (1)",
        metavar="N",
        minimum=1,
    )
    mixed_precision: str = _setting(
        "off",
        "compute type; off is float32, auto is bfloat16 if the machine is faster with it",
        choices=("off", "auto", "bfloat16", "float16"),
    )
    run_dir: str | None = _setting(
        None, "new folder for the results (runs/DATASET-TIME)", metavar="DIR"
    )
    # Names of settings that did not come from the recipe, so that another may take its place.
    given: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self):
        for name in ("crop", "scale", "class_weights", "given"):  # JSON has lists only
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.class_weights == ("auto",):  # from the command line
            object.__setattr__(self, "class_weights", "auto")
        if self.dilated and self.output_stride == 32:  # the default
            object.__setattr__(self, "output_stride", None)
        if self.dilated and self.auxiliary_weight is None:
            object.__setattr__(self, "auxiliary_weight", 0.4)
        weights = self.class_weights
        words = weights if isinstance(weights, tuple) else (weights,)
        if weights != "auto" and any(isinstance(word, str) for word in words):
            raise UserError(
                f"--class-weights must be auto, or one number per class. Received: {weights!r}."
            )
        require_types(self)
        for field in SETTINGS:
            check_value(field, getattr(self, field.name))
        if self.backbone not in (*BACKBONES, "tiny"):
            offered = ", ".join(BACKBONES)
            raise UserError(f"--backbone must be one of {offered}. Received: {self.backbone!r}.")
        require_consistent(self)

    @property
    def network(self) -> str:
        """The network's name in texts, such as `FCN-8s`."""
        return "Dilated FCN" if self.dilated else f"FCN-{self.output_stride}s"

    @property
    def loss_title(self) -> str:
        """The title of charts of the loss, which contains the auxiliary one only in training."""
        return "loss (train: both heads)" if self.auxiliary_weight else "loss"

    @classmethod
    def from_recipe(cls, recipe: str | None = None, **settings) -> TrainConfig:
        """A recipe's settings, some of them replaced.

        Args:
            recipe: A key of `RECIPES`. By default it follows from the data set:
                `sample`, `voc2012`, or `finetune` for a folder. With random weights, the one in
                `FROM_RANDOM` takes its place.
            **settings: Fields of `TrainConfig`.

        Raises:
            UserError: If the recipe is unknown or a value is out of range.
        """
        recipe = recipe or _recipe_of(settings.get("dataset") or "sample")
        if recipe not in RECIPES:
            raise UserError(f"--recipe must be one of {', '.join(RECIPES)}. Received: {recipe!r}.")
        if settings.get("weights") == "none" and not settings.get("init_from"):
            recipe = FROM_RANDOM.get(recipe, recipe)
        return cls(**_combined(RECIPES[recipe], {**settings, "recipe": recipe}))

    def replaced(self, **settings) -> TrainConfig:
        """A copy with some settings replaced; see `_combined`."""
        return TrainConfig(**_combined(vars(self), settings))

    def resumed(self, **changes) -> TrainConfig:
        """The settings with which a run goes on; `UserError` if they are of a new one."""
        if changes.get("epochs") == 0:
            raise UserError("--epochs must be at least 1 in a resumed run. Received: 0.")
        return dataclasses.replace(self, **changes)


SETTINGS = tuple(field for field in dataclasses.fields(TrainConfig) if field.name != "given")


def _combined(base: dict, settings: dict) -> dict:
    """Settings in place of those of a recipe or run.

    Of `dilated` and `output_stride`, the one that is given replaces the other.

    Raises:
        UserError: If both are given.
    """
    settings = renamed(settings)
    given = {*base.get("given", ()), *settings} - {"recipe"}
    if settings.get("dilated") and settings.get("output_stride"):
        raise UserError(BOTH_FORMS)
    before = base.get("dilated", False)
    dilated = settings.get("dilated", before and not settings.get("output_stride"))
    if dilated != before:
        unused = ("output_stride", "upsampling", "auxiliary_weight")
        base = {name: value for name, value in base.items() if name not in unused}
    return {**base, "dilated": dilated, **settings, "given": tuple(sorted(given))}


def renamed(settings: dict) -> dict:
    """Settings with `jaccard_weight`, of earlier versions, as the region loss that it means.

    Raises:
        UserError: If a region loss is given, too.
    """
    if "jaccard_weight" not in settings:
        return settings
    if {"region_loss", "region_weight"} & settings.keys():
        raise UserError(
            "--jaccard-weight W stands for --region-loss jaccard --region-weight W. Give only one."
        )
    weight = settings["jaccard_weight"]
    others = {name: value for name, value in settings.items() if name != "jaccard_weight"}
    return {**others, "region_loss": "jaccard", "region_weight": weight}


def split_of(config: TrainConfig, part: str) -> Split:
    """The `"train"` or `"val"` split of a run, with `limit` and `skip_smaller` applied.

    Raises:
        UserError: Like `load_split`, or if no training image is as large as the crop.
    """
    # NumPy, which they need, takes longer to import than `--help`.
    from fcn_keras.data import load_split
    from fcn_keras.data.split import drop_smaller

    split = load_split(config.dataset, part, config.data_dir)
    if config.limit:
        split = split.take(config.limit)
    if config.skip_smaller and part == "train":
        split = drop_smaller(split, config.crop)
    return split


def require_class_weights(config: TrainConfig, classes: int) -> None:
    """Raises `UserError` if class weights are given, but not one for each class."""
    if isinstance(config.class_weights, tuple) and len(config.class_weights) != classes:
        raise UserError(
            f"--class-weights needs one weight for each of the {classes} classes. Received: "
            f"{len(config.class_weights)}."
        )


def _recipe_of(dataset: str) -> str:
    return {"sample": "sample", "voc2012": "voc2012", "voc2012_aug": "voc2012"}.get(
        dataset, "finetune"
    )
