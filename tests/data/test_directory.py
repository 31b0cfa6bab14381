import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES, save_palette_png, write_folder
from support.hostile_files import grey_png

from fcn_keras.data import load_split
from fcn_keras.data.check import check_directory
from fcn_keras.data.directory import directory_split, read_labels
from fcn_keras.data.split import voc_palette
from fcn_keras.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", train=3, val=2)


def test_reads_images_and_masks(folder):
    split = load_split(str(folder), "train")
    assert split.labels.names == CLASSES and split.ids == ("train_0", "train_1", "train_2")
    image, mask = split.read(1)
    assert image.dtype == mask.dtype == np.uint8
    assert image.shape == (48, 64, 3) and mask.shape == (48, 64)
    np.testing.assert_array_equal(
        mask, np.asarray(Image.open(folder / "SegmentationClass/train_1.png"))
    )
    (folder / "JPEGImages/train_1.jpg").write_bytes(b"not needed for the mask")
    np.testing.assert_array_equal(split.mask(1), mask)


def test_png_images_are_found(folder):
    path = folder / "JPEGImages/train_1.jpg"
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()
    assert directory_split(folder, "train").read(1)[0].shape == (48, 64, 3)


def test_classes_may_have_colours(folder):
    (folder / "classes.txt").write_text("sky\t1 2 3\r\ntree\n\n")
    labels = read_labels(folder)
    assert labels.names == ("sky", "tree")
    assert labels.palette == ((1, 2, 3), (128, 0, 0))  # VOC's colour of id 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "classes.txt").unlink(), "classes.txt: no such file"),
        (lambda d: (d / "classes.txt").write_text(""), "classes.txt: .* Received: 0 classes"),
        (
            lambda d: (d / "classes.txt").write_text("a\t1 2 300"),
            "classes.txt:1: a colour is",
        ),
        (lambda d: (d / "classes.txt").write_bytes(b"\xff"), "classes.txt: not UTF-8"),
        (lambda d: (d / "JPEGImages/train_2.jpg").unlink(), "train_2.jpg: the image is missing"),
        (
            lambda d: (d / "ImageSets/Segmentation/train.txt").write_text("train_2.jpg\n"),
            "train_2.jpg is listed with its extension. List train_2.",
        ),
        (lambda d: (d / "SegmentationClass/train_0.png").unlink(), "train_0.png: the mask is miss"),
        (
            lambda d: (d / "ImageSets/Segmentation/train.txt").unlink(),
            "train.txt: no such file. .* found: val",
        ),
        (lambda d: (d / "ImageSets/Segmentation/train.txt").write_text("\n"), "the list is empty"),
    ],
)
def test_damage_is_named_before_training(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        directory_split(folder, "train")


def test_255_classes_have_the_ids_to_254_beside_unlabelled(folder):
    (folder / "classes.txt").write_text("".join(f"class {index}\n" for index in range(255)))
    mask = np.full((48, 64), 254, np.uint8)
    mask[0, :2] = 0, 255
    for save in (save_palette_png, lambda ids, path: Image.fromarray(ids).save(path)):
        save(mask, folder / "SegmentationClass/train_0.png")
        split = directory_split(folder, "train")
        np.testing.assert_array_equal(split.read(0)[1], mask)
    report = check_directory(folder)
    assert report.problems == [] and len(split.labels) == 255
    assert report.pixels["train"][[254, 255]].tolist() == [48 * 64 - 2, 1 + void_pixels(folder)]
    assert split.labels.palette[254] == voc_palette()[254]


def void_pixels(folder):
    """In the two training masks that were not changed."""
    return sum(
        (np.asarray(Image.open(folder / f"SegmentationClass/train_{index}.png")) == 255).sum()
        for index in (1, 2)
    )


def test_256_classes_are_refused(folder):
    (folder / "classes.txt").write_text("".join(f"class {index}\n" for index in range(256)))
    with pytest.raises(UserError, match=r"classes.txt: .* 1 to 255 classes.* Received: 256"):
        directory_split(folder, "train")
    assert len(check_directory(folder).problems) == 1


def test_masks_of_few_bits_keep_their_ids(folder):
    mask = np.tile(np.arange(3, dtype=np.uint8), (48, 22))[:, :64]
    (folder / "SegmentationClass/train_0.png").write_bytes(grey_png(mask, 2))
    np.testing.assert_array_equal(directory_split(folder, "train").read(0)[1], mask)


def test_a_listing_notices_what_is_only_nearly_a_file(folder):
    """The folder is listed once, not searched for each id."""
    (folder / "JPEGImages/train_1.jpg").rename(folder / "JPEGImages/train_1.JPEG")
    (folder / "JPEGImages/train_2.jpg").rename(folder / "photo.jpg")
    (folder / "JPEGImages/train_2.jpg").symlink_to("../photo.jpg")
    split = directory_split(folder, "train")
    assert len(split) == 3 and split.read(1)[0].shape == split.read(2)[0].shape == (48, 64, 3)
    (folder / "photo.jpg").unlink()
    with pytest.raises(UserError, match="train_2.jpg: not a regular file, nor a link to one"):
        directory_split(folder, "train")
    with pytest.raises(UserError, match="train_2.jpg: not a regular file, nor a link to one"):
        split.read(2)


def test_size_mismatch_is_named(folder):
    save_palette_png(np.zeros((48, 63), np.uint8), folder / "SegmentationClass/train_0.png")
    with pytest.raises(UserError, match="train_0.png: the mask is 48×63, but its image is 48×64"):
        directory_split(folder, "train").read(0)


def test_names_may_have_spaces(folder):
    for part in ("JPEGImages", "SegmentationClass"):
        [path] = (folder / part).glob("train_0.*")
        path.rename(path.with_stem("my photo 0"))
    (folder / "ImageSets/Segmentation/train.txt").write_bytes(b"my photo 0 \r\n\r\ntrain_1")
    assert directory_split(folder, "train").ids == ("my photo 0", "train_1")


def test_a_colour_without_a_tab_is_noticed(folder):
    (folder / "classes.txt").write_text("sky 8 191 182\ntree\n")
    with pytest.raises(UserError, match="classes.txt:1: put a tab between name and colour"):
        read_labels(folder)


def test_check_sees_what_makes_training_useless(folder, tmp_path):
    lists = folder / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("train_0\n")
    save_palette_png(np.full((48, 64), 255, np.uint8), folder / "SegmentationClass/train_0.png")
    found = "\n".join(check_directory(folder).problems)
    assert "share 1 images, such as train_0" in found
    assert "val: no mask has a labelled pixel" in "\n".join(check_directory(folder).notes)
    (lists / "val.txt").rename(lists / "test.txt")  # where masks may be kept back
    [problem] = check_directory(folder).problems
    assert "val.txt: no such file" in problem
    (lists / "train.txt").write_text("train_0\n")
    found = "\n".join(check_directory(folder).problems)
    assert "train.txt: no mask in this list has a labelled pixel" in found
    assert check_directory(tmp_path / "none").problems == [f"{tmp_path / 'none'}: no such folder."]


def test_check_counts_images_and_pixels(folder):
    report = check_directory(folder)
    assert report.problems == [] and report.split_sizes == {"train": 3, "val": 2}
    masks = [directory_split(folder, "train").read(index)[1] for index in range(3)]
    for class_id in (0, 1, 2, 255):
        column = 3 if class_id == 255 else class_id
        assert report.pixels["train"][column] == sum((m == class_id).sum() for m in masks)
        assert report.images["train"][column] == sum((m == class_id).any() for m in masks)


def test_check_lists_every_problem(folder):
    masks, images = folder / "SegmentationClass", folder / "JPEGImages"
    (images / "train_0.jpg").write_bytes((images / "train_0.jpg").read_bytes()[:300])
    (masks / "train_0.png").unlink()
    save_palette_png(np.full((48, 64), 200, np.uint8), masks / "train_1.png")
    Image.open(images / "val_0.jpg").save(masks / "val_0.jpg")
    (masks / "val_0.png").unlink()
    save_palette_png(np.zeros((4, 4), np.uint8), masks / "val_1.png")
    (folder / "ImageSets/Segmentation/test.txt").write_text("")
    with (folder / "ImageSets/Segmentation/train.txt").open("a") as file:
        file.write("train_2\n")
    found = "\n".join(check_directory(folder).problems)
    for expected in (
        "train_0.jpg: not a readable image",
        "train_0.png: the mask is missing",
        "train_1.png: the mask has id 200",
        "val_0.jpg: a mask must not be a JPEG",
        "val_1.png: the mask is 4×4",
        "test.txt: the list is empty",
        "train.txt: train_2 is listed 2 times",
    ):
        assert expected in found
    assert len(found.splitlines()) == 7


def test_unknown_data_set_is_named():
    with pytest.raises(UserError, match="Received: 'no/such/folder'"):
        load_split("no/such/folder", "train")
