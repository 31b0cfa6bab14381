"""`fcn-keras data convert` on the layouts of well-known data sets and of people's own."""

import json

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import draw_example

from fcn_keras.cli import main
from fcn_keras.data import load_split

SIZE = (20, 30)
PLAIN_LIST = "background\nbox\nbar\n"
RGB = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)


def write(root, image, *masks, numbers=range(4), paint=Image.fromarray):
    """Writes photographs, and masks for each that their names' patterns say."""
    for number in numbers:
        photograph, ids = draw_example(np.random.default_rng(number), SIZE, void=False)
        for name, picture in [(image, Image.fromarray(photograph))] + [
            (mask, paint(ids)) for mask in masks
        ]:
            path = root / "in" / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)


def run(root, *given, classes=PLAIN_LIST):
    if classes:
        (root / "list").write_text(classes)
        given = (*given, "--classes", str(root / "list"))
    return main(["data", "convert", str(root / "in"), *given, "--output", str(root / "out")])


def assert_read(root, becomes=lambda ids: ids, numbers=range(4)):
    """Each photograph is there once, with its own mask."""
    found = {}
    for path in (root / "out/ImageSets/Segmentation").iterdir():
        split = load_split(str(root / "out"), path.stem)
        for index in range(len(split)):
            image, mask = split.read(index)
            found[split.ids[index]] = image, mask
    assert len(found) == len(numbers)
    for number in numbers:
        photograph, ids = draw_example(np.random.default_rng(number), SIZE, void=False)
        _, mask = min(found.values(), key=lambda pair: abs(pair[0] - 1.0 * photograph).mean())
        np.testing.assert_array_equal(mask, becomes(ids))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("semantic_set/original_images/{}.jpg", "semantic_set/label_images_semantic/{}.png"),
        ("mask_project/images/{}.jpg", "mask_project/masks/{}.png"),
        ("segmentation/images/{}.jpg", "segmentation/labels/{}.png"),
        ("train/images/images/{}.png", "train/Semantic_masks/images/{}_instance_color_RGB.png"),
        ("all/image{}.png", "all/label{}.png"),
        ("all/{}_image.png", "all/{}_mask.png"),
        ("training/images/{}_training.tif", "training/1st_manual/{}_manual1.gif"),
        ("top/area{}.tif", "gts_for_participants/area{}.tif"),
        ("images/{}.gif", "masks/{}.png"),
        ("images/\u00e4{}.jpg", "masks/a\u0308{}.png"),  # ä, composed and decomposed
    ],
)
def test_layouts_are_read(image, mask, tmp_path):
    write(tmp_path, image, mask)
    assert run(tmp_path) == 0
    if not image.endswith(".gif"):  # whose colours are fewer
        assert_read(tmp_path)


def test_lossless_webp_is_a_mask_and_lossy_is_not(tmp_path, capfd):
    def paint(ids):
        return Image.fromarray(RGB[ids])

    write(tmp_path, "images/{}.jpg", "masks/{}.png", paint=paint)
    for path in (tmp_path / "in/masks").iterdir():
        Image.open(path).save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    assert run(tmp_path) == 0
    assert_read(tmp_path)
    path = tmp_path / "in/masks/0.webp"
    Image.open(path).save(path, quality=70)
    assert main(["data", "convert", str(tmp_path / "in"), "--output", str(tmp_path / "new")]) == 1
    assert "0.webp: a mask must not be a lossy WebP" in capfd.readouterr().err


@pytest.mark.parametrize(
    "pattern",
    [
        "images/{}2017/{{}}.jpg",
        "{} Set/images/{{}}.jpg",
        "{}images/{{}}.jpg",
        "ISIC_{}_Input/{{}}.jpg",
        "1_{}/images/{{}}.jpg",
    ],
)
def test_splits_in_the_names_of_folders_are_kept(pattern, tmp_path):
    masks = pattern.replace("images", "masks").replace("Input", "GroundTruth")
    for split, numbers in (("Training", range(3)), ("Validation", range(3, 5))):
        write(
            tmp_path,
            pattern.format(split),
            masks.format(split).replace(".jpg", ".png"),
            numbers=numbers,
        )
    assert run(tmp_path) == 0
    assert len(load_split(str(tmp_path / "out"), "train")) == 3
    assert len(load_split(str(tmp_path / "out"), "val")) == 2
    assert_read(tmp_path, numbers=range(5))


