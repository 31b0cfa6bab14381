"""`fcn-keras report`: the page of a real run, read by an HTML parser."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES
from support.report_page import Page, picture

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.split import LabelSet
from fcn_keras.evaluation.report.contents import Example, read_run
from fcn_keras.evaluation.report.curves import HEIGHT, charts
from fcn_keras.evaluation.report.page import _thinned
from fcn_keras.evaluation.report.thumbnails import BUDGET, picture_rows
from fcn_keras.evaluation.scores import Scores, confusion_matrix
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.runs.folder import RunFolder

NASTY = ("<b>ground</b>", 'box" onload="alert(1)', "<script>alert('bar & co')</script>")


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the run without the model to resume from."""
    names = shutil.ignore_patterns("last.keras", "logs")
    return RunFolder(shutil.copytree(finished_run, tmp_path / "run", ignore=names))


@pytest.fixture(scope="module")
def page(finished_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("pages") / "new folder" / "page.html"
    assert main(["report", str(finished_run), "--output", str(output), "--images", "2"]) == 0
    assert output.stat().st_size < 3_000_000 and len(list(output.parent.iterdir())) == 1
    return Page(output)


def test_the_page_replaces_pages_alone(run, page, tmp_path, capfd):
    path = run.path / "report.html"
    for content in (b"<!DOCTYPE html>mine", b"time,load\n"):
        path.write_bytes(content)
        assert main(["report", str(run.path)]) == 1
        assert (
            f"error: --output {path}: exists, but was not written by this command"
            in capfd.readouterr().err
        )
        assert path.read_bytes() == content
    path.unlink()
    for _ in range(2):
        assert main(["report", str(run.path), "--images", "0"]) == 0


def change_config(run, change):
    content = json.loads(run.config.read_text())
    change(content)
    run.config.write_text(json.dumps(content))


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert page.loaded and all(link.startswith(("data:image/", "#")) for link in page.loaded)
    assert not {"script", "link", "iframe", "object"} & set(page.tags) and not page.inline_code
    assert "url(" not in page.texts["style"] and "@import" not in page.texts["style"]


def test_figures_are_those_of_metrics_json_and_of_the_history(page, finished_run):
    metrics = RunFolder(finished_run).read_metrics()
    for name, iou in metrics.pop("per_class_iou").items():
        assert page.row(name)[1] == f"{iou:.3f}"
    for value in metrics.values():
        assert f"{value:.3f}" in page.texts["dd"]
    assert page.texts["dt"].startswith("mean IoU")
    last = RunFolder(finished_run).read_history()[-1]
    row = page.row("2")
    assert row[1] == f"{last['loss']:.4g}" and f"{last['val_mean_iou']:.4g}" in row


def test_confusion_and_shares_add_up(page, finished_run, shapes):
    segment, split = Segmenter.load(finished_run), load_split(str(shapes), "val")
    total = sum(confusion_matrix(m, segment(i), 3) for i, m in map(split.read, range(len(split))))
    shares = total / total.sum(axis=1, keepdims=True)
    matrix = [row for row in page.rows if row[0] in CLASSES][3:]
    assert [row[0] for row in matrix] == list(CLASSES)
    for row, expected in zip(matrix, shares):
        assert row[1:] == [f"{100 * s:.0f}" if s >= 0.005 else "" for s in expected]
    for index, name in enumerate(CLASSES):
        assert page.row(name)[2] == f"{shares[index, index]:.3f}"
        assert page.row(name)[3] == f"{100 * total[index].sum() / total.sum():.1f} %"


def test_worst_and_best_images_are_those_and_show_the_models_masks(page, finished_run, shapes):
    segment, split = Segmenter.load(finished_run), load_split(str(shapes), "val")
    masks = {name: segment(split.read(i)[0]) for i, name in enumerate(split.ids)}
    ious = {}
    for index, name in enumerate(split.ids):
        truth = split.read(index)[1]
        ious[name] = Scores(split.labels, confusion_matrix(truth, masks[name], 3)).mean_iou
    ranked = sorted(ious, key=ious.get)
    assert len(set(ious.values())) == 5
    expected = [ranked[0], ranked[1], ranked[-1], ranked[-2]]
    assert [image["alt"] for image in page.images[::3]] == [f"Photograph {n}" for n in expected]
    for name, iou in ((name, ious[name]) for name in expected):
        assert name in page.texts["strong"] and f"mean IoU {iou:.3f}" in page.texts["figcaption"]
    worst = split.ids.index(ranked[0])
    photo, prediction, truth = (picture(image) for image in page.images[:3])
    colors = split.labels.colors()
    np.testing.assert_array_equal(prediction, colors[masks[ranked[0]]])
    np.testing.assert_array_equal(truth, colors[split.read(worst)[1]])
    assert np.abs(photo.astype(int) - split.read(worst)[0]).mean() < 20  # JPEG of noise


def test_settings_and_command_are_those_of_the_run(page, shapes, finished_run):
    command = f"fcn-keras train --recipe strong --dataset {shapes.name}"
    assert command in page.texts["code"] and "--crop 48 64" in page.texts["code"]
    written = json.loads((finished_run / "config.json").read_text())
    commit = written["git_commit"]  # None if the tests run outside git
    assert ("git checkout" in page.texts["code"]) == bool(commit)
    assert (commit or "") in page.texts["code"]
    assert f"keras {written['versions']['keras']}" in page.text()
    assert "6 images for training, 5 for validation" in page.text()


def test_it_can_be_read_without_seeing_it(page):
    assert page.tags.count("h1") == 1 and page.tags.count("h2") == 7
    assert page.tags.count("caption") == page.tags.count("table") == 3
    assert len(page.images) == 12
    assert all(image["alt"] for image in page.images)
    assert "Prediction for val_" in page.images[1]["alt"] and "%" in page.images[1]["alt"]


def test_nothing_of_the_user_becomes_markup(run, shapes, tmp_path):
    data = tmp_path / "<i>data & 'more'"
    shutil.copytree(shapes, data)
    (data / "classes.txt").write_text("\n".join(NASTY) + "\n")
    ids = [f"<img src=x onerror=alert({i})>" for i in range(5)]
    (data / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids) + "\n")
    for index, name in enumerate(ids):
        for part, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            source = data / part / f"val_{index}.{ending}"
            source.rename(source.with_name(f"{name}.{ending}"))

    def rename(content):
        content["labels"]["names"] = NASTY
        content["train"]["dataset"] = str(data)
        content["commands"] = [["train.py", "--run-dir", "<u>x"]]

    change_config(run, rename)
    assert main(["report", str(run.path)]) == 0
    page = Page(run.path / "report.html")
    assert not {"b", "i", "u", "script"} & set(page.tags) and not page.inline_code
    assert [page.row(name)[0] for name in NASTY] == list(NASTY)
    assert all(name in page.texts["strong"] for name in ("onerror=alert(", "<img src=x"))
    assert "<u>x" in page.texts["code"] and len(page.images) == 15


