import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fcn_keras.data import overlay
from fcn_keras.data.split import LabelSet
from fcn_keras.evaluation import charts

LABELS = LabelSet(("sky", "tree", "road"), ((10, 20, 30), (200, 0, 0), (0, 200, 0)))


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_color_mask():
    colors = overlay.color_mask(np.array([[0, 2, 255]], np.uint8), LABELS)
    assert colors.tolist() == [[[10, 20, 30], [0, 200, 0], [224, 224, 192]]]


def test_overlay_paints_the_shown_classes_only():
    image, mask = np.full((1, 3, 3), 100, np.uint8), np.array([[0, 1, 2]], np.uint8)
    half = [[55, 60, 65], [150, 50, 50], [50, 150, 50]]
    assert overlay.overlay(image, mask, LABELS).tolist() == [half]
    some = overlay.overlay(image, mask, LABELS, 0.5, [1])
    assert some.tolist() == [[[100] * 3, half[1], [100] * 3]] and some.dtype == np.uint8
    assert (overlay.overlay(image, mask, LABELS, 1.0, []) == image).all()


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


def test_overlay_keeps_the_pictures_size_and_has_room_for_every_class():
    labels = LabelSet(tuple(f"class {index}" for index in range(21)))
    mask = np.arange(200 * 400).reshape(200, 400).astype(np.uint8) % 21
    drawn = pixels(overlay.draw_overlay(np.full((200, 400, 3), 200, np.uint8), mask, labels))
    assert drawn.shape == (200 + 7 * 20 + 20, 400, 3)  # 3 columns of 7
    assert (drawn[200:210] == 255).all()  # the legend stays below the picture
    assert (drawn[:200] != 255).any(axis=-1).all()


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
    # Smaller ones stay as they are.
    assert overlay.side_by_side(image, prediction, truth, LABELS, side=400).shape[0] == 200
