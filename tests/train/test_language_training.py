"""Language models trained by recipes: from scratch, by PPO and in groups, killed and resumed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from palaestra.agents import Seat
from palaestra.agents.language_ppo import LanguagePPOAgent
from palaestra.agents.ppo import policy_hash
from palaestra.envs import views
from palaestra.errors import UserError
from palaestra.policies import imitation
from palaestra.policies.causal_lm import CausalLM
from palaestra.policies.language import LanguagePolicy
from palaestra.train import language_training
from palaestra.train.buffers import DictRolloutBuffer
from palaestra.train.checkpoint import latest_checkpoint
from palaestra.train.cli import main
from palaestra.train.demonstrations import demonstrations
from palaestra.train.evaluation import Evaluation, seat
from palaestra.train.language_training import policy_options, prefix, warm_up
from palaestra.train.ppo import PPO
from palaestra.train.recipe import ChoicesRecipe, LanguageRecipe, Recipe, load_recipe
from palaestra.train.records import read_records
from palaestra.train.training import Run, build, train
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ENV = "palaestra/Calculator-v0"
SMALL: dict[str, Any] = {
    "warmup_dialogues": 64, "warmup_epochs": 1, "total_steps": 64, "n_envs": 8, "n_steps": 4,
    "batch_size": 16, "n_epochs": 1, "evaluate_every": 32, "evaluate_episodes": 4,
    "checkpoint_every": 32,
    # At a rate that falls to 0, the last rollout would teach nothing.
    "max_new_tokens": 8, "learning_rate_schedule": "constant",
}  # fmt: skip


def recipe(**changes: Any) -> LanguageRecipe:
    made = load_recipe(ENV, Path("tiny"), SMALL | changes, "language-ppo")
    assert isinstance(made, LanguageRecipe)
    return made


CHOOSING: dict[str, Any] = {
    "model": "tiny", "warmup": "blind", "last_layers": 1, "learning_rate": 0.001,
    **{key: value for key, value in SMALL.items() if key != "max_new_tokens"},
}  # fmt: skip


def choosing(**changes: Any) -> ChoicesRecipe:
    made = load_recipe(ENV, None, CHOOSING | changes, "language-choices")
    assert isinstance(made, ChoicesRecipe)
    return made


def weights(folder: Path) -> dict[str, Any]:
    checkpoint = latest_checkpoint(folder / "checkpoints")
    assert checkpoint
    return checkpoint.restore("cpu").policy.state_dict()


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("ppo", {}),
        # Who is compared learns nothing where all fail: some messages must be well formed.
        ("grpo", {"warmup_dialogues": 1024, "max_new_tokens": 24}),
    ],
)
def test_it_trains_shows_itself_and_plays(
    algorithm: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    run = Run(ENV, recipe(algorithm=algorithm, **changes), 3, tmp_path / "run")
    model = train(run, device="cpu")
    assert model.num_timesteps == 64
    shown = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert {
        "rollout/success", "rollout/failed_format", "rollout/tool_calls", "rollout/ep_len_mean",
        "rollout/kl_to_start", "rollout/entropy", "time/tokens_per_second", "train/approx_kl",
        "train/kl_to_start", "validation/success",
    } <= set(shown.Tags()["scalars"])  # fmt: skip
    far = [event.value for event in shown.Scalars("rollout/kl_to_start")]
    assert abs(far[0]) < 1e-5 < far[-1]
    assert algorithm == "ppo" or 0 < shown.Scalars("rollout/failed_format")[0].value < 1
    assert all(event.value > 0 for event in shown.Scalars("rollout/entropy"))
    assert "train/entropy_loss" not in shown.Tags()["scalars"]
    of_critic = {"train/value_loss", "train/explained_variance"} & set(shown.Tags()["scalars"])
    assert len(of_critic) == (2 if algorithm == "ppo" else 0)
    told = shown.Tensors("transcript/0/text_summary")
    assert [event.step for event in told] == [0, 32, 64]
    # Before and after it is the same task; two updates may leave its likeliest messages.
    before, after = (told[i].tensor_proto.string_val[0].decode() for i in (0, -1))
    task, spoken = before.split("**assistant**", 1)
    assert after.startswith(task)
    assert "**return**" in spoken
    agent = seat(ENV, "test", str(run.folder), {}, "cpu")
    assert agent.name == f"tiny {algorithm}"
    assert (agent.training_seed, agent.training_steps) == (3, 64)
    Evaluation(agent, ENV, "test").run(range(5), tmp_path / "records.jsonl", batch=2)
    found = read_records([tmp_path / "records.jsonl"])
    assert len(found) == 5
    assert all(record.tokens > 0 for record in found)


def test_it_learns_what_to_choose(tmp_path: Path) -> None:
    run = Run(ENV, choosing(), 3, tmp_path / "run")
    model = train(run, device="cpu")
    assert isinstance(model.policy, LanguagePolicy)
    shown = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert {
        "rollout/success", "rollout/tool_calls", "rollout/kl_to_start", "rollout/entropy",
        "train/kl_to_start", "validation/success",
    } <= set(shown.Tags()["scalars"])  # fmt: skip
    assert "time/tokens_per_second" not in shown.Tags()["scalars"]
    far = [event.value for event in shown.Scalars("rollout/kl_to_start")]
    assert abs(far[0]) < 1e-5 < far[-1]
    greedy = seat(ENV, "test", str(run.folder), {}, "cpu")
    sampled = seat(ENV, "test", str(run.folder), {"sample": True}, "cpu")
    assert (greedy.name, sampled.name) == ("tiny choices ppo", "tiny choices ppo (sampled)")
    assert greedy.fingerprint() != sampled.fingerprint()
    played = []
    for batch in (1, 4):
        path = tmp_path / f"{batch}.jsonl"
        Evaluation(sampled, ENV, "test").run(range(8), path, batch)
        records = sorted(read_records([path]), key=lambda r: r.episode_seed)
        played.append([(r.episode_seed, r.length, r.episode_return) for r in records])
    assert played[0] == played[1]
    assert len(played[0]) == 8
    with pytest.raises(UserError, match="was trained on"):
        seat("palaestra/Capitals-v0", "test", str(run.folder), {}, "cpu")


class _LikesProducts(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Rewards whoever chooses to multiply, whatever was asked, and ends."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        chosen = self.get_wrapper_attr("_choices")[int(action)]
        observation, _, _, _, info = self.env.step(action)
        return observation, float("*" in chosen), True, False, info


def test_who_chooses_finds_out_what_is_liked(tmp_path: Path) -> None:
    model = warm_up(ENV, choosing(), 0, tmp_path / "base")

    def world() -> gymnasium.Env[Any, Any]:
        return _LikesProducts(views.make(ENV, "array", split="train"))

    ppo = PPO(
        LanguagePolicy, DummyVecEnv([world] * 16), 1e-3, 8, 32, 4, seed=0,
        rollout_buffer_class=DictRolloutBuffer, policy_kwargs={"model": model, "last_layers": 1},
    )  # fmt: skip
    liked = list[float]()
    for _ in range(5):
        ppo.learn(128, reset_num_timesteps=False)
        liked.append(float(ppo.rollout_buffer.rewards.mean()))
    assert liked[0] < 0.4
    assert liked[-1] > 0.8


@pytest.mark.parametrize(
    "changes",
    [{"grammar": "calls"}, {"sampling_engine": "vllm"}, {"algorithm": "grpo"}, {"group_size": 4},
     {"continuous_batching": True}, {"whole_dialogues": True}, {"sampling_dtype": "bfloat16"}],
    ids=str,
)  # fmt: skip
def test_what_only_writers_have_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(changes))}=.* they are chosen"):
        choosing(**changes)


def test_a_recipe_says_how_choices_are_scored() -> None:
    for normalized in (False, True):
        made = choosing(length_normalization=normalized, temperature=0.5)
        options = policy_options(ENV, made, "any")
        assert options["length_normalization"] is normalized
        assert options["temperature"] == 0.5
    with pytest.raises(UserError, match="length_normalization"):
        recipe(length_normalization=True)


def test_a_sampled_episode_depends_on_its_seed_alone(tmp_path: Path) -> None:
    run = Run(ENV, recipe(total_steps=32), 0, tmp_path / "run")
    train(run, device="cpu")
    played = []
    for batch in (1, 4):
        agent = seat(ENV, "test", str(run.folder), {"sample": True}, "cpu")
        assert agent.name.endswith("(sampled)")
        path = tmp_path / f"{batch}.jsonl"
        Evaluation(agent, ENV, "test").run(range(4), path, batch)
        records = sorted(read_records([path]), key=lambda r: r.episode_seed)
        played.append([(r.episode_seed, r.tokens, r.episode_return) for r in records])
    assert played[0] == played[1]


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template shows the system's message, with which all dialogues then begin."""
    folder = tmp_path_factory.mktemp("wordy") / "model"
    warm_up(ENV, recipe(), 0, folder)
    template = folder / "chat_template.jinja"
    shown = template.read_text().replace("{% if m['role'] != 'system' %}", "{% if true %}")
    template.write_text(shown.replace("<|{{ m['role'] }}|>", "<|{{ m['role'] }}|> "))
    return folder


