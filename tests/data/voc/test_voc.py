"""VOC 2012 and SBD: palette, splits, records, downloads and their failures."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from support.fake_voc import SBD_IDS, VOC_IDS, fake_image, fake_mask, write_sbd, write_voc_devkit
from tensorflow_datasets.core.download import checksums

from fcn_keras.data.voc import builder as builder_module
from fcn_keras.data.voc import dataset
from fcn_keras.data.voc import download as voc_download
from fcn_keras.data.voc.builder import Voc2012Segmentation
from fcn_keras.data.voc.dataset import voc_split
from fcn_keras.data.voc.labels import VOC_CLASSES, VOC_COLORMAP, VOC_LABELS
from fcn_keras.errors import UserError
from fcn_keras.files import downloading

AUG_TRAIN = (*VOC_IDS["train"], "2008_000002", "2008_000007")  # without val's 2007_000033


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with both data sets; SBD's photograph of 2008_000002 is also in VOC."""
    root = tmp_path_factory.mktemp("voc")
    voc = write_voc_devkit(root)
    sbd = write_sbd(root)
    shutil.copy(sbd / "img" / "2008_000002.jpg", voc / "JPEGImages")
    (sbd / "img" / "2008_000002.jpg").unlink()
    voc_split("train", root)
    voc_split("train", root, augmented=True)
    return root


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which a local server serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        del args


def _archive(path, write):
    """Packs what `write(folder)` writes; returns the SHA-256, MD5 and size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
            for entry in sorted(os.listdir(folder)):
                tar.add(Path(folder, entry), entry)
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest(), len(data)


def _use_archive(monkeypatch, name, url, **changes):
    archive = dataclasses.replace(getattr(builder_module, name), urls=(url,), **changes)
    monkeypatch.setattr(builder_module, name, archive)


def _nothing_prepared(root):
    return not list(Path(root).glob("voc2012_segmentation/*/1.0.0"))


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A folder that cannot be written, the same folder to write to, and an empty home."""
    writable, shown = tmp_path / "disk", tmp_path / "data"
    write_voc_devkit(writable)
    shown.mkdir()
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with contextlib.ExitStack() as unmount:
        for command in (["--bind", writable, shown], ["-o", "remount,ro,bind", shown]):
            if shutil.which("mount") is None or subprocess.run(["mount", *command]).returncode:
                pytest.skip("mounting is not permitted")
            if command[0] == "--bind":
                unmount.callback(subprocess.run, ["umount", shown], check=True)
        yield shown, writable, tmp_path / "home" / "tensorflow_datasets"


def _records(*places):
    """The folders of records below `places`, with what tells new ones from old ones."""
    infos = (path for place in places for path in place.rglob("voc2012*/1.0.0/dataset_info.json"))
    return {path.parents[3]: path.stat().st_mtime_ns for path in infos}


def test_classes_and_colors_are_those_of_voc():
    assert len(VOC_CLASSES) == len(VOC_LABELS) == 21
    assert VOC_COLORMAP[VOC_CLASSES.index("background")] == (0, 0, 0)
    assert VOC_COLORMAP[VOC_CLASSES.index("aeroplane")] == (128, 0, 0)
    assert VOC_COLORMAP[VOC_CLASSES.index("person")] == (192, 128, 128)
    assert VOC_COLORMAP[VOC_CLASSES.index("tvmonitor")] == (0, 64, 128)


def test_import_is_light():
    code = (
        "import sys, fcn_keras.data.voc.dataset; "
        "sys.exit(bool({'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    ("split", "ids"),
    [
        ("train", VOC_IDS["train"]),
        ("val", VOC_IDS["val"]),
        ("trainval", VOC_IDS["train"] + VOC_IDS["val"]),
    ],
)
def test_images_and_masks_survive(prepared, split, ids):
    part = voc_split(split, prepared)
    assert (part.name, part.ids, part.labels) == (split, ids, VOC_LABELS)
    for index, image_id in enumerate(ids):
        image, mask = part.read(index)
        jpeg = prepared / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{image_id}.jpg"
        np.testing.assert_array_equal(image, np.asarray(Image.open(jpeg)))
        np.testing.assert_array_equal(mask, fake_mask(image_id))
        assert mask.dtype == np.uint8
        assert 255 in mask


