"""`fcn-keras predict` and `evaluate` on real files, checked from outside."""

import json
import os
import shutil
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
from fcn_keras.files.results import LIST, Results
from fcn_keras.inference.batch import jobs_of_paths
from fcn_keras.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The smallest model, as these tests are not about the model."""
    return save_colour_run(tmp_path_factory.mktemp("run"), CLASSES, voc_palette(3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), train=2, val=5)


def predict(run, output, *arguments):
    return main(["predict", "--model", str(run), "--output", str(output), *map(str, arguments)])


def files_below(folder):
    """Files except hidden ones, such as the list of results."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*.*"))


def test_masks_are_palette_pngs_of_the_segmenters_ids(run, data, tmp_path, capfd):
    assert predict(run, tmp_path, data / "JPEGImages") == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert last == f"7 of 7 images predicted, 0 failed. Results: {tmp_path}/"
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
        "confidence_scale/val_0.png",
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
    scaled = Image.open(tmp_path / "confidence_scale" / "val_0.png")
    assert scaled.mode == "RGB" and scaled.height > 48
    segmenter, drawn = Segmenter.load(run), Image.open(tmp_path / "overlay" / "val_0.png")
    assert drawn.height == 48 or drawn.width == 128  # there is a legend if a class is painted
    left = (drawn.width - 64) // 2
    picture = drawn.crop((left, 0, left + 64, 48))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(segmenter.overlay(image)))


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
    assert captured.err.count("no images found (those in --output do not count)") == 1
    assert f"Note: {tmp_path}/empty: no images" in captured.err
    assert "2 of 4 images predicted, 2 failed." in captured.out


def test_skip_existing_does_what_is_missing_alone(run, data, tmp_path, capfd):
    images = data / "JPEGImages"
    assert predict(run, tmp_path, images / "val_0.jpg") == 0
    before = (tmp_path / "val_0.png").stat().st_mtime_ns
    assert predict(run, tmp_path, images, "--skip-existing") == 0
    assert "6 of 7 images predicted, 1 already existed" in capfd.readouterr().out
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
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "out").glob("*.png")}
    assert sizes == {"x.png": (20, 10), "x_2.png": (64, 48)}


def test_folders_named_like_extras_keep_apart(data, tmp_path):
    (tmp_path / "overlay").mkdir()
    Image.open(data / "JPEGImages" / "val_0.jpg").save(tmp_path / "overlay" / "x.png")
    [job] = jobs_of_paths([str(tmp_path)], tmp_path / "out")
    assert job.name == "overlay_2/x"
    # A file that is named is predicted, even in the output folder.
    named = str(tmp_path / "overlay" / "x.png")
    assert [job.name for job in jobs_of_paths([named], tmp_path / "overlay")] == ["x"]


def test_large_images_need_leave(run, tmp_path, capfd):
    Image.new("RGB", (60, 50), (9, 9, 9)).save(tmp_path / "big.png")
    big = tmp_path / "out", tmp_path / "big.png", "--max-pixels"
    assert predict(run, *big, "2999") == 1
    assert "big.png: more than 2,999 pixels. Make it smaller" in capfd.readouterr().err
    assert predict(run, *big, "3000") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either images to predict, or --dataset."),
        (["a.jpg", "--dataset", "sample"], "Give either images to predict, or --dataset."),
        (["--scales", "0", "--dataset", "sample"], "scales must be positive"),
        (["--scales", "nan", "--dataset", "sample"], "scales must be positive"),
        (["a.jpg", "--limit", "3"], "--limit and --split require --dataset"),
        (["--dataset", "sample", "--max-pixels", "9"], "--max-pixels applies to files, not to"),
        (["a.jpg", "--max-pixels", "-3"], "--max-pixels must be at least 1. Received: -3"),
        (["a.jpg", "--tile", "0"], "tile must be at least 1. Received: 0"),
        (["a.jpg", "--blend", "average", "--overlap", "9999"], "overlap must be 0 to 1407"),
    ],
)
def test_mistakes_are_named(run, tmp_path, arguments, message, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (6, 5)).save("a.jpg")
    assert predict(run, tmp_path / "out", *arguments) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_is_named(run, data, tmp_path, capfd):
    (tmp_path / "file").write_text("in the way")
    assert predict(run, tmp_path / "file", data / "JPEGImages" / "val_0.jpg") == 1
    stderr = capfd.readouterr().err
    assert "file: cannot be written (Not a directory)" in stderr and "Traceback" not in stderr


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
    # A crop of the whole image changes nothing; a smaller one does.
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