@pytest.mark.parametrize(
    ("changes", "says_all"),
    [
        ({}, False), ({"algorithm": "grpo"}, False), ({"algorithm": "grpo"}, True),
        ({"last_layers": 1}, True), ({"sampling_dtype": "bfloat16"}, True),
        ({"last_layers": 1, "continuous_batching": True}, True),
        ({"choices": True, "length_normalization": True}, False),
    ],
    ids=str,
)  # fmt: skip
def test_a_killed_run_ends_in_the_same_weights(
    changes: dict[str, Any], says_all: bool, wordy: Path, tmp_path: Path
) -> None:
    changes = changes | ({"model": str(wordy), "warmup": "none"} if says_all else {})
    trained = choosing(**changes) if changes.pop("choices", False) else recipe(**changes)
    whole = Run(ENV, trained, 0, tmp_path / "whole")
    train(whole, device="cpu")
    killed = Run(ENV, whole.recipe, 0, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train(killed, device="cpu", tell=stopping(33))
    train(killed, resume=True, device="cpu")
    one, other = weights(whole.folder), weights(killed.folder)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    begun_with = "model" if says_all else "tiny"
    assert seat(ENV, "test", str(killed.folder), {}, "cpu").name.startswith(f"{begun_with} ")


def stopping(steps: int) -> Callable[[int], None]:
    """Return what stops a training that has gone so far."""

    def tell(done: int) -> None:
        if done >= steps:
            raise KeyboardInterrupt

    return tell


def test_a_run_that_was_moved_plays_and_learns_on(tmp_path: Path) -> None:
    run = Run(ENV, recipe(), 0, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, device="cpu", tell=stopping(33))
    before = seat(ENV, "test", str(run.folder), {}, "cpu").fingerprint()
    shutil.move(run.folder, tmp_path / "moved")
    after = seat(ENV, "test", str(tmp_path / "moved"), {}, "cpu").fingerprint()
    assert before == after
    there = Run(ENV, run.recipe, 0, tmp_path / "moved")
    assert train(there, resume=True, device="cpu").num_timesteps == 64


def test_another_base_is_refused(tmp_path: Path) -> None:
    run = Run(ENV, recipe(total_steps=32), 0, tmp_path / "run")
    train(run, device="cpu")
    shutil.rmtree(run.folder / "base")
    warm_up(ENV, run.recipe, 1, run.folder / "base")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="another model"):
        seat(ENV, "test", str(run.folder), {}, "cpu")


