import collections

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fcn_keras.data import overlay
from fcn_keras.data.split import LabelSet
from fcn_keras.evaluation import charts
from fcn_keras.files.images import palette_image
from fcn_keras.serving.client import pictures

LABELS = LabelSet(("sky", "tree", "road"), ((10, 20, 30), (200, 0, 0), (0, 200, 0)))


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_color_mask():
    colors = overlay.color_mask(np.array([[0, 2, 255]], np.uint8), LABELS)
    assert colors.tolist() == [[[10, 20, 30], [0, 200, 0], [224, 224, 192]]]


def test_overlay_paints_the_shown_classes_only():
    image = np.full((9, 36, 3), 100, np.uint8)
    mask = np.repeat(np.array([[3, 1, 2, 255]], np.uint8), 9, 1).repeat(9, 0)
    labels = LabelSet((*LABELS.names, "Background"), (*LABELS.palette, (0, 0, 0)))

    def middles(*options):
        drawn = overlay.overlay(image, mask, labels, *options)
        assert drawn.shape == image.shape and drawn.dtype == np.uint8
        return drawn[4, 4::9].tolist()

    assert middles() == [[100] * 3, [150, 50, 50], [50, 150, 50], [100] * 3]
    assert middles(0.5, [1]) == [[100] * 3, [150, 50, 50], [100] * 3, [100] * 3]
    assert middles(1.0) == [[100] * 3, [200, 0, 0], [0, 200, 0], [100] * 3]
    assert middles(0.5, [3, 255])[0] != [100] * 3 and middles(0.5, [3, 255])[3] == [100] * 3
    for options in ((1.0, []), (0.0,)):
        assert (overlay.overlay(image, mask, labels, *options) == image).all()


def test_grid_shows_all_pictures_and_names_the_classes_in_them():
    images = [np.full((20, 30, 3), 77, np.uint8), np.full((30, 20, 3), 99, np.uint8)]
    predictions = [np.zeros((20, 30), np.uint8), np.zeros((30, 20), np.uint8)]
    truths = [np.full((20, 30), 1, np.uint8), np.full((30, 20), 255, np.uint8)]
    figure = charts.draw_grid(images, predictions, truths, LABELS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "sky",
        "tree",
        "unlabelled",
    ]
    drawn = pixels(figure)
    for color in ((77,) * 3, (99,) * 3, (10, 20, 30), (200, 0, 0), (224, 224, 192)):
        assert (drawn == color).all(axis=-1).sum() > 1000
    assert not (drawn == (0, 200, 0)).all(axis=-1).any()