def test_jpeg_bytes_are_kept(prepared):
    builder = Voc2012Segmentation(data_dir=prepared, config="voc2012", file_format="array_record")
    source = builder.as_data_source("val", decoders={"image": tfds.decode.SkipDecoding()})
    jpegs = prepared / "VOCdevkit" / "VOC2012" / "JPEGImages"
    for example in source:
        path = jpegs / f"{example['image_id'].decode()}.jpg"
        assert example["image"] == path.read_bytes()


def test_read_takes_indices_of_a_sequence(prepared):
    part = voc_split("trainval", prepared)
    np.testing.assert_array_equal(part.read(-1)[1], fake_mask(part.ids[-1]))
    with pytest.raises(IndexError):
        part.read(len(part))
    assert part.take(2).ids == part.ids[:2]


def test_augmented_train_leaves_out_val(prepared):
    train = voc_split("train", prepared, augmented=True)
    assert train.ids == AUG_TRAIN
    assert "2007_000033" in SBD_IDS["val"]  # or the line above would prove nothing
    assert voc_split("val", prepared, augmented=True).ids == VOC_IDS["val"]


def test_augmented_train_prefers_the_masks_of_voc(prepared):
    train = voc_split("train", prepared, augmented=True)
    for index, image_id in enumerate(train.ids):
        expected = fake_mask(image_id, void=image_id in VOC_IDS["train"])
        image, mask = train.read(index)
        np.testing.assert_array_equal(mask, expected)
        assert abs(image.astype(int) - fake_image(image_id)).mean() < 12


def test_read_from_many_threads(prepared):
    part = voc_split("trainval", prepared, augmented=True)
    indices = list(range(len(part))) * 40
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        masks = list(pool.map(lambda index: part.read(index)[1], indices))
    expected = [
        fake_mask(name, void=name in VOC_IDS["train"] + VOC_IDS["val"]) for name in part.ids
    ]
    assert all(np.array_equal(mask, expected[index]) for mask, index in zip(masks, indices))


def test_records_are_enough(prepared, tmp_path):
    shutil.copytree(prepared / "voc2012_segmentation", tmp_path / "voc2012_segmentation")
    assert voc_split("train", tmp_path, augmented=True).ids == AUG_TRAIN


