"""`fcn-keras data convert` on labelme's exports and on image files in folders of any layout."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.fake_folder import draw_example, save_palette_png
from support.image_files import encoded

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.data.split import voc_palette
from fcn_keras.errors import UserError

NAMES = ("_background_", "box", "bar")
COLORS = np.array([(0, 0, 0), (10, 20, 30), (200, 100, 0)], np.uint8)


def write_export(root, masks="SegmentationClass", count=5):
    """Writes what labelme2voc.py does, without its pictures for viewing; returns the true masks."""
    rng, truth = np.random.default_rng(0), {}
    for folder in ("JPEGImages", masks, "SegmentationClassNpy"):
        (root / folder).mkdir(parents=True)
    (root / "class_names.txt").write_text("\n".join(NAMES))  # without a newline at the end
    for index in range(count):
        name = f"photo {index}.v1"
        image, truth[name] = draw_example(rng, (20, 30), void=True)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
        save_palette_png(truth[name], root / masks / f"{name}.png")
        np.save(root / "SegmentationClassNpy" / f"{name}.npy", truth[name])
    return truth


def paint_masks(export, folder):
    """Paints an export's masks in colours, and writes the list of colours."""
    folder.mkdir()
    for path in (export / "SegmentationClass").iterdir():
        ids = np.asarray(Image.open(path))
        rgb = np.where((ids == 255)[..., None], (224, 224, 192), COLORS[ids % 255]).astype(np.uint8)
        Image.fromarray(rgb).save(folder / path.name)
    lines = [f"{name}\t{' '.join(map(str, color))}" for name, color in zip(NAMES, COLORS)]
    (folder / "colors.txt").write_text("\n".join(lines))


def flags(export, output, **changes):
    paths = {
        "images": export / "JPEGImages",
        "masks": export / "SegmentationClass",
        "classes": export / "class_names.txt",
        "output": output,
    }
    chosen = {**paths, **changes}
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


def assert_holds(folder, truth):
    splits = [load_split(str(folder), name) for name in ("train", "val")]
    assert sorted([*splits[0].ids, *splits[1].ids]) == sorted(truth)
    for split in splits:
        assert split.labels.names == NAMES
        for index, name in enumerate(split.ids):
            np.testing.assert_array_equal(split.read(index)[1], truth[name])


@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationClassPNG"])
def test_labelmes_export_becomes_a_data_set(masks, tmp_path, capfd):
    export, output = tmp_path / "export", tmp_path / "new" / "data"
    truth = write_export(export, masks)
    assert main(["data", "convert", *flags(export, output, masks=export / masks)]) == 0
    assert f"{output}: train 4, val 1 images." in capfd.readouterr().out
    assert_holds(output, truth)
    assert [path.name for path in output.parent.iterdir()] == ["data"]
    assert main(["data", "check", str(output)]) == 0


def test_masks_of_colours_become_ids(tmp_path):
    export, painted, output = tmp_path / "export", tmp_path / "painted", tmp_path / "data"
    truth = write_export(export)
    paint_masks(export, painted)
    changes = {"masks": painted, "classes": painted / "colors.txt"}
    assert main(["data", "convert", *flags(export, output, **changes)]) == 0
    assert_holds(output, truth)
    assert load_split(str(output), "val").labels.palette == tuple(map(tuple, COLORS.tolist()))
    picture = Image.open(next((output / "SegmentationClass").iterdir()))
    assert picture.mode == "P" and picture.getpalette()[3:6] == [10, 20, 30]


def test_labels_txt_of_labelme_serves_as_well(tmp_path):
    export = tmp_path / "export"
    truth = write_export(export)
    (export / "labels.txt").write_text("\n".join(["__ignore__", *NAMES]))
    changes = {"classes": export / "labels.txt"}
    assert main(["data", "convert", *flags(export, tmp_path / "data", **changes)]) == 0
    assert_holds(tmp_path / "data", truth)


def test_all_problems_are_listed_and_nothing_is_written(tmp_path, capfd):
    export, output = tmp_path / "export", tmp_path / "data"
    write_export(export)
    save_palette_png(np.full((20, 30), 7, np.uint8), export / "SegmentationClass/photo 0.v1.png")
    save_palette_png(np.zeros((20, 31), np.uint8), export / "SegmentationClass/photo 1.v1.png")
    (export / "JPEGImages/photo 2.v1.jpg").write_bytes(b"no picture")
    assert main(["data", "convert", *flags(export, output)]) == 1
    captured = capfd.readouterr()
    assert "3 problems. Nothing was written." in captured.out
    for text in (
        "photo 0.v1.png: the id 7 is no class's",
        "the mask is 20×31",
        "not a readable image",
    ):
        assert text in captured.err
    assert not output.exists() and "Traceback" not in captured.err


