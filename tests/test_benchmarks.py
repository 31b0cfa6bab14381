"""The benchmarks on a few small pictures."""

import argparse
import json
import sys

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES
from support.processes import ROOT

from fcn_keras.data import load_split
from fcn_keras.errors import UserError

sys.path.insert(0, str(ROOT / "benchmarks"))
import d2l_exercises
import kept_runs
import learning_curves


@pytest.fixture(scope="module")
def exercise(shapes, tmp_path_factory):
    """Runs an exercise with as few steps as possible; returns its exit code."""
    out = tmp_path_factory.mktemp("d2l")

    def run(name, *flags):
        quick = "--recipe sample --batch-size 6 --crop 32 32".split()
        where = ["--dataset", str(shapes), "--out", str(out / name)]
        return d2l_exercises.main([name, *where, *quick, *flags])

    run.out = out
    return run


def numbers(output, start):
    """The figures in the table's line that starts so."""
    [line] = [line for line in output.splitlines() if line.startswith(start)]
    return [float(cell.split("±")[0]) for cell in line.strip("| ").split("|")[1:]]


@pytest.mark.slow
def test_upsampling_compares_two_initialisations_and_keeps_what_is_finished(exercise, capsys):
    assert exercise("upsampling", "--epochs", "2", "--seeds", "0") == 0
    first = capsys.readouterr().out
    bilinear, xavier = (numbers(first, f"| {name}, 0") for name in ("bilinear", "Xavier"))
    assert bilinear != xavier
    assert bilinear[0] == bilinear[1]  # of two epochs the first is at 25 and at 50 %

    assert exercise("upsampling", "--epochs", "2", "--seeds", "0") == 0
    second = capsys.readouterr().out
    assert second.count("already finished, kept") == 2
    assert second.endswith(first[first.index("| initialisation") :])

    assert exercise("upsampling", "--epochs", "3", "--seeds", "0") == 1
    assert "trained with epochs 2, not 3. Choose another --out" in capsys.readouterr().err


def test_each_choice_of_photographs_is_part_of_the_next(shapes, tmp_path):
    folders = [learning_curves.subset(shapes, tmp_path / str(n), n) for n in (2, 4, 6)]
    few, more, all_of_them = (set(load_split(str(folder), "train").ids) for folder in folders)
    assert few < more < all_of_them == set(load_split(str(shapes), "train").ids)
    for folder in folders:
        assert load_split(str(folder), "val").ids == load_split(str(shapes), "val").ids
    with pytest.raises(UserError, match="has 6 training photographs, not 7"):
        learning_curves.subset(shapes, tmp_path / "7", 7)


@pytest.mark.slow
def test_learning_curves_are_measured_once_and_drawn(shapes, tmp_path, capsys):
    flags = ["--dataset", str(shapes), "--out", str(tmp_path / "runs"), "--weights", "none"]
    flags += "--counts 2 4 --epochs 1 --crop 32 32 --batch-size 2".split()
    assert learning_curves.main([*flags, "--figure", str(tmp_path / "curves.png")]) == 0
    first = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in first.splitlines()[-4:]]
    assert [tuple(cells[:2]) for cells in lines] == [
        (count, start) for count in "24" for start in ("random", "ImageNet")
    ]
    for count, start, mean_iou, *_ in lines:
        metrics = json.loads((tmp_path / "runs" / f"{start}-{count}/metrics.json").read_text())
        assert float(mean_iou) == pytest.approx(metrics["mean_iou"], abs=5e-4)
    assert np.ptp(np.asarray(Image.open(tmp_path / "curves.png").convert("L"))) > 100

    assert learning_curves.main(flags) == 0
    second = capsys.readouterr().out
    assert second.count("already finished, kept") == 4
    assert second.endswith(first[first.rindex("| photographs") :])


def test_mean_and_spread():
    # (1 + 2 + 6) / 3 and (6 - 1) / 2
    assert kept_runs.mean_and_spread((1.0, 6.0, 2.0)) == "3.000 ± 2.500"
    assert kept_runs.mean_and_spread((1.5,)) == "1.500"


@pytest.mark.slow
def test_skips_are_trained_at_once_and_in_stages(exercise, capsys):
    assert exercise("skips", "--epochs", "6") == 0
    first = capsys.readouterr().out
    lines = [line for line in first.splitlines() if line.startswith("| FCN")]
    assert [line.split("|")[1].strip() for line in lines] == [
        *("FCN-32s at once", "FCN-16s at once", "FCN-8s at once"),
        *("FCN-16s after FCN-32s", "FCN-8s after FCN-16s"),
    ]
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["6", "3 + 3", "2 + 2 + 2"]
    assert exercise("skips", "--epochs", "6") == 0
    second = capsys.readouterr().out
    assert second.count("already finished, kept") == 8
    assert second.endswith(first[first.index("| network") :])
    assert exercise("skips", "--epochs", "4") == 1
    assert "--epochs must be a multiple of 6" in capsys.readouterr().err


