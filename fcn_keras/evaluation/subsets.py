"""Split -> split of the pixels to evaluate on: d2l's, or those near boundaries."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

from fcn_keras.data.pipeline import drop_smaller
from fcn_keras.data.split import Split
from fcn_keras.errors import UserError


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
