"""CVAT's exports: "CVAT for images 1.1" (see `cvat_xml`) and "Segmentation mask 1.1".

The latter is a folder in VOC's layout with masks in colours, which `labelmap.txt` names:
`name:r,g,b:parts:actions`, with `background` in any row.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np

from fcn_keras.data.conversion import cvat_xml
from fcn_keras.data.conversion.cvat_xml import SAVE_IMAGES, Color, background_first
from fcn_keras.data.conversion.files import head
from fcn_keras.data.conversion.source import Findings, Options, Source, background_of
from fcn_keras.data.conversion.voc import listed_examples
from fcn_keras.data.decoding import decode_mask
from fcn_keras.data.directory import IMAGE_FOLDER, MASK_FOLDER, read_file
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.images import bad_files_named, encode_image, open_header
from fcn_keras.files.reading import damage_as_user_errors, read_text

OPTIONS = {"images"}
LABELMAP = "labelmap.txt"
MAX_FILES = 50  # XML files of other programs, of which there may be one per image


def recognizes(place: Path) -> bool:
    if os.path.isdir(place):
        masks = os.path.isdir(place / MASK_FOLDER) and os.path.isfile(place / LABELMAP)
        return masks or bool(_xml_files(place))
    return _is_xml(place)


def read(place: Path, options: Options, findings: Findings) -> Source:
    if os.path.isfile(place / LABELMAP):
        return _read_masks(place, options, findings)
    files = _xml_files(place) if os.path.isdir(place) else [place]
    if len(files) != 1:
        found = ", ".join(path.name for path in files[:4]) or "neither"
        raise UserError(
            f"{place}: one annotations.xml or {LABELMAP} is needed. Found: {found}. Pass one file "
            "of CVAT's export."
        )
    return cvat_xml.read(files[0], options, findings)


def _xml_files(folder: Path) -> list[Path]:
    """CVAT's own `annotations.xml`, or others among the first of a folder."""
    if _is_xml(folder / "annotations.xml"):
        return [folder / "annotations.xml"]
    return sorted(filter(_is_xml, itertools.islice(folder.glob("*.xml"), MAX_FILES)))


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and b"<annotations" in head(path)[:1000]


def _read_masks(root: Path, options: Options, findings: Findings) -> Source:
    images = options.images or root / IMAGE_FOLDER
    if not os.path.isdir(images):
        raise UserError(f"{images}: no such folder. {SAVE_IMAGES}")
    labels = _read_labelmap(root / LABELMAP)
    examples = listed_examples(root, images, _read_colors, labels, findings)
    return Source(labels, [dataclasses.replace(example, upright=True) for example in examples])


def _read_labelmap(path: Path) -> LabelSet:
    colors: dict[str, Color | None] = {}
    with damage_as_user_errors(f"{path}: not a labelmap of CVAT", "Export it again."):
        for line in read_text(path).lstrip("\ufeff").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            name, *rest = line.rsplit(":", 3)
            if len(rest) != 3:
                raise ValueError(f"a line is 'name:r,g,b:parts:actions', not {line[:60]!r}")
            if name.strip() in colors:
                raise ValueError(f"{name.strip()} occurs twice")
            red, green, blue = map(int, rest[0].split(","))
            colors[name.strip()] = red, green, blue
        if len({*colors.values()}) < len(colors):
            raise ValueError("several classes have the same colour")
        if not background_of(colors):
            raise ValueError("it lacks background")
        return background_first(colors)


def _read_colors(path: Path, labels: LabelSet) -> np.ndarray:
    """Reads a mask in colours, which an image editor may have saved as grey or with a palette."""
    data = read_file(path)
    with bad_files_named(str(path)):
        image = open_header(data, str(path))
        if image.format == "PNG" and image.mode in ("1", "L", "P"):
            data = encode_image(image.convert("RGB"), compress_level=1)
    return decode_mask(data, labels, str(path))
