"""A causal language model as a policy of stable-baselines3.

    env = TokenVecEnv(make_vec(env_id, 32, view="dialogue", autoreset="SameStep"), name)
    PPO(LanguagePolicy, env, policy_kwargs={"model": name, "prefix": examples, "last_layers": 4})

Idea: a transformers model that generates is a stochastic policy whose action is the message, and
whose log-probability is the sum over its tokens. The ids that were sampled are the action, so
what is trained on is to the token what was said; the dialogue before it is the observation, and
is read in the same way at both times.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    Distribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..errors import UserError
from . import PACKAGED_MODEL
from .adapting import Start, adapt
from .causal_lm import CausalLM
from .critic import Critic
from .crossing import Message, behind, messages, texts
from .decoding import Choose, Continuation, Follow
from .draft import Copy, Draft
from .engines import engine_of, speaks_plainly
from .grammar import held_by
from .token_choice import Allowed, Evaluated, Writer, all_log_probs, evaluate_tokens, through

Answer = Callable[[list[int], Tensor], Any]
"""From the numbers of messages that have just ended and their tokens, shape (A, L), to observations
of dialogues that go on in their places, at most as many; None for none. Messages are numbered in
the order in which they are begun, those of the first dialogues from 0."""


class LanguagePolicy(ActorCriticPolicy):
    """Act by the messages that a causal language model writes, or by how likely it finds choices.

    With the observation of `AsDialogue` and actions of token ids (`MultiDiscrete`, see
    `palaestra.train.token_vec_env`) it writes messages. With the observation of `AsChoices` and
    their numbers (`Discrete`) the same weights score the choices, each by its log-probability as
    the next message (Carta et al., "Grounding Large Language Models in Interactive Environments
    with Online Reinforcement Learning", 2023), or by that of a token of it (Tan et al., "True
    Knowledge Comes from Practice", 2024).

    The critic reads what the last layer says behind the dialogue. The entropy of a message is
    the mean over its tokens; or, with `relative_entropy`, the negative KL divergence from the
    policy as it was at the start, summed over them. PPO's `ent_coef` then holds a policy near its
    start, as is usual with language models, where else it would draw it towards noise.

    Args:
        model: `SmolLM2-135M-Instruct`, a local folder, a GGUF file, or a name on a hub.
        prefix: Messages before every dialogue, solved tasks for instance; they begin with the
            system's, which then is not read again in the dialogue.
        last_layers: Layers that are trained; None for all, and all other weights.
        lora_rank: Rank of adapters that are trained in their stead; None for none.
        temperature: What logits are divided by, those of tokens or the scores of choices, both
            when acting and when learning.
        critic_gradient: Share of the critic's gradient that reaches the model, 0 to 1.
        critic_scale: What the critic's output is multiplied by: SB3 has one learning rate for
            all, and a critic wants a higher one than a language model.
        relative_entropy: Whether entropies are relative to the start.
        length_normalization: Whether the score of a choice is the mean of its tokens'
            log-probabilities instead of their sum, which leaves long choices little chance, and
            all but the best next to none.
        grammar: What messages are held to, when they are written and when they are learned from,
            in llguidance's Lark; `grammar.calls` writes one. None for nothing.
        dtype: Name of a torch dtype.
        sampling_dtype: Another, such as `bfloat16`, in which messages are sampled; what was
            sampled is then read once more in `dtype` for its log-probability. For GPUs: on a
            CPU the second reading takes longer than the first saves. None for none.
        sampling_engine: `vllm` lets vLLM write (`palaestra[vllm]`), which is read once more in
            the same way. None for our own.
        continuous_batching: Whether in the rollouts of Palaestra's PPO and GRPO a dialogue goes
            on as soon as its message has ended, and waits for no longer one; for environments
            that answer at once (`palaestra.train.continuous`).
        whole_dialogues: Whether Palaestra's PPO and GRPO put the turns of a dialogue into one
            minibatch, where the earlier are read with the last and not each by itself, if their
            text is the same tokens again. It is another order than stable-baselines3's.
        kwargs: For `ActorCriticPolicy`.

    Raises:
        UserError: there is no such model, an option is out of range, the spaces are not those
            of a dialogue, or (from `load_state_dict`) what was saved belongs to another model.
    """

    language_model: Any

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        model: str = PACKAGED_MODEL,
        prefix: Sequence[Message] = (),
        last_layers: int | None = None,
        lora_rank: int | None = None,
        temperature: float = 1.0,
        critic_gradient: float = 0.0,
        critic_scale: float = 10.0,
        relative_entropy: bool = False,
        length_normalization: bool = False,
        grammar: str | None = None,
        dtype: str = "float32",
        sampling_dtype: str | None = None,
        sampling_engine: str | None = None,
        continuous_batching: bool = False,
        whole_dialogues: bool = False,
        **kwargs: Any,
    ) -> None:
        if not (temperature > 0 and 0 <= critic_gradient <= 1 and critic_scale > 0):
            raise UserError(
                f"temperature={temperature} and critic_scale={critic_scale} must be above 0, and "
                f"critic_gradient={critic_gradient} between 0 and 1"
            )
        for name in (dtype, sampling_dtype or dtype):
            found = getattr(torch, name, None)
            if not (isinstance(found, torch.dtype) and found.is_floating_point):
                raise UserError(f"{name!r} is no float of torch: give float32, bfloat16 or float16")
        if sampling_engine not in (None, "vllm"):
            raise UserError(f"sampling_engine={sampling_engine!r} must be vllm, or None")
        _check_spaces(observation_space, action_space)
        self._settings: dict[str, Any] = {
            "model": model,
            "prefix": list(prefix),
            "last_layers": last_layers,
            "lora_rank": lora_rank,
            "temperature": temperature,
            "critic_gradient": critic_gradient,
            "critic_scale": critic_scale,
            "relative_entropy": relative_entropy,
            "length_normalization": length_normalization,
            "grammar": grammar,
            "dtype": dtype,
            "sampling_dtype": sampling_dtype,
            "sampling_engine": sampling_engine,
            "continuous_batching": continuous_batching,
            "whole_dialogues": whole_dialogues,
        }
        self.temperature, self.continuous_batching = temperature, continuous_batching
        self.relative_entropy, self.whole_dialogues = relative_entropy, whole_dialogues
        kwargs["features_extractor_class"] = _NoFeatures
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = super()._get_constructor_parameters() | self._settings
        return {k: v for k, v in parameters.items() if k != "features_extractor_class"}

    def _build(self, lr_schedule: Schedule) -> None:
        s = self._settings
        lm = CausalLM(s["model"], dtype=s["dtype"])
        if not speaks_plainly(lm.model):
            raise UserError(
                f"{s['model']!r} cannot be trained here: a {type(lm.model).__name__} scales or "
                "caps its logits; give a model of another architecture, such as Llama's or Qwen's"
            )
        self.chat, self._context = lm.chat, lm.context
        digest = torch.tensor(list(bytes.fromhex(lm.fingerprint)), dtype=torch.uint8)
        self.register_buffer("base_sha256", digest)
        first = adapt(lm.model, s["last_layers"], s["lora_rank"])
        self.language_model = lm.model
        self.engine = engine_of(lm.model, first)
        self.value_net = Critic(  # type: ignore[assignment]
            lm.model.config.hidden_size, s["critic_scale"], s["critic_gradient"]
        )
        self._grammar = lm.grammar(s["grammar"]) if s["grammar"] else None
        self._start = Start(lm.model)
        self._draft: Draft | None = None
        self._tokens = lru_cache(maxsize=65_536)(self._tokens_of)
        self._seen_weights = torch.empty(0)
        self._read_at_start: dict[tuple[int, ...] | bytes, Tensor] = {}
        self.optimizer = self.optimizer_class(
            [p for p in self.parameters() if p.requires_grad],
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    # What SB3 asks of a policy

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Act.

        Returns:
            Actions, shape (B, L) of token ids or (B,) of choices; values, shape (B, 1);
            log-probabilities, shape (B,).
        """
        if self._chooses:
            values_B1, distribution = self._weigh(obs)
            actions_B = distribution.get_actions(deterministic)
            return actions_B, values_B1, distribution.log_prob(actions_B)
        writer = Writer(self.temperature, deterministic)
        return self.write(obs, writer)

    @torch.no_grad()
    def write(
        self, obs: Any, writer: Writer, answer: Answer | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Write a message for each dialogue.

        Args:
            obs: Of the dialogues.
            writer: Takes the tokens.
            answer: Says which dialogues go on at once, in the places of those whose messages have
                just ended; none without.

        Returns:
            What `forward` returns, of all messages, in the order of their numbers.
        """
        prefix, prompts = self._prompts(obs)
        follow = self._following(prompts, answer) if answer else None
        if self._drafts:
            said, values_M1, log_probs_M = self._write_in_draft(prefix, prompts, writer, follow)
        else:
            found = self._decode(prefix, prompts, writer, follow)
            said = [continuation.tokens for continuation in found]
            values_M1 = self.value_net(torch.stack([c.hidden_H for c in found]).clone())
            log_probs_M = writer.log_probs(said).to(self.device)
        return self._padded(said), values_M1, log_probs_M

    def _following(self, prompts: list[list[int]], answer: Answer) -> Follow:
        """Return what asks for the answers in tokens, and adds them to those of the prompts."""

        def follow(ended: list[tuple[int, list[int]]]) -> list[list[int]]:
            numbers, said = zip(*ended, strict=True)
            seen = answer(list(numbers), self._padded(said))
            new = [] if seen is None else self._prompts(seen)[1]
            prompts.extend(new)
            return new

        return follow

    def _padded(self, said: Sequence[list[int]]) -> Tensor:
        actions_ML = torch.full((len(said), self._longest), self.chat.end, device=self.device)
        for row_L, tokens in zip(actions_ML, said, strict=True):
            row_L[: len(tokens)] = torch.tensor(tokens, device=self.device)
        return actions_ML

    def _write_in_draft(
        self, prefix: list[int], prompts: list[list[int]], writer: Writer, follow: Follow | None
    ) -> tuple[list[list[int]], Tensor, Tensor]:
        """Let the draft write, and return what this policy finds of it."""
        self._refresh()
        if self._draft is None:  # not before SB3 has put the model where it is to be
            self._draft = self._new_draft()
        at_once = len(prompts)
        said = self._draft.write(prefix, prompts, writer, self.chat.end, self._longest, follow)
        found = [
            self._evaluate(prefix, prompts[i : i + at_once], said[i : i + at_once], entropy=False)
            for i in range(0, len(said), at_once)
        ]
        values_M1 = torch.cat([values_B1 for values_B1, _ in found])
        return said, values_M1, torch.cat([evaluated.log_probs_B for _, evaluated in found])

    def _new_draft(self) -> Draft:
        s = self._settings
        dtype = s["sampling_dtype"] or s["dtype"]
        if s["sampling_engine"] is None:
            return Copy(self.language_model, getattr(torch, dtype), self._grammar)
        from .vllm_draft import VllmDraft  # what it needs is an extra

        return VllmDraft(self.language_model, self.chat, dtype, s["grammar"])

    def speak(self, obs: Any, choose: Choose) -> list[Continuation]:
        """Write a message for each dialogue, and tell nothing but what was written."""
        return self._decode(*self._prompts(obs), choose)

    def _decode(
        self,
        prefix: list[int],
        prompts: list[list[int]],
        choose: Choose,
        follow: Follow | None = None,
    ) -> list[Continuation]:
        self._refresh()
        choose, rest = held_by(self._grammar, choose)
        return self.engine.decode(
            prefix, prompts, choose, self.chat.end, self._longest, follow, rest
        )

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log-probabilities and entropies of actions, with gradients.

        Returns:
            Shapes (B, 1), (B,) and (B,).
        """
        if self._chooses:
            values_B1, distribution = self._score(obs)
            log_probs_B = distribution.log_prob(actions.long().flatten())
            if not self.relative_entropy:
                return values_B1, log_probs_B, distribution.entropy()
            return values_B1, log_probs_B, -_kl(distribution, self._first_choices(obs))
        prefix, prompts = self._prompts(obs)
        values_B1, evaluated = self._evaluate(
            prefix, prompts, self._said(actions), True, self.relative_entropy
        )
        return values_B1, evaluated.log_probs_B, evaluated.entropies_B

    @torch.no_grad()
    def kl_and_entropy(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far it has come from the start, and how sure it is, at each action.

        Returns:
            KL divergences, of a message the sum over its tokens of what each could have been;
            and entropies, of a message the mean over its tokens. Shapes (B,), in nats.
        """
        if self._chooses:
            distribution = self._score(obs)[1]
            return _kl(distribution, self._first_choices(obs)), distribution.entropy()
        (prefix, prompts), said = self._prompts(obs), self._said(actions)
        hidden_BNH = self.engine.evaluate(prefix, prompts, self._decided(said))
        allowed = self._allowed(said)
        first = self._first(prefix, prompts, said, allowed)
        relative_B, entropies_B = (
            evaluate_tokens(
                self._head, hidden_BNH, said, self.temperature, True, start, allowed
            ).entropies_B
            for start in (first, None)
        )
        assert relative_B is not None
        assert entropies_B is not None
        return -relative_B, entropies_B

    def _said(self, actions: Tensor) -> list[list[int]]:
        """Return the tokens of messages, as far as they go."""
        return [through(row, self.chat.end) for row in actions.long().tolist()]

    def predict_values(self, obs: Any) -> Tensor:
        """Return the critic's values, shape (B, 1)."""
        self._refresh()
        prefix, prompts = self._prompts(obs)
        values_B1: Tensor = self.value_net(self.engine.last(prefix, prompts).clone())
        return values_B1

    def get_distribution(self, obs: Any) -> Distribution:
        """Return the distribution of choices.

        Raises:
            UserError: the actions are messages, of which there are too many to list.
        """
        if not self._chooses:
            raise UserError("messages have no distribution that could be listed: use `forward`")
        return self._weigh(obs)[1]

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.forward(observation, deterministic)[0]

    def set_training_mode(self, mode: bool) -> None:
        """Tell whether there will be an update; what is likely stays so, dropout or not."""
        super().set_training_mode(mode)
        self.language_model.eval()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return what was trained, and the hash of the model that it was trained from."""
        kept = {name for name, p in self.named_parameters() if p.requires_grad} | {"base_sha256"}
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if k in kept}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take back what `state_dict` returned.

        Raises:
            UserError: it was trained from another base model, or other parts of it were trained.
        """
        base = state_dict.get("base_sha256")
        if base is None or not torch.equal(base.cpu(), self.state_dict()["base_sha256"].cpu()):
            raise UserError(
                f"this was trained from another model than {self._settings['model']!r} is now: "
                "give the one that it was trained from"
            )
        if state_dict.keys() != self.state_dict().keys():
            raise UserError("other weights were saved than are trained here: give the same "
                            "last_layers and lora_rank")  # fmt: skip
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    @property
    def manner(self) -> dict[str, Any]:
        """What decides what it says, beside its weights; plain data."""
        settings = {name: self._settings[name] for name in ("prefix", "temperature", "grammar")}
        return settings | {"most_tokens": self._longest, "chat": self.chat.fingerprint}

    def forget(self) -> None:
        """Forget what was read: the last bits of what is read anew may be others."""
        self._read_at_start.clear()
        self.engine.forget()
        if self._draft:
            self._draft.forget()

    # Reading

    @property
    def _head(self) -> Any:
        return self.language_model.get_output_embeddings()

    def _allowed(self, said: list[list[int]]) -> Allowed | None:
        return None if self._grammar is None else self._grammar.allowed(said)

    def _decided(self, said: list[list[int]]) -> list[list[int]]:
        """Return as much of messages as is read to evaluate them: the rest could be nothing else.

        It is also as much as was read when they were written.
        """
        grammar = self._grammar
        return [tokens[: grammar.decided(tokens)] for tokens in said] if grammar else said

    @property
    def _drafts(self) -> bool:
        return bool(self._settings["sampling_dtype"] or self._settings["sampling_engine"])

    @property
    def _chooses(self) -> bool:
        return isinstance(self.action_space, spaces.Discrete)

    def _prompts(self, obs: Any) -> tuple[list[int], list[list[int]]]:
        """Return the tokens of the prefix, and of each dialogue behind it."""
        dialogues = texts(obs["dialogue"] if self._chooses else obs)
        prefix, _ = self._tokens("")
        return prefix, [self._tokens(dialogue)[1] for dialogue in dialogues]

    def _tokens_of(self, dialogue: str) -> tuple[list[int], list[int]]:
        prefix, room = self._settings["prefix"], self._context - self._longest
        said = behind(prefix, messages(dialogue))
        # A dialogue that crossed empty, as the last observation of some worlds, is still a row.
        ids, [prompt] = self.chat.prompts([said or _SILENCE], prefix, room)
        return ids, prompt

    @property
    def _longest(self) -> int:
        space: Any = self.action_space
        return 64 if self._chooses else len(space.nvec)

    def _refresh(self) -> None:
        """Forget what was computed with weights that an update has changed since."""
        # Some of each, for any step changes some of all; fused optimisers leave no other trace.
        trained = [p for p in self.language_model.parameters() if p.requires_grad]
        some = torch.cat([p.detach().flatten()[:4].float() for p in trained])
        if not torch.equal(some, self._seen_weights):
            self.forget()
            if self._draft:
                self._draft.refresh()
            self._seen_weights = some

    def _evaluate(
        self,
        prefix: list[int],
        prompts: list[list[int]],
        said: list[list[int]],
        entropy: bool,
        relative: bool = False,
    ) -> tuple[Tensor, Evaluated]:
        hidden_BNH = self.engine.evaluate(prefix, prompts, self._decided(said))
        allowed = self._allowed(said)
        # Last, for what the engine keeps of the frozen part is now there.
        first = self._first(prefix, prompts, said, allowed) if relative else None
        evaluated = evaluate_tokens(
            self._head, hidden_BNH, said, self.temperature, entropy, first, allowed
        )
        return self.value_net(hidden_BNH[:, 0]), evaluated

    def _first(
        self,
        prefix: list[int],
        prompts: list[list[int]],
        said: list[list[int]],
        allowed: Allowed | None,
    ) -> list[Tensor]:
        """Return how likely at the start all was that could stand in messages."""
        decided = self._decided(said)
        rows = [(*prompt, -1, *tokens) for prompt, tokens in zip(prompts, decided, strict=True)]
        with self._start.instead():
            # The start does not change: an update reads each of its rows once for all epochs.
            if new := [i for i, row in enumerate(rows) if row not in self._read_at_start]:
                asked = [prompts[i] for i in new], [decided[i] for i in new]
                for i, hidden_NH in zip(new, self.engine.evaluate(prefix, *asked), strict=True):
                    self._read_at_start[rows[i]] = hidden_NH[: len(decided[i])].clone()
            known = [self._read_at_start[row] for row in rows]
            hidden_BNH = pad_sequence(known, batch_first=True)
            return all_log_probs(self._head, hidden_BNH, said, self.temperature, allowed)

    def _first_choices(self, obs: Any) -> CategoricalDistribution:
        """Return the distribution over choices as it was at the start."""
        parts = (obs[part].cpu().numpy() for part in ("dialogue", "choices", "mask"))
        keys = [b"".join(part.tobytes() for part in row) for row in zip(*parts, strict=True)]
        with self._start.instead():
            # As of messages, each is asked once an update.
            if new := [i for i, key in enumerate(keys) if key not in self._read_at_start]:
                found = self._score({part: rows[new] for part, rows in obs.items()})[1]
                logits_BK: Tensor = found.distribution.logits
                self._read_at_start |= zip([keys[i] for i in new], logits_BK, strict=True)
        return self._categorical(torch.stack([self._read_at_start[key] for key in keys]))

    def _weigh(self, obs: Any) -> tuple[Tensor, CategoricalDistribution]:
        """Return values and the distribution over choices, of which one is about to be taken."""
        if torch.is_grad_enabled():
            return self._score(obs)
        self._refresh()
        return self._score(obs, acting=True)

    def _score(self, obs: Any, acting: bool = False) -> tuple[Tensor, CategoricalDistribution]:
        """Return values, and the distribution over choices by their scores."""
        read = self.engine.weigh if acting else self.engine.evaluate
        prefix, prompts = self._prompts(obs)
        mask_BK = obs["mask"].bool()
        said = texts(obs["choices"].flatten(0, 1))
        choices, of = [], []
        for place in mask_BK.flatten().nonzero().flatten().tolist():
            of.append(place // mask_BK.shape[1])
            choices.append([*self.chat.tokenize(said[place])[: self._longest], self.chat.end])
        logits_BK = torch.full(mask_BK.shape, _MASKED, device=self.device)
        if not choices:  # the last observation of an episode has none
            values_B1: Tensor = self.value_net(self.engine.last(prefix, prompts).clone())
            return values_B1, self._categorical(logits_BK)
        hidden_RNH = read(prefix, [prompts[i] for i in of], choices, of)
        scores_R = evaluate_tokens(self._head, hidden_RNH, choices, 1.0, False).log_probs_B
        if self._settings["length_normalization"]:
            scores_R = scores_R / torch.tensor([len(tokens) for tokens in choices]).to(scores_R)
        logits_BK = logits_BK.masked_scatter(mask_BK, scores_R / self.temperature)
        firsts_B = mask_BK.sum(1).cumsum(0) - mask_BK.sum(1)
        values_B1 = self.value_net(hidden_RNH[firsts_B.clamp(max=len(choices) - 1), 0])
        return values_B1, self._categorical(logits_BK)

    def _categorical(self, logits_BK: Tensor) -> CategoricalDistribution:
        # Where there are no choices all are masked, and as likely as each other.
        above_BK = logits_BK - logits_BK.detach().amax(1, keepdim=True)
        return CategoricalDistribution(logits_BK.shape[1]).proba_distribution(above_BK)


def _kl(distribution: CategoricalDistribution, first: CategoricalDistribution) -> Tensor:
    """Return the KL divergence, shape (B,), which torch's own takes for infinite where it is not.

    What is less likely than a float can say still has a likelihood.
    """
    now_BK, then_BK = distribution.distribution.logits, first.distribution.logits
    return (now_BK.exp() * (now_BK - then_BK)).sum(1)


_MASKED = -1e8
"""Logit of a padded choice: finite, so that the entropy stays a number."""
_SILENCE: list[Message] = [{"role": "user", "content": ""}]


class _NoFeatures(BaseFeaturesExtractor):
    """Stands where SB3 wants an extractor: the language model itself reads the observation."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, 1)


def _check_spaces(observed: spaces.Space[Any], acted: spaces.Space[Any]) -> None:
    writes = isinstance(observed, spaces.Box) and observed.dtype == "uint8"
    writes = writes and isinstance(acted, spaces.MultiDiscrete)
    chooses = isinstance(observed, spaces.Dict) and {"dialogue", "choices", "mask"} <= set(observed)
    if not (writes or (chooses and isinstance(acted, spaces.Discrete))):
        raise UserError(
            f"a language model reads dialogues: give an environment in TokenVecEnv, or in "
            f"AsChoices, and not one with {observed} and {acted}"
        )
