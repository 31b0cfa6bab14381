"""docs/hostile-input.md, row by row."""

import re
from pathlib import Path

import numpy as np
import pytest
from fake_folder import CLASSES
from hostile_files import IDS, MASKS, PHOTOS, encoded
from PIL import Image

from fcn_keras.cli import main
from fcn_keras.datasets.directory import directory_split
from fcn_keras.errors import UserError

PAGE = (Path(__file__).parents[1] / "docs/hostile-input.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, tuple[str, int]]:
    """What happens, and the exit code, by the inputs of a table."""
    _, _, section = PAGE.partition(f"\n### {heading}\n")
    lines = re.findall(r"^\| (.+) \| (.+) \| (\d) \|$", section.partition("\n#")[0], re.MULTILINE)
    return {name: (outcome, int(code)) for name, outcome, code in lines}


def message(outcome: str) -> str:
    """The part of the error message that the page quotes."""
    return re.search("`([^`]+)`", outcome)[1]


def write_example(root, photo=(".png", encoded(np.zeros((*IDS.shape, 3), np.uint8))), mask=None):
    """A folder whose one image is in both lists."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for split in ("train", "val"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("a\n")
    (root / "JPEGImages" / f"a{'.jpg' if photo[0] != '.png' else '.png'}").write_bytes(photo[1])
    (root / "SegmentationClass/a.png").write_bytes(encoded(IDS) if mask is None else mask)
    return root


def problems(capfd, folder) -> list[str]:
    """What `data check` says but for the image that both lists share."""
    code = main(["data", "check", str(folder)])
    found = capfd.readouterr().err.splitlines()
    assert code == 1 and all(line.startswith("problem: ") for line in found), found
    return [line for line in found if "Validation must not see training images" not in line]


def test_the_page_has_a_row_for_every_input_and_no_other():
    assert set(rows("Photographs")) == set(PHOTOS)
    assert set(rows("Masks")) == set(MASKS)


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs(name, tmp_path, capfd):
    suffix, content, pixels = PHOTOS[name]
    outcome, code = rows("Photographs")[name]
    folder = write_example(tmp_path / "data", (suffix, content))
    if code == 0:
        assert outcome.startswith("read")
        with Image.open(*(folder / "JPEGImages").iterdir()) as image:
            size = image.size[:: -1 if "turns" not in name else 1]
        (folder / "SegmentationClass/a.png").write_bytes(encoded(np.zeros(size, np.uint8)))
        assert problems(capfd, folder) == []
        image, _ = directory_split(folder, "train").read(0)
        assert image.dtype == np.uint8 and image.shape == (*size, 3)
        if pixels is not None:
            np.testing.assert_array_equal(image, pixels)
    else:
        assert outcome.startswith("refused")
        [problem] = problems(capfd, folder)
        assert f"{folder}/JPEGImages/a." in problem and message(outcome) in problem
        with pytest.raises(UserError, match=re.escape(message(outcome))):
            directory_split(folder, "train").read(0)


@pytest.mark.parametrize("name", MASKS)
def test_masks(name, tmp_path, capfd):
    content, ids = MASKS[name]
    outcome, code = rows("Masks")[name]
    folder = write_example(tmp_path / "data", mask=content)
    if code == 0:
        assert outcome.startswith("read") and problems(capfd, folder) == []
        _, mask = directory_split(folder, "train").read(0)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, ids)
    else:
        [problem] = problems(capfd, folder)
        assert "SegmentationClass/a.png: " in problem and message(outcome) in problem
        with pytest.raises(UserError, match=re.escape(message(outcome))):
            directory_split(folder, "train").read(0)


def test_predict_reports_what_is_refused_and_predicts_the_rest(untrained_run, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    sizes, refused = {}, {}
    for number, (name, (suffix, content, _)) in enumerate(PHOTOS.items()):
        path = tmp_path / "in" / f"{number:02}{suffix}"
        path.write_bytes(content)
        outcome, code = rows("Photographs")[name]
        if code:
            refused[path] = message(outcome)
        else:
            with Image.open(path) as image:
                sizes[f"{path.stem}.png"] = image.size[:: -1 if "turns" in name else 1]
    command = ["predict", "--model", str(untrained_run), "--output", str(tmp_path / "out")]
    assert main([*command, str(tmp_path / "in")]) == 1
    captured = capfd.readouterr()
    assert f"{len(sizes)} of {len(PHOTOS)} images predicted, {len(refused)} failed" in captured.out
    lines = captured.err.splitlines()
    assert len(lines) == len(refused)
    for line, (path, text) in zip(lines, refused.items()):
        assert line.startswith(f"error: {path}: ") and text in line
    assert {path.name: Image.open(path).size for path in (tmp_path / "out").iterdir()} == sizes
