"""The pickle of a PyTorch state dict -> its values, without running code.

A pickle is a program. Only the few instructions that a state dict needs are interpreted
here; a name in it is looked up in `NAMES` and never imported or called.
"""

from __future__ import annotations

import io
import math
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fcn_keras.errors import UserError, printable

MAX_AXES = 8
MAX_DEPTH = 100  # of marks; a checkpoint has about 10
ITEMS = {
    "torch.BFloat16Storage": "u2",  # which NumPy lacks: converted to float32
    "torch.HalfStorage": "f2",
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
    "torch.LongStorage": "i8",
    # No weights, but they may be saved beside them.
    **{"torch.BoolStorage": "u1", "torch.ByteStorage": "u1", "torch.CharStorage": "i1"},
    **{"torch.ShortStorage": "i2", "torch.IntStorage": "i4"},
}
REMEDY = 'save its weights alone with PyTorch: torch.save(model.state_dict(), "weights.pth").'
DICT = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
# What torchvision's training scripts save beside the weights; read as None.
DROPPED = ("argparse.Namespace", "collections.Counter")
NAMES = {*ITEMS, *DROPPED, DICT, TENSOR, PARAMETER}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_WITHOUT_MARK = {
    **{"APPEND": ("APPENDS", 1), "SETITEM": ("SETITEMS", 2)},
    **{f"TUPLE{count}": ("TUPLE", count) for count in (1, 2, 3)},
}


class Storage(NamedTuple):
    """A one-dimensional array in the file."""

    kind: str
    key: str
    length: int

    @property
    def itemsize(self) -> int:
        return np.dtype(ITEMS[self.kind]).itemsize


class Tensor(NamedTuple):
    """A view of a storage; its offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(str):
    """One of `NAMES`, as a value in a pickle."""


def unpickle(file: io.BytesIO, path: Path, storages: dict[str, Storage] | None = None) -> Any:
    """Interprets one pickle, without recursion.

    Args:
        file: It is read up to the pickle's end.
        path: The file's name for error messages.
        storages: Collects the storages by key.

    Returns:
        Dicts, lists, tuples, texts, numbers and `Tensor`s. Keys that are no texts are left out.

    Raises:
        UserError: If it refers to anything that is not in `NAMES`.
        ValueError, IndexError or KeyError: If it is damaged.
    """
    storages = {} if storages is None else storages
    stack: list[Any] = []
    below: list[list] = []  # the stacks below each mark
    memo: dict[int, Any] = {}
    value: Any
    for opcode, value, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO" | "STOP":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(value)
            case "NONE" | "NEWTRUE" | "NEWFALSE" as name:
                stack.append(_CONSTANTS[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE" as name:
                stack.append(_EMPTY[name]())
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "MARK" if len(below) < MAX_DEPTH:
                below.append(stack)
                stack = []
            case "TUPLE" | "APPENDS" | "SETITEMS" as name:
                items, stack = stack, below.pop()
                _put(stack, name, items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3" | "APPEND" | "SETITEM" as name:
                name, count = _WITHOUT_MARK[name]
                items = stack[-count:]
                del stack[-count:]
                _put(stack, name, items)
            case "GLOBAL":
                name = value.replace(" ", ".")
                if name not in NAMES:
                    raise _refused(path, name)
                stack.append(_Name(name))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise ValueError("two storages of one name")
                stack.append(storage)
            case "REDUCE" | "NEWOBJ":
                arguments, name = stack.pop(), stack.pop()
                stack.append(_rebuilt(name, arguments))
            case "BUILD":  # attributes: an OrderedDict's _metadata, a Namespace's values
                stack.pop()
                if type(stack[-1]) not in (dict, type(None)):
                    raise _refused(path, "attributes of an object")
            case "MARK":
                raise ValueError("nested too deeply")
            case "STACK_GLOBAL":
                raise _refused(path, ".".join(part for part in stack[-2:] if type(part) is str))
            case name:
                raise _refused(path, f"the pickle instruction {name} {value or ''}".rstrip())
    return stack.pop()


def _put(stack: list, name: str, items: list) -> None:
    if name == "TUPLE":
        stack.append(tuple(items))
    elif name == "APPENDS" and type(stack[-1]) is list:
        stack[-1].extend(items)
    elif name == "SETITEMS" and type(stack[-1]) is dict:
        # An optimizer's state has numbers as keys. A hostile key may take years to hash.
        pairs = zip(items[::2], items[1::2], strict=True)
        stack[-1].update((key, value) for key, value in pairs if type(key) is str)
    else:
        raise ValueError(f"{name} of another object")


def _storage(reference) -> Storage:
    match reference:
        case "storage", _Name() as kind, str() as key, _, int() as count, *view:
            # A view of a storage, which PyTorch no longer writes, would be at the end.
            if kind in ITEMS and count >= 0 and view in ([], [None]):
                return Storage(kind, key, count)
    raise ValueError("an unknown kind of storage")


def _rebuilt(name, arguments) -> Any:
    """What a call or a class would make, for `NAMES`."""
    if type(name) is _Name and type(arguments) is tuple:
        if name in DROPPED:
            return None
        if name == DICT and not arguments:
            return {}
        if name == PARAMETER and type(arguments[0]) is Tensor:
            return arguments[0]
        if name == TENSOR:
            return _tensor(*arguments[:4])
    raise ValueError("an unknown object")


def _tensor(storage=None, offset=None, shape=None, strides=None) -> Tensor:
    if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError("a tensor of another form")
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError("a tensor with a number out of range")
    if len(shape) != len(strides) or len(shape) > MAX_AXES:
        raise ValueError(f"a tensor of {len(shape)} axes")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if 0 not in shape and (last >= storage.length or math.prod(shape) > storage.length):
        raise ValueError("a tensor outside its storage")
    return Tensor(storage, offset, shape, strides)


def _refused(path: Path, name: str) -> UserError:
    return UserError(
        f"{path}: refused, as loading it may run code: {printable(name[:100])}. If you trust who "
        f"made it, {REMEDY}"
    )