def test_a_lost_data_set_leaves_what_the_run_knows(run, tmp_path, shapes, capfd):
    change_config(run, lambda c: c["train"].update(dataset=str(tmp_path / "gone")))
    assert main(["report", str(run.path)]) == 0
    assert "images are missing: A data set must be" in capfd.readouterr().err
    page = Page(run.path / "report.html")
    assert "images are missing" in page.texts["p"] and not page.images
    for name, iou in run.read_metrics()["per_class_iou"].items():
        assert page.row(name) == [name, f"{iou:.3f}"]
    # Given its new place, everything is found; a wrong one is an error, and the page stays.
    assert main(["report", str(run.path), "--dataset", str(shapes)]) == 0
    whole = (run.path / "report.html").read_bytes()
    assert len(Page(run.path / "report.html").images) == 15
    assert main(["report", str(run.path), "--dataset", str(tmp_path / "wrong")]) == 1
    assert (run.path / "report.html").read_bytes() == whole


def test_a_run_in_training_is_reported_so_far(run):
    run.metrics.unlink()
    change_config(run, lambda content: content["train"].update(epochs=9))
    assert main(["report", str(run.path), "--images", "0"]) == 0
    page = Page(run.path / "report.html")
    assert "no metrics.json" in page.texts["p"] and "after 2 of 9 epochs" in page.texts["p"]
    assert page.row("box")[1] and not page.images


