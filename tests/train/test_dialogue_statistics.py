"""What TensorBoard shows of dialogues is what happened in them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from palaestra.train.dialogue_statistics import DialogueStatistics
from stable_baselines3.common.logger import Logger


def said(success: bool, call: str | None, failure: str | None = None) -> dict[str, Any]:
    return {
        "success": success,
        "parsed_action": None if call is None else (call, {}),
        "failure": failure,
        "reward_valid": failure != "infra",
    }


def shown(steps: list[tuple[list[dict[str, Any]], list[bool]]]) -> dict[str, Any]:
    """Return what is logged of a rollout."""
    statistics = DialogueStatistics()
    logger = Logger(None, [])
    statistics.model = SimpleNamespace(policy=None, logger=logger)  # type: ignore[assignment]
    statistics.on_rollout_start()
    for infos, dones in steps:
        statistics.locals = {"infos": infos, "dones": np.array(dones)}
        assert statistics._on_step()
    statistics.on_rollout_end()
    return dict(logger.name_to_value)


def test_shares_are_of_messages_and_of_episodes_that_ended() -> None:
    found = shown(
        [
            ([said(False, "search"), said(True, "answer")], [False, True]),
            ([said(False, "answer"), said(False, None, "format")], [True, False]),
        ]
    )
    assert found["rollout/success"] == 0.5
    assert found["rollout/tool_calls"] == 0.25
    assert found["rollout/failed_format"] == 0.25
    assert found["rollout/failed_tool"] == 0


def test_what_the_machinery_spoilt_counts_for_nothing() -> None:
    dead = {"failure": "infra", "reward_valid": False}  # of a process that has died
    found = shown(
        [
            ([said(True, "answer"), said(False, "search", "infra")], [True, True]),
            ([dead, said(True, "answer")], [True, True]),
        ]
    )
    assert found["rollout/success"] == 1
    assert found["rollout/tool_calls"] == 0


def test_where_there_are_no_dialogues_nothing_is_shown() -> None:
    assert shown([([{}, {}], [True, False])]) == {}