def test_files_without_a_partner_are_named_and_left_out(tmp_path, capfd):
    export, output = tmp_path / "export", tmp_path / "data"
    truth = write_export(export)
    (export / "SegmentationClass/photo 3.v1.png").unlink()
    (export / "JPEGImages/photo 4.v1.jpg").unlink()
    assert main(["data", "convert", *flags(export, output)]) == 0
    stderr = capfd.readouterr().err
    assert "no partner" in stderr and stderr.count("\n") == 2
    assert "JPEGImages/photo 3.v1.jpg" in stderr and "SegmentationClass/photo 4.v1.png" in stderr
    assert_holds(output, {name: truth[name] for name in list(truth)[:3]})


def test_the_seed_draws_the_validation_images(tmp_path):
    write_export(tmp_path / "export", count=20)

    def val(seed, share=0.3):
        output = tmp_path / f"{seed}-{share}-{len(list(tmp_path.iterdir()))}"
        export = tmp_path / "export"
        parts = ("JPEGImages", "SegmentationClass", "class_names.txt")
        source = Options(*(export / part for part in parts))
        done = convert(None, output, options=source, val=share, seed=seed)
        ids = {name: load_split(str(output), name).ids for name in ("train", "val")}
        assert done.sizes == {name: len(found) for name, found in ids.items()}
        assert sum(done.sizes.values()) == 20
        return ids["val"]

    assert val(1) == val(1) != val(2)
    assert len(val(1)) == 6  # 0.3 of 20
    assert len(val(1, 0.001)) == 1 and len(val(1, 0.999)) == 19  # neither split is empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": 1.0}, "--val must be between 0 and 1. Received: 1.0"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"images": "no/such"}, "no/such: no such folder"),
        ({"classes": "no/such.txt"}, "no/such.txt: no such file"),
        ({"masks": "empty"}, "0 pairs of image and mask, among 5 images and 0 masks"),
    ],
)
def test_mistakes_are_named(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    export = tmp_path / "export"
    write_export(export)
    source = {
        "images": export / "JPEGImages",
        "masks": export / "SegmentationClass",
        "classes": export / "class_names.txt",
    }
    with pytest.raises(UserError, match=message):
        given = {name: changes.pop(name, path) for name, path in source.items()}
        paths = {name: Path(path) for name, path in given.items()}
        convert(None, tmp_path / "data", options=Options(**paths), **changes)
    assert not (tmp_path / "data").exists()


def test_an_existing_folder_is_kept(tmp_path, capfd):
    write_export(tmp_path / "export")
    (tmp_path / "data").mkdir()
    assert main(["data", "convert", *flags(tmp_path / "export", tmp_path / "data")]) == 1
    assert "already exists and is never overwritten" in capfd.readouterr().err
    assert list((tmp_path / "data").iterdir()) == []


SIZE = (20, 30)
RGB = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
RGB_LIST = "background\t0 0 0\nbox\t255 0 0\nbar\t0 255 0\n"
PLAIN_LIST = "background\nbox\nbar\n"


def write_pairs(root, image="images/{}.jpg", mask="masks/{}.png", paint=Image.fromarray, count=4):
    """Writes photographs and their masks below a folder; returns the true masks by number."""
    truth = {}
    for number in range(count):
        photograph, ids = draw_example(np.random.default_rng(number), SIZE, void=False)
        truth[str(number)] = ids
        for name, picture in ((image, Image.fromarray(photograph)), (mask, paint(ids))):
            path = root / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = "JPEG" if path.suffix in (".Jpg", ".jfif") else None
            picture.save(path, kind)
    return truth


def run(root, *given, classes=PLAIN_LIST, source=None):
    """Converts a folder below `root`; returns the exit code and the new data set's place."""
    if classes:
        (root / "list").write_text(classes)
        given = (*given, "--classes", str(root / "list"))
    source = [str(root / "in")] if source is None else source
    shutil.rmtree(root / "out", ignore_errors=True)
    return main(["data", "convert", *source, *given, "--output", str(root / "out")])


def masks_of(root):
    """The masks of a new data set by the digit in their names."""
    masks = {}
    for name in ("train", "val", "test"):
        if (root / "out/ImageSets/Segmentation" / f"{name}.txt").exists():
            split = load_split(str(root / "out"), name)
            for index, id in enumerate(split.ids):
                digit = next(letter for letter in id.rpartition("/")[2] if letter.isdigit())
                masks[digit] = split.read(index)[1]
    return masks


def assert_same(found, truth):
    assert found.keys() == truth.keys()
    for name, ids in truth.items():
        np.testing.assert_array_equal(found[name], ids)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("Images/{}.png", "Labels/{}.png"),
        ("images/day/{}.jpg", "masks/day/{}.tif"),
        ("images/day/{}.jpg", "masks/{}.bmp"),
        ("images/{}.webp", "masks/{}_mask.gif"),
        ("images/{}.Jpg", "masks/{}_L.png"),
        ("images/{}.jfif", "masks/{}.png"),
        ("images/ISIC_{}.jpeg", "gt/ISIC_{}_segmentation.png"),
        ("images/{}.jpg", "masks/{}.jpg.png"),
        ("images/img{}.bmp", "masks/mask{}.png"),
        ("images/x{}_leftImg8bit.png", "masks/x{}_gtFine_labelIds.png"),
        ("hr/{}.tif", "hr-mask/{}.png"),
        ("{}_sat.jpg", "{}_mask.png"),
        ("{}.jpg", "{}.png"),
        ("all/{}.png", "all/{}_label.png"),
        ("leftImg8bit/{}.png", "annotations/{}.png"),
    ],
)
def test_pairs_are_found_by_their_names(image, mask, tmp_path):
    truth = write_pairs(tmp_path / "in", image, mask)
    assert run(tmp_path) == 0
    assert_same(masks_of(tmp_path), truth)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{0}/images/{1}.jpg", "{0}/masks/{1}.png"),
        ("images/{0}/{1}.jpg", "annotations/{0}/{1}.png"),
        ("{0}/{1}.jpg", "{0}annot/{1}.png"),
        ("{0}/{1}.jpg", "{0}/{1}_mask.png"),
        ("{0}_images/{1}.jpg", "{0}_labels/{1}.png"),
    ],
)
def test_splits_of_folders_are_kept(image, mask, tmp_path):
    for index, split in enumerate(("training", "valid", "test")):
        for number in range(2):  # the same names in each split
            write_pairs(
                tmp_path / "in",
                image.format(split, number),
                mask.format(split, number),
                lambda ids, index=index: Image.fromarray(np.full_like(ids, index)),
                count=1,
            )
    assert run(tmp_path) == 0
    for index, split in enumerate(("train", "val", "test")):
        found = load_split(str(tmp_path / "out"), split)
        assert len(found) == 2 and (found.read(0)[1] == index).all()