def test_data_dir_from_the_environment(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert voc_split("val").ids == VOC_IDS["val"]


def test_changed_lists_are_noticed(prepared, tmp_path, capfd):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    sbd_list = tmp_path / "benchmark_RELEASE" / "dataset" / "train.txt"
    sbd_list.write_text("2007_000032\n")
    assert voc_split("train", tmp_path).ids == VOC_IDS["train"]  # not from SBD's list
    assert voc_split("train", tmp_path, augmented=True).ids == AUG_TRAIN[:3] + AUG_TRAIN[4:]
    assert f"{sbd_list} has changed" in capfd.readouterr().err


@pytest.mark.parametrize("changed", ["rewritten", "touched", "other photograph"])
def test_a_changed_file_is_noticed(tmp_path, capfd, changed):
    voc = write_voc_devkit(tmp_path)
    path = voc / "SegmentationClass" / "2007_000039.png"
    index, expected = VOC_IDS["train"].index(path.stem), fake_mask(path.stem)
    earlier = voc_split("train", tmp_path)
    if changed == "rewritten":
        expected = np.full_like(expected, 7)
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        Image.fromarray(expected).save(path)  # of another size
        os.utime(path, ns=times)
    elif changed == "touched":
        path.touch()
    else:
        path = voc / "JPEGImages" / "2007_000042.jpg"  # of val; one set of records has both
        Image.open(path).save(path, quality=5)
    before = _records(tmp_path)
    np.testing.assert_array_equal(voc_split("train", tmp_path).read(index)[1], expected)
    assert f"{path} has changed" in capfd.readouterr().err
    assert _records(tmp_path).keys() == before.keys() and _records(tmp_path) != before
    assert voc_split("train", tmp_path).ids == earlier.ids
    assert not capfd.readouterr().err and not list(tmp_path.rglob("*incomplete*"))


def test_a_file_that_is_gone_is_in_the_records(tmp_path, capfd):
    voc = write_voc_devkit(tmp_path)
    voc_split("train", tmp_path)
    capfd.readouterr()
    shutil.rmtree(voc / "JPEGImages")
    assert voc_split("train", tmp_path).read(0)
    assert not capfd.readouterr().err


def test_records_that_do_not_say_what_they_were_made_of_are_replaced(tmp_path, capfd):
    write_voc_devkit(tmp_path)
    voc_split("train", tmp_path)
    [path] = tmp_path.rglob("1.0.0/metadata.json")
    made_of = json.loads(path.read_text())
    made_of["lists"] = {"VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": "digest"}
    del made_of["files"]  # as before 0.2.0
    path.write_text(json.dumps(made_of))
    assert voc_split("train", tmp_path).read(0)
    assert "val.txt has changed" in capfd.readouterr().err
    assert "files" in json.loads(path.read_text())


def test_records_of_read_only_data_are_elsewhere(read_only, capfd):
    shown, writable, home = read_only
    place = Path(home, "voc2012_records", *shown.parts[1:])
    image, _ = voc_split("train", shown).read(0)
    err = capfd.readouterr().err
    assert err.count("Note:") == 1
    assert f"Note: {shown} cannot be written. Its records go to {place}\n" in err
    first = _records(home, writable)
    assert list(first) == [place]

    for _ in range(2):
        np.testing.assert_array_equal(voc_split("train", shown).read(0)[0], image)
    assert not capfd.readouterr().err
    assert _records(home, writable) == first

    Image.new("RGB", image.shape[1::-1]).save(
        writable / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{VOC_IDS['train'][0]}.jpg"
    )
    assert not voc_split("train", shown).read(0)[0].any()
    err = capfd.readouterr().err
    assert err.count("Note:") == 1 and "2007_000032.jpg has changed" in err
    second = _records(home, writable)
    assert second.keys() == first.keys() and second != first
    assert not list(home.rglob("*incomplete*"))


def test_records_beside_read_only_data(read_only, monkeypatch, tmp_path, capfd):
    shown, writable, home = read_only
    voc_split("train", writable)
    capfd.readouterr()
    assert voc_split("train", shown).ids == VOC_IDS["train"]
    assert not capfd.readouterr().err and not home.exists()
    path = writable / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt"
    path.write_text("2007_000039\n")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for _ in range(2):
        assert voc_split("train", shown).ids == ("2007_000039",)
    place = Path(tmp_path, "tfds", "voc2012_records", *shown.parts[1:])
    assert set(_records(writable, tmp_path / "tfds")) == {writable, place}
    assert not home.exists() and capfd.readouterr().err.count("Note:") == 1


def test_incomplete_records_beside_read_only_data(read_only):
    shown, writable, home = read_only
    (writable / "voc2012_segmentation" / "voc2012" / "1.0.0").mkdir(parents=True)
    assert voc_split("train", shown).ids == VOC_IDS["train"]
    assert len(_records(home)) == 1


def test_read_only_data_have_one_place(read_only, tmp_path):
    shown, _, home = read_only
    (tmp_path / "link").symlink_to(shown)
    for path in (shown, shown / "VOCdevkit" / "..", tmp_path / "link"):
        voc_split("train", path)
    assert list(_records(home.parent)) == [Path(home, "voc2012_records", *shown.parts[1:])]


@pytest.mark.parametrize("variable", [None, "below"])
def test_no_folder_can_be_written(read_only, monkeypatch, variable):
    shown, _, _ = read_only
    monkeypatch.setenv("HOME", str(shown / "home"))
    if variable:
        monkeypatch.setenv("TFDS_DATA_DIR", str(shown / variable))
    with pytest.raises(UserError) as error:
        voc_split("train", shown)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"VOC cannot be prepared in {shown} (Read-only file system) or ")
    assert message.count("Read-only file system") == (3 if variable else 2)
    assert message.endswith("Set TFDS_DATA_DIR to a writable folder with a few GB free.")


def test_data_that_are_missing_are_not_downloaded_elsewhere(read_only):
    shown, writable, home = read_only
    shutil.rmtree(writable / "VOCdevkit")
    with pytest.raises(UserError, match=rf"in {shown} \(Read-only.*\. Choose as --data-dir a"):
        voc_split("train", shown)
    assert not home.exists()


def test_sbd_beside_the_records_of_read_only_data(read_only, monkeypatch):
    shown, _, home = read_only
    place = Path(home, "voc2012_records", *shown.parts[1:])
    _use_archive(monkeypatch, "SBD", "http://127.0.0.1:1/benchmark.tgz")
    with pytest.raises(UserError, match=f"-C {place} and run again with --data-dir {shown}$"):
        voc_split("train", shown, augmented=True)
    write_sbd(place)  # as the message asks
    assert voc_split("train", shown, augmented=True).ids == AUG_TRAIN


