import os
import socket
import time

import keras
import keras_hub
import numpy as np
import pytest

from fcn_keras.errors import UserError
from fcn_keras.models.backbones import RESNETS, build_features


@pytest.mark.parametrize("name", RESNETS)
def test_features_have_their_strides(name):
    features = build_features(name, None)
    channels = {"resnet18": 512, "resnet34": 512, "tiny": 64}.get(name, 2048) // 4
    shapes = [output.shape for output in features.outputs]
    assert [shape[-1] for shape in shapes] == [channels, channels * 2, channels * 4]
    image = np.random.default_rng(0).normal(size=(1, 70, 33, 3)).astype("float32")
    sizes = [tuple(output.shape[1:3]) for output in features(image)]
    assert sizes == [(9, 5), (5, 3), (3, 2)]  # ceil(70 / s), ceil(33 / s)


def test_local_keras_preset_gives_its_weights(tmp_path):
    source = keras_hub.models.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [2, 2, 2, 2], [1, 2, 2, 2], "basic_block"
    )
    source.save_to_preset(str(tmp_path / "preset"))
    loaded = build_features("resnet18", str(tmp_path / "preset"))
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(source(image), loaded(image)[-1], atol=1e-5)

    with pytest.raises(UserError, match="belong to a network other than resnet34"):
        build_features("resnet34", str(tmp_path / "preset"))


def test_ready_backbone_keeps_its_weights():
    backbone = keras_hub.models.ResNetBackbone(
        [64], [7], [64, 8, 8, 8], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block"
    )
    features = build_features(backbone)
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(backbone(image), features(image)[-1])


def test_backbone_without_pyramid_is_refused():
    inputs = keras.Input((None, None, 3))
    plain = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(UserError, match="strides 8, 16 and 32"):
        build_features(plain)


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("resnet19", None, "backbone must be one of resnet18"),
        ("resnet34", "imagenet", "no ImageNet weights for resnet34"),
        ("tiny", "imagenet", "tiny has random weights only"),
        ("resnet18", "no/such/folder", "which is none of these"),
    ],
)
def test_mistakes_name_the_value(backbone, weights, message):
    with pytest.raises(UserError, match=message):
        build_features(backbone, weights)


def test_directory_without_preset_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        build_features("resnet18", str(tmp_path))


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("weights", ["imagenet", "hf://timm/resnet18.tv_in1k"])
def test_unreachable_weights_fail_soon_with_a_remedy(weights, silent, monkeypatch, tmp_path):
    # A port that refuses, or takes connections and is silent, through the proxy settings that
    # both clients honour.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        start = time.monotonic()
        with pytest.raises(UserError) as error:
            build_features("resnet18", weights)
        assert time.monotonic() - start < 30  # the promised bound on failing
        assert os.environ["HTTPS_PROXY"] == proxy
    assert "--weights none" in str(error.value)
    assert "save_to_preset" in str(error.value)
