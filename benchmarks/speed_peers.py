"""The tasks of `speed_ours.py` in PyTorch, with nothing of fcn_keras but its synthetic data."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torch_network import FCN32s

LEARNING_RATE, MOMENTUM = 1e-3, 0.9


def matmul(precision: str, side: int = 2048):
    matrix = torch.randn(side, side).to(getattr(torch, precision))
    return lambda: (matrix @ matrix)[0, 0].item()


def network_of(classes: int, compiled: bool, training: bool):
    network = FCN32s(classes).to(memory_format=torch.channels_last).train(training)
    return network, torch.compile(network) if compiled else network


def photographs(batch: int, size, classes: int):
    images = 255 * torch.rand(batch, 3, *size).to(memory_format=torch.channels_last)
    return images, torch.randint(classes, (batch, *size))


def training_step(precision: str, batch: int, size, classes: int, compiled: bool):
    network, call = network_of(classes, compiled, training=True)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)
    images, masks = photographs(batch, size, classes)
    right = torch.zeros(2)
    confusion = torch.zeros(classes**2, dtype=torch.int64)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = call(images)
        loss = cross_entropy(logits.float(), masks, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # Accuracy and mean IoU, as in our step.
        labelled = masks != 255
        pairs = (masks * classes + logits.detach().argmax(1))[labelled]
        confusion.add_(torch.bincount(pairs, minlength=classes**2))
        right.add_(loss.item())

    return step


def forward(precision: str, size, classes: int, compiled: bool, batch: int = 1):
    _, call = network_of(classes, compiled, training=False)
    images, _ = photographs(batch, size, classes)

    def predict():
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            call(images).float().numpy()

    return predict


def onnx_file(path: str, runtime: str, precision: str, size):
    """The model as tf2onnx writes it, without our changes; OpenVINO compiles it for one size."""
    images = 255 * np.random.default_rng(0).random((1, *size, 3), np.float32)
    if runtime == "ONNX Runtime":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda: session.run(["logits"], {"images": images})
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(images.shape))
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda: compiled([images])


def prediction(photos: str, classes: int, precision: str):
    """Reads, predicts and writes a mask, one photograph after another."""
    _, call = network_of(classes, compiled=False, training=False)
    paths = sorted(Path(photos).iterdir())
    output = tempfile.TemporaryDirectory()

    def predict():
        for path in paths:
            image = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy())
            with (
                torch.inference_mode(),
                torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
            ):
                logits = call(image.permute(2, 0, 1)[None].float())
            mask = Image.fromarray(logits[0].argmax(0).to(torch.uint8).numpy())
            mask.putpalette(list(range(256)) * 3)
            mask.save(Path(output.name) / f"{path.stem}.png")

    return predict


class Photographs(Dataset):
    """Random crops of a folder in VOC's layout, all images as large as a crop."""

    def __init__(self, dataset: str, crop):
        root = Path(dataset)
        names = (root / "ImageSets/Segmentation/train.txt").read_text().split()
        images = {path.stem: path for path in (root / "JPEGImages").iterdir()}
        self.pairs = [(images[name], root / f"SegmentationClass/{name}.png") for name in names]
        self.crop = crop

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        image, mask = (np.asarray(Image.open(path)) for path in self.pairs[index])
        top, left = (
            int(torch.randint(side - crop + 1, ()))
            for side, crop in zip(mask.shape, self.crop, strict=True)
        )
        window = np.s_[top : top + self.crop[0], left : left + self.crop[1]]
        image = torch.from_numpy(image[window].copy()).permute(2, 0, 1).float()
        return image, torch.from_numpy(mask[window].astype("int64"))


def loader(dataset: str, crop, batch: int, batches: int, workers: int):
    """A number of training batches by a `DataLoader`."""
    torch.set_num_threads(1)
    photographs = Photographs(dataset, crop)
    sampler = RandomSampler(photographs, replacement=True, num_samples=batch * batches)
    loaded = DataLoader(
        photographs, batch, sampler=sampler, num_workers=workers, persistent_workers=True
    )

    def read():
        for _ in loaded:
            pass

    return read
