"""Whole runs on a few small pictures; those that are killed or use two devices are processes."""

import json
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.fake_folder import CLASSES
from support.fake_voc import write_sbd, write_voc_devkit
from support.processes import finish, start, until_epoch
from support.runs import FORMLESS, QUICK, history_of

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.sample.dataset import write_sample
from fcn_keras.errors import UserError
from fcn_keras.evaluation.scores import evaluate
from fcn_keras.inference.loading import load_model
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import RunFolder
from fcn_keras.training.objectives import SegmentationCrossentropy
from fcn_keras.training.train import _build_and_compile, _doubts, build_model, resume, train


def train_here(shapes, run_dir, *flags):
    return main(["train", "--dataset", str(shapes), "--run-dir", str(run_dir), *QUICK, *flags])


def weights_of(run_dir, name="last"):
    model = keras.models.load_model(Path(run_dir) / f"{name}.keras", compile=False)
    return model.get_weights()


def test_a_run_leaves_all_its_files(finished_run, shapes):
    names = {path.name for path in finished_run.iterdir()}
    assert names == {
        *("config.json", "history.csv", "metrics.json", "best.keras", "last.keras"),
        *("curves.png", "predictions.png", "logs", "MODEL_CARD.md"),
    }
    assert list((finished_run / "logs").rglob("events.out.tfevents.*"))
    for picture in ("curves.png", "predictions.png"):
        assert np.ptp(np.asarray(Image.open(finished_run / picture).convert("L"))) > 100
    assert [row["epoch"] for row in history_of(finished_run)] == ["1", "2"]
    config = json.loads((finished_run / "config.json").read_text())
    assert config["train"]["dataset"] == str(shapes) and config["train"]["crop"] == [48, 64]
    assert config["labels"]["names"] == list(CLASSES)
    assert config["versions"]["keras"] == keras.__version__


def test_metrics_are_those_of_the_best_model_on_whole_images(finished_run, shapes):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    segmenter = Segmenter.load(finished_run / "best.keras")
    assert metrics == evaluate(segmenter, load_split(str(shapes), "val")).to_dict()
    assert set(metrics["per_class_iou"]) == set(CLASSES)
    best = max(float(row["val_mean_iou"]) for row in history_of(finished_run))
    assert metrics["mean_iou"] == pytest.approx(best, abs=1e-5)


def test_a_finished_run_says_so_and_goes_on_when_asked(finished_run, resumed_run, capfd):
    before = (finished_run / "last.keras").stat().st_mtime_ns
    assert main(["train", "--resume", str(finished_run)]) == 0
    assert "is finished: 2 epochs" in capfd.readouterr().out
    assert (finished_run / "last.keras").stat().st_mtime_ns == before
    assert [row["epoch"] for row in history_of(resumed_run)] == ["1", "2", "3", "4"]


def test_an_existing_folder_is_never_overwritten(finished_run, shapes, capfd):
    assert train_here(shapes, finished_run) == 1
    assert "already exists and is never overwritten" in capfd.readouterr().err


def test_training_lowers_the_loss_and_learns(shapes, tmp_path):
    flags = "--epochs 6 --batch-size 2 --crop 48 64 --scale 1 1 --output-stride 8".split()
    flags += "--optimizer adamw --learning-rate 1e-2".split()
    assert train_here(shapes, tmp_path / "run", *flags) == 0
    losses = [float(row["loss"]) for row in history_of(tmp_path / "run")]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