def test_the_client_paints_by_the_same_rule():
    labels = LabelSet(("tree", "_background_", "road"))
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    mask = (np.arange(60) // 20 + np.zeros((40, 1), int)).astype(np.uint8)
    ids = palette_image(Image.fromarray(mask), labels.palette)
    drawn = pictures.overlay(Image.fromarray(image), ids, labels.names, labels.palette, "x.jpg")
    np.testing.assert_array_equal(np.asarray(drawn), overlay.overlay(image, mask, labels))
    assert (np.asarray(drawn)[:, 25:35] == image[:, 25:35]).all()


LONG = "_$\\class_{}$ " + "very long " * 9


@pytest.mark.parametrize("size", [(24, 32), (200, 400), (30, 1500)])
@pytest.mark.parametrize("classes, name", [(1, "{}"), (3, LONG), (21, "class {}"), (151, "{}")])
def test_overlay_has_the_picture_and_below_it_a_legend_that_fits(size, classes, name):
    labels = LabelSet(tuple(name.format(index) for index in range(classes)))
    mask = (np.arange(size[0] * size[1]).reshape(size) % classes).astype(np.uint8)
    image = np.full((*size, 3), 200, np.uint8)
    drawn = np.asarray(overlay.draw_overlay(image, mask, labels))
    assert drawn.shape[1] == max(size[1], 128)
    left = (drawn.shape[1] - size[1]) // 2
    picture = drawn[: size[0], left : left + size[1]]
    assert (picture == overlay.overlay(image, mask, labels)).all()
    legend = drawn[size[0] :]
    edges = (legend[:, 0], legend[:, -1], legend[0], legend[-1])
    assert legend.any() and all((edge == 255).all() for edge in edges)
    colors = {tuple(color) for color in legend.reshape(-1, 3).tolist()}
    # In a greyish colour, hatching leaves few pixels unchanged.
    assert {color for color in labels.palette if max(color) - min(color) >= 40} <= colors


def test_legend_names_what_is_painted_and_there_is_none_where_nothing_is(monkeypatch):
    labels = LabelSet(("_background_", "tree", "road"))
    named, draw_legend = [], overlay.draw_legend

    def noted(figure, ids, *arguments, **options):
        named.extend(ids)
        return draw_legend(figure, ids, *arguments, **options)

    monkeypatch.setattr(overlay, "draw_legend", noted)
    image, mask = np.full((40, 200, 3), 90, np.uint8), np.zeros((40, 200), np.uint8)
    mask[10:] = 255
    assert (np.asarray(overlay.draw_overlay(image, mask, labels)) == image).all()
    mask[20:] = 2
    assert overlay.draw_overlay(image, mask, labels).height > 40 and named == [2]


@pytest.mark.parametrize("inches", [1.28, 3, 10])
@pytest.mark.parametrize("length", [1, 9, 80])
def test_legends_fit_their_figure_in_balanced_rows(inches, length):
    for total in (1, 2, 3, 7, 9, 13, 40):
        labels = LabelSet(tuple(f"{index:02}" + "w" * length for index in range(total)))
        figure = Figure((inches, 9), 100)
        legend = overlay.draw_legend(figure, range(total), labels, loc="center")
        figure.canvas.draw()
        extent = legend.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width
        texts = [text for text in legend.get_texts() if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        assert max(box.x1 for box in boxes) <= figure.bbox.width
        assert [text.get_text()[:2] for text in texts] == [f"{i:02}" for i in range(total)]
        rows = collections.Counter(round(box.y0) for box in boxes).values()
        columns = len({round(box.x0) for box in boxes})
        assert sum(rows) == total and max(rows) - min(rows) <= 1
        assert len(rows) == 1 or min(rows) > 1 or columns == 1 or (columns == 2 and total > 3)


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("classes, name", [(9, "class {}"), (9, LONG), (200, "{}")])
def test_grid_has_its_legend_below_the_pictures_within_the_figure(images, classes, name):
    labels = LabelSet(tuple(name.format(index) for index in range(classes)))
    masks = [(np.arange(40 * 60).reshape(40, 60) % classes).astype(np.uint8)] * images
    figure = charts.draw_grid([np.zeros((40, 60, 3), np.uint8)] * images, masks, masks, labels)
    pixels(figure)
    extent = figure.legends[0].get_window_extent()
    assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width and extent.y0 >= 0
    for axes in figure.axes:
        box = axes.get_window_extent()
        assert box.y0 >= extent.y1 and box.width > 150


def test_confidence_has_its_picture_and_a_scale_that_fits():
    for height, width in ((20, 32), (100, 300), (10, 9000)):
        confidence = np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)
        drawn = np.asarray(overlay.draw_confidence(confidence))
        assert drawn.shape[1] == max(width, 128)
        left = (drawn.shape[1] - width) // 2
        picture, scale = drawn[:height, left : left + width], drawn[height:]
        expected = 255 * colormaps["viridis"](confidence)[..., :3]
        np.testing.assert_allclose(picture, expected, atol=1)
        assert all((edge == 255).all() for edge in (scale[:, 0], scale[:, -1], scale[-1]))
        colors = scale[np.ptp(scale, axis=-1) > 50]
        assert len(np.unique(colors, axis=0)) > 80


def test_curves_plot_the_history():
    names = ("loss", "pixel_accuracy", "mean_iou")
    history = [
        {"epoch": epoch, **{f"{part}{name}": epoch / 10 for name in names for part in ("", "val_")}}
        for epoch in (1, 2, 3)
    ]
    figure = charts.draw_curves(history)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "pixel accuracy", "mean IoU"]
    for axes in figure.axes:
        assert len(axes.lines) == 2
        for line in axes.lines:
            np.testing.assert_allclose(line.get_ydata(), [0.1, 0.2, 0.3])


def test_side_by_side_shrinks_large_pictures_and_mixes_no_colours():
    image = np.full((200, 400, 3), 77, np.uint8)
    prediction = (np.arange(400) // 200 + np.zeros((200, 1), int)).astype(np.uint8)
    truth = np.full((200, 400), 255, np.uint8)
    picture = overlay.side_by_side(image, prediction, truth, LABELS, side=100, gap=4)
    assert picture.shape == (50, 308, 3) and picture.dtype == np.uint8
    columns = [(77,) * 3] * 100 + [(255,) * 3] * 4 + [(10, 20, 30)] * 50 + [(200, 0, 0)] * 50
    columns += [(255,) * 3] * 4 + [(224, 224, 192)] * 100
    assert (picture == np.array(columns, np.uint8)).all()
    # Smaller ones are not changed.
    assert overlay.side_by_side(image, prediction, truth, LABELS, side=400).shape[0] == 200
