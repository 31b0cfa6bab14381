"""Data sets of TFDS: folders that its builders write, and its mock."""

import concurrent.futures
import importlib
import io
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fcn_keras.cli import main
from fcn_keras.data import labels_of, load_split
from fcn_keras.data.catalog import dataset
from fcn_keras.errors import UserError
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.paths import absolute, shown

SIZE = (20, 30)
MASK = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
NAMES = ["sky", "tree", "car"]
LABELED = tfds.features.LabeledImage(labels=NAMES, shape=(*SIZE, 1), encoding_format="png")


def example(index, mask="mask", ids=(0, 1, 2), image="image"):
    """A photograph that says to be turned by EXIF, which TFDS does not do, and its mask."""
    rng = np.random.default_rng(index)
    photograph, file = Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)), io.BytesIO()
    exif = photograph.getexif()
    exif[274] = 6
    photograph.save(file, "JPEG", exif=exif)
    values = np.array(ids, np.uint8)[rng.integers(0, len(ids), SIZE)]
    return {image: file.getvalue(), mask: values[..., None]}


def write(
    root,
    name="made_up",
    features=None,
    splits=None,
    config="",
    file_format="tfrecord",
    mask=LABELED,
):
    """Writes a data set as TFDS does; `splits` has the examples of each."""
    splits = splits or {"train": map(example, range(5)), "validation": map(example, range(5, 8))}
    kinds = features or {"image": tfds.features.Image(encoding_format="jpeg"), "mask": mask}
    configs = [tfds.core.BuilderConfig(name=config)] if config else []

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kinds))

    with tfds.core.registered.skip_registration():
        builder_class = type(
            name,
            (tfds.core.GeneratorBasedBuilder,),
            {
                "__module__": __name__,
                "VERSION": tfds.core.Version("1.0.0"),
                "code_path": Path(__file__),
                "BUILDER_CONFIGS": configs,
                "name": name,
                "_info": info,
                "_split_generators": lambda self, _: {
                    part: self._generate_examples(found) for part, found in splits.items()
                },
                "_generate_examples": lambda self, found: enumerate(found),
            },
        )
    builder = builder_class(data_dir=str(root), file_format=file_format)
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_images_and_masks_survive(file_format, tmp_path):
    builder = write(tmp_path, file_format=file_format)
    for part, own in (("train", "train"), ("val", "validation")):
        split = load_split("tfds:made_up", part, str(tmp_path))
        assert split.labels.names == tuple(NAMES)
        if file_format == "tfrecord":
            expected = list(tfds.as_numpy(builder.as_dataset(split=own)))
        else:
            expected = list(builder.as_data_source(own))
        assert len(split) == len(expected) == {"train": 5, "val": 3}[part]
        assert split.ids[0] == f"{own}_000000"
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for (image, mask), truth in zip(pool.map(split.read, range(len(split))), expected):
                assert image.shape == (*SIZE, 3)
                assert abs(image.astype(int) - truth["image"]).max() <= 9  # two JPEG decoders
                np.testing.assert_array_equal(mask, truth["mask"][..., 0])
        np.testing.assert_array_equal(split.read(-1)[1], expected[-1]["mask"][..., 0])
    assert load_split("tfds:made_up:1.0.0", "validation", str(tmp_path)).ids == split.ids


def test_a_network_is_trained_and_evaluated(tmp_path, capfd):
    write(tmp_path)
    data = ["--dataset", "tfds:made_up", "--data-dir", str(tmp_path)]
    run, quick = str(tmp_path / "run"), "--epochs 1 --crop 16 16 --batch-size 5".split()
    assert main(["train", "--recipe", "sample", *data, *quick, "--run-dir", run]) == 0
    assert main(["evaluate", "--model", run, *data, "--split", "validation"]) == 0
    capfd.readouterr()
    for path in tmp_path.glob("made_up/**/*validation*"):
        path.unlink()
    assert main(["evaluate", "--model", run, *data]) == 1
    assert "made_up-validation.tfrecord" in capfd.readouterr().err