def test_a_user_without_a_home(tmp_path, monkeypatch):
    write_voc_devkit(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", mock.Mock(side_effect=KeyError))
    assert voc_split("train", tmp_path).ids == VOC_IDS["train"]


def test_a_run_that_waited_takes_the_records_of_the_other(tmp_path, monkeypatch, capfd):
    path = write_voc_devkit(tmp_path) / "JPEGImages" / "2007_000032.jpg"
    voc_split("train", tmp_path)
    path.touch()
    alone, others = dataset.alone, []

    def after_the_other(place):
        monkeypatch.setattr(dataset, "alone", alone)
        others.append((voc_split("train", tmp_path), _records(tmp_path)))
        return alone(place)

    monkeypatch.setattr(dataset, "alone", after_the_other)
    assert voc_split("train", tmp_path).ids == VOC_IDS["train"]
    [(other, records)] = others
    assert _records(tmp_path) == records
    assert capfd.readouterr().err.count("has changed") == 1
    np.testing.assert_array_equal(other.read(0)[1], fake_mask("2007_000032"))


def test_records_replaced_while_in_use_are_noticed(tmp_path):
    path = write_voc_devkit(tmp_path) / "ImageSets" / "Segmentation" / "train.txt"
    earlier = voc_split("train", tmp_path)  # opens its files at the first read
    path.write_text("\n".join(reversed(VOC_IDS["train"])))
    assert voc_split("train", tmp_path).ids == tuple(reversed(VOC_IDS["train"]))
    with pytest.raises(UserError, match="2007_000032 cannot be read .*Run again"):
        earlier.read(0)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("JPEGImages/2007_000039.jpg", None),
        ("JPEGImages/2007_000039.jpg", b"\xff\xd8\xff no photograph"),
        ("SegmentationClass/2007_000042.png", None),
        ("SegmentationClass/2007_000042.png", b"no mask"),
        ("ImageSets/Segmentation/val.txt", None),
        ("ImageSets/Segmentation/train.txt", None),
    ],
)
def test_bad_file_of_voc_is_named(tmp_path, file, content):
    path = write_voc_devkit(tmp_path) / file
    path.unlink()
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        voc_split("train", tmp_path)
    assert str(path) in str(error.value)
    assert _nothing_prepared(tmp_path)


def test_mask_of_another_size_is_named(tmp_path):
    path = write_voc_devkit(tmp_path) / "SegmentationClass" / "2007_000042.png"
    Image.open(path).crop((0, 0, 9, 9)).save(path)
    with pytest.raises(UserError, match=r"2007_000042.png: height and width \(9, 9\)"):
        voc_split("train", tmp_path)


@pytest.mark.parametrize("content", [None, b"no mat"])
def test_bad_mask_of_sbd_is_named(tmp_path, content):
    write_voc_devkit(tmp_path)
    path = write_sbd(tmp_path) / "cls" / "2008_000007.mat"
    path.unlink()
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"2008_000007\.mat"):
        voc_split("train", tmp_path, augmented=True)
    assert _nothing_prepared(tmp_path)


def test_scipy_is_asked_for_by_name(tmp_path, monkeypatch):
    write_voc_devkit(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"needs the package scipy .* install 'fcn_keras\[sbd\]'$"):
        voc_split("train", tmp_path, augmented=True)


def test_wrong_arguments(tmp_path):
    with pytest.raises(UserError, match=r"train, val, trainval\. Received: 'test'"):
        voc_split("test", tmp_path)
    voc = write_voc_devkit(tmp_path)
    for inside in (voc, voc.parent):
        with pytest.raises(UserError, match=f"inside it: {tmp_path}\\."):
            voc_split("train", inside)


def test_folder_that_cannot_be_written(tmp_path):
    if os.geteuid() == 0:  # root may write anywhere else
        root = Path("/proc/self")
    else:
        root = tmp_path / "locked"
        root.mkdir(mode=0o500)
    with pytest.raises(UserError, match=rf"VOC cannot be prepared in {root} \(.*--data-dir"):
        voc_split("train", root)


def test_folder_that_does_not_exist_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="--data-dir .*none: no such folder"):
        voc_split("train", tmp_path / "none")


def test_half_made_records_are_not_used(tmp_path):
    write_voc_devkit(tmp_path)
    records = tmp_path / "voc2012_segmentation" / "voc2012" / "1.0.0"
    records.mkdir(parents=True)
    with pytest.raises(UserError, match="incomplete data set. Delete this folder") as error:
        voc_split("train", tmp_path)
    assert str(records) in str(error.value)


