"""Labels that are not read: each is named, with what to do, and commands in messages work."""

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.errors import UserError

HEIGHT, WIDTH = 20, 30
NAMES = "abc"
OBJECT = {"annotations": [{"id": 1, "label": "car"}]}
BOX = {"label": "car", "coordinates": {"x": 1, "y": 1, "width": 2, "height": 2}}
REGION = {"shape_attributes": {"name": "polygon", "all_points_x": [1, 5, 9]}}
BITMAP = {"objects": [{"classTitle": "car", "bitmap": {"data": "eJw=", "origin": [1, 1]}}]}
SEGMENTS = {"attributes": {"segmentation_bitmap": {"url": "https://x"}}}
TASK = "task-1-annotation-1-by-1-tag-car-0"
# The name of a file, with {} for that of each image, its content, and what is said of it.
FILES = {
    "VIA 2": ("via.json", {"a.jpg9": {"filename": "a.jpg", "regions": [REGION]}}, "a VIA file"),
    "VIA's project": ("via.json", {"_via_settings": {}, "_via_img_metadata": {}}, "a VIA file"),
    "VIA 3": ("via.json", {"project": {"pid": "__VIA_PROJECT_ID__"}}, "a VIA file"),
    "VIA's table": ("via.csv", "filename,file_size,file_attributes,region_count\n", "a VIA file"),
    "ISAT": ("{}.json", {"info": {"description": "ISAT"}, "objects": []}, "ISAT's tools"),
    "EISeg": ("label/{}.json", [{"name": "car", "labelIdx": 1, "points": []}], "COCO in EISeg"),
    "Supervisely": ("ds/ann/{}.jpg.json", BITMAP, "'Export to COCO mask'"),
    "Labelbox": ("export.ndjson", {"data_row": {"id": "x"}}, "a Labelbox file"),
    "SuperAnnotate": ("{}.jpg___objects.json", {"instances": [{"classId": "a"}]}, "SuperAnno"),
    "Darwin": ("{}.json", {"schema_ref": "https://x/darwin_json/2.0", **OBJECT}, "of V7"),
    "Segments.ai": ("x.json", {"dataset": {"samples": [SEGMENTS]}}, "'coco-panoptic'"),
    "Hasty": ("x.json", {"export_format_version": "1.1", "images": [{"image_id": 1}]}, "a Hasty"),
    "Kili": ("{}.json", {"labels": [{"jsonResponse": {"JOB": OBJECT}}]}, "a Kili file"),
    "Encord": ("x.json", [{"label_hash": "x", "data_units": {}}], "an Encord file"),
    "Dataloop": ("{}.json", {"annotations": [{"type": "segment"}]}, "a Dataloop file"),
    "CVAT's backup": ("annotations.json", [{"shapes": [], "tracks": []}], "images 1.1"),
    "VoTT": ("x-export.json", {"securityToken": "x", "assets": {}}, "a VoTT file"),
    "Datumaro": ("default.json", {"dm_format_version": "1.0", "items": [OBJECT]}, "'COCO 1.0'"),
    "CVAT's Datumaro": ("x.json", {"categories": {"label": {}}, "items": [OBJECT]}, "'COCO 1.0'"),
    "Detectron2": ("x.json", [{"file_name": "a.jpg", "annotations": [{"bbox_mode": 0}]}], "Detec"),
    "CreateML": ("x.json", [{"image": "a.jpg", "annotations": [BOX]}], "are for detection"),
    "Label Studio's CSV": ("x.csv", "annotation_id,annotator,created_at,id\n", "as JSON there"),
    "Label Studio's PNG": (f"masks/{TASK}.png", None, "as JSON there"),
    "Label Studio's NumPy": (f"{TASK}.npy", None, "as JSON there"),
    "MIT's LabelMe": ("{}.xml", "<annotation><pt><x>1</x></pt></annotation>", "'COCO 1.0'"),
    "VOC's boxes": ("{}.xml", "<annotation><bndbox></bndbox></annotation>", "are for detection"),
    "a CSV of boxes": ("x.csv", "filename,width,height,class,xmin,ymin\n", "are for detection"),
    "run lengths": ("train.csv", "ImageId,EncodedPixels\na.jpg,1 3\n", "as masks in PNG"),
    "QuPath": ("{}.geojson", {"type": "FeatureCollection"}, "--images and --masks"),
    "3D Slicer": ("{}.seg.nrrd", "NRRD0004\n", "Save its slices as PNG"),
    "ITK-SNAP": ("{}.nii.gz", None, "Save its slices as PNG"),
    "NumPy": ("masks/{}.npy", None, "Save it as PNG"),
    "MATLAB": ("PixelLabelData/Label_1.png", None, "gTruth.DataSource"),
    "TFRecords": ("x.tfrecord", None, "its images and masks as files"),
    "an archive": ("task_1.zip", None, "Unpack it first"),
}


def photographs(root):
    for name in NAMES:
        root.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 99, np.uint8)).save(root / f"{name}.jpg")


def mask(path, values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8) if values is None else values).save(path)


