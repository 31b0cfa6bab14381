"""Many images -> files: reading, predicting and writing in parallel."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from fcn_keras.data.split import IGNORE_ID, LabelSet, Split
from fcn_keras.errors import UserError
from fcn_keras.files import storage
from fcn_keras.files.finding import FoundImage, found_images
from fcn_keras.files.images import MAX_PIXELS, open_photograph, palette_image
from fcn_keras.files.results import FOLDERS, SCALE, Results, folders_of, result_name
from fcn_keras.files.writing import write_file
from fcn_keras.inference.annotations import coco_part, labelme_file, path_from
from fcn_keras.inference.options import NetworkError
from fcn_keras.inference.segmenter import Segmenter

AHEAD = 2  # images that are decoded or written while another is predicted


@dataclasses.dataclass(frozen=True)
class Job:
    """One image to predict.

    Args:
        source: Its name in messages.
        name: Its result's path below the output folder, without extension.
        read: Returns the image in RGB; raises `UserError`.
        changed: When its file was last changed; older results are not its own.
    """

    source: str
    name: str
    read: Callable[[], Image.Image]
    changed: float = 0.0


def jobs_of_paths(paths: Iterable[str], output, max_pixels: int = MAX_PIXELS) -> list[Job]:
    """The images among files, folders and patterns, named by `found_images`."""
    return [job_of_image(image, max_pixels) for image in found_images(paths, output, FOLDERS)]


def job_of_image(image: FoundImage, max_pixels: int) -> Job:
    read = functools.partial(_open, image.path, max_pixels)
    return Job(image.path, image.name, read, image.changed)


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
    owned: Results | None = None,
) -> Iterator[tuple[Job, str | None]]:
    """Writes each job's mask as a palette PNG of class ids, `<output>/<name>.png`.

    Extras go to `<output>/<extra>/`: an overlay with a legend as a PNG, the
    confidence (the largest probability, 255 for 1) as a grey PNG, the probabilities
    of all classes as float16 `(H, W, C)` in an `.npz`. The confidence in colours,
    with a scale, goes to `<output>/confidence_scale/`. Polygons go to `<output>/labelme/`
    as labelme's JSON, or to `<output>/coco/` for `write_coco`. Existing files of these names
    are replaced; `Results.planned` says whose they are.

    Args:
        segmenter: The model.
        jobs: The images.
        output: The folder for the results, created if missing; or its address.
        extras: Names from `results.EXTRAS` and `results.POLYGONS`.
        skip_existing: Whether to skip jobs whose results exist and are newer than
            the image.
        owned: Records the results of each image before they are written.

    Yields:
        Each job when it is done, with `None` or the reason it failed. A failure
        does not stop the others.

    Raises:
        UserError: If the results cannot be written, or the segmenter's runtime
            cannot be used.
    """
    output, extras = str(output) or ".", folders_of(extras)
    if skip_existing:
        there = Results(output, extras)
        jobs = [job for job in jobs if not there.have(job.name, job.changed)]
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
            except NetworkError:
                raise
            except UserError as error:
                yield job, str(error)
                continue
            while len(writing) >= AHEAD:
                writing.popleft().result()
            if "overlay" not in extras:
                image = None  # frees a large one while its mask is written
            writing.append(
                writer.submit(_write, output, job, image, results, segmenter.labels, extras, owned)
            )
            del future, image, results
            yield job, None
        for future in writing:
            future.result()


def _predict(segmenter, image, extras) -> tuple[np.ndarray, np.ndarray | None]:
    if "probabilities" in extras or "confidence" in extras:
        probabilities = segmenter.probabilities(image)
        mask = probabilities.argmax(axis=-1).astype(np.uint8)
        mask[probabilities.max(axis=-1) < segmenter.min_confidence] = IGNORE_ID
        return mask, probabilities
    return segmenter(image), None


def _write(output: str, job: Job, image, results, labels: LabelSet, extras, owned) -> None:
    mask, probabilities = results
    if owned:
        owned.claim([job.name])
    image_path = path_from(storage.join(output, result_name(job.name, "labelme")), job.source)
    if "confidence" in extras:
        confidence = np.round(255 * probabilities.max(axis=-1)).astype(np.uint8)
    writers = {
        "overlay": lambda path: _drawing().draw_overlay(np.asarray(image), mask, labels).save(path),
        "confidence": lambda path: Image.fromarray(confidence).save(path),
        SCALE: lambda path: _drawing().draw_confidence(confidence).save(path),
        "probabilities": lambda path: np.savez_compressed(
            path, probabilities=probabilities.astype(np.float16), classes=np.array(labels.names)
        ),
        "labelme": lambda path: path.write_text(labelme_file(mask, labels, image_path)),
        "coco": lambda path: path.write_text(coco_part(mask, labels)),
        # The mask comes last: where it exists, so do the others.
        "mask": lambda path: palette_image(Image.fromarray(mask), labels.palette).save(path),
    }
    for kind in (*extras, "mask"):
        write_file(storage.join(output, result_name(job.name, kind)), writers[kind])


def _drawing():
    from fcn_keras.data import overlay  # needs Matplotlib

    return overlay


def _open(path: str, max_pixels: int) -> Image.Image:
    if storage.is_address(path):
        return open_photograph(storage.read(path), path, max_pixels)
    if not os.path.isfile(path):  # a pipe would never end
        missing = "not a regular file" if os.path.exists(path) else "no such file or folder"
        raise UserError(f"{path}: {missing}.")
    return open_photograph(path, path, max_pixels)