def test_splits_of_lists_are_kept(tmp_path, capfd):
    write_pairs(tmp_path / "in")
    (tmp_path / "in/train.txt").write_text("/CamVid/images/0.jpg /CamVid/masks/0.png\n2\n")
    (tmp_path / "in/val.txt").write_text("images\\1.jpg\n3\n9\n")
    assert run(tmp_path) == 0
    assert load_split(str(tmp_path / "out"), "train").ids == ("0", "2")
    assert load_split(str(tmp_path / "out"), "val").ids == ("1", "3")
    assert "val.txt: val, 2 images; 1 of its lines name none here." in capfd.readouterr().err
    (tmp_path / "in/val.txt").write_text("0\n")
    assert run(tmp_path) == 1
    assert "val.txt: 0 is in another list, too" in capfd.readouterr().err


def test_colours_of_unknown_classes_are_listed_ready_to_be_filled_in(tmp_path, capfd):
    truth = write_pairs(tmp_path / "in", paint=lambda ids: Image.fromarray(RGB[ids]))
    assert run(tmp_path, classes=None) == 1
    listed = capfd.readouterr().out
    share = sum((ids == 2).sum() for ids in truth.values()) / (4 * SIZE[0] * SIZE[1])
    assert f"# {share:.2%}, in 4 of 4 masks" in listed.splitlines()
    assert run(tmp_path, classes=listed) == 0
    labels = load_split(str(tmp_path / "out"), "val").labels
    assert labels.palette[0] == (0, 0, 0) and set(labels.palette) == set(map(tuple, RGB.tolist()))
    painted = {name: labels.colors()[ids] for name, ids in masks_of(tmp_path).items()}
    assert_same(painted, {name: RGB[ids] for name, ids in truth.items()})


