"""What is Pendulum's own: its words."""

import numpy as np
import pytest
from palaestra.envs.pendulum import Pendulum


@pytest.mark.parametrize(("angle", "way"), [(35, "counterclockwise"), (-170, "clockwise")])
def test_it_says_an_observation_in_words(angle: float, way: str) -> None:
    turn = np.radians(angle)
    said = Pendulum().describe(np.array([np.cos(turn), np.sin(turn), -1.0], np.float32))
    assert (
        said
        == f"Rod: {abs(angle):.1f} degrees {way} of upright, turning clockwise at 57 degrees/s."
    )
