"""The command line: start-up and exit codes by real processes, messages in this process."""

import atexit
import math
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES, save_palette_png, write_folder
from support.processes import FCN_KERAS, ROOT
from support.runs import QUICK

from fcn_keras import __main__, cli
from fcn_keras.cli import _parser, main
from fcn_keras.data import load_split
from fcn_keras.runs.checks import flag
from fcn_keras.runs.config import SETTINGS, TrainConfig
from fcn_keras.runs.recipes import RECIPES


def run_process(*arguments, cwd=ROOT):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_help_names_every_setting():
    done = run_process("train.py", "--help")
    assert done.returncode == 0
    flags = "--recipe --dataset --data-dir --backbone --weights --init-from --output-stride \
        --freeze --epochs --batch-size --crop --learning-rate --early-stopping --run-dir --resume \
        --devices --mixed-precision --seed --max-steps --limit"
    for name in flags.split():
        assert name in done.stdout


def test_help_shows_each_recipe_s_values(capsys, monkeypatch):
    """The brackets, read back, are the settings of each recipe."""
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = re.sub(r"\n {10,}", " ", capsys.readouterr().out)  # long flags have lines of their own
    lines = [line for line in text.splitlines() if line.startswith("  --")]
    shown = {line.split()[0].rstrip(","): line for line in lines}
    for field in SETTINGS:
        line = shown[flag(field.name)]
        default, *others = line[line.rindex("(") + 1 : -1].split("; ")
        assert line.endswith(")") and default
        if field.name == "recipe" or field.default is None:  # described in words
            assert not any(field.name in recipe for recipe in RECIPES.values())
            continue
        texts = dict.fromkeys(RECIPES, default)
        for other in others:
            names, _, text = other.partition(": ")
            texts |= dict.fromkeys(names.split(", "), text)
        for name in RECIPES:
            value = getattr(TrainConfig.from_recipe(name), field.name)
            if value is None:  # of a dilated FCN, which has no output stride
                continue
            if isinstance(value, bool):
                assert texts[name] == ("on" if value else "off"), line
            else:
                parts = value if isinstance(value, tuple) else (value,)
                words = texts[name].split()
                assert [type(part)(word) for part, word in zip(parts, words)] == [*parts], line


