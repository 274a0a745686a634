"""Agents: found by name, saved and loaded, and indifferent to their neighbours."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium import spaces
from palaestra.agents import AGENTS, Seat, agent_class, resolve
from palaestra.agents.agent import Agent
from palaestra.agents.constant import Constant
from palaestra.agents.oracle import Oracle
from palaestra.agents.ppo import PPOAgent, policy_hash
from palaestra.agents.random import Random
from palaestra.envs import views
from palaestra.errors import UserError
from palaestra.train.recipe import Recipe
from palaestra.train.training import Run, build
from scipy.stats import chisquare, norm

CARTPOLE, CALCULATOR = "palaestra/CartPole-v1", "palaestra/Calculator-v0"
SCRIPTED = {"random": Random, "constant": Constant, "oracle": Oracle}


def seat(env_id: str = CARTPOLE, view: Any = "native") -> Seat:
    with views.make(env_id, view) as env:
        return Seat(env_id, env.observation_space, env.action_space)


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@pytest.fixture(scope="module")
def ppo() -> PPOAgent:
    model = build(Run(CARTPOLE, Recipe(n_envs=1, n_steps=32, batch_size=32), 3, Path()), "cpu")
    card = {"env": CARTPOLE, "training_seed": 3, "steps": 0}
    return PPOAgent(seat(), model, card)


# By name

UNTRAINED = ("ppo", "language-ppo", "language-choices")


@pytest.mark.parametrize("name", AGENTS)
def test_every_registered_agent_is_found(name: str) -> None:
    kind = agent_class(name)
    assert issubclass(kind, Agent)
    assert kind.view in get_args(views.View)
    assert kind.registered_name() == name
    if name not in (*UNTRAINED, "openai"):
        assert resolve(name) == (kind, {})


@pytest.mark.parametrize("name", UNTRAINED)
def test_who_is_untrained_cannot_play(name: str) -> None:
    with pytest.raises(UserError, match=f"untrained {name} .*train one"):
        resolve(name)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("randm", "did you mean 'random'"),
        ("Oracle", "did you mean 'oracle'"),
        ("zzz", "give random, constant, oracle"),
        ("./nowhere", "there is no folder './nowhere'; give random, constant, oracle"),
        ("../nowhere", "there is no folder"),
        ("/no/such/folder", "there is no folder"),
        ("runs/", "there is no folder"),
        ("runs/calculator-v0-ppo-seed2", "a run's folder, which `palaestra train` makes"),
        ("mine/run", "there is no folder 'mine/run'"),
        ("models/of/others", "there is no folder"),
        ("~nobody-of-that-name/run", "nobody-of-that-name"),
        ("a" * 5000, "aaaa"),
    ],
    ids=lambda text: text[:20],
)
def test_an_unknown_agent_brings_a_hint(
    text: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "other-run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        resolve(text)
    assert hint in str(error.value)


def test_owner_and_model_are_those_of_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "HuggingFaceTB" / "SmolLM2-1.7B").mkdir(parents=True)
    for text in ("HuggingFaceTB/SmolLM2-135M", "runs-of/mine"):
        assert resolve(text) == (agent_class("language-model"), {"model": text})


def test_a_folder_is_a_run_a_checkpoint_a_model_or_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no agent"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == (agent_class("language-model"), {"model": str(tmp_path)})
    for steps in ("000000000010", "000000000200"):
        (tmp_path / "checkpoints" / steps).mkdir(parents=True)
        Random(seat()).save(tmp_path / "checkpoints" / steps)
    newest = tmp_path / "checkpoints" / "000000000200"
    assert resolve(str(tmp_path)) == (Random, {"folder": newest})
    assert resolve(str(newest)) == (Random, {"folder": newest})


def test_a_file_is_no_agent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not a folder"):
        resolve(str(tmp_path / "file"))


@pytest.mark.parametrize("card", ["", "{", "[]", "3", "{}", '{"agent": "nobody"}', '{"agent": []}'])
def test_a_damaged_card_is_named(tmp_path: Path, card: str) -> None:
    (tmp_path / "agent.json").write_text(card)
    with pytest.raises(UserError):
        resolve(str(tmp_path))


def in_fresh_process(code: str, **environment: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return answer.stdout


def test_scripted_agents_do_without_torch() -> None:
    modules = ", ".join(f"palaestra.agents.{name}" for name in SCRIPTED)
    code = f"import sys, {modules}\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    assert in_fresh_process(code).split() == ["False", "False"]


# Play


def test_the_random_agent_is_uniform_over_choices() -> None:
    info = {"choices": list("abcd")}
    drawn = Random(seat(CALCULATOR)).act([""] * 2000, [info] * 2000, rngs(*range(2000))).actions
    assert chisquare(list(Counter(drawn).values())).pvalue > 0.001
    assert set(drawn) == set("abcd")


def test_the_random_agent_is_uniform_over_a_space() -> None:
    space = spaces.Discrete(5, start=-2)
    agent = Random(Seat("x", space, space))
    [rng] = rngs(0)
    drawn = agent.act([0] * 2000, [{}] * 2000, [rng] * 2000).actions
    assert set(drawn) == {-2, -1, 0, 1, 2}
    assert chisquare(list(Counter(int(a) for a in drawn).values())).pvalue > 0.001


@pytest.mark.parametrize("info", [{}, {"choices": list("abcdefgh")}])
def test_random_moves_do_not_depend_on_the_batch(info: dict[str, Any]) -> None:
    agent = Random(Seat("x", spaces.Discrete(9), spaces.Discrete(9)))
    together = agent.act([0] * 6, [info] * 6, rngs(*range(6))).actions
    alone = [agent.act([0], [info], [rng]).actions[0] for rng in reversed(rngs(*range(6)))]
    assert together == alone[::-1]
    assert len(set(together)) > 1


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(3), 1),
        (spaces.Discrete(3, start=5), 6),
        (spaces.Text(9), "hm"),
        (spaces.MultiDiscrete([3, 3]), [1, 1]),
        (spaces.Box(-2, 2, (2, 2), np.float32), [[1, 1], [1, 1]]),
    ],
)
def test_the_constant_agent_repeats_itself(space: Any, expected: Any) -> None:
    agent = Constant(Seat("x", space, space), action=1, message="hm")
    first, second = agent.act([0, 0], [{}, {}], rngs(0, 1)).actions
    assert np.array_equal(first, expected)
    assert np.array_equal(second, expected)
    assert space.contains(first)


def test_the_oracle_says_what_it_was_told() -> None:
    assert Oracle.reveals
    infos = [{"solution": 1}, {"solution": "b"}]
    assert Oracle(seat()).act([0, 0], infos, rngs(0, 1)).actions == [1, "b"]


def observations(count: int) -> list[Any]:
    space = seat().observation_space
    space.seed(0)
    return [np.clip(space.sample(), -1, 1).astype(np.float32) for _ in range(count)]


def test_sampled_moves_of_ppo_do_not_depend_on_the_batch(ppo: PPOAgent) -> None:
    agent = PPOAgent(ppo.seat, ppo.model, ppo.card, sample=True)
    seen = observations(40)
    together = agent.act(seen, [{}] * 40, rngs(*range(40))).actions
    alone = [
        agent.act([o], [{}], [rng]).actions[0]
        for o, rng in zip(seen, rngs(*range(40)), strict=True)
    ]
    assert together == alone
    assert set(together) == {0, 1}
    others = agent.act(seen, [{}] * 40, rngs(*range(100, 140))).actions
    assert others != together


def test_sampled_numbers_are_those_of_the_gaussian_and_within_the_bounds() -> None:
    env_id = "palaestra/Pendulum-v1"
    model = build(Run(env_id, Recipe(n_envs=1, n_steps=32, batch_size=32), 3, Path()), "cpu")
    card = {"env": env_id, "training_seed": 3, "steps": 0}
    agent = PPOAgent(seat(env_id), model, card, sample=True)
    seen = [np.array([1.0, 0.0, 0.0], np.float32)] * 4000
    sampled = np.array(agent.act(seen, [{}] * 4000, rngs(*range(4000))).actions)
    assert sampled.shape == (4000, 1)
    assert sampled.dtype == np.float32
    assert abs(sampled).max() == 2.0
    inside = sampled[abs(sampled) < 2]
    [mean] = model.predict(seen[0], deterministic=True)[0]
    assert np.median(sampled) == pytest.approx(mean, abs=0.1)  # an untrained deviation is 1
    assert len(inside) / 4000 == pytest.approx(norm.cdf(2 - mean) - norm.cdf(-2 - mean), abs=0.02)


def test_ppo_takes_the_likeliest_action_unless_it_samples(ppo: PPOAgent) -> None:
    seen = observations(40)
    expected, _ = ppo.model.predict(np.stack(seen), deterministic=True)
    assert ppo.act(seen, [{}] * 40, rngs(*range(40))).actions == list(expected)
    assert ppo.name == "ppo"
    assert PPOAgent(ppo.seat, ppo.model, ppo.card, sample=True).name == "ppo (sampled)"


# Save and load


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_scripted_agent_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    options = {"action": 1, "message": "é"} if name == "constant" else {}
    agent = SCRIPTED[name](seat(), **options)
    agent.save(tmp_path)
    kind, found = resolve(str(tmp_path))
    loaded = kind.load(found["folder"], seat())
    assert type(loaded) is type(agent)
    assert (loaded.name, loaded.options) == (agent.name, agent.options)
    assert loaded.fingerprint() == agent.fingerprint()


def test_options_go_over_those_that_were_saved(tmp_path: Path) -> None:
    Constant(seat(), action=1).save(tmp_path)
    assert Constant.load(tmp_path, seat(), action=0).options["action"] == 0


def test_ppo_is_saved_and_loaded(ppo: PPOAgent, tmp_path: Path) -> None:
    ppo.save(tmp_path)
    kind, found = resolve(str(tmp_path))
    assert kind is PPOAgent
    loaded = PPOAgent.load(found["folder"], seat(), device="cpu")
    assert loaded.fingerprint() == ppo.fingerprint() == policy_hash(ppo.model)
    assert (loaded.training_seed, loaded.training_steps) == (3, 0)
    seen = observations(20)
    moves = [a.act(seen, [{}] * 20, rngs(*range(20))).actions for a in (ppo, loaded)]
    assert moves[0] == moves[1]


def test_ppo_of_another_environment_is_refused(ppo: PPOAgent, tmp_path: Path) -> None:
    ppo.save(tmp_path)
    with pytest.raises(UserError, match=f"trained on {CARTPOLE}, not on {CALCULATOR}"):
        PPOAgent.load(tmp_path, seat(CALCULATOR, "array"), device="cpu")
    other = Seat(CARTPOLE, spaces.Box(0, 1, (3,)), spaces.Discrete(2))
    with pytest.raises(UserError, match="older version"):
        PPOAgent.load(tmp_path, other, device="cpu")


@pytest.mark.parametrize("damage", ["card", "no card", "cut", "no model", "no hash", "list"])
def test_a_damaged_ppo_is_named(ppo: PPOAgent, tmp_path: Path, damage: str) -> None:
    ppo.save(tmp_path)
    card, model = tmp_path / "agent.json", tmp_path / "model.zip"
    match damage:
        case "card":
            card.write_text("{")
        case "no card":
            card.unlink()
        case "cut":
            model.write_bytes(model.read_bytes()[:-100])
        case "no model":
            model.unlink()
        case "no hash":
            known = json.loads(card.read_text())
            del known["model_sha256"]
            card.write_text(json.dumps(known))
        case "list":
            card.write_text("[]")
    with pytest.raises(UserError, match=str(tmp_path)):
        PPOAgent.load(tmp_path, seat(), device="cpu")


# Fingerprints


def test_fingerprints_tell_agents_and_options_apart() -> None:
    agents = [
        Random(seat()), Oracle(seat()), Constant(seat()), Constant(seat(), action=1),
        Constant(seat(), message="x"),
    ]  # fmt: skip
    assert len({agent.fingerprint() for agent in agents}) == len(agents)
    assert Random(seat()).fingerprint() == Random(seat(CALCULATOR)).fingerprint()


def test_a_changed_weight_changes_the_fingerprint(ppo: PPOAgent) -> None:
    recipe = Recipe(n_envs=1, n_steps=32, batch_size=32)
    same, other = (build(Run(CARTPOLE, recipe, seed, Path()), "cpu") for seed in (3, 4))
    assert policy_hash(same) == policy_hash(ppo.model) != policy_hash(other)
    next(same.policy.parameters()).data[0, 0] += 1e-3
    assert policy_hash(same) != policy_hash(ppo.model)
    sampled = PPOAgent(ppo.seat, ppo.model, ppo.card, sample=True)
    assert sampled.fingerprint() != ppo.fingerprint()


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = (
        "from palaestra.agents import Seat, agent_class\n"
        "from gymnasium.spaces import Discrete\n"
        "seat = Seat('x', Discrete(2), Discrete(2))\n"
        f"print([agent_class(n)(seat).fingerprint() for n in {list(SCRIPTED)}])"
    )
    space = spaces.Discrete(2)
    here = [kind(Seat("x", space, space)).fingerprint() for kind in SCRIPTED.values()]
    for seed in ("0", "1"):
        assert in_fresh_process(code, PYTHONHASHSEED=seed).strip() == str(here)
