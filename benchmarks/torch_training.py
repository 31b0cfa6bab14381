"""Reads, augments, trains and evaluates in NumPy and PyTorch, with nothing of fcn_keras."""

import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, interpolate
from torch_network import MEAN, FCN8s, parameter_groups

VOID = 255
POWER = 0.9  # of the poly schedule


def train_torch(dataset: Path, settings, seed: int) -> dict:
    """Trains FCN-8s from random weights and evaluates it on whole validation images.

    Args:
        dataset: A folder in VOC's layout; masks of palette indices or grey ids.
        settings: Has the fields `epochs`, `batch_size`, `crop`, `scale`,
            `brightness`, `contrast`, `learning_rate` and `weight_decay`.
        seed: Of the initial weights, the order and the augmentation.

    Returns:
        `mean_iou`, `pixel_accuracy`, `class_iou`, `seconds_per_step` (the median
        epoch's, without the first) and the last epoch's `loss`.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    examples = read_examples(dataset, "train")
    names = (dataset / "classes.txt").read_text().splitlines()
    classes = sum(bool(name.strip()) for name in names)
    network = FCN8s(classes).to(device)
    steps = max(1, len(examples) // settings.batch_size)
    total = steps * settings.epochs
    optimizer = torch.optim.AdamW(
        parameter_groups(network, settings.weight_decay),
        lr=settings.learning_rate,
        eps=1e-7,  # Keras's
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 - step / total) ** POWER if step < total else 0.0
    )
    times = []
    for epoch in range(settings.epochs):
        started, losses = time.time(), []
        order = np.resize(rng.permutation(len(examples)), steps * settings.batch_size)
        for batch in order.reshape(steps, -1):
            images, masks = zip(*(augment(*examples[i], settings, rng) for i in batch))
            optimizer.zero_grad()
            losses.append(descend(network, torch.stack(images), torch.stack(masks), device))
            optimizer.step()
            schedule.step()
        times.append((time.time() - started) / steps)
        loss = statistics.mean(losses)
        print(
            f"PyTorch epoch {epoch + 1}/{settings.epochs} - {times[-1]:.2f} s/step - {loss:.4f}",
            flush=True,
        )
    confusion = measure(network.eval(), read_examples(dataset, "val"), classes, device)
    return {
        **measures(confusion),
        "seconds_per_step": statistics.median(times[1:] or times),
        "loss": loss,
    }


def descend(network, images, masks, device: str) -> float:
    """Computes the gradient of the mean loss over labelled pixels; returns that loss."""
    loss = cross_entropy(network(images.to(device)), masks.to(device), ignore_index=VOID)
    loss.backward()
    return loss.item()


def read_examples(dataset: Path, split: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images, float32 `(3, H, W)` in 0..255, and masks, int64 `(H, W)`."""
    names = (dataset / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    examples = []
    for name in names:
        [image_path] = (dataset / "JPEGImages").glob(f"{name}.*")
        mask = Image.open(dataset / "SegmentationClass" / f"{name}.png")
        if mask.mode not in ("P", "L"):
            raise SystemExit(f"{name}.png: needs class ids, not colours. Received: {mask.mode}.")
        image = torch.from_numpy(np.array(Image.open(image_path).convert("RGB")))
        examples.append((image.permute(2, 0, 1).float(), torch.from_numpy(np.array(mask)).long()))
    return examples


def augment(image, mask, settings, rng):
    """Random scale, crop, mirroring, contrast and brightness."""
    factor = rng.uniform(*settings.scale)
    size = [max(1, round(side * factor)) for side in mask.shape]
    image = interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    mask = interpolate(mask[None, None].float(), size, mode="nearest-exact")[0, 0].long()

    height, width = settings.crop
    rows, columns = max(size[0], height), max(size[1], width)
    canvas = torch.from_numpy(np.round(MEAN)).view(3, 1, 1).repeat(1, rows, columns)
    canvas[:, : size[0], : size[1]] = image
    void = torch.full((rows, columns), VOID)
    void[: size[0], : size[1]] = mask
    top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
    image = canvas[:, top : top + height, left : left + width]
    mask = void[top : top + height, left : left + width]

    if rng.random() < 0.5:
        image, mask = image.flip(-1), mask.flip(-1)
    stretch = 1 + settings.contrast * rng.uniform(-1, 1)
    shift = 255 * settings.brightness * rng.uniform(-1, 1)
    mean = image.mean()
    return ((image - mean) * stretch + mean + shift).clamp(0, 255), mask


@torch.no_grad()
def measure(network, examples, classes: int, device: str) -> np.ndarray:
    """Pixels of each class (rows) by their prediction (columns)."""
    confusion = np.zeros((classes, classes), np.int64)
    for image, mask in examples:
        prediction = network(image[None].to(device))[0].argmax(dim=0).cpu()
        known = mask != VOID
        np.add.at(confusion, (mask[known].numpy(), prediction[known].numpy()), 1)
    return confusion


def measures(confusion: np.ndarray) -> dict:
    """Mean IoU over the classes that occur, pixel accuracy, and every class's IoU."""
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    occurs = union > 0
    ious = np.where(occurs, hits / np.maximum(union, 1), np.nan)
    return {
        "mean_iou": float(ious[occurs].mean()),
        "pixel_accuracy": float(hits.sum() / confusion.sum()),
        "class_iou": [None if np.isnan(iou) else float(iou) for iou in ious],
    }