def test_max_steps_ends_the_run_with_the_schedule_of_the_whole(shapes, tmp_path):
    flags = "--epochs 10 --batch-size 2 --max-steps 4 --schedule poly".split()  # 3 steps per epoch
    assert train_here(shapes, tmp_path / "run", *flags) == 0
    rows = history_of(tmp_path / "run")
    assert len(rows) == 2 and (tmp_path / "run" / "metrics.json").exists()
    for _ in range(2):  # as finished, then as killed before its metrics were written
        assert main(["train", "--resume", str(tmp_path / "run")]) == 0
        assert len(history_of(tmp_path / "run")) == 2
        (tmp_path / "run" / "metrics.json").unlink()
    # Polynomial decay with power 0.9 over 30 steps, after 3 and 4 of them.
    expected = [0.01 * (1 - step / 30) ** 0.9 for step in (3, 4)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(expected, rel=1e-4)


def test_early_stopping_counts_from_the_best_epoch(shapes, tmp_path):
    flags = ["--epochs", "9", "--early-stopping", "2", "--learning-rate", "1e-12"]
    flags += ["--freeze", "backbone"]  # nothing changes: the first epoch stays the best
    assert train_here(shapes, tmp_path / "run", *flags) == 0
    assert len(history_of(tmp_path / "run")) == 3


@pytest.mark.slow
def test_coarse_epochs_and_rare_validation_resume_alike(shapes, tmp_path):
    flags = ["--epochs", "4", "--coarse-epochs", "3", "--validate-every", "3"]
    flags += ["--warmup-steps", "2", "--schedule", "cosine"]
    assert train_here(shapes, tmp_path / "whole", *flags) == 0
    rows = history_of(tmp_path / "whole")
    assert [row["val_mean_iou"] != "nan" for row in rows] == [False, False, True, True]
    assert [row["crop_height"] for row in rows] == ["16.0", "16.0", "16.0", "32.0"]

    assert train_here(shapes, tmp_path / "cut", *flags, "--max-steps", "2") == 0
    (tmp_path / "cut" / "metrics.json").unlink()
    assert main(["train", "--resume", str(tmp_path / "cut"), "--max-steps", "9"]) == 0
    again = history_of(tmp_path / "cut")
    for row, expected in zip(again, rows, strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)
        assert row["crop_height"] == expected["crop_height"]


@pytest.mark.slow
def test_a_run_resumes_when_what_it_began_with_is_gone(finished_run, shapes, tmp_path):
    origin = shutil.copytree(finished_run, tmp_path / "origin")
    flags = ["--init-from", str(origin), "--output-stride", "8", "--epochs", "1"]
    assert train_here(shapes, tmp_path / "run", *flags) == 0
    shutil.rmtree(origin)
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "2"]) == 0
    assert len(history_of(tmp_path / "run")) == 2


def test_damaged_models_are_named(finished_run, shapes, tmp_path, capfd):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in finished_run.glob("*.*"):
        (damaged / path.name).write_bytes(
            path.read_bytes()[: 1000 if path.suffix == ".keras" else None]
        )
    (damaged / "metrics.json").unlink()
    assert main(["train", "--resume", str(damaged)]) == 1
    assert "last.keras: damaged, or saved with settings other" in capfd.readouterr().err
    assert train_here(shapes, tmp_path / "new", "--init-from", str(damaged)) == 1
    stderr = capfd.readouterr().err
    assert (
        "best.keras: not a .keras model, or a damaged one" in stderr and "Traceback" not in stderr
    )


# In one epoch, only the validation loss is bad.
@pytest.mark.parametrize("epochs", ["1", pytest.param("4", marks=pytest.mark.slow)])
def test_diverging_loss_is_reported(shapes, tmp_path, capfd, epochs):
    run_dir = tmp_path / "run"
    assert train_here(shapes, run_dir, "--epochs", epochs, "--learning-rate", "1e30") == 1
    assert "loss became nan" in capfd.readouterr().err
    assert not (run_dir / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_resumes(shapes, tmp_path, precision):
    run_dir = tmp_path / "run"
    assert train_here(shapes, run_dir, "--epochs", "1", "--mixed-precision", precision) == 0
    assert main(["train", "--resume", str(run_dir), "--epochs", "2"]) == 0
    assert len(history_of(run_dir)) == 2


def test_only_training_has_the_auxiliary_head(shapes, tmp_path):
    run_dir = tmp_path / "run"
    flags = ["--dataset", str(shapes), "--backbone", "tiny", "--batch-size", "6", "--dilated"]
    flags += ["--crop", "48", "64", "--epochs", "2", "--run-dir", str(run_dir)]
    assert main(["train", *flags]) == 0
    config = RunFolder(run_dir).read_config()
    assert (config.recipe, config.output_stride, config.auxiliary_weight) == ("strong", None, 0.4)
    last = keras.models.load_model(run_dir / "last.keras")
    best = load_model(run_dir / "best.keras")
    assert (last.output_names, best.output_names) == (["logits", "auxiliary_logits"], ["logits"])
    assert last.optimizer.iterations == 2
    assert not [layer for layer in best.layers if "auxiliary" in layer.name]
    assert "# Dilated FCN, tiny" in (run_dir / "MODEL_CARD.md").read_text()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    scores = max(float(row["val_mean_iou"]) for row in history_of(run_dir))
    assert metrics["mean_iou"] == pytest.approx(scores, abs=1e-5)


def test_the_auxiliary_head_has_the_loss_of_the_pixels_alone(shapes):
    pixels = {"class_weights": (1.0, 2.0, 3.0), "label_smoothing": 0.1}
    region = {"region_loss": "dice", "region_weight": 2.0}
    network = {"backbone": "tiny", "weights": "none", "dilated": True, "auxiliary_weight": 0.3}
    config = TrainConfig(dataset=str(shapes), **network, loss="ohem", **pixels, **region)
    splits = load_split(str(shapes), "train"), load_split(str(shapes), "val")
    model, _ = _build_and_compile(config, splits, tf.distribute.get_strategy())
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (1, 8, 9)).astype("uint8")
    logits = list(rng.normal(size=(2, 1, 8, 9, 3)).astype("float32"))
    whole = SegmentationCrossentropy(kind="ohem", **pixels, **region)
    plain = SegmentationCrossentropy(kind="ohem", **pixels)
    first, second = float(whole(mask, logits[0])), float(plain(mask, logits[1]))
    in_training = model.compute_loss(y=mask, y_pred=logits, training=True)
    assert float(in_training) == pytest.approx(first + 0.3 * second, rel=1e-5)
    in_validation = model.compute_loss(y=mask, y_pred=logits, training=False)
    assert float(in_validation) == pytest.approx(first, rel=1e-5)


