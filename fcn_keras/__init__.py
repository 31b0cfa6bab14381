"""Fully convolutional networks for semantic segmentation, in Keras 3.

Importing this package alone imports neither TensorFlow nor Keras; the names
below are loaded when they are first used.
"""

import importlib

__version__ = "0.2.0"

_HOMES = {
    "BilinearInitializer": "fcn_keras.models.upsampling",
    "LabelSet": "fcn_keras.data.split",
    "Segmenter": "fcn_keras.inference.segmenter",
    "TrainConfig": "fcn_keras.runs.config",
    "UserError": "fcn_keras.errors",
    "VOC_CLASSES": "fcn_keras.data.voc.labels",
    "VOC_COLORMAP": "fcn_keras.data.voc.labels",
    "build_fcn": "fcn_keras.models.fcn",
    "evaluate": "fcn_keras.evaluation.scores",
    "load_model": "fcn_keras.inference.loading",
    "load_split": "fcn_keras.data",
    "resume": "fcn_keras.training.train",
    "train": "fcn_keras.training.train",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'fcn_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted([*globals(), *_HOMES])