def test_test_images_are_all_predicted_once(exercise, untrained_run, capsys):
    assert exercise("test-images", "--model", str(untrained_run), "--split", "train") == 0
    output = capsys.readouterr().out
    assert "6 images predicted, 0 kept" in output
    assert all(name in output for name in ("mean accuracy", *CLASSES))
    ious = [
        numbers(output, f"| worst: train_{i}") for i in range(6) if f"worst: train_{i}" in output
    ]
    assert len(ious) == 4
    out = exercise.out / "test-images"
    assert {path.name for path in out.glob("*.png")} == {"worst.png", "best.png"}
    assert len(list((out / "predictions").glob("*.png"))) == 6

    assert exercise("test-images", "--model", str(untrained_run), "--split", "train") == 0
    assert "0 images predicted, 6 kept" in capsys.readouterr().out


def torch_weights(ours, theirs):
    """Copies the weights of our FCN-8s into PyTorch's, matched by name."""
    backbone = ours.get_layer("backbone")
    pairs = {"conv1": (theirs.conv1, theirs.bn1)}
    for stage, blocks in enumerate(theirs.stages):
        for number, block in enumerate(blocks):
            name = f"stack{stage}_block{number}"
            pairs[f"{name}_1"] = block.conv1, block.bn1
            pairs[f"{name}_2"] = block.conv2, block.bn2
            if hasattr(block, "conv3"):
                pairs[f"{name}_3"] = block.conv3, block.bn3
            if list(block.downsample.children()):
                pairs[f"{name}_0"] = tuple(block.downsample)
    for name, (conv, norm) in pairs.items():
        copy_conv(backbone.get_layer(f"{name}_conv"), conv)
        values = backbone.get_layer(f"{name}_bn").get_weights()
        for target, value in zip(
            (norm.weight, norm.bias, norm.running_mean, norm.running_var), values
        ):
            target.data[:] = target.new_tensor(value)
    for name, layer in [*theirs.scores.items(), *theirs.upscores.items()]:
        copy_conv(ours.get_layer(name), layer)


def copy_conv(ours, theirs):
    kernel, *bias = ours.get_weights()
    theirs.weight.data[:] = theirs.weight.new_tensor(kernel.transpose(3, 2, 0, 1))
    for value in bias:
        theirs.bias.data[:] = theirs.bias.new_tensor(value)