def test_a_tiny_model_reads_of_mistakes_in_words(tmp_path: Path) -> None:
    chat = CausalLM(warm_up(ENV, recipe(), 0, tmp_path / "base")).chat
    with views.make(ENV, "text") as env:
        env.reset(seed=0)
        _, _, _, _, info = env.step("<calculator>1 + ")
    told = info["messages"][-1]["content"]
    assert told.startswith("Not understood")
    # A token a word, but for marks; letter by letter it is 200.
    assert len(chat.tokenize(told)) < 1.6 * len(told.split())


def test_a_warm_start_is_made_once_and_by_its_seed(tmp_path: Path) -> None:
    made = recipe()
    assert isinstance(made, LanguageRecipe)
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = warm_up(ENV, made, seed, tmp_path / name)
        prints.append(CausalLM(folder).fingerprint)
    assert prints[0] == prints[1] != prints[2]
    stamp = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    warm_up(ENV, made, 0, tmp_path / "a")
    upper = CausalLM(warm_up(ENV, recipe(warmup_layers=1), 0, tmp_path / "d"))
    assert upper.fingerprint not in prints
    with pytest.raises(UserError, match="last_layers=99"):
        warm_up(ENV, recipe(warmup_layers=99), 0, tmp_path / "e")
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_run_that_did_not_begin_left_is_taken_for_what_it_is(
    seed: int, tmp_path: Path
) -> None:
    """Its recipe had one thing that could not be; what was warmed up is right or is not."""
    out = tmp_path / "run"
    with pytest.raises(UserError, match="last_layers=9"):
        train(Run(ENV, recipe(last_layers=9), 0, out), device="cpu")
    assert (out / "base").is_dir()
    if seed == 0:
        assert train(Run(ENV, recipe(total_steps=32), 0, out), device="cpu").num_timesteps == 32
        return
    with pytest.raises(UserError, match="another warm start"):
        train(Run(ENV, recipe(total_steps=32), seed, out), device="cpu")
    for damaged in ("{", "[]", "3"):
        (out / "base" / "warmup.json").write_text(damaged)
        with pytest.raises(UserError, match="something else"):
            train(Run(ENV, recipe(total_steps=32), 0, out), device="cpu")


