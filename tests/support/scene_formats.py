"""A scene of overlapping shapes, one with a hole, in every format that `data convert` reads."""

import base64
import io
import itertools
import json

import numpy as np
from PIL import Image
from pycocotools import mask as pycocotools

SIZE = HEIGHT, WIDTH = 60, 90
NAMES = ("sky", "tree", "car")
COLORS = ((0, 0, 0), (200, 10, 10), (10, 200, 10), (10, 10, 200))  # that of no class first
LAYERS = (1, 0, 2, 3)  # the class of each shape, 0 for what is none: a hole in the sky
CITYSCAPES, NUMBERS = ("sky", "vegetation", "car"), (0, 23, 21, 26)


def polygons():
    """Corners of the shapes, each smaller than the one below: large, a hole, and two across it."""
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return [
        circle * (40.3, 26.4) + (44.7, 30.2),
        circle * (22.1, 14.6) + (40.2, 28.3),
        np.array([(30.4, 20.3), (80.6, 24.8), (77.3, 40.1), (27.2, 36.7)]),
        np.array([(50.3, 12.2), (69.8, 47.6), (44.1, 52.4)]),
    ]


def inside(polygon):
    """Which pixels have their centres in a polygon whose corners turn clockwise, bool `(H, W)`."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    sides = zip(polygon, np.roll(polygon, -1, axis=0))
    return np.all([(b - a)[0] * (y - a[1]) >= (b - a)[1] * (x - a[0]) for a, b in sides], axis=0)


def flipped(polygon):
    return (polygon * (-1, 1) + (WIDTH, 0))[::-1]


# Two pictures, the second the mirror image of the first: names, shapes, and the number of the class
# of each pixel, 0 where there is none.
SCENES = {"a": polygons(), "b": [flipped(polygon) for polygon in polygons()]}
PARTS = {"train": "a", "val": "b"}
MASKS = {}
for _name, _shapes in SCENES.items():
    MASKS[_name] = np.zeros(SIZE, np.uint8)
    for _class, _polygon in zip(LAYERS, _shapes):
        MASKS[_name][inside(_polygon)] = _class


def objects(scene):
    """Name and pixels of the shapes, where the first really has a hole."""
    for number in (1, 2, 3):
        shape = inside(SCENES[scene][LAYERS.index(number)])
        yield NAMES[number - 1], shape & ~(inside(SCENES[scene][1]) & (number == 1))


def photograph(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(path)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def labelme(root, shapes_of):
    for scene in SCENES:
        photograph(root / f"{scene}.jpg")
        content = {"version": "5.5.0", "flags": {}, "imagePath": f"{scene}.jpg", "imageData": None}
        content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [*shapes_of(scene)]}
        (root / f"{scene}.json").write_text(json.dumps(content))


def labelme_polygons(root):
    def shapes(scene):
        for number, polygon in zip(LAYERS, SCENES[scene]):
            label = NAMES[number - 1] if number else "_background_"
            yield {"label": label, "shape_type": "polygon", "points": polygon.tolist()}

    labelme(root, shapes)


def labelme_masks(root):
    def shapes(scene):
        for label, mask in objects(scene):
            file = io.BytesIO()
            Image.fromarray(mask).save(file, "PNG")
            box = [[0, 0], [WIDTH - 1, HEIGHT - 1]]
            text = base64.b64encode(file.getvalue()).decode()
            yield {"label": label, "shape_type": "mask", "points": box, "mask": text}

    labelme(root, shapes)


def coco(path, segmentations, categories=("", *NAMES), scenes=tuple(SCENES)):
    """COCO's JSON; `segmentations` yields names and shapes."""
    sizes = {"height": HEIGHT, "width": WIDTH}
    images = [{"id": i, "file_name": f"{name}.jpg", **sizes} for i, name in enumerate(scenes)]
    annotations = [
        {"image_id": i, "category_id": categories.index(name), "segmentation": shape, "id": 1}
        for i, scene in enumerate(scenes)
        for name, shape in reversed([*segmentations(scene)])  # their sizes order them
    ]
    named = [{"id": i, "name": name} for i, name in enumerate(categories) if name]
    for scene in scenes:
        photograph(path.parent / f"{scene}.jpg")
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": named}))


def coco_polygons(root):
    coco(root / "instances.json", outlines, ("background", *NAMES))


def outlines(scene):
    for number, polygon in zip(LAYERS, SCENES[scene]):
        yield NAMES[number - 1] if number else "background", [polygon.ravel().tolist()]


