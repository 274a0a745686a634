"""Palaestra's dialogues for TRL's GRPOTrainer, for those who scale out.

    recipe = load_recipe("palaestra/Calculator-v0", None, {"grammar": None}, "language-ppo")
    trainer = make_trainer("palaestra/Calculator-v0", recipe, Path("runs/trl"))
    trainer.train()
    trainer.save_model("runs/trl/model")

`make_trainer` reads the recipes that `palaestra train` reads. Who has a trainer of their own gives
it `Rollouts`:

    rollouts = Rollouts("palaestra/Calculator-v0", shots=3)
    GRPOTrainer(model, reward_funcs=episode_return, train_dataset=rollouts.tasks(512),
                rollout_func=rollouts, args=GRPOConfig(max_completion_length=48, ...))

The trainer generates, with whatever engine it has (by the method of one turn that its own tools
use, which TRL does not call public); here the environments are played, dialogues
become one row of tokens each, and what the environments said in it is masked. TRL is an extra,
`palaestra[trl]`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ..envs import views
from ..envs.vector import make_vec
from ..errors import UserError
from ..policies import is_gguf
from ..policies.adapting import adapt, adapter_config
from ..policies.causal_lm import load_model
from ..policies.chat import Chat
from ..policies.crossing import Message, behind
from .language_training import prefix, warm_up
from .recipe import ChoicesRecipe, LanguageRecipe, Recipe

_PLAYED = 16
"""Tasks by which it is told how many steps a dialogue takes."""
_FIRST_TASK = 100_000_000
"""Far from the seeds that anybody is evaluated on."""


def make_trainer(env_id: str, recipe: Recipe, folder: Path, seed: int = 0, **arguments: Any) -> Any:
    """Return a `GRPOTrainer` that learns by a recipe.

    Evaluations and checkpoints are TRL's own.

    Args:
        env_id: The environment.
        recipe: A `LanguageRecipe`: says what is trained, and how.
        folder: Of the run; a warm start is kept in it as `base`.
        seed: Of the warm start, the tasks and the trainer.
        arguments: For `GRPOConfig`, over what the recipe says, such as `use_vllm` or `bf16`.

    Raises:
        UserError: TRL is missing, or the recipe says what its trainer cannot do.
    """
    config = grpo_config(env_id, recipe, folder, seed, **arguments)
    from trl.trainer.grpo_trainer import GRPOTrainer

    assert isinstance(recipe, LanguageRecipe)
    with config.main_process_first():
        name = warm_up(env_id, recipe, seed, folder / "base", device=str(config.device))
    chat, model = Chat(name), load_model(name)
    lora: dict[str, Any] = {}
    if recipe.lora_rank is None:
        adapt(model, recipe.last_layers)
    else:
        lora["peft_config"] = adapter_config(model, recipe.last_layers, recipe.lora_rank)
    rollouts = Rollouts(env_id, shots=recipe.shots, seed=seed)
    read = config.max_steps * config.gradient_accumulation_steps
    generations = math.ceil(read / (config.steps_per_generation * config.num_iterations))
    tasks = rollouts.tasks(generations * config.generation_batch_size // config.num_generations)
    return GRPOTrainer(
        model, reward_funcs=episode_return, args=config, train_dataset=tasks,
        processing_class=chat.tokenizer, rollout_func=rollouts, **lora,
    )  # fmt: skip


def grpo_config(env_id: str, recipe: Recipe, folder: Path, seed: int = 0, **arguments: Any) -> Any:
    """Return a recipe in TRL's words.

    A recipe counts messages, TRL dialogues: they are taken for as long as the oracle's are. Its
    standard deviation of a group is that of a sample, which leaves advantages a little smaller.

    Args:
        env_id: The environment.
        recipe: A `LanguageRecipe`.
        folder: Of the run.
        seed: Of the trainer.
        arguments: For `GRPOConfig`, over what the recipe says.

    Raises:
        UserError: TRL is missing, or the recipe says what its trainer cannot do.
    """
    try:
        from trl.trainer.grpo_config import GRPOConfig
    except ImportError:
        raise UserError("TRL is missing: pip install 'palaestra[trl]'") from None
    if not isinstance(recipe, LanguageRecipe) or isinstance(recipe, ChoicesRecipe):
        raise UserError("TRL trains who writes messages: give a recipe of language-ppo")
    group = arguments.get("num_generations", recipe.group_size)
    _check(recipe, group, arguments)
    rollout = recipe.n_envs * recipe.n_steps
    minibatches = math.ceil(rollout / recipe.batch_size)
    # A rollout holds whole groups.
    unit = group // math.gcd(group, minibatches)
    dialogues = rollout / _turns(env_id) / minibatches
    # TRL takes the mean over all of a group; the mean over the others is so much further off.
    grouped, alone = recipe.baseline == "group", group / (group - 1)
    said: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": seed,
        "num_generations": group,
        "per_device_train_batch_size": unit * max(1, round(dialogues / unit)),
        "num_iterations": recipe.n_epochs,
        "max_steps": math.ceil(recipe.total_steps / rollout) * minibatches * recipe.n_epochs,
        "max_completion_length": recipe.max_new_tokens,
        "temperature": recipe.temperature,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.learning_rate_schedule,
        "adam_epsilon": 1e-5,  # SB3's
        "max_grad_norm": recipe.max_grad_norm,
        "epsilon": recipe.clip_range,
        "beta": recipe.kl_coef,
        "scale_rewards": "group" if grouped else "none",
        "reward_weights": [1.0 if grouped else alone],
        "use_vllm": recipe.sampling_engine == "vllm",
        "disable_dropout": True,
        "bf16": False,
        "logging_steps": 1,
        "report_to": "tensorboard",
    }
    if "generation_batch_size" not in arguments:
        said["steps_per_generation"] = minibatches
    return GRPOConfig(**said | arguments)


def _check(recipe: LanguageRecipe, group: int, arguments: dict[str, Any]) -> None:
    """Raise where TRL's trainer cannot do what is said."""
    for name in ("grammar", "target_kl", "policy_kwargs", "sampling_dtype"):
        if (value := getattr(recipe, name)) is not None:
            raise UserError(f"recipe: {name}={value!r} means nothing to TRL: set it to null")
    if recipe.clip_range_schedule != "constant":
        raise UserError("recipe: TRL clips at a constant: set clip_range_schedule to constant")
    if recipe.ent_coef:
        raise UserError("recipe: TRL weighs the entropy of a token and not of a message: set "
                        "ent_coef to 0, and give entropy_coef to the trainer")  # fmt: skip
    if group < 2:
        raise UserError(f"recipe: group_size={group} compares with nobody: give 2 at least")
    if arguments.get("max_steps", 1) < 1:
        raise UserError(f"max_steps={arguments['max_steps']} must be at least 1")
    again = arguments.get("beta", recipe.kl_coef) and recipe.lora_rank is None
    if again and recipe.warmup == "none" and is_gguf(Path(recipe.model).expanduser()):
        raise UserError(f"TRL cannot load {recipe.model!r} again, to compare with it: "
                        "set kl_coef to 0, or give another model than a GGUF file")  # fmt: skip


