"""What is MountainCar's own: its words, in both versions."""

import numpy as np
import pytest
from palaestra.envs.mountain_car import MountainCar
from palaestra.envs.mountain_car_continuous import MountainCarContinuous


@pytest.mark.parametrize("kind", [MountainCar, MountainCarContinuous])
def test_it_says_an_observation_in_words(kind: type[MountainCar]) -> None:
    said = kind().describe(np.array([-0.73, -0.0123], np.float32))
    assert said == "Car: at -0.73 (bottom of the valley -0.52), moving left at 0.0123 a turn."
    assert "moving right at 0.0500" in kind().describe(np.array([0.1, 0.05], np.float32))
