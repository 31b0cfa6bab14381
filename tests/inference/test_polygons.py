"""Outlines of regions, filled again by the rules of labelme (Pillow) and of pycocotools."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fcn_keras.data.split import LabelSet
from fcn_keras.inference.annotations import coco_part, labelme_file
from fcn_keras.inference.polygons import MOST, SMALLEST, regions_of

LABELS = LabelSet(("background", "a", "b", "c"))
LABELME_NAMES = ["_background_", "a", "b", "c"]


def filled_by_labelme(mask, labels=LABELS):
    """`shapes_to_label` of labelme 6.3."""
    content = json.loads(labelme_file(mask, labels, "x.jpg"))
    height, width = content["imageHeight"], content["imageWidth"]
    ids = np.zeros((height, width), np.uint8)
    for shape in content["shapes"]:
        assert shape["shape_type"] == "polygon" and len(shape["points"]) > 2
        image = Image.new("L", (width, height))
        points = list(map(tuple, shape["points"]))
        ImageDraw.Draw(image).polygon(points, outline=1, fill=1)
        ids[np.array(image, bool)] = LABELME_NAMES.index(shape["label"])
    return ids


def filled_by_coco(mask, labels=LABELS):
    """What pycocotools makes of each object; no two may share a pixel."""
    pycocotools = pytest.importorskip("pycocotools.mask")
    ids, times = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, int)
    for entry in json.loads(coco_part(mask, labels))["objects"]:
        rle = pycocotools.merge(pycocotools.frPyObjects(entry["segmentation"], *mask.shape))
        inside = pycocotools.decode(rle).astype(bool)
        ids[inside] = labels.names.index(entry["class"])
        times += inside
        assert entry["area"] == pytest.approx(inside.sum(), rel=0.03, abs=1)
        assert entry["bbox"] == pytest.approx(list(pycocotools.toBbox(rle)), abs=3)
    assert times.max() <= 1
    return ids


FILLED = {"labelme": filled_by_labelme, "coco": filled_by_coco}


def spiral():
    mask, x, y, dx, dy = np.zeros((41, 41), np.uint8), 0, 0, 1, 0
    for _ in range(860):
        mask[y, x] = 1
        ahead = [(x + n * dx, y + n * dy) for n in (1, 2)]
        if not 0 <= ahead[0][0] < 41 or not 0 <= ahead[0][1] < 41:
            dx, dy = -dy, dx
        elif 0 <= ahead[1][0] < 41 and 0 <= ahead[1][1] < 41 and mask[ahead[1][::-1]]:
            dx, dy = -dy, dx
        x, y = x + dx, y + dy
    return mask


def nested_rings():
    y, x = np.mgrid[:60, :50]
    depth = np.minimum(np.minimum(y, 59 - y), np.minimum(x, 49 - x))
    return np.where(depth < 20, depth % 4, 1).astype(np.uint8)


def checkerboard():
    return np.kron(np.add.outer(np.arange(8), np.arange(9)) % 2, np.ones((4, 4))).astype(np.uint8)


def comb():
    mask = np.zeros((20, 31), np.uint8)
    mask[:, ::2], mask[-1] = 2, 2
    return mask


def ring_open_at_a_corner():
    mask = np.full((30, 30), 2, np.uint8)
    mask[5:25, 5:25] = 1
    mask[10:20, 10:20] = 0
    mask[20:25, 20:25] = 2  # the hole and the outside touch
    return mask


MASKS = {
    "spiral": spiral(),
    "nested rings": nested_rings(),
    "checkerboard": checkerboard(),
    "comb": comb(),
    "ring open at a corner": ring_open_at_a_corner(),
    "one class": np.full((30, 40), 3, np.uint8),
    "background alone": np.zeros((30, 40), np.uint8),
    "one pixel": np.full((1, 1), 2, np.uint8),
    "a row": np.repeat(np.uint8([1, 0, 2]), 16)[None],
    "a column": np.repeat(np.uint8([1, 0, 2]), 16)[:, None],
    "two diagonal lines": np.kron(np.eye(9, dtype=np.uint8), np.ones((1, 16), np.uint8)),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("program", FILLED)
def test_outlines_give_the_mask_back(program, name):
    np.testing.assert_array_equal(FILLED[program](MASKS[name]), MASKS[name])


@pytest.mark.parametrize("program", FILLED)
def test_random_masks_without_small_regions_come_back(program):
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width = generator.integers(1, 10, 2)
        cells = generator.integers(0, generator.integers(1, 5), (height, width))
        mask = np.kron(cells, np.ones((4, 4))).astype(np.uint8)
        np.testing.assert_array_equal(FILLED[program](mask), mask)


def smooth_mask(height, width, cell, seed):
    """Classes by the largest of four random fields, as soft as a network's."""
    fields = np.random.default_rng(seed).standard_normal((4, height // cell, width // cell))
    images = [Image.fromarray(field.astype(np.float32)) for field in fields]
    resized = [image.resize((width, height), Image.Resampling.BICUBIC) for image in images]
    return np.argmax(resized, axis=0).astype(np.uint8)


@pytest.mark.parametrize("program", FILLED)
@pytest.mark.parametrize("cell", [12, 40, 150])
def test_simplified_outlines_keep_98_percent_of_each_class(program, cell):
    for seed in range(4):
        mask = smooth_mask(480, 640, cell, seed)
        found = FILLED[program](mask)
        for class_id in range(4):
            union = (mask == class_id) | (found == class_id)
            assert ((mask == class_id) & (found == class_id)).sum() >= 0.98 * union.sum()


def test_large_smooth_regions_have_few_points_and_straight_lines_two():
    y, x = np.mgrid[:400, :400]
    disc = ((x - 200) ** 2 + (y - 190) ** 2 < 150**2).astype(np.uint8)
    [shape] = json.loads(labelme_file(disc, LABELS, "x.jpg"))["shapes"]
    assert 20 < len(shape["points"]) < 60
    for rise, run in ((1, 3), (2, 3), (1, 1), (7, 31), (-3, 2)):
        mask = ((y - 200) * run > (x - 200) * rise).astype(np.uint8)
        [shape] = json.loads(labelme_file(mask, LABELS, "x.jpg"))["shapes"]
        assert len(shape["points"]) <= 9
        assert (filled_by_labelme(mask) != mask).sum() <= 400  # pixels along the line


@pytest.mark.parametrize("program", FILLED)
def test_no_gap_opens_where_classes_meet(program):
    """Three sectors of a disc on the background, which would show between them."""
    y, x = np.mgrid[:300, :300] - 150
    sectors = 1 + np.floor((np.arctan2(y, x) + np.pi) / (2.1 * np.pi) * 3).astype(np.uint8)
    mask = np.where(np.hypot(x, y) < 140, sectors, 0).astype(np.uint8)
    assert len(np.unique(mask)) == 4
    found = FILLED[program](mask)
    inside = np.hypot(x, y) < 137
    assert (found[inside] == 0).sum() <= 3 and (found != mask).mean() < 0.005


def test_small_regions_take_the_class_of_their_largest_neighbour():
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 1
    mask[10:13, 18:23] = 2  # 15 pixels
    mask[20:24, 28:32] = 2  # 16 pixels
    mask[30, 3] = 3
    expected = mask.copy()
    expected[30, 3] = 0
    expected[10:13, 18:23] = 1  # which has 782 of the 1600 pixels; the background 791
    assert SMALLEST == 16
    found = filled_by_labelme(mask)
    expected[10:13, 18:23] = found[10, 18]
    assert found[10, 18] == (0 if (mask == 0).sum() > (mask == 1).sum() else 1)
    np.testing.assert_array_equal(found, expected)


def test_noise_has_a_limited_number_of_regions():
    noise = np.random.default_rng(0).integers(0, 4, (700, 900)).astype(np.uint8)
    assert 1 < len(regions_of(noise)) <= MOST
    cells = np.kron(noise[:120, :120], np.ones((5, 5), np.uint8))
    assert 1 < len(regions_of(cells)) <= MOST


def test_background_has_a_shape_only_within_others():
    mask = np.zeros((60, 60), np.uint8)
    mask[5:55, 5:55] = 1
    mask[10:50, 10:50] = 0
    mask[20:40, 20:40] = 2
    shapes = json.loads(labelme_file(mask, LABELS, "x.jpg"))["shapes"]
    assert [shape["label"] for shape in shapes] == ["a", "_background_", "b"]
    objects = json.loads(coco_part(mask, LABELS))["objects"]
    assert [entry["class"] for entry in objects] == ["a", "b"]
    assert objects[0]["area"] == 50 * 50 - 40 * 40 and len(objects[0]["segmentation"]) == 1


def test_without_a_background_every_pixel_has_a_shape():
    labels = LabelSet(("sky", "road"))
    mask = np.zeros((20, 20), np.uint8)
    mask[10:] = 1
    shapes = json.loads(labelme_file(mask, labels, "x.jpg"))["shapes"]
    assert sorted(shape["label"] for shape in shapes) == ["road", "sky"]
    assert len(json.loads(coco_part(mask, labels))["objects"]) == 2