def write(root, name, content):
    for image in NAMES if "{}" in name else NAMES[:1]:
        path = root / name.format(image)
        if path.suffix == ".png":
            mask(path)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content or "\0\1\2"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


@pytest.mark.parametrize("kind", FILES)
def test_a_relative_is_refused_by_name(kind, tmp_path):
    name, content, message = FILES[kind]
    photographs(tmp_path / "in/images")
    path = write(tmp_path / "in", name, content)
    sources = [tmp_path / "in"]
    if path.suffix in (".json", ".csv", ".ndjson") and kind not in ("ISAT", "EISeg"):
        sources.append(path)
    for source in sources:
        with pytest.raises(UserError, match=message) as error:
            convert(source, tmp_path / "out")
        assert str(error.value).startswith(str(tmp_path / "in")) and ", " in str(error.value)


SEGM = "<annotation><object><segm><mask>a_mask_0.png</mask></segm></object></annotation>"
# What has images that would be taken for masks.
MISLEADING = {
    "labelme_json_to_dataset": ("{}_json/label_viz.png", None, "{}_json/img.png", "differ from"),
    "CVAT's LabelMe 3.0": ("{}.xml", SEGM, "{}_mask_0.png", "'COCO 1.0'"),
    "CVAT's ADE20K": ("{}_parts_1.png", None, "{}_seg.png", "ADEChallengeData2016"),
    "CVAT's Open Images": ("x.csv", "MaskPath,ImageID,LabelName\n", "{}_car_1.png", "'COCO 1.0'"),
    "SuperAnnotate's pixels": ("{}.json", {"classId": "a"}, "{}.jpg___save.png", "SuperAnno"),
    "Segments.ai's bitmaps": ("x.json", SEGMENTS, "{}_ground-truth.png", "'coco-panoptic'"),
}


@pytest.mark.parametrize("kind", MISLEADING)
def test_what_looks_like_masks_is_refused_by_name(kind, tmp_path):
    name, content, masks, message = MISLEADING[kind]
    photographs(tmp_path / "in")
    write(tmp_path / "in", name, content)
    for image in NAMES:
        mask(tmp_path / "in" / masks.format(image))
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in", tmp_path / "out")


def test_masks_are_read_beside_labels_that_are_not(tmp_path):
    photographs(tmp_path / "in/images")
    write(tmp_path / "in", "xmls/{}.xml", FILES["VOC's boxes"][1])
    write(tmp_path / "in", "old.zip", None)
    for name in NAMES:
        mask(tmp_path / f"in/masks/{name}.png")
    (tmp_path / "in/classes.txt").write_text("background\nline\n")
    assert convert(tmp_path / "in", tmp_path / "out").sizes == {"train": 2, "val": 1}
    with pytest.raises(UserError, match="other.txt: no such file"):
        convert(tmp_path / "in", tmp_path / "2", options=Options(classes=tmp_path / "other.txt"))


def test_folders_of_exports_in_a_folder_are_named(tmp_path):
    for task in ("task_1", "task_2"):
        photographs(tmp_path / "in" / task / "images")
        (tmp_path / "in" / task / "annotations.xml").write_text("<annotations></annotations>")
    with pytest.raises(UserError, match=r"task_1 \(cvat\), .*task_2 \(cvat\). Others .* by --into"):
        convert(tmp_path / "in", tmp_path / "out")


POLYGON, BOXES = "1 0.1 0.1 0.9 0.1 0.9 0.9\n", "0 0.5 0.5 0.1 0.1\n"


@pytest.mark.parametrize("existing", [None, "nc: 2\nnames: [road, car]", "train: images"])
@pytest.mark.parametrize("folders", ["images labels", "images/train labels/train", ". ."])
def test_yolo_without_its_yaml_says_what_to_write(folders, existing, tmp_path):
    root = tmp_path / "my data"
    images, labels = (root / folder for folder in folders.split())
    photographs(images)
    labels.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (labels / f"{name}.txt").write_text(POLYGON)
    (root / "classes.txt").write_text("road\ncar\n")
    if existing:
        (root / "dataset.yaml").write_text(existing if folders[0] == "i" else "nc: 2")
    with pytest.raises(UserError, match="a file of labels of YOLO") as error:
        convert(root, tmp_path / "out")
    command = str(error.value).partition("for example: ")[2]
    subprocess.run(["sh", "-c", command], check=True, timeout=60)
    done = convert(root, tmp_path / "out")
    assert done.format == "yolo" and done.labels.names == ("background", "road", "car")
    assert done.pixels[2] > 3 * 100 and done.sizes == {"train": 2, "val": 1}


@pytest.mark.parametrize(
    ("rows", "message"), [(BOXES, "of boxes as in YOLO"), (POLYGON, "Add the im")]
)
def test_labels_of_yolo_of_no_use_are_refused_by_name(rows, message, tmp_path):
    if rows == BOXES:  # CVAT's "YOLO 1.1"
        photographs(tmp_path / "in/obj_train_data")
    for name in NAMES:
        write(tmp_path / "in", f"obj_train_data/{name}.txt", rows)
    (tmp_path / "in/obj.names").write_text("road\ncar\n")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in", tmp_path / "out")
