"""The garbage collector rests while libraries are imported, and only then."""

import json
import subprocess
import sys
from typing import Any

import pytest

REPORT = """
import gc, json, sys
frozen, stop = json.loads(sys.argv[2])
if frozen:
    gc.freeze()
if stop:
    gc.disable()
before = gc.get_stats()[2]["collections"]
__import__(sys.argv[1])
looked = gc.get_stats()[2]["collections"] - before
print(json.dumps({"looked": looked, "on": gc.isenabled(), "frozen": gc.get_freeze_count() > 0}))
"""


def after_import(module: str, frozen: bool = False, stop: bool = False) -> dict[str, Any]:
    """Say how it is with the collector when a fresh interpreter has imported a module."""
    command = [sys.executable, "-c", REPORT, module, json.dumps([frozen, stop])]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize(
    "name",
    ["buffers", "grpo", "infra", "kernel_vec_env", "masked_buffers", "ppo", "training", "vec_env"],
)
def test_the_collector_does_not_look_through_all_that_there_is(name: str) -> None:
    found = after_import(f"palaestra.train.{name}")
    assert found == {"looked": 0, "on": True, "frozen": False}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("stop", [False, True])
def test_it_is_left_as_it_was(frozen: bool, stop: bool) -> None:
    found = after_import("palaestra.train.libraries", frozen, stop)
    assert found == {"looked": 0, "on": not stop, "frozen": frozen}
