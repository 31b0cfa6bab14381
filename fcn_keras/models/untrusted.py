"""Checks model files that someone else made before Keras sees them.

Keras's `safe_mode` only refuses pickled functions. A `config.json` may still name any public
function of Keras and layers that read files, HDF5 may refer to other files, and a program may
have switched `safe_mode` off everywhere (`keras.config.enable_unsafe_deserialization`). So a
file may contain known layers and numbers, and nothing else.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path

import h5py
import keras

from fcn_keras.errors import UserError

WEIGHTS_FILE = "model.weights.h5"
NAMES = {"config.json", "metadata.json", WEIGHTS_FILE, "labels.json", "provenance.json"}
MAX_JSON_BYTES = 16 << 20  # ResNet-152's has half a MiB
MAX_EXPANSION = 20  # Keras does not compress; JSON shrinks about that much

MODELS = {
    ("keras.src.models.functional", "Functional"),
    *((module, name) for module in ("keras", "keras.models") for name in ("Model", "Sequential")),
}
# Layers that only compute: no Lambda, no lookup that reads a vocabulary, no wrapper of another
# framework's model.
LAYERS = set(
    """Activation Add AlphaDropout Average AveragePooling2D BatchNormalization CenterCrop
    Concatenate Conv2D Conv2DTranspose Cropping2D Dense DepthwiseConv2D Dropout ELU EinsumDense
    Flatten GaussianDropout GaussianNoise GlobalAveragePooling2D GlobalMaxPooling2D
    GroupNormalization Identity InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum
    Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization ReLU
    RepeatVector Rescaling Reshape Resizing SeparableConv2D Softmax SpatialDropout2D Subtract
    UnitNormalization UpSampling2D ZeroPadding2D""".split()
)
OWN = set(
    """BilinearInitializer BilinearUpsampling BlockwiseConv2DTranspose CropLike DilatedConv2D
    FusedBatchNormalization PerClassUpsampling ShortSide""".split()
)
# All classes in these compute numbers from numbers.
PLAIN_MODULES = {
    *("keras.constraints", "keras.initializers", "keras.regularizers"),
    *("keras.src.ops.image", "keras.src.ops.nn", "keras.src.ops.numpy"),
}
RESNET_NAMES = ("keras_hub>ResNetBackbone", "keras_nlp>ResNetBackbone")
VALUES = {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
REMEDY = (
    "If you trust who made it, load it with keras.models.load_model and pass the model to "
    "Segmenter(model, labels)."
)


def check_model_file(path) -> None:
    """Checks a `.keras` file without running anything in it.

    Raises:
        UserError: If it contains files or layers that a network does not need, refers to
            other files, or would take far more memory than its size.
        Exception: From zipfile, json or h5py, if it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        _check_entries(archive, path)
        config = json.loads(archive.read("config.json"))
        _check_model(config, path)
        info = archive.getinfo(WEIGHTS_FILE)
        with _opened(archive, info, path) as file:
            _check_weights(file, info.file_size, path)


def check_preset_folder(folder) -> None:
    """Checks a folder with a KerasHub or timm preset, like `check_model_file`.

    Raises:
        UserError: If the network is not a ResNet, or the weights refer to other files.
        Exception: From json or h5py, if it is damaged.
    """
    path = Path(folder, "config.json")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB, so not a preset's.")
    config = json.loads(path.read_bytes())
    name = config.get("registered_name", config.get("architecture"))
    if name not in RESNET_NAMES and not str(name).startswith("resnet"):
        raise UserError(f"{path}: not a preset of a ResNet. Received: {ascii(name)[:100]}.")
    _check_values(config.get("config", {}), path)
    weights = Path(folder, WEIGHTS_FILE)
    if "registered_name" in config:  # else timm's, whose safetensors hold only numbers
        with weights.open("rb") as file:
            _check_weights(file, weights.stat().st_size, weights)


def _check_entries(archive: zipfile.ZipFile, path) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    for name in names:
        if name not in NAMES or names.count(name) > 1:
            raise UserError(
                f"{path}: refused, as a .keras file of a network does not contain {name[:100]!r}"
                f"{' twice' * (name in NAMES)}. {REMEDY}"
            )
    for name in ("config.json", WEIGHTS_FILE):
        if name not in names:
            raise UserError(f"{path}: not a .keras model: it lacks {name}. Choose another file.")
    size, stored = sum(entry.file_size for entry in entries), Path(path).stat().st_size
    texts = max(entry.file_size for entry in entries if entry.filename != WEIGHTS_FILE)
    if size > MAX_EXPANSION * stored or texts > MAX_JSON_BYTES:
        raise UserError(
            f"{path}: refused, as its {stored} bytes would become {size}, or its JSON is larger "
            f"than {MAX_JSON_BYTES >> 20} MiB. {REMEDY}"
        )