def test_a_warm_start_shows_what_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(
        language_training, "imitate", lambda lm, dialogues, *_: shown.append(dialogues)
    )
    errs = recipe(warmup="oracle", warmup_mistakes=0.5)
    warm_up(ENV, errs, 0, tmp_path / "errs")
    warm_up(ENV, recipe(warmup="oracle"), 0, tmp_path / "right")
    assert shown[0] == list(demonstrations(ENV, "oracle", 64, 0, 0.5))
    assert shown[1] == list(demonstrations(ENV, "oracle", 64, 0))
    assert shown[0] != shown[1]
    with pytest.raises(UserError, match="another warm start"):
        warm_up(ENV, errs, 0, tmp_path / "right")
    # What was made before there was a share of mistakes has none.
    card = tmp_path / "right" / "warmup.json"
    saved = json.loads(card.read_text())
    assert saved.pop("warmup_mistakes") == 0
    # Nor did its card say what it began with, which nothing was taught here.
    assert saved.pop("model_hash") == CausalLM(str(card.parent)).fingerprint
    card.write_text(json.dumps(saved))
    assert warm_up(ENV, recipe(warmup="oracle"), 0, tmp_path / "right") == str(card.parent)
    with pytest.raises(UserError, match="another warm start"):
        warm_up(ENV, errs, 0, tmp_path / "right")
    assert len(shown) == 2


def test_a_warm_start_is_made_on_the_device_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def load(name: str, device: str) -> CausalLM:
        raise Reached(device)

    monkeypatch.setattr(language_training, "CausalLM", load)
    with pytest.raises(Reached, match="cuda:7"):
        train(Run(ENV, recipe(), 0, tmp_path / "run"), device="cuda:7")
    said = ["warmup", "--env", ENV, "--recipe", "tiny", "--out", str(tmp_path / "base")]
    with pytest.raises(Reached, match="cpu"):
        main([*said, "--device", "cpu"])


