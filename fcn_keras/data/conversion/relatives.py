"""Labels of other programs that are not read: how they are known, and what to do instead.

A folder is searched for them if no format fits and it has no masks; for those whose images would
be taken for masks, in any case.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fcn_keras.data.conversion.files import HEADS, files_below, head

TEXTS = {".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv"}
CONVERT = "Export or convert it to COCO."
BOXES = "Boxes are for detection: export polygons or masks."


class Relative(NamedTuple):
    """What is not read, and what to do.

    Args:
        kind: What it is, with an article.
        remedy: What to do, as a sentence.
        path: A regular expression found in its path.
        content: A regular expression found in its beginning, if it is text.
        masks: Whether it comes with images that look like masks, but are none.
    """

    kind: str
    remedy: str
    path: str = ""
    content: bytes = b""
    masks: bool = False


MIT = "an XML file of MIT's LabelMe", "CVAT imports it as 'LabelMe 3.0' and exports 'COCO 1.0'."
RELATIVES = (
    Relative(
        "an output of labelme_json_to_dataset",
        "Its ids differ from file to file: convert the folder of the JSON files instead.",
        path=r"(^|/)label_viz\.png$",
        masks=True,
    ),
    Relative(
        "a mask as in full ADE20K, with parts of objects",
        "Convert ADEChallengeData2016 or, from CVAT, 'Segmentation mask 1.1'.",
        path=r"_parts_\d+\.png$",
        masks=True,
    ),
    Relative(
        "a list of Open Images's masks, one for each object",
        "From CVAT, export 'COCO 1.0'.",
        content=rb"\AMaskPath,ImageID",
        masks=True,
    ),
    Relative(*MIT, content=rb"<segm>", masks=True),
    Relative(*MIT, content=rb"<pt>"),
    Relative("an XML file of boxes", BOXES, content=rb"<bndbox>"),
    Relative(
        "an ISAT file",
        "Convert it to labelme or COCO with ISAT's tools.",
        content=rb'"ISAT"',
    ),
    Relative("an EISeg file", "Save the labels as COCO in EISeg.", content=rb'"labelIdx"'),
    Relative(
        "a VIA file",
        "Export COCO there, in VIA or makesense.ai.",
        content=rb'"(shape|region|file)_attributes"|"_via_|__VIA_|\Afilename,file_size,file_attr',
    ),
    Relative(
        "a Supervisely file",
        "Convert it with Supervisely's app 'Export to COCO mask'.",
        content=rb'"(classTitle|geometryType|projectType)"',
    ),
    Relative("a Labelbox file", CONVERT, content=rb'"(data_row|Labeled Data|DataRow ID)"'),
    Relative("a SuperAnnotate file", CONVERT, content=rb'"classId"', masks=True),
    Relative("a Darwin file of V7", CONVERT, content=rb'darwin_json|darwin\.v7|"slot_names"'),
    Relative(
        "a Segments.ai file",
        "Export 'coco-panoptic' there.",
        content=rb'"segmentation_bitmap"',
        masks=True,
    ),
    Relative("a Hasty file", CONVERT, content=rb'"export_format_version"'),
    Relative("a Kili file", CONVERT, content=rb'"jsonResponse"'),
    Relative("an Encord file", CONVERT, content=rb'"(label_hash|data_units)"'),
    Relative("a Dataloop file", CONVERT, content=rb'"type"\s*:\s*"segment"'),
    Relative(
        "a backup of CVAT", "Export 'CVAT for images 1.1' there.", content=rb'"tracks"\s*:\s*\['
    ),
    Relative("a VoTT file", CONVERT, content=rb'"securityToken"'),
    Relative(
        "a Datumaro file",
        "Export COCO, which CVAT calls 'COCO 1.0'.",
        content=rb'"dm_format_version"|"categories"\s*:\s*\{\s*"label"',
    ),
    Relative("a Detectron2 file", CONVERT, content=rb'"bbox_mode"'),
    Relative("a CreateML file of boxes", BOXES, content=rb'"coordinates"\s*:\s*\{'),
    Relative(
        "a table of Label Studio",
        "Export the project as JSON there.",
        content=rb"\A[^\n]*\b(annotation_id,annotator|annotator,annotation_id)\b",
    ),
    Relative(
        "what Label Studio painted in one region",
        "Export the project as JSON there.",
        path=r"(^|/)task-\d+-annotation-\d+-by-[^/]*$",
    ),
    Relative("a table of boxes", BOXES, content=rb"(?i)\A[^\n{]*\bxmin\b"),
    Relative("a table of run lengths", "Save them as masks in PNG.", content=rb"EncodedPixels"),
    Relative(
        "a GeoJSON file, as of QuPath",
        "Export labelled images there, and name their folders by --images and --masks.",
        path=r"\.geojson$",
    ),
    Relative(
        "a volume",
        "Save its slices as PNG, those of images and of masks by the same names.",
        path=r"\.(nrrd|nii|nii\.gz|mha|mhd|dcm)$",
    ),
    Relative(
        "a NumPy array",
        "Save it as PNG: PIL.Image.fromarray(array).save('NAME.png').",
        path=r"\.np[yz]$",
    ),
    Relative(
        "a mask of MATLAB's Image Labeler",
        "Name each after its photograph, in the order of gTruth.DataSource.",
        path=r"(^|/)PixelLabelData/[^/]*\.png$",
    ),
    Relative(
        "a packed data set",
        "Write its images and masks as files.",
        path=r"\.(tfrecords?|parquet|arrow|h5|hdf5)$",
    ),
    Relative("an archive", "Unpack it first.", path=r"\.(zip|tar|tgz|gz|bz2|xz|7z|rar)$"),
)


def relative_of(path: Path, place: Path | None = None) -> Relative | None:
    """What a file is that is not read; its path counts below `place`."""
    name = path.relative_to(place).as_posix() if place else path.name
    start = head(path) if path.suffix.lower() in TEXTS else b""
    for relative in RELATIVES:
        if relative.path and re.search(relative.path, name, re.I):
            return relative
        if relative.content and re.search(relative.content, start):
            return relative
    return None


def named_relative(place: Path, masks: bool = False) -> str:
    """The message about what a file or folder has instead of a known format, or an empty one.

    Args:
        place: The file or folder.
        masks: Whether only what has images that look like masks is of interest.
    """
    for path in _samples(place) if place.is_dir() else [place]:
        relative = relative_of(path, place if place.is_dir() else None)
        if relative and relative.masks >= masks:
            return f"{path}: {relative.kind}, which is not read. {relative.remedy}"
    return ""


def _samples(folder: Path) -> Iterator[Path]:
    """The first files of each ending."""
    counts: collections.Counter[str] = collections.Counter()
    for path in files_below(folder):
        ending = path.suffix.lower()
        counts[ending] += 1
        if counts[ending] <= HEADS:
            yield path
