"""The PyTorch half of `chapter.py`: d2l's network and training loop, nothing of fcn_keras.

Needs torch, torchvision, safetensors and Pillow.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import pad
from torch_network import MEAN, STD, bilinear_kernel
from torch_training import descend, read_examples
from torchvision.models import resnet18

CLASSES, CROP, BATCH = 21, (320, 480), 32
# d2l's rates for the sum of 32 losses, as rates for their mean; see fcn_keras's recipe.
LEARNING_RATE = 0.001 * BATCH
WEIGHT_DECAY = 0.001 * 1e-3 / LEARNING_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="VOC2012, or of its layout")
    parser.add_argument("--weights", type=Path, required=True, help="has model.safetensors")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="for masks and metrics.json")
    parser.add_argument("--predict", type=Path, nargs="+", required=True, help="of VOC's layout")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    network = fcn_32s(arguments.weights).to(memory_format=torch.channels_last)
    names, examples = large_examples(arguments.data)
    crops = draw_crops(examples, arguments.epochs, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    scores = network[-2].weight.detach().numpy()
    np.savez(arguments.out / "start.npz", scores=scores, names=names, crops=crops)
    figures = train(network, examples, crops)
    network.eval()
    for number, folder in enumerate(arguments.predict):
        masks = arguments.out / str(number)
        masks.mkdir(parents=True, exist_ok=True)
        for name in (folder / "ImageSets" / "Segmentation" / "val.txt").read_text().split():
            [path] = (folder / "JPEGImages").glob(f"{name}.*")
            prediction = predicted(network, np.array(Image.open(path).convert("RGB")))
            Image.fromarray(prediction).save(masks / f"{name}.png")
    (arguments.out / "metrics.json").write_text(json.dumps(figures) + "\n")


def fcn_32s(weights: Path) -> nn.Sequential:
    """d2l's network: its 1x1 convolution is Xavier's, its upsampling bilinear."""
    backbone = resnet18()
    lacking = backbone.load_state_dict(load_file(weights / "model.safetensors"), strict=False)
    assert {*lacking.missing_keys} == {"fc.weight", "fc.bias"} and not lacking.unexpected_keys
    score = nn.Conv2d(512, CLASSES, 1)
    nn.init.xavier_uniform_(score.weight)
    upsample = nn.ConvTranspose2d(CLASSES, CLASSES, 64, 32, 16)
    upsample.weight.data = bilinear_kernel(CLASSES, 64)
    for layer in (score, upsample):
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*list(backbone.children())[:-2], score, upsample)


def large_examples(data: Path) -> tuple[list[str], list[tuple[torch.Tensor, torch.Tensor]]]:
    """The photographs that are at least as large as a crop: names, normalised images and masks."""
    names = (data / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    found = {
        name: (normalised(image), mask)
        for name, (image, mask) in zip(names, read_examples(data, "train"), strict=True)
        if mask.shape[0] >= CROP[0] and mask.shape[1] >= CROP[1]
    }
    return [*found], [*found.values()]


def draw_crops(examples, epochs: int, seed: int) -> np.ndarray:
    """The photograph, top and left of each random crop, `(epochs, steps, BATCH, 3)`."""
    rng = np.random.default_rng(seed)
    steps = len(examples) // BATCH
    crops = [
        (index, *(rng.integers(side - crop + 1) for side, crop in zip(shape, CROP)))
        for _ in range(epochs)
        for index in rng.permutation(len(examples))[: steps * BATCH]
        for shape in [examples[index][1].shape]
    ]
    return np.array(crops).reshape(epochs, steps, BATCH, 3)


def train(network: nn.Module, examples, crops: np.ndarray) -> dict:
    """Trains on the crops; returns the figures of each epoch."""
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    network.train()
    losses, seconds = [], []
    for steps in crops:
        started, of_steps = time.monotonic(), []
        for batch in steps:
            images, masks = zip(*(cut(*examples[index], top, left) for index, top, left in batch))
            optimizer.zero_grad()
            stacked = torch.stack(images).contiguous(memory_format=torch.channels_last)
            of_steps.append(descend(network, stacked, torch.stack(masks), "cpu"))
            optimizer.step()
        losses.append(statistics.mean(of_steps))
        seconds.append((time.monotonic() - started) / len(steps))
        print(f"PyTorch: {seconds[-1]:.2f} s a step, loss {losses[-1]:.4f}", flush=True)
    return {"loss": losses, "seconds_per_step": seconds}


def normalised(image: torch.Tensor) -> torch.Tensor:
    """`(3, H, W)` in 0..255 by ImageNet's mean and standard deviation."""
    mean, std = (torch.from_numpy(values).view(3, 1, 1) for values in (MEAN, STD))
    return (image - mean) / std


def cut(image, mask, top: int, left: int):
    window = np.s_[..., top : top + CROP[0], left : left + CROP[1]]
    return image[window], mask[window]


@torch.no_grad()
def predicted(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """The classes of a photograph, padded to a multiple of 32 with ImageNet's mean colour."""
    height, width = image.shape[:2]
    tensor = normalised(torch.from_numpy(image).permute(2, 0, 1).float())
    logits = network(pad(tensor, (0, -width % 32, 0, -height % 32))[None])
    return logits[0].argmax(0)[:height, :width].numpy().astype(np.uint8)


if __name__ == "__main__":
    main()