def test_a_warm_start_teaches_the_form(tmp_path: Path) -> None:
    made = recipe(warmup_dialogues=1_000, warmup_epochs=4)
    assert isinstance(made, LanguageRecipe)
    lm = CausalLM(warm_up(ENV, made, 0, tmp_path / "base"))
    question = [[{"role": "user", "content": "What is 43 plus 3?"}]]
    [reply] = lm.reply(question, max_new_tokens=24)
    assert reply.text.startswith("<calculator>")
    assert reply.text.endswith("</calculator>")


def test_a_coefficient_of_the_divergence_takes_the_place_of_that_of_the_entropy(
    tmp_path: Path,
) -> None:
    for kl_coef, ent_coef in ((0.0, 0.03), (0.2, 0.0)):
        run = Run(ENV, recipe(kl_coef=kl_coef, ent_coef=ent_coef), 0, tmp_path / f"{kl_coef}")
        model = build(run, "cpu")
        assert model.ent_coef == max(kl_coef, ent_coef)
        assert model.env is not None
        obs = torch.from_numpy(np.asarray(model.env.reset()))
        entropies = model.policy.evaluate_actions(obs, model.policy(obs)[0])[2]
        assert entropies is not None
        assert bool(entropies.abs().max() < 1e-5) is (kl_coef > 0)
        model.env.close()


def test_calls_can_be_held_to_their_grammar(tmp_path: Path) -> None:
    # So little teaches it to begin a call, and hardly ever to end one.
    taught = {"warmup_dialogues": 512, "max_new_tokens": 24}
    run = Run(ENV, recipe(grammar="calls", total_steps=32, **taught), 0, tmp_path / "run")
    train(run, device="cpu")
    agent = seat(ENV, "test", str(run.folder), {"sample": True}, "cpu")
    Evaluation(agent, ENV, "test").run(range(6), tmp_path / "records.jsonl", batch=3)
    shown = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    [said] = shown.Scalars("rollout/tool_calls")
    assert said.value > 0.05


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_who_runs_out_of_memory_is_told_what_to_make_smaller(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(LanguagePolicy, "evaluate_actions", fail)
    with pytest.raises(UserError, match=r"out of memory.*batch_size.*lora_rank"):
        train(Run(ENV, recipe(total_steps=32), 0, tmp_path / "run"), device="cpu")


def test_so_is_who_runs_out_of_it_in_a_warm_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(imitation, "_loss", fail)
    with pytest.raises(UserError, match=r"out of memory.*warmup_batch_size"):
        warm_up(ENV, recipe(), 0, tmp_path / "base")


def test_so_is_who_has_none_left_to_load_it_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(ENV, recipe(total_steps=32), 0, tmp_path / "run")
    train(run, device="cpu")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(LanguagePolicy, "__init__", fail)
    # Nothing is damaged, and nothing should be deleted.
    with pytest.raises(UserError, match=r"^out of memory.*another device"):
        train(run, resume=True, device="cpu")
    with pytest.raises(UserError, match=r"^out of memory.*another device"):
        seat(ENV, "test", str(run.folder), {}, "cpu")
    other = recipe(model=str(run.folder / "base"), warmup="none")
    with pytest.raises(UserError, match=r"out of memory.*smaller batch_size"):
        train(Run(ENV, other, 0, tmp_path / "other"), device="cpu")


def test_a_run_that_was_killed_in_its_warm_start_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*args: Any) -> Any:
        raise KeyboardInterrupt

    run = Run(ENV, recipe(total_steps=32), 0, tmp_path / "run")
    with monkeypatch.context() as killed:
        killed.setattr(imitation, "_loss", kill)
        with pytest.raises(KeyboardInterrupt):
            train(run, device="cpu")
    resumed = train(run, resume=True, device="cpu")
    whole = train(Run(ENV, run.recipe, 0, tmp_path / "whole"), device="cpu")
    assert policy_hash(resumed) == policy_hash(whole)