def test_killed_prediction_goes_on_and_no_file_is_half_written(run, tmp_path):
    inputs, output = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    for index in range(300):
        Image.fromarray(np.roll(pixels, index, axis=1)).save(inputs / f"{index:03}.jpg")
    command = [*FCN_KERAS, "predict", "--model", run, "--output", output, inputs]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and len(list(output.glob("[0-9]*.png"))) < 60:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = list(output.glob("[0-9]*.png"))
    assert 60 <= len(done) < 300
    for path in done:
        assert np.asarray(Image.open(path)).shape == (240, 320)
    for flags in (["--skip-existing"], []):
        left = shutil.copytree(output, tmp_path / f"left_{len(flags)}")
        assert predict(run, left, *flags, inputs) == 0
        assert len(list(left.glob("[0-9]*.png"))) == 300
        assert not list(left.glob(".partial-*"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def folder_of_photographs(folder, *names):
    folder.mkdir()
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        image = Image.new("RGB", (24, 16), (200, 30 * index, 0))
        image.save(folder / name)
    return folder


def named(folder):  # the photograph itself
    return [folder / "a.png", "--output", folder]


def by_pattern(folder):
    return [f"{folder}/*.png", "--output", f"{folder}/../{folder.name}/."]


def through_a_linked_folder(folder):
    (folder.parent / "link").symlink_to(folder)
    return [folder / "a.png", "--output", folder.parent / "link"]


def through_a_link(folder):
    (folder.parent / "link.png").symlink_to(folder / "a.png")
    return [folder.parent / "link.png", "--output", folder.parent]


def through_a_hard_link(folder):
    (folder.parent / "a.png").hardlink_to(folder / "a.png")
    return [folder.parent / "a.png", "--output", folder]


def another_image(folder):  # a.jpg's result is a.png, which is also predicted
    return [folder / "a.jpg", folder / "c" / "b.png", "--output", folder]


def an_extra(folder):
    (folder / "overlay").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "overlay" / "z.png")
    return [folder / "overlay" / "z.png", "--output", folder, "--overlay"]


def a_second_of_the_name(folder):  # x of one folder, x_2 of the other
    Image.new("RGB", (9, 9)).save(folder / "a_2.png")
    (folder / "a.png").unlink()
    return [folder / "a.jpg", folder / "c" / "a.bmp", "--output", folder]


def a_link_to_nowhere(folder):
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / "a.png").symlink_to("nowhere")
    return [folder / "a.jpg", "--output", folder.parent / "out"]


@pytest.mark.parametrize(
    "arguments",
    [
        named,
        a_link_to_nowhere,
        by_pattern,
        through_a_linked_folder,
        through_a_link,
        through_a_hard_link,
        another_image,
        an_extra,
        a_second_of_the_name,
    ],
)
def test_results_that_would_replace_a_users_file_are_refused(run, tmp_path, arguments, capfd):
    folder = folder_of_photographs(tmp_path / "in", "a.jpg", "a.png", "b.png", "c/b.png", "c/a.bmp")
    words = arguments(folder)
    before = contents(tmp_path)
    assert main(["predict", "--model", str(run), *map(str, words)]) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert ": the result would replace " in line and "--overwrite" in line
    assert contents(tmp_path) == before
    assert main(["predict", "--model", str(run), *map(str, words), "--overwrite"]) == 0
    assert contents(tmp_path) != before


def test_all_true_masks_of_a_data_set_are_kept(run, tmp_path, capfd):
    data = write_folder(tmp_path / "data", train=2, val=5)
    before = contents(data)
    for inputs in ([data / "JPEGImages"], ["--dataset", data]):
        assert predict(run, data / "SegmentationClass", *inputs) == 1
        line = capfd.readouterr().err
        assert f"_0.png: the result would replace a file that is not listed in {LIST}" in line
        assert f", and {7 - 1 if len(inputs) == 1 else 5 - 1} more files. " in line
        assert contents(data) == before
    masks = data / "SegmentationClass"
    os.remove(masks / "val_0.png")  # this one is no loss
    assert predict(run, masks, data / "JPEGImages" / "val_0.jpg") == 0
    assert {**contents(data), **before} == {**before, masks / LIST: b'"val_0.png"\n'}


