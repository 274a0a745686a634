"""Training: a run that is killed and resumed is the run that was never stopped."""

import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from palaestra.agents.ppo import policy_hash
from palaestra.envs import views
from palaestra.envs.tools import Tool
from palaestra.errors import UserError
from palaestra.train.buffers import DictRolloutBuffer
from palaestra.train.infra import MaskInfra
from palaestra.train.kernel_vec_env import KernelVecEnv
from palaestra.train.recipe import Recipe, load_recipe
from palaestra.train.records import Record, read_records
from palaestra.train.training import Run, build, train
from palaestra.train.vec_env import AsVecEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CARTPOLE, CALCULATOR = "palaestra/CartPole-v1", "palaestra/Calculator-v0"
PLAIN = "CartPole-v1"  # Gymnasium's own, where no kernel steps
# Evaluations and checkpoints at different steps, so that a kill falls between them.
SMALL: dict[str, dict[str, Any]] = {
    CARTPOLE: {
        "total_steps": 1536, "n_envs": 2, "n_steps": 32, "n_epochs": 1, "batch_size": 32,
        "evaluate_every": 128, "evaluate_episodes": 2, "checkpoint_every": 256,
        "learning_rate_schedule": "linear",
    },
    PLAIN: {
        "total_steps": 1536, "n_envs": 2, "n_steps": 32, "n_epochs": 1, "batch_size": 32,
        "evaluate_every": 256, "evaluate_episodes": 1, "checkpoint_every": 256,
    },
    CALCULATOR: {
        "total_steps": 96, "n_envs": 4, "n_steps": 8, "n_epochs": 1, "batch_size": 16,
        "evaluate_every": 32, "evaluate_episodes": 1, "checkpoint_every": 32,
    },
}  # fmt: skip


def recipe(env_id: str, **changes: Any) -> Recipe:
    return load_recipe(env_id, changes=SMALL[env_id] | changes)


@pytest.fixture(scope="module", params=[CARTPOLE, PLAIN, CALCULATOR])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train without a stop; return the run and the hash of its weights."""
    env_id = request.param
    run = Run(env_id, recipe(env_id), 5, tmp_path_factory.mktemp("run") / "whole")
    told: list[int] = []
    model = train(run, device="cpu", tell=told.append)
    assert told == list(
        range(0, run.recipe.total_steps + 1, run.recipe.n_envs * run.recipe.n_steps)
    )
    return run, policy_hash(model)


def validation(run: Run) -> list[Record]:
    records = [replace(r, seconds=0.0) for r in read_records([run.records])]
    return sorted(records, key=lambda r: (r.training_steps or 0, r.episode_seed))


def events(run: Run) -> EventAccumulator:
    found = EventAccumulator(str(run.folder / "tensorboard"), {"scalars": 0, "tensors": 0})
    return found.Reload()


def steps_of(run: Run, tag: str) -> list[int]:
    return [event.step for event in events(run).Scalars(tag)]


def next_second() -> None:
    """Wait for the clock by which TensorBoard names its files, and so orders them."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.05)


def command(run: Run) -> list[str]:
    settings = [f"{key}={value}" for key, value in SMALL[run.env_id].items()]
    return [
        sys.executable, "-m", "palaestra.train.cli", "train", "--env", run.env_id, "--seed",
        str(run.seed), "--out", str(run.folder), "--device", "cpu", "--quiet",
        *(word for setting in settings for word in ("--set", setting)),
    ]  # fmt: skip