def test_records_in_another_format(tmp_path):
    write_voc_devkit(tmp_path)
    builder = Voc2012Segmentation(data_dir=tmp_path, config="voc2012")  # TFDS's tfrecord
    builder.download_and_prepare()
    with pytest.raises(UserError, match="voc2012_segmentation/voc2012: records that cannot"):
        voc_split("train", tmp_path)


def test_damaged_records(prepared, tmp_path):
    shutil.copytree(prepared / "voc2012_segmentation", tmp_path / "voc2012_segmentation")
    (shard,) = tmp_path.glob("voc2012_segmentation/voc2012/1.0.0/*train.array_record*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match="delete this folder"):
        voc_split("train", tmp_path).read(0)


def test_no_network_says_what_to_fetch(tmp_path, monkeypatch):
    url = "http://127.0.0.1:1/VOCtrainval_11-May-2012.tar"  # a closed port
    _use_archive(monkeypatch, "VOC", url)
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        voc_split("train", tmp_path)
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert len(message.splitlines()) == 2
    for part in (
        url,
        "SHA-256 e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        f"tar -xf VOCtrainval_11-May-2012.tar -C {tmp_path}",
        f"--data-dir {tmp_path}",
    ):
        assert part in message
    assert _nothing_prepared(tmp_path)


def test_sbd_alone_is_missing(tmp_path, monkeypatch):
    write_voc_devkit(tmp_path)
    _use_archive(monkeypatch, "SBD", "http://127.0.0.1:1/benchmark.tgz")
    with pytest.raises(UserError, match=r"benchmark.tgz cannot .* \(MD5 82b4d87ceb2ed10f60"):
        voc_split("train", tmp_path, augmented=True)


def test_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, never answers
        _use_archive(monkeypatch, "VOC", f"http://127.0.0.1:{server.getsockname()[1]}/voc.tar")
        start = time.monotonic()
        with pytest.raises(UserError, match="cannot be downloaded"):
            voc_split("train", tmp_path)
        assert time.monotonic() - start < 5


def test_slow_lookup_of_a_name_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(3) or [])
    _use_archive(monkeypatch, "VOC", "http://voc.invalid/voc.tar")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"voc.invalid: no answer in 0.3 s"):
        voc_split("train", tmp_path)
    assert time.monotonic() - start < 2


def test_probes_stay_within_half_a_minute():
    addresses = len(builder_module.VOC.urls) + len(builder_module.SBD.urls)
    assert addresses * downloading.PROBE_SECONDS <= 30


def test_downloads_and_falls_back(tmp_path, served, monkeypatch):
    folder, address = served
    voc_sha, _, size = _archive(folder / "voc.tar", write_voc_devkit)
    _, sbd_md5, _ = _archive(folder / "benchmark.tgz", write_sbd)
    url = f"{address}/voc.tar"
    _use_archive(monkeypatch, "VOC", url)
    broken_first = dataclasses.replace(builder_module.VOC, urls=(f"{address}/gone.tar", url))
    monkeypatch.setattr(builder_module, "VOC", broken_first)
    _use_archive(monkeypatch, "SBD", f"{address}/benchmark.tgz", md5=sbd_md5)
    info = {url: checksums.UrlInfo(tfds.core.utils.Size(size), voc_sha, "voc.tar")}
    monkeypatch.setattr(Voc2012Segmentation, "url_infos", info)

    root = tmp_path / "data"
    root.mkdir()
    assert voc_split("train", root, augmented=True).ids == AUG_TRAIN
    # The other config works offline now.
    _use_archive(monkeypatch, "VOC", "http://127.0.0.1:1/voc.tar")
    part = voc_split("val", root)
    np.testing.assert_array_equal(part.read(1)[1], fake_mask(part.ids[1]))