def _check_model(config: dict, path) -> None:
    if (config.get("module"), config.get("class_name")) not in MODELS:
        raise UserError(f"{path}: not a model, but {_name(config)}. Choose another file.")
    # Keras ignores the optimizer, losses and metrics when it does not compile.
    _check_values({key: config[key] for key in config if key != "compile_config"}, path)


def _check_values(root, path) -> None:
    """Checks all classes and functions that are nested in a configuration."""
    registered = keras.saving.get_custom_objects()
    todo = [root]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if "class_name" in value and not _is_known(value):
                raise UserError(
                    f"{path}: refused, as its network uses {_name(value)}, which may run code, "
                    f"read files, or is unknown here. {REMEDY}"
                )
            names = ("class_name", "module", "registered_name")
            todo += [value[key] for key in value if key not in names]
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, str) and value in registered:  # Keras takes a name for the object
            raise UserError(f"{path}: refused, as its network uses {value!r} by name. {REMEDY}")


def _is_known(value: dict) -> bool:
    module, name, registered = map(value.get, ("module", "class_name", "registered_name"))
    if not isinstance(name, str) or not isinstance(module, str | None):
        return False
    if registered == f"fcn_keras>{name}":
        return name in OWN and module is not None
    if registered not in (None, name) or registered in keras.saving.get_custom_objects():
        return False
    return (
        (module, name) in MODELS
        or (module == "keras.layers" and name in LAYERS)
        or (module in PLAIN_MODULES and name[:1].isupper())
        or (module, name) == ("keras", "DTypePolicy")
        or (module is None and name in VALUES)
    )


def _name(value: dict) -> str:
    name = value.get("config") if value.get("class_name") == "function" else value.get("class_name")
    return ascii(f"{value.get('module') or ''}.{name}".lstrip("."))[:120]


def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path) -> io.IOBase:
    """A file in an archive; if it is not compressed, without reading all of it."""
    if info.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(info))
    archive.open(info).close()  # checks its local header
    file = open(path, "rb")
    file.seek(info.header_offset + 26)
    lengths = file.read(4)  # of the name and of extra fields, which only this header has
    start = file.tell() + int.from_bytes(lengths[:2], "little")
    return _Part(file, start + int.from_bytes(lengths[2:], "little"), info.file_size)


class _Part(io.RawIOBase):
    """A range of a file's bytes as a file; closing it closes that file."""

    def __init__(self, file, start: int, size: int):
        self.file, self.start, self.size, self.position = file, start, size, 0

    def seek(self, offset, whence=io.SEEK_SET):
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = origin + offset
        return self.position

    def tell(self):
        return self.position

    def readinto(self, buffer):
        self.file.seek(self.start + self.position)
        count = max(0, min(len(buffer), self.size - self.position))
        count = self.file.readinto(memoryview(buffer)[:count])
        self.position += count
        return count

    def close(self):
        self.file.close()
        super().close()


def _check_weights(file, size: int, path) -> None:
    """Walks an HDF5 file without following references out of it."""
    declared, seen = 0, set()
    with h5py.File(file, "r") as root:
        todo = [root.id]
        while todo:
            group = todo.pop()
            for name in group:
                if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                    raise _foreign(path, name, "a link")
                item = h5py.h5o.open(group, name)
                address = h5py.h5o.get_info(item).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(item, h5py.h5g.GroupID):
                    todo.append(item)
                elif isinstance(item, h5py.h5d.DatasetID):
                    layout = item.get_create_plist()
                    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
                        raise _foreign(path, name, "data in another file")
                    declared += math.prod(item.shape or ()) * item.get_type().get_size()
                else:
                    raise _foreign(path, name, "a type")
    if declared > size:
        raise UserError(
            f"{path}: refused, as its weights claim {declared} bytes, more than the {size} of "
            "their file. Save the model again with Keras, which does not compress them."
        )


def _foreign(path, name: bytes, what: str) -> UserError:
    return UserError(
        f"{path}: refused, as {ascii(name.decode(errors='replace'))[:100]} in its weights is "
        f"{what}, not numbers. Save the model again with Keras."
    )
