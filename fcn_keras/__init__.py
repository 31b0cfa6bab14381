"""Fully convolutional networks for semantic segmentation, in Keras 3.

Importing this package alone imports neither TensorFlow nor Keras; the names
below are loaded when they are first used.
"""

import importlib
import importlib.abc
import importlib.util
import sys

__version__ = "0.1.0"

_HOMES = {
    "BilinearInitializer": "fcn_keras.models.upsampling",
    "LabelSet": "fcn_keras.datasets.base",
    "Segmenter": "fcn_keras.prediction",
    "TrainConfig": "fcn_keras.config",
    "UserError": "fcn_keras.errors",
    "VOC_CLASSES": "fcn_keras.datasets.voc",
    "VOC_COLORMAP": "fcn_keras.datasets.voc",
    "build_fcn": "fcn_keras.models.fcn",
    "evaluate": "fcn_keras.evaluation",
    "load_split": "fcn_keras.datasets",
    "resume": "fcn_keras.training",
    "train": "fcn_keras.training",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'fcn_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted([*globals(), *_HOMES])


def _register():
    modules = ("models.block_upsampling", "models.normalization", "models.upsampling")
    for module in (*modules, "objectives", "schedules"):
        importlib.import_module(f"fcn_keras.{module}")


class _RegisterWithKeras(importlib.abc.MetaPathFinder):
    """Imports our layers as soon as Keras is imported.

    Keras loads a `.keras` file only after the classes in it were registered, so
    `import fcn_keras` has to do so, although it does not import Keras itself.
    """

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        # TensorFlow looks Keras up long before it imports it.
        sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        exec_keras = spec.loader.exec_module

        def exec_and_register(module):
            sys.meta_path.remove(self)
            exec_keras(module)
            _register()

        spec.loader.exec_module = exec_and_register
        return spec


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _RegisterWithKeras())
