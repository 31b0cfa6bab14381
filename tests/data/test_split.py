import numpy as np
import pytest
from PIL import Image

from fcn_keras.data.split import LabelSet, Split, drop_smaller, resized, voc_palette
from fcn_keras.errors import UserError
from fcn_keras.files.images import resized_size


def test_palette_follows_the_devkit():
    palette = voc_palette()
    assert len(set(palette)) == len(palette) == 256
    # From VOC's devkit documentation: aeroplane, bicycle, tvmonitor, void.
    assert [palette[i] for i in (1, 2, 20, 255)] == [
        (128, 0, 0),
        (0, 128, 0),
        (0, 64, 128),
        (224, 224, 192),
    ]


def test_colors_of_all_bytes():
    labels = LabelSet(("a", "b"), ((1, 2, 3), (4, 5, 6)))
    colors = labels.colors()
    assert colors.dtype == np.uint8 and colors.shape == (256, 3)
    assert colors[:2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert colors[255].tolist() == [224, 224, 192]


def test_label_set_from_json_is_the_same():
    labels = LabelSet(("a", "b"), ((1, 2, 3), (4, 5, 6)))
    assert LabelSet(["a", "b"], [[1, 2, 3], [4, 5, 6]]) == labels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([()], "Received: 0 classes"),
        ([[str(i) for i in range(256)]], "Received: 256 classes"),
        ([("a", "b", "a")], r"more than once: \['a'\]"),
        ([("a", "b"), ((0, 0, 0),)], "Received: 1 colours for 2 classes"),
        (["ab"], "must be a list of strings"),
        ([("a", 1)], "must be a list of strings"),
        ([("a", " ")], "none empty"),
        ([("a", "b\x1b[2J")], "control characters"),
        ([("a", "\ud800")], "none empty or with control characters"),
        ([("a",), ((0, 0, 256),)], "three integers in 0..255"),
        ([("a",), ((0, 0, "1"),)], "three integers in 0..255"),
        ([("a",), ((0, 0, 0.5),)], "three integers in 0..255"),
        ([("a",), ((0, 0),)], "three integers in 0..255"),
        ([("a",), 7], "a list of colours"),
        ([("a", "b"), (), 1], "The ignore id must be in 2..255"),
        ([("a", "b"), (), "255"], "The ignore id must be in 2..255"),
    ],
)
def test_impossible_label_sets(arguments, message):
    with pytest.raises(UserError, match=message):
        LabelSet(*arguments)


def test_255_classes_fit():
    assert len(LabelSet(tuple(map(str, range(255))))) == 255


def test_select_and_take():
    split = Split("train", LabelSet(("a",)), ("x", "y", "z"), read=lambda index: index * 10)
    chosen = split.select([2, 0])
    assert chosen.ids == ("z", "x") and [chosen.read(0), chosen.read(1)] == [20, 0]
    assert chosen.take(1).ids == ("z",) and chosen.take(9).ids == ("z", "x")
    assert chosen.take(1).read(0) == 20


def test_masks_are_read_alone_where_a_split_can_do_so():
    def read(index):
        return "image", f"mask {index}"

    split = Split("train", LabelSet(("a",)), ("x", "y", "z"), read)
    fast = Split("train", LabelSet(("a",)), ("x", "y", "z"), read, "mask {} alone".format)
    assert (split.mask(1), fast.mask(1)) == ("mask 1", "mask 1 alone")
    for each, end in ((split, ""), (fast, " alone")):
        assert each.select([2, 0]).mask(0) == f"mask 2{end}"
        assert each.select([2, 0]).take(1).mask(0) == f"mask 2{end}"


def test_drop_smaller():
    sizes = [(8, 8), (7, 9), (9, 8), (8, 7)]
    split = Split(
        "train",
        LabelSet(("a",)),
        ("0", "1", "2", "3"),
        lambda i: (np.zeros((*sizes[i], 3), np.uint8), np.zeros(sizes[i], np.uint8)),
    )
    assert drop_smaller(split, (8, 8)).ids == ("0", "2")
    with pytest.raises(UserError, match="as large as the crop 10×10"):
        drop_smaller(split, (10, 10))


@pytest.mark.parametrize("size", [(20, 30), (30, 20)])
def test_resized_examples_have_the_short_side_and_known_ids(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    row = np.where(np.arange(size[1]) < size[1] // 2, 3, 255).astype(np.uint8)
    example = image, row[None].repeat(size[0], 0)
    split = Split("train", LabelSet(tuple("abcd")), ("x",), lambda _: example)
    seen, ids = resized(split, 10).read(0)
    width, height = resized_size(size[1], size[0], 10)
    assert seen.shape == (height, width, 3) and ids.shape == (height, width)
    assert min(height, width) == 10
    expected = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(seen, expected)
    assert set(np.unique(ids)) == {3, 255}
    assert (ids[:, : width // 2 - 1] == 3).all() and (ids[:, width // 2 + 1 :] == 255).all()
