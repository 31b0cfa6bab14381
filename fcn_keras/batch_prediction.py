"""Many images -> files: reading, network and writing side by side."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.datasets.base import LabelSet, Split
from fcn_keras.datasets.decoding import open_image
from fcn_keras.errors import UserError
from fcn_keras.files import named_images, write_file
from fcn_keras.prediction import Segmenter
from fcn_keras.visualize import draw_overlay

EXTRAS = ("overlay", "confidence", "probabilities")
AHEAD = 2  # images that are decoded or written while the network works on another


@dataclasses.dataclass(frozen=True)
class Job:
    """One image to predict.

    Args:
        source: What messages call it.
        name: Its result's path below the output folder, without ending.
        read: Returns the image in RGB; raises `UserError`.
        changed: When its file was changed last; older results are not its own.
    """

    source: str
    name: str
    read: Callable[[], Image.Image]
    changed: float = 0.0


def jobs_of_paths(paths: Iterable[str], output) -> list[Job]:
    """The images that files, folders and patterns stand for, named by `named_images`."""
    jobs = []
    for path, name in named_images(paths, output, EXTRAS):
        changed = path.stat().st_mtime if path.exists() else 0.0
        jobs.append(Job(str(path), name, lambda path=path: _open(path), changed))
    return jobs


def jobs_of_split(split: Split) -> list[Job]:
    """The images of a data set's split, named by their ids."""

    def reader(index):
        return lambda: Image.fromarray(split.read(index)[0])

    return [Job(name, name, reader(index)) for index, name in enumerate(split.ids)]


def predict_jobs(
    segmenter: Segmenter,
    jobs: Iterable[Job],
    output,
    extras: Iterable[str] = (),
    skip_existing: bool = False,
) -> Iterator[tuple[Job, str | None]]:
    """Writes each job's mask as palette PNG of class ids, `<output>/<name>.png`.

    Extras go to `<output>/<extra>/`: an overlay with legend as PNG, the
    confidence (the largest probability, 255 for 1) as grey PNG, the
    probabilities of all classes as float16 `(H, W, C)` in a `.npz`.

    Args:
        segmenter: The model.
        jobs: The images.
        output: The folder for the results; made if need be.
        extras: Names from `EXTRAS`.
        skip_existing: Leave out jobs whose results are there already, made after
            the image was changed last.

    Yields:
        Each job when it is done, with `None` or the reason why it failed. A
        failure does not stop the others.

    Raises:
        UserError: If the results cannot be written.
    """
    output, extras = Path(output), tuple(extras)
    jobs = [job for job in jobs if not skip_existing or _missing(output, job, extras)]
    reading: collections.deque[tuple[Job, Future]] = collections.deque()
    writing: collections.deque[Future] = collections.deque()
    todo = iter(jobs)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(2) as writer:
        while True:
            for job in itertools.islice(todo, AHEAD - len(reading)):
                reading.append((job, reader.submit(job.read)))
            if not reading:
                break
            job, future = reading.popleft()
            try:
                image = future.result()
                results = _predict(segmenter, image, extras)
            except UserError as error:
                yield job, str(error)
                continue
            while len(writing) >= AHEAD:
                writing.popleft().result()
            if "overlay" not in extras:
                image = None  # a large one must not stay while its mask is written
            writing.append(
                writer.submit(_write, output, job, image, results, segmenter.labels, extras)
            )
            del future, image, results
            yield job, None
        for future in writing:
            future.result()


def save_mask(mask: np.ndarray, labels: LabelSet, path) -> None:
    """Saves class ids `(H, W)` as palette PNG in the label set's colours."""
    picture = Image.fromarray(mask)
    picture.putpalette(labels.colors().ravel().tolist())
    picture.save(path)


def _predict(segmenter, image, extras) -> tuple[np.ndarray, np.ndarray | None]:
    if "probabilities" in extras or "confidence" in extras:
        probabilities = segmenter.probabilities(image)
        return probabilities.argmax(axis=-1).astype(np.uint8), probabilities
    return segmenter(image), None


def _write(output: Path, job: Job, image, results, labels: LabelSet, extras) -> None:
    mask, probabilities = results
    writers = {
        "overlay": lambda path: draw_overlay(np.asarray(image), mask, labels).savefig(path),
        "confidence": lambda path: Image.fromarray(
            np.round(255 * probabilities.max(axis=-1)).astype(np.uint8)
        ).save(path),
        "probabilities": lambda path: np.savez_compressed(
            path, probabilities=probabilities.astype(np.float16), classes=np.array(labels.names)
        ),
        # The mask comes last: where it is, all is.
        "mask": lambda path: save_mask(mask, labels, path),
    }
    for kind in (*extras, "mask"):
        write_file(_result_path(output, job, kind), writers[kind])


def _missing(output: Path, job: Job, extras) -> bool:
    paths = [_result_path(output, job, kind) for kind in (*extras, "mask")]
    return not all(path.is_file() and path.stat().st_mtime >= job.changed for path in paths)


def _result_path(output: Path, job: Job, kind: str) -> Path:
    folder = output if kind == "mask" else output / kind
    return folder / (job.name + (".npz" if kind == "probabilities" else ".png"))


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    return open_image(path, str(path))