def test_changed_images_are_told(run, shapes, tmp_path):
    data = shutil.copytree(shapes, tmp_path / "data")
    for path in (data / "JPEGImages").glob("val_*"):
        Image.new("RGB", (64, 48), (20, 30, 90)).save(path)
    assert main(["report", str(run.path), "--dataset", str(data)]) == 0
    text = Page(run.path / "report.html").texts["p"]
    assert f"was {run.read_metrics()['mean_iou']:.3f} in metrics.json" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.config.unlink(), "not a run folder, as it has no config.json"),
        (lambda run: run.history.unlink(), "no epoch is finished"),
        (lambda run: run.history.write_text("epoch,loss\n1,high\n"), "history.csv: damaged"),
        (lambda run: run.metrics.write_text("{"), "metrics.json: damaged"),
    ],
)
def test_mistakes_are_one_line(run, damage, message, capfd):
    damage(run)
    assert main(["report", str(run.path)]) == 1
    stderr = capfd.readouterr().err
    assert stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1
    assert not (run.path / "report.html").exists()


def test_help_needs_no_tensorflow():
    code = (
        "import sys\nfrom fcn_keras.cli import main\n"
        "try: main(['report', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'jinja2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--output" in done.stdout, done.stderr


def test_charts_leave_out_epochs_without_validation():
    nan = float("nan")
    history = [
        {"epoch": e, "loss": loss, "val_loss": val}
        for e, loss, val in ((1, 4, nan), (2, 2, 3), (3, 0, 1))
    ]
    [chart] = charts(history)
    train, val = chart.lines
    assert [x for x, _, _ in train.points][1:] == [x for x, _, _ in val.points]
    # Equal steps of the loss are equal distances; higher is further up.
    heights = [y for _, y, _ in train.points]
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0])
    assert val.points[0][1] == pytest.approx((heights[0] + heights[1]) / 2)
    assert all(0 < y < HEIGHT for y in heights)
    assert "training 4 in epoch 1, 0 in epoch 3; validation 3 in epoch 2" in chart.summary
    [flat] = charts([{"epoch": 1, "learning_rate": 0.0}])
    assert 0 < flat.lines[0].points[0][1] < HEIGHT
    for low, high in ((0.189, 0.1893), (0.1, 0.1051), (-0.02, -0.02), (0.999, 1.0)):
        history = [{"epoch": 1, "loss": low}, {"epoch": 2, "loss": high}]
        labels = [label for _, label in charts(history)[0].y_ticks]
        assert len({*labels}) == len(labels) > 2


def test_long_histories_and_noisy_masks_stay_small():
    history = [{"epoch": epoch} for epoch in range(1, 1002)]
    thin = _thinned(history)
    assert len(thin) <= 200 and thin[-1]["epoch"] == 1001
    rng = np.random.default_rng(0)
    labels = LabelSet(tuple(map(str, range(255))))
    noise = rng.integers(0, 255, (480, 480)).astype(np.uint8)
    image = rng.integers(0, 255, (480, 480, 3)).astype(np.uint8)
    masks = {"prediction": noise, "truth": noise}
    score = type("Score", (), {"id": "x", "mean_iou": 0.5, "pixel_accuracy": 0.5})
    [rows] = picture_rows([[Example(score, image, masks)] * 8], labels)
    size = sum(len(uri) for row in rows for _, uri, _ in row.pictures)
    assert len(rows) == 8 and BUDGET / 4 < size <= BUDGET


def test_a_note_says_what_the_command_leaves_out(run):
    assert not read_run(run.path).notes
    config = run.read_config()
    run.write_config(config, run.read_labels(), {"augment": "mine.rain", "callbacks": ["mine.Log"]})
    [note] = read_run(run.path).notes
    assert "from Python with augment=mine.rain, callbacks=[mine.Log]" in note
