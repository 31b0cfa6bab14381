"""What synthetic data cannot show: photographs of VOC 2012 and CamVid, ImageNet's weights.

| variable       | folder                                                            |
|----------------|-------------------------------------------------------------------|
| `VOC_DIR`      | contains `VOCdevkit`; a part of VOC 2012 is enough                |
| `CAMVID_DIR`   | CamVid in VOC's layout                                            |
| `RESNET18_DIR` | ImageNet's ResNet-18 in timm's layout, and `reference.npz`: two   |
|                | photographs and the features that the original computes from them |

Tests without their folder are skipped. Nothing is written there, as it may be read-only.
"""

import base64
import io
import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from support.processes import ROOT
from support.toy_server import b64, serving

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.models.fcn import build_fcn
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import RunFolder
from fcn_keras.runs.recipes import RECIPES
from fcn_keras.training.objectives import SegmentationCrossentropy
from fcn_keras.training.optimizers import make_optimizer

sys.path.insert(0, str(ROOT / "benchmarks"))
import chapter

VOC = Path("VOCdevkit", "VOC2012")
LISTS = Path("ImageSets", "Segmentation")


def folder(variable):
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])


@pytest.fixture(scope="module")
def weights():
    return folder("RESNET18_DIR")


@pytest.fixture(scope="module")
def voc(built_once):
    """A copy of a few photographs, since records are written there."""
    folder("VOC_DIR")
    return built_once("voc_photographs", lambda root: copy_photographs(root, train=8, val=4))


