"""The benchmarks on a few small pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_folder import CLASSES, write_folder

from fcn_keras.datasets import load_split

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import d2l_exercises


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def exercise(folder, tmp_path_factory):
    """Runs an exercise with as few steps as can be; returns its exit code."""
    out = tmp_path_factory.mktemp("d2l")

    def run(name, *flags):
        quick = "--recipe sample --batch-size 6 --crop 32 32".split()
        where = ["--dataset", str(folder), "--out", str(out / name)]
        return d2l_exercises.main([name, *where, *quick, *flags])

    run.out = out
    return run


def numbers(output, start):
    """The figures of the table's line that starts so."""
    [line] = [line for line in output.splitlines() if line.startswith(start)]
    return [float(cell.split("±")[0]) for cell in line.strip("| ").split("|")[1:]]


def test_upsampling_compares_two_initialisations_and_keeps_what_is_finished(exercise, capsys):
    assert exercise("upsampling", "--epochs", "2", "--seeds", "0", "1") == 0
    first = capsys.readouterr().out
    rows = [numbers(first, f"| {name}") for name in ("bilinear, 0", "Xavier, 0", "Xavier, 1")]
    assert rows[0] != rows[1] != rows[2]
    assert rows[0][0] == rows[0][1]  # of two epochs the first is at 25 and at 50 %
    mean = numbers(first, "| **Xavier**")
    np.testing.assert_allclose(mean, np.mean(rows[1:], axis=0), atol=0.0011)

    assert exercise("upsampling", "--epochs", "2", "--seeds", "0", "1") == 0
    second = capsys.readouterr().out
    assert second.count("finished before, kept") == 4
    assert second.endswith(first[first.index("| initialisation") :])


def test_other_settings_need_another_folder(exercise, capsys):
    assert exercise("upsampling", "--epochs", "1", "--seeds", "5") == 0
    assert exercise("upsampling", "--epochs", "2", "--seeds", "5") == 1
    assert "trained with epochs 1, not 2. Choose another --out" in capsys.readouterr().err


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
    assert second.count("finished before, kept") == 8
    assert second.endswith(first[first.index("| net") :])
    assert exercise("skips", "--epochs", "4") == 1
    assert "--epochs must be a multiple of 6" in capsys.readouterr().err


def test_test_images_are_all_predicted_once(exercise, untrained_run, capsys):
    assert exercise("test-images", "--model", str(untrained_run), "--split", "train") == 0
    output = capsys.readouterr().out
    assert "6 images predicted, 0 kept" in output
    assert all(name in output for name in ("mean accuracy", *CLASSES))
    ious = [numbers(output, f"| worst: train_{i}") for i in range(6) if f"worst: train_{i}" in output]
    assert len(ious) == 4
    out = exercise.out / "test-images"
    assert {path.name for path in out.glob("*.png")} == {"worst.png", "best.png"}
    assert len(list((out / "predictions").glob("*.png"))) == 6

    assert exercise("test-images", "--model", str(untrained_run), "--split", "train") == 0
    assert "0 images predicted, 6 kept" in capsys.readouterr().out


def test_near_boundaries_keeps_a_band(folder):
    split = load_split(str(folder), "val")
    image = np.zeros((9, 20, 3), np.uint8)
    mask = np.repeat(np.arange(20) >= 10, 9).reshape(20, 9).T.astype(np.uint8)
    split = type(split)("val", split.labels, ("one",), lambda index: (image, mask))
    _, banded = d2l_exercises.near_boundaries(split).read(0)
    labelled = np.flatnonzero((banded != 255).all(axis=0))
    # Class 1 begins at column 10: three columns on each side.
    assert labelled.tolist() == [7, 8, 9, 10, 11, 12]
    assert (banded[:, labelled] == mask[:, labelled]).all()