def test_a_word_in_a_name_alone_is_no_split(tmp_path):
    write(tmp_path, "test site/images/{}.jpg", "test site/masks/{}.png")
    assert run(tmp_path) == 0
    assert len(load_split(str(tmp_path / "out"), "train")) == 3


@pytest.mark.parametrize(
    ("train", "val", "line"),
    [
        ("splits/train.txt", "splits/val.txt", "{}"),
        ("train_list.txt", "val_list.txt", "images/{}.jpg"),
        ("train.csv", "dev.csv", "images/{0}.jpg,masks/{0}.png"),
    ],
)
def test_splits_of_lists_are_kept(train, val, line, tmp_path):
    write(tmp_path, "images/{}.jpg", "masks/{}.png")
    for name, numbers in ((train, (1, 3)), (val, (0, 2))):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("image,mask\n" + "".join(f"{line.format(n)}\n" for n in numbers))
    assert run(tmp_path) == 0
    assert load_split(str(tmp_path / "out"), "train").ids == ("1", "3")


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        ("images/{}_test.tif", ("mask/{}_test_mask.gif", "1st_manual/{}_manual1.gif"), "--masks"),
        ("set/images/{}.jpg", ("set/labels/{}.png", "RGB masks/{}.png"), "several masks"),
        ("{0}/images/{0}.png", ("{0}/masks/a.png", "{0}/masks/b.png"), "single objects"),
        ("images/{}.jpg", ("v1/labels/{}.png", "v2/labels/{}.png"), "several masks of the same"),
        ("images/{}.jpg", ("masks/0000{}.png",), "unlike 0.jpg and 00000.png"),
        (
            "images/{}.jpg",
            ("masks/0000{}.png",),
            "Only image files of these endings are read: .bmp,",
        ),
        ("images/{}.jpg", (), "neither masks beside images nor labels of a known format"),
    ],
)
def test_what_belongs_together_is_not_guessed(image, masks, message, tmp_path, capfd):
    write(tmp_path, image, *masks)
    assert run(tmp_path) == 1
    assert message in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_of_several_photographs_the_folder_is_asked_for(tmp_path, capfd):
    write(tmp_path, "visible/{}.png", "labels/{}.png")
    write(tmp_path, "infrared/{}.png")
    assert run(tmp_path) == 1
    assert "several images of the same name" in capfd.readouterr().err
    assert run(tmp_path, "--images", str(tmp_path / "in/visible")) == 0
    assert_read(tmp_path)
    err = capfd.readouterr().err
    assert "in/infrared/0.png" in err and "in/visible" not in err


def test_masks_in_the_folder_of_all_know_their_split(tmp_path, capfd):
    for split, numbers in (("training", range(3)), ("validation", range(3, 5))):
        write(
            tmp_path,
            f"{split}/images/{{}}.jpg",
            f"{split}/v1/labels/{{}}.png",
            f"{split}/v1/instances/{{}}.png",
            numbers=numbers,
        )
    assert run(tmp_path, "--masks", str(tmp_path / "in/training/v1/labels")) == 0
    assert_read(tmp_path, numbers=range(3))


def test_the_same_photograph_under_two_names_is_noted(tmp_path, capfd):
    write(tmp_path, "images/{}.png", "masks/{}.png")
    write(tmp_path, "copy/images/{}.tif", "copy/masks/{}.tif", numbers=[1])
    assert run(tmp_path) == 0
    assert "pixels of earlier ones" in capfd.readouterr().err


def scaled(factor, kind=np.uint8):
    return lambda ids: Image.fromarray((ids * factor).astype(kind))


def one_channel(ids):
    return Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], axis=-1))


