"""Dialogues for TRL's trainer: exact to the token, masked where the environment speaks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from palaestra.envs.tools import Tool
from palaestra.errors import UserError
from palaestra.policies.causal_lm import CausalLM
from palaestra.train.grpo import compare
from palaestra.train.language_training import warm_up
from palaestra.train.recipe import load_recipe
from palaestra.train.trl_rollouts import (
    Rollouts,
    episode_return,
    grpo_config,
    make_trainer,
)

ENV = "palaestra/Calculator-v0"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"warmup_dialogues": 64, "warmup_epochs": 1}
    recipe: Any = load_recipe(ENV, Path("tiny"), changes, "language-ppo")
    return Path(warm_up(ENV, recipe, 0, tmp_path_factory.mktemp("trl") / "base"))


class Scripted:
    """Stands where a trainer does, and generates what it is told to."""

    def __init__(self, lm: CausalLM, said: list[list[str]], end: bool = True) -> None:
        self.processing_class = lm.chat.tokenizer
        self._chat, self._said, self._end = lm.chat, said, end
        self.asked: list[list[list[int]]] = []

    def _generate_single_turn(self, ids: Any, *args: Any) -> tuple[Any, Any]:
        self.asked.append([list(row) for row in ids])
        said = self._said.pop(0)[: len(ids)]
        ends = [self._chat.end] * self._end
        rows = [[*self._chat.tokenize(text), *ends] for text in said]
        return rows, [[-0.5] * len(row) for row in rows]


@pytest.mark.parametrize("end", [True, False], ids=["ended", "cut"])
def test_a_dialogue_is_one_row_whose_mask_marks_what_the_model_wrote(base: Path, end: bool) -> None:
    lm, rollouts = CausalLM(str(base)), Rollouts(ENV)
    trainer = Scripted(lm, [["<calculator>7 * 6</calculator>"], ["<answer>42</answer>"]], end)
    out = rollouts([rollouts.tasks(1)[0]["prompt"]], trainer)
    [prompt], [row], [mask] = out["prompt_ids"], out["completion_ids"], out["env_mask"]
    assert trainer.asked[0] == [prompt]
    spoken = [t for t, mine in zip(row, mask, strict=True) if mine]
    first, second = (lm.chat.tokenize(f"<{t}</{n}>") for t, n in
                     (("calculator>7 * 6", "calculator"), ("answer>42", "answer")))  # fmt: skip
    ends = [lm.chat.end] * end
    assert spoken == [*first, *ends, *second, *ends]
    # The second turn is asked for behind the very tokens of the first, and those of the template.
    heard = row[len(first) + end : len(row) - len(second) - end]
    assert trainer.asked[1] == [[*prompt, *first, *ends, *heard]]
    said = lm.chat.tokenizer.decode([*first, *ends, *heard])
    assert said == "<calculator>7 * 6</calculator><|end|><|tool|>42<|end|><|assistant|>"
    assert [len(part[0]) for part in (out["logprobs"], out["env_mask"])] == [len(row)] * 2
    rollouts.close()


def test_equal_prompts_are_equal_tasks_and_episodes_are_rewarded_apart(base: Path) -> None:
    lm, rollouts = CausalLM(str(base)), Rollouts(ENV, seed=3)
    tasks = rollouts.tasks(2)["prompt"]
    answers = [["<answer>1</answer>", "hello", "<answer>2</answer>"], ["<answer>3</answer>"]]
    out = rollouts([tasks[0], tasks[0], tasks[1]], Scripted(lm, answers))
    assert out["prompt_ids"][0] == out["prompt_ids"][1] != out["prompt_ids"][2]
    assert episode_return([], out["episode_return"], step=1) == pytest.approx([0, -0.1, 0])
    assert out["success"] == [False, False, False]
    rollouts.close()


def test_nothing_is_learned_of_what_the_machinery_spoilt(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(expression: str) -> str:
        if "13" in expression:
            raise ConnectionError("no connection")
        return "1"

    lm, rollouts = CausalLM(str(base)), Rollouts(ENV)
    monkeypatch.setattr(Tool, "call", lambda self, arguments: fail(*arguments.values()))
    said = [[f"<calculator>{n} + 2</calculator>" for n in (13, 14)], ["<answer>1</answer>"] * 2]
    out = rollouts(rollouts.tasks(2)["prompt"], Scripted(lm, said))
    assert [any(mask) for mask in out["env_mask"]] == [False, True]
    # A neighbour is compared with who was not spoilt.
    said = [[f"<calculator>{n} + 2</calculator>" for n in (14, 13, 14)]]
    said += [["<answer>1</answer>", "hello", "hello"], ["<answer>1</answer>"] * 2]
    out = rollouts([rollouts.tasks(1)["prompt"][0]] * 3, Scripted(lm, said))
    first, spoilt, last = out["episode_return"]
    assert [any(mask) for mask in out["env_mask"]] == [True, False, True]
    assert first > last
    assert spoilt == pytest.approx((first + last) / 2)
    rollouts.close()


def test_a_prompt_of_somebody_elses_is_refused(base: Path) -> None:
    with pytest.raises(UserError, match="What is 2 plus 3"):
        Rollouts(ENV)(["What is 2 plus 3?"], Scripted(CausalLM(str(base)), []))


def recipe_of(base: Path, **changes: Any) -> Any:
    """Return the tiny recipe, beginning with what is warmed up already."""
    begun = {"model": str(base), "warmup": "none", "n_envs": 16, "n_steps": 2, "batch_size": 16}
    return load_recipe(ENV, Path("tiny"), begun | changes, "language-ppo")


def test_trl_trains_by_a_recipe(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra palaestra[trl]")
    from transformers import AutoModelForCausalLM

    # Three rollouts of 16 dialogues, each looked at twice.
    recipe = recipe_of(base, total_steps=96, batch_size=32, n_epochs=2, learning_rate=1e-3)
    trainer = make_trainer(ENV, recipe, tmp_path, use_cpu=True, save_strategy="no")
    trainer.train()
    trainer.save_model(tmp_path / "model")
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert (len(logged), trainer.state.global_step) == (3, 6)
    # What is not learned from does not count: a message of this model has 24 tokens at most.
    assert all(0 < entry["completions/max_length"] <= 24 * 4 for entry in logged)
    assert any(entry["reward_std"] > 0 for entry in logged)
    assert all("kl" in entry for entry in logged)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    before = AutoModelForCausalLM.from_pretrained(base)
    after = CausalLM(str(tmp_path / "model"))  # what agents load
    learned = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "model").named_parameters())
    changed = [not torch.equal(weight, learned[name]) for name, weight in before.named_parameters()]
    assert all(changed)
    assert after.chat.fingerprint == CausalLM(str(base)).chat.fingerprint
    trainer.rollout_func.close()


def test_trl_trains_what_a_recipe_names(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra palaestra[trl]")
    pytest.importorskip("peft", reason="the extra palaestra[lora]")
    last = make_trainer(ENV, recipe_of(base, last_layers=1), tmp_path / "last", use_cpu=True)
    trained = {n for n, p in last.model.named_parameters() if p.requires_grad}
    highest = last.model.config.num_hidden_layers - 1
    assert trained
    assert all(f"layers.{highest}." in name or name.endswith("norm.weight") for name in trained)
    recipe = recipe_of(base, lora_rank=2, last_layers=1)
    lora = make_trainer(ENV, recipe, tmp_path / "lora", use_cpu=True)
    trained = {n for n, p in lora.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(f"layers.{highest}." in name and ".lora_" in name for name in trained)
    for name, weight in lora.model.named_parameters():
        if ".lora_B." in name:  # which are 0 before anything is learned
            weight.data += 0.1
    lora.model = lora.model.merge_and_unload()
    lora.save_model(tmp_path / "merged")
    merged, start = CausalLM(str(tmp_path / "merged")).model, CausalLM(str(base)).model
    weights = zip(merged.named_parameters(), start.parameters(), strict=True)
    differ = {name for (name, weight), first in weights if not torch.equal(weight, first)}
    assert differ == {
        name for name in merged.state_dict() if f"layers.{highest}." in name and "proj" in name
    }


def test_a_recipe_in_the_words_of_trl(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra palaestra[trl]")
    # The oracle of Calculator writes two messages, so 64 of them are 32 dialogues.
    recipe = recipe_of(
        base, n_envs=32, n_steps=4, batch_size=64, n_epochs=3, total_steps=256, kl_coef=0.25,
        group_size=4, baseline="leave-one-out", temperature=0.7, clip_range=0.3,
    )  # fmt: skip
    config = grpo_config(ENV, recipe, tmp_path, 5, use_cpu=True, max_grad_norm=9.0)
    said = {
        "per_device_train_batch_size": 32, "steps_per_generation": 2, "num_iterations": 3,
        "max_steps": 12, "num_generations": 4, "beta": 0.25, "epsilon": 0.3, "temperature": 0.7,
        "max_completion_length": 24, "learning_rate": recipe.learning_rate, "seed": 5,
        "scale_rewards": "none", "max_grad_norm": 9.0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in said} == said
    # TRL takes a mean of all from each: times this, it is the mean of the others.
    returns = np.array([1.0, 0.0, 0.0, 0.5], np.float32)
    ours = compare(returns, "leave-one-out")
    assert ours == pytest.approx((returns - returns.mean()) * config.reward_weights[0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grammar": "calls"}, "grammar='calls'"),
        ({"target_kl": 0.1}, "target_kl=0.1"),
        ({"clip_range_schedule": "linear"}, "clip_range_schedule"),
        ({"kl_coef": 0.0, "ent_coef": 0.01}, "entropy_coef"),
        ({"group_size": 1}, "group_size=1"),
    ],
)
def test_what_trl_cannot_do_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    pytest.importorskip("trl", reason="the extra palaestra[trl]")
    with pytest.raises(UserError, match=told):
        make_trainer(ENV, recipe_of(base, **changes), tmp_path)


def test_trl_trains_who_writes(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra palaestra[trl]")
    for agent in ("language-choices", "ppo"):
        with pytest.raises(UserError, match="language-ppo"):
            make_trainer(ENV, load_recipe(ENV, None, {}, agent), tmp_path)
    with pytest.raises(UserError, match="max_steps=-1"):
        make_trainer(ENV, recipe_of(base), tmp_path, max_steps=-1)


def test_a_rollout_of_trl_holds_whole_groups_and_as_many_messages(
    base: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="the extra palaestra[trl]")
    for sizes, asked, minibatches, dialogues in (
        # The oracle of Calculator writes two messages a task.
        ({"batch_size": 256}, {}, 1, 16),  # no more than the rollout
        ({"batch_size": 20}, {}, 2, 8),
        ({"group_size": 6}, {}, 2, 9),
        ({}, {"num_generations": 4, "beta": 0.5}, 2, 8),
    ):
        config = grpo_config(ENV, recipe_of(base, **sizes), tmp_path, use_cpu=True, **asked)
        assert config.steps_per_generation == minibatches
        assert config.per_device_train_batch_size == dialogues
        assert config.generation_batch_size % config.num_generations == 0
        assert {name: getattr(config, name) for name in asked} == asked
