"""A built FCN -> a drawing of its layers, each in the row of its stride.

python docs/figure.py docs/images/fcn8s.svg
"""

import dataclasses
import sys
from html import escape
from pathlib import Path

import keras

from fcn_keras.models.fcn import build_fcn
from fcn_keras.models.graph import calls
from fcn_keras.models.upsampling import CropLike

BOX, GAP = (112, 54), (26, 34)  # width and height of a box, and of the space between two
MARGIN, HEADER = 14, 108
# Fill and what it stands for; the last is for all other layers.
KINDS = {
    keras.Model: ("#c9d8f2", "backbone (ResNet)"),
    keras.layers.Conv2D: ("#f6d9b8", "1×1 convolution to the classes"),
    keras.layers.Conv2DTranspose: ("#cfe8cf", "transposed convolution"),
    keras.layers.Add: ("#f2c9d4", "sum with a skip"),
    CropLike: ("#eeeeee", "crop to the size of another map"),
    object: ("#ffffff", "images and their standardisation"),
}


@dataclasses.dataclass
class Box:
    """A map in the figure: one output of a layer.

    Args:
        name: The layer's name.
        kind: The key of `KINDS`.
        shape: Height, width and channels.
        row: Its stride, the image's height by its own.
        column: The length of the longest way from the image.
        sources: The boxes that it is made of.
        references: Those that only give its size.
    """

    name: str
    kind: type
    shape: tuple[int, int, int]
    row: int
    column: int
    sources: list["Box"]
    references: list["Box"]


def network_svg(model: keras.Model, size: tuple[int, int] = (320, 480)) -> str:
    """Draws a functional model, such as `build_fcn`'s, as an SVG picture.

    Args:
        model: Of one image to one map.
        size: Height and width of the image that the sizes in the figure are for.

    Returns:
        The text of an SVG file: a box for each map, with its layer's name and
        `height × width × channels`.
    """
    boxes = network_boxes(model, size)
    rows = sorted({box.row for box in boxes})
    width = MARGIN + 62 + (max(box.column for box in boxes) + 1) * (BOX[0] + GAP[0])
    height = HEADER + len(rows) * (BOX[1] + GAP[1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(_summary(model, boxes))}">',
        "<style>text{font:11px system-ui,'DejaVu Sans',sans-serif;fill:#1d2126}"
        ".s{fill:#59616b}.n{font-weight:600}.t{font-size:16px;font-weight:600}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#59616b"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="t" x="{MARGIN}" y="26">{escape(model.name)}, image {size[0]}×{size[1]}'
        "</text>",
        *_legend(boxes),
    ]
    for index, stride in enumerate(rows):
        y = HEADER + index * (BOX[1] + GAP[1]) + BOX[1] / 2 + 4
        parts.append(f'<text class="s" x="{MARGIN}" y="{y:g}">stride {stride}</text>')
    places = {id(box): _place(box, rows) for box in boxes}
    for box in boxes:
        for source in box.sources + box.references:
            dashed = source in box.references
            parts.append(_arrow(places[id(source)], places[id(box)], dashed))
    parts += [_drawn(box, *places[id(box)]) for box in boxes]
    return "\n".join([*parts, "</svg>"]) + "\n"


def network_boxes(model: keras.Model, size: tuple[int, int]) -> list[Box]:
    """The maps of a functional model, in the order of its graph."""
    made = [(call, tensor) for call in calls(model) for tensor in call.output_tensors]
    tensors = keras.Model(model.inputs, [tensor for _, tensor in made])
    boxes: dict[int, Box] = {}
    for (call, tensor), shape in zip(made, tensors.compute_output_shape((1, *size, 3))):
        layer, (_, height, width, channels) = call.operation, shape
        inputs = [boxes[id(source)] for source in call.input_tensors]
        count = 1 if isinstance(layer, CropLike) else len(inputs)
        boxes[id(tensor)] = Box(
            layer.name,
            next(kind for kind in KINDS if isinstance(layer, kind)),
            (height, width, channels),
            round(size[0] / height),
            1 + max((box.column for box in inputs), default=-1),
            inputs[:count],
            inputs[count:],
        )
    return list(boxes.values())


def _summary(model: keras.Model, boxes: list[Box]) -> str:
    steps = [f"{box.name} {_size(box)}" for box in boxes]
    return f"{model.name}: {'; '.join(steps)}"


def _size(box: Box) -> str:
    return "×".join(map(str, box.shape))


def _place(box: Box, rows: list[int]) -> tuple[float, float]:
    x = MARGIN + 62 + box.column * (BOX[0] + GAP[0])
    return x, HEADER + rows.index(box.row) * (BOX[1] + GAP[1])


def _drawn(box: Box, x: float, y: float) -> str:
    middle, fill = x + BOX[0] / 2, KINDS[box.kind][0]
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="{fill}" '
        f'stroke="#59616b"/>\n<text class="n" x="{middle:g}" y="{y + 23:g}" text-anchor="middle">'
        f'{escape(box.name)}</text>\n<text class="s" x="{middle:g}" y="{y + 41:g}" '
        f'text-anchor="middle">{_size(box)}</text>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], dashed: bool) -> str:
    """A curve from a box's right side to another's left; of references from its top or bottom."""
    (x1, y1), (x2, y2) = (start[0] + BOX[0], start[1] + BOX[1] / 2), (end[0], end[1] + BOX[1] / 2)
    style = ' stroke-dasharray="4 3"' if dashed else ""
    if end[0] - start[0] > BOX[0] + GAP[0] + 1 and start[1] == end[1]:
        # Over the boxes between them.
        y1, y2 = start[1], end[1]
        x1, x2 = start[0] + BOX[0] / 2, end[0] + BOX[0] / 2
        path = f"M{x1:g} {y1:g}C{x1:g} {y1 - GAP[1]:g} {x2:g} {y2 - GAP[1]:g} {x2:g} {y2:g}"
    else:
        bend = max(GAP[0], (x2 - x1) / 2)
        path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
    return f'<path d="{path}" fill="none" stroke="#59616b"{style} marker-end="url(#a)"/>'


def _legend(boxes: list[Box]) -> list[str]:
    parts, x = [], MARGIN
    for kind, (fill, text) in KINDS.items():
        if any(box.kind is kind for box in boxes):
            parts.append(
                f'<rect x="{x}" y="42" width="12" height="12" fill="{fill}" stroke="#59616b"/>'
                f'<text x="{x + 18}" y="52">{text}</text>'
            )
            x += 40 + 6 * len(text)
    parts.append(
        f'<path d="M{x} 48h24" stroke="#59616b" stroke-dasharray="4 3"/>'
        f'<text x="{x + 30}" y="52">gives the size only</text>'
    )
    return parts


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(network_svg(build_fcn("resnet18", 21, 8, weights=None)))
