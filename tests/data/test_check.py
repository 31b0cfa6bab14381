"""Data sets that could be trained on, but would teach nothing or the wrong thing."""

import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import save_palette_png, write_folder
from support.hostile_files import orientation, with_exif
from support.image_files import encoded

from fcn_keras.cli import main
from fcn_keras.cli.shared import print_problems
from fcn_keras.data import load_split
from fcn_keras.data.check import check_directory
from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.data.directory import directory_split
from fcn_keras.data.inspection import INSPECTED, inspect_before_training
from fcn_keras.data.split import voc_palette
from fcn_keras.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "my data", void=False)


def change_masks(folder, change, names="*"):
    """Replaces masks by what a function makes of their ids: an array, or a Pillow image."""
    for path in sorted((folder / "SegmentationClass").glob(f"{names}.png")):
        with Image.open(path) as file:
            ids = np.array(file)
        new = change(ids)
        (new if isinstance(new, Image.Image) else Image.fromarray(new)).save(path)


def found(folder):
    report = check_directory(folder)
    return "\n".join(report.problems), "\n".join(report.notes)


def before_training(folder):
    splits = [load_split(str(folder), part) for part in ("train", "val")]
    return inspect_before_training(str(folder), splits)


def binary(ids):
    return np.where(ids == 1, np.uint8(255), np.uint8(0))


def test_masks_of_0_and_255_are_a_problem_for_check_convert_and_train(folder, tmp_path, capfd):
    change_masks(folder, binary)
    assert main(["data", "check", str(folder)]) == 1
    told = capfd.readouterr()
    assert "1 problem." in told.out
    [line] = told.err.splitlines()
    assert "no mask has any value but 0 and 255" in line and "no pixel of box, bar" in line
    command = shlex.split(line.partition("run: ")[2])
    assert command[command.index("--masks") + 1] == str(folder / "SegmentationClass")
    assert command[-4:] == ["--binary", "box", "--output", "NEW"]

    with pytest.raises(UserError, match="any value but 0 and 255.*--binary box"):
        before_training(folder)
    run = tmp_path / "run"
    assert main(["train", "--dataset", str(folder), "--run-dir", str(run)]) == 1
    assert line.removeprefix("problem: ") in capfd.readouterr().err and not run.exists()

    options = Options(folder / "JPEGImages", folder / "SegmentationClass", folder / "classes.txt")
    done = convert(None, tmp_path / "new", options=options)
    [problem] = done.findings.problems
    assert "0 and 255" in problem and "--binary" in problem
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "written",
    [
        lambda ids: np.stack([ids] * 3, axis=-1),
        lambda ids: np.stack([ids, 0 * ids, 0 * ids], axis=-1),
        lambda ids: np.where(ids == 255, 0, ids + 1),
    ],
    ids=["three channels", "one channel", "from 1"],
)
def test_the_command_in_a_problem_settles_it(written, tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "my data")
    before = load_split(str(folder), "val").read(0)[1]
    change_masks(folder, lambda ids: written(ids).astype(np.uint8))
    [problem] = {line.partition(": ")[2] for line in found(folder)[0].splitlines()}
    command = shlex.split(problem[problem.index("fcn-keras data convert") :])
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    np.testing.assert_array_equal(load_split("NEW", "val").read(0)[1], before)


@pytest.mark.parametrize("ending", ["tif", "bmp", "gif"])
def test_the_command_for_masks_of_other_endings_settles_it(ending, folder, tmp_path, monkeypatch):
    before = load_split(str(folder), "val").read(0)[1]
    for path in sorted((folder / "SegmentationClass").iterdir()):
        Image.fromarray(np.asarray(Image.open(path))).save(path.with_suffix(f".{ending}"))
        path.unlink()
    told = found(folder)[0].splitlines()[0]
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(told[told.index("fcn-keras data convert") :])[1:]) == 0
    np.testing.assert_array_equal(load_split("NEW", "val").read(0)[1], before)


def test_the_command_for_masks_with_a_suffix_settles_it(folder, tmp_path, monkeypatch):
    before = load_split(str(folder), "val").read(0)[1]
    for path in sorted((folder / "SegmentationClass").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    told = found(folder)[0].splitlines()[0]
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(told[told.index("fcn-keras data convert") :])[1:]) == 0
    np.testing.assert_array_equal(load_split("NEW", "val").read(0)[1], before)


def test_the_command_for_a_list_of_another_name_settles_it(folder, tmp_path, monkeypatch):
    (folder / "classes.txt").rename(folder / "class_dict.csv")
    (folder / "class_dict.csv").write_text("name,r,g,b\na,0,0,0\nb,128,0,0\nc,0,128,0\n")
    told = found(folder)[0]
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(told[told.index("fcn-keras data convert") :])[1:]) == 0
    assert load_split("NEW", "val").labels.names == ("a", "b", "c")


