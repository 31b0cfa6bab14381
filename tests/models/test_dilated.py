"""The dilated FCN, against the same network in NumPy and against torchvision's."""

import os
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from fcn_keras.errors import UserError
from fcn_keras.files.torch_weights import read_state_dict
from fcn_keras.inference.folding import fold_batchnorm
from fcn_keras.inference.receptive_field import receptive_field
from fcn_keras.inference.tiling import exact_pieces
from fcn_keras.models.backbones import RESNETS, build_features
from fcn_keras.models.dilation import DilatedConv2D
from fcn_keras.models.fcn import build_fcn, copy_weights, without_auxiliary_head
from fcn_keras.models.torchvision_names import set_torchvision_weights, torchvision_names
from fcn_keras.models.untrusted import check_model_file

CLASSES = 5
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def random_image(height, width):
    return np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)).astype("float32")


def require_close(actual, expected, share):
    assert actual.shape == expected.shape
    assert np.ptp(expected) > 1e-2 or expected.shape[1] == 1
    assert np.abs(np.asarray(actual) - expected).max() <= share * np.abs(expected).max()


class Reference:
    """torchvision's network in NumPy; it makes its weights when they are first needed."""

    def __init__(self, blocks, filters, bottleneck):
        self.blocks, self.filters, self.bottleneck = blocks, filters, bottleneck
        self.state, self.rng = {}, np.random.default_rng(0)
        self(np.zeros((1, 1, 3)))

    def conv(self, x, name, channels, kernel, stride=1, dilation=1):
        shape = (channels, x.shape[-1], kernel, kernel)
        draw = self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype("float32")
        weight = self.state.setdefault(f"{name}.weight", draw)
        edge = dilation * (kernel - 1) // 2
        padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)))
        rows, columns = (-(-size // stride) for size in x.shape[:2])
        total = 0
        for i in range(kernel):
            for j in range(kernel):
                shifted = padded[i * dilation :: stride, j * dilation :: stride]
                total = total + shifted[:rows, :columns] @ weight[:, :, i, j].T
        return total

    def norm(self, x, name):
        ranges = {"weight": (0.5, 1.5), "bias": (-0.3, 0.3)}
        ranges |= {"running_mean": (-0.3, 0.3), "running_var": (0.5, 1.5)}
        for part, bounds in ranges.items():
            draw = self.rng.uniform(*bounds, x.shape[-1]).astype("float32")
            self.state.setdefault(f"{name}.{part}", draw)
        scale, shift, mean, variance = (self.state[f"{name}.{part}"] for part in ranges)
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift

    def block(self, x, name, filters, stride, dilations):
        width = filters * 4 if self.bottleneck else filters
        shortcut = x
        if stride > 1 or x.shape[-1] != width:
            shortcut = self.conv(x, f"{name}.downsample.0", width, 1, stride)
            shortcut = self.norm(shortcut, f"{name}.downsample.1")
        if self.bottleneck:
            steps = [(filters, 1, 1, 1), (filters, 3, stride, dilations[0]), (width, 1, 1, 1)]
        else:
            steps = [(filters, 3, stride, dilations[0]), (filters, 3, 1, dilations[1])]
        for number, step in enumerate(steps, 1):
            x = self.norm(self.conv(x, f"{name}.conv{number}", *step), f"{name}.bn{number}")
            x = x + shortcut if number == len(steps) else x
            x = np.maximum(x, 0)
        return x

    def head(self, x, name):
        """Logits for maps of stride 8."""
        x = self.norm(self.conv(x, f"{name}.0", x.shape[-1] // 4, 3), f"{name}.1")
        bias = self.state.setdefault(f"{name}.4.bias", np.float32(self.rng.normal(size=CLASSES)))
        x = self.conv(np.maximum(x, 0), f"{name}.4", CLASSES, 1) + bias
        for axis in (0, 1):
            size = x.shape[axis]
            places = np.clip((np.arange(8 * size) + 0.5) / 8 - 0.5, 0, size - 1)
            low = np.floor(places).astype(int)
            share = np.expand_dims(places - low, (1 - axis, 2))
            high = np.minimum(low + 1, size - 1)
            x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
        return x

    def __call__(self, image):
        x = (image / 255 - MEAN) / STD
        x = np.maximum(
            self.norm(self.conv(x, "backbone.conv1", self.filters[0], 7, 2), "backbone.bn1"), 0
        )
        rows, columns = (-(-size // 2) for size in x.shape[:2])
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = [padded[i::2, j::2][:rows, :columns] for i in range(3) for j in range(3)]
        x, stages = np.max(windows, axis=0), []
        for stage, (before, after) in enumerate([(1, 1), (1, 1), (1, 2), (2, 4)]):
            for block in range(self.blocks[stage]):
                first = block == 0
                rates = (before if first else after, after)
                name, stride = (
                    f"backbone.layer{stage + 1}.{block}",
                    2 if first and stage == 1 else 1,
                )
                x = self.block(x, name, self.filters[stage], stride, rates)
            stages.append(x)
        logits = self.head(x, "classifier"), self.head(stages[2], "aux_classifier")
        return [value[None, : image.shape[0], : image.shape[1]] for value in logits]


@pytest.fixture(scope="module")
def tiny():
    """The tiny network, and its reference."""
    model = build_fcn("tiny", CLASSES, dilated=True, auxiliary_head=True, weights=None)
    reference = Reference([1, 1, 1, 1], [8, 16, 32, 64], bottleneck=False)
    set_torchvision_weights(model, reference.state, "state")
    assert len(reference.state) == len(torchvision_names(model))
    return model, reference


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (16, 9), (31, 33), (40, 56)])
def test_logits_are_those_of_the_network_in_numpy(tiny, size):
    model, reference = tiny
    image = random_image(*size)
    for actual, expected in zip(model(image), reference(image[0]), strict=True):
        require_close(actual, expected, 1e-4)


@pytest.mark.parametrize("kind", ["basic_block", "bottleneck_block"])
def test_several_blocks_in_numpy(kind):
    blocks, filters = [1, 1, 3, 2], [64, 8, 16, 24]
    backbone = keras_hub.models.ResNetBackbone([64], [7], filters, blocks, [1, 2, 2, 2], kind)
    model = build_fcn(backbone, CLASSES, dilated=True, auxiliary_head=True, weights=None)
    reference = Reference(blocks, filters, kind == "bottleneck_block")
    set_torchvision_weights(model, reference.state, "state")
    image = random_image(33, 48)
    for actual, expected in zip(model(image), reference(image[0]), strict=True):
        require_close(actual, expected, 1e-4)


@pytest.mark.parametrize(
    "name",
    ["tiny", "resnet18", "resnet50"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet34", "resnet101", "resnet152")
    ],
)
def test_every_fourth_value_is_the_strided_networks(name):
    assert len(RESNETS) == 6
    strided, dilated = build_features(name, None), build_features(name, None, dilated=True)
    assert [w.shape for w in strided.weights] == [w.shape for w in dilated.weights]
    dilated.set_weights(strided.get_weights())
    image = random_image(70, 33) / 255
    for step, coarse, fine in zip((1, 2, 4), strided(image), dilated(image), strict=True):
        assert fine.shape[1:3] == (9, 5)
        require_close(fine[:, ::step, ::step], np.array(coarse), 1e-4)


def test_backbone_keeps_given_weights():
    backbone = keras_hub.models.ResNetBackbone(
        [64], [7], [64, 8, 8, 8], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block"
    )
    features = build_features(backbone, dilated=True)
    for layer in backbone.layers:
        for ours, theirs in zip(
            features.get_layer(layer.name).weights if layer.weights else [], layer.weights
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_dilated_convolution_is_keras_own():
    """Values and gradients, for inference and training, with a bias and an activation."""
    options = {"padding": "same", "dilation_rate": (4, 2), "activation": "relu"}
    layers = [kind(24, 3, **options) for kind in (DilatedConv2D, keras.layers.Conv2D)]
    maps = tf.random.stateless_normal((2, 9, 6, 16), (0, 0))
    for layer in layers:
        layer.build(maps.shape)
        layer.set_weights([*layers[0].get_weights()[:1], np.linspace(-1, 1, 24)])
    for training in (False, True):
        results = []
        for layer in layers:
            with tf.GradientTape() as tape:
                tape.watch(maps)
                options = {"training": True} if training and layer is layers[0] else {}
                outputs = layer(maps, **options)
                total = tf.reduce_sum(outputs**2)
            results.append([outputs, *tape.gradient(total, [maps, *layer.trainable_weights])])
        for ours, theirs in zip(*results):
            require_close(ours, np.array(theirs), 1e-5)


def test_trains_where_tensorflow_has_no_dilated_gradient():
    code = """
import numpy as np
from fcn_keras.models.dilation import _has_gradient
from fcn_keras.models.fcn import build_fcn
model = build_fcn("tiny", 3, dilated=True, weights=None)
model.compile("sgd", "mse")
model.train_on_batch(np.ones((2, 40, 40, 3)), np.zeros((2, 40, 40, 3)))
assert not _has_gradient("float32")
"""
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_only_inference_lacks_the_auxiliary_head(tiny, tmp_path):
    model = tiny[0]
    single, image = without_auxiliary_head(model), random_image(20, 30)
    assert not [layer for layer in single.layers if "auxiliary" in layer.name]
    assert without_auxiliary_head(single) is single
    single.save(tmp_path / "model.keras")
    check_model_file(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(image), model(image)[0])


def test_folded_and_in_exact_tiles_it_gives_the_same(tiny):
    model = without_auxiliary_head(tiny[0])
    folded, field = fold_batchnorm(model), receptive_field(model)
    assert not any("_bn" in layer.name for layer in folded.get_layer("backbone").layers)
    assert (field.stride, field.jump) == (8, 1)
    image = random_image(450, 301)[0]
    expected = np.array(model(image[None]))
    require_close(folded.predict_on_batch(image[None]), expected, 1e-5)

    def read(top, left, height, width):
        return image[top : top + height, left : left + width]

    def logits_of(window):
        return folded.predict_on_batch(window[None])[0]

    tile = 2 * field.halo + 40
    assert tile < 301
    tiled = np.full_like(expected, np.nan)
    for top, left, logits in exact_pieces(image.shape[:2], tile, field.halo, 8, read, logits_of):
        tiled[0, top : top + logits.shape[0], left : left + logits.shape[1]] = logits
    require_close(tiled, expected, 1e-5)


def test_weights_of_other_forms_and_classes(tiny):
    strided = build_fcn("tiny", 3, 8, weights=None)
    model = build_fcn("tiny", 3, dilated=True, weights=None)
    assert copy_weights(strided, model) == ["backbone"]
    copy_weights(tiny[0], model, [4, None, 0])
    ours, theirs = (m.get_layer("score_head").kernel for m in (model, tiny[0]))
    np.testing.assert_array_equal(ours[..., 0], theirs[..., 4])
    np.testing.assert_array_equal(ours[..., 2], theirs[..., 0])


def test_mixed_precision_computes_the_head_in_it_and_logits_in_float32():
    model = build_fcn("tiny", 3, dilated=True, weights=None, dtype="mixed_bfloat16")
    assert model.get_layer("head_conv").compute_dtype == "bfloat16"
    assert keras.backend.standardize_dtype(model(random_image(9, 9)).dtype) == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dilated": True, "output_stride": 8}, "no output stride.*output_stride=8"),
        ({"auxiliary_head": True}, "auxiliary_head=True needs dilated=True"),
    ],
)
def test_mistakes_name_the_value(arguments, message):
    with pytest.raises(UserError, match=message):
        build_fcn("tiny", weights=None, **arguments)


def test_other_backbones_are_refused():
    vd = keras_hub.models.ResNetBackbone(
        [8], [3], [64, 8, 8, 8], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block_vd"
    )
    with pytest.raises(UserError, match="needs a ResNet of KerasHub with basic or bottleneck"):
        build_features(vd, dilated=True)


def test_weights_of_another_network_change_nothing(tiny):
    model, reference = tiny
    before = model.get_weights()
    for name, value, message in [
        ("classifier.4.bias", None, "lacks 'classifier.4.bias'"),
        (
            "classifier.4.weight",
            np.zeros((7, 16, 1, 1)),
            r"has the shape \(7, 16, 1, 1\), not \(5,",
        ),
        ("backbone.bn1.bias", np.zeros((8, 1)), r"has the shape \(8, 1\), not \(8,\)"),
        ("backbone.bn1.bias", np.full(8, np.nan), "has values that are not finite"),
    ]:
        state = {key: array * 2 for key, array in reference.state.items()} | {name: value}
        state = {key: array for key, array in state.items() if array is not None}
        with pytest.raises(UserError, match=f"file.pth: .*{message}"):
            set_torchvision_weights(model, state, "file.pth")
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


TORCH_SCRIPT = """
import sys
import numpy as np, torch
from torch.nn import functional
from torchvision.models import segmentation

folder, name = sys.argv[1:]
torch.manual_seed(0)
build = getattr(segmentation, name)
model = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        torch.nn.init.normal_(module.bias, 0, 0.1)
        torch.nn.init.normal_(module.running_mean, 0, 0.1)
        torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
older = name == "fcn_resnet101"  # the form of torchvision's own files
torch.save(model.state_dict(), f"{folder}/model.pth", _use_new_zipfile_serialization=not older)
logits = {}
for name, image in np.load(f"{folder}/images.npz").items():
    x = torch.from_numpy(image)
    with torch.no_grad():
        if image.shape[2] % 8 == image.shape[3] % 8 == 0:
            results = model(x)
        else:  # a pixel's scores stay above it: the resizing is by 8, not to the image's size
            features = model.backbone(x)
            results = {"out": model.classifier(features["out"])}
            results["aux"] = model.aux_classifier(features["aux"])
            results = {
                key: functional.interpolate(value, scale_factor=8, mode="bilinear")
                for key, value in results.items()
            }
    for key, value in results.items():
        logits[f"{name}_{key}"] = value[..., : image.shape[2], : image.shape[3]].numpy()
np.savez(f"{folder}/logits.npz", **logits)
"""


@pytest.mark.slow
@pytest.mark.skipif("TORCH_PYTHON" not in os.environ, reason="TORCH_PYTHON names no Python")
@pytest.mark.parametrize("name", ["fcn_resnet50", "fcn_resnet101"])
def test_logits_are_torchvisions(name, tmp_path):
    """With TORCH_PYTHON, a Python that has torch and torchvision; padding is of ImageNet's mean."""
    images, inputs = {}, {}
    for height, width in [(520, 520), (352, 480), (65, 97), (33, 31), (31, 33), (7, 2), (1, 1)]:
        image = random_image(height, width)
        mean = np.broadcast_to(MEAN * 255, (1, -(-height // 8) * 8, -(-width // 8) * 8, 3))
        padded = mean.astype("float32")
        padded[:, :height, :width] = image
        for kind, value in {"plain": image, "padded": padded}.items():
            images[f"{kind}_{height}x{width}"] = value
            scaled = (value / 255 - MEAN) / STD
            inputs[f"{kind}_{height}x{width}"] = scaled.transpose(0, 3, 1, 2).astype("float32")
    np.savez(tmp_path / "images.npz", **inputs)
    command = [os.environ["TORCH_PYTHON"], "-c", TORCH_SCRIPT, str(tmp_path), name]
    subprocess.run(command, check=True)
    backbone = name.removeprefix("fcn_")
    model = build_fcn(backbone, 21, dilated=True, auxiliary_head=True, weights=None)
    state = read_state_dict(tmp_path / "model.pth")
    counts = {name for name in state if name.endswith("num_batches_tracked")}
    assert set(torchvision_names(model)) == set(state) - counts
    set_torchvision_weights(model, state, "model.pth")
    theirs = np.load(tmp_path / "logits.npz")
    for size, image in images.items():
        for key, ours in zip(("out", "aux"), model(image), strict=True):
            require_close(ours, theirs[f"{size}_{key}"].transpose(0, 2, 3, 1), 1e-3)