def test_killed_and_resumed_it_ends_in_the_same_weights(whole: Any, tmp_path: Path) -> None:
    uninterrupted, expected = whole
    run = replace(uninterrupted, folder=tmp_path / "run")
    process = subprocess.Popen(command(run), stdout=subprocess.DEVNULL)
    every, last = run.recipe.checkpoint_every, run.recipe.total_steps
    mark = run.checkpoints / f"{every:012d}"
    deadline = time.monotonic() + 300
    while not mark.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run.checkpoints / f"{last:012d}").exists()
    (run.checkpoints / ".writing-1").mkdir()  # as a kill in the middle of a checkpoint leaves it
    next_second()
    model = train(run, resume=True, device="cpu")
    assert policy_hash(model) == expected
    assert validation(run) == validation(uninterrupted)
    names = [path.name for path in run.checkpoints.iterdir()]
    assert sorted(names) == [f"{step:012d}" for step in range(0, last + 1, every)]
    for tag in ("validation/return", "rollout/ep_rew_mean"):
        assert steps_of(run, tag) == steps_of(uninterrupted, tag), tag


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [320, 448])
def test_what_was_logged_past_the_checkpoint_is_logged_again_and_nothing_twice(
    tmp_path: Path, at: int
) -> None:
    """An evaluation that is on record is not played again, yet the curve must have its point."""
    run = Run(CARTPOLE, recipe(CARTPOLE, total_steps=512), 0, tmp_path)

    def stop(step: int) -> None:
        if step == at:
            raise Stop

    with pytest.raises(Stop):
        train(run, device="cpu", tell=stop)
    assert [path.name for path in sorted(run.checkpoints.iterdir())][-1] == "000000000256"
    next_second()
    train(run, resume=True, device="cpu")
    assert steps_of(run, "validation/return") == [0, 128, 256, 384, 512]
    assert steps_of(run, "rollout/ep_rew_mean") == list(range(64, 513, 64))
    values = {event.step: event.value for event in events(run).Scalars("validation/return")}
    for step, value in values.items():
        returns = [r.episode_return for r in validation(run) if r.training_steps == step]
        assert value == pytest.approx(sum(returns) / len(returns))


def test_a_finished_run_may_be_resumed_and_stays_as_it_is(whole: Any) -> None:
    run, expected = whole
    before = validation(run)
    assert policy_hash(train(run, resume=True, device="cpu")) == expected
    assert validation(run) == before


def test_a_run_is_evaluated_and_saved_when_its_recipe_says_so(whole: Any) -> None:
    run, expected = whole
    r = run.recipe
    steps = range(0, r.total_steps + 1, r.evaluate_every)
    records = validation(run)
    assert [x.training_steps for x in records] == [
        s for s in steps for _ in range(r.evaluate_episodes)
    ]
    assert {x.purpose for x in records} == {"validation"}
    assert {x.training_seed for x in records} == {5}
    assert records[-1].agent_hash == expected
    assert {x.split for x in records} == {run.held_out}
    assert run.held_out == ("validation" if run.env_id == CALCULATOR else None)
    assert steps_of(run, "validation/return") == list(steps)


def test_tensorboard_shows_the_run(whole: Any) -> None:
    run, _ = whole
    found = events(run)
    assert {"rollout/ep_rew_mean", "train/loss", "validation/return"} <= set(
        found.Tags()["scalars"]
    )
    assert "_hparams_/session_start_info" in found.PluginTagToContent("hparams")
    if run.env_id == CALCULATOR:
        [first, *_] = found.Tensors("transcript/0/text_summary")
        text = first.tensor_proto.string_val[0].decode()
        assert "**user**" in text
        assert "What is" in text
        assert "**return**" in text
        mean = sum(r.episode_return for r in validation(run)[-1:])
        assert found.Scalars("validation/return")[-1].value == pytest.approx(mean)


# Where the environments live


