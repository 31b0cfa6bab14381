"""Whether what is painted can be seen, measured in pixels."""

import numpy as np
import pytest
from PIL import Image

from fcn_keras.files.painting import paint, painted_ids

BLACK, GREY, WHITE = (0, 0, 0), (128, 128, 128), (255, 255, 255)
COLORS = [BLACK, GREY, WHITE, (30, 40, 35), (200, 190, 200), (128, 0, 0), (255, 255, 0)]
COLORS += [(0, 0, 70), (64, 64, 0)]


def painted(photograph, mask, palette, shown=(0,), opacity=0.5):
    ids = Image.fromarray(np.asarray(mask, np.uint8))
    drawn = paint(Image.fromarray(photograph), ids, palette, shown, opacity)
    return np.asarray(drawn).astype(int)


def difference(first, second):
    return np.abs(first.astype(int) - second).max(axis=-1)


def test_background_is_known_by_its_names():
    names = ("Background", "_background_", "__bg__", "BG", "background clutter", "dog", "bg2")
    assert painted_ids(names) == [4, 5, 6]
    assert painted_ids(("sky", "road")) == [0, 1]


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("level", range(0, 256, 51))
def test_outlines_stand_out_from_any_photograph(color, level):
    for size in (12, 64, 1600) if level == 102 else (12, 64):
        photograph = np.full((size, size, 3), level, np.uint8)
        mask = np.full((size, size), 255)
        quarter = size // 4
        mask[quarter:-quarter, quarter:-quarter] = 0
        seen = difference(painted(photograph, mask, [color]), photograph) >= 60
        width = 2 if size == 1600 else 1
        middle = seen[size // 2]
        assert middle[quarter - width : quarter + width].any()
        assert middle[-quarter - width : -quarter + width].any()
        assert seen[:, size // 2][quarter - width : quarter + width].any()
        assert not seen[: quarter - width].any()  # nothing further out


@pytest.mark.parametrize("color", [color for color in COLORS if max(color) - min(color) < 40])
@pytest.mark.parametrize("level", range(0, 256, 51))
def test_greyish_classes_do_not_look_like_another_brightness(color, level):
    photograph = np.full((60, 80, 3), level, np.uint8)
    drawn = painted(photograph, np.zeros((60, 80)), [color])  # without any boundary
    strokes = np.ptp(drawn.max(axis=-1).reshape(4, 15, 4, 20), axis=(1, 3))
    assert (strokes >= 60).all()  # in each part of the picture
    coloured = painted(photograph, np.zeros((60, 80)), [(200, 0, 0)])
    assert np.ptp(coloured, axis=(0, 1)).max() == 0  # others are not hatched


def test_neighbouring_classes_of_similar_colours_are_told_apart():
    photograph = np.full((40, 40, 3), 100, np.uint8)
    mask = np.repeat([[0, 1]], 20, 1).repeat(40, 0)
    drawn = painted(photograph, mask, [(128, 0, 0), (128, 10, 0)], (0, 1))
    assert drawn[:, 18:22].min(axis=-1).max(axis=1).tolist() == [255] * 40
    alike = painted(photograph, mask, [(128, 0, 0), (128, 10, 0)], ())
    assert (alike == photograph).all()  # nor are there outlines between hidden ones


def test_thin_objects_keep_their_colour_whatever_their_id():
    photograph = np.full((40, 40, 3), 100, np.uint8)
    for pole, wall in ((0, 1), (1, 0)):
        mask = np.full((40, 40), wall)
        mask[:, 20] = pole
        palette = [(0, 0, 200), (200, 0, 0)]
        drawn = painted(photograph, mask, palette, (0, 1))
        assert (drawn[:, 20] == palette[pole]).all() and (drawn[:, [19, 21]] == 255).all()


def test_what_is_not_shown_stays_but_for_the_line_around_the_others():
    photograph = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    mask = np.full((50, 60), 255)
    mask[:, :20], mask[:, 40:] = 1, 7
    drawn = painted(photograph, mask, [BLACK, (0, 200, 0)], (0, 1, 7, 255))
    assert (drawn[:, 21:] == photograph[:, 21:]).all()
    assert (difference(drawn, photograph)[:, :20] > 0).mean() > 0.9
    assert (painted(photograph, mask, [BLACK, (0, 200, 0)], (1,), 0) == photograph).all()