@pytest.mark.slow
def test_automatic_precision_is_recorded_as_what_it_was(shapes, tmp_path):
    run_dir = tmp_path / "run"
    assert train_here(shapes, run_dir, "--max-steps", "1", "--mixed-precision", "auto") == 0
    chosen = json.loads((run_dir / "config.json").read_text())["train"]["mixed_precision"]
    backbone = keras.models.load_model(run_dir / "best.keras").get_layer("backbone")
    dtypes = {"off": "float32", "bfloat16": "bfloat16"}
    assert backbone.get_layer("conv1_conv").compute_dtype == dtypes[chosen]
    fast = any(
        f" {flag}" in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf")
    )
    assert fast == (chosen == "bfloat16")


def test_finer_net_starts_from_a_coarser_run(finished_run, shapes):
    network = {"backbone": "tiny", "output_stride": 8, "mixed_precision": "off"}
    config = TrainConfig.from_recipe(
        dataset=str(shapes), init_from=str(finished_run), seed=5, **network
    )
    labels = load_split(str(shapes), "train").labels
    coarse = keras.models.load_model(finished_run / "best.keras", compile=False)
    fine = build_model(config, labels)
    for name in ("backbone", "score_32", "score_16"):
        for ours, theirs in zip(fine.get_layer(name).weights, coarse.get_layer(name).weights):
            np.testing.assert_array_equal(ours, theirs)
    assert not np.any(fine.get_layer("score_8").kernel)
    other = config.replaced(backbone="resnet18")
    with pytest.raises(UserError, match="Layer 'backbone' differs"):
        build_model(other, labels)


@pytest.mark.slow
def test_train_from_python(shapes, tmp_path):
    run = train(
        TrainConfig.from_recipe(
            dataset=str(shapes),
            backbone="tiny",
            epochs=1,
            batch_size=6,
            crop=(32, 32),
            run_dir=str(tmp_path / "r"),
        )
    )
    assert run.read_metrics()["mean_iou"] >= 0
    assert run.read_config().epochs == 1 and run.read_labels().names == CLASSES


