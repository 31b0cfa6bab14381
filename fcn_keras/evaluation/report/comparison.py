"""Several runs' folders and their data set -> what differs between them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

from fcn_keras.data.overlay import at_most
from fcn_keras.data.split import Split
from fcn_keras.errors import UserError, few
from fcn_keras.evaluation.report.contents import (
    MAX_SIDE,
    MOVED,
    Contents,
    Example,
    add_scores,
    located,
    measure,
    read_run,
)
from fcn_keras.evaluation.scores import ImageScore
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.runs.config import split_of
from fcn_keras.runs.folder import run_names


@dataclasses.dataclass
class Comparison:
    """What is known about several runs.

    Args:
        runs: By their names, which `run_names` chose.
        missing: A sentence on what is left out, and why.
        comparable: Whether the runs' metrics are those of the same validation images.
        examples: The images on which the runs' mean IoU differs most, the first one first.
        scores: For each of the examples, its metrics by run.
    """

    runs: dict[str, Contents]
    missing: str = ""
    comparable: bool = False
    examples: list[Example] = dataclasses.field(default_factory=list)
    scores: list[tuple[ImageScore, ...]] = dataclasses.field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Sentences on what is missing or odd."""
        notes = [f"{name}: {note}" for name, run in self.runs.items() for note in run.notes]
        return notes + [self.missing] * bool(self.missing)


def compare(
    run_dirs: Sequence,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    images: int = 4,
    progress: Callable = lambda items: items,
) -> Comparison:
    """Reads runs and evaluates each one's `best.keras`, if they have the same validation images.

    Args:
        run_dirs: The runs' folders.
        dataset: Where their data set is now. Default: as in their settings.
        data_dir: The same for the folder that holds `VOCdevkit`.
        images: How many images to keep.
        progress: As for `gather`.

    Raises:
        UserError: Like `gather` for each run, and like `run_names`.
    """
    result = Comparison(dict(zip(run_names(run_dirs), map(read_run, run_dirs))))
    runs = list(result.runs.values())
    places = [located(run.config, dataset, data_dir) for run in runs]
    what = "metrics and images"
    try:
        other = _unlike_the_first(result.runs, [run.labels.names for run in runs])
        if other:
            result.missing = f"Left out: {what}, as {other} other classes."
            return result
        # The same path may now have other images, but has the same ones for each run.
        data: list = [(place.dataset, place.data_dir, place.limit) for place in places]
        if _unlike_the_first(result.runs, data):
            data = [_digest(split_of(place, "val")) for place in places]
        other = _unlike_the_first(result.runs, data)
        if other:
            result.missing = f"Left out: {what}, as {other} other validation images or masks."
            return result
        result.comparable, what = True, "images"
        ranked = [measure(run, place, progress)[2] for run, place in zip(runs, places)]
        _add_images(result, split_of(places[0], "val"), ranked, images)
        for run, scores in zip(runs, ranked):
            add_scores(run, scores)
    except UserError as error:
        if any(place != run.config for place, run in zip(places, runs)):
            raise
        result.missing = f"Left out: {what}, as not every model could be evaluated: {error} {MOVED}"
    return result


def _unlike_the_first(names, values: list) -> str:
    """The names of the runs whose value is not the first one's, with a verb."""
    others = [name for name, value in zip(names, values) if value != values[0]]
    return f"{few(others)} {'has' if len(others) == 1 else 'have'}" if others else ""


def _digest(split: Split) -> str:
    digest = hashlib.blake2b()
    for index, name in enumerate(split.ids):
        for array in split.read(index):
            digest.update(f"{name}\0{array.shape}".encode("utf-8", "surrogateescape"))
            digest.update(array.tobytes())
    return digest.hexdigest()


def _add_images(result: Comparison, val: Split, ranked: list[list[ImageScore]], images: int):
    def spread(scores: tuple[ImageScore, ...]) -> tuple[float, float]:
        ious, accuracies = zip(*((score.mean_iou, score.pixel_accuracy) for score in scores))
        return max(ious) - min(ious), max(accuracies) - min(accuracies)

    by_index = (sorted(scores, key=lambda score: score.index) for scores in ranked)
    chosen = sorted(zip(*by_index, strict=True), key=spread, reverse=True)
    if not any(spread(chosen[0])):
        result.missing = "Left out: images, as the runs' metrics are the same on every one."
    result.scores = [scores for scores in chosen[:images] if any(spread(scores))]
    examples = []
    for first, *_ in result.scores:
        image, truth = val.read(first.index)
        examples.append(Example.of(first, image, {"truth": truth}))
    for name, run in result.runs.items() if examples else ():
        segment = Segmenter.load(run.run.best)
        for example in examples:
            mask = segment(val.read(example.score.index)[0])
            example.masks[f"prediction of {name}"] = at_most(mask, MAX_SIDE)
    result.examples = examples
