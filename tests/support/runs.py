"""Short training runs and what they leave."""

import csv
import json
from pathlib import Path

import numpy as np

# One step per epoch, as fast as a run can be.
FORMLESS = "--backbone tiny --batch-size 6 --crop 32 32 --learning-rate 0.01".split()
QUICK = [*FORMLESS, "--output-stride", "32"]


def save_colour_run(folder, names, palette) -> Path:
    """A run whose model predicts the class of the largest channel: red, green or blue."""
    import keras

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))
    model.layers[-1].set_weights([np.eye(3)[None, None], np.zeros(3)])
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    model.save(folder / "best.keras")
    labels = {"names": names, "palette": palette}
    (folder / "config.json").write_text(json.dumps({"labels": labels}))
    return folder


def balanced_fcn(image, classes=3, **options):
    """An untrained FCN on "tiny" that sees every class in an image, uint8 `(H, W, 3)`."""
    import keras

    from fcn_keras.models.fcn import build_fcn

    keras.utils.set_random_seed(1)
    options = {"output_stride": 8} | options
    model = build_fcn("tiny", classes, weights=None, **options)
    logits = model(image[None].astype("float32")).numpy()
    # Its random scores would favour one class everywhere.
    score = model.get_layer("score_head" if options.get("dilated") else "score_8")
    score.bias.assign(score.bias.numpy() - logits.mean(axis=(0, 1, 2)))
    seen = model(image[None].astype("float32")).numpy().argmax(axis=-1)
    assert len(np.unique(seen)) == classes
    return model


def history_of(run_dir) -> list[dict[str, str]]:
    """The rows of a run's `history.csv`."""
    with (Path(run_dir) / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))