def test_a_killed_download_leaves_nothing_for_ever(tmp_path, monkeypatch):
    content, go_on = tmp_path / "voc.tar", threading.Event()
    sha, _, size = _archive(content, write_voc_devkit)

    class HalfThenNothing(_QuietHandler):
        def do_GET(self):
            data = content.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has disconnected
                self.wfile.write(data[: len(data) // 2])
                go_on.wait()
                self.wfile.write(data[len(data) // 2 :])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HalfThenNothing) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        url, root = f"http://127.0.0.1:{server.server_port}/voc.tar", tmp_path / "data"
        root.mkdir()
        program = (
            "import dataclasses, fcn_keras.data.voc.builder as module\n"
            f"module.VOC = dataclasses.replace(module.VOC, urls=({url!r},))\n"
            "from fcn_keras.data.voc.dataset import voc_split\n"
            f"voc_split('train', {str(root)!r})\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not list(root.glob("downloads/*/*.tmp.*/*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
        process.wait()
        go_on.set()
        [left] = root.glob("downloads/*/*.tmp.*")
        _use_archive(monkeypatch, "VOC", url)
        info = {url: checksums.UrlInfo(tfds.core.utils.Size(size), sha, "voc.tar")}
        monkeypatch.setattr(Voc2012Segmentation, "url_infos", info)
        assert voc_split("train", root).ids == VOC_IDS["train"]
        server.shutdown()
    assert not left.exists() and not list(root.rglob("*incomplete*"))


def test_downloads_are_encrypted_and_checked():
    sums = builder_module.Voc2012Segmentation.url_infos
    for archive in (builder_module.VOC, builder_module.SBD):
        for url in archive.urls:
            assert url.startswith("https://")
            assert archive.md5 or sums[url].checksum in archive.checksum


def test_wrong_checksum_of_voc(tmp_path, served, monkeypatch):
    folder, address = served
    _archive(folder / "voc.tar", write_voc_devkit)
    url = f"{address}/voc.tar"
    _use_archive(monkeypatch, "VOC", url)
    info = {url: checksums.UrlInfo(tfds.core.utils.Size(3), "0" * 64, "voc.tar")}
    monkeypatch.setattr(Voc2012Segmentation, "url_infos", info)
    with pytest.raises(UserError, match="wrong checksum.*Delete that file and run again") as error:
        voc_split("train", tmp_path)
    (file,) = (tmp_path / "downloads").rglob("voc.tar")
    assert str(file) in str(error.value)
    assert _nothing_prepared(tmp_path)


def test_wrong_checksum_of_sbd(tmp_path, served, monkeypatch):
    folder, address = served
    write_voc_devkit(tmp_path)
    _, md5, _ = _archive(folder / "benchmark.tgz", write_sbd)
    _use_archive(monkeypatch, "SBD", f"{address}/benchmark.tgz")
    with pytest.raises(UserError, match=f"wrong checksum.*received MD5 {md5}") as error:
        voc_split("train", tmp_path, augmented=True)
    file = Path(str(error.value).split(": wrong checksum")[0])
    file.unlink()  # as the message asks
    _use_archive(monkeypatch, "SBD", f"{address}/benchmark.tgz", md5=md5)
    assert voc_split("train", tmp_path, augmented=True).ids == AUG_TRAIN


class _BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks, on data written here instead of committed ones."""

    DATASET_CLASS = Voc2012Segmentation
    DL_EXTRACT_ONLY_RESULT = "."

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.EXAMPLE_DIR = folder
        write_voc_devkit(folder)
        write_sbd(folder)
        Path(folder, "archive").write_bytes(b"stands for the archives")
        super().setUpClass()

    def setUp(self):
        super().setUp()
        patches = contextlib.ExitStack()
        patches.enter_context(mock.patch.object(voc_download, "why_unreachable", lambda _: None))
        sbd = dataclasses.replace(
            builder_module.SBD, md5=hashlib.md5(b"stands for the archives").hexdigest()
        )
        patches.enter_context(mock.patch.object(builder_module, "SBD", sbd))
        self.addCleanup(patches.close)


class VocBuilderTest(_BuilderTest):
    BUILDER_CONFIG_NAMES_TO_TEST: ClassVar = ["voc2012"]
    DL_DOWNLOAD_RESULT = "archive"
    SPLITS: ClassVar = {"train": len(VOC_IDS["train"]), "val": len(VOC_IDS["val"])}


class AugmentedBuilderTest(_BuilderTest):
    BUILDER_CONFIG_NAMES_TO_TEST: ClassVar = ["voc2012_aug"]
    DL_DOWNLOAD_RESULT = "archive"
    SPLITS: ClassVar = {"train": len(AUG_TRAIN), "val": len(VOC_IDS["val"])}
    SKIP_CHECKSUMS = True  # SBD's SHA-256, the only kind TFDS knows, is not published


del _BuilderTest  # pytest would run it without SPLITS
