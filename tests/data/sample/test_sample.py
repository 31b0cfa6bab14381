"""The sample data set: what is in its files, and that they are written whole or not at all."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fcn_keras.data.sample import dataset as sample
from fcn_keras.data.sample import scenes as sample_scenes
from fcn_keras.data.sample.dataset import SAMPLE_LABELS, draw_scene, sample_split, write_sample
from fcn_keras.data.sample.shapes import MAIN, THINGS, Part, box
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError

SMALL = (80, 120)


def scenes(count, split=0, size=SMALL):
    return [draw_scene(np.random.default_rng([0, split, i]), size) for i in range(count)]


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def few_images(monkeypatch):
    """Makes the cached set small enough for a test: 3 and 2 images."""
    monkeypatch.setattr(sample, "write_sample", lambda root: write_sample(root, 3, 2, size=SMALL))


def test_writes_the_voc_layout(tmp_path):
    write_sample(tmp_path, train=2, val=1, size=(64, 96))
    assert sorted(contents(tmp_path)) == [
        "ImageSets/Segmentation/train.txt",
        "ImageSets/Segmentation/val.txt",
        "JPEGImages/train_0000.jpg",
        "JPEGImages/train_0001.jpg",
        "JPEGImages/val_0000.jpg",
        "SegmentationClass/train_0000.png",
        "SegmentationClass/train_0001.png",
        "SegmentationClass/val_0000.png",
        "classes.txt",
    ]
    listing = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    assert listing.read_text() == "train_0000\ntrain_0001\n"
    names = (tmp_path / "classes.txt").read_text().splitlines()
    assert names[0] == "background" and tuple(names) == SAMPLE_LABELS.names and len(names) == 8
    photo = Image.open(tmp_path / "JPEGImages" / "train_0001.jpg")
    mask = Image.open(tmp_path / "SegmentationClass" / "train_0001.png")
    assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (96, 64))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (96, 64))
    # VOC's rule: id 1 is (128, 0, 0), id 2 is (0, 128, 0), id 255 is (224, 224, 192).
    palette = mask.getpalette()
    assert palette[3:9] == [128, 0, 0, 0, 128, 0] and palette[-3:] == [224, 224, 192]
    _, drawn = draw_scene(np.random.default_rng([0, 0, 1]), (64, 96))
    np.testing.assert_array_equal(np.asarray(mask), drawn)


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed, train in (("a", 1, 2), ("b", 1, 2), ("more", 1, 4), ("other", 2, 2)):
        write_sample(tmp_path / name, train=train, val=1, seed=seed, size=SMALL)
    first, again, more, other = (contents(tmp_path / name) for name in ("a", "b", "more", "other"))
    assert first == again
    for name in first:
        if name.startswith(("JPEGImages", "SegmentationClass")):
            assert first[name] == more[name], "an image depends on how many are drawn"
            assert first[name] != other[name]


def test_a_set_written_again_and_cut_short_is_not_taken_for_whole(tmp_path, monkeypatch):
    write_sample(tmp_path, train=1, val=1, size=SMALL)
    monkeypatch.setattr(sample, "_save", fail_with(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path, train=1, val=1, size=SMALL)
    assert not (tmp_path / "classes.txt").exists()


@pytest.mark.parametrize("wrong", [{"size": (160, 31)}, {"train": -1}, {"val": -1}, {"seed": -1}])
def test_refuses_values_out_of_range(tmp_path, wrong):
    with pytest.raises(UserError, match=str(min(wrong["size"]) if "size" in wrong else -1)):
        write_sample(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_masks_hold_class_ids_and_every_class_occurs():
    masks = [mask for _, mask in scenes(40)]
    assert set(np.unique(masks)) == {*range(len(SAMPLE_LABELS)), IGNORE_ID}


def test_default_size_and_share_of_things():
    for image, mask in scenes(6, size=sample.IMAGE_SIZE):
        assert image.shape == (160, 240, 3) and image.dtype == np.uint8
        assert mask.shape == (160, 240) and mask.dtype == np.uint8
        things = (mask > 0) & (mask != IGNORE_ID)
        assert 0.03 < things.mean() < 0.7
        assert 0.005 < (mask == IGNORE_ID).mean() < 0.15


def test_void_separates_things_from_ground_and_from_each_other():
    for _, mask in scenes(20):
        for a, b in (
            (mask[1:], mask[:-1]),
            (mask[:, 1:], mask[:, :-1]),
            (mask[1:, 1:], mask[:-1, :-1]),
            (mask[1:, :-1], mask[:-1, 1:]),
        ):
            assert not ((a != b) & (a != IGNORE_ID) & (b != IGNORE_ID)).any()


def test_void_is_two_pixels_wide_also_between_two_things_of_one_class(monkeypatch):
    monkeypatch.setattr(sample_scenes, "SAMPLE_LABELS", LabelSet(("background", "square")))
    square = Part(box(-1, -1, 1, 1), MAIN)
    monkeypatch.setattr(sample_scenes, "THINGS", {"square": lambda rng: [square]})
    monkeypatch.setattr(sample_scenes, "_places", lambda rng, size: [(20, 20, 10), (30, 20, 10)])
    monkeypatch.setattr(
        sample_scenes,
        "_pose",
        lambda rng, parts, x, y, radius: [
            Part(part.outline * radius + (x, y), part.color) for part in parts
        ],
    )
    _, mask = draw_scene(np.random.default_rng(0), (40, 50))
    # The first square spans x = 10..30, of which the second, 20..40, hides 20..30.
    runs = [(9, 0), (2, 255), (8, 1), (2, 255), (18, 1), (2, 255), (9, 0)]
    assert mask[20].tolist() == [value for count, value in runs for _ in range(count)]


def test_things_fill_their_square():
    # Unposed: each stays in its 2x2 square, spans almost half of it and fills a fifth.
    for name, thing in THINGS.items():
        for seed in range(5):
            parts = thing(np.random.default_rng(seed))
            corners = np.concatenate([part.outline for part in parts])
            assert np.abs(corners).max() < 1.05, name
            assert np.ptp(corners, axis=0).min() > 0.9, name
            parts = [Part(part.outline * 50 + 50, part.color) for part in parts]
            _, cover, _ = sample_scenes._rasterise(parts, np.zeros((4, 3)), (100, 100))
            assert cover.mean() > 0.2, name


def test_the_mask_lies_on_the_picture():
    """Void must follow the picture's edges, which an offset between the two would break."""
    here, off = [], []
    for image, mask in scenes(20):
        y, x = np.gradient(image.astype(float).mean(axis=-1))
        strength = np.hypot(y, x)
        void = mask == IGNORE_ID
        here.append(strength[void].mean())
        off += [strength[np.roll(void, 3, axis)].mean() for axis in (0, 1)]
    assert np.mean(here) > 1.15 * np.mean(off)


