"""`predict --ray` against `predict` without it: real Ray, real kills, the protocol of S3."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.processes import FCN_KERAS, ROOT

from fcn_keras.cli import main
from fcn_keras.files import storage
from fcn_keras.files.results import LIST

RAY = ["--ray", "--workers", "2"]  # which take all of Ray's CPUs


def write_images(folder, count):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for index in range(count):
        path = folder / f"part_{index % 3}" / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(noise, index, axis=1)).save(path)
    return folder


def contents(folder):
    """Files except the list of results, by their names."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def predict(untrained_run, capfd):
    """Runs the command and returns its exit code, report and errors."""

    def run(*arguments):
        code = main(["predict", "--model", str(untrained_run), *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.slow
def test_results_are_those_without_ray(predict, tmp_path):
    pytest.importorskip("ray")
    images = write_images(tmp_path / "in", 60)
    Image.open(images / "part_0" / "0000.png").save(images / "part_0" / "0000.jpg")
    (images / "part_1" / "broken.jpg").write_bytes(b"no image")
    code, report, errors = predict(images, "--output", tmp_path / "here", "--confidence")
    assert code == 1 and "61 of 62 images predicted, 1 failed." in report
    here = contents(tmp_path / "here")

    all_of_it = [f"{kind}part_2/0005.png" for kind in ("", "confidence/", "confidence_scale/")]
    for name in ("part_2/0002.png", *all_of_it):
        path = tmp_path / "ray" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(here[name])
    (tmp_path / "ray" / LIST).write_bytes((tmp_path / "here" / LIST).read_bytes())
    flags = ["--output", tmp_path / "ray", "--confidence", "--skip-existing", *RAY]
    code, report, errors_with_ray = predict(images, *flags)
    # The first of the two masks has no confidence beside it, so it is made again.
    assert "60 of 62 images predicted, 1 already existed, 1 failed." in report
    assert code == 1 and errors_with_ray == errors and "broken.jpg" in errors
    assert contents(tmp_path / "ray") == here


@pytest.mark.slow
def test_another_runtime(predict, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("openvino")
    images = write_images(tmp_path / "in", 40)
    for output, flags in (("here", []), ("ray", RAY)):
        arguments = [images, "--output", tmp_path / output, "--runtime", "openvino", *flags]
        code, report, _ = predict(*arguments)
        assert code == 0 and "40 of 40 images predicted, 0 failed." in report
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


@pytest.mark.slow
def test_killed_actor_loses_nothing(predict, untrained_run, tmp_path):
    pytest.importorskip("ray")
    images, output = write_images(tmp_path / "in", 120), tmp_path / "ray"
    command = [*FCN_KERAS, "predict", "--model", untrained_run, images]
    command += ["--output", output, *RAY]
    process = subprocess.Popen(
        list(map(str, command)), env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    while process.poll() is None and len(list(output.rglob("[0-9]*.png"))) < 5:
        time.sleep(0.01)
    actors = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if b"ray::MapWorker" in (entry / "cmdline").read_bytes()
    ]
    os.kill(actors[0], signal.SIGKILL)
    assert len(list(output.rglob("[0-9]*.png"))) < 100
    report, _ = process.communicate()
    assert process.returncode == 0 and b"120 of 120 images predicted, 0 failed." in report
    assert predict(images, "--output", tmp_path / "here")[0] == 0
    assert contents(output) == contents(tmp_path / "here")


@pytest.mark.slow
def test_results_that_cannot_be_written_end_it(predict, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "file").write_text("no folder")
    images = write_images(tmp_path / "in", 3)
    code, _, errors = predict(images, "--output", tmp_path / "file" / "out", *RAY)
    assert code == 1 and errors.startswith(f"error: {tmp_path / 'file' / 'out'}")
    assert "cannot be written" in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "--workers", "2"], "--workers requires --ray."),
        (["a.png", "--ray", "--workers", "0"], "--workers must be at least 1. Received: 0."),
        (["--dataset", "sample", "--ray"], "--ray applies to files, not to --dataset."),
        (["ftp://a/b.png"], "ftp://a: unknown kind of address. Use one of s3://, gs://."),
    ],
)
def test_mistakes_are_named(arguments, message, predict, tmp_path):
    code, _, errors = predict(*arguments, "--output", tmp_path)
    assert code == 1 and errors.startswith(f"error: {message}")