@pytest.mark.parametrize(
    ("paint", "ending", "message", "given", "classes", "becomes"),
    [
        (one_channel, "png", ": --mask-values ids.", ["--mask-values", "ids"], PLAIN_LIST, None),
        (
            lambda ids: Image.fromarray((ids > 0) * np.uint16(65535)),
            "png",
            "--binary NAME",
            ["--binary", "box"],
            None,
            lambda ids: ids > 0,
        ),
        (scaled(1, np.float32), "tif", None, [], PLAIN_LIST, None),
        (scaled(0.5, np.float32), "tif", "has fractions", None, None, None),
        (
            lambda ids: Image.fromarray(ids.astype(np.int32) - 1),
            "tif",
            "values of -1 to 1",
            None,
            None,
            None,
        ),
        (scaled(100), "png", "'name<TAB>100 100 100'", None, None, None),
        (scaled(9), "png", None, [], "0: a\n9: b\n18: c\n", None),
        (
            lambda ids: Image.merge("LA", [Image.fromarray(0 * ids), Image.fromarray(ids * 99)]),
            "png",
            "transparent in places",
            None,
            None,
            None,
        ),
        (
            lambda ids: Image.merge("LA", [Image.fromarray(ids), Image.fromarray(ids * 99)]),
            "png",
            None,
            [],
            PLAIN_LIST,
            None,
        ),
    ],
)
def test_masks_of_any_kind_are_read_or_refused(
    paint, ending, message, given, classes, becomes, tmp_path, capfd
):
    write(tmp_path, "images/{}.jpg", f"masks/{{}}.{ending}", paint=paint)
    if message:
        assert run(tmp_path) == 1
        assert message in capfd.readouterr().err
    if given is not None:
        assert run(tmp_path, *given, classes=classes) == 0
        assert_read(tmp_path, becomes or (lambda ids: ids))


def test_an_animation_is_no_mask(tmp_path, capfd):
    write(tmp_path, "images/{}.jpg", "masks/{}.gif")
    frames = [Image.fromarray(np.full(SIZE, value, np.uint8)) for value in (0, 1)]
    frames[0].save(tmp_path / "in/masks/0.gif", save_all=True, append_images=frames[1:])
    assert run(tmp_path) == 1
    assert "0.gif: a GIF of several pages" in capfd.readouterr().err


def test_masks_of_255_alone_make_no_data_set(tmp_path, capfd):
    white = Image.new("L", SIZE[::-1], 255)
    write(tmp_path, "images/{}.jpg", "masks/{}.png", paint=lambda ids: white)
    assert run(tmp_path, classes=None) == 1
    assert "All 4 masks have only the value 255" in capfd.readouterr().err


def test_an_unknown_list_begins_with_the_first_id_and_has_255_among_greys(tmp_path, capfd):
    write(tmp_path, "images/{}.jpg", "masks/{}.png", paint=lambda ids: Image.fromarray(ids + 1))
    assert run(tmp_path, classes=None) == 1
    told = capfd.readouterr()
    assert "Add --ids-from 1." in told.err and "class_0" not in told.out
    (tmp_path / "list").write_text(told.out)
    assert run(tmp_path, "--ids-from", "1", classes=told.out) == 0
    assert_read(tmp_path)


def test_greys_that_end_with_255_are_listed(tmp_path, capfd):
    greys = np.array([0, 128, 255], np.uint8)
    write(tmp_path, "images/{}.jpg", "masks/{}.png", paint=lambda ids: Image.fromarray(greys[ids]))
    assert run(tmp_path, classes=None) == 1
    told = capfd.readouterr()
    assert "255 255 255" in told.out
    assert run(tmp_path, "--mask-values", "colors", classes=told.out) == 0


def test_train_ids_of_cityscapes(tmp_path):
    write(
        tmp_path,
        "leftImg8bit/train/a/a_{}_leftImg8bit.png",
        "gtFine/train/a/a_{}_gtFine_labelTrainIds.png",
    )
    assert run(tmp_path, classes=None) == 0
    assert_read(tmp_path)


def test_lists_of_vistas_and_supervisely_name_colours(tmp_path):
    entries = [{"name": f"a--{n}", "color": c} for n, c in zip("xyz", RGB.tolist())]
    write(
        tmp_path,
        "images/{}.jpg",
        "labels/{}.png",
        paint=lambda ids: Image.fromarray(RGB[ids]),
    )
    assert run(tmp_path, classes=json.dumps({"labels": entries, "version": 1})) == 0
    assert_read(tmp_path)