def test_own_results_are_replaced_and_foreign_ones_among_them_are_not(run, tmp_path, capfd):
    photos, output = folder_of_photographs(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    for flags in (["--confidence"], [], ["--probabilities"]):
        assert predict(run, output, photos, *flags) == 0
    own = contents(output)
    (output / "overlay").mkdir()
    (output / "overlay" / "b.png").write_text("mine")
    capfd.readouterr()
    assert predict(run, output, photos, "--overlay") == 1
    assert f"error: {output}/overlay/b.png: the result would " in capfd.readouterr().err
    assert {**contents(output), **own} == contents(output) and len(contents(output)) == len(own) + 1
    assert predict(run, output, photos) == 0
    # A mask that is an image to predict is not replaced, even if predict has written it.
    assert predict(run, output, output / "a.png") == 1
    assert "out/a.png: the result would replace an image to predict." in capfd.readouterr().err


def test_results_that_are_skipped_are_not_replaced(run, tmp_path, capfd):
    photos = folder_of_photographs(tmp_path / "in", "a.png", "b.png")
    output = folder_of_photographs(tmp_path / "out", "a.png")
    mine = (output / "a.png").read_bytes()
    assert predict(run, output, photos, "--skip-existing") == 0
    assert "1 of 2 images predicted, 1 already existed" in capfd.readouterr().out
    os.utime(output / "a.png", (1, 1))  # older than its image, so it would be made again
    assert predict(run, output, photos, "--skip-existing") == 1
    assert (output / "a.png").read_bytes() == mine


def test_a_result_that_was_never_written_is_not_owned(run, tmp_path, capfd):
    photos, output = folder_of_photographs(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    (photos / "b.png").write_text("no image")
    assert predict(run, output, photos) == 1
    (output / "b.png").write_text("mine")
    shutil.copy(photos / "a.png", photos / "b.png")
    assert predict(run, output, photos) == 1
    assert f"{output}/b.png: the result would replace a file" in capfd.readouterr().err
    assert (output / "b.png").read_text() == "mine"


def test_two_calls_at_once_both_own_their_results(tmp_path):
    first, second = Results(tmp_path), Results(tmp_path)
    first._listed(), second._listed()  # each reads the list before the other one writes
    for number in range(500):
        first.claim([f"a{number}"])
        second.claim([f"b{number}"])
    owned = Results(tmp_path)._listed()
    assert owned == {f"{letter}{number}.png" for letter in "ab" for number in range(500)}


def test_a_damaged_list_lets_nothing_be_replaced(run, tmp_path, capfd):
    photos, output = folder_of_photographs(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    assert predict(run, output, photos) == 0
    whole = (output / LIST).read_text()
    for damaged in (b"\xff\x00\x80" * 99, b"", b'"a.pn', b'a.png\nb.png\n["a.png", "b.png"]\n'):
        (output / LIST).write_bytes(damaged)
        before = contents(output)
        assert predict(run, output, photos) == 1
        assert f"{output}/a.png: the result would replace" in capfd.readouterr().err
        assert contents(output) == before
    (output / LIST).write_text(f"what is this\n../in/a.png\n\n{whole}null\n")
    assert predict(run, output, photos) == 0


def test_a_name_with_a_line_break_makes_no_other_file_replaceable(run, tmp_path):
    photos = folder_of_photographs(tmp_path / "in", '"a.png"\n"b.png"\n.png', "\udcff.png")
    output = folder_of_photographs(tmp_path / "out", "b.png")
    for _ in range(2):
        assert predict(run, output, photos) == 0
    (photos / "b.png").write_bytes((output / "b.png").read_bytes())
    assert predict(run, output, photos) == 1


def test_the_list_is_no_image(run, tmp_path, capfd):
    photos, output = folder_of_photographs(tmp_path / "in", "a.png"), tmp_path / "out"
    assert predict(run, output, photos) == 0
    assert predict(run, tmp_path / "again", output, f"{output}/*") == 0
    assert files_below(tmp_path / "again") == ["a.png", "a_2.png"]


@pytest.mark.parametrize("flag", ["--json", "--confusion"])
@pytest.mark.parametrize("kind", ["a photograph", "text", "JSON", "a folder"])
def test_evaluate_replaces_nothing_but_its_own(run, data, tmp_path, flag, kind, capfd):
    path = tmp_path / "file"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a photograph":
        Image.new("RGB", (9, 9)).save(path, "PNG")
    else:
        path.write_text('{"labels": []}' if kind == "JSON" else "mine")
    before = contents(tmp_path)
    command = ["evaluate", "--model", str(run), "--dataset", str(data), flag]
    assert main([*command, str(path)]) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {flag} {path}: ") and contents(tmp_path) == before
    for _ in range(2):
        assert main([*command, str(tmp_path / "own")]) == 0


def test_evaluate_keeps_a_runs_own_measures(run, data, tmp_path, capfd):
    command = ["evaluate", "--model", str(run), "--dataset", str(data)]
    same = str(tmp_path / "file")
    for flags, message in (
        (["--json", str(tmp_path / "metrics.json")], "metrics.json belongs to a run"),
        (["--json", same, "--confusion", same], "--json and --confusion name the same file"),
    ):
        assert main([*command, *flags]) == 1
        assert message in capfd.readouterr().err and not list(tmp_path.iterdir())