def roboflow_coco(root):
    for part, scene in PARTS.items():
        folder = root / {"val": "valid"}.get(part, part)
        coco(folder / "_annotations.coco.json", outlines, ("background", *NAMES), (scene,))


def coco_strings(root):
    def segmentations(scene):
        for name, mask in objects(scene):
            rle = pycocotools.encode(np.asfortranarray(mask, np.uint8))
            yield name, {"size": list(SIZE), "counts": rle["counts"].decode()}

    coco(root / "instances.json", segmentations)


def runs(flat):
    """Lengths of runs, the first of zeros."""
    ends = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0))
    return np.diff([0, *ends, flat.size]).tolist()


def coco_lists(root):
    def segmentations(scene):
        for name, mask in objects(scene):
            yield name, {"size": list(SIZE), "counts": runs(mask.T.ravel())}

    coco(root / "instances.json", segmentations)


def coco_panoptic(root):
    path = root / "panoptic_all.json"
    coco(path, lambda scene: [])
    content = json.loads(path.read_text())
    for i, scene in enumerate(SCENES):
        numbers = np.array([0, 256, 1000, 70_000])[MASKS[scene]]
        channels = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65_536], axis=2)
        save(root / f"panoptic_all/{scene}.png", channels.astype(np.uint8))
        segments = [{"id": n, "category_id": c} for c, n in enumerate((256, 1000, 70_000), 1)]
        content["annotations"].append(
            {"image_id": i, "file_name": f"{scene}.png", "segments_info": segments}
        )
    path.write_text(json.dumps(content))


def cvat(root, shapes_of):
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("background", *NAMES))
    images = ""
    for scene in SCENES:
        photograph(root / f"images/{scene}.jpg")
        # The order is that of z_order, not of the document.
        shapes = "".join(reversed([*shapes_of(scene)]))
        images += f'<image name="{scene}.jpg" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
    (root / "annotations.xml").write_text(
        f"<annotations><meta><task><labels>{labels}</labels></task></meta>{images}</annotations>"
    )


def cvat_polygons(root):
    def shapes(scene):
        for order, (number, polygon) in enumerate(zip(LAYERS, SCENES[scene])):
            points = ";".join(f"{x},{y}" for x, y in polygon)
            label = NAMES[number - 1] if number else "background"
            yield f'<polygon label="{label}" points="{points}" z_order="{order - 2}"/>'

    cvat(root, shapes)


def cvat_runs(root):
    def shapes(scene):
        for order, (name, mask) in enumerate(objects(scene)):
            y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            part = mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
            box = f'left="{x[0]}" top="{y[0]}" width="{part.shape[1]}" height="{part.shape[0]}"'
            rle = ", ".join(map(str, runs(part.ravel())))
            yield f'<mask label="{name}" {box} rle="{rle}" z_order="{order}"/>'

    cvat(root, shapes)


def cvat_masks(root):
    rows = [*zip(NAMES, COLORS[1:]), ("background", COLORS[0])]
    voc_layout(root, lambda mask: np.uint8(COLORS)[mask])
    (root / "labelmap.txt").write_text(
        "".join(f"{name}:{','.join(map(str, color))}::\n" for name, color in rows)
    )


def voc_layout(root, painted):
    for part, scene in PARTS.items():
        photograph(root / f"JPEGImages/{scene}.jpg")
        save(root / f"SegmentationClass/{scene}.png", painted(MASKS[scene]))
        path = root / f"ImageSets/Segmentation/{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{scene}\n")


def voc(root):
    voc_layout(root, lambda mask: mask)
    (root / "classes.txt").write_text("\n".join(["background", *NAMES]))


def yolo(root):
    for part, scene in PARTS.items():
        photograph(root / f"images/{part}/{scene}.jpg")
        rows = [
            " ".join(map(str, [number, *(polygon / (WIDTH, HEIGHT)).ravel()]))
            for number, polygon in zip(LAYERS, SCENES[scene])
        ]
        path = root / f"labels/{part}/{scene}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(reversed(rows)))  # their sizes order them
    names = json.dumps(["background", *NAMES])
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")


