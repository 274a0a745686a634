"""Train PPO: rollouts, updates, evaluations on held-out tasks, checkpoints, TensorBoard."""

from . import libraries  # noqa: F401 # isort: skip - before what it imports

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
import yaml
from filelock import FileLock, Timeout
from gymnasium.envs.registration import load_env_creator
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam, Logger, TensorBoardOutputFormat
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch.utils.tensorboard import SummaryWriter

from ..agents import Seat, agent_class
from ..agents.agent import digest
from ..envs import views
from ..envs.kernel_vector import KernelVector
from ..envs.vector import make_vec
from ..errors import UserError, memory_permitting
from .buffers import DictRolloutBuffer, RolloutBuffer
from .checkpoint import latest_checkpoint, write_checkpoint
from .evaluation import Episode, Evaluation
from .grpo import GRPO
from .infra import MaskInfra
from .kernel_vec_env import KernelVecEnv
from .ppo import PPO
from .recipe import RECIPES, ChoicesRecipe, LanguageRecipe, Recipe, completed
from .records import commit, read_records, versions
from .vec_env import AsVecEnv

VALIDATION_SEED = 1_000_000
"""First seed of the evaluations in the course of a training."""
MOST_INFRA = 0.5
"""Share of a rollout that the machinery may spoil before a training stops."""


@dataclass(frozen=True)
class Run:
    """One training run and the folder that holds all of it.

    `run.yaml` says how it was trained, `checkpoints/` where it stood, `records.jsonl` how
    it did on held-out tasks, `tensorboard/` shows it.
    """

    env_id: str
    recipe: Recipe
    seed: int
    folder: Path

    @property
    def agent(self) -> str:
        """The registered name of what is trained."""
        return next(name for name, kind in RECIPES.items() if type(self.recipe) is kind)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def records(self) -> Path:
        """File of the records of the evaluations."""
        return self.folder / "records.jsonl"

    @property
    def held_out(self) -> str | None:
        """The split of those evaluations."""
        return "validation" if "validation" in _splits(self.env_id) else None


def train(
    run: Run,
    resume: bool = False,
    device: str = "auto",
    tell: Callable[[int], None] = lambda n: None,
) -> PPO:
    """Train to the last step of the recipe, from the start or from the newest checkpoint.

    A resumed run ends in the same weights, bit for bit, as one that was never stopped.

    Args:
        run: What to train and where to put it.
        resume: Whether to go on with what the folder holds.
        device: A torch device, or `auto`.
        tell: Called with the number of steps after each rollout.

    Raises:
        UserError: the folder holds a run and `resume` is off, or holds another run or none, or
            is in use; or a checkpoint is damaged, or memory is used up.
    """
    make_folder(run.folder)
    with _locked(run.folder):
        _check_folder(run, resume)
        checkpoint = latest_checkpoint(run.checkpoints)
        model = checkpoint.restore(device) if checkpoint else build(run, device)
        assert model.env is not None
        with closing(model.env):
            _describe(run)
            statistics = _statistics(model.env)
            between = _BetweenRollouts(run, _log_to_tensorboard(model, run), tell)
            tell(model.num_timesteps)
            with warnings.catch_warnings():
                # The policy for text was made for torch: nobody need be told.
                known = "PPO runs the network in torch.*(Choice|Language)Policy"
                warnings.filterwarnings("ignore", known)
                with memory_permitting(_SMALLER), _running(model):
                    # Statistics last, so that the time of a rollout holds no evaluation.
                    model.learn(
                        max(run.recipe.total_steps - model.num_timesteps, 0),
                        callback=[MaskInfra(), between, *statistics],
                        reset_num_timesteps=False,
                    )
            model.logger.close()
    return model


