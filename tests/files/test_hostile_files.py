"""docs/hostile-input.md, row by row, and the commands as processes."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES
from support.hostile_files import IDS, MASKS, PHOTOS, PNG
from support.hostile_folders import FOLDERS, LIST, PATHS, PHOTO
from support.hostile_labels import LABELS
from support.image_files import encoded
from support.processes import ROOT
from support.runs import QUICK

from fcn_keras.cli import main
from fcn_keras.data.directory import directory_split
from fcn_keras.errors import UserError
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import RunFolder

PAGE = (ROOT / "docs/hostile-input.md").read_text(encoding="utf-8")
BOMB = "a mask of 3.6 gigapixels"


def rows(heading: str) -> dict[str, tuple[str, int]]:
    """What happens, and the exit code, by the inputs of a table."""
    _, _, section = PAGE.partition(f"\n### {heading}\n")
    lines = re.findall(r"^\| (.+) \| (.+) \| (\d) \|$", section.partition("\n#")[0], re.MULTILINE)
    return {name: (outcome, int(code)) for name, outcome, code in lines}


def message(outcome: str) -> str:
    """The part of the error message that the page quotes."""
    return re.search("`([^`]+)`", outcome)[1]


def write_example(root, photo=(".png", PNG), mask=None):
    """A folder with this training image and mask, and one sound image in val."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    name = "a.png" if photo[0] == ".png" else "a.jpg"
    for split, path, image, ids in (
        ("train", Path(name), photo[1], encoded(IDS) if mask is None else mask),
        ("val", Path("v.png"), PNG, encoded(IDS)),
    ):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(f"{path.stem}\n")
        (root / "JPEGImages" / path).write_bytes(image)
        (root / f"SegmentationClass/{path.stem}.png").write_bytes(ids)
    return root


def problems(capfd, folder) -> list[str]:
    """What `data check` says."""
    code = main(["data", "check", str(folder)])
    lines = capfd.readouterr().err.splitlines()
    found = [line for line in lines if not line.startswith("Note: ")]
    assert all(line.startswith("problem: ") for line in found), found
    assert code == (1 if found else 0)
    return found


def test_the_page_has_a_row_for_every_input_and_no_other():
    assert set(rows("Photographs")) == set(PHOTOS)
    assert set(rows("Masks")) == set(MASKS)
    assert set(rows("Data folders")) == set(FOLDERS)
    assert set(rows("Labels given to `data convert`")) == set(LABELS)
    assert set(rows("Paths given to `predict`")) == set(PATHS)


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs(name, tmp_path, capfd):
    suffix, content, pixels = PHOTOS[name]
    outcome, code = rows("Photographs")[name]
    folder = write_example(tmp_path / "data", (suffix, content))
    if code == 0:
        assert outcome.startswith("read")
        with Image.open(*(folder / "JPEGImages").glob("a.*")) as image:
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
    assert {path.name: Image.open(path).size for path in (tmp_path / "out").glob("*.png")} == sizes


@pytest.mark.parametrize("name", FOLDERS)
def test_data_folders(name, tmp_path, capfd):
    outcome, code = rows("Data folders")[name]
    folder = write_example(tmp_path / "data")
    FOLDERS[name](folder)
    found = problems(capfd, folder)
    if code == 0:
        assert outcome.startswith("read") and found == []
        split = directory_split(folder, "train")
        assert split.read(0)[0].shape == (*IDS.shape, 3)
    else:
        assert any(message(outcome) in problem for problem in found), found
        assert max(map(len, found)) < 2200
        with pytest.raises(UserError, match=re.escape(message(outcome))):
            directory_split(folder, "train").read(0)


@pytest.mark.parametrize("name", LABELS)
def test_labels_given_to_convert(name, tmp_path, capfd):
    outcome, code = rows("Labels given to `data convert`")[name]
    source, new = tmp_path / "source", tmp_path / "new"
    source.mkdir()
    LABELS[name](source)
    assert main(["data", "convert", str(source), "--output", str(new)]) == code
    lines = capfd.readouterr().err.splitlines()
    assert new.exists() == (code == 0) and max(map(len, lines), default=0) < 600
    wanted = "left out, " if outcome.startswith("left out") else ("problem: ", "error: ")
    found = [line for line in lines if line.startswith(wanted)]
    if outcome == "read":
        assert found == []
    else:
        assert any(message(outcome) in line and str(source) in line for line in found), lines


