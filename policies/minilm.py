"""How PPO reads: a frozen sentence encoder with a cache of every text it has seen."""

from collections.abc import Sequence
from functools import cache, lru_cache

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from .. import assets
from .crossing import messages, texts
from .quiet import quietly

EMBEDDING = 384
"""Width of an embedding of all-MiniLM-L6-v2."""
_BATCH, _BUCKET, _MAX_TOKENS = 16, 16, 256


class SentenceEncoder:
    """all-MiniLM-L6-v2: texts to unit vectors, each text computed once.

    Source: Reimers and Gurevych, "Sentence-BERT" (2019); mean pooling over the tokens, as the
    model card asks for.

    Args:
        device: Where the model runs and the embeddings stay.
        capacity: Embeddings that are kept; the oldest are forgotten.
    """

    def __init__(self, device: torch.device, capacity: int = 200_000) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = assets.minilm_directory()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        with quietly():
            self._model = AutoModel.from_pretrained(folder).to(device).eval()
        self._device = device
        self._capacity = capacity
        self._cache: dict[str, torch.Tensor] = {"": torch.zeros(EMBEDDING, device=device)}

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the embeddings of B texts, shape (B, 384), of length 1; of "" it is zeros."""
        self._learn({text for text in texts if text not in self._cache})
        found = torch.stack([self._cache[text] for text in texts])
        while len(self._cache) > self._capacity:
            del self._cache[next(text for text in self._cache if text)]
        return found

    def _learn(self, new: set[str]) -> None:
        """Embed new texts, in batches of one shape for each length.

        The last bits of a matrix product depend on its shape. With fixed shapes an embedding
        depends on its text alone, so a resumed run sees what the killed one saw.
        """
        by_length: dict[int, list[str]] = {}
        for text in sorted(new):
            length = min(len(self._tokenizer(text, verbose=False)["input_ids"]), _MAX_TOKENS)
            by_length.setdefault(-(-length // _BUCKET) * _BUCKET, []).append(text)
        for length, group in by_length.items():
            for start in range(0, len(group), _BATCH):
                batch = group[start : start + _BATCH]
                padded = batch + batch[:1] * (_BATCH - len(batch))
                self._cache.update(zip(batch, self._embed(padded, length), strict=False))

    @torch.no_grad()
    def _embed(self, texts: list[str], length: int) -> torch.Tensor:
        tokens = self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self._device)
        hidden_B_T_E = self._model(**tokens).last_hidden_state
        mask_B_T_1 = tokens["attention_mask"].unsqueeze(-1)
        mean_B_E = (hidden_B_T_E * mask_B_T_1).sum(1) / mask_B_T_1.sum(1)
        return nn.functional.normalize(mean_B_E, dim=-1)


@cache
def sentence_encoder(device: torch.device) -> SentenceEncoder:
    """Return the encoder of a device: one for all policies, so that they share its cache."""
    return SentenceEncoder(device)


class MiniLMExtractor(BaseFeaturesExtractor):
    """Turn the observations of `AsChoices` into embeddings of what they say.

    The features are, side by side, of the task (the first message of the dialogue that is not
    the system's), of the world's newest reply (zeros as long as there is none), and of the K
    choices, each 384 wide, and the mask of K. The encoder is frozen and shared, and no part of
    what a policy saves.

    Raises:
        ValueError: the observation space is not that of `AsChoices`.
    """

    constant_features = True
    """The features of an observation never change, so one rollout needs them once."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        if not isinstance(observation_space, spaces.Dict) or set(observation_space) != {
            "dialogue",
            "choices",
            "mask",
        }:
            raise ValueError(
                f"{observation_space} holds no text: wrap the environment in AsChoices"
            )
        self.choices = int(observation_space["mask"].shape[0])  # type: ignore[index]
        super().__init__(observation_space, (2 + self.choices) * EMBEDDING + self.choices)
        self._messages = lru_cache(maxsize=65_536)(_task_and_reply)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the features of B observations, shape (B, features_dim)."""
        mask_B_K = observations["mask"]
        encoder = sentence_encoder(mask_B_K.device)
        dialogues = texts(observations["dialogue"])
        said = [text for dialogue in dialogues for text in self._messages(dialogue)]
        said += texts(observations["choices"].flatten(0, 1))
        embeddings = encoder(said)
        rows = len(dialogues)
        return torch.cat(
            [
                embeddings[: 2 * rows].reshape(rows, -1),
                embeddings[2 * rows :].reshape(rows, -1),
                mask_B_K.float(),
            ],
            dim=1,
        )

    def __deepcopy__(self, memo: object) -> "MiniLMExtractor":
        return type(self)(self._observation_space)  # type: ignore[arg-type]


def _task_and_reply(dialogue: str) -> tuple[str, str]:
    """Return the first message of the world that is not the system's, and its newest reply."""
    said = messages(dialogue)
    heard = [m["content"] for m in said if m["role"] not in ("system", "assistant")]
    return (heard[0] if heard else "", heard[-1] if len(heard) > 1 else "")