def make_folder(folder: Path) -> None:
    """Make a folder for what is trained, where it is not there.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; give another --out") from None


class Recorded(NamedTuple):
    """What a folder says of the run in it."""

    agent: str
    recipe: dict[str, Any]


def recorded(folder: Path) -> Recorded | None:
    """Return what a folder says of the run in it, None if there is none.

    Raises:
        UserError: what describes the run is damaged.
    """
    path = folder / "run.yaml"
    if not path.exists():
        return None
    found = _described(path)
    return Recorded(found["agent"], dict(found["recipe"]))


def build(run: Run, device: str = "auto") -> PPO:
    """Make the untrained PPO of a run, with its environments.

    They live where their steps suggest (`envs.vector.mode`), which changes nothing that is
    learned. A network of dense layers learns compiled, and where a kernel steps the
    environments it also plays compiled.

    Raises:
        UserError: PPO cannot play the environment, the policy has no such arguments, or memory is
            used up.
    """
    r, parts = run.recipe, _parts(run, device)
    envs = parts.envs
    try:
        with memory_permitting(_SMALLER):
            model: PPO = parts.algorithm(
                parts.policy,
                envs,
                learning_rate=_schedule(r.learning_rate, r.learning_rate_schedule),
                n_steps=r.n_steps,
                batch_size=r.batch_size,
                n_epochs=r.n_epochs,
                gamma=r.gamma,
                gae_lambda=r.gae_lambda,
                clip_range=_schedule(r.clip_range, r.clip_range_schedule),
                normalize_advantage=r.normalize_advantage,
                vf_coef=r.vf_coef,
                max_grad_norm=r.max_grad_norm,
                target_kl=r.target_kl,
                seed=run.seed,
                device=device,
                **{"ent_coef": r.ent_coef, **parts.options},
            )
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        envs.close()
        raise UserError(f"PPO cannot play {run.env_id} with this recipe: {error}") from error
    # After PPO has seeded them with seed + i: far from the small seeds that people evaluate on,
    # and for every run another stretch.
    envs.seed(int(np.random.SeedSequence([run.seed, 0]).generate_state(1)[0]))
    return model


# Whoever trains where a kernel steps need not wait until transformers is loaded.


def _statistics(envs: VecEnv) -> list[BaseCallback]:
    """Return what watches dialogues.

    A kernel has none to tell of, and plays a rollout in one call where nobody watches.
    """
    if isinstance(envs, KernelVecEnv):
        return []
    from .dialogue_statistics import DialogueStatistics

    return [DialogueStatistics()]


def _running(model: PPO) -> AbstractContextManager[None]:
    """Let a language model learn at its fastest inside the block."""
    language_model: Any = getattr(model.policy, "language_model", None)
    if language_model is None:
        return nullcontext()
    from ..policies.loading import running

    return running(language_model)


class _Parts(NamedTuple):
    """What a training is made of beside the values that all recipes have."""

    envs: VecEnv
    policy: str | type[ActorCriticPolicy]
    options: dict[str, Any]
    algorithm: type[PPO] = PPO


def _parts(run: Run, device: str) -> _Parts:
    if isinstance(run.recipe, LanguageRecipe):
        return _language_parts(run, run.recipe, device)
    envs = _environments(run)
    reads = isinstance(envs.observation_space, gymnasium.spaces.Dict)
    options = {
        "policy_kwargs": run.recipe.policy_kwargs,
        "rollout_buffer_class": DictRolloutBuffer if reads else RolloutBuffer,
    }
    if not reads:
        return _Parts(envs, "MlpPolicy", options)
    from ..policies.choices import ChoicePolicy

    return _Parts(envs, ChoicePolicy, options)


def _language_parts(run: Run, recipe: LanguageRecipe, device: str) -> _Parts:
    from ..policies.language import LanguagePolicy
    from .language_training import dialogues, policy_options, warm_up

    model = warm_up(run.env_id, recipe, run.seed, run.folder / _BASE, device=device)
    chooses = isinstance(recipe, ChoicesRecipe)
    envs = _vector(run, "choices") if chooses else dialogues(run.env_id, recipe, model)
    options: dict[str, Any] = {"policy_kwargs": policy_options(run.env_id, recipe, model)}
    if recipe.kl_coef:
        options["ent_coef"] = recipe.kl_coef
    if recipe.algorithm == "grpo":
        options |= {"group_size": recipe.group_size, "baseline": recipe.baseline}
        return _Parts(envs, LanguagePolicy, options, GRPO)
    options["rollout_buffer_class"] = DictRolloutBuffer if chooses else RolloutBuffer
    return _Parts(envs, LanguagePolicy, options)


def _environments(run: Run) -> VecEnv:
    entry, count = views.find_spec(run.env_id).vector_entry_point, run.recipe.n_envs
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    if isinstance(creator, type) and issubclass(creator, KernelVector):
        made: Any = gymnasium.make_vec(
            run.env_id, count, "vector_entry_point", autoreset_mode="SameStep"
        )
        return KernelVecEnv(made.unwrapped)
    return _vector(run, "array")


def _vector(run: Run, view: views.View) -> AsVecEnv:
    split, count = views.training_split(run.env_id), run.recipe.n_envs
    vector = make_vec(run.env_id, count, "auto", view, split=split, autoreset="SameStep")
    return AsVecEnv(vector, monitor=True)


class _BetweenRollouts(BaseCallback):
    """Evaluate and save after an update and before the next rollout, when the recipe says so.

    That is the one moment when model, environments and generators agree: the rollout is
    used up and the next has not begun.
    """

    def __init__(self, run: Run, writer: SummaryWriter, tell: Callable[[int], None]) -> None:
        super().__init__()
        self.run, self.writer, self.tell = run, writer, tell

    def _on_training_start(self) -> None:
        self._start, self._before = self.num_timesteps, self.num_timesteps - 1

    def _on_rollout_start(self) -> None:
        self._evaluate_and_save()
        if isinstance(self.run.recipe, LanguageRecipe):
            policy: Any = self._ppo.policy
            policy.forget()  # the evaluation, which a resumed run does not repeat

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self._ppo.rollout_buffer
        assert isinstance(buffer, RolloutBuffer)
        share = buffer.spoilt_T_N.mean()
        if share > MOST_INFRA:
            raise UserError(
                f"{self.run.env_id} is out of order (infra, {share:.0%} of the last rollout), and "
                "nothing may be learned from that: mend it, then add --resume to go on from the "
                "newest checkpoint"
            )
        self.tell(self.num_timesteps)

    def _on_training_end(self) -> None:
        self._evaluate_and_save()

    def _evaluate_and_save(self) -> None:
        steps, before, recipe = self.num_timesteps, self._before, self.run.recipe
        last = steps >= recipe.total_steps
        self._before = steps
        if last or steps // recipe.evaluate_every != before // recipe.evaluate_every:
            self._evaluate()
        if last or steps // recipe.checkpoint_every != before // recipe.checkpoint_every:
            self._save(last)

    def _save(self, last: bool) -> None:
        try:
            write_checkpoint(self.run.checkpoints, self._ppo, self._card())
        except ChildProcessError as error:  # before anybody stepped it: the next step replaces it
            if last:
                raise UserError(
                    f"{error}; it could not be saved, so add --resume to go on from the newest "
                    "checkpoint"
                ) from error

    def _evaluate(self) -> None:
        env_id, recipe = self.run.env_id, self.run.recipe
        place = Seat(env_id, self._ppo.observation_space, self._ppo.action_space)
        kind: Any = agent_class(self.run.agent)
        agent = kind(place, self._ppo, self._card())
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + recipe.evaluate_episodes)
        episodes: list[Episode] = []
        evaluation = Evaluation(agent, env_id, self.run.held_out, purpose="validation")
        evaluation.run(seeds, self.run.records, tell=episodes.append)
        if not episodes and self.num_timesteps == self._start:  # logged before the checkpoint
            return
        # A killed run may have played some of them past its checkpoint: then they are on record.
        records = [
            r
            for r in read_records([self.run.records])
            if r.purpose == "validation" and r.training_steps == self.num_timesteps and r.valid
        ]
        if not records:
            return
        returns = [r.episode_return for r in records]
        solved = [r.success for r in records if r.success is not None]
        self.writer.add_scalar("validation/return", np.mean(returns), self.num_timesteps)
        if solved:
            self.writer.add_scalar("validation/success", np.mean(solved), self.num_timesteps)
        for i, episode in enumerate(e for e in episodes[:3] if "messages" in e.info):
            text = _transcript(episode)
            self.writer.add_text(f"transcript/{i}", text, self.num_timesteps)
        self.writer.flush()  # what a checkpoint has behind it is not logged again

    def _card(self) -> dict[str, Any]:
        recipe = self.run.recipe
        named = {"model": recipe.model} if isinstance(recipe, LanguageRecipe) else {}
        return named | {
            "agent": self.run.agent,
            "algorithm": type(self._ppo).__name__.lower(),
            "env": self.run.env_id,
            "training_seed": self.run.seed,
            "recipe_hash": digest(asdict(recipe)),
            "steps": self.num_timesteps,
            "versions": versions(),
            "commit": commit(),
        }

    @property
    def _ppo(self) -> PPO:
        return cast(PPO, self.model)


def _transcript(episode: Episode) -> str:
    """Write a dialogue as Markdown, the messages quoted so that nothing in them is markup."""
    said = [
        f"**{m['role']}**\n\n" + "\n".join(f"    {line}" for line in m["content"].split("\n"))
        for m in episode.info["messages"]
    ]
    return "\n\n".join([*said, f"**return** {episode.episode_return:g}"])


def _schedule(start: float, kind: str) -> float | LinearSchedule:
    return LinearSchedule(start, 0.0, 1.0) if kind == "linear" else start


def _splits(env_id: str) -> tuple[str, ...]:
    return views.splits_of(views.find_spec(env_id))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; a kill lets go of it."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(
            f"{folder} is in use by another process: wait for it, or give another --out"
        ) from None


_BASE = "base"
"""Name of the folder of what a training begins with, where it was warmed up."""
_SMALLER = (
    "train anew with a smaller batch_size, then with a smaller n_envs or network; of a language "
    "model, train fewer last_layers or a lora_rank"
)
"""What to do where memory is used up."""


def _check_folder(run: Run, resume: bool) -> None:
    """Compare the folder with the run that it is to hold."""
    path, wanted = run.folder / "run.yaml", _description(run)
    if not path.exists():
        if resume:
            from .language_training import was_begun

            # What was stopped in its warm start begins once more.
            if not was_begun(run.folder / _BASE):
                raise UserError(f"{run.folder} holds no run to resume: leave out --resume")
        return
    if not resume:
        raise UserError(
            f"{run.folder} already holds a run: add --resume to go on with it, or give another "
            "folder with --out"
        )
    found = _described(path)
    saved = completed(found["recipe"], run.recipe)
    changed = _changes(found | saved, wanted | asdict(run.recipe))
    if changed:
        raise UserError(f"{run.folder} holds another run ({changed}): resume it as it was begun")


def _describe(run: Run) -> None:
    """Write what the run is, once it is known that it can be built."""
    path = run.folder / "run.yaml"
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(_description(run), sort_keys=False), "utf-8")
        draft.rename(path)


def _description(run: Run) -> dict[str, Any]:
    return {"env": run.env_id, "agent": run.agent, "seed": run.seed, "recipe": asdict(run.recipe)}


def _described(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        assert isinstance(found["recipe"], dict)
        assert found["agent"] in RECIPES
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AssertionError):
        raise UserError(f"{path} is damaged: restore it, or train anew in another --out") from None
    return dict(found)


def _changes(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} was {found.get(key)!r}, now {wanted[key]!r}"
        for key in wanted
        if key != "recipe" and found.get(key) != wanted[key]
    )


def _log_to_tensorboard(model: PPO, run: Run) -> SummaryWriter:
    """Give the model a logger; what a killed run logged past its checkpoint is taken back."""
    folder = str(run.folder / "tensorboard")
    output = TensorBoardOutputFormat(folder)
    if model.num_timesteps:
        output.writer.close()
        output.writer = SummaryWriter(folder, purge_step=model.num_timesteps + 1)
    model.set_logger(Logger(folder, [output]))
    plain = {
        k: v if isinstance(v, int | float | str) else str(v) for k, v in asdict(run.recipe).items()
    }
    settings = HParam(
        {"env": run.env_id, "seed": run.seed, **plain},
        {"rollout/ep_rew_mean": 0.0, "validation/return": 0.0},
    )
    model.logger.record("hparams", settings)
    return output.writer
