"""`fcn-keras predict` and `evaluate` on real files, judged from outside."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES, write_folder
from support.processes import FCN_KERAS, ROOT
from support.runs import save_colour_run

from fcn_keras.cli import main
from fcn_keras.data.split import voc_palette
from fcn_keras.inference.batch import jobs_of_paths
from fcn_keras.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The smallest model, as the network is not the point."""
    return save_colour_run(tmp_path_factory.mktemp("run"), CLASSES, voc_palette(3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), train=2, val=5)


def predict(run, output, *arguments):
    return main(["predict", "--model", str(run), "--output", str(output), *map(str, arguments)])


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_masks_are_palette_pngs_of_the_segmenters_ids(run, data, tmp_path, capfd):
    assert predict(run, tmp_path, data / "JPEGImages") == 0
    assert "7 of 7 images predicted, 0 failed." in capfd.readouterr().out
    segmenter = Segmenter.load(run)
    for path in (data / "JPEGImages").iterdir():
        mask = Image.open(tmp_path / f"{path.stem}.png")
        assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]
        np.testing.assert_array_equal(np.asarray(mask), segmenter(path))


def test_extras(run, data, tmp_path):
    image = data / "JPEGImages" / "val_0.jpg"
    assert predict(run, tmp_path, image, "--overlay", "--confidence", "--probabilities") == 0
    assert files_below(tmp_path) == [
        "confidence/val_0.png",
        "overlay/val_0.png",
        "probabilities/val_0.npz",
        "val_0.png",
    ]
    saved = np.load(tmp_path / "probabilities" / "val_0.npz")
    expected = Segmenter.load(run).probabilities(image)
    assert saved["classes"].tolist() == list(CLASSES)
    np.testing.assert_allclose(saved["probabilities"], expected, atol=1e-3)
    confidence = np.asarray(Image.open(tmp_path / "confidence" / "val_0.png"))
    np.testing.assert_allclose(confidence / 255, expected.max(axis=-1), atol=1 / 255)
    assert Image.open(tmp_path / "overlay" / "val_0.png").height > 48


def test_names_are_kept_and_never_shared(data, tmp_path):
    image = Image.open(data / "JPEGImages" / "val_0.jpg")
    inputs = tmp_path / "in"
    for name in ("x.jpg", "x.png", "x_2.jpg", "sub/x.jpg", "sub/y z.jpeg", "note.txt", "out/x.png"):
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(inputs / name, "PNG")
    jobs = jobs_of_paths([str(inputs), str(inputs / "x.jpg")], inputs / "out")
    assert [job.name for job in jobs] == ["sub/x", "sub/y z", "x", "x_2", "x_2_2", "x_3"]
    jobs = jobs_of_paths([str(inputs / "*" / "x.*"), "nothing*.png"], tmp_path / "elsewhere")
    assert [job.name for job in jobs] == ["x", "x_2", "nothing*"]


