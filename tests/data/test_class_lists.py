"""Class lists as other programs write them."""

import json

import pytest

from fcn_keras.data.class_lists import parse_class_list
from fcn_keras.data.split import voc_palette
from fcn_keras.errors import UserError

NAMES = ("background", "traffic light", "box-2")
COLORS = ((0, 0, 0), (1, 20, 255), (7, 7, 8))
VOC = voc_palette(3)
CVAT = "# label:color_rgb:parts:actions\n"
FORMS = {
    "ours": ("background\ntraffic light\nbox-2\n", VOC),
    "with a comment": ("# classes\nbackground\n\ntraffic light\n # more\nbox-2", VOC),
    "with colours": ("background\t0 0 0\ntraffic light\t1 20 255\nbox-2\t7,7,8", COLORS),
    "labelmap.txt": (
        CVAT + "background:0,0,0::\ntraffic light:1,20,255::\nbox-2:7,7,8:a,b:run\n",
        COLORS,
    ),
    "label colours in tabs": (
        "background\t0\t0\t0\ntraffic light\t1\t20\t255\nbox-2\t7\t7\t8",
        COLORS,
    ),
    "titles in another order": (
        "ID;B;G;R;Klasse\n0;0;0;0;background\n2;8;7;7;box-2\n1;255;20;1;traffic light",
        COLORS,
    ),
    "titles in another language": (
        "nom,rouge,vert,bleu\nbackground,0,0,0\ntraffic light,1,20,255\nbox-2,7,7,8",
        COLORS,
    ),
    "id before the colour": (
        "name,id,r,g,b\nbackground,0,0,0,0\ntraffic light,1,1,20,255\nbox-2,2,7,7,8",
        COLORS,
    ),
    "id after the colour": (
        "r,g,b,id,name\n0,0,0,0,background\n1,20,255,1,traffic light\n7,7,8,2,box-2",
        COLORS,
    ),
    "with opacity": (
        "name,r,g,b,a\nbackground,0,0,0,0\ntraffic light,1,20,255,255\nbox-2,7,7,8,255",
        COLORS,
    ),
    "opaque": ("background 0 0 0 255\ntraffic light 1 20 255 255\nbox-2 7 7 8 255", COLORS),
    "id, name and colour": ("0 background 0 0 0\n1 traffic light 1 20 255\n2 box-2 7 7 8", COLORS),
    "name and colour in brackets": (
        "background (0, 0, 0)\ntraffic light (1, 20, 255)\nbox-2 (7, 7, 8)",
        COLORS,
    ),
    "CARLA's": (
        "Value\tTag\tColor\n0\tbackground\t(0, 0, 0)\n1\ttraffic light\t(1, 20, 255)\n"
        "2\tbox-2\t(7, 7, 8)",
        COLORS,
    ),
    "hexadecimal colours": ("#000000 background\n#0114ff traffic light\n#070708 box-2", COLORS),
    "hexadecimal after a comma": (
        "name,color\nbackground,#000000\ntraffic light,#0114FF\nbox-2,#070708",
        COLORS,
    ),
    "comments behind names": ("background # 0\ntraffic light # 1\nbox-2", VOC),
    "commas behind names": ("background,\ntraffic light,\nbox-2,\n", VOC),
    "a workbook's empty columns": (
        "name,r,g,b,,\nbackground,0,0,0,,\ntraffic light,1,20,255,,\nbox-2,7,7,8,,\n",
        COLORS,
    ),
    "YAML, names to colours": (
        "background:\n  - 0\n  - 0\n  - 0\ntraffic light: [1, 20, 255]\nbox-2: [7, 7, 8]\n",
        COLORS,
    ),
    "YAML of classes": (
        "version: 1\nclasses:\n  - background\n  - traffic light\n  - box-2\n",
        VOC,
    ),
    "JSON, names to colours": (json.dumps(dict(zip(NAMES, COLORS))), COLORS),
    "JSON of Supervisely": (
        json.dumps(
            {
                "classes": [
                    {
                        "title": name,
                        "shape": "bitmap",
                        "color": "#{:02x}{:02X}{:02x}".format(*color),
                    }
                    for name, color in zip(NAMES, COLORS)
                ],
                "tags": [],
            }
        ),
        COLORS,
    ),
    "JSON of Hugging Face": (
        json.dumps({"id2label": dict(enumerate(NAMES)), "label2id": {}}),
        VOC,
    ),
    "labelmap.txt without colours": (
        "background:::\ntraffic light:1,20,255::\nbox-2:7,7,8::\n",
        COLORS,
    ),
    "class_dict.csv": (
        "name,r,g,b\r\nbackground,0,0,0\r\ntraffic light,1,20,255\r\nbox-2,7,7,8\r\n",
        COLORS,
    ),
    "without a header": ("background,0,0,0\ntraffic light, 1, 20, 255\nbox-2,7,7,8", COLORS),
    "semicolons": ("Name;R;G;B\nbackground;0;0;0\ntraffic light;1;20;255\nbox-2;7;7;8", COLORS),
    "quoted": ('"background",0,0,0\n"traffic light",1,20,255\n"box-2",7,7,8', COLORS),
    "with ids": (
        "id,name,r,g,b\n1,traffic light,1,20,255\n0,background,0,0,0\n2,box-2,7,7,8",
        COLORS,
    ),
    "label_colors.txt": ("0 0 0\tbackground\n1 20 255\ttraffic light\n7 7 8 box-2", COLORS),
    "_classes.csv": ("Pixel Value, Class\n0, background\n1, traffic light\n2, box-2", VOC),
    "id and name": ("0 background\n2 box-2\n1 traffic light", VOC),
    "id: name": ("0: background\n1: traffic light\n2: box-2", VOC),
    "name,id": ("class,id\nbackground,0\nbox-2,2\ntraffic light,1", VOC),
    "YAML": ("path: .\ntrain: a\nnames:\n  0: background\n  1: traffic light\n  2: box-2\n", VOC),
    "YAML in one line": ("nc: 3\nnames: ['background', \"traffic light\", box-2]  # 3\n", VOC),
    "a list in YAML": ("- background\n- traffic light\n- box-2\n", VOC),
    "JSON": (json.dumps(NAMES), VOC),
    "JSON, ids to names": ('{"0": "background", "2": "box-2", "1": "traffic light"}', VOC),
    "JSON, names to ids": ('{"background": 0, "box-2": 2, "traffic light": 1}', VOC),
    "JSON of objects": (
        json.dumps({"classes": [{"name": n, "color": c} for n, c in zip(NAMES, COLORS)]}),
        COLORS,
    ),
    "JSON of COCO": (
        json.dumps({"categories": [{"id": i, "name": NAMES[i]} for i in (2, 0, 1)], "images": []}),
        VOC,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_lists_of_other_programs_are_read(form):
    text, colors = FORMS[form]
    labels = parse_class_list(text, "list")
    assert labels.names == NAMES
    assert labels.palette == colors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class\nsky\ntree\n", "list:1: 'class' looks like a title"),
        ("Class Name\nsky\ntree\n", "list:1: 'Class Name' looks like a title"),
        ("name,r,g,b\nsky,1,2,3\ntree\nsea,3,4,5", "list:3: not of the form 'name,r,g,b'"),
        ("id,name,kind\n0,sky,stuff\n1,tree,thing\n", "list: a table of an unknown form"),
        ("name,id,trainId,color\nsky,0,255,0 0 0\ntree,1,0,1 2 3", "a table of an unknown form"),
        ("0 0 0 0 0 sky\n1 1 1 1 1 tree", "a table of an unknown form"),
        ("traffic light\n1 sky\n2 tree", "list:1: not of the form 'id,name'"),
        ("sky,tree,sea", "a table of an unknown form"),
        ("| 0 | sky |\n| 1 | tree |\n", "a table in Markdown"),
        ("Category\nsky\ntree\n", "list:1: 'Category' looks like a title"),
        ("sky 1 2 3\ntree\n", "list:1: put a tab between name and colour"),
        ("sky\t1 2 3\ntree\t1 2 3\n", "list:2: tree has the colour 1 2 3, as sky has. Colours"),
        ("sky\t128 0 0\ntree\n", "list:2: tree has the colour 128 0 0, as sky has, by default"),
        ("1 sky\n2 tree\n", "list: ids must be 0 to 1, each once, and 'sky' has 1"),
        ("0,sky\n1,tree\n1,sea\n", "list:2: ids must be 0 to 254, each once"),
        ('[{"name": "sky", "id": 0}, {"name": "tree"}]', "ids must be .* 'tree' has none"),
        ("sky,1,2,300\n", "list:1: a colour is"),
        ("<annotations>\n", "list: XML"),
        ("item {\n  name: 'sky'\n}\n", "list: TensorFlow's label map"),
        ("# map\nitem {\n  name: 'sky'\n}\n", "list: TensorFlow's label map"),
        ("{", "list: not a list of classes in JSON"),
        ('{"names": 7}', "neither a list nor an object"),
        ('[["sky"]]', "a name is not a text"),
        ('{"sky": true}', "list: not a list of classes in JSON"),
        ("names: [", "list: not readable as YAML"),
        ("names:\n  - &a [*a]\n", "recursive"),
        ("[" * 100_000, "nested too deeply"),
        ("names: " + "[" * 10_000, "nested too deeply"),
        ("names:\n  - &a [b]\n  - *a\n", "a name is not a text"),
        ("", "Received: 0 classes"),
        ("# nothing", "Received: 0 classes"),
    ],
)
def test_other_lists_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_class_list(text, "list")


@pytest.mark.parametrize(
    "names",
    [
        ("red", "green", "blue"),
        ("wall", "building, edifice", "sky"),
        ("background", "3 wheeler"),
        ("background", "class 1", "class 2"),
        ("0", "1", "7"),
        ("name",),
    ],
)
def test_odd_names_are_no_other_form(names):
    assert parse_class_list("\n".join(names), "list").names == names


def test_names_in_yaml_stay_as_they_are():
    assert parse_class_list("names: [no, yes, 1.0]", "list").names == ("no", "yes", "1.0")


@pytest.mark.parametrize("piece", ["a", " ", "1", "1 ", "a,", "a:", "1,", '"', "- ", "{", "a "])
def test_a_line_of_a_megabyte_takes_no_time(piece):
    with pytest.raises(UserError):
        parse_class_list("x" + piece * (2**20 // len(piece)) + "x\n" + piece * 2**10, "list")
