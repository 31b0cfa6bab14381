"""An exported model run by OpenVINO, whose network code is not TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from fcn_keras.data.sample.scenes import draw_scene
from fcn_keras.inference.loading import load_model

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def signatures(exported):
    # From the folder, OpenVINO would take serving_default, whose loop over strings it lacks.
    loaded = tf.saved_model.load(str(exported))
    yield loaded.signatures  # which need it to stay alive


def compiled(signature, folder):
    graph = convert_variables_to_constants_v2(signature).graph
    (folder / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    core = openvino.Core()
    model = core.read_model(folder / "model.pb")
    network = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: network([images])[0]


@pytest.fixture(scope="module")
def probabilities(signatures, tmp_path_factory):
    return compiled(signatures["predict_probabilities"], tmp_path_factory.mktemp("graph"))


@pytest.mark.parametrize("shape", [(1, 96, 128), (2, 100, 130), (1, 375, 500)])
def test_probabilities_and_masks_are_the_models(untrained_run, probabilities, shape):
    batch, *size = shape
    scenes = [draw_scene(np.random.default_rng(seed), tuple(size)) for seed in range(batch)]
    images = np.stack([image for image, _ in scenes])
    logits = load_model(untrained_run).predict_on_batch(images.astype(np.float32))
    expected = tf.nn.softmax(logits).numpy()
    actual = probabilities(images)
    assert actual.shape == (*shape, 3) and np.ptp(expected) > 0.1
    assert np.abs(actual - expected).max() <= 1e-4
    assert (actual.argmax(axis=-1) == expected.argmax(axis=-1)).mean() >= 0.9999


@pytest.mark.parametrize("name", ["predict_images", "predict_float_images"])
def test_masks_of_the_other_signatures(signatures, name, tmp_path):
    image, _ = draw_scene(np.random.default_rng(0), (70, 90))
    images = image[None].astype("uint8" if name == "predict_images" else "float32")
    expected = signatures[name](images=tf.constant(images))["mask"].numpy()
    actual = compiled(signatures[name], tmp_path)(images)
    assert actual.dtype == np.uint8 and actual.shape == (1, 70, 90)
    assert (actual == expected).mean() >= 0.9999