def test_help_and_the_package_import_no_tensorflow():
    code = (
        "import sys, fcn_keras\n"
        "from fcn_keras import VOC_CLASSES, VOC_COLORMAP, TrainConfig\n"
        "from fcn_keras.cli import main\n"
        "assert len(VOC_CLASSES) == len(VOC_COLORMAP) == 21\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    done = run_process("-c", code)
    assert done.returncode == 0, done.stderr


def test_wrong_paths_are_told_before_tensorflow_is_imported(tmp_path):
    for name in ("model.h5", "a.jpg"):
        (tmp_path / name).touch()
    commands = [
        ["evaluate", "--model", "no/such", "--dataset", "sample"],
        ["predict", "--model", "model.h5", "--output", "out", "a.jpg"],
        ["export", "--model", "no/such", "--output", "out"],
        ["train", "--init-from", "no/such"],
        ["train", "--resume", "no/such"],
        ["report", "no/such"],
    ]
    code = (
        "import sys\n"
        "from fcn_keras.cli import main\n"
        f"assert [main(command) for command in {commands}] == [1] * {len(commands)}\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    done = run_process("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands) and lines[1].startswith("error: model.h5: only .keras")
    assert all(line.startswith("error: no/such") for line in lines[:1] + lines[2:])


def test_a_process_with_tensorflow_ends_before_the_teardown_that_may_abort_or_hang():
    code = (
        "import atexit, os, sys, types\n"
        "from fcn_keras.__main__ import main\n"
        "class Thread:\n"
        "    def __del__(self, write=os.write): write(2, b'torn down')\n"
        "sys.kept = Thread()\n"
        "sys.modules['tensorflow'] = types.ModuleType('tensorflow')\n"
        "code = main(['report', 'no/such'])\n"
        "atexit.register(print, 'handled')\n"
        "sys.exit(code)"
    )
    done = run_process("-c", code)
    assert done.returncode == 1 and done.stdout == "handled\n"
    assert done.stderr.startswith("error: no/such") and "torn down" not in done.stderr
    without = code.replace("sys.modules['tensorflow']", "unused")
    assert "torn down" in run_process("-c", without).stderr


@pytest.mark.parametrize(
    ("command", "before", "after"),
    [("serve", None, "1"), ("predict", "0", "0"), ("train", None, None), ("tune", None, None)],
)
def test_kernels_stay_packed_only_where_weights_never_change(command, before, after, monkeypatch):
    name, seen = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", []
    monkeypatch.setenv(name, before or "")
    if before is None:
        monkeypatch.delenv(name)
    monkeypatch.setattr(atexit, "register", lambda *_: None)
    monkeypatch.setattr(cli, "main", lambda argv: seen.append(os.environ.get(name)) or 0)
    assert __main__.main([command]) == 0 and seen == [after]


@pytest.mark.slow
def test_packed_kernels_do_not_change_masks_of_several_sizes(untrained_run, tmp_path):
    """oneDNN packs them for the first image, and other sizes may need another layout."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index, size in enumerate([(96, 128), (33, 50), (200, 70), (1, 1), (96, 128)]):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), "uint8"))
        image.save(tmp_path / "photos" / f"{index}.png")
    masks = []
    for value in "01":
        output = tmp_path / value
        flags = ["--model", untrained_run, "--output", output, tmp_path / "photos"]
        environment = {**os.environ, "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": value}
        command = [*FCN_KERAS, "predict", *flags]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
        masks.append([np.asarray(Image.open(path)) for path in sorted(output.glob("*.png"))])
    assert len(masks[0]) == 5 and np.unique(masks[0][0]).size > 1
    for plain, packed in zip(*masks, strict=True):
        np.testing.assert_array_equal(packed, plain)


def test_public_names_exist():
    import fcn_keras

    for name in fcn_keras.__all__:
        assert getattr(fcn_keras, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        fcn_keras.nothing_like_it  # noqa: B018


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


def cut(path):
    path.write_bytes(path.read_bytes()[:400])


def overwrite_mask(path, value):
    save_palette_png(np.full((48, 64), value, np.uint8), path)


BAD_FOLDERS = {
    "missing mask": (
        lambda d: (d / "SegmentationClass/train_1.png").unlink(),
        "SegmentationClass/train_1.png: the mask is missing",
    ),
    "truncated jpeg": (lambda d: cut(d / "JPEGImages/train_1.jpg"), "train_1.jpg: not a readable"),
    "truncated jpeg of val": (
        lambda d: cut(d / "JPEGImages/val_1.jpg"),
        "val_1.jpg: not a readable",
    ),
    "unknown colour": (
        lambda d: Image.new("RGB", (64, 48), (1, 2, 3)).save(d / "SegmentationClass/train_1.png"),
        "train_1.png: the mask has the colour (1, 2, 3)",
    ),
    "mask with id 200": (
        lambda d: overwrite_mask(d / "SegmentationClass/train_1.png", 200),
        "train_1.png: the mask has id 200",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folder_ends_training_in_one_line(name, folder, tmp_path, capfd):
    damage, message = BAD_FOLDERS[name]
    damage(folder)
    run_dir = tmp_path / "run"
    code = main(
        ["train", "--dataset", str(folder), "--run-dir", str(run_dir), "--epochs", "1", *QUICK]
    )
    stderr = capfd.readouterr().err
    assert code == 1 and message in stderr and "Traceback" not in stderr
    assert len([line for line in stderr.splitlines() if line.startswith("error: ")]) == 1
    assert not (run_dir / "metrics.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "-1"], "--batch-size must be at least 0. Received: -1."),
        (["--dataset", "no/such"], "Received: 'no/such'"),
        (["--resume", "no/such"], "no/such: not a run folder"),
        (["--class-weights", "auto", "1"], "--class-weights must be auto, or one number per"),
        (["--resume", "no/such", "--seed", "1"], "--seed cannot change in a resumed run"),
        (["--init-from", "no/such"], "no/such: no such model"),
        (["--backbone", "resnet19"], "backbone must be one of"),
        (
            ["--jaccard-weight", "1", "--region-loss", "dice"],
            "--jaccard-weight W stands for --region-loss jaccard --region-weight W. Give only one.",
        ),
        (["--resume", "no/such", "--jaccard-weight", "1"], "--jaccard-weight cannot change in a"),
        (["--class-weights", "1", "2"], "--class-weights needs one weight for each of the 3"),
        (
            "--backbone tiny --upsampling dense --upsampling-initializer x".split(),
            "upsampling_initializer must be 'bilinear' or",
        ),
    ],
)
def test_mistaken_values_are_named(flags, message, folder, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    defaults = [] if "--resume" in flags else ["--dataset", str(folder)]
    assert main(["train", *defaults, *flags]) == 1
    stderr = capfd.readouterr().err
    assert message in stderr and "Traceback" not in stderr
    assert not (tmp_path / "runs").exists()


def test_class_weights_that_are_no_numbers_are_one_line(capfd):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--class-weights", "1", "automatic"])
    message = "error: argument --class-weights: must be auto or numbers. Received: 'automatic'"
    assert capfd.readouterr().err.startswith(message)


def test_empty_folder_is_named(tmp_path, capfd):
    assert main(["train", "--dataset", str(tmp_path)]) == 1
    assert f"error: {tmp_path}/classes.txt: no such file" in capfd.readouterr().err


def test_unknown_flag_is_one_line_and_exit_code_2():
    done = run_process("train.py", "--batch-sise", "3")
    assert done.returncode == 2
    assert done.stderr == (
        "error: unrecognized arguments: --batch-sise 3. See fcn-keras train --help.\n"
    )


def test_the_package_runs_as_a_module(folder):
    assert run_process("-m", "fcn_keras", "data", "check", folder).returncode == 0
    done = run_process("-m", "fcn_keras", "data", "check", "no/such")
    assert done.returncode == 1 and "no/such: no such folder" in done.stderr


def test_data_check_of_a_good_and_a_bad_folder(folder, capfd):
    assert main(["data", "check", str(folder)]) == 0
    output = capfd.readouterr().out
    assert "train: 6 images" in output and "bar" in output and "0 problems." in output
    [size] = [line for line in output.splitlines() if line.startswith("Sizes (height×width): ")]
    height, width = load_split(str(folder), "train").read(0)[1].shape
    assert size.endswith(f" {height}×{width}")
    train, val = output.split("val: ")
    counts = [int(re.search(rf" {name} .* (\d+)  ", train)[1]) for name in CLASSES]
    weights = [float(re.search(rf" {name} .* (\S+)\n", train)[1]) for name in CLASSES]
    expected = [1 / math.log(1.02 + count / sum(counts)) for count in counts]
    assert weights == pytest.approx(expected, rel=5e-3) and "weight" not in val
    cut(folder / "JPEGImages/train_1.jpg")
    assert main(["data", "check", str(folder)]) == 1
    captured = capfd.readouterr()
    assert "problem: " in captured.err and "train_1.jpg" in captured.err
    assert "1 problem." in captured.out


def next_commands(capfd):
    """What the last command printed as the next steps, which the parser must take."""
    _, _, told = capfd.readouterr().out.rpartition("Next: ")
    commands = [shlex.split(line) for line in told.splitlines()]
    for program, *words in commands:
        assert program == "fcn-keras" and _parser().parse_args(words)
    return [words for _, *words in commands]


def test_commands_tell_the_next_step_ready_to_be_pasted(folder, finished_run, tmp_path, capfd):
    photos, masks = (
        shutil.move(folder / name, tmp_path / name) for name in ("JPEGImages", "SegmentationClass")
    )
    output = str(tmp_path / "my photographs' folder")
    command = ["data", "convert", "--images", str(photos), "--masks", str(masks)]
    command += ["--classes", str(folder / "classes.txt"), "--output", output]
    assert main(command) == 0
    check, train = next_commands(capfd)
    assert (check, train) == (["data", "check", output], ["train", "--dataset", output])
    assert main(check) == 0 and next_commands(capfd) == [train]
    assert main(["train", "--resume", str(finished_run)]) == 0
    assert next_commands(capfd) == [
        ["report", str(finished_run)],
        ["predict", "--model", str(finished_run), "--output", "results", "PHOTOS"],
    ]


def test_help_tells_the_tiles_that_are_used(capsys):
    from fcn_keras.inference.tiling import OVERLAP, TILE

    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"processed in one piece ({TILE} pixels)" in told
    assert f"overlap of averaged pieces ({OVERLAP} pixels)" in told


def test_the_page_accepts_photographs_of_64_million_pixels():
    assert _parser().parse_args(["demo", "--model", "run"]).max_pixels == 64_000_000
