"""Split -> split of what to evaluate on: d2l's pixels, those near boundaries, predicted masks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from fcn_keras.data.directory import read_mask, require_same_size
from fcn_keras.data.split import Split, drop_smaller
from fcn_keras.errors import UserError
from fcn_keras.files.results import result_name


def with_masks(split: Split, folder) -> Split:
    """Examples with predicted masks in place of the images, to be scored as they are.

    Args:
        split: Where the truth comes from.
        folder: Holds a mask for each image, named as `predict` names it. It may be written
            in each way that a data set's mask may, but leaves no pixel unlabelled.
    """

    def read(index):
        image, mask = split.read(index)
        path = Path(folder, result_name(split.ids[index], "mask"))
        prediction = read_mask(path, split.labels, predicted=True)
        require_same_size(image, prediction, path)
        return prediction, mask

    return dataclasses.replace(split, read=read)


def d2l_examples(split: Split, crop: tuple[int, int] | None, void_is_background: bool) -> Split:
    """Examples as d2l evaluates on them: random crops, smaller images dropped, void as class 0.

    Args:
        split: Where they come from.
        crop: Height and width; `None` keeps whole images. The position of a
            crop depends only on the example's index.
        void_is_background: Whether unlabelled pixels count as class 0.

    Raises:
        UserError: If no image is as large as the crop.
    """
    chosen = drop_smaller(split, crop) if crop else split
    numbers = {name: number for number, name in enumerate(split.ids)}

    def read(position):
        image, mask = chosen.read(position)
        if crop:
            rng = np.random.default_rng(numbers[chosen.ids[position]])
            top = rng.integers(mask.shape[0] - crop[0] + 1)
            left = rng.integers(mask.shape[1] - crop[1] + 1)
            window = np.s_[top : top + crop[0], left : left + crop[1]]
            image, mask = image[window], mask[window]
        if void_is_background:
            mask = np.where(mask == split.labels.ignore_id, 0, mask)
        return image, mask

    return dataclasses.replace(chosen, read=read)


def near_boundaries(split: Split, width: int) -> Split:
    """Examples whose pixels are unlabelled except in a band along the true boundaries.

    Skip connections help there, which the mean IoU of whole images hardly shows. Kohli
    et al. 2009 and DeepLab (Chen et al. 2018) evaluate on such bands, called "trimaps".

    Args:
        split: Where they come from.
        width: How far a pixel may be, in rows and in columns, from one of another id.
            Unlabelled pixels count as another id, so the void along VOC's outlines
            has a band of this width on each side.

    Raises:
        UserError: If the width is not positive.
    """
    if width < 1:
        raise UserError(f"The width of the band must be at least 1 pixel. Received: {width}.")

    def read(index):
        image, mask = split.read(index)
        ids, side = Image.fromarray(mask), 2 * width + 1
        lowest = ids.filter(ImageFilter.MinFilter(side))
        highest = ids.filter(ImageFilter.MaxFilter(side))
        near = np.asarray(lowest) != np.asarray(highest)
        return image, np.where(near, mask, split.labels.ignore_id).astype(np.uint8)

    return dataclasses.replace(split, read=read)