def test_color_does_not_give_the_class_away():
    """Nearest class centre of mean colours must stay near chance, which is 1/7 for things."""

    def mean_colors(split):
        colors, classes = [], []
        for image, mask in scenes(60, split):
            for class_id in np.setdiff1d(mask, [0, IGNORE_ID]):
                colors.append(image[mask == class_id].mean(axis=0))
                classes.append(class_id)
        return np.array(colors), np.array(classes)

    colors, classes = mean_colors(split=0)
    strongest = np.bincount(colors.argmax(axis=1), minlength=3) / len(colors)
    assert strongest.min() > 0.15  # things are red, green and blue alike
    centres = np.stack([colors[classes == c].mean(axis=0) for c in range(1, len(SAMPLE_LABELS))])
    colors, classes = mean_colors(split=1)
    nearest = 1 + np.linalg.norm(colors[:, None] - centres, axis=-1).argmin(axis=1)
    assert len(classes) > 60
    assert (nearest == classes).mean() < 0.35


def test_train_and_val_do_not_overlap(tmp_path):
    write_sample(tmp_path, train=8, val=8, size=SMALL)
    files = contents(tmp_path)
    photos = [data for name, data in files.items() if name.endswith(".jpg")]
    assert len(photos) == len(set(photos)) == 16


