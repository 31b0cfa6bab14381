"""Model -> one file for ONNX Runtime, LiteRT or Keras, verified before it gets its name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from pathlib import Path

import keras
import numpy as np

from fcn_keras.data.sample.scenes import draw_scene
from fcn_keras.errors import UserError, require_packages
from fcn_keras.export import FILES, require_format
from fcn_keras.export.formats import FORMATS, logits_of
from fcn_keras.export.quantization import Int8, write_int8
from fcn_keras.files.silence import silenced
from fcn_keras.files.writing import write_file
from fcn_keras.inference.agreement import deviation
from fcn_keras.inference.conversion import fast_copy, in_float32
from fcn_keras.inference.folding import fold_batchnorm
from fcn_keras.inference.loading import LABELS_FILE
from fcn_keras.inference.receptive_field import receptive_field
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.models.short_side import at_short_side, with_short_side
from fcn_keras.runs.software import software

PROVENANCE_FILE, FIELD_FILE = "provenance.json", "receptive_field.json"

# Batch size, height and width of the photographs that a file is tested with; 100 and 130 are
# not multiples of a stride.
TRIALS = ((1, 96, 128), (2, 100, 130))


def export_file(
    segmenter: Segmenter,
    path,
    format: str,
    provenance: dict | None = None,
    int8: Int8 | None = None,
) -> Path:
    """Writes a model as one file for another runtime.

    The file is run with that runtime on photographs of two sizes and gets its name
    only if it agrees with the model; an existing file is then replaced.

    | format | input and output | classes |
    |---|---|---|
    | `onnx` | `images` to `logits`, both float32 of any batch size, height and width; for `Segmenter.load` | `labels` in the metadata |
    | `litert` | the same in its one signature; weights are float16 | `labels.json`, `labels.txt` |
    | `keras` | the model without its optimizer, for `Segmenter.load` | `labels.json` |

    Images are RGB `(B, H, W, 3)` in 0..255, logits `(B, H, W, C)`. In the latter
    two, classes and provenance are members of the file, which is a zip archive
    or has one at its end. The model computes in float32, whatever it was trained in; an ONNX
    file has its `conversion.fast_copy`.

    With a short side, ONNX and LiteRT files resize images for the network, and logits back to
    the images' size; `keras` stores the number (see `models.short_side`).

    In int8, the file is not compared with the model, but its mean IoU with the model's.

    Args:
        segmenter: The model, its labels and its short side. Its options for tiles, scales
            and flipping are not part of the export.
        path: The file, ending in `.onnx`, `.tflite` or `.keras`.
        format: `"onnx"`, `"litert"` or `"keras"`.
        provenance: What the file records of its origin besides package versions,
            such as `runs.folder.provenance`.
        int8: Quantises an ONNX or LiteRT file (see `write_int8`).

    Returns:
        The path.

    Raises:
        UserError: If the extension does not match the format, a package is missing,
            or the file cannot be written or deviates from the model; in int8, as for
            `write_int8`.
    """  # noqa: E501
    require_format(path, format)
    path, target = Path(path), FORMATS[format]
    plain, side = in_float32(segmenter.keras_model), segmenter.short_side or 0
    if format == "keras":
        model = written = with_short_side(plain, side)
    else:
        faster = fast_copy if format == "onnx" else fold_batchnorm if int8 else lambda model: model
        written = faster(plain)
        model, written = (at_short_side(m, side) if side else m for m in (plain, written))
    origin = {**({"short_side": side} if side else {}), **(provenance or {})}

    def texts() -> dict[str, str]:
        texts = {
            LABELS_FILE: json.dumps(dataclasses.asdict(segmenter.labels)),
            PROVENANCE_FILE: json.dumps({"model": model.name, **software(), **origin}),
        }
        if format == "onnx":  # for exact tiles, which need the layers
            with contextlib.suppress(UserError):
                texts[FIELD_FILE] = json.dumps(dataclasses.asdict(receptive_field(plain)))
        return texts

    def write(partial: Path) -> None:
        partial.touch()  # conversion takes a while, so fail before it
        if int8:
            origin["int8"] = write_int8(segmenter, written, int8, format, partial)
            target.add_texts(partial, texts())
        else:
            target.write(written, texts(), partial)
            _verify(model, partial, path, format)

    with silenced(1, 2), warnings.catch_warnings(action="ignore"):
        require_packages(f"Format {format}", format, *FILES[format][1])
        write_file(path, write)
    return path


def _verify(model: keras.Model, partial: Path, path: Path, format: str) -> None:
    """Raises `UserError` if the file's results differ from the model's."""
    target = FORMATS[format]
    run = target.load(partial)
    for batch, height, width in TRIALS:
        scenes = [draw_scene(np.random.default_rng(seed), (height, width)) for seed in range(batch)]
        images = np.stack([image for image, _ in scenes]).astype(np.float32)
        expected = logits_of(model, images)
        found = deviation(target.precision, run(images), expected)
        if found:
            names = (name.partition(".")[0] for name in FILES[format][1])
            packages = ", ".join(("tensorflow", *names))
            raise UserError(
                f"{path}: not written, as it deviates from the model: {found}. Try other versions "
                f"of the packages {packages}, or another --format."
            )
