"""Image + model -> the class of every pixel."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from fcn_keras.data.split import IGNORE_ID, LabelSet, placeholder_names
from fcn_keras.errors import UserError
from fcn_keras.files.images import MAX_PIXELS, open_photograph, resized_size, to_rgb
from fcn_keras.files.onnx_files import is_onnx
from fcn_keras.inference import tiling
from fcn_keras.inference.field import Field
from fcn_keras.inference.onnx_model import OnnxModel
from fcn_keras.inference.options import default_runtime, require_options, require_runtime
from fcn_keras.inference.resizing import resized_strips
from fcn_keras.inference.runtimes import Network, load_network
from fcn_keras.runs.folder import KERAS_ONLY, model_file

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass
class Segmenter:
    """A model ready for photographs of any size.

    Args:
        model: Maps RGB images `(B, H, W, 3)` in 0..255 to logits `(B, H, W, C)`: a Keras model, or
            an `OnnxModel`, which needs neither TensorFlow nor Keras.
        labels: Its classes.
        tile: Larger images are processed in windows of at most this height and
            width, which bounds the memory used.
        blend: How windows are combined: `"exact"` equals one pass over the
            whole image; `"average"` averages overlapping logits as d2l does;
            `"smooth"` does too, with weights that fall off towards a window's edges.
        overlap: Rows and columns that windows share in the latter two.
        scales: Scales at which the image is predicted; their logits are averaged.
        flip: Whether to average in the mirrored image.
        progress: Wraps the iterator over the pieces of a large image to show
            progress. It gets the iterator and the number of pieces.
        runtime: What computes the logits; see `load_network`. `"keras"` runs the model
            with its current weights. The others are faster and take its weights at the
            first call; `load` defaults to `"tensorflow"`, and for ONNX files to `"openvino"` or
            `"onnx"`, whichever is installed.
        precision: The runtime's: `"bfloat16"` or `"float32"` (the default). The runtime
            `"keras"` computes in the model's own.
        threads: Of the runtimes `"openvino"` and `"onnx"`, which choose if it is `None`.
        max_pixels: The largest image file to accept; by default Pillow's limit for
            decompression bombs. Raise it for trusted files only.
        short_side: Photographs are resized to this shorter side for the network, and their
            logits back (see `resized_size`); 0 leaves them as they are. Default: what the
            model stores. An ONNX file that was exported with a short side has no other.
        min_confidence: Pixels whose most likely class is less probable than this become 255
            in masks.
    """

    model: keras.Model | OnnxModel
    labels: LabelSet
    tile: int = tiling.TILE
    blend: str = "exact"
    overlap: int = tiling.OVERLAP
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    progress: Callable = lambda pieces, total: pieces
    runtime: str = "keras"
    precision: str | None = None
    threads: int | None = None
    max_pixels: int = MAX_PIXELS
    short_side: int | None = None
    min_confidence: float = 0.0

    def __post_init__(self):
        stored = _short_side_of(self.model)
        if self.short_side is None:
            self.short_side = stored
        require_options(
            *(self.tile, self.blend, self.overlap, self.scales, self.max_pixels),
            *(self.short_side, self.min_confidence),
        )
        require_runtime(self.runtime, self.precision, onnx_file=isinstance(self.model, OnnxModel))
        if self._resizes_itself and (self.short_side, self.scales) != (stored, (1.0,)):
            raise UserError(
                f"{self.model.path}: its network resizes photographs to a shorter side of {stored} "
                "pixels, so it takes no other short side or scales. Export it with --short-side 0."
            )

    def __getstate__(self):
        state = vars(self).copy()
        state.pop("_network", None)  # which cannot be pickled
        return state

    @classmethod
    def load(cls, run_or_file, **options) -> Segmenter:
        """Loads a run's best model, a model file, or a published model.

        A `.onnx` file that `export` wrote needs OpenVINO or ONNX Runtime; neither TensorFlow nor
        Keras is imported then.

        The classes are those stored in an exported file, or those of the run whose
        folder the file is in; those of a `.pth` file with 21 classes are VOC's. Otherwise
        they are named `class_0`, `class_1` and so on.

        Args:
            run_or_file: A run's folder, a `.keras`, `.pth` or `.onnx` file, or the name of a
                published model, such as `"torchvision/fcn_resnet50"` (see `load_model`).
            **options: The other fields of `Segmenter`. By default, `runtime` is `"tensorflow"`, or
                for a `.onnx` file the one that is installed.

        Raises:
            UserError: If there is no model or it cannot be loaded.
        """
        options["runtime"] = options.get("runtime") or default_runtime(is_onnx(run_or_file))
        path = model_file(run_or_file, onnx=True)
        if is_onnx(path):
            exported = OnnxModel.load(path)
            return cls(exported, exported.labels, **options)
        from fcn_keras.inference.loading import load_model, read_labels, require_network

        model = load_model(path)
        require_network(model, path)
        classes = model.output_shape[-1]
        labels = read_labels(path, classes)
        return cls(model, labels or LabelSet(placeholder_names(classes)), **options)

    @property
    def keras_model(self) -> keras.Model:
        """The model, for what an ONNX file does not do; raises `UserError` for one."""
        if isinstance(self.model, OnnxModel):
            raise UserError(f"{self.model.path}: {KERAS_ONLY}")
        return self.model

    def __call__(self, image) -> np.ndarray:
        """The most likely class of every pixel.

        Args:
            image: A path, a Pillow image, or an array `(H, W)`, `(H, W, 1)`,
                `(H, W, 3)` or `(H, W, 4)` in 0..255, integers or floats.

        Returns:
            uint8 `(H, W)` of class ids; 255 where `min_confidence` is not reached.

        Raises:
            UserError: If `image` is none of these.
        """
        image = as_image(image, self.max_pixels)
        mask = np.empty((image.height, image.width), np.uint8)
        for top, left, logits in self.pieces(image):
            height, width = logits.shape[:2]
            mask[top : top + height, left : left + width] = self._ids(logits)
        return mask

    def probabilities(self, image) -> np.ndarray:
        """The probability of every class: float32 `(H, W, C)`, for an image as in `__call__`."""
        logits = self.logits(as_image(image, self.max_pixels))
        logits -= logits.max(axis=-1, keepdims=True)
        np.exp(logits, out=logits)
        return logits / logits.sum(axis=-1, keepdims=True)

    def overlay(self, image, **options) -> Image.Image:
        """The image with its predicted classes painted over it; see `data.overlay.overlay`."""
        from fcn_keras.data.overlay import overlay  # needs Matplotlib

        image = as_image(image, self.max_pixels)
        return Image.fromarray(overlay(np.asarray(image), self(image), self.labels, **options))

    def logits(self, image: Image.Image) -> np.ndarray:
        """The logits of a whole image: float32 `(H, W, C)`."""
        return self._whole(image, self.pieces(image))

    def pieces(self, image: Image.Image) -> Iterator[tiling.Piece]:
        """Logits in pieces `(top, left, logits)` that together cover the image once."""
        size = image.size
        if self.short_side:
            size = resized_size(*size, self.short_side)
        if self.scales == (1.0,) and not self.flip and size == image.size:
            yield from self._tiles(image)
            return

        def whole(image):
            return self._whole(image, self._tiles(image))

        sums = []  # the logits at each scale
        for scale in self.scales:
            width, height = (max(1, round(side * scale)) for side in size)
            scaled = image
            if image.size != (width, height):  # Pillow's antialiases, as torchvision's transforms
                scaled = image.resize((width, height), Image.Resampling.BILINEAR)
            logits = whole(scaled)
            if self.flip:
                logits += whole(scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[:, ::-1]
            sums.append(logits)
        parts = len(self.scales) * (1 + self.flip)
        for strips in zip(*(resized_strips(each, image.height, image.width) for each in sums)):
            top, left, _ = strips[0]
            total = sum(logits for _, _, logits in strips)
            yield top, left, total / parts if parts > 1 else total

    def _ids(self, logits: np.ndarray) -> np.ndarray:
        ids = logits.argmax(axis=-1).astype(np.uint8)
        if self.min_confidence > 0:
            powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
            ids[1 / powers.sum(axis=-1) < self.min_confidence] = IGNORE_ID
        return ids

    def _whole(self, image: Image.Image, pieces: Iterator[tiling.Piece]) -> np.ndarray:
        whole = np.empty((image.height, image.width, len(self.labels)), np.float32)
        for top, left, logits in pieces:
            height, width = logits.shape[:2]
            whole[top : top + height, left : left + width] = logits
        return whole

    def _tiles(self, image: Image.Image) -> Iterator[tiling.Piece]:
        size = image.height, image.width

        def read(top, left, height, width):
            return np.asarray(image.crop((left, top, left + width, top + height)))

        if max(size) <= self.tile or self._resizes_itself:
            yield 0, 0, self._logits_of(np.asarray(image))
        elif self.blend == "exact":
            field = self._field
            least = 2 * field.halo + field.stride
            if self.tile < least:
                raise UserError(
                    f"Exact tiles must be at least {least} for this model, which sees {field.halo} "
                    f"pixels beyond a tile; or use --blend average. Received: tile {self.tile}."
                )
            grid = self.tile, field.halo, field.stride
            total = math.prod(len(tiling.exact_spans(length, *grid)) for length in size)
            pieces = tiling.exact_pieces(size, *grid, read, self._logits_of)
            yield from self.progress(pieces, total)
        else:
            total = len(tiling.average_starts(size[0], self.tile, self.overlap))
            pieces = tiling.average_pieces(
                size, self.tile, self.overlap, read, self._logits_of, self.blend == "smooth"
            )
            yield from self.progress(pieces, total)

    @property
    def _resizes_itself(self) -> bool:
        """Whether the network would resize tiles, too. A resized photograph it leaves as it is."""
        return isinstance(self.model, OnnxModel) and self.model.short_side > 0

    @functools.cached_property
    def _field(self) -> Field:
        if not isinstance(self.model, OnnxModel):
            from fcn_keras.inference.receptive_field import receptive_field

            return receptive_field(self.model)
        if self.model.field is None:
            raise UserError(
                f"{self.model.path}: does not say how far its network sees, so tiles cannot be "
                "exact. Export it again, or use --blend average."
            )
        return self.model.field

    @functools.cached_property
    def _network(self) -> Network:
        return load_network(self.model, self.runtime, self.precision, self.threads)

    def _logits_of(self, window: np.ndarray) -> np.ndarray:
        return self._network(window[None].astype(np.float32))[0]


def _short_side_of(model) -> int:
    if isinstance(model, OnnxModel):
        return model.short_side
    from fcn_keras.models.short_side import short_side_of

    return short_side_of(model)


def as_image(image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Converts any image that `Segmenter` takes to a Pillow image of mode RGB.

    Raises:
        UserError: If its type, shape or range is unsuitable.
    """
    if isinstance(image, (str, os.PathLike)):
        return open_photograph(image, str(image), max_pixels)
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image), "The image")
    array = np.asarray(image)
    if array.dtype.kind not in "iuf":
        raise UserError(f"An image array must be numeric. Received: dtype {array.dtype}.")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            "An image array must have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). "
            f"Received: shape {np.shape(image)}."
        )
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255) or (array.dtype.kind == "f" and 0 < high <= 1):
        raise UserError(
            f"An image array must have values in 0..255. Received: {low} to {high}; "
            "multiply values in 0..1 by 255."
        )
    rgb = np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array[..., :3]
    return Image.fromarray(np.ascontiguousarray(np.round(rgb).astype(np.uint8)))