def test_what_decides_what_is_written_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    base = warm_up(ENV, recipe(), 0, tmp_path / "base")
    card = {"training_seed": 0, "steps": 0, "model": base, "algorithm": "ppo"}
    prints, weights_are = [], set()
    for changes in ({}, {}, {"shots": 2}, {"temperature": 0.5}, {"max_new_tokens": 9}):
        made = recipe(**({"model": base, "warmup": "none"} | changes))
        model = build(Run(ENV, made, 0, tmp_path / "run"), "cpu")
        assert model.env is not None
        model.env.close()
        place = Seat(ENV, model.observation_space, model.action_space)
        prints.append(LanguagePPOAgent(place, model, card).fingerprint())
        weights_are.add(policy_hash(model))
    assert len(weights_are) == 1
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_weights_of_fewer_bits_are_trained_and_play(tmp_path: Path) -> None:
    made = recipe(total_steps=32, policy_kwargs={"dtype": "bfloat16"})
    model = train(Run(ENV, made, 0, tmp_path / "run"), device="cpu")
    assert {p.dtype for p in model.policy.language_model.parameters()} == {torch.bfloat16}
    assert seat(ENV, "test", str(tmp_path / "run"), {}, "cpu").fingerprint()


def test_another_error_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(LanguagePolicy, "evaluate_actions", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        train(Run(ENV, recipe(total_steps=32), 0, tmp_path / "run"), device="cpu")


def test_without_a_warm_start_a_model_is_taken_as_it_is(tmp_path: Path) -> None:
    made = LanguageRecipe(model="somewhere")
    assert warm_up(ENV, made, 0, tmp_path / "base") == "somewhere"
    assert not (tmp_path / "base").exists()


def test_examples_open_with_the_rules() -> None:
    shown = prefix(ENV, 2)
    assert [m["role"] for m in shown] == ["system", *["user", "assistant", "tool", "assistant"] * 2]
    assert prefix(ENV, 0) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "dpo"}, {"baseline": "mean"}, {"warmup": "some"}, {"warmup": "none"},
        {"temperature": 0.0}, {"max_new_tokens": 0}, {"shots": -1}, {"model": 3},
        {"kl_coef": -1.0}, {"kl_coef": 0.1, "ent_coef": 0.1}, {"grammar": 3},
        {"warmup_symbols": 1.5}, {"warmup_symbols": -0.1}, {"warmup_mistakes": 2.0},
        {"sampling_engine": "sglang"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_out_of_range_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(changes))):
        recipe(**changes)


@pytest.mark.parametrize("changes", [{"group_size": 3, "algorithm": "grpo"}, {"last_layers": 9}])
def test_what_does_not_fit_is_named(changes: dict[str, Any], tmp_path: Path) -> None:
    run = Run(ENV, recipe(**changes), 0, tmp_path / "run")
    run.folder.mkdir()
    with pytest.raises(UserError, match=r"groups of 3|last_layers=9"):
        build(run, "cpu")


def test_recipes_come_by_name_and_by_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(load_recipe(ENV)) is Recipe
    big = load_recipe(ENV, agent="language-ppo")
    assert isinstance(big, LanguageRecipe)
    assert asdict(big)["model"] == "SmolLM2-135M-Instruct"
    with pytest.raises(UserError, match="model"):
        load_recipe(ENV, changes={"model": "tiny"})
    with pytest.raises(UserError, match="cannot read"):
        load_recipe(ENV, tmp_path / "none.yaml", agent="language-ppo")
    monkeypatch.chdir(tmp_path)
    before = recipe()
    Path("tiny").mkdir()  # of a run, perhaps
    assert recipe() == before