def test_all_unknown_colours_are_one_problem(tmp_path, capfd):
    write_pairs(tmp_path / "in", paint=lambda ids: Image.fromarray(RGB[ids]))
    assert run(tmp_path, classes="background\t0 0 0\n") == 1
    out, err = capfd.readouterr()
    assert "in/masks/0.png and 3 other masks: 2 colours are no class's" in err
    assert err.count("\n") == 2 and "class_1\t0 255 0\n" in out and "class_2\t255 0 0\n" in out


def grey(change):
    return lambda ids: Image.fromarray(change(ids).astype(np.uint8))


def quantized(ids):
    return Image.fromarray(np.array(voc_palette(3), np.uint8)[ids]).quantize(8)


def jpeg_of(root, pictures):
    for number, picture in enumerate(pictures):
        picture.save(root / f"in/masks/{number}.png", "JPEG", quality=90)


# How masks are painted, what is said of them, the command that helps, and what their ids become.
BINARY = "If white (255) is a class: --binary NAME"
WAYS = {
    "binary": (grey(lambda ids: (ids > 0) * 255), BINARY, ["--binary", "box"], lambda ids: ids > 0),
    "binary RGB": (
        lambda ids: Image.fromarray(np.stack([(ids > 0) * np.uint8(255)] * 3, -1)),
        BINARY,
        ["--binary", "box"],
        lambda ids: ids > 0,
    ),
    "ids from 1": (grey(lambda ids: ids + 1), ": --ids-from 1.", ["--ids-from", "1"], None),
    "0 is unlabelled": (
        grey(lambda ids: np.where(ids == 2, 0, ids + 2)),
        "the id 3 is no class's",
        ["--ids-from", "2", "--unlabelled", "0"],
        lambda ids: np.where(ids == 2, 255, ids),
    ),
    "three channels": (
        lambda ids: Image.fromarray(np.stack([ids] * 3, -1)),
        ": --mask-values ids.",
        ["--mask-values", "ids"],
        None,
    ),
    "a palette in another order": (
        quantized,
        "--mask-values colors. If the indices",
        ["--mask-values", "colors"],
        None,
    ),
    "a colour for unlabelled": (
        lambda ids: Image.fromarray(np.array([(0, 0, 0), (9, 9, 200), (0, 128, 0)], np.uint8)[ids]),
        "the colour (9, 9, 200) is no class's",
        ["--unlabelled-color", "9", "9", "200"],
        lambda ids: np.where(ids == 1, 255, ids),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_masks_hold_can_be_said_and_the_error_says_how(way, tmp_path, capfd):
    paint, message, given, becomes = WAYS[way]
    truth = write_pairs(tmp_path / "in", paint=paint)
    assert run(tmp_path) == 1
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()
    classes = None if "--binary" in given else PLAIN_LIST
    assert run(tmp_path, *given, classes=classes) == 0
    expected = {name: becomes(ids) if becomes else ids for name, ids in truth.items()}
    assert_same(masks_of(tmp_path), expected)


def test_lossy_masks_get_the_nearest_class_only_if_asked(tmp_path, capfd):
    truth = write_pairs(tmp_path / "in", paint=lambda ids: Image.fromarray(RGB[ids]))
    jpeg_of(tmp_path, [Image.fromarray(RGB[ids]) for ids in truth.values()])
    assert run(tmp_path, classes=RGB_LIST) == 1
    assert "a mask must not be a JPEG" in capfd.readouterr().err
    assert run(tmp_path, "--nearest", classes=RGB_LIST) == 0
    assert "colours of no class and got the nearest class's" in capfd.readouterr().err
    for name, ids in masks_of(tmp_path).items():
        assert (ids != truth[name]).mean() < 0.02
    jpeg_of(tmp_path, [Image.fromarray(ids) for ids in truth.values()])
    assert run(tmp_path, "--nearest", classes=RGB_LIST) == 1
    assert "a grey mask, whose values are near no class's colour" in capfd.readouterr().err


def test_with_nearest_vocs_cream_is_unlabelled_only_if_asked(tmp_path):
    def paint(ids):
        picture = RGB[ids]
        picture[:5] = 224, 224, 192
        return Image.fromarray(picture)

    write_pairs(tmp_path / "in", paint=paint)
    assert run(tmp_path, "--nearest", classes=RGB_LIST) == 0
    assert not any((ids == 255).any() for ids in masks_of(tmp_path).values())
    cream = ["--unlabelled-color", "224", "224", "192"]
    assert run(tmp_path, "--nearest", *cream, classes=RGB_LIST) == 0
    for ids in masks_of(tmp_path).values():
        assert (ids[:5] == 255).all() and (ids[5:] != 255).all()


def turned(ids):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(ids)
    image.info["exif"] = exif.tobytes()
    return image


def two_pages(root):
    pages = [Image.fromarray(np.zeros(SIZE, np.uint8))] * 2
    pages[0].save(root / "in/masks/0.tif", save_all=True, append_images=pages[1:])
    (root / "in/masks/0.png").unlink()


def per_class(root):
    (root / "in/masks").rename(root / "masks")
    for name in ("car", "road"):
        shutil.copytree(root / "masks", root / "in/masks" / name)


NOISE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: Image.fromarray(NOISE).save(root / "in/masks/0.png"), "a photograph, or a"),
        (
            lambda root: Image.fromarray(NOISE[..., 0]).save(root / "in/masks/0.png"),
            "a photograph, or numbers of objects",
        ),
        (
            lambda root: Image.fromarray(NOISE[..., 0] * np.uint16(9)).save(
                root / "in/masks/0.png"
            ),
            "numbers of objects rather than of classes",
        ),
        (
            lambda root: shutil.copy(root / "in/images/0.jpg", root / "in/masks/0.png"),
            "masks/0.png: the mask and the photograph are the same picture",
        ),
        (
            lambda root: turned(np.zeros(SIZE, np.uint8)).save(
                root / "in/masks/0.png", exif=turned(NOISE).info["exif"]
            ),
            "EXIF data turn the mask",
        ),
        (two_pages, "a TIFF of several pages"),
        (per_class, "join them to one mask of ids"),
        (lambda root: shutil.copy(root / "in/images/0.jpg", root / "in/images/0.jpeg"), "the same"),
        (
            lambda root: shutil.rmtree(root / "in/masks"),
            "neither masks beside images nor labels",
        ),
    ],
)
def test_what_is_no_mask_is_refused_by_name(spoil, message, tmp_path, capfd):
    write_pairs(tmp_path / "in")
    spoil(tmp_path)
    assert run(tmp_path) == 1
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--binary", "box"], "--binary NAME excludes --classes"),
        (["--ids-from", "300"], "must be 0 to 255"),
        (["--nearest", "--mask-values", "ids"], "--nearest is for colours"),
        (["--unlabelled-color", "1", "2", "3"], "--unlabelled-color is for colours"),
        (["--mask-suffix", "_car"], "0 pairs of image and mask"),
    ],
)
def test_options_that_do_not_fit_are_named(given, message, tmp_path, capfd):
    write_pairs(tmp_path / "in")
    assert run(tmp_path, *given) == 1
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_of_several_masks_one_is_chosen_by_its_suffix(tmp_path, capfd):
    truth = write_pairs(tmp_path / "in", mask="masks/{}_ids.png")
    write_pairs(
        tmp_path / "in", mask="masks/{}_color.png", paint=lambda ids: Image.fromarray(RGB[ids])
    )
    assert run(tmp_path) == 1
    error = capfd.readouterr().err
    assert "NAME is NAME_ids" in error and "NAME is NAME_color" in error
    assert run(tmp_path, "--mask-suffix", "_ids") == 0
    assert_same(masks_of(tmp_path), truth)