class Epochs(keras.callbacks.Callback):
    """Remembers the epochs that it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(epoch)


def dimmed(image, mask):
    return image // 2, mask


@pytest.mark.slow
def test_an_augmentation_and_callbacks_from_python_are_used_recorded_and_needed(shapes, tmp_path):
    config = TrainConfig.from_recipe(
        "strong", dataset=str(shapes), weights="none", backbone="tiny", batch_size=6, crop=(32, 32)
    )

    def run(name, augment, epochs):
        settings = {"epochs": epochs, "schedule": "constant", "run_dir": str(tmp_path / name)}
        return train(config.replaced(**settings), augment, [Epochs()])

    whole, cut = run("whole", dimmed, 2), run("cut", dimmed, 1)
    plain = train(config.replaced(epochs=1, run_dir=str(tmp_path / "plain")))
    assert history_of(plain.path)[0]["loss"] != history_of(whole.path)[0]["loss"]
    here = __name__
    assert cut.read_additions() == {"augment": f"{here}.dimmed", "callbacks": [f"{here}.Epochs"]}
    card = (cut.path / "MODEL_CARD.md").read_text()
    assert f"- From Python: `augment={here}.dimmed, callbacks=[{here}.Epochs]`" in card
    with pytest.raises(UserError, match=f"trained from Python with augment={here}.dimmed"):
        resume(cut.path, callbacks=[Epochs()], epochs=2)
    epochs = Epochs()
    resume(cut.path, dimmed, [epochs], epochs=2)
    assert epochs.seen == [1]
    for row, expected in zip(history_of(cut.path), history_of(whole.path), strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)
    assert cut.read_additions() == whole.read_additions()


def test_a_mistake_in_an_augmentation_is_found_before_the_run_begins(shapes, tmp_path):
    config = TrainConfig.from_recipe(dataset=str(shapes), run_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="augment must return an image"):
        train(config, lambda image, mask: image)
    with pytest.raises(ZeroDivisionError):
        train(config, lambda image, mask: 1 / 0)
    assert not (tmp_path / "run").exists()


def test_cutmix_needs_two_examples(shapes, tmp_path, capfd):
    flags = ["--cutmix", "0.5", "--batch-size", "1"]
    assert train_here(shapes, tmp_path / "run", *flags) == 1
    assert "--cutmix needs a --batch-size of at least 2. Received: 1." in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


# Whole crops need the recipe's own network: TensorFlow 2.21 crashes in the gradient of a
# convolution of stride 2 with fewer than 16 channels on maps of that size.
@pytest.mark.parametrize(
    "flags",
    [["--backbone", "tiny", "--crop", "64", "96"], pytest.param([], marks=pytest.mark.slow)],
)
def test_voc2012_recipe_on_a_small_devkit(tmp_path, flags):
    write_voc_devkit(tmp_path)
    flags = ["--data-dir", str(tmp_path), "--weights", "none", "--max-steps", "2", *flags]
    run = tmp_path / "run"
    assert main(["train", "--recipe", "voc2012", "--run-dir", str(run), *flags]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["per_class_iou"]) == 21


@pytest.mark.slow
def test_voc2012_best_recipe_on_a_small_devkit(tmp_path):
    write_voc_devkit(tmp_path)
    write_sbd(tmp_path)
    flags = "--backbone tiny --weights none --crop 64 64 --batch-size 2 --epochs 1".split()
    flags += ["--max-steps", "2"]
    flags += ["--data-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    assert main(["train", "--recipe", "voc2012_best", *flags]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["per_class_iou"]) == 21


@pytest.mark.slow
def test_a_run_at_another_size_predicts_at_it(shapes, tmp_path):
    run_dir = tmp_path / "run"
    assert (
        train_here(shapes, run_dir, "--epochs", "1", "--short-side", "64", "--crop", "32", "32")
        == 0
    )
    segmenter = Segmenter.load(run_dir)
    assert segmenter.short_side == 64
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics == evaluate(segmenter, load_split(str(shapes), "val")).to_dict()
    assert main(["train", "--resume", str(run_dir), "--epochs", "2"]) == 0


@pytest.mark.parametrize(
    "settings, note",
    [
        ({"batch_size": 7}, "6 training images are repeated to fill a batch of 7"),
        (
            {"weights": "none", "freeze": "batchnorm"},
            "--weights none starts from random values, which --freeze batchnorm keeps",
        ),
        (
            {"weights": "none", "frozen_epochs": 2},
            "--weights none starts from random values, which --frozen-epochs 2 keeps",
        ),
        ({"frozen_epochs": 5}, "--frozen-epochs 5 covers all epochs (5)"),
        ({"frozen_epochs": 4}, ""),
        (
            {"backbone_rate": 0.03, "learning_rate": 1e-4, "given": ("learning_rate",)},
            "--learning-rate 0.0001 is the head's; the backbone has 0.03 of it",
        ),
        (
            {"backbone_rate": 0.03, "given": ("backbone_rate", "learning_rate")},
            "",
        ),
        (
            {"optimizer": "adamw", "momentum": 0.9, "given": ("momentum",)},
            "--momentum 0.9 has no effect on --optimizer adamw",
        ),
        ({"optimizer": "adamw", "momentum": 0.9}, ""),  # of a recipe
        (
            {"freeze": "backbone", "layer_decay": 0.5, "given": ("layer_decay",)},
            "--backbone-rate and --layer-decay have no effect with --freeze backbone",
        ),
        ({"warmup_steps": 5}, "--warmup-steps 5 covers all steps (5)"),
        ({"warmup_steps": 4}, ""),
    ],
)
def test_doubtful_settings_get_a_note(settings, note, shapes):
    values = {"weights": "imagenet", "batch_size": 6, "epochs": 5, **settings}
    notes = [*_doubts(TrainConfig(**values), load_split(str(shapes), "train"))]
    assert len(notes) == bool(note) and all(each.startswith(note) for each in notes)


def test_a_batch_that_cannot_be_accumulated(shapes, tmp_path, capfd):
    flags = ["--batch-size", "7", "--accumulation-steps", "2"]
    assert train_here(shapes, tmp_path / "run", *flags) == 1
    note, error = capfd.readouterr().err.splitlines()[-2:]
    assert note.startswith("Note: 6 training images are repeated to fill a batch of 7")
    assert error.endswith(
        "--batch-size must be a multiple of the 2 accumulation steps. Received: 7."
    )


AVERAGED = "--ema 0.9 --accumulation-steps 2 --clip-norm 1 --backbone-rate 0.5 --frozen-epochs 1"


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--dilated"], AVERAGED.split()])
def test_killed_run_resumes_to_the_same_weights(shapes, tmp_path, form):
    flags = form + ["--dataset", shapes, *FORMLESS, "--epochs", "5", "--batch-size", "2", "--flip"]
    flags += ["--scale", "0.5", "2", "--optimizer", "adamw", "--learning-rate", "1e-4"]
    flags += ["--schedule", "poly", "--backbone", "resnet18"]  # whose epochs take a while
    finish("train.py", *flags, "--run-dir", tmp_path / "whole")

    process = start("train.py", *flags, "--run-dir", tmp_path / "killed")
    until_epoch(process, 3)
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert len(history_of(tmp_path / "killed")) == 2
    assert not (tmp_path / "killed" / "metrics.json").exists()

    assert "after epoch 2" in finish("train.py", "--resume", tmp_path / "killed")
    whole, resumed = history_of(tmp_path / "whole"), history_of(tmp_path / "killed")
    assert [row["epoch"] for row in resumed] == ["1", "2", "3", "4", "5"]
    for row, expected in zip(resumed, whole):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)
        assert row["learning_rate"] == expected["learning_rate"]
    for name in ("last", "best"):
        pairs = list(zip(*(weights_of(tmp_path / run, name) for run in ("killed", "whole"))))
        assert max(np.abs(ours - theirs).max() for ours, theirs in pairs) < 1e-4


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one(tmp_path):
    folder = tmp_path / "data"
    write_sample(folder, train=8, val=3, size=(64, 96))
    for path in (folder / "SegmentationClass").iterdir():  # label the unlabelled pixels
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 255, 0, mask)).save(path)
    # One step per epoch, so that the history has the loss of every step. The rate is
    # low: float error changes gradients by 0.2 to 1 %, probably by switching ReLUs.
    flags = ["--dataset", folder, "--batch-size", "8", "--crop", "64", "96", "--epochs", "5"]
    flags += ["--output-stride", "32", "--scale", "1", "1", "--learning-rate", "2e-5"]
    flags += ["--weights", "none"]
    losses = {}
    for devices in (1, 2):
        run_dir = tmp_path / str(devices)
        options = ["--synchronized-batchnorm", "--devices", devices, "--run-dir", run_dir]
        finish("train.py", *flags, *options)
        losses[devices] = [float(row["loss"]) for row in history_of(run_dir)]
    assert losses[1] == pytest.approx(losses[2], abs=1e-4)
    assert losses[1][0] - losses[1][4] > 0.02  # the steps have the right length, too


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--dilated"]])
def test_two_devices_validate_the_statistics_that_are_saved(shapes, tmp_path, form):
    """Without synchronised BatchNorm, the replicas' moving statistics differ."""
    flags = [*form, "--dataset", shapes, *FORMLESS, "--epochs", "2", "--devices", "2"]
    finish("train.py", *flags, "--run-dir", tmp_path)
    best = max(float(row["val_mean_iou"]) for row in history_of(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["mean_iou"] == pytest.approx(best, abs=1e-5)


@pytest.mark.slow
def test_sample_run_learns(tmp_path):
    finish("train.py", "--run-dir", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["mean_iou"] >= 0.60


@pytest.mark.slow
def test_camvid_loss_falls(tmp_path):
    camvid = os.environ.get("CAMVID_DIR")
    if not camvid:
        pytest.skip("set CAMVID_DIR to CamVid in VOC's layout")
    flags = ["--dataset", camvid, "--epochs", "3", "--batch-size", "8", "--weights", "none"]
    finish("train.py", *flags, "--run-dir", tmp_path / "run")
    losses = [float(row["loss"]) for row in history_of(tmp_path / "run")]
    assert losses[0] > losses[1] > losses[2]