def test_palettes_in_several_orders_are_a_problem_although_the_list_has_no_such_colours(
    folder, tmp_path
):
    colors = np.array([(9, 9, 9), (200, 10, 10), (10, 200, 10)], np.uint8)

    def paint(order):
        def change(ids):
            image = Image.fromarray(np.argsort(order).astype(np.uint8)[ids])
            image.putpalette(colors[order].ravel().tolist())
            return image

        return change

    change_masks(folder, paint([0, 1, 2]))
    assert found(folder)[0] == ""
    change_masks(folder, paint([2, 0, 1]), "train_0")
    assert "Palettes have the same colours in several orders" in found(folder)[0]
    with pytest.raises(UserError, match="Palettes .* 200 10 10 is index . in .*--mask-values"):
        before_training(folder)
    [problem] = convert(folder, tmp_path / "new").findings.problems
    assert "Palettes have the same colours" in problem and "--format folders" in problem


def test_some_masks_of_0_and_255_are_a_note(folder, tmp_path):
    change_masks(folder, binary, "train_0")
    note = "1 of 8 masks have only the values 0 and 255"
    assert note in found(folder)[1] and note in "\n".join(before_training(folder))
    assert note in "\n".join(convert(folder, tmp_path / "new").findings.notes)


def test_masks_of_black_and_red_are_colours_not_0_and_255(folder):
    (folder / "classes.txt").write_text("a\t0 0 0\nb\t255 0 0\nc\t0 128 0\n")
    colors = np.array([(0, 0, 0), (255, 0, 0), (0, 128, 0)], np.uint8)
    change_masks(folder, lambda ids: Image.fromarray(colors[ids * (ids < 2)]), "train_0")
    change_masks(folder, lambda ids: Image.fromarray(colors[ids]), "train_[1-9]")
    assert found(folder) == ("", "") and before_training(folder) == []


def test_one_pixel_of_another_class_is_enough(tmp_path):
    folder = write_folder(tmp_path / "data", train=INSPECTED + 4)
    change_masks(folder, binary)
    last = np.random.default_rng(0).permutation(INSPECTED + 4)[-1]
    change_masks(folder, lambda ids: np.pad([[2]], (0, 0)).astype(np.uint8), f"train_{last}")
    Image.new("RGB", (1, 1)).save(folder / f"JPEGImages/train_{last}.jpg")
    assert found(folder)[0] == ""
    assert any("val: no mask has a pixel of box, bar" in note for note in before_training(folder))


def test_classes_without_pixels_are_notes(folder, capfd):
    change_masks(folder, lambda ids: np.where(ids == 2, 0, ids).astype(np.uint8), "val_*")
    change_masks(folder, lambda ids: np.full_like(ids, 255), "train_3")
    assert main(["data", "check", str(folder)]) == 0
    notes = capfd.readouterr().err.splitlines()
    assert notes == [
        "Note: 1 of 8 masks (train_3) without a labelled pixel.",
        "Note: val: no mask has a pixel of bar (1 of the 3 classes).",
    ]
    assert before_training(folder) == [note.removeprefix("Note: ") for note in notes]


def test_a_single_class_is_a_note(folder):
    (folder / "classes.txt").write_text("box\n")
    change_masks(folder, binary)
    problems, notes = found(folder)
    assert problems == "" and "there is one class, box" in notes
    assert "--binary box" in notes and before_training(folder) == notes.splitlines()


def test_images_that_are_their_own_masks_are_a_problem(folder, tmp_path):
    for path in (folder / "SegmentationClass").glob("*_0.png"):
        (folder / "JPEGImages" / path.with_suffix(".jpg").name).unlink()
        Image.open(path).convert("RGB").save(folder / "JPEGImages" / path.name)
    problems, _ = found(folder)
    assert "are the same picture: 2 of 8 masks (train_0, val_0)" in problems
    with pytest.raises(UserError, match="are the same picture"):
        before_training(folder)
    masks, classes = folder / "SegmentationClass", folder / "classes.txt"
    shutil.copytree(masks, tmp_path / "same")
    done = convert(None, tmp_path / "new", options=Options(tmp_path / "same", masks, classes))
    assert len(done.findings.problems) == 8 and "the same picture" in done.findings.problems[0]


