"""PyTorch's `.pth` files -> arrays, without PyTorch and without running code.

`torch.save` writes a pickle, in which a tensor is a view of a storage, and the storages' bytes:
since PyTorch 1.6 as entries of a ZIP archive, before that one after the other behind the pickle
(`_save` and `_legacy_save` in torch/serialization.py). torchvision's FCNs have the older form.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fcn_keras.errors import UserError, few, first_line, printable
from fcn_keras.files.torch_pickles import ITEMS, REMEDY, Storage, Tensor, unpickle

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
MAX_PICKLE_BYTES = 2**20  # a ResNet-152's with its optimizer's state takes a sixth of this
MAX_DIRECTORY_BYTES = 2**22  # of an archive: 46 bytes and a name per entry
CHECKPOINT_KEYS = ("state_dict", "model", "model_state", "model_state_dict")


def read_state_dict(path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict that `torch.save` wrote, in either of its forms.

    Of a checkpoint, the state dict under one of `CHECKPOINT_KEYS` is read. Nothing in the
    file is run, and no more bytes are read than it has.

    Returns:
        Arrays by name, some of them read-only or views of others; bfloat16 becomes float32.

    Raises:
        UserError: If it is no such file, is damaged, or contains more than tensors.
    """
    path = Path(path)
    if not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path}: not a file. Choose a .pth file of PyTorch.")
    try:
        with _File(io.FileIO(path)) as file:
            zipped = file.peek(4).startswith(b"PK\3\4")
            content, load = (_open_archive if zipped else _open_older)(file, path)
            tensors = _state_dict(content, path)
            claimed = sum(math.prod(t.shape) * t.storage.itemsize for t in tensors.values())
            if claimed > path.stat().st_size:
                raise ValueError(f"its tensors claim {claimed} bytes, more than the file has")
            storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            loaded = {key: load(storage) for key, storage in storages.items()}
        return {name: _array(t, loaded[t.storage.key]) for name, t in tensors.items()}
    except UserError:
        raise
    except (
        *(ArithmeticError, LookupError, OSError, RuntimeError, ValueError),
        *(EOFError, struct.error, zipfile.BadZipFile),  # of zipfile, like RuntimeError
    ) as error:
        reason = printable(first_line(error)).removesuffix(".")
        raise UserError(
            f"{path}: a damaged or truncated file of PyTorch ({reason}). Download or save it again."
        ) from error


def check_hash(path, name: str) -> None:
    """Checks a file's SHA-256, whose first digits are in its published name.

    Those of PyTorch's download host have such names: `fcn_resnet50_coco-1167a1af.pth`.
    The names of other files must not be passed, since a date may look like a hash.

    Raises:
        UserError: If the file has another hash.
        ValueError: If the name has none.
    """
    match = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name)
    if match is None:
        raise ValueError(f"no hash in the name {name!r}")
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(match[1]):
        raise UserError(
            f"{path}: damaged or not {name}, as its SHA-256 begins with "
            f"{found[: len(match[1])]}. Delete it and download it again."
        )


class _File(io.BufferedReader):
    """A file of which only small parts are read at first: `zipfile` reads a directory at once."""

    limited = True

    def read(self, size=-1):
        if self.limited and size > MAX_DIRECTORY_BYTES:
            raise ValueError("too many entries")
        return super().read(size)


_Opened = tuple[Any, Callable[[Storage], np.ndarray]]  # what is pickled; reads a storage


def _open_archive(file: _File, path: Path) -> _Opened:
    archive = zipfile.ZipFile(file)
    file.limited = False
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    pickles = [name for name in sizes if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise _foreign(path)
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in sizes:
        raise UserError(f"{path}: a TorchScript program. If you have its model, {REMEDY}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("it is compressed, which PyTorch does not do")
    if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
        raise ValueError("its entries claim more bytes than the file has")
    if sizes[pickles[0]] > MAX_PICKLE_BYTES:
        raise ValueError(f"data.pkl is larger than {MAX_PICKLE_BYTES >> 20} MiB")
    order = f"{folder}byteorder"
    prefix = ">" if order in sizes and archive.read(order) == b"big" else "<"

    def load(storage: Storage) -> np.ndarray:
        return _numbers(storage, archive.read(f"{folder}data/{storage.key}"), prefix)

    return unpickle(io.BytesIO(archive.read(pickles[0])), path), load


def _open_older(file: _File, path: Path) -> _Opened:
    pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    file.limited = False
    if not pickles.getvalue().startswith(b"\x80") or unpickle(pickles, path) != MAGIC:
        raise _foreign(path)
    for _ in range(2):  # the version, the sizes of C's types
        unpickle(pickles, path)
    storages: dict[str, Storage] = {}
    content = unpickle(pickles, path, storages)
    keys = unpickle(pickles, path)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise ValueError("no list of storages")
    places, place, size = {}, pickles.tell(), path.stat().st_size
    for key in keys:
        file.seek(place)
        if int.from_bytes(file.read(8), "little") != storages[key].length:
            raise ValueError("a storage of another size")
        places[key] = place + 8
        place += 8 + storages[key].length * storages[key].itemsize
        if place > size:
            raise ValueError(f"{size} bytes, fewer than its storages have")

    def load(storage: Storage) -> np.ndarray:
        file.seek(places[storage.key])
        return _numbers(storage, file.read(storage.length * storage.itemsize), "<")

    return content, load


def _state_dict(content, path: Path) -> dict[str, Tensor]:
    if _is_state_dict(content):
        return content
    entries = content if type(content) is dict else {}
    found = [key for key in CHECKPOINT_KEYS if _is_state_dict(entries.get(key))]
    if len(found) == 1:
        return entries[found[0]]
    what = f"several ({few(found)})" if found else "none"
    within = printable(few(list(entries))) or "no dict"
    raise UserError(
        f"{path}: one state dict of tensors is wanted, but {what} found (in: {within}). If it "
        f"has a model, {REMEDY}"
    )


def _is_state_dict(value) -> bool:
    return type(value) is dict and value != {} and all(type(v) is Tensor for v in value.values())


def _numbers(storage: Storage, data: bytes, order: str) -> np.ndarray:
    numbers = np.frombuffer(data, order + ITEMS[storage.kind])
    if numbers.size != storage.length:
        raise ValueError("a storage of another size")
    if storage.kind == "torch.BFloat16Storage":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def _array(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    if 0 in tensor.shape:
        return np.empty(tensor.shape, numbers.dtype)
    size = numbers.itemsize
    strides = [step * size for step in tensor.strides]
    return np.ndarray(tensor.shape, numbers.dtype, numbers, tensor.offset * size, strides)


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path}: not a file that torch.save of PyTorch 0.4 or later wrote. Choose another file."
    )
