import numpy as np
import pytest

from fcn_keras.inference import tiling

SIZES = [(1, 1), (31, 64), (64, 65), (97, 203), (200, 50)]


def waves(height, width):
    """An image with two channels that is constant nowhere."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.sin(rows / 5) + columns / 50, rows * columns / 1000], axis=-1)


def reader(image):
    return lambda top, left, height, width: image[top : top + height, left : left + width]


def assemble(pieces, shape):
    """The whole image, after checking that each pixel comes exactly once."""
    whole, count = np.full(shape, np.nan), np.zeros(shape[:2], int)
    for top, left, logits in pieces:
        window = np.s_[top : top + logits.shape[0], left : left + logits.shape[1]]
        whole[window] = logits
        count[window] += 1
    assert (count == 1).all()
    return whole


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 0), (64, 16), (33, 32), (50, 7)])
def test_average_of_the_identity_is_the_identity(size, smooth, tile, overlap):
    image = waves(*size)
    pieces = tiling.average_pieces(
        size, tile, overlap, reader(image), lambda window: window, smooth
    )
    np.testing.assert_allclose(assemble(pieces, image.shape), image, rtol=1e-4, atol=1e-5)


def test_average_weighs_every_window_alike():
    """Windows 0..4, 2..6 and 3..7 of a row of 7 with logits 1, 2 and 3."""
    numbers = iter([1.0, 2.0, 3.0])
    pieces = tiling.average_pieces(
        (4, 7), 4, 2, reader(np.zeros((4, 7, 1))), lambda w: np.full(w.shape, next(numbers))
    )
    row = assemble(pieces, (4, 7, 1))[0, :, 0]
    np.testing.assert_allclose(row, [1, 1, 1.5, 2, 2.5, 2.5, 3])


def test_smooth_weights_fall_from_the_centre():
    """Of windows 0..4 and 2..6 the triangle has the weights .4 .8 .8 .4."""
    numbers = iter([1.0, 2.0])
    pieces = tiling.average_pieces(
        (4, 6), 4, 2, reader(np.zeros((4, 6, 1))), lambda w: np.full(w.shape, next(numbers)), True
    )
    row = assemble(pieces, (4, 6, 1))[0, :, 0]
    expected = [1, 1, (0.8 + 0.4 * 2) / 1.2, (0.4 + 0.8 * 2) / 1.2, 2, 2]
    np.testing.assert_allclose(row, expected, atol=1e-6)


def blur(image, reach):
    """The mean over a square of `2 * reach + 1`, with zeros beyond the edges."""
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2, axis=(0, 1))
    return windows.mean(axis=(-2, -1))


@pytest.mark.parametrize("size", SIZES)
def test_exact_equals_one_pass_if_the_halo_covers_the_reach(size):
    image = waves(*size)
    pieces = tiling.exact_pieces(size, 48, 8, 8, reader(image), lambda window: blur(window, 8))
    np.testing.assert_allclose(assemble(pieces, image.shape), blur(image, 8), atol=1e-12)


def test_exact_shows_seams_if_the_halo_is_too_small():
    image = waves(97, 203)
    pieces = tiling.exact_pieces(
        image.shape[:2], 48, 8, 8, reader(image), lambda window: blur(window, 12)
    )
    assert np.abs(assemble(pieces, image.shape) - blur(image, 12)).max() > 1e-3


@pytest.mark.parametrize("length", [1, 47, 48, 49, 1000])
def test_exact_windows_start_on_the_grid_and_are_no_larger_than_a_tile(length):
    for span in tiling.exact_spans(length, 48, 8, 8):
        assert span.start % 8 == 0 and span.stop - span.start <= 48
        assert span.keep_start == 0 or span.keep_start - span.start >= 8
        assert span.keep_stop == length or span.stop - span.keep_stop >= 8 or span.stop == length


def test_impossible_grids_are_refused():
    with pytest.raises(ValueError, match="Received: 16"):
        tiling.exact_spans(100, 16, 8, 8)
    with pytest.raises(ValueError, match="Received: 64"):
        tiling.average_starts(100, 64, 64)
