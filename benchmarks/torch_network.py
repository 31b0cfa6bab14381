"""FCN-8s and FCN-32s on ResNet-18 or 50 in PyTorch, with `build_fcn`'s shapes and initializers."""

import itertools
import sys

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

# PyTorch's optimizers import Triton where it is installed (with the CUDA packages), and it
# crashes in a process that has imported TensorFlow (PyTorch 2.13, TensorFlow 2.21).
sys.modules.setdefault("triton", None)

MEAN = 255 * np.array([0.485, 0.456, 0.406], "float32")
STD = 255 * np.array([0.229, 0.224, 0.225], "float32")


class BasicBlock(nn.Module):
    """Residual block of He et al. 2016."""

    expansion = 1

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(BasicBlock):
    """The block of deeper networks; the stride is in the 3x3 convolution."""

    expansion = 4

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, stride)
        width = outputs // 4
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


DEPTHS = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}


class FCN8s(nn.Module):
    """Maps RGB `(B, 3, H, W)` in 0..255 to logits `(B, classes, H, W)`.

    PyTorch's BatchNorm has momentum 0.1 and epsilon 1e-5, which are Keras's 0.9 and
    KerasHub's 1e-5. Keras initializes kernels with Glorot's uniform values, biases with 0.
    """

    def __init__(self, classes: int, depth: int = 18):
        super().__init__()
        block, counts = DEPTHS[depth]
        self.register_buffer("mean", torch.from_numpy(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.from_numpy(STD).view(3, 1, 1))
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        widths = (64, *(block.expansion * width for width in (64, 128, 256, 512)))
        self.stages = nn.ModuleList(
            nn.Sequential(
                block(inputs, outputs, 1 if stage == 0 else 2),
                *(block(outputs, outputs, 1) for _ in range(counts[stage] - 1)),
            )
            for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        )
        self.scores = nn.ModuleDict(
            {
                f"score_{stride}": nn.Conv2d(16 * stride * block.expansion, classes, 1)
                for stride in (8, 16, 32)
            }
        )
        self.upscores = nn.ModuleDict(
            {
                name: nn.ConvTranspose2d(classes, classes, 2 * factor, factor, factor // 2)
                for name, factor in (
                    ("upscore_2_to_16", 2),
                    ("upscore_2_to_8", 2),
                    ("upscore_8", 8),
                )
            }
        )
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                module.weight.data = bilinear_kernel(classes, module.kernel_size[0])
            elif isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)

    def forward(self, images):
        x = (images - self.mean) / self.std
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        _, eight, sixteen, thirty_two = features
        scores = self.scores["score_32"](thirty_two)
        for stride, feature in ((16, sixteen), (8, eight)):
            skip = self.scores[f"score_{stride}"](feature)
            scores = crop(self.upscores[f"upscore_2_to_{stride}"](scores), skip) + skip
        return crop(self.upscores["upscore_8"](scores), images)


class FCN32s(FCN8s):
    """The same without skips."""

    def __init__(self, classes: int, depth: int = 18):
        super().__init__(classes, depth)
        self.scores = nn.ModuleDict({"score_32": self.scores["score_32"]})
        upscore = nn.ConvTranspose2d(classes, classes, 64, 32, 16)
        upscore.weight.data = bilinear_kernel(classes, 64)
        nn.init.zeros_(upscore.bias)
        self.upscores = nn.ModuleDict({"upscore_32": upscore})

    def forward(self, images):
        x = (images - self.mean) / self.std
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = stage(x)
        return crop(self.upscores["upscore_32"](self.scores["score_32"](x)), images)


def crop(maps, reference):
    """The top left part of maps, as high and wide as the reference."""
    surplus = [b - a for a, b in zip(maps.shape[:1:-1], reference.shape[:1:-1])]
    return pad(maps, (0, surplus[0], 0, surplus[1]))  # negative padding cuts


def bilinear_kernel(channels: int, size: int) -> torch.Tensor:
    """`(channels, channels, size, size)` that interpolates each channel separately."""
    ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / (size / 2)
    return torch.eye(channels)[:, :, None, None] * torch.outer(ramp, ramp)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Biases, BatchNorm and upsampling kernels are not decayed."""
    groups = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[parameter.ndim > 1 and "upscore" not in name].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
