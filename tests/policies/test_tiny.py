"""The model from scratch: what its tokenizer makes of texts, above all of numbers."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palaestra.policies.tiny import make_tiny
from palaestra.train.demonstrations import demonstrations
from transformers import AutoTokenizer

ENV = "palaestra/Calculator-v0"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, demonstrations(ENV, "blind", 500, seed=0), seed=0)
    return AutoTokenizer.from_pretrained(folder)


@given(text=st.text())
def test_every_text_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(number=st.decimals(allow_nan=False, allow_infinity=False), before=st.text(" (", max_size=2))
def test_no_token_holds_two_digits(tokenizer: Any, number: Any, before: str) -> None:
    for token in tokenizer.encode(f"{before}{number} plus {number}?"):
        assert sum(c.isdigit() for c in tokenizer.decode([token])) <= 1


def test_a_tag_is_one_token(tokenizer: Any) -> None:
    said = [tokenizer.decode([t]) for t in tokenizer.encode("<calculator>9 * 44</calculator>")]
    assert said == ["<calculator>", "9", " *", " ", "4", "4", "</calculator>"]
