"""The global generators, where something seeds them."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from palaestra.policies.generators import left_alone


def drawn() -> list[float]:
    return [random.random(), np.random.random(), torch.rand(()).item()]  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_they_stand_where_they_stood(fails: bool) -> None:
    before, seeded = [], []
    for within in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
        if within:
            with pytest.raises(ZeroDivisionError) if fails else nullcontext(), left_alone():
                random.seed(2), np.random.seed(2), torch.manual_seed(2)  # noqa: NPY002
                seeded = drawn()
                _ = 1 / (not fails)
        before.append(drawn())
    assert before[0] == before[1]
    assert not set(seeded) & set(before[0])