@pytest.mark.parametrize("address", ["localhost:1", "ray://host", "auto"])
def test_addresses_without_a_cluster(address, predict, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "a.png").touch()
    command = (tmp_path / "a.png", "--output", tmp_path / "out", "--ray", address)
    code, _, errors = predict(*command)
    assert code == 1 and errors.startswith(f"error: --ray {address}: Ray cannot be reached (")


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket on an S3 server on this machine."""
    pytest.importorskip("pyarrow")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "some",
        "AWS_SECRET_ACCESS_KEY": "thing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3").create_bucket(Bucket="photos")
        yield "s3://photos"
    server.stop()


def downloaded(address, below=""):
    found = {}
    for entry in storage.list_folder(storage.join(address, below)):
        name = f"{below}/{entry.name}".lstrip("/")
        if entry.is_folder:
            found |= downloaded(address, name)
        else:
            found[name] = storage.read(f"{address}/{name}")
    return found


@pytest.mark.parametrize("flags", [[], pytest.param(RAY, marks=pytest.mark.slow)])
def test_object_store(bucket, predict, tmp_path, flags):
    folder, results = f"{bucket}/in {len(flags)}", f"{bucket}/in {len(flags)}/masks"
    for name, content in contents(write_images(tmp_path / "in", 9)).items():
        storage.write(f"{folder}/{name}", lambda path, content=content: path.write_bytes(content))
    assert predict(tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    arguments = [folder, f"{bucket}/none.png", "--output", results, "--skip-existing", *flags]
    for report in ("9 of 10 images predicted, 0", "0 of 10 images predicted, 9"):
        _, output, errors = predict(*arguments)
        assert output.startswith(f"{report} already existed, 1 failed.")
        assert errors == f"error: {bucket}/none.png: no such file or folder.\n"
        found = downloaded(results)
        assert found.pop(LIST).count(b"\n") == 10  # including the missing image
        assert found == contents(tmp_path / "out")
    assert predict(*arguments[: -1 - len(flags)], *flags)[0] == 1
    storage.write(f"{results}/{LIST}", Path.touch)
    code, _, errors = predict(*arguments[: -1 - len(flags)], *flags)
    assert code == 1 and len(errors.splitlines()) == 1
    assert "/0000.png: the result would replace a file that is not listed" in errors
    code, _, errors = predict(f"{results}/part_0/0000.png", "--output", f"{results}/part_0", *flags)
    assert code == 1 and "0000.png: the result would replace an image to predict" in errors


@pytest.mark.parametrize("kind", ["labelme", "coco"])
def test_polygons_in_an_object_store(bucket, predict, tmp_path, kind):
    folder, results = f"{bucket}/{kind}", f"{bucket}/{kind}/out"
    for name, content in contents(write_images(tmp_path / kind, 3)).items():
        storage.write(f"{folder}/{name}", lambda path, content=content: path.write_bytes(content))
    here = tmp_path / kind / "out"
    flags = ["--polygons", kind]
    assert predict(tmp_path / kind, "--output", here, *flags)[0] == 0
    for _ in range(2):
        assert predict(folder, "--output", results, *flags)[0] == 0
        found = downloaded(results)
        assert found.pop(LIST).count(b"\n") == (6 if kind == "labelme" else 7)
        assert found == contents(here)
    if kind == "labelme":
        corrected = found["labelme/part_0/0000.json"].replace(b"{", b"{\n", 1)
        storage.write(
            f"{results}/labelme/part_0/0000.json", lambda path: path.write_bytes(corrected)
        )
        code, _, errors = predict(folder, "--output", results, *flags)
        assert code == 1 and "0000.json: the result would replace a file that was corr" in errors