def test_photographs_for_masks_are_told_once(folder):
    for path in (folder / "JPEGImages").glob("*.jpg"):
        Image.open(path).save(path.with_suffix(".png"))
        Image.open(path).save(folder / "SegmentationClass" / f"{path.stem}.png")
        path.unlink()
    problems, _ = found(folder)
    assert "the same picture: 8 of 8 masks" in problems and len(problems.splitlines()) == 1


def test_a_black_photograph_without_objects_is_not_its_own_mask(folder):
    Image.new("RGB", (64, 48)).save(folder / "JPEGImages/train_0.png")
    (folder / "JPEGImages/train_0.jpg").unlink()
    Image.new("RGB", (64, 48)).save(folder / "SegmentationClass/train_0.png")
    assert found(folder)[0] == ""


def quantized(ids):
    """Of the same look, with a palette of its own order."""
    return Image.fromarray(np.array(voc_palette(), np.uint8)[ids]).quantize(8)


def test_palettes_in_another_order_are_a_problem(folder):
    change_masks(folder, quantized)
    with Image.open(folder / "SegmentationClass/train_0.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[:3] != [0, 0, 0]  # or this tests nothing
    problems, _ = found(folder)
    assert "the colours of classes.txt in another order" in problems
    assert "8 of 8 masks (train_0, " in problems and len(problems.splitlines()) == 1
    assert "--mask-values colors --output NEW" in problems
    with pytest.raises(UserError, match="in another order"):
        before_training(folder)


def test_ids_beyond_the_list_are_explained_by_the_palette(folder):
    palette = [(0, 0, 0), (224, 224, 192), (128, 0, 0), (0, 128, 0)]  # unlabelled is the second

    def shifted(ids):
        mask = Image.fromarray(np.where(ids, ids + 1, 0).astype(np.uint8))
        mask.putpalette([level for color in palette for level in color])
        return mask

    change_masks(folder, shifted)
    problems, _ = found(folder)
    assert "in another order" in problems and len(problems.splitlines()) == 1
    (folder / "classes.txt").write_text("ground\t9 9 9\nbox\t8 8 8\nbar\t7 7 7\n")
    assert found(folder)[0].count("the mask has id 3, but there are 3 classes") == 8


def test_black_as_the_second_of_two_colours_is_not_the_first_class(folder):
    (folder / "classes.txt").write_text("ground\nbox\n")

    def two(first, second):
        def change(ids):
            mask = Image.fromarray((ids == (1 if first == 0 else 0)).astype(np.uint8))
            mask.putpalette([first] * 3 + [second] * 3)
            return mask

        return change

    change_masks(folder, two(0, 255))
    assert found(folder)[0] == ""
    change_masks(folder, two(255, 0))
    assert "id 1 has that of ground" in found(folder)[0]


@pytest.mark.parametrize(
    "colors", [[(9, 9, 9), (0, 128, 0), (0, 0, 0)], [(0, 0, 0)] * 3, [(i, i, i) for i in range(3)]]
)
def test_ids_count_where_a_palette_has_other_colours(folder, colors):
    def painted(ids):
        mask = Image.fromarray(ids)
        mask.putpalette([level for color in colors for level in color])
        return mask

    change_masks(folder, painted)
    assert found(folder) == ("", "") and before_training(folder) == []


def test_the_colour_of_unlabelled_indices_does_not_matter(tmp_path):
    folder = write_folder(tmp_path / "data", void=True)
    black = [*voc_palette()[:3], *[(0, 0, 0)] * 253]
    change_masks(folder, lambda ids: recolored(np.where(ids == 0, 1, ids), black))
    assert found(folder)[0] == ""


def test_no_problem_is_lost_where_most_palettes_have_other_colours(folder):
    change_masks(folder, lambda ids: recolored(ids, [(9, 9, 9), (8, 8, 8), (7, 7, 7)]))
    new = [(0, 0, 0), (128, 0, 0), (224, 224, 192), (0, 128, 0)]  # bar is the fourth
    change_masks(folder, lambda ids: recolored(ids + (ids == 2), new), "val_0")
    [problem] = check_directory(folder).problems
    assert "SegmentationClass/val_0.png: " in problem


def recolored(ids, colors):
    mask = Image.fromarray(ids.astype(np.uint8))
    mask.putpalette([level for color in colors for level in color])
    return mask


def turn(folder, value, names):
    for path in (folder / "JPEGImages").glob(f"{names}.jpg"):
        path.write_bytes(with_exif(path.read_bytes(), orientation(value)))


def test_photographs_that_exif_turns_are_noted_by_orientation(folder, capfd):
    turn(folder, 3, "train_*")
    turn(folder, 2, "val_0")
    assert main(["data", "check", str(folder)]) == 0
    first, second = capfd.readouterr().err.splitlines()
    assert "EXIF shows 1 of 8 photographs (val_0) mirrored (orientation 2)" in first
    assert "EXIF shows 6 of 8 photographs (train_0, " in second and "upside down" in second
    assert shlex.split(second.rpartition(": ")[2])[-4:] == ["--exif", "apply", "--output", "NEW"]
    assert len(before_training(folder)) == 2


def test_a_size_that_exif_explains_is_told_so(folder):
    turn(folder, 6, "train_[01]")
    problems, notes = found(folder)
    assert "EXIF shows them turned to the right (orientation 6): 2 of 8 masks" in problems
    assert "--exif ignore" in problems and len(problems.splitlines()) == 1 and not notes
    with pytest.raises(UserError, match="the mask is 48×64, but .* 64×48 .*--exif ignore"):
        directory_split(folder, "train").read(0)
    change_masks(folder, lambda ids: ids.T, "train_[01]")  # as EXIF shows the photographs
    assert found(folder) == ("", "")


def test_little_is_read_before_training(tmp_path):
    folder = write_folder(tmp_path / "data", train=40)
    late = np.random.default_rng(0).permutation(40)[INSPECTED:]
    for index in late:
        (folder / f"SegmentationClass/train_{index}.png").write_bytes(b"")
    assert before_training(folder) == []
    assert len(check_directory(folder).problems) == len(late)


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def nested(folder):
    inner = folder / "dataset"
    inner.mkdir()
    for path in [path for path in folder.iterdir() if path != inner]:
        path.rename(inner / path.name)


def as_arrays(folder):
    for path in (folder / "SegmentationClass").iterdir():
        path.rename(path.with_suffix(".npy"))


LISTS = "ImageSets/Segmentation"
LAYOUTS = {
    "masks under labelme's name": (
        rename("SegmentationClass", "SegmentationClassPNG"),
        "/SegmentationClass: no such folder. SegmentationClassPNG is there: rename it to "
        "SegmentationClass.",
    ),
    "photographs under another name": (
        rename("JPEGImages", "images"),
        "/JPEGImages: no such folder. images is there: rename it to JPEGImages.",
    ),
    "no photographs": (rename("JPEGImages", "../moved"), "no such folder. Restore it or choose"),
    "labelme's list of classes": (
        rename("classes.txt", "class_names.txt"),
        "classes.txt: no such file. class_names.txt is there: write its class names to",
    ),
    "a folder in the folder": (nested, "/dataset: choose that folder."),
    "no val.txt": (
        lambda folder: (folder / LISTS / "val.txt").unlink(),
        "val.txt: no such file. Move about a fifth of the lines of train.txt into it. Lists found: "
        "train. Or let the images be drawn at random: fcn-keras data convert",
    ),
    "no train.txt": (rename(f"{LISTS}/train.txt", f"{LISTS}/all.txt"), "found: all, val. Or let"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_is_nearly_right_is_told_once(name, folder):
    damage, message = LAYOUTS[name]
    damage(folder)
    [problem] = check_directory(folder).problems
    assert message in problem
    with pytest.raises(UserError) as error:
        load_split(str(folder), "train"), load_split(str(folder), "val")
    assert str(error.value) == problem


def test_folders_inside_a_data_set_are_told_the_way_out(folder):
    with pytest.raises(UserError, match=f"Choose the folder that contains JPEGImages: {folder}"):
        load_split(str(folder / "JPEGImages"), "train")
    (folder / "classes.txt").unlink()
    [problem] = check_directory(folder).problems
    assert "no such file. Write one class name per line, the first for id 0." in problem
    assert "data convert" in problem


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_pascal_voc_is_recognized(place, tmp_path):
    (write_folder(tmp_path / "VOCdevkit/VOC2012") / "classes.txt").unlink()
    with pytest.raises(UserError) as error:
        load_split(str(tmp_path / place), "train")
    assert f"use --dataset voc2012 --data-dir {tmp_path}." in str(error.value)


def test_a_folder_beside_pascal_voc_is_another_data_set(tmp_path):
    for name in ("VOCdevkit/VOC2012", "other"):
        (write_folder(tmp_path / name) / "classes.txt").unlink()
    with pytest.raises(UserError, match="Write one class name per line"):
        load_split(str(tmp_path / "other"), "train")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "JPEGImages/val_1.jpg",
            "val_1.tif",
            "val_1.tif is there: save it as a JPEG or PNG, or",
        ),
        (
            "JPEGImages/val_1.jpg",
            "val_1.WEBP",
            "val_1.WEBP is there: save it as a JPEG or PNG, or",
        ),
        ("JPEGImages/val_1.jpg", "val_1.Jpg", "val_1.Jpg is there: rename it to val_1.jpg."),
        ("SegmentationClass/val_1.png", "val_1.npy", "val_1.npy is there: save it as a PNG of"),
    ],
)
def test_another_ending_is_named(folder, old, new, told):
    (folder / old).rename((folder / old).with_name(new))
    [problem] = check_directory(folder).problems
    assert f"/{old}: the " in problem and told in problem
    with pytest.raises(UserError, match=re.escape(told)):
        directory_split(folder, "val")


