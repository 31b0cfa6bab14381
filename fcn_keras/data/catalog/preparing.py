"""Data sets of TFDS are found on disk, or downloaded."""

from __future__ import annotations

import contextlib
import io
import os
import re
import urllib.parse
from pathlib import Path

from fcn_keras.data.voc.dataset import alone
from fcn_keras.errors import UserError, first_line

NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d.*]+)?")


def find_builder(name: str, root: Path):
    """The builder of a data set that is in TFDS's folder `root`, or that `prepare` downloads.

    Raises:
        UserError: If there is no such data set, or its code needs something else.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder, registered

    if not NAME.fullmatch(name):
        raise UserError(f"--dataset tfds:{name}: not a name of TFDS, NAME or NAME/CONFIG.")
    with failures(name, root):
        # Files first, as those of an earlier version serve, too.
        with contextlib.suppress(registered.DatasetNotFoundError):
            return read_only_builder.builder_from_files(name, data_dir=os.fspath(root))
        try:
            return tfds.builder(name, data_dir=os.fspath(root))
        except registered.DatasetNotFoundError as error:
            raise UserError(
                f"--dataset tfds:{name}: TFDS has no such data set, and {root} has none, either. "
                "Choose a name from https://www.tensorflow.org/datasets/catalog, or as --data-dir "
                "the folder that contains the data set's folder."
            ) from error


def prepare(builder, name: str, root: Path) -> None:
    """Downloads a data set into TFDS's folder `root`, unless it is there.

    Raises:
        UserError: If it cannot be prepared.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    if isinstance(builder, read_only_builder.ReadOnlyBuilder):
        return
    with failures(name, root):
        _require_reachable(builder, name, root)
        root.mkdir(parents=True, exist_ok=True)
        with alone(root), contextlib.redirect_stdout(io.StringIO()):  # its bars say enough
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )


@contextlib.contextmanager
def failures(name: str, root: Path):
    """Turns whatever TFDS raises, and the code of a data set, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        original = error if error.name else error.__cause__  # to which TFDS adds words
        package = (getattr(original, "name", None) or "").partition(".")[0]
        run = f" Run: pip install {package}" if package else ""
        raise UserError(
            f"tfds:{name} needs another package ({first_line(original or error)}).{run}"
        ) from error
    except Exception as error:
        raise UserError(
            f"tfds:{name} in {root}: cannot be used or prepared ({first_line(error)}).",
            _remedy(name, root),
        ) from error


def _remedy(name: str, root: Path) -> str:
    return (
        f"On a machine where it can run: tfds build {name} --data_dir tfds; then copy what is in "
        f"the folder tfds to {root} here."
    )


def _require_reachable(builder, name: str, root: Path) -> None:
    """Raises `UserError` if a download would fail, since TFDS may wait for minutes."""
    from fcn_keras.files.downloading import why_unreachable

    place, manual = root / "downloads" / "manual", builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if manual and not (place.is_dir() and any(place.iterdir())):
        raise UserError(
            f"tfds:{name} is not in {root}. Its archives must be downloaded by hand to {place}.",
            " ".join(manual.split()),
        )
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in builder.url_infos or ()}
    for host, url in hosts.items():
        if reason := why_unreachable(url):
            raise UserError(
                f"tfds:{name} is not in {root}, and cannot be downloaded ({host}: {reason}).",
                _remedy(name, root),
            )
