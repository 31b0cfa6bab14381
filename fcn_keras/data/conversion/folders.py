"""A folder of images and a folder of masks, whose files have the same names.

labelme's VOC export (`labelme2voc.py`) has `class_names.txt` instead of `classes.txt`, and
no lists of training and validation images; other programs use other colours in masks.
"""

from __future__ import annotations

from pathlib import Path

from fcn_keras.data.conversion.source import Example, Findings, Options, Source
from fcn_keras.data.directory import IMAGE_SUFFIXES, MASK_SUFFIXES, read_class_list, read_mask
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError

OPTIONS = {"images", "masks", "classes"}
LABELME_IGNORE = "__ignore__"  # the first line of labelme's labels.txt, not a class


def recognizes(place: Path) -> bool:
    return False


def read(place: Path | None, options: Options, findings: Findings) -> Source:
    images, masks, classes = options.images, options.masks, options.classes
    if not images or not masks or not classes:
        raise UserError("Two folders need --images DIR, --masks DIR and --classes FILE.")
    labels = _read_classes(classes)
    examples = []
    for name, (image, mask) in _pairs(images, masks, findings).items():

        def draw(height, width, mask=mask):
            return read_mask(mask, labels)

        examples.append(Example(name, image, mask, draw))
    return Source(labels, examples)


def _read_classes(path: Path) -> LabelSet:
    labels = read_class_list(path)
    if labels.names[0] == LABELME_IGNORE and len(labels) > 1:
        return LabelSet(labels.names[1:])
    return labels


def _pairs(images: Path, masks: Path, findings: Findings) -> dict[str, tuple[Path, Path]]:
    """The image and mask of each name, sorted; files without a partner are left out."""
    image_files, mask_files = _files(images, IMAGE_SUFFIXES), _files(masks, MASK_SUFFIXES)
    shared = image_files.keys() & mask_files.keys()
    if len(shared) < 2:
        raise UserError(
            f"{images} and {masks}: {len(shared)} pairs of image and mask, among "
            f"{len(image_files)} images (JPEG or PNG) and {len(mask_files)} masks (PNG). At least "
            "two are needed; an image and its mask have the same name but for the extension."
        )
    for files in (image_files, mask_files):
        for name, path in files.items():
            if name not in shared:
                findings.leave_out("as it has no partner", path)
    return {name: (image_files[name], mask_files[name]) for name in sorted(shared)}


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in suffixes and not path.name.startswith("."):
            if path.stem in files:
                raise UserError(f"{path}: {files[path.stem].name} has the same name. Rename one.")
            files[path.stem] = path
    return files
