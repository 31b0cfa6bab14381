import pytest
from support.processes import finish

# Weights after three steps, on one device and on two, without BatchNorm.
SCRIPT = """
import sys, numpy as np, tensorflow as tf, keras
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from fcn_keras.runs.config import TrainConfig
from fcn_keras.training.accumulation import accumulate
from fcn_keras.training.averages import Averages
from fcn_keras.training.objectives import SegmentationCrossentropy
from fcn_keras.training.optimizers import make_optimizer

def trained(devices):
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(devices)])
    with strategy.scope():
        keras.utils.set_random_seed(0)
        conv = keras.layers.Conv2D
        layers = [keras.Input((6, 5, 3)), conv(4, 3, padding="same")]
        model = keras.Sequential([keras.Sequential(layers, name="backbone"), conv(4, 1)])
        config = TrainConfig(
            optimizer="adamw", learning_rate=0.1, weight_decay=0.1, clip_norm=0.05,
            backbone_rate=0.1, mixed_precision=sys.argv[1], schedule="poly",
        )
        optimizer = make_optimizer(config, model, 10)
        model.compile(optimizer, SegmentationCrossentropy(), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        averages = Averages(model, 0.9)
    accumulate(model, 2)
    rng = np.random.default_rng(0)
    images, masks = rng.normal(size=(48, 6, 5, 3)), rng.integers(0, 4, (48, 6, 5))
    batches = tf.data.Dataset.from_tensor_slices((images, masks)).batch(16)
    before = model.get_weights()
    model.fit(batches, verbose=0, callbacks=[averages])
    weights = model.get_weights()
    assert max(np.abs(new - old).max() for new, old in zip(weights, before)) > 0.05
    return [*weights, *map(keras.ops.convert_to_numpy, averages.averages)]

for one, two in zip(trained(1), trained(2)):
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["off", "float16"])
def test_two_devices_step_as_one(tmp_path, precision):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    assert "equal" in finish(path, precision)