def test_exif_orientation_is_honoured(run, data, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(data / "JPEGImages" / "val_0.jpg").save(tmp_path / "turned.jpg", exif=exif)
    assert predict(run, tmp_path / "out", tmp_path / "turned.jpg") == 0
    assert Image.open(tmp_path / "out" / "turned.png").size == (48, 64)  # the file is 64 wide


def test_bad_files_are_reported_and_the_rest_is_done(run, data, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        content = (data / "JPEGImages" / "val_0.jpg").read_bytes()
        (tmp_path / "in" / name).write_bytes(content[:300] if name == "b.jpg" else content)
    (tmp_path / "empty").mkdir()
    inputs = [tmp_path / name for name in ("in", "none.jpg", "empty")]
    code = predict(run, tmp_path / "out", *inputs)
    captured = capfd.readouterr()
    assert code == 1 and files_below(tmp_path / "out") == ["a.png", "c.png"]
    assert "b.jpg: not a readable image" in captured.err
    assert "none.jpg: no such file or folder" in captured.err and "Traceback" not in captured.err
    assert captured.err.count("no images outside of --output") == 1
    assert f"Note: {tmp_path}/empty: no images" in captured.err
    assert "2 of 4 images predicted, 2 failed." in captured.out


def test_skip_existing_does_what_is_missing_alone(run, data, tmp_path, capfd):
    images = data / "JPEGImages"
    assert predict(run, tmp_path, images / "val_0.jpg") == 0
    before = (tmp_path / "val_0.png").stat().st_mtime_ns
    assert predict(run, tmp_path, images, "--skip-existing") == 0
    assert "6 of 7 images predicted, 1 were there already" in capfd.readouterr().out
    assert (tmp_path / "val_0.png").stat().st_mtime_ns == before
    assert predict(run, tmp_path, images / "val_0.jpg", "--skip-existing", "--confidence") == 0
    assert (tmp_path / "confidence" / "val_0.png").is_file()


def test_skip_existing_repeats_what_has_changed(run, data, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    image = Image.open(data / "JPEGImages" / "val_0.jpg")
    image.save(tmp_path / "in" / "x.png")
    assert predict(run, tmp_path / "out", tmp_path / "in") == 0
    time.sleep(0.05)
    image.resize((20, 10)).save(tmp_path / "in" / "x.jpg")  # takes the name of x.png
    assert predict(run, tmp_path / "out", tmp_path / "in", "--skip-existing") == 0
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "out").iterdir()}
    assert sizes == {"x.png": (20, 10), "x_2.png": (64, 48)}


def test_folders_named_like_extras_keep_apart(data, tmp_path):
    (tmp_path / "overlay").mkdir()
    Image.open(data / "JPEGImages" / "val_0.jpg").save(tmp_path / "overlay" / "x.png")
    [job] = jobs_of_paths([str(tmp_path)], tmp_path / "out")
    assert job.name == "overlay_2/x"
    # A file that is named is taken, also from the output folder.
    named = str(tmp_path / "overlay" / "x.png")
    assert [job.name for job in jobs_of_paths([named], tmp_path / "overlay")] == ["x"]


def test_large_images_need_leave(run, tmp_path, capfd):
    Image.new("RGB", (60, 50), (9, 9, 9)).save(tmp_path / "big.png")
    big = tmp_path / "out", tmp_path / "big.png", "--max-pixels"
    assert predict(run, *big, "2999") == 1
    assert "big.png: more than 2,999 pixels. Make it smaller or" in capfd.readouterr().err
    assert predict(run, *big, "3000") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either images to predict, or --dataset."),
        (["a.jpg", "--dataset", "sample"], "Give either images to predict, or --dataset."),
        (["--scales", "0", "--dataset", "sample"], "scales must be positive"),
        (["--scales", "nan", "--dataset", "sample"], "scales must be positive"),
        (["a.jpg", "--limit", "3"], "--limit and --split go with --dataset"),
        (["--dataset", "sample", "--max-pixels", "9"], "--max-pixels goes with files, not with"),
        (["a.jpg", "--max-pixels", "-3"], "--max-pixels must be at least 1. Received: -3"),
        (["a.jpg", "--tile", "0"], "tile must be at least 1. Received: 0"),
        (["a.jpg", "--blend", "average", "--overlap", "9999"], "overlap must be 0 to 1407"),
    ],
)
def test_mistakes_are_named(run, tmp_path, arguments, message, capfd):
    assert predict(run, tmp_path / "out", *arguments) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_is_named(run, data, tmp_path, capfd):
    (tmp_path / "file").write_text("in the way")
    assert predict(run, tmp_path / "file", data / "JPEGImages" / "val_0.jpg") == 1
    stderr = capfd.readouterr().err
    assert "file/val_0.png: cannot be written" in stderr and "Traceback" not in stderr


def score(truth_folder, prediction_folder, names):
    """Mean IoU of written PNGs, by plain loops over the classes."""
    intersection, union = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for name in names:
        truth = np.asarray(Image.open(truth_folder / f"{name}.png"))
        prediction = np.asarray(Image.open(prediction_folder / f"{name}.png"))
        for c in range(len(CLASSES)):
            a, b = (truth == c), (prediction == c) & (truth != 255)
            intersection[c] += (a & b).sum()
            union[c] += (a | b).sum()
    return (intersection[union > 0] / union[union > 0]).mean()


