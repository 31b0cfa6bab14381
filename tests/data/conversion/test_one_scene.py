"""One scene in every format becomes the same mask."""

import numpy as np
import pytest
from support.scene_formats import CITYSCAPES, MASKS, NAMES, PARTS, PIXELS, POLYGONS

from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert


@pytest.mark.parametrize("write", POLYGONS | PIXELS, ids=lambda write: write.__name__)
def test_a_scene_is_the_same_mask_in_every_format(write, tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.format == (POLYGONS | PIXELS)[write] and not done.findings.problems
    assert done.sizes == {"train": 1, "val": 1}
    names = CITYSCAPES if done.format == "cityscapes" else NAMES
    table = np.zeros(256, np.uint8)  # background, or what is not labelled, is of no class
    table[[done.labels.names.index(name) for name in names]] = (1, 2, 3)
    assert done.labels.names[0] in ("background", "_background_", "road", "sky")
    found = {}
    for part in PARTS:
        split = load_split(str(tmp_path / "out"), part)
        found |= {name: table[split.read(i)[1]] for i, name in enumerate(split.ids)}
    assert {name.rpartition("/")[2] for name in found} == {*MASKS}
    for name, mask in found.items():
        assert_same(mask, MASKS[name.rpartition("/")[2]], exact=write in PIXELS)


def assert_same(mask, truth, exact):
    """That masks are equal, but for pixels that have the class of one beside them or across."""
    if exact:
        np.testing.assert_array_equal(mask, truth)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(truth, 1, "edge"), (3, 3))
    assert (around == mask[..., None, None]).any(axis=(2, 3)).all()
    assert (mask != truth).mean() < 0.05