def _turns(env_id: str) -> float:
    """Return how many messages the oracle needs for a task, in the mean."""
    said = 0
    with views.Revealed(views.make(env_id, "text", split=views.training_split(env_id))) as env:
        for i in range(_PLAYED):
            over, (_, info) = False, env.reset(seed=_FIRST_TASK + i)
            while not over:
                _, _, terminated, truncated, info = env.step(info["solution"])
                over, said = terminated or truncated, said + 1
    return said / _PLAYED


class Rollouts:
    """Plays the dialogues of a trainer's rollouts: its `rollout_func`.

    Args:
        env_id: The environment.
        split: Of the tasks; `train` where there are splits and none is named.
        shots: Solved training tasks before every dialogue.
        seed: Of the tasks.
    """

    def __init__(
        self, env_id: str, split: str | None = None, shots: int = 0, seed: int = 0
    ) -> None:
        self._env_id, self._seed = env_id, seed
        self._split = split or views.training_split(env_id)
        self._prefix = prefix(env_id, shots) if shots else []
        self._vector: Any = None

    def tasks(self, count: int) -> Any:
        """Return a dataset of so many tasks, whose prompts are their seeds.

        A prompt holds no words: what a model is asked the environment says, after its reset.
        """
        try:
            from datasets import Dataset
        except ImportError:
            raise UserError("TRL's datasets are missing: pip install 'palaestra[trl]'") from None
        first = _FIRST_TASK + self._seed * 1_000_000
        return Dataset.from_dict({"prompt": [str(first + i) for i in range(count)]})

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Play an episode for each prompt.

        Returns:
            What TRL asks for: `prompt_ids`, `completion_ids`, `logprobs` and `env_mask`, which is
            1 for tokens that the model wrote; and `episode_return` and `success` for rewards.
        """
        chat = Chat.of(trainer.processing_class)
        vector = self._members(len(prompts))
        _, infos = vector.reset(seed=[_seed_of(prompt) for prompt in prompts])
        rows = [_Row(chat, self._whole(messages)) for messages in infos["messages"]]
        open_rows = list(range(len(rows)))
        while open_rows:
            written, logprobs = trainer._generate_single_turn(
                [rows[i].ids for i in open_rows], None, {}, 1
            )
            said = {}
            for place, i in enumerate(open_rows):
                rows[i].say(written[place], logprobs[place] if logprobs else None)
                said[i] = chat.text(written[place])
            vector.send(list(said.values()), list(said))
            members, _, rewards, terminated, truncated, infos = vector.recv(len(said))
            open_rows = []
            for place, i in enumerate(map(int, members)):
                rows[i].episode_return += float(rewards[place])
                rows[i].success = bool(infos["success"][place])
                rows[i].valid &= bool(infos["reward_valid"][place])
                if not (terminated[place] or truncated[place]):
                    rows[i].hear(self._whole(infos["messages"][place]))
                    open_rows.append(i)
            open_rows.sort()
        with_logprobs = all(row.logprobs for row in rows)
        return {
            "prompt_ids": [row.ids[: row.prompt] for row in rows],
            "completion_ids": [row.ids[row.prompt :] for row in rows],
            "logprobs": [row.logprobs for row in rows] if with_logprobs else None,
            # Of an episode that the machinery spoilt nothing is learned, by its neighbours neither.
            "env_mask": [row.mask if row.valid else [0] * len(row.mask) for row in rows],
            "episode_return": _returns(rows, prompts),
            "success": [row.success for row in rows],
        }

    def close(self) -> None:
        """Close the environments."""
        if self._vector is not None:
            self._vector.close()
            self._vector = None

    def _members(self, count: int) -> Any:
        if self._vector is None or self._vector.num_envs != count:
            self.close()
            self._vector = make_vec(
                self._env_id, count, "auto", "text", split=self._split, autoreset="Disabled"
            )
        return self._vector

    def _whole(self, messages: Sequence[Message]) -> list[Message]:
        return [*self._prefix, *behind(self._prefix, messages)]


def episode_return(
    completions: Sequence[Any], episode_return: Sequence[float], **kwargs: Any
) -> list[float | None]:
    """Return what each episode earned: a reward function for the trainer."""
    return list(episode_return)


class _Row:
    """A dialogue as one row of tokens."""

    def __init__(self, chat: Chat, messages: Sequence[Message]) -> None:
        self._chat = chat
        self.ids = chat.tokenize(chat.render(messages))
        self.prompt = len(self.ids)
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.episode_return, self.success, self.valid = 0.0, False, True

    def say(self, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        """Add what the model wrote."""
        self._add(ids, 1, logprobs)

    def hear(self, messages: Sequence[Message]) -> None:
        """Add what follows the last message of the assistant, as the template writes it."""
        ended = self.ids[-1] == self._chat.end
        self._add(self._chat.reply_to(messages, ended), 0, None)

    def _add(self, ids: Sequence[int], mine: int, logprobs: Sequence[float] | None) -> None:
        self.ids.extend(ids)
        self.mask.extend([mine] * len(ids))
        if logprobs is not None or (self.logprobs and not mine):
            self.logprobs.extend(logprobs or [0.0] * len(ids))


def _returns(rows: Sequence[_Row], prompts: Sequence[Any]) -> list[float]:
    """Return what each episode earned; a spoilt one as much as the others of its task on average.

    TRL compares all of a task, whatever their masks say.
    """
    valid: dict[Any, list[float]] = {prompt: [] for prompt in prompts}
    for row, prompt in zip(rows, prompts, strict=True):
        if row.valid:
            valid[prompt].append(row.episode_return)
    return [
        row.episode_return if row.valid or not valid[prompt] else fmean(valid[prompt])
        for row, prompt in zip(rows, prompts, strict=True)
    ]


def _seed_of(prompt: Any) -> int:
    try:
        return int(prompt)
    except (TypeError, ValueError):
        raise UserError(
            f"{prompt!r} is no task of Palaestra: train on what `Rollouts.tasks` returns"
        ) from None
