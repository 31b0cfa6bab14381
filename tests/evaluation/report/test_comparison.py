"""`fcn-keras report` with several runs: the page of real ones, read by an HTML parser."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES
from support.report_page import Page, picture

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.errors import UserError
from fcn_keras.evaluation.report.comparison import compare
from fcn_keras.evaluation.report.curves import compared_charts
from fcn_keras.evaluation.report.page import _marked
from fcn_keras.evaluation.scores import image_scores
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.runs.folder import MOST_RUNS, RunFolder, run_names

NASTY = "<b>run & 'more'\" onload=alert(1)"


def copied(run_dir, target):
    return RunFolder(shutil.copytree(run_dir, target, ignore=shutil.ignore_patterns("last*")))


def change(run, **settings):
    content = json.loads(run.config.read_text())
    content["train"] |= settings
    run.config.write_text(json.dumps(content))


@pytest.fixture
def runs(finished_run, resumed_run, tmp_path, monkeypatch):
    """Copies of two runs, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return copied(finished_run, tmp_path / "finished"), copied(resumed_run, tmp_path / "resumed")


def compared(*flags, runs=("finished", "resumed")):
    assert main(["report", *runs, *flags]) == 0
    return Page(RunFolder(".").path / "comparison.html")


@pytest.fixture(scope="module")
def page(finished_run, resumed_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("pages") / "new folder" / "page.html"
    runs = [str(finished_run), str(resumed_run)]
    assert main(["report", *runs, "--output", str(output), "--images", "2"]) == 0
    return Page(output)


def test_settings_that_differ_are_side_by_side(page, finished_run, resumed_run):
    assert page.rows[0] == ["run", finished_run.name, resumed_run.name]
    assert page.row("finished epochs")[1:] == ["2 of 2", "4 of 4"]
    assert page.row("batch-size")[1:] == ["2", "6"] and page.row("crop")[1:] == ["48 64", "32 32"]
    told = {row[0] for row in page.rows}
    assert not {"run-dir", "dataset", "backbone", "seed", "keras"} & told


def test_the_page_loads_nothing_and_can_be_read_without_seeing_it(page):
    assert page.loaded and all(link.startswith(("data:image/", "#")) for link in page.loaded)
    assert not {"script", "link", "iframe", "object"} & set(page.tags) and not page.inline_code
    assert page.tags.count("h1") == 1 and page.tags.count("h2") == 4
    assert page.tags.count("caption") == page.tags.count("table") == 2
    assert all(image["alt"] for image in page.images)


def test_the_best_metric_of_each_row_is_marked(page, finished_run, resumed_run):
    metrics = [RunFolder(run).read_metrics() for run in (finished_run, resumed_run)]
    best = []
    for name in CLASSES:
        texts = [f"{each['per_class_iou'][name]:.3f}" for each in metrics]
        assert page.row(name) == [name, *texts]
        best += {max(texts)} if texts[0] != texts[1] else []
    assert page.row("mean IoU")[1:] == [f"{each['mean_iou']:.3f}" for each in metrics]
    assert best and page.texts["mark"].endswith("".join(best))


def test_only_a_difference_is_marked():
    assert _marked([0.5, None, 0.7, 0.7001]) == [
        ("0.500", False),
        ("–", False),
        ("0.700", True),
        ("0.700", True),
    ]
    assert not any(best for _, best in _marked([0.5, 0.5, None]) + _marked([None, 1.0]))


def test_images_are_those_on_which_mean_iou_differs_most(page, finished_run, resumed_run, shapes):
    split = load_split(str(shapes), "val")
    segments = {run.name: Segmenter.load(run) for run in (finished_run, resumed_run)}
    scores = [{s.id: s for s in image_scores(each, split)} for each in segments.values()]
    first, second = ({name: s.mean_iou for name, s in each.items()} for each in scores)
    expected = sorted(first, key=lambda name: -abs(first[name] - second[name]))[:2]
    assert [image["alt"] for image in page.images[::4]] == [f"Photograph {n}" for n in expected]
    colors = split.labels.colors()
    for number, name in enumerate(expected):
        image, truth = split.read(split.ids.index(name))
        shown = [picture(each) for each in page.images[4 * number + 1 : 4 * number + 4]]
        for mask, mask_shown in zip([truth, *(s(image) for s in segments.values())], shown):
            np.testing.assert_array_equal(mask_shown, colors[mask])
        for run, each in zip(segments, scores):
            told = f"prediction of {run}mean IoU {each[name].mean_iou:.3f}, pixel accuracy"
            assert f"{told} {each[name].pixel_accuracy:.3f}" in page.texts["figcaption"]


def test_runs_have_a_line_each_of_another_style():
    nan = float("nan")
    charts = compared_charts(
        {
            "a": [{"epoch": 1, "loss": 4, "val_loss": nan, "learning_rate": 1}],
            "b": [{"epoch": e, "loss": 3, "val_loss": e, "learning_rate": 1} for e in (1, 2)],
        }
    )
    assert [chart.title for chart in charts] == ["Loss, training", "Loss, validation"] + [
        "Learning rate"
    ]
    assert [line.name for line in charts[0].lines] == ["a", "b"]
    assert [(line.kind, line.name) for line in charts[1].lines] == [("run-1", "b")]
    assert "a 4 in epoch 1, 4 in epoch 1; b 3 in epoch 1, 3 in epoch 2" in charts[0].summary


def test_the_style_sheet_tells_the_most_runs_apart(page):
    styles = []
    for number in range(MOST_RUNS):
        rules = re.findall(rf"\.run-{number}[ ,][^{{]*{{([^}}]*)}}", page.texts["style"])
        styles.append(frozenset(rules))
        assert "stroke: var(" in "".join(rules)
    assert len(set(styles)) == MOST_RUNS
    pairs = [("dasharray" in "".join(a), a & b) for a, b in zip(styles, styles[6:])]
    assert all(len(shared) == 1 for _, shared in pairs)  # the colour, with another dash


def test_nothing_of_the_user_becomes_markup(runs, finished_run):
    copied(finished_run, NASTY)
    page = compared(runs=(NASTY, "resumed"))
    assert not {"b", "script"} & set(page.tags) and not page.inline_code
    assert page.rows[0] == ["run", NASTY, "resumed"]
    assert f"prediction of {NASTY}" in page.texts["figcaption"]


def test_a_page_replaces_only_a_page_of_its_kind(runs, capfd, tmp_path):
    for _ in range(2):
        compared("--images", "0")
    written = (tmp_path / "comparison.html").read_bytes()
    assert main(["report", "finished", "--output", "comparison.html"]) == 1
    assert main(["report", "finished", "--images", "0"]) == 0
    assert main(["report", "finished", "resumed", "--output", "finished/report.html"]) == 1
    assert capfd.readouterr().err.count("exists, but was not written by this command") == 2
    assert (tmp_path / "comparison.html").read_bytes() == written


def other_classes(runs, data):
    content = json.loads(runs[1].config.read_text())
    content["labels"]["names"][1] = "circle"
    runs[1].config.write_text(json.dumps(content))


def fewer_images(runs, data):
    change(runs[1], limit=3)


def other_masks(runs, data):
    for path in (data / "SegmentationClass").glob("val_*"):
        Image.fromarray(np.zeros_like(Image.open(path))).save(path)
    change(runs[1], dataset=str(data))


def other_photographs(runs, data):
    for path in (data / "JPEGImages").glob("val_*"):
        Image.new("RGB", (64, 48), (20, 30, 90)).save(path)
    change(runs[1], dataset=str(data))


@pytest.mark.parametrize("make", [other_classes, fewer_images, other_masks, other_photographs])
def test_what_cannot_be_compared_is_left_out_and_told(runs, make, shapes, tmp_path, capfd):
    make(runs, shutil.copytree(shapes, tmp_path / "data"))
    page = compared()
    what = "classes" if make is other_classes else "validation images or masks"
    told = f"Left out: metrics and images, as resumed has other {what}."
    assert told in page.texts["p"] and f"Note: {told}\n" in capfd.readouterr().err
    assert not page.images and "mark" not in page.texts and page.tags.count("table") == 1
    assert "Loss, training" in page.texts["figcaption"]


def test_the_same_images_elsewhere_are_compared(runs, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "data" / shapes.name)
    change(runs[1], dataset=str(tmp_path / "data" / shapes.name))
    page = compared("--images", "1")
    assert len(page.images) == 4
    assert page.row("dataset")[1:] == [f"{shapes.name} (1)", f"{shapes.name} (2)"]


def test_a_lost_data_set_leaves_the_metrics_that_are_recorded(runs, tmp_path, shapes, capfd):
    for run in runs:
        change(run, dataset=str(tmp_path / "gone"))
    page = compared()
    assert "Left out: images, as not every model could be evaluated: A data set must be" in (
        capfd.readouterr().err
    )
    assert not page.images and len(page.row("box")) == 3 and page.texts["mark"]
    assert str(tmp_path) not in page.text()
    assert compared("--dataset", str(shapes)).images
    change(runs[1], dataset=str(tmp_path / "gone too"))  # may have had other images
    assert "mark" not in compared().texts


def test_a_missing_model_leaves_the_metrics_that_are_recorded(runs):
    runs[1].best.unlink()
    page = compared()
    assert "no such model" in page.texts["p"] and not page.images
    assert page.row("mean IoU")[2] == f"{runs[1].read_metrics()['mean_iou']:.3f}"


def test_a_run_in_training_is_compared_so_far(runs, tmp_path):
    runs[0].metrics.unlink()
    change(runs[0], epochs=9)
    page = compared("--images", "0")
    assert "finished: The run has no metrics.json" in page.texts["p"]
    assert page.row("finished epochs")[1] == "2 of 9" and page.row("mean IoU")[1] != "–"
    for run in runs:
        change(run, dataset=str(tmp_path / "gone"))
    assert compared().row("mean IoU")[1] == "–"


def test_runs_with_the_same_model_have_no_images(runs, finished_run, tmp_path):
    copied(finished_run, tmp_path / "more" / "finished")
    page = compared(runs=("finished", "more/finished"))
    assert page.rows[0][1:] == [f"{tmp_path.name}/finished", "more/finished"]
    assert "All settings are the same." in page.texts["caption"]
    assert not page.images and "mark" not in page.texts
    assert "Left out: images, as the runs' metrics are the same on every one." in page.texts["p"]


def test_names_tell_runs_apart(tmp_path):
    assert run_names([tmp_path / "a/run", tmp_path / "b/run"]) == ["a/run", "b/run"]
    assert run_names(["a/x/run", "b/x/run", "c"])[:2] == ["a/x/run", "b/x/run"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["finished", "missing"], "missing: not a run folder, as it has no config.json."),
        (["finished", "resumed", "./finished/"], "./finished/: given twice. Pass each run once."),
        (["finished", "link"], "link: given twice. Pass each run once."),
        (["finished", "damaged"], "damaged/metrics.json: damaged"),
        (["finished", "new"], "new: nothing to report yet, as no epoch is finished."),
    ],
)
def test_mistakes_are_one_line(runs, paths, message, tmp_path, capfd):
    (tmp_path / "link").symlink_to("finished")
    copied(runs[0].path, tmp_path / "damaged").metrics.write_text("{")
    copied(runs[0].path, tmp_path / "new").history.unlink()
    assert main(["report", *paths]) == 1
    stderr = capfd.readouterr().err
    assert stderr.startswith(f"error: {message}") and stderr.count("\n") == 1
    assert not (tmp_path / "comparison.html").exists()


def test_too_many_runs_are_refused():
    with pytest.raises(UserError, match="At most 12 runs can be compared. Received: 13."):
        run_names([f"run{number}" for number in range(13)])
    with pytest.raises(UserError, match="b: given twice"):
        compare(["a", "b", "b"])