def test_older_labelme_has_its_pngs_in_another_folder(folder):
    (folder / "SegmentationClass").rename(folder / "SegmentationClassPNG")
    shutil.copytree(folder / "SegmentationClassPNG", folder / "SegmentationObjectPNG")
    shutil.copytree(folder / "SegmentationClassPNG", folder / "Object masks")
    (folder / "SegmentationClass").mkdir()
    problems = check_directory(folder).problems
    assert len(problems) == 8
    for problem in problems:
        assert "the mask is missing. SegmentationClassPNG has it: rename that folder" in problem


def test_problems_of_one_kind_are_cut_short(folder, capfd):
    for name in ("train_0", "train_1", "train_2", "train_3", "train_4", "val_1"):
        (folder / f"SegmentationClass/{name}.png").unlink()
    (folder / "JPEGImages/train_5.jpg").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 1
    told = capfd.readouterr()
    lines = told.err.splitlines()
    assert len(lines) == 7 and "7 problems." in told.out
    assert lines[5] == "problem: and 1 more like this" and "train_5.jpg: not a" in lines[6]
    assert main(["data", "check", str(folder), "--all"]) == 1
    told = capfd.readouterr()
    assert len(told.err.splitlines()) == 7 and "more" not in told.err


def test_problems_of_files_of_any_name_are_of_one_kind(capfd):
    names = [*"abcdefghij", "my cat", "dog", "street 1", "street 2"]
    problems = [
        f"data/{name}.png: the mask is 4×{len(name)}. {name}.tif is there" for name in names
    ]
    print_problems([*problems, "data/x.png: something else", "no place"], " Then.")
    told = capfd.readouterr()
    assert "and 9 more like this" in told.err and told.out == "16 problems. Then.\n"
    assert len(told.err.splitlines()) == 5 + 1 + 2