def test_a_list_of_cvat_puts_the_background_first(tmp_path):
    truth = write_pairs(tmp_path / "in", paint=lambda ids: Image.fromarray(RGB[ids]))
    text = "# label:color_rgb:parts:actions\nbar:0,255,0::\nbackground:0,0,0::\nbox:255,0,0::\n"
    (tmp_path / "in/labelmap.txt").write_text(text)
    assert run(tmp_path, classes=None) == 0
    labels = load_split(str(tmp_path / "out"), "val").labels
    assert labels.names == ("background", "bar", "box")
    swap = np.array([0, 2, 1], np.uint8)
    assert_same(masks_of(tmp_path), {name: swap[ids] for name, ids in truth.items()})


@pytest.mark.parametrize("orientation", [3, 6])
def test_masks_are_turned_with_their_photographs(orientation, tmp_path, capfd):
    truth = write_pairs(tmp_path / "in")
    for path in (tmp_path / "in/images").iterdir():
        image = Image.open(path)
        image.load()
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
    upright = {name: np.rot90(ids, 2 if orientation == 3 else -1) for name, ids in truth.items()}
    assert run(tmp_path) == 0
    note = capfd.readouterr().err
    if orientation == 3:
        assert "--exif ignore is for masks of the stored pixels" in note
        assert_same(masks_of(tmp_path), truth)
    else:
        assert "were turned with them (4 images" in note
        assert_same(masks_of(tmp_path), upright)
    assert run(tmp_path, "--exif", "ignore") == 0
    assert "EXIF" not in capfd.readouterr().err
    assert_same(masks_of(tmp_path), upright)


