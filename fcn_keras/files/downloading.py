"""Files from the web: continued where a download broke off, and named only when they are right."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm

from fcn_keras.errors import UserError, printable
from fcn_keras.files.writing import PARTIAL

PROBE_SECONDS = 10  # per address; the three of VOC take at most half a minute
SILENT_SECONDS = 10  # between two pieces of an answer
ATTEMPTS = 3  # of which each but the last must have received something
CHUNK = 1 << 16


class DownloadError(Exception):
    """Why a file could not be downloaded, in a few words."""


def why_unreachable(url: str) -> str | None:
    """Why `url` does not answer within PROBE_SECONDS; `None` if it does."""
    reason: list[str | None] = [f"no answer in {PROBE_SECONDS} s"]

    def probe():
        try:
            with requests.get(url, stream=True, timeout=PROBE_SECONDS) as response:
                reason[0] = None if response.ok else f"HTTP status {response.status_code}"
        except requests.RequestException as error:
            reason[0] = type(error).__name__

    # A thread, because looking up a host's name ignores the timeout.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return reason[0]


def download(url: str, path: Path, sizes: range, check: Callable[[Path], object]) -> None:
    """Downloads a file, whole or not at all; what broke off is kept beside it and continued.

    Only one process may download a file to the same place at a time.

    Args:
        url: Its address.
        path: Where it is to be.
        sizes: Its possible sizes in bytes. No more are written.
        check: Raises `UserError` if the downloaded file, whose path it gets, is another. It is
            then removed.

    Raises:
        DownloadError: If it cannot be had.
        UserError: If it cannot be written, or as `check`.
    """
    partial = path.with_name(f"{PARTIAL}{path.name}")
    if reason := why_unreachable(url):
        raise DownloadError(reason)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            before = _size(partial)
            try:
                _continue(url, partial, sizes)
                break
            except requests.RequestException as error:
                if not _size(partial):
                    raise DownloadError(type(error).__name__) from error
                if attempt == ATTEMPTS or _size(partial) <= before:
                    received, whole = _size(partial) / 2**20, sizes.start / 2**20
                    raise DownloadError(
                        f"it broke off after {received:.1f} of {whole:.1f} MiB; another try "
                        "continues there"
                    ) from error
        try:
            check(partial)
        except UserError:
            partial.unlink()
            raise
        os.replace(partial, path)
    except KeyboardInterrupt as stop:
        stop.args = ("run this again to continue the download",)
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()  # which may be what fills the disk
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); it needs {sizes.start >> 20} MiB."
        ) from error


def _continue(url: str, partial: Path, sizes: range) -> None:
    """Downloads what a partial file lacks, or all if the server does not offer parts."""
    start = _size(partial)
    headers = {"Accept-Encoding": "identity"}  # else an answer may be compressed
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=SILENT_SECONDS) as response:
        if response.status_code == 416 and start:  # there is no more
            return
        if not response.ok:
            raise DownloadError(f"HTTP status {response.status_code}")
        if response.status_code != 206:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise DownloadError("another part than asked for")
        kind = printable(response.headers.get("Content-Type", ""))
        length = response.headers.get("Content-Length", "")
        if kind.startswith("text/") or (length.isdigit() and start + int(length) not in sizes):
            raise DownloadError(
                f"{length or 'some'} bytes of {kind or 'unknown type'} were sent in its place, "
                "perhaps by a proxy or a login page"
            )
        with (
            partial.open("ab" if start else "wb") as file,
            tqdm(
                total=sizes.start,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=not sys.stderr.isatty(),
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                start += len(chunk)
                if start >= sizes.stop:
                    file.truncate(0)
                    raise DownloadError("more bytes were sent than it has")
                file.write(chunk)
                bar.update(len(chunk))
    if start < sizes.start:
        raise requests.ConnectionError("ended early")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