def copy_photographs(root, smallest=(0, 0), **counts):
    """Copies so many of each split, spread over those of VOC that are large enough."""
    source, copy = folder("VOC_DIR") / VOC, root / VOC
    (copy / LISTS).mkdir(parents=True)
    for part, count in counts.items():
        ids = (source / LISTS / f"{part}.txt").read_text().split()
        ids = [name for name in ids if is_larger(source / f"JPEGImages/{name}.jpg", smallest)]
        ids = ids[:: len(ids) // count][:count]
        (copy / LISTS / f"{part}.txt").write_text("\n".join(ids))
        for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            (copy / kind).mkdir(exist_ok=True)
            for name in ids:
                shutil.copy(source / kind / f"{name}.{suffix}", copy / kind)


def is_larger(photograph, size):
    with Image.open(photograph) as image:
        return image.height >= size[0] and image.width >= size[1]


def require_what_pillow_reads(split, root):
    """Compares photographs and the pixels of each class with the files."""
    for index, name in enumerate(split.ids):
        image, mask = split.read(index)
        photograph = Image.open(root / "JPEGImages" / f"{name}.jpg")
        truth = Image.open(root / "SegmentationClass" / f"{name}.png")
        assert truth.mode == "P" and mask.shape == truth.size[::-1]
        assert np.bincount(mask.ravel(), minlength=256).tolist() == truth.histogram()
        np.testing.assert_array_equal(image, np.asarray(photograph))


def test_records_of_voc_hold_the_files_pixels(voc):
    for part in ("train", "val"):
        require_what_pillow_reads(load_split("voc2012", part, str(voc)), voc / VOC)


def test_masks_of_camvid_hold_the_files_pixels():
    root = folder("CAMVID_DIR")
    for part in ("train", "val"):
        require_what_pillow_reads(load_split(str(root), part).spread(10), root)


def test_features_are_those_of_the_original(weights):
    """But for the outermost ring: the original pads with another colour."""
    reference = np.load(weights / "reference.npz")
    fcn = build_fcn("resnet18", 2, 8, weights=str(weights))
    maps = [fcn.get_layer(f"score_{stride}").input for stride in (8, 16, 32)]
    features = keras.Model(fcn.input, maps)(reference["images"].astype("float32"))
    for stride, ours in zip((8, 16, 32), features, strict=True):
        theirs = reference[f"stride{stride}"][:, 1:-1, 1:-1]
        difference = np.linalg.norm(ours[:, 1:-1, 1:-1] - theirs)
        assert difference < 1e-3 * np.linalg.norm(theirs)


def mean_loss_of_ten_steps(weights, images, masks):
    config = TrainConfig(**RECIPES["voc2012"])
    keras.utils.set_random_seed(0)
    model = build_fcn("resnet18", len(VOC_LABELS), weights=weights)
    model.compile(make_optimizer(config, model, 10), SegmentationCrossentropy(), jit_compile=False)
    losses = [float(model.train_on_batch(images, masks)) for _ in range(11)]
    return np.mean(losses[1:])  # each is the loss before its step


@pytest.mark.slow
def test_a_batch_is_learnt_faster_from_imagenets_weights_than_from_random_ones(voc, weights):
    """By the mean loss, as in the end eight crops are learnt by heart from either."""
    split = load_split("voc2012", "train", str(voc))
    pairs = [split.read(index) for index in range(len(split))]
    images, masks = (np.stack([part[64:192, 96:224] for part in parts]) for parts in zip(*pairs))
    images = images.astype("float32")
    pretrained = mean_loss_of_ten_steps(str(weights), images, masks)
    assert pretrained < 0.6 * mean_loss_of_ten_steps(None, images, masks)  # 0.13 and 0.40


@pytest.mark.slow
def test_a_pretrained_run_is_served_with_the_masks_of_predict(voc, weights, tmp_path):
    data = ["--dataset", "voc2012", "--data-dir", str(voc)]
    run, masks, models = (str(tmp_path / name) for name in ("run", "masks", "models"))
    flags = "--batch-size 8 --crop 160 160 --epochs 12 --validate-every 12".split()
    command = ["train", "--recipe", "voc2012", *data, "--weights", str(weights), "--run-dir", run]
    assert main([*command, *flags]) == 0
    assert main(["predict", "--model", run, *data, "--split", "train", "--output", masks]) == 0
    assert main(["export", "--model", run, "--output", models]) == 0
    classes = set()
    with serving(models) as server:
        for path in Path(masks).glob("*.png"):
            photograph = voc / VOC / "JPEGImages" / f"{path.stem}.jpg"
            _, answer = server.predict({"instances": [b64(photograph.read_bytes())]})
            png = base64.b64decode(answer["predictions"][0]["mask_png_bytes"]["b64"])
            served = np.asarray(Image.open(io.BytesIO(png)))
            np.testing.assert_array_equal(served, np.asarray(Image.open(path)))
            classes |= {*np.unique(served)}
    assert len(classes) > 2


@pytest.mark.slow
def test_the_chapter_is_trained_scored_and_kept(weights, tmp_path, capsys):
    copy_photographs(tmp_path / "data", chapter.CROP, train=32, val=2)
    flags = ["--data-dir", tmp_path / "data", "--weights", weights, "--out", tmp_path / "out"]
    flags += "--names FCN-32s --seeds 3 --epochs 1 --classes background".split()
    command = ["variations", *map(str, flags)]
    assert chapter.main(command) == 0
    first = capsys.readouterr().out
    [line] = [line for line in first.splitlines() if line.startswith("| FCN-32s")]
    loss, accuracy, iou, crops, *_ = map(float, line.strip("| ").split("|")[1:])
    run = RunFolder(tmp_path / "out" / "fcn-32s-s3")
    [epoch], metrics = run.read_history(), run.read_metrics()
    figures = epoch["loss"], metrics["pixel_accuracy"], metrics["per_class_iou"]["background"]
    assert (loss, accuracy, iou) == pytest.approx(figures, abs=6e-4)
    assert 0 < crops < accuracy  # void counts as background there
    assert chapter.main(command) == 0
    second = capsys.readouterr().out
    assert "already finished, kept" in second and line in second


@pytest.mark.slow
def test_the_chapters_network_starts_where_pytorchs_did(weights, tmp_path, capsys):
    """From scores of zero, so that the first loss is log 21; the peer's masks are the truth."""
    data, out = tmp_path / "data", tmp_path / "out"
    copy_photographs(data, chapter.CROP, train=32, val=2)
    chapter.write_crops(Namespace(data_dir=data, out=out))
    peer = out / "pytorch-s3"
    shutil.copytree(out / "crops" / "SegmentationClass", peer / "1")
    (peer / "0").mkdir()
    for name in (data / VOC / LISTS / "val.txt").read_text().split():
        mask = np.asarray(Image.open(data / VOC / "SegmentationClass" / f"{name}.png"))
        Image.fromarray(mask % 255).save(peer / "0" / f"{name}.png")  # 255 is no prediction
    (peer / "metrics.json").write_text('{"loss": [0.5], "seconds_per_step": [1.0]}')
    [name, *_] = (data / VOC / LISTS / "train.txt").read_text().split()
    crops = [[[(0, 0, 0), (0, 1, 2)]]]  # one epoch of one step: (photograph, top, left)
    scores = np.zeros((21, 512, 1, 1), "float32")
    np.savez(peer / "start.npz", scores=scores, names=[name], crops=crops)

    flags = ["--data-dir", data, "--weights", weights, "--out", out]
    flags += "--seeds 3 --classes background".split()
    assert chapter.main(["same-start", *map(str, flags)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| PyTorch, 3 | 0.500 | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 |" in lines
    assert any(line.startswith(f"| fcn_keras, 3 | {np.log(21):.3f} | 0.") for line in lines)
