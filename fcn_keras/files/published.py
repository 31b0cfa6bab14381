"""Published weights: their names, where they are downloaded from, and where they are kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import NamedTuple

from fcn_keras.errors import UserError

SUFFIXES = (".pth", ".pt")  # of PyTorch's files
HOST = "https://download.pytorch.org/models/"


class Weights(NamedTuple):
    """A published file. Its size is rounded, so it is known to a KiB or two."""

    file: str
    mib: float
    backbone: str
    is_fcn: bool
    content: str

    @property
    def sizes(self) -> range:
        """The possible sizes in bytes."""
        return range(int((self.mib - 0.001) * 2**20), int((self.mib + 0.001) * 2**20) + 1)


def _fcn(file: str, mib: float, backbone: str, mean_iou: float) -> Weights:
    content = f"dilated FCN, VOC's 21 classes, trained on COCO; mean IoU {mean_iou:.3f} on COCO val"
    return Weights(file, mib, backbone, True, content)


def _backbone(name: str, digits: str, mib: float, accuracy: float) -> Weights:
    content = f"backbone, trained on ImageNet; top-1 accuracy {accuracy:.3f}"
    return Weights(f"{name}-{digits}.pth", mib, name, False, content)


# Source: torchvision's models/segmentation/fcn.py (COCO_WITH_VOC_LABELS_V1) and models/resnet.py
# (IMAGENET1K_V1), with the figures and sizes that it states.
PUBLISHED = {
    "torchvision/fcn_resnet50": _fcn("fcn_resnet50_coco-1167a1af.pth", 135.009, "resnet50", 0.605),
    "torchvision/fcn_resnet101": _fcn(
        "fcn_resnet101_coco-7ecb50ca.pth", 207.711, "resnet101", 0.637
    ),
    "torchvision/resnet18": _backbone("resnet18", "f37072fd", 44.661, 0.698),
    "torchvision/resnet34": _backbone("resnet34", "b627a593", 83.275, 0.733),
    "torchvision/resnet50": _backbone("resnet50", "0676ba61", 97.781, 0.761),
    "torchvision/resnet101": _backbone("resnet101", "63fe2227", 170.511, 0.774),
    "torchvision/resnet152": _backbone("resnet152", "394f9c45", 230.434, 0.783),
}


def published(path_or_name) -> Weights | None:
    """The published weights that are meant; `None` for a path, which has priority."""
    found = PUBLISHED.get(str(path_or_name))
    return None if found and os.path.lexists(path_or_name) else found


def published_file(path: Path) -> Weights | None:
    """The published weights whose file has this name."""
    return next((known for known in PUBLISHED.values() if known.file == path.name), None)


def require_kind(name: str, is_fcn: bool) -> Weights:
    """The published weights of a name; raises `UserError` if they are for the other use."""
    known = PUBLISHED[name]
    if known.is_fcn == is_fcn:
        return known
    if is_fcn:
        raise UserError(
            f"{name}: a backbone's weights, not a model. Pass it as train --weights {name}."
        )
    raise UserError(
        f"{name}: a whole FCN. Pass it as --init-from {name}, or its file as --weights FILE.pth, "
        "of which the backbone is taken."
    )


def require_flags(source, backbone: str | None, own: str, dilated: bool) -> None:
    """Raises `UserError` if a network cannot start from a dilated FCN.

    Args:
        source: The latter's name or file.
        backbone: Its backbone; `None` if that is unknown.
        own: The network's backbone.
        dilated: Whether the network is dilated.
    """
    missing = [] if backbone in (own, None) else [f"--backbone {backbone}"]
    missing += [] if dilated else ["--dilated"]
    if missing:
        raise UserError(f"--init-from {source}: a dilated FCN. Add {' '.join(missing)}.")


def cache_folder() -> Path:
    """Where downloads are kept, in Keras's own folder."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return Path(home, "fcn_keras")


def is_cached(path: Path) -> bool:
    return path.parent == cache_folder()


def cached(name: str) -> Path | None:
    """The file of published weights in the cache; an FCN is a `.keras` file once it was used."""
    path = cache_folder() / PUBLISHED[name].file
    return next((each for each in (path.with_suffix(".keras"), path) if each.is_file()), None)


def fetched(name: str, folder: str | None = None) -> Path:
    """The file of published weights, downloaded if need be.

    Args:
        name: A key of `PUBLISHED`.
        folder: Where its `.pth` file is to be; the cache if `None`.

    Raises:
        UserError: If it cannot be downloaded or written, or has another hash.
    """
    from fcn_keras.files.downloading import DownloadError, download
    from fcn_keras.files.torch_weights import check_hash

    known = PUBLISHED[name]
    path = (cache_folder() if folder is None else Path(folder)) / known.file

    def found() -> Path | None:
        converted = path.with_suffix(".keras")
        if folder is None and converted.is_file():
            return converted
        with contextlib.suppress(UserError):  # another file is replaced
            if path.is_file():
                check_hash(path, known.file)
                return path
        return None

    if there := found():
        return there
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.parent):
            if there := found():  # another process was at it
                return there
            print(f"Downloading {HOST}{known.file} ({known.mib:.0f} MiB) ...", file=sys.stderr)
            download(HOST + known.file, path, known.sizes, lambda p: check_hash(p, known.file))
    except DownloadError as error:
        raise UserError(
            f"{name}: {HOST}{known.file} cannot be downloaded ({error}). On a machine with a "
            f"network run: fcn-keras weights fetch {name} --to DIR",
            f"Then give the path of DIR/{known.file} in place of the name, or copy that file to "
            f"{cache_folder()}.",
        ) from error
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written ({error.strerror}). Choose another folder"
            f"{' by KERAS_HOME' if folder is None else ''}."
        ) from error
    return path


@contextlib.contextmanager
def alone(folder: Path):
    """Waits until no other process is in such a block for this folder; a kill ends it, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that writes to {folder} ...", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
