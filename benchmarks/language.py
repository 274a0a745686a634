"""A language model that acts and learns, beside transformers' generation and a plain update.

    palaestra bench language --json language.json

32 dialogues of Calculator behind nine solved tasks, SmolLM2-135M-Instruct in float32. `rollout`
samples so many tokens for each, none of which ends a row; transformers' `generate` is given the
same prompts and lengths, and says nothing of log-probabilities. How far ours are at most from
those of one pass over everything is printed. `update` is a loss and its gradient for the last four
layers, of the same messages; the peer reads the whole of each row, as any policy around a model of
transformers would.

`dialogues` is a rollout of PPO, of the untrained model: eight messages in each of the 32
environments, as long as they happen to be and 48 tokens at most. With `continuous_batching` a
dialogue goes on as soon as its message has ended; the peer is stable-baselines3's own rollout, of
the same policy, in which all dialogues wait for the longest message of each turn. All of it takes
half an hour.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from measuring import Row, compared, in_turns, one_core, options, report
from palaestra.envs.vector import make_vec
from palaestra.policies import PACKAGED_MODEL
from palaestra.policies.adapting import adapt
from palaestra.policies.engines import Plain
from palaestra.policies.language import LanguagePolicy
from palaestra.policies.token_choice import Writer
from palaestra.train.language_training import prefix
from palaestra.train.ppo import PPO
from palaestra.train.token_vec_env import TokenVecEnv
from transformers import AutoModelForCausalLM

WORLD, ROWS, NEW, TURNS = "palaestra/Calculator-v0", 32, 24, 8


def main() -> None:
    """Measure, print the table, and write it if asked."""
    chosen = options(__doc__, rounds=3)
    one_core()
    warnings.filterwarnings("ignore", "PPO runs the network in torch")
    torch.manual_seed(0)
    policy, obs = _policy()
    head, prompts = policy._prompts(obs)
    generate = _generator(policy, [[*head, *prompt] for prompt in prompts])

    def write() -> Any:
        policy.engine.forget()  # as at the beginning of every rollout
        return policy.write(obs, Writer(1.0))

    rows: list[Row] = []
    seconds = in_turns({"palaestra": write, "transformers, generate": generate}, chosen.rounds)
    rows += compared("rollout", seconds, ROWS * NEW, "tokens")
    actions, _, log_probs = write()
    policies = {"palaestra": policy, "whole rows": _reading_whole_rows()}

    def update(name: str) -> torch.Tensor:
        learner = policies[name]
        values, found, _ = learner.evaluate_actions(obs, actions)
        (values.mean() + found.mean()).backward()
        learner.optimizer.zero_grad()
        return found.detach()

    for name in policies:
        off = float((update(name) - log_probs).abs().max())
        print(f"difference, {name}: {off:.1e} nats, {off / NEW:.1e} a token")
    turns = {name: partial(update, name) for name in policies}
    rows += compared("update", in_turns(turns, chosen.rounds), ROWS, "messages")
    rollouts = {"palaestra": _rollout(continuous=True), "in step": _rollout(continuous=False)}
    rows += compared("dialogues", in_turns(rollouts, chosen.rounds), ROWS * TURNS, "messages")
    report(rows, chosen.json)


def _rollout(continuous: bool) -> Callable[[], Any]:
    """Return what plays a rollout, and has read nothing of it before."""
    vector = make_vec(WORLD, ROWS, "sync", "dialogue", autoreset="SameStep")
    given = {"prefix": prefix(WORLD, 9), "last_layers": 4, "continuous_batching": continuous}
    env = TokenVecEnv(vector, PACKAGED_MODEL, 48)
    model = PPO(
        LanguagePolicy, env, n_steps=TURNS, batch_size=ROWS, seed=0, policy_kwargs=given
    )  # fmt: skip
    _, callback = model._setup_learn(ROWS * TURNS)
    policy: Any = model.policy

    def play() -> None:
        policy.forget()
        model.collect_rollouts(env, callback, model.rollout_buffer, TURNS)

    return play


def _policy() -> tuple[LanguagePolicy, torch.Tensor]:
    vector = make_vec(WORLD, ROWS, "sync", "dialogue", autoreset="SameStep")
    env = TokenVecEnv(vector, PACKAGED_MODEL, NEW)
    env.seed(0)
    policy = LanguagePolicy(
        env.observation_space, env.action_space, lambda _: 1e-5, prefix=prefix(WORLD, 9),
        last_layers=4,
    )  # fmt: skip
    policy.chat.end = -1  # so that no row ends early
    return policy, torch.from_numpy(np.asarray(env.reset()))


def _reading_whole_rows() -> LanguagePolicy:
    """Return a policy around a model that is as transformers made it."""
    policy, _ = _policy()
    plain = _loaded(policy)
    adapt(plain, last_layers=4)
    policy.language_model, policy.engine = plain, Plain(plain)
    return policy


def _loaded(policy: LanguagePolicy) -> Any:
    folder = policy.chat.tokenizer.name_or_path
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _generator(policy: LanguagePolicy, rows: Sequence[Sequence[int]]) -> Any:
    """Return what lets transformers sample as many tokens for the same prompts."""
    model = _loaded(policy)
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + [*row] for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return lambda: model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW,
        do_sample=True, top_k=0, pad_token_id=0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
