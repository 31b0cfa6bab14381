import subprocess
import sys

import keras
import numpy as np
import pytest

from fcn_keras.errors import UserError
from fcn_keras.models.fcn import IMAGENET_MEAN, IMAGENET_STD, build_fcn, copy_weights

SIZES = [(1, 1), (31, 33), (320, 480), (375, 500), (500, 334)]


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype("float32")


@pytest.fixture(scope="module")
def models():
    return {
        stride: build_fcn("resnet18", 5, stride, weights=None, fused_batchnorm=stride == 8)
        for stride in (32, 16, 8)
    }


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", SIZES)
def test_logits_have_the_images_size(models, stride, size):
    logits = models[stride](random_image(*size))
    assert logits.shape == (1, *size, 5)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.isfinite(logits).all()


def test_image_is_standardised_by_channel(models):
    image = random_image(4, 4)
    normalised = models[32].get_layer("normalization")(image)
    np.testing.assert_allclose(
        normalised, (image - IMAGENET_MEAN) / IMAGENET_STD, rtol=1e-5, atol=1e-5
    )


def test_bytes_and_floats_give_the_same(models):
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), np.uint8)
    as_float = models[32](image.astype("float32"))
    np.testing.assert_array_equal(models[32](image), as_float)


def test_skips_change_the_logits(models):
    """Zeroing what a skip adds must change the output, which shows that the skip is connected."""
    image = random_image(64, 96)
    for stride in (16, 8):
        before = np.array(models[stride](image))
        layer = models[stride].get_layer(f"score_{stride}")
        kept = layer.get_weights()
        layer.set_weights([np.zeros_like(value) for value in kept])
        assert np.abs(models[stride](image) - before).max() > 1e-3
        layer.set_weights(kept)


def test_scores_are_xavier_and_upsampling_is_bilinear(models):
    kernel = np.asarray(models[8].get_layer("score_32").kernel)
    limit = np.sqrt(6 / (512 + 5))  # Glorot and Bengio 2010: sqrt(6 / (fan in + fan out))
    assert 0.9 * limit < np.abs(kernel).max() <= limit
    upsampling = np.asarray(models[8].get_layer("upscore_8").kernel)
    assert upsampling.shape == (16, 16, 5, 5)
    np.testing.assert_allclose(upsampling[0, :, 0, 0].sum(), 8 / 16)  # 1/16 times sum 8
    assert not upsampling[:, :, 0, 1].any()


def test_upsampling_can_be_xavier_or_fixed():
    model = build_fcn(
        "tiny",
        3,
        weights=None,
        upsampling_initializer="glorot_uniform",
        trainable_upsampling=False,
    )
    layer = model.get_layer("upscore_32")
    assert np.asarray(layer.kernel)[:, :, 0, 1].any()
    assert not layer.trainable_variables


def test_freezing():
    frozen = build_fcn("tiny", 3, weights=None, freeze="backbone")
    assert {v.path.split("/")[0] for v in frozen.trainable_variables} == {"score_32", "upscore_32"}
    batchnorm = build_fcn("tiny", 3, weights=None, freeze="batchnorm")
    assert not [v for v in batchnorm.trainable_variables if v.name in ("gamma", "beta")]
    assert [v for v in batchnorm.trainable_variables if "conv1_conv" in v.path]
    before = np.array(batchnorm.get_layer("backbone").get_layer("conv1_bn").moving_mean)
    batchnorm(random_image(32, 32), training=True)
    after = batchnorm.get_layer("backbone").get_layer("conv1_bn").moving_mean
    np.testing.assert_array_equal(before, after)


def test_mixed_precision_keeps_float32_logits():
    model = build_fcn("tiny", 3, 8, weights=None, dtype="mixed_bfloat16")
    assert model.get_layer("backbone").get_layer("conv1_conv").compute_dtype == "bfloat16"
    logits = model(random_image(40, 40))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


def test_saved_file_loads_elsewhere_without_custom_objects(models, tmp_path):
    path = tmp_path / "model.keras"
    models[8].save(path)
    image = random_image(50, 70)
    np.save(tmp_path / "image.npy", image)
    code = (
        "import fcn_keras.models, keras; import numpy as np;"
        f"m = keras.models.load_model({str(path)!r});"
        f"np.save({str(tmp_path / 'out.npy')!r}, m(np.load({str(tmp_path / 'image.npy')!r})))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), models[8](image), atol=1e-5)


def test_copy_weights_by_layer_name(models):
    coarse = build_fcn("tiny", 5, 32, weights=None)
    fine = build_fcn("tiny", 5, 16, weights=None, skip_initializer="zeros")
    copied = copy_weights(coarse, fine)
    assert copied == ["backbone", "score_32"]
    np.testing.assert_array_equal(
        coarse.get_layer("score_32").kernel, fine.get_layer("score_32").kernel
    )
    # With zero skips the finer net starts out with the coarser one's prediction.
    image, inside = random_image(128, 128), np.s_[:, 16:-16, 16:-16]
    pair = [np.ravel(np.array(model(image))[inside]) for model in (coarse, fine)]
    assert np.corrcoef(pair)[0, 1] > 0.98


def test_copy_weights_refuses_other_shapes(models):
    other = build_fcn("resnet18", 4, 8, weights=None)
    with pytest.raises(UserError, match=r"'score_32' differs.*\(1, 1, 512, 5\)"):
        copy_weights(models[8], other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 4}, "output_stride must be 32, 16 or 8. Received: 4"),
        ({"num_classes": 0}, "num_classes must be at least 1. Received: 0"),
        *(
            ({"upsampling_initializer": name}, f"upsampling_initializer must be .*'{name}'")
            for name in ("os.system", "identity", "fcn_keras>CropLike")
        ),
        ({"freeze": "all"}, "freeze must be one of none, batchnorm, backbone. Received: 'all'"),
    ],
)
def test_mistakes_name_the_value(arguments, message):
    with pytest.raises(UserError, match=message):
        build_fcn("tiny", weights=None, **arguments)