def test_photographs_of_unknown_endings_are_named(tmp_path, capfd):
    truth = write_pairs(tmp_path / "in")
    (tmp_path / "in/images/0.jpg").rename(tmp_path / "in/images/0.heic")
    assert run(tmp_path) == 0
    error = capfd.readouterr().err
    assert "files of this ending are not read: " in error and "images/0.heic" in error
    assert "no partner: " in error and "masks/0.png" in error
    assert_same(masks_of(tmp_path), {name: truth[name] for name in "123"})


def test_of_many_problems_of_a_kind_a_few_are_printed(tmp_path, capfd):
    write_pairs(tmp_path / "in", count=9)
    for path in (tmp_path / "in/images").iterdir():
        path.write_bytes(b"")
    assert run(tmp_path) == 1
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert len(lines) == 6 and lines[-1] == "problem: and 4 more like this"
    assert out == "9 problems. Nothing was written.\n"


PARTS = st.sampled_from(
    ("images", "masks", "train", "val", "0", "a_mask", "a", "b", "b.jpg", "annot", "x_1", "\u00fc")
)
PATHS = st.tuples(
    st.lists(PARTS, max_size=3), PARTS, st.sampled_from((".jpg", ".png", ".tif", ".txt", ""))
)
CONTENTS = st.sampled_from(("photo", "ids", "colors", "binary", "list", "nothing"))


@settings(max_examples=40)
@given(st.lists(st.tuples(PATHS, CONTENTS), max_size=12), st.booleans(), st.booleans())
def test_any_folder_is_converted_or_refused(entries, classes, binary):
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3) % 3
    files = {
        "photo": encoded(NOISE[:2, :3], "JPEG"),
        "ids": encoded(ids),
        "colors": encoded(RGB[ids]),
        "binary": encoded(ids // 2 * 255),
        "list": PLAIN_LIST.encode(),
        "nothing": b"",
    }
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "in").mkdir()
        (root / "list").write_text(PLAIN_LIST)
        for (folders, name, ending), content in entries:
            path = root.joinpath("in", *folders, name + ending)
            if not any(part.is_file() for part in path.parents) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files[content])
        options = Options(
            classes=root / "list" if classes else None, binary="box" if binary else None
        )
        try:
            done = convert(root / "in", root / "out", options=options)
        except UserError:
            assert not (root / "out").exists()
        else:
            assert (root / "out").exists() == (not done.findings.problems)
            masks = {path for path in (root / "out/SegmentationClass").rglob("*.png")}
            assert len(masks) == sum(done.sizes.values())


FORMATS_DIR = os.environ.get("FORMATS_DIR")


@pytest.mark.skipif(not FORMATS_DIR, reason="FORMATS_DIR is not set")
def test_samples(tmp_path):
    folders = Path(FORMATS_DIR, "folders")
    assert run(tmp_path, "--binary", "cell", classes=None, source=[str(folders / "1")]) == 0
    for path in (folders / "1/Medical_Datasets/Labels").iterdir():
        white = np.asarray(Image.open(path)) == 255
        np.testing.assert_array_equal(masks_of(tmp_path)[path.stem], white)
    assert run(tmp_path, classes=None, source=[str(folders / "2")]) == 0
    for split in ("train", "val"):
        found = load_split(str(tmp_path / "out"), split)
        [path] = (folders / "2/hr-mask" / split).iterdir()
        np.testing.assert_array_equal(
            found.labels.colors()[found.read(0)[1]], np.asarray(Image.open(path).convert("RGB"))
        )


def test_a_suffix_that_was_given_is_not_offered_again(tmp_path, capfd):
    write_pairs(tmp_path / "in")
    for path in (tmp_path / "in/masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    assert run(tmp_path, "--mask-suffix", "_mask") == 0
    error = capfd.readouterr().err
    assert "is NAME_mask." in error and "--mask-suffix" not in error
