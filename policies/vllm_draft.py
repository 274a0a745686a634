"""vLLM as what writes in the place of a language model that learns.

It is given the model's weights after every update, as transformers names them, and nothing is
written to disk but a description of the model. Source: Kwon et al., "Efficient Memory Management
for Large Language Model Serving with PagedAttention" (2023).
"""

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from .adapting import merged_weights
from .branches import Ids
from .chat import Chat
from .decoding import Follow
from .draft import Draft
from .generators import left_alone
from .token_choice import Writer, through

_SHARE = 0.4
"""Of the GPU's memory, for vLLM's weights and its keys and values; the rest is for learning."""


class VllmDraft(Draft):
    """Write with vLLM, in this process and on the device of the model, the first of its kind.

    Messages depend on torch's generator alone, each by a seed that is drawn from it.

    Args:
        model: What is trained.
        chat: Its tokenizer.
        dtype: Name of a torch dtype, in which vLLM runs.
        grammar: What messages are held to, in llguidance's Lark.

    Raises:
        UserError: vLLM is not installed, runs on another device, or cannot run this model.
    """

    def __init__(
        self, model: PreTrainedModel, chat: Chat, dtype: str, grammar: str | None = None
    ) -> None:
        # vLLM reads this as it starts; in a process of its own it would not see our weights.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # Below it warns at every update that tables of positions were not among the weights.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            import vllm
            from vllm.platforms import current_platform
            from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        except ImportError as error:
            raise UserError(
                f"sampling_engine=vllm needs vLLM ({error}): pip install 'palaestra[vllm]'"
            ) from None
        kind = current_platform.device_type
        if model.device not in (torch.device(kind), torch.device(kind, 0)):
            raise UserError(f"vLLM runs on {kind}, and the model on {model.device}: give --device")
        self._model, self._parameters = model, vllm.SamplingParams
        # A model may name more tokens that end a text; here one ends a message.
        self._asked: dict[str, Any] = {"ignore_eos": True, "detokenize": False}
        self._asked["output_kind"] = RequestOutputKind.FINAL_ONLY
        if grammar is not None:
            self._asked["structured_outputs"] = StructuredOutputsParams(grammar=grammar)
        on_cpu = model.device.type == "cpu"
        with _described(model, chat) as folder, left_alone():  # for vLLM seeds them
            try:
                self._vllm: Any = vllm.LLM(
                    folder,
                    load_format="dummy",
                    dtype=dtype,
                    generation_config="vllm",
                    max_model_len=model.config.max_position_embeddings,
                    enable_prefix_caching=True,
                    gpu_memory_utilization=_SHARE,
                    enforce_eager=on_cpu,
                    enable_chunked_prefill=not on_cpu,  # there it fails where messages have seeds
                    structured_outputs_config={"backend": "guidance"},
                )
            except Exception as error:  # of any kind, from deep within
                raise UserError(f"vLLM cannot run {chat.name!r}: {error!r}") from error
        self.refresh()

    def write(
        self,
        prefix: Ids,
        prompts: Sequence[Ids],
        writer: Writer,
        end: int,
        max_new_tokens: int,
        follow: Follow | None = None,
    ) -> list[list[int]]:
        """Continue each prompt until it says `end` or has as many new tokens as it may."""
        asked = self._asked | {
            "temperature": 0.0 if writer.greedy else writer.temperature,
            "max_tokens": max_new_tokens,
            "stop_token_ids": [end],
        }
        engine = self._vllm.llm_engine
        said: list[list[int]] = [[] for _ in prompts]
        try:
            self._ask(prefix, prompts, 0, asked)
            while engine.has_unfinished_requests():
                # By their numbers, for in which order they are told is vLLM's affair.
                ended = sorted((int(row.request_id), row) for row in engine.step() if row.finished)
                for n, row in ended:
                    said[n] = through(list(row.outputs[0].token_ids), end)
                if ended and follow:
                    new = follow([(n, said[n]) for n, _ in ended])
                    said += [[] for _ in new]
                    self._ask(prefix, new, len(said) - len(new), asked)
        except BaseException:  # what is asked next must not be told of these
            engine.abort_request([str(n) for n in range(len(said))])
            raise
        return said

    def _ask(self, prefix: Ids, prompts: Sequence[Ids], first: int, asked: dict[str, Any]) -> None:
        """Let vLLM begin with messages, of which the first has this number."""
        seeds = torch.randint(2**31, (len(prompts),)).tolist()
        for n, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), first):
            row = {"prompt_token_ids": [*prefix, *prompt]}
            self._vllm.llm_engine.add_request(str(n), row, self._parameters(seed=seed, **asked))

    def refresh(self) -> None:
        """Take all weights."""
        weights = merged_weights(self._model)
        self._vllm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})

    def forget(self) -> None:
        """Forget what was read."""
        if not self._vllm.reset_prefix_cache():
            raise RuntimeError("vLLM still holds what it read with other weights")


@contextmanager
def _described(model: PreTrainedModel, chat: Chat) -> Iterator[str]:
    """Write what vLLM has to know of a model into a folder, for a while."""
    config = copy.deepcopy(model.config)
    # Weights that two layers share are laid out twice there, and reloaded once.
    config.tie_word_embeddings = False
    config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        chat.tokenizer.save_pretrained(folder)
        yield folder