def label_studio(root, results_of):
    tasks = []
    for scene in SCENES:
        photograph(root / f"{scene}.jpg")
        results = [
            {"type": f"{kind}labels", "original_width": WIDTH, "original_height": HEIGHT}
            | {"id": str(index), "value": {f"{kind}labels": [name], **value}}
            for index, (kind, name, value) in enumerate(results_of(scene))
        ]
        data = {"image": f"/data/upload/1/{scene}.jpg"}
        tasks.append({"id": scene, "data": data, "annotations": [{"result": results}]})
    (root / "export.json").write_text(json.dumps(tasks))


def label_studio_polygons(root):
    def results(scene):
        for number, polygon in zip(LAYERS, SCENES[scene]):
            points = (polygon / (WIDTH, HEIGHT) * 100).tolist()
            yield "polygon", NAMES[number - 1] if number else "background", {"points": points}

    label_studio(root, results)


def label_studio_brush(root):
    def results(scene):
        for name, mask in objects(scene):
            rgba = np.repeat(255 * mask.astype(np.uint8), 4)
            starts = [0, *np.flatnonzero(np.diff(rgba)) + 1, rgba.size]
            bits = f"{rgba.size:032b}{7:05b}" + f"{15:04b}" * 4  # four lengths of 16 bits
            for start, end in itertools.pairwise(starts):
                bits += f"100{end - start - 1:016b}{rgba[start]:08b}"
            data = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
            yield "brush", name, {"format": "rle", "rle": list(data)}

    label_studio(root, results)


def roboflow(root):
    for part, scene in (("train", "a"), ("valid", "b")):
        photograph(root / part / f"{scene}.jpg")
        save(root / part / f"{scene}_mask.png", MASKS[scene])
        rows = enumerate(["background", *NAMES])
        (root / part / "_classes.csv").write_text(
            "Pixel Value, Class\n" + "".join(f"{value}, {name}\n" for value, name in rows)
        )


def cityscapes(root):
    for part, scene in PARTS.items():
        photograph(root / f"leftImg8bit/{part}/ulm/{scene}_leftImg8bit.png")
        numbers = np.uint8(NUMBERS)[MASKS[scene]]
        save(root / f"gtFine/{part}/ulm/{scene}_gtFine_labelIds.png", numbers)


def cityscapes_instances(root):
    for part, scene in PARTS.items():
        photograph(root / f"leftImg8bit/{part}/ulm/{scene}_leftImg8bit.png")
        numbers = np.array([0, 23, 21, 26_007], np.uint16)[MASKS[scene]]
        save(root / f"gtFine/{part}/ulm/{scene}_gtFine_instanceIds.png", numbers)


def ade20k(root):
    for part, scene in (("training", "a"), ("validation", "b")):
        photograph(root / f"images/{part}/{scene}.jpg")
        save(root / f"annotations/{part}/{scene}.png", MASKS[scene])
    rows = "".join(f"{i}\t0.1\t5\t6\t{name}, x\n" for i, name in enumerate(NAMES, 1))
    (root / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tName\n{rows}")


def folders(root, painted, names="images/{}.jpg masks/{}_mask.png"):
    image, mask = names.split()
    for scene in SCENES:
        photograph(root / image.format(scene))
        save(root / mask.format(scene), painted(MASKS[scene]))


def folders_of_ids(root):
    folders(root, lambda mask: mask)
    (root / "classes.txt").write_text("\n".join(["background", *NAMES]))


def folders_of_colours(root):
    folders(root, lambda mask: np.uint8(COLORS)[mask], "train/x/{}.jpg train/y_mask/{}.png")
    rows = zip(("background", *NAMES), COLORS)
    (root / "class_dict.csv").write_text(
        "name,r,g,b\n" + "".join(f"{name},{r},{g},{b}\n" for name, (r, g, b) in rows)
    )


# The writers, each with its format. Here outlines may belong to shapes, or coordinates be cut to
# whole pixels.
POLYGONS = {
    labelme_polygons: "labelme",
    coco_polygons: "coco",
    roboflow_coco: "coco",
    cvat_polygons: "cvat",
    yolo: "yolo",
    label_studio_polygons: "label-studio",
}
# Those whose pixels are exact.
PIXELS = {
    labelme_masks: "labelme",
    coco_strings: "coco",
    coco_lists: "coco",
    coco_panoptic: "coco",
    cvat_runs: "cvat",
    cvat_masks: "cvat",
    label_studio_brush: "label-studio",
    roboflow: "roboflow",
    cityscapes: "cityscapes",
    cityscapes_instances: "cityscapes",
    ade20k: "ade20k",
    voc: "voc",
    folders_of_ids: "folders",
    folders_of_colours: "folders",
}