@pytest.mark.parametrize(("stride", "depth"), [(8, 18), (32, 18), (32, 50)])
def test_torch_network_is_ours(stride, depth):
    torch = pytest.importorskip("torch")
    from torch_network import FCN8s, FCN32s, parameter_groups

    from fcn_keras.models.fcn import build_fcn
    from fcn_keras.runs.config import TrainConfig
    from fcn_keras.training.optimizers import make_optimizer

    ours = build_fcn(f"resnet{depth}", 5, stride, weights=None)
    theirs = {8: FCN8s, 32: FCN32s}[stride](5, depth).eval()
    statistics = [b for name, b in theirs.named_buffers() if "running" in name]
    count = sum(tensor.numel() for tensor in [*theirs.parameters(), *statistics])
    assert count == ours.count_params()
    # The initial values of both: the same interpolation kernels, otherwise the same spread.
    for name, layer in theirs.upscores.items():
        kernel = ours.get_layer(name).get_weights()[0].transpose(3, 2, 0, 1)
        np.testing.assert_allclose(layer.weight.detach(), kernel, atol=1e-7)
    kernel = ours.get_layer("backbone").get_layer("stack3_block0_1_conv").get_weights()[0]
    assert theirs.stages[3][0].conv1.weight.std().item() == pytest.approx(kernel.std(), rel=0.01)

    optimizer = make_optimizer(TrainConfig(optimizer="adamw", weight_decay=1e-4), ours, 10)
    decayed = sum(optimizer._use_weight_decay(v) for v in ours.trainable_variables)
    assert len(parameter_groups(theirs, 1e-4)[0]["params"]) == decayed

    rng = np.random.default_rng(0)
    for variable in ours.variables:  # statistics as after training, not 0 and 1
        if len(variable.shape) == 1:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    torch_weights(ours, theirs)
    image = rng.uniform(0, 255, (2, 97, 133, 3)).astype("float32")
    with torch.no_grad():
        logits = theirs(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert logits.shape == (2, 97, 133, 5) and logits.std() > 0.1
    np.testing.assert_allclose(ours(image), logits, rtol=1e-4, atol=1e-3 * logits.std())


def test_torch_augmentation_moves_image_and_mask_together():
    torch = pytest.importorskip("torch")
    from torch_training import augment

    # The image's colour is its mask's class; a tall one, that a crop pads to the right.
    mask = torch.arange(40)[:, None].repeat(1, 8) // 20
    image = 200.0 * mask.repeat(3, 1, 1)
    settings = argparse.Namespace(crop=(16, 24), scale=(1, 2), brightness=0, contrast=0)
    for seed in range(5):
        new_image, new_mask = augment(image, mask, settings, np.random.default_rng(seed))
        assert new_image.shape == (3, 16, 24) and new_mask.shape == (16, 24)
        known = new_mask != 255
        assert known.any() and not known.all()
        error = (new_image[0] - 200 * new_mask)[known].abs()
        assert (error <= 100).all()  # interpolation blurs the boundary, the mask's is sharp


def test_torch_measures():
    pytest.importorskip("torch")
    from torch_training import measures

    # Class 0: 3 of 3 + 1 + 0 pixels; class 1: 4 of 4 + 0 + 1; class 2 does not occur.
    figures = measures(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert figures["mean_iou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert figures["pixel_accuracy"] == pytest.approx(7 / 8)
    assert figures["class_iou"][2] is None


@pytest.mark.slow
def test_torch_and_ours_are_trained_by_one_command(shapes, tmp_path, capsys):
    pytest.importorskip("torch")
    import torch_fcn

    flags = ["--dataset", str(shapes), "--out", str(tmp_path), "--epochs", "1"]
    flags += "--batch-size 6 --crop 32 32".split()
    assert torch_fcn.main(flags) == 0
    first = capsys.readouterr().out
    ours, theirs, difference = (
        numbers(first, start) for start in ("| ours", "| PyTorch", "| difference")
    )
    np.testing.assert_allclose(np.subtract(ours, theirs), difference, atol=0.0011)
    assert torch_fcn.main(flags) == 0
    second = capsys.readouterr().out
    assert second.count("already finished, kept") == 2
    assert second.endswith(first[first.index("1 steps of batch 6") :])
    with pytest.raises(SystemExit, match="Choose another folder"):
        torch_fcn.main([*flags, "--learning-rate", "0.1"])


@pytest.mark.slow
def test_torch_steps_are_ours():
    torch = pytest.importorskip("torch")
    from torch_network import FCN8s, parameter_groups
    from torch_training import descend

    from fcn_keras.models.fcn import build_fcn
    from fcn_keras.runs.config import TrainConfig
    from fcn_keras.training.objectives import SegmentationCrossentropy
    from fcn_keras.training.optimizers import make_optimizer

    # Adam's first steps are the gradients' signs: at larger rates float error grows fast.
    steps, rate = 6, 5e-5
    config = TrainConfig(optimizer="adamw", learning_rate=rate, weight_decay=1e-4, schedule="poly")
    ours, theirs = build_fcn("resnet18", 3, 8, weights=None), FCN8s(3)
    torch_weights(ours, theirs)
    ours.compile(make_optimizer(config, ours, steps), SegmentationCrossentropy())
    optimizer = torch.optim.AdamW(parameter_groups(theirs, 1e-4), lr=rate, eps=1e-7)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: (1 - s / steps) ** 0.9)
    rng, losses = np.random.default_rng(0), []
    for _ in range(steps):
        mask = rng.integers(0, 3, (4, 4, 4)).repeat(24, axis=1).repeat(24, axis=2)
        image = (80 * mask[..., None] + rng.uniform(0, 60, (4, 96, 96, 3))).astype("float32")
        mask[:, :10] = 255
        optimizer.zero_grad()
        pair = (
            float(ours.train_on_batch(image, mask.astype("uint8"))),
            descend(
                theirs, torch.from_numpy(image).permute(0, 3, 1, 2), torch.from_numpy(mask), "cpu"
            ),
        )
        optimizer.step()
        schedule.step()
        ours.reset_metrics()
        losses.append(pair)
    assert losses[-1][0] < losses[0][0]
    np.testing.assert_allclose(*np.transpose(losses), rtol=0.002)
    norm = ours.get_layer("backbone").get_layer("conv1_bn")
    np.testing.assert_allclose(norm.moving_variance, theirs.bn1.running_var, rtol=0.002)
