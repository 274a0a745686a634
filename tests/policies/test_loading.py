"""What a model learns under."""

from collections.abc import Iterator

import pytest
import torch
from palaestra.policies.loading import running
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def model(width: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1, vocab_size=999,
            num_attention_heads=4, num_key_value_heads=4,
        )
    )  # fmt: skip


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("width", "threads"), [(64, 1), (256, 2)])
def test_a_small_model_has_one_thread_while_it_learns(width: int, threads: int) -> None:
    with running(model(width)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyboardInterrupt), running(model(width)):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2


def test_numbers_next_to_nothing_are_nothing_while_it_learns() -> None:
    nearly = torch.tensor([1e-40])
    with running(model(64)):
        assert not (nearly * 0.5).any()
    assert (nearly * 0.5).any()
