"""The classes and colours of PASCAL VOC 2012."""

from __future__ import annotations

from fcn_keras.data.split import LabelSet, voc_palette

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


VOC_COLORMAP = voc_palette(len(VOC_CLASSES))


VOC_LABELS = LabelSet(VOC_CLASSES, VOC_COLORMAP)
