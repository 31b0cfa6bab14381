"""The recipes: named presets of `TrainConfig`'s settings, with the sources of their values."""

from __future__ import annotations

from typing import Any

# Recipes for pretrained weights, and those that take their place without any.
FROM_RANDOM = {"finetune": "strong", "camvid": "camvid_random"}

CAMVID: dict[str, Any] = dict(
    dataset="camvid",
    output_stride=8,
    short_side=450,  # photographs of 360x480 enlarged, in prediction too
    crop=(320, 448),
    scale=(0.6, 1.4),
    flip=True,
    brightness=0.2,
    contrast=0.2,
    batch_size=4,
    validate_every=10,
    optimizer="adamw",
    schedule="poly",
    weight_decay=1e-4,
    region_weight=3.0,
    mixed_precision="auto",
)

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
    # d2l's recipe. Its PyTorch loop steps along the sum of 32 per-image losses with lr
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
    # Meant to be the best FCN for VOC here, after published settings; not tested.
    # Sources: [1] DeepLabv3+ (Chen et al. 2018, section 4), [2] MMSegmentation's
    # FCN on VOC train_aug (configs/fcn, schedule_20k), [3] Long et al. 2015.
    "voc2012_best": dict(
        dataset="voc2012_aug",  # [1], [2]
        backbone="resnet101",  # [2]: 71.2 on val where resnet50 has 67.1
        weights="imagenet",
        dilated=True,  # [1], [2], the latter with an auxiliary head of weight 0.4
        synchronized_batchnorm=True,  # [2]; [1] too trains BatchNorm, with 16 images
        crop=(512, 512),  # [2]; [1] has 513
        scale=(0.5, 2.0),  # [1], [2]
        flip=True,  # [1], [2]
        brightness=0.125,  # [2]: 32 of 255, in half of the images
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
    # CamVid's 367 images of 360x480 on two processor cores. docs/guide/camvid.md has the
    # measurements that the values follow from.
    "camvid": dict(CAMVID, weights="auto", coarse_epochs=45, epochs=90, learning_rate=5e-4),
    "camvid_random": dict(CAMVID, coarse_epochs=66, epochs=120, learning_rate=1e-3),
    # For photographs of one's own, from random weights: SGD with momentum 0.9, poly schedule and
    # scale jitter as in DeepLab (Chen et al. 2017), skips of strides 16 and 8.
    "strong": dict(
        dataset="voc2012",
        weights="auto",
        short_side=None,
        crop=(0, 0),
        batch_size=0,  # at most 16
        epochs=0,
        output_stride=8,
        upsampling="per-class",  # as good as dense, and of use with many classes
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
    # The same from pretrained weights; docs/guide/results.md has the measurements.
    "finetune": dict(
        dataset="voc2012",
        weights="auto",
        short_side=None,
        crop=(0, 0),
        batch_size=8,
        epochs=0,
        coarse_epochs=None,  # half of them
        output_stride=8,
        upsampling="per-class",
        scale=(0.5, 2.0),
        flip=True,
        brightness=0.3,
        contrast=0.3,
        saturation=0.4,
        hue=0.05,
        optimizer="adamw",
        learning_rate=3e-3,
        backbone_rate=0.03,  # the largest gain: features of ImageNet's animals are worth keeping
        schedule="poly",
        weight_decay=1e-4,
        region_weight=3.0,
        mixed_precision="auto",
    ),
}
