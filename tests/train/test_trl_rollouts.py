"""Dialogues for TRL's trainer: exact to the token, masked where the environment speaks."""

from pathlib import Path
from typing import Any

import pytest
from palaestra.envs.tools import Tool
from palaestra.errors import UserError
from palaestra.policies.causal_lm import CausalLM
from palaestra.train.language_training import warm_up
from palaestra.train.recipe import load_recipe
from palaestra.train.trl_rollouts import Rollouts, episode_return

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


def test_trl_trains_on_dialogues(base: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="the extra palaestra[trl]")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rollouts = Rollouts(ENV)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    before = [p.detach().clone() for p in model.parameters()]
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=16, num_generations=8,
        max_completion_length=24, learning_rate=1e-3, use_cpu=True, report_to=[], beta=0.1,
        logging_steps=1, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model, reward_funcs=episode_return, args=arguments, train_dataset=rollouts.tasks(64),
        processing_class=AutoTokenizer.from_pretrained(base), rollout_func=rollouts,
    )  # fmt: skip
    trainer.train()
    rollouts.close()
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 3
    # What is not learned from does not count: a message of this model has 24 tokens at most.
    assert all(0 < entry["completions/max_length"] <= 24 * 4 for entry in logged)
    assert any(entry["reward_std"] > 0 for entry in logged)
    changed = [not torch.equal(a, b.cpu()) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(changed)