def test_evaluate_agrees_with_a_scoring_of_the_written_masks(run, data, tmp_path, capfd):
    arguments = ["--dataset", str(data)]
    assert predict(run, tmp_path, *arguments) == 0
    code = main(
        ["evaluate", "--model", str(run), *arguments, "--json", str(tmp_path / "report.json")]
        + ["--confusion", str(tmp_path / "confusion.png")]
    )
    assert code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    names = [f"val_{index}" for index in range(5)]
    expected = score(data / "SegmentationClass", tmp_path, names)
    assert report["mean_iou"] == pytest.approx(expected, abs=1e-12)
    assert f"mean IoU                {expected:.4f}" in capfd.readouterr().out
    assert np.ptp(np.asarray(Image.open(tmp_path / "confusion.png").convert("L"))) > 100


def test_evaluate_by_d2ls_protocol(run, data, tmp_path):
    def measure(*flags):
        path = tmp_path / "report.json"
        command = ["evaluate", "--model", str(run), "--dataset", str(data), "--json", str(path)]
        assert main([*command, *flags]) == 0
        return json.loads(path.read_text())

    plain, void = measure(), measure("--void", "background")
    assert plain["pixel_accuracy"] != void["pixel_accuracy"]
    # The whole image as crop changes nothing; a smaller one does.
    assert measure("--crop", "48", "64") == plain
    assert measure("--crop", "32", "32") != plain
    command = ["evaluate", "--model", str(run), "--dataset", str(data), "--crop", "99", "99"]
    assert main(command) == 1


def test_evaluate_near_boundaries_agrees_with_a_scoring_of_the_band(run, data, tmp_path, capfd):
    assert predict(run, tmp_path, "--dataset", str(data)) == 0
    truths = tmp_path / "truths"
    truths.mkdir()
    names = [f"val_{index}" for index in range(5)]
    for name in names:
        mask = np.asarray(Image.open(data / "SegmentationClass" / f"{name}.png"))
        padded = np.pad(mask, 2, mode="edge")
        shifts = [padded[y : y + 48, x : x + 64] for y in range(5) for x in range(5)]
        band = np.max(shifts, axis=0) != np.min(shifts, axis=0)
        Image.fromarray(np.where(band, mask, 255).astype(np.uint8)).save(truths / f"{name}.png")
    report = tmp_path / "report.json"
    command = ["evaluate", "--model", str(run), "--dataset", str(data), "--json", str(report)]
    assert main([*command, "--boundary", "2"]) == 0
    expected = score(truths, tmp_path, names)
    assert json.loads(report.read_text())["mean_iou"] == pytest.approx(expected, abs=1e-12)
    assert main([*command, "--boundary", "0"]) == 1
    assert "--boundary must be at least 1 pixel. Received: 0." in capfd.readouterr().err


def test_evaluate_refuses_other_classes(run, tmp_path, capfd):
    other = write_folder(tmp_path)
    (other / "classes.txt").write_text("ground\nbox\nball\n")
    assert main(["evaluate", "--model", str(run), "--dataset", str(other)]) == 1
    assert "They must be the same." in capfd.readouterr().err


def test_killed_prediction_goes_on_and_no_file_is_half_written(run, data, tmp_path):
    inputs, output = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    for index in range(300):
        Image.fromarray(np.roll(pixels, index, axis=1)).save(inputs / f"{index:03}.jpg")
    command = [*FCN_KERAS, "predict", "--model", run, "--output", output, "--skip-existing", inputs]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and len(list(output.glob("[0-9]*.png"))) < 60:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = list(output.glob("[0-9]*.png"))
    assert 60 <= len(done) < 300
    for path in done:
        assert np.asarray(Image.open(path)).shape == (240, 320)
    assert predict(run, output, "--skip-existing", inputs) == 0
    assert len(list(output.glob("[0-9]*.png"))) == 300
    assert not list(output.glob(".partial-*"))