@pytest.mark.parametrize("name", PATHS)
def test_paths_given_to_predict(name, tmp_path):
    from fcn_keras.inference.batch import jobs_of_paths  # imports TensorFlow, which the rest avoids

    outcome, code = rows("Paths given to `predict`")[name]
    jobs = jobs_of_paths(PATHS[name](tmp_path), tmp_path / "out")
    failed = []
    for job in jobs:
        assert ".." not in job.name and not job.name.startswith("/")
        try:
            assert job.read().size == IDS.shape[::-1]
        except UserError as error:
            failed.append(str(error))
    assert len(jobs) > len(failed) or code == 1
    if code == 0:
        assert outcome.startswith("predicted") and failed == []
    else:
        [problem] = failed
        assert message(outcome) in problem


def command(*arguments, limit_mb=None, user=None, **environment) -> subprocess.CompletedProcess:
    """Runs `fcn-keras` with so much memory, as this user; its output is bytes."""
    start = "import sys; from fcn_keras.cli import main; sys.exit(main())"
    if user:  # who may not read Python's own files, so everything is imported before
        change = f"os.setgroups([]); os.setgid({user}); os.setuid({user})"
        start = f"import os; from fcn_keras.cli import main; assert main() == 0; {change}; {start}"
    if limit_mb:
        limit = f"resource.setrlimit(resource.RLIMIT_AS, ({limit_mb << 20},) * 2)"
        start = f"import resource; {limit}; {start}"
    return subprocess.run(
        [sys.executable, "-c", start, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )


def write_photos(folder, *names: bytes, content=b"") -> None:
    for name in names:
        Path(os.path.join(os.fsdecode(folder), os.fsdecode(name))).write_bytes(content)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_of_any_bytes_are_printed_in_one_line_each(tmp_path, encoding):
    folder = write_example(tmp_path / b"d\xfft\xc3\xa4".decode("utf-8", "surrogateescape"))
    (folder / "classes.txt").write_text("gr\u00fcn\nb\nc\n", encoding="utf-8")
    (folder / "ImageSets/Segmentation/gr\u00fcn\x1b[0m.txt").write_text("none\n")
    done = command("data", "check", folder, PYTHONIOENCODING=encoding, LC_ALL="C")
    assert done.returncode == 1
    problem, _ = done.stderr.decode().splitlines()  # for the image and for its mask
    shown = "t\u00e4" if encoding == "utf-8" else "t\\xe4"
    assert f"d\\udcff{shown}/JPEGImages/none.jpg: the image is missing" in problem
    assert ("gr\u00fcn" if encoding == "utf-8" else "gr\\xfcn") in done.stdout.decode()
    assert b"\x1b" not in done.stdout + done.stderr


def test_convert_refuses_names_that_no_list_can_hold(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        content = PNG if part == "images" else encoded(IDS)
        names = (b"a.png", b"b.png", b"c\nd.png", b"e\xff.png", b"f .png", b"g\xe2\x80\xa8h.png")
        write_photos(tmp_path / part, *names, content=content)
    os.mkfifo(tmp_path / "images/pipe.png")
    write_photos(tmp_path / "masks", b"pipe.png", content=encoded(IDS))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    flags = [f"--{name}={tmp_path / name}" for name in ("images", "masks", "output")]
    arguments = ["data", "convert", *flags, f"--classes={tmp_path / 'classes.txt'}"]
    done = command(*arguments)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1 and not (tmp_path / "output").exists()
    assert lines[0].endswith("masks/pipe.png")  # which has no partner: a pipe is no photograph
    problems = [line for line in lines if line.startswith("problem: ")]
    found = [re.search(r"images/(.*)\.png: (.*?)[,.]", line).groups() for line in problems]
    assert sorted(found) == [
        ("c\\nd", "a list cannot hold its name"),
        ("e\\udcff", "its name is not UTF-8"),
        ("f ", "a list cannot hold its name"),
    ]
    for name in (b"c\nd.png", b"e\xff.png", b"f .png", b"pipe.png"):
        os.unlink(os.fsencode(tmp_path) + b"/images/" + name)
    done = command(*arguments)
    assert done.returncode == 0 and b"train 2, val 1 images" in done.stdout
    assert done.stderr.count(b"no partner") == 4
    assert set(directory_split(tmp_path / "output", "train").ids) < {"a", "b", "g\u2028h"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("locked", "shown"),
    [
        (PHOTO, "a.png: cannot be read (Permission denied)"),
        ("SegmentationClass/a.png", "a.png: cannot be read (Permission denied)"),
        (LIST, "train.txt: cannot be read (Permission denied)"),
        ("classes.txt", "classes.txt: cannot be read (Permission denied)"),
        ("JPEGImages", "a.jpg: cannot be read (Permission denied)"),
        ("ImageSets/Segmentation", "Permission denied"),
        (".", "Permission denied"),
    ],
)
def test_what_may_not_be_read_is_named(locked, shown):
    with tempfile.TemporaryDirectory() as place:  # as other users may not enter pytest's folders
        os.chmod(place, 0o755)
        folder = write_example(Path(place, "data"))
        (folder / locked).chmod(0)
        done = command("data", "check", folder, user=65534)
        (folder / locked).chmod(0o755)
    stderr = done.stderr.decode()
    assert done.returncode == 1 and shown in stderr and "Traceback" not in stderr


def test_bombs_are_refused_before_they_take_memory(tmp_path):
    for number, name in enumerate(name for name in PHOTOS if "giga" in name or "200 MB" in name):
        folder = write_example(tmp_path / str(number), PHOTOS[name][:2], MASKS[BOMB][0])
        done = command("data", "check", folder, limit_mb=700, OPENBLAS_NUM_THREADS="1")
        photo, mask = done.stderr.decode().splitlines()
        assert done.returncode == 1
        assert message(rows("Photographs")[name][0]) in photo
        assert message(rows("Masks")[BOMB][0]) in mask


def test_pillows_warnings_do_not_appear(tmp_path):
    for name in ("a palette with transparency", "damaged EXIF in a JPEG"):
        folder = write_example(tmp_path / name, PHOTOS[name][:2])
        done = command("data", "check", folder)
        assert (done.returncode, done.stderr) == (0, b"")


ONE_STEP = [*QUICK, "--batch-size", "1", "--epochs", "1"]
ODD = b"d\xff".decode("utf-8", "surrogateescape")  # a folder's name, in messages d\udcff


def test_training_ends_with_the_name_of_a_bad_photograph(tmp_path, capfd):
    folder = write_example(tmp_path / ODD, PHOTOS["a truncated JPEG"])
    command = ["train", "--dataset", str(folder), "--run-dir", str(tmp_path / "run"), *ONE_STEP]
    assert main(command) == 1
    *_, line = capfd.readouterr().err.splitlines()  # TensorFlow may say more at its import
    assert line.startswith(f"error: {tmp_path}/d\\udcff/JPEGImages/a.jpg: not a readable image")


@pytest.mark.slow
def test_255_classes_are_trained_and_predicted(tmp_path, capfd):
    folder = write_example(tmp_path / "data", mask=encoded(np.full_like(IDS, 254)))
    (folder / "classes.txt").write_text("".join(f"class {index}\n" for index in range(255)))
    command = ["train", "--dataset", str(folder), "--run-dir", str(tmp_path / "run"), *ONE_STEP]
    assert main([*command, "--output-stride", "8", "--learning-rate", "0.1"]) == 0
    model = ["--model", str(tmp_path / "run")]
    output = ["--output", str(tmp_path / "out")]
    assert main(["predict", *model, *output, str(folder / "JPEGImages"), "--probabilities"]) == 0
    probabilities = np.load(tmp_path / "out/probabilities/a.npz")["probabilities"]
    assert probabilities.shape == (*IDS.shape, 255)
    mask = Image.open(tmp_path / "out/a.png")
    np.testing.assert_array_equal(np.asarray(mask), probabilities.argmax(axis=-1))
    assert len(mask.getpalette()) == 3 * 256


@pytest.mark.slow
def test_training_and_evaluation_take_the_smallest_and_the_longest(tmp_path, capfd):
    folder = write_example(
        tmp_path / ODD, PHOTOS["an image of 1×1"], encoded(np.zeros((1, 1), np.uint8))
    )
    (folder / "JPEGImages/v.png").write_bytes(PHOTOS["an image of 1×20,000"][1])
    (folder / "SegmentationClass/v.png").write_bytes(encoded(np.zeros((1, 20_000), np.uint8)))
    run = tmp_path / "run"
    assert main(["train", "--dataset", str(folder), "--run-dir", str(run), *ONE_STEP]) == 0
    assert "d\\udcff" in (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    measures = tmp_path / "measures.json"
    evaluation = ["evaluate", "--model", str(run), "--dataset", str(folder)]
    assert main([*evaluation, "--json", str(measures)]) == 0
    assert json.loads(measures.read_text())["per_class_iou"].keys() == set(CLASSES)
    (folder / "JPEGImages/v.png").write_bytes(PHOTOS["a truncated PNG"][1])
    capfd.readouterr()
    assert main(evaluation) == 1
    *_, line = capfd.readouterr().err.splitlines()  # TensorFlow may say more at its import
    assert line.startswith(f"error: {tmp_path}/d\\udcff/JPEGImages/v.png: not a readable image")


def test_a_run_folder_has_a_name_in_utf_8(tmp_path, capfd, monkeypatch):
    folder = write_example(tmp_path / ODD)
    assert main(["train", "--dataset", str(folder), "--run-dir", str(tmp_path / ODD / "r")]) == 1
    assert "d\\udcff/r: not UTF-8" in capfd.readouterr().err
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(TrainConfig(dataset=str(folder)))
    assert re.fullmatch(r"d_-\d{8}-\d{6}", run.path.name)