def in_mode(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Let the measurement say that steps suit a mode."""
    monkeypatch.setattr("palaestra.envs.vector.choose", lambda *_: (mode, 2))


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_in_threads_and_processes_a_run_ends_in_the_same_weights_also_when_it_was_stopped(
    whole: Any, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, expected = whole
    run = replace(run, folder=tmp_path)
    in_mode(monkeypatch, mode)
    every = run.recipe.checkpoint_every

    def stop(step: int) -> None:
        if step > every:
            raise Stop

    with pytest.raises(Stop):
        train(run, device="cpu", tell=stop)
    assert nobody_works()
    next_second()
    model = train(run, resume=True, device="cpu")
    if run.env_id == CARTPOLE:  # a kernel steps it, here
        assert isinstance(model.env, KernelVecEnv)
    else:
        assert isinstance(model.env, AsVecEnv)
        assert model.env.vector.mode == mode
    assert policy_hash(model) == expected
    assert nobody_works()


def test_a_process_that_dies_between_rollouts_costs_a_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_mode(monkeypatch, "processes")
    changes = {"total_steps": 128, "checkpoint_every": 32, "evaluate_every": 10**6}
    run = Run(CALCULATOR, recipe(CALCULATOR, **changes), 0, tmp_path)

    def kill(at: int, step: int) -> None:
        if step == at:
            child = next(p for p in psutil.Process().children() if "live(" in str(p.cmdline()))
            child.kill()
            child.wait()

    with pytest.raises(UserError, match=r"process of member .* died.* add --resume"):
        train(run, device="cpu", tell=partial(kill, 128))
    assert not (run.checkpoints / f"{128:012d}").exists()
    next_second()
    train(run, resume=True, device="cpu")
    other = replace(run, folder=tmp_path / "other")
    train(other, device="cpu", tell=partial(kill, 64))
    names = sorted(path.name for path in other.checkpoints.iterdir())
    assert names == [f"{step:012d}" for step in (0, 32, 96, 128)]


def nobody_works() -> bool:
    """Tell whether all threads and processes of vectors are gone."""
    children = psutil.Process().children(recursive=True)
    lines = [" ".join(p.cmdline()) for p in children if p.is_running()]
    threads = [t for t in threading.enumerate() if t.name.startswith("vector-")]
    return not threads and not [line for line in lines if "live(" in line]


def test_it_learns_what_it_learns_from_the_environments_of_sb3(whole: Any) -> None:
    run, expected = whole
    model = build(run, "cpu")
    split = "train" if run.env_id == CALCULATOR else None
    make = partial(views.make, run.env_id, "array", split=split)
    dummy = DummyVecEnv([lambda: Monitor(make())] * run.recipe.n_envs)
    dummy.seed(model.env._seeds[0])  # type: ignore[union-attr]
    model.set_env(dummy)
    model.learn(run.recipe.total_steps, callback=MaskInfra())
    assert policy_hash(model) == expected
    told = [(e["r"], e["l"]) for e in model.ep_info_buffer or ()]
    again = build(run, "cpu")
    again.learn(run.recipe.total_steps, callback=MaskInfra())
    assert told == [(e["r"], e["l"]) for e in again.ep_info_buffer or ()]
    assert told


# One seed, one run


def weights(tmp_path: Path, name: str, seed: int = 0, **changes: Any) -> str:
    short = {"total_steps": 256} | changes
    run = Run(CARTPOLE, recipe(CARTPOLE, **short), seed, tmp_path / name)
    return policy_hash(train(run, device="cpu"))


def test_a_seed_says_everything(tmp_path: Path) -> None:
    first = weights(tmp_path, "first")
    assert weights(tmp_path, "second") == first
    assert weights(tmp_path, "other", seed=1) != first
    # How often it is looked at must not change what it learns.
    often = {"evaluate_every": 64, "evaluate_episodes": 3, "checkpoint_every": 64}
    assert weights(tmp_path, "often", **often) == first
    assert weights(tmp_path, "never", evaluate_every=10**6, checkpoint_every=10**6) == first


def test_training_tasks_of_two_runs_differ() -> None:
    first, second = (build(Run(CARTPOLE, recipe(CARTPOLE), s, Path()), "cpu") for s in (0, 1))
    assert first.env is not None
    assert second.env is not None
    assert (first.env.reset() != second.env.reset()).any()


# Folders


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(CARTPOLE, recipe(CARTPOLE, total_steps=64), 0, tmp_path_factory.mktemp("x") / "run")
    train(run, device="cpu")
    return run


def test_a_run_is_not_written_over(begun: Run) -> None:
    with pytest.raises(UserError, match="already holds a run: add --resume"):
        train(begun, device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"env_id": CALCULATOR}, "env was 'palaestra/CartPole-v1'"),
        ({"recipe": recipe(CARTPOLE, total_steps=64, gamma=0.5)}, "gamma was 0.98, now 0.5"),
    ],
)
def test_another_run_is_not_gone_on_with(begun: Run, change: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        train(replace(begun, **change), resume=True, device="cpu")
    assert said in str(error.value)


def test_what_was_begun_before_a_value_existed_has_its_default(begun: Run, tmp_path: Path) -> None:
    there = replace(begun, folder=shutil.copytree(begun.folder, tmp_path / "run"))
    path = there.folder / "run.yaml"
    saved = yaml.safe_load(path.read_text())
    assert saved["recipe"].pop("vf_coef") == Recipe.vf_coef
    path.write_text(yaml.safe_dump(saved))
    train(there, resume=True, device="cpu")
    other = replace(there, recipe=replace(there.recipe, vf_coef=0.25))
    with pytest.raises(UserError, match=r"\(vf_coef was 0\.5, now 0\.25\)"):
        train(other, resume=True, device="cpu")


def test_there_must_be_something_to_resume(begun: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        train(replace(begun, folder=tmp_path), resume=True, device="cpu")


@pytest.mark.parametrize("content", ["", "[]", "{", "seed: 0", "recipe: 3"])
def test_a_damaged_description_is_named(begun: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(UserError, match=r"run\.yaml"):
        train(replace(begun, folder=tmp_path), resume=True, device="cpu")


def test_a_folder_in_use_by_another_process_is_left_alone(begun: Run) -> None:
    code = (
        "import sys; from filelock import FileLock\n"
        f"with FileLock({str(begun.folder / '.lock')!r}): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="in use by another process"):
        train(begun, resume=True, device="cpu")
    holder.kill()
    holder.communicate()
    train(begun, resume=True, device="cpu")


def test_a_folder_that_cannot_be_made_is_named(begun: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        train(replace(begun, folder=tmp_path / "file" / "run"), device="cpu")


@pytest.mark.parametrize("arguments", [{"no_such": 1}, {"net_arch": "wide"}])
def test_a_policy_that_takes_no_such_arguments_is_named(tmp_path: Path, arguments: Any) -> None:
    run = Run(CARTPOLE, recipe(CARTPOLE, policy_kwargs=arguments), 0, tmp_path)
    with pytest.raises(UserError, match="PPO cannot play palaestra/CartPole-v1"):
        build(run, "cpu")


def test_nobody_is_evaluated_on_the_seeds_of_a_training(tmp_path: Path) -> None:
    models = [build(Run(CARTPOLE, recipe(CARTPOLE), seed, tmp_path), "cpu") for seed in (0, 1)]
    first, second = (set(model.env._seeds) for model in models)
    assert min(first | second) > 2_000_000
    assert not first & second


def test_a_recipe_that_cannot_be_built_leaves_the_folder_free(tmp_path: Path) -> None:
    wrong = recipe(CARTPOLE, policy_kwargs={"foo": 1})
    with pytest.raises(UserError, match="foo"):
        train(Run(CARTPOLE, wrong, 0, tmp_path), device="cpu")
    train(Run(CARTPOLE, recipe(CARTPOLE), 0, tmp_path), device="cpu")


# The machinery


def crashes(monkeypatch: pytest.MonkeyPatch, percent: int) -> None:
    """Let tools crash on some of their arguments, always the same."""
    call = Tool.call

    def shaky(tool: Tool, arguments: dict[str, Any]) -> str:
        if zlib.crc32(repr(arguments).encode()) % 100 < percent:
            raise RuntimeError("no current")
        return call(tool, arguments)

    monkeypatch.setattr(Tool, "call", shaky)


def test_a_tool_that_crashes_now_and_then_does_not_stop_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes(monkeypatch, 20)
    quiet = recipe(CALCULATOR, evaluate_every=10**6, evaluate_episodes=1)
    whole = Run(CALCULATOR, quiet, 0, tmp_path / "whole")
    told: list[int] = []
    model = train(whole, device="cpu", tell=told.append)
    assert told == [0, 32, 64, 96]
    assert isinstance(model.rollout_buffer, DictRolloutBuffer)
    infra = events(whole).Scalars("rollout/infra")
    assert [event.step for event in infra] == [32, 64, 96]
    assert all(0 <= event.value <= 16 for event in infra)
    assert sum(event.value for event in infra) > 0

    run = replace(whole, folder=tmp_path / "run")

    def stop(step: int) -> None:
        if step == 64:
            raise Stop

    with pytest.raises(Stop):
        train(run, device="cpu", tell=stop)
    next_second()
    assert policy_hash(train(run, resume=True, device="cpu")) == policy_hash(model)
    values = [event.value for event in events(run).Scalars("rollout/infra")]
    assert values == [event.value for event in infra]


@pytest.mark.parametrize("percent", [100, 90])
def test_one_that_crashes_most_of_the_time_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, percent: int
) -> None:
    quiet = recipe(CALCULATOR, evaluate_every=10**6, total_steps=32)
    run = Run(CALCULATOR, quiet, 0, tmp_path / "run")
    with monkeypatch.context() as broken:
        crashes(broken, percent)
        with pytest.raises(UserError, match=r"out of order .* add --resume"):
            train(run, device="cpu")
    # Mended, it goes on as if nothing had happened.
    mended = policy_hash(train(run, resume=True, device="cpu"))
    assert mended == policy_hash(train(replace(run, folder=tmp_path / "calm"), device="cpu"))
