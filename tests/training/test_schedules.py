import keras
import pytest

from fcn_keras.runs.config import TrainConfig
from fcn_keras.training.optimizers import make_schedule
from fcn_keras.training.schedules import WarmUp


def test_the_rate_rises_and_then_follows_the_schedule():
    schedule = WarmUp(keras.optimizers.schedules.CosineDecay(0.1, 100), 4)
    assert [float(schedule(step)) for step in (0, 1)] == pytest.approx([0.025, 0.05], rel=1e-3)
    assert float(schedule(50)) == pytest.approx(0.05)
    assert float(schedule(100)) == pytest.approx(0.0, abs=1e-7)
    assert float(WarmUp(0.1, 4)(9)) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0.1, keras.optimizers.schedules.CosineDecay(0.1, 100)])
def test_it_survives_serialisation(rate):
    schedules = keras.optimizers.schedules
    again = schedules.deserialize(schedules.serialize(WarmUp(rate, 4)))
    assert float(again(2)) == pytest.approx(float(WarmUp(rate, 4)(2)))


def test_the_settings_choose_the_schedule():
    config = TrainConfig.from_recipe(
        "sample", schedule="cosine", warmup_steps=10, learning_rate=1.0
    )
    schedule = make_schedule(config, 40)
    assert float(schedule(4)) == pytest.approx(0.5 * 0.976, rel=1e-2)  # (1 + cos(pi / 10)) / 2
    assert float(schedule(20)) == pytest.approx(0.5)
    assert make_schedule(TrainConfig(learning_rate=0.3), 40) == 0.3