def fail_with(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_draws_once_and_reads_through_the_directory_reader(tmp_path, few_images, monkeypatch):
    train = sample_split("train", tmp_path)
    monkeypatch.setattr(sample, "write_sample", fail_with(AssertionError("drawn twice")))
    val = sample_split("val", tmp_path)
    assert (len(train), len(val)) == (3, 2)
    assert train.labels == SAMPLE_LABELS
    assert not set(train.ids) & set(val.ids)
    image, mask = train.read(1)
    _, drawn = draw_scene(np.random.default_rng([0, 0, 1]), SMALL)
    assert image.shape == (*SMALL, 3)
    np.testing.assert_array_equal(mask, drawn)
    with pytest.raises(UserError, match="'test'"):
        sample_split("test", tmp_path)


def test_the_cache_is_where_xdg_says(tmp_path, few_images, monkeypatch):
    folder = f"sample-v{sample.SAMPLE_VERSION}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert sample._cached_sample(None) == tmp_path / "xdg" / "fcn_keras" / folder
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert sample._cached_sample(None) == tmp_path / "home" / ".cache" / "fcn_keras" / folder


def test_a_run_cut_short_leaves_nothing_that_passes_for_the_set(tmp_path, few_images, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sample, "_save", fail_with(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sample._cached_sample(tmp_path)
    assert list(tmp_path.iterdir()) == []
    # What a kill -9 leaves: an unfinished folder beside the set's place.
    leftover = tmp_path / ".partial-x" / "JPEGImages"
    leftover.mkdir(parents=True)
    root = sample._cached_sample(tmp_path)
    assert len(list((root / "JPEGImages").iterdir())) == 5


def test_a_run_that_finishes_second_uses_the_first_ones_set(tmp_path, monkeypatch):
    place = tmp_path / f"sample-v{sample.SAMPLE_VERSION}"

    def draw_while_another_finishes(root):
        write_sample(root, 1, 1, size=SMALL)
        write_sample(place, 2, 2, size=SMALL)

    monkeypatch.setattr(sample, "write_sample", draw_while_another_finishes)
    assert sample._cached_sample(tmp_path) == place
    assert len(list((place / "JPEGImages").iterdir())) == 4
    assert list(tmp_path.iterdir()) == [place]


def test_two_processes_at_once_both_end_well(tmp_path):
    code = (
        "import sys; from fcn_keras.data.sample import dataset as sample\n"
        "write = sample.write_sample\n"
        "sample.write_sample = lambda root: write(root, 20, 10, size=(64, 96))\n"
        "print(sample._cached_sample(sys.argv[1]))"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=60) for run in runs]
    place = tmp_path / f"sample-v{sample.SAMPLE_VERSION}"
    assert [run.returncode for run in runs] == [0, 0], outputs
    # No bar either, as stderr is not a terminal.
    assert outputs == [(f"{place}\n", "")] * 2
    assert list(tmp_path.iterdir()) == [place]
    assert len(list((place / "JPEGImages").iterdir())) == 30


def test_says_what_to_do_if_the_cache_cannot_be_written(tmp_path, few_images):
    # Inside a regular file, so that it fails for root too.
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/cache/sample-v.*XDG_CACHE_HOME"):
        sample._cached_sample(tmp_path / "file" / "cache")


def test_says_what_to_do_if_something_else_is_in_its_place(tmp_path, few_images):
    place = tmp_path / f"sample-v{sample.SAMPLE_VERSION}"
    place.mkdir()
    (place / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="delete what is there"):
        sample._cached_sample(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [place.name, "mine.txt"]
