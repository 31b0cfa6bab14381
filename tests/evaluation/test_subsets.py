import numpy as np
import pytest

from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError
from fcn_keras.evaluation.subsets import near_boundaries

LABELS = LabelSet(("a", "b", "c"))


def split_of(mask):
    image = np.zeros((*mask.shape, 3), np.uint8)
    return Split("val", LABELS, ("one",), lambda index: (image, mask))


def test_near_boundaries_keeps_a_band():
    mask = np.repeat(np.arange(20) >= 10, 9).reshape(20, 9).T.astype(np.uint8)
    _, banded = near_boundaries(split_of(mask), 3).read(0)
    labelled = np.flatnonzero((banded != 255).all(axis=0))
    # Class 1 begins at column 10: three columns on each side.
    assert labelled.tolist() == [7, 8, 9, 10, 11, 12]
    assert (banded[:, labelled] == mask[:, labelled]).all()


@pytest.mark.parametrize("width", [1, 2, 4])
def test_near_boundaries_agrees_with_loops(width):
    rng = np.random.default_rng(width)
    mask = np.kron(rng.choice([0, 1, 2, 255], (4, 6)), np.ones((6, 7), int)).astype(np.uint8)
    expected = np.full_like(mask, 255)
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            rows = slice(max(0, row - width), row + width + 1)
            columns = slice(max(0, column - width), column + width + 1)
            if (mask[rows, columns] != mask[row, column]).any():
                expected[row, column] = mask[row, column]
    banded = near_boundaries(split_of(mask), width).read(0)[1]
    assert (expected != 255).any() and (expected == 255).any()
    np.testing.assert_array_equal(banded, expected)


def test_a_band_without_width_is_refused():
    with pytest.raises(UserError, match="at least 1 pixel. Received: 0"):
        near_boundaries(split_of(np.zeros((3, 3), np.uint8)), 0)