def test_trimaps_become_pet_background_and_border(tmp_path, capfd):
    trimap = tfds.features.Image(shape=(None, None, 1), use_colormap=True)
    features = {"image": tfds.features.Image(encoding_format="jpeg"), "segmentation_mask": trimap}
    splits = {
        part: [example(index, "segmentation_mask", (1, 2, 3)) for index in range(3)]
        for part in ("train", "test")
    }
    values = splits["test"][1]["segmentation_mask"][..., 0]
    splits["train"] += [example(9, "segmentation_mask", (0,))]
    write(tmp_path, "oxford_iiit_pet", features, splits)
    dataset._note.cache_clear()
    val = load_split("tfds:oxford_iiit_pet", "val", str(tmp_path))
    assert "has no validation split: its split test is used" in capfd.readouterr().err
    assert val.labels.names == ("background", "pet")
    truths = [
        np.choose(each["segmentation_mask"][..., 0] - 1, (1, 0, 255)) for each in splits["test"]
    ]
    masks = [val.read(index)[1] for index in range(3)]
    for truth in truths:
        assert any(np.array_equal(truth, mask) for mask in masks)
    assert {*np.unique(values)} == {1, 2, 3}
    train = load_split("tfds:oxford_iiit_pet", "train", str(tmp_path))
    with pytest.raises(UserError, match="the mask has the value 0; known are 1, 2, 3"):
        [train.read(index) for index in range(len(train))]


def test_cityscapes_numbers_become_train_ids(tmp_path):
    kind = tfds.features.Image(shape=(None, None, 1), use_colormap=True)
    features = {"image_left": tfds.features.Image(), "segmentation_label": kind}
    made = [example(0, "segmentation_label", (7, 0, 26, 255), "image_left")]
    write(
        tmp_path,
        "cityscapes",
        features,
        {"train": made, "validation": made},
        "semantic_segmentation",
    )
    split = load_split("tfds:cityscapes", "val", str(tmp_path))
    table = {7: 0, 0: 255, 26: 13, 255: 255}
    truth = np.vectorize(table.get)(made[0]["segmentation_label"][..., 0])
    np.testing.assert_array_equal(split.read(0)[1], truth)
    assert len(split.labels) == 19 and split.labels.names[13] == "car"


def test_scene_parse150_has_objects_in_red(tmp_path, capfd):
    features = {
        name: tfds.features.Image(encoding_format="png") for name in ("image", "annotation")
    }
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[3:9, 4:8] = (100, 7, 0)  # the class, and the number of the object
    made = [{"image": np.zeros((*SIZE, 3), np.uint8), "annotation": mask}]
    write(tmp_path, "scene_parse150", features, {"train": made, "test": made})
    dataset._note.cache_clear()
    split = load_split("tfds:scene_parse150", "val", str(tmp_path))
    assert "has the Places Challenge's 100 objects" in capfd.readouterr().err
    np.testing.assert_array_equal(split.read(0)[1], mask[..., 0])
    assert len(split.labels) == 101 and split.labels.names[100] == "flag"


def test_classes_that_tfds_does_not_name_are_listed_in_a_file(tmp_path):
    write(tmp_path, mask=MASK)
    path = tmp_path / "made_up" / "classes.txt"
    with pytest.raises(
        UserError, match=f"does not name the classes of made_up. List them in {path}"
    ):
        load_split("tfds:made_up", "val", str(tmp_path))
    path.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"validation_\d+ in .*: the mask has id 2"):
        load_split("tfds:made_up", "val", str(tmp_path)).read(0)
    path.write_text("a\nb\nc\n")
    assert load_split("tfds:made_up", "val", str(tmp_path)).labels.names == ("a", "b", "c")


def test_a_fifth_validates_if_there_is_only_training(tmp_path):
    splits = {"train": [example(index) for index in range(10)]}
    write(tmp_path, mask=tfds.features.LabeledImage(labels=3), splits=splits)
    train, val = (load_split("tfds:made_up", part, str(tmp_path)) for part in ("train", "val"))
    assert (len(train), len(val)) == (8, 2) and not {*train.ids} & {*val.ids}
    assert val.labels.names == ("class_0", "class_1", "class_2")
    masks = [part.read(index)[1].tobytes() for part in (train, val) for index in range(len(part))]
    assert len(set(masks)) == 10
    with pytest.raises(UserError, match="has the splits train. Received: 'test'"):
        load_split("tfds:made_up", "test", str(tmp_path))