def test_pictures_show_masks_over_photographs(folder, tmp_path, capfd):
    picture = tmp_path / "sheet.png"
    change_masks(folder, lambda ids: np.where(ids == 2, 0, ids).astype(np.uint8), "*[1-5]")
    assert main(["data", "check", str(folder), "--pictures", str(picture)]) == 0
    assert f"Pictures: {picture}" in capfd.readouterr().out
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    # The pictures are not resampled: the green of bar over the dark bar, half and half.
    blended = (np.array((20, 30, 90)) + voc_palette()[2]) / 2
    assert (np.abs(pixels - blended).max(axis=1) < 12).sum() >= 2 * 48 * 10
    picture.write_bytes(encoded(np.zeros((2, 2), np.uint8)))
    assert main(["data", "check", str(folder), "--pictures", str(picture)]) == 1
    assert "was not written by this command" in capfd.readouterr().err
    assert main(["data", "check", str(folder), "--pictures", "sheet.pdf"]) == 1
    assert "--pictures must end in .png" in capfd.readouterr().err


def test_pictures_of_rare_classes_come_first():
    from fcn_keras.data.contact_sheet import choose

    counts = {  # ground, box, bar, unlabelled
        "a": np.array([90, 9, 0, 1]),
        "b": np.array([90, 5, 5, 0]),
        "c": np.array([97, 0, 3, 0]),
        "d": np.array([100, 0, 0, 0]),
        "e": np.array([0, 0, 0, 0]),
    }
    assert choose(counts, 9) == [("b", 2), ("a", 1), ("d", 0), ("c", 2)]
    assert choose(counts, 2) == [("b", 2), ("a", 1)]


def test_pictures_are_drawn_although_there_are_problems(folder, tmp_path, capfd):
    change_masks(folder, binary)
    save_palette_png(np.zeros((4, 4), np.uint8), folder / "SegmentationClass/train_0.png")
    picture = tmp_path / "sheet.png"
    assert main(["data", "check", str(folder), "--pictures", str(picture)]) == 1
    assert picture.is_file()
    (folder / "classes.txt").unlink()
    assert main(["data", "check", str(folder), "--pictures", str(tmp_path / "none.png")]) == 1
    assert "not written" in capfd.readouterr().out and not (tmp_path / "none.png").exists()
