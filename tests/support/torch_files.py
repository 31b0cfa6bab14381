"""A writer of PyTorch's `.pth` files, also of hostile ones, without PyTorch."""

import io
import struct
import zipfile

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"long": 8}}


class Code(bytes):
    """Instructions of a pickle, written as they are."""


def named(name: str) -> Code:
    module, _, name = name.rpartition(".")
    return Code(f"c{module}\n{name}\n".encode())


def call(name: str, *arguments) -> Code:
    return Code(named(name) + instructions(arguments) + b"R")


def instructions(value) -> bytes:
    """The instructions of protocol 2 that push a value."""
    match value:
        case Code():
            return value
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(data)) + data
        case tuple():
            return b"(" + b"".join(map(instructions, value)) + b"t"
        case list():
            return b"](" + b"".join(map(instructions, value)) + b"e"
        case dict():
            items = [part for item in value.items() for part in item]
            return b"}(" + b"".join(map(instructions, items)) + b"u"


def pickled(value) -> bytes:
    return b"\x80\x02" + instructions(value) + b"."


def storage(key, count, kind="torch.FloatStorage", *view) -> Code:
    return Code(instructions(("storage", named(kind), key, "cpu", count, *view)) + b"Q")


def tensor(key, count, shape, strides, offset=0, kind="torch.FloatStorage", view=()) -> Code:
    """A view of the storage `key`, which has `count` numbers."""
    return call(
        *("torch._utils._rebuild_tensor_v2", storage(key, count, kind, *view), offset),
        *(shape, strides, False, call("collections.OrderedDict")),
    )


def archive(data_pkl, storages=None, folder="archive", more=(), **options) -> bytes:
    """A file as PyTorch 1.6 and later write it; `storages` are bytes by key."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as zipped:
        zipped.writestr(f"{folder}/data.pkl", data_pkl)
        for key, data in (storages or {}).items():
            zipped.writestr(f"{folder}/data/{key}", data)
        for name, data in more:
            zipped.writestr(name, data)
    return file.getvalue()


def older(content, storages=None, keys=None) -> bytes:
    """A file as PyTorch before 1.6 wrote it; `storages` are counts and bytes by key."""
    storages = storages or {}
    header = b"".join(map(pickled, (MAGIC, VERSION, SYSTEM)))
    data = b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    return header + pickled(content) + pickled(keys or list(storages)) + data


def state_file(state) -> bytes:
    """A file with a state dict of NumPy arrays, as PyTorch writes it."""
    tensors, storages = {}, {}
    for key, (name, values) in enumerate(state.items()):
        strides = tuple(step // values.itemsize for step in np.empty(values.shape, "f4").strides)
        tensors[name] = tensor(str(key), values.size, values.shape, strides)
        storages[str(key)] = values.astype("<f4").tobytes()
    return archive(pickled(tensors), storages)


def state_of(model) -> dict[str, np.ndarray]:
    """A model's weights by torchvision's names, in PyTorch's order of axes."""
    from fcn_keras.models.torchvision_names import torchvision_names

    state = {}
    for name, weight in torchvision_names(model).items():
        values = np.asarray(weight)
        state[name] = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
    return state
