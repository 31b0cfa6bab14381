"""What TensorBoard reads from a run's `logs/`."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.processes import start, until_epoch
from support.runs import QUICK, history_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from fcn_keras.data import load_split
from fcn_keras.data.split import voc_palette
from fcn_keras.inference.segmenter import Segmenter

GROUP = "photo | prediction | truth/"


def read(run_dir, part):
    accumulator = EventAccumulator(str(Path(run_dir) / "logs" / part), {"tensors": 0})
    return accumulator.Reload()


def scalars(accumulator, tag):
    events = accumulator.Tensors(tag)
    return {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in events}


def pictures(accumulator, tag):
    """Pixels by epoch: TensorBoard stores width, height and a PNG."""
    found = {}
    for event in accumulator.Tensors(tag):
        width, height, png = tensor_util.make_ndarray(event.tensor_proto)
        found[event.step] = np.asarray(Image.open(io.BytesIO(png)))
        assert found[event.step].shape == (int(height), int(width), 3)
    return found


def image_tags(accumulator):
    return [tag for tag in accumulator.Tags()["tensors"] if tag.startswith(GROUP)]


def test_curves_and_learning_rate_are_those_of_the_history(resumed_run):
    rows, parts = history_of(resumed_run), {"": "train", "val_": "validation"}
    logs = {part: read(resumed_run, part) for part in parts.values()}
    for prefix, part in parts.items():
        for name in ("loss", "mean_iou", "pixel_accuracy"):
            values = {int(row["epoch"]): float(row[prefix + name]) for row in rows}
            expected = {epoch: value for epoch, value in values.items() if value == value}
            assert scalars(logs[part], f"epoch_{name}") == pytest.approx(expected, rel=1e-5)
            assert list(expected) == ([1, 2, 3, 4] if part == "train" else [2, 4])
    rates = {int(row["epoch"]): float(row["learning_rate"]) for row in rows}
    assert scalars(logs["train"], "epoch_learning_rate") == pytest.approx(rates, rel=1e-5)
    assert len(set(rates.values())) > 2


def test_images_show_photo_prediction_and_truth(resumed_run, shapes):
    logs, split = read(resumed_run, "validation"), load_split(str(shapes), "val")
    # At most four of five, evenly spread: every second.
    assert image_tags(logs) == [GROUP + name for name in ("val_0", "val_2", "val_4")]
    segment = Segmenter.load(resumed_run / "last.keras")
    colors = np.full((256, 3), (224, 224, 192), np.uint8)
    colors[:3] = voc_palette(3)
    for index in (0, 2, 4):
        image, truth = split.read(index)
        drawn = pictures(logs, f"{GROUP}val_{index}")
        assert list(drawn) == [2, 4]
        photo, prediction, shown_truth = (drawn[4][:, x : x + 64] for x in (0, 68, 136))
        np.testing.assert_array_equal(photo, image)
        np.testing.assert_array_equal(prediction, colors[segment(image)])
        np.testing.assert_array_equal(shown_truth, colors[truth])
        np.testing.assert_array_equal(drawn[2][:, 136:], drawn[4][:, 136:])


@pytest.mark.slow
def test_a_killed_run_on_two_devices_has_logged_its_finished_epochs(shapes, tmp_path):
    flags = ["--epochs", "50", "--devices", "2", "--run-dir", str(tmp_path)]
    process = start("train.py", "--dataset", shapes, *QUICK, *flags)
    output = until_epoch(process, 3)
    process.kill()
    process.wait()
    logs = {part: read(tmp_path, part) for part in ("train", "validation")}
    for log in logs.values():
        assert list(scalars(log, "epoch_loss"))[:2] == [1, 2], output
    drawn = pictures(logs["validation"], f"{GROUP}val_0")
    assert list(drawn)[:2] == [1, 2]
    image, _ = load_split(str(shapes), "val").read(0)
    assert drawn[2].shape == (48, 3 * 64 + 8, 3)
    np.testing.assert_array_equal(drawn[2][:, :64], image)