def test_tfds_own_mock(tmp_path):
    image = tfds.features.Image(shape=(*SIZE, 3))
    mask = tfds.features.LabeledImage(labels=255, shape=(*SIZE, 1))  # it draws from 0 to 254
    write(tmp_path, features={"image": image, "mask": mask}, file_format="array_record")
    with tfds.testing.mock_data(4, data_dir=str(tmp_path)):
        image, mask = load_split("tfds:made_up", "train", "elsewhere").read(3)
    assert image.shape == (*SIZE, 3) and mask.shape == SIZE and len(np.unique(mask)) > 100


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image": tfds.features.Image()}, "Found: image; no mask"),
        ({"mask": MASK, "depth": MASK}, "Found: no image; depth, mask"),
    ],
)
def test_other_features_are_refused(features, message, tmp_path):
    made = [{name: np.zeros((*SIZE, kind.shape[-1]), np.uint8) for name, kind in features.items()}]
    write(tmp_path, features=features, splits={"train": made, "test": made})
    with pytest.raises(UserError, match=message):
        load_split("tfds:made_up", "train", str(tmp_path))


def test_damage_is_named(tmp_path):
    builder = write(tmp_path)
    [path] = builder.info.splits["train"].filepaths
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    with pytest.raises(UserError, match="ends within a record"):
        load_split("tfds:made_up", "train", str(tmp_path))
    path.write_bytes(data[: 16 + int.from_bytes(data[:8], "little")])
    with pytest.raises(UserError, match="train has 1 records, not 5"):
        load_split("tfds:made_up", "train", str(tmp_path))
    path.write_bytes(data.replace(b"\xff\xd8\xff", b"\xff\xd8\0"))
    with pytest.raises(UserError, match="train_000000 in .*: not a readable image"):
        load_split("tfds:made_up", "train", str(tmp_path)).read(0)
    path.write_bytes(data.replace(b"image", b"imagf"))
    with pytest.raises(UserError, match="train_000000 in .*: cannot be read"):
        load_split("tfds:made_up", "train", str(tmp_path)).read(0)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_split("tfds:made_up", "train", str(tmp_path))


class NeedsNetwork(tfds.core.GeneratorBasedBuilder):
    """A data set at an address where nobody answers."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = Path(__file__)
    url_infos = {"http://127.0.0.1:1/masks.zip": None}  # noqa: RUF012
    features = {"image": tfds.features.Image(), "mask": LABELED}  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict(self.features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.download(next(iter(self.url_infos))))}

    def _generate_examples(self, path):
        yield path, {}


def test_no_connection_is_told_at_once(tmp_path, monkeypatch):
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        load_split("tfds:needs_network", "train", str(tmp_path))
    assert time.monotonic() - start < 10
    assert str(error.value).splitlines() == [
        f"tfds:needs_network is not in {tmp_path}, and cannot be downloaded (127.0.0.1:1: "
        "ConnectionError).",
        "On a machine where it can run: tfds build needs_network --data_dir tfds; then copy what "
        f"is in the folder tfds to {tmp_path} here.",
    ]
    monkeypatch.setattr(NeedsNetwork, "MANUAL_DOWNLOAD_INSTRUCTIONS", "Register at\n  example.org.")
    with pytest.raises(
        UserError, match="downloaded by hand to .*manual.\nRegister at example.org.$"
    ):
        load_split("tfds:needs_network", "train", str(tmp_path))
    monkeypatch.setattr(NeedsNetwork, "features", {"image": tfds.features.Image()})
    with monkeypatch.context() as patch:
        patch.setattr(NeedsNetwork, "_info", lambda self: importlib.import_module("no.such"))
        with pytest.raises(UserError, match=r"needs another .*named 'no'\). Run: pip install no$"):
            load_split("tfds:needs_network", "train", str(tmp_path))
    with pytest.raises(UserError, match="needs one image and one mask"):  # no download in vain
        load_split("tfds:needs_network", "train", str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_data", "TFDS has no such data set, and .* has none, either"),
        ("kaggle:some", "not a name of TFDS"),
        ("../x", "not a name of TFDS"),
        ("", "not a name of TFDS"),
    ],
)
def test_unknown_names(name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        labels_of(f"tfds:{name}", "train", str(tmp_path))
    with pytest.raises(UserError, match="must be a folder"):
        labels_of(f"tfds:{name}", "train", "gs://bucket/data")


def test_a_name_is_no_path():
    config = TrainConfig.from_recipe(dataset="tfds:cityscapes/semantic_segmentation")
    assert absolute(config).dataset == shown(config).dataset == config.dataset
    assert config.recipe == "finetune"
