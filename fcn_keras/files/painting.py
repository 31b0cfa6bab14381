"""Paints classes over a photograph, with Pillow alone: the one rule for every overlay.

Background stays unpainted, as do pixels of no class. Every shape has an outline: a line in its
own colour and, around that, one in black or white, whichever differs more from the colour. One
of the two stands out from any photograph. Greyish classes are hatched in that black or white,
too: blended with grey or black alone, a photograph merely looks pale or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image, ImageChops, ImageDraw

from fcn_keras.files.images import palette_image

# Regardless of case and surrounding characters: labelme writes _background_, others __bg__.
BACKGROUND_NAMES = {"background", "bg"}
UNPAINTED = 255
GREYISH = 40  # the largest difference between the red, green and blue of a greyish colour
PIXELS_PER_WIDTH = 1000  # of the image's longer side, for each pixel of a line's width
HATCH = 10  # distance between the lines of the hatching, in line widths


def is_greyish(color: Sequence[int]) -> bool:
    """Whether a colour `(red, green, blue)` in 0..255 is black, white, grey or close to it."""
    return max(color) - min(color) < GREYISH


def line_level(color: Sequence[int]) -> int:
    """The grey level of lines next to a colour: 0 or 255, whichever differs more from it."""
    red, green, blue = color
    return 0 if 299 * red + 587 * green + 114 * blue >= 127_500 else 255


def painted_ids(names: Sequence[str]) -> list[int]:
    """The ids of the classes painted by default: all but background."""
    return [i for i, name in enumerate(names) if name.strip(" _-").lower() not in BACKGROUND_NAMES]


def paint(
    image: Image.Image, mask: Image.Image, palette, shown: Iterable[int], opacity: float = 0.5
) -> Image.Image:
    """Paints classes over an image.

    Args:
        image: Of mode `"RGB"`.
        mask: Class ids, of mode `"L"` or `"P"`, at the image's size.
        palette: A colour `(red, green, blue)` for each class.
        shown: The ids to paint. Others are unchanged, except for the outlines around these.
        opacity: Of the colours; lines are twice as opaque. 0 leaves the image unchanged.
    """
    # Ranks replace the ids: of two neighbours, the class with fewer pixels keeps its colour up to
    # the boundary, and the line is drawn in the other one. So thin objects are not lost.
    counts = mask.histogram()
    order = sorted({i for i in shown if i < len(palette)}, key=lambda i: (counts[i], i))
    ranks = dict(zip(order, range(len(order))))
    colors = [palette[i] for i in order]
    ids = mask.point([ranks.get(i, UNPAINTED) for i in range(256)], "L")
    colored = palette_image(ids.copy(), colors).convert("RGB")
    alpha, line_alpha = (min(255, round(255 * part)) for part in (opacity, 2 * opacity))
    width = max(1, round(max(image.size) / PIXELS_PER_WIDTH))

    result = image.copy()
    result.paste(colored, mask=_where(ids, range(len(order)), alpha))
    lowest = highest = ids
    for step in ((width, 0), (-width, 0), (0, width), (0, -width)):
        moved = _moved(ids, *step)
        lowest, highest = ImageChops.darker(lowest, moved), ImageChops.lighter(highest, moved)

    def draw(lines: Image.Image, owners: Image.Image, chosen: Iterable[int]) -> None:
        for level in (0, 255):
            some = [rank for rank in chosen if line_level(colors[rank]) == level]
            result.paste((level,) * 3, mask=ImageChops.darker(lines, _where(owners, some, 255)))

    grey = [rank for rank, color in enumerate(colors) if is_greyish(color)]
    draw(_stripes(ids.size, width, line_alpha), ids, grey)
    inside, outside = ImageChops.subtract(highest, ids), ImageChops.subtract(ids, lowest)
    result.paste(colored, mask=_where(inside, range(1, 256), line_alpha))
    draw(_where(outside, range(1, 256), line_alpha), lowest, range(len(colors)))
    return result


def _where(ids: Image.Image, chosen: Iterable[int], level: int) -> Image.Image:
    chosen = set(chosen)
    return ids.point([level if i in chosen else 0 for i in range(256)])


def _moved(ids: Image.Image, right: int, down: int) -> Image.Image:
    moved = ids.copy()  # at the image border an id meets itself
    moved.paste(ids, (right, down))
    return moved


def _stripes(size: tuple[int, int], line: int, level: int) -> Image.Image:
    stripes, (width, height) = Image.new("L", size), size
    draw = ImageDraw.Draw(stripes)
    for left in range(-height, width, HATCH * line):
        # Its square ends are outside the image.
        draw.line((left - line, height + line, left + height + line, -line), level, line)
    return stripes
