"""Masks in their classes' colours, over a photograph or beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from PIL import Image

from fcn_keras.data.split import LabelSet
from fcn_keras.files.images import palette_image
from fcn_keras.files.painting import is_greyish, line_level, paint, painted_ids

LEAST_WIDTH = 128  # of the strip below a picture, in pixels
LARGEST_STRIP = 8000


def color_mask(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Paints class ids `(H, W)` in the label set's colours: uint8 `(H, W, 3)`."""
    return labels.colors()[mask]


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    labels: LabelSet,
    opacity: float = 0.5,
    shown: Iterable[int] | None = None,
) -> np.ndarray:
    """Paints class ids `(H, W)` over an image, as `files.painting` describes: uint8 `(H, W, 3)`.

    Args:
        image: uint8 `(H, W, 3)`.
        mask: Class ids `(H, W)`.
        labels: Names and colours.
        opacity: 0 leaves the image unchanged, 1 hides it.
        shown: The ids to paint. Default: all but background.
    """
    return np.array(_painted(image, mask, labels, opacity, shown))


def draw_overlay(image: np.ndarray, mask: np.ndarray, labels: LabelSet) -> Image.Image:
    """An overlay with a legend of its painted classes below, no wider than the picture."""
    picture = _painted(image, mask, labels)
    ids = np.intersect1d(mask, painted_ids(labels.names))
    if not len(ids):
        return picture
    strip = _strip(picture)
    legend = draw_legend(strip, ids, labels, hatched=True, loc="center")
    strip.set_figheight(legend.get_window_extent().height / strip.dpi)
    return _with_strip(picture, strip)


def draw_confidence(confidence: np.ndarray) -> Image.Image:
    """Probabilities `(H, W)`, uint8 with 255 for 1, in colours with a scale below."""
    colors = colormaps["viridis"](range(256), bytes=True)[:, :3]
    picture = palette_image(Image.fromarray(confidence), colors.tolist()).convert("RGB")
    strip = _strip(picture)
    axes = strip.add_axes((0.1, 0.65, 0.8, 0.2))
    axes.imshow(colors[None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set(xticks=(0, 0.5, 1), yticks=())
    axes.tick_params(labelsize="small")
    axes.set_xlabel("confidence", size="small")
    return _with_strip(picture, strip)


def draw_legend(
    figure: Figure, ids: Iterable[int], labels: LabelSet, hatched: bool = False, **options
) -> Legend:
    """Draws a legend within a figure's width: long names are cut, rows balanced.

    Args:
        figure: The figure.
        ids: The ids to name; ids of no class are allowed.
        labels: Names and colours.
        hatched: Whether greyish classes are hatched, as in overlays.
        **options: Options of Matplotlib's legend, such as `loc`.
    """
    font, renderer = FontProperties(size="small"), FigureCanvasAgg(figure).get_renderer()
    em = font.get_size_in_points() * figure.dpi / 72
    handle, spacing = 2 * em, 1.2 * em  # a patch with its padding, and the gap between columns
    room = figure.bbox.width - 2 * em

    def width(name: str) -> float:
        return renderer.get_text_width_height_descent(name, font, False)[0]

    colors, patches, widths = labels.colors().tolist(), [], []
    for i in ids:
        name = labels.names[i] if i < len(labels) else "unlabelled"
        name, length = _cut(name, width, room - handle)
        red, green, blue = (level / 255 for level in colors[i])
        patches.append(Patch(facecolor=(red, green, blue), edgecolor="grey", label=name))
        widths.append(handle + length)
        if hatched and is_greyish(colors[i]):
            patches[-1].set(hatch="////", edgecolor=str(line_level(colors[i]) / 255))
    rows = _rows(widths, spacing, room)
    columns = -(-len(patches) // rows)
    # Matplotlib would shorten the last row, at worst to one entry; this shortens the last column.
    patches += [Patch(visible=False, label="")] * (rows * columns - len(patches))
    legend = figure.legend(
        handles=patches,
        ncols=columns,
        prop=font,
        frameon=False,
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.2,
        **options,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may be called "$"
    return legend


def _cut(name: str, width: Callable[[str], float], room: float) -> tuple[str, float]:
    """The name, cut to fit into the room, and its width."""
    short, length = name, width(name)
    while length > room and short != "…":
        kept = min(len(short) - 2, int(len(name) * room / width(name)))
        short = name[: max(0, kept)] + "…"
        length = width(short)
    return short, length


def _rows(widths: list[float], spacing: float, room: float) -> int:
    """The fewest rows of entries, filled column by column, that fit."""
    total = len(widths)
    for rows in range(1, total):
        columns = [max(widths[start : start + rows]) for start in range(0, total, rows)]
        alone = (rows, total) == (2, 3)  # the third one
        if not alone and sum(columns) + spacing * (len(columns) - 1) <= room:
            return rows
    return total


def _painted(image, mask, labels: LabelSet, opacity: float = 0.5, shown=None) -> Image.Image:
    shown = painted_ids(labels.names) if shown is None else shown
    ids = Image.fromarray(np.asarray(mask, np.uint8))
    return paint(Image.fromarray(image), ids, labels.palette, shown, opacity)


def _strip(picture: Image.Image) -> Figure:
    """The strip below a picture; its letters grow with the picture."""
    width = min(max(picture.width, LEAST_WIDTH), LARGEST_STRIP)
    dpi = max(100, width / 8)
    return Figure((width / dpi, 0.6), dpi)


def _with_strip(picture: Image.Image, strip: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(strip)
    canvas.draw()
    below = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    width = max(picture.width, below.width)
    whole = Image.new("RGB", (width, picture.height + below.height), "white")
    whole.paste(picture, ((width - picture.width) // 2, 0))
    whole.paste(below, ((width - below.width) // 2, picture.height))
    return whole


def at_most(picture: np.ndarray, side: int, resampling=Image.Resampling.NEAREST) -> np.ndarray:
    """Shrinks a picture or mask until neither side exceeds `side`; smaller ones are unchanged.

    Args:
        picture: uint8 `(H, W)` or `(H, W, 3)`.
        side: Pixels.
        resampling: Pillow's; only nearest neighbour is right for masks and their colours.
    """
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, resampling))


def side_by_side(
    image: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    labels: LabelSet,
    side: int = 320,
    gap: int = 4,
) -> np.ndarray:
    """A photograph, its predicted and its true classes in one picture.

    Args:
        image: uint8 `(H, W, 3)`.
        prediction: Class ids `(H, W)`.
        truth: Class ids `(H, W)`, 255 where unlabelled.
        labels: Names and colours.
        side: Largest height and width of each of the three; larger ones are shrunk.
        gap: Columns of white between them.

    Returns:
        uint8 `(h, 3 * w + 2 * gap, 3)`.
    """
    photo = at_most(image, side, Image.Resampling.LANCZOS)
    masks = [color_mask(at_most(mask, side), labels) for mask in (prediction, truth)]
    white = np.full((len(photo), gap, 3), 255, np.uint8)
    return np.concatenate([photo, white, masks[0], white, masks[1]], axis=1)
