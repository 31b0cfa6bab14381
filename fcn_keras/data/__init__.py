"""Data sets: each source yields a `Split` of examples with its `LabelSet`."""

from __future__ import annotations

from pathlib import Path

from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError

VOC = ("voc2012", "voc2012_aug")
TFDS = "tfds:"  # before the name of a data set of TFDS


def in_data_dir(dataset: str) -> bool:
    """Whether `--data-dir` says where a data set is."""
    return dataset in VOC or dataset.startswith(TFDS)


def load_split(dataset: str, split: str, data_dir: str | None = None) -> Split:
    """A split of a data set by the name that the command line uses.

    Args:
        dataset: `"sample"`, `"voc2012"`, `"voc2012_aug"`, `"tfds:NAME"` with a name of
            TFDS, or a folder in VOC's layout.
        split: `"train"`, `"val"`, or another that the data set has.
        data_dir: For VOC, the folder that holds `VOCdevkit`; TFDS's own.

    Raises:
        UserError: If there is no such data set or split, or it is damaged.
    """
    # Imported here, as a folder does not need TFDS, nor VOC the code that draws samples.
    if dataset == "sample":
        from fcn_keras.data.sample.dataset import sample_split

        return sample_split(split)
    if dataset in VOC:
        from fcn_keras.data.voc.dataset import voc_split

        return voc_split(split, data_dir, augmented=dataset == "voc2012_aug")
    if dataset.startswith(TFDS):
        from fcn_keras.data.catalog.dataset import catalog_split

        return catalog_split(dataset.removeprefix(TFDS), split, data_dir)
    if not Path(dataset).is_dir():
        raise UserError(
            "A data set must be sample, voc2012, voc2012_aug, tfds:NAME or a folder. Received: "
            f"{dataset!r}, which is not a folder."
        )
    from fcn_keras.data.directory import directory_split

    return directory_split(dataset, split)


def labels_of(dataset: str, split: str, data_dir: str | None = None) -> LabelSet:
    """The classes of a split.

    Raises:
        UserError: As `load_split`; for VOC only what can be checked without TFDS, which
            takes seconds to import.
    """
    if dataset not in VOC:
        return load_split(dataset, split, data_dir).labels
    from fcn_keras.data.voc.dataset import VOC_LABELS, data_root, require_part

    require_part(split)
    data_root(data_dir)
    return VOC_LABELS
