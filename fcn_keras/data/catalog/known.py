"""Data sets of TFDS whose masks hold something else than class ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fcn_keras.data.conversion import cityscapes
from fcn_keras.data.split import IGNORE_ID, LabelSet

# The Places Challenge 2017's instanceInfo100: the objects numbered 1 to 100.
_OBJECTS = """\
bed,windowpane,cabinet,person,door,table,curtain,chair,car,painting,sofa,shelf,mirror,armchair,
seat,fence,desk,wardrobe,lamp,bathtub,railing,cushion,box,column,signboard,chest of drawers,
counter,sink,fireplace,refrigerator,stairs,case,pool table,pillow,screen door,bookcase,
coffee table,toilet,flower,book,bench,countertop,stove,palm,kitchen island,computer,swivel chair,
boat,arcade machine,bus,towel,light,truck,chandelier,awning,streetlight,booth,
television receiver,airplane,apparel,pole,bannister,ottoman,bottle,van,ship,fountain,washer,
plaything,stool,barrel,basket,bag,minibike,oven,ball,food,step,trade name,microwave,pot,animal,
bicycle,dishwasher,screen,sculpture,hood,sconce,vase,traffic light,tray,ashcan,fan,plate,monitor,
bulletin board,radiator,glass,clock,flag"""


@dataclasses.dataclass(frozen=True)
class Known:
    """What the features of a data set mean.

    Args:
        image: The feature that is the photograph.
        mask: The feature that is the mask; of three channels the first counts.
        labels: The classes.
        ids: The class id of each value of the mask.
        note: What a person should know.
    """

    image: str
    mask: str
    labels: LabelSet
    ids: Mapping[int, int]
    note: str = ""


def _cityscapes() -> Known:
    numbers, names, colors = zip(*cityscapes.CLASSES)
    # 255 is the licence plates' number -1.
    ids = dict.fromkeys((*range(cityscapes.NUMBERS), 255), IGNORE_ID)
    ids |= {number: class_id for class_id, number in enumerate(numbers)}
    return Known("image_left", "segmentation_label", LabelSet(names, colors), ids)


KNOWN = {
    "cityscapes": _cityscapes(),
    # Trimaps: the pet, the rest, and the border between both.
    "oxford_iiit_pet": Known(
        "image", "segmentation_mask", LabelSet(("background", "pet")), {1: 1, 2: 0, 3: IGNORE_ID}
    ),
    # TFDS downloads annotations_instance.tar: red is the object's class, green its number.
    "scene_parse150": Known(
        "image",
        "annotation",
        LabelSet(("background", *"".join(_OBJECTS.splitlines()).split(","))),
        {number: number for number in range(101)},
        "TFDS's scene_parse150 has the Places Challenge's 100 objects, not SceneParsing's 150 "
        "classes. For these, see data convert --format ade20k.",
    ),
}
