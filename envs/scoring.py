"""Scorers: how right an answer is.

Each takes an answer, which may be any text at all, and the truth. The first four say yes or no,
the others how near the answer comes, from 0 to 1. None raises, and none takes longer than a
message may: what is slow or strict to parse (a number of a billion digits, a date) is refused.
"""

import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from functools import cache, cached_property
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

# As many digits as fit into a message, any exponent, and no exception for any operation.
_EXACT = Context(prec=5000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


def is_same(answer: str, truth: str) -> bool:
    """Compare two answers: as numbers if the truth is one, else as words.

    A fraction may be rounded to six digits, a whole number may not. Words are compared without
    regard to case, accents, spaces and a full stop at the end.
    """
    return _is_same(_Answer(answer), _Answer(truth))


def all_differ(answers: Sequence[str]) -> bool:
    """Tell whether no answer would pass for another one with `is_same`."""
    read = [_Answer(answer) for answer in answers]
    return not any(_is_same(one, other) for one, other in permutations(read, 2))


def exact(answer: str, truth: str) -> bool:
    """Compare letter by letter; only spaces around the answer do not count."""
    return answer.strip() == truth.strip()


def numeric(answer: str, truth: int | float, rel_tol: float = 0.0, abs_tol: float = 0.0) -> bool:
    """Compare two finite numbers, in decimals: 0.3 is 0.3, and 2**53 + 1 is not 2**53.

    Either tolerance is enough, as with `math.isclose`, but the relative one is a share of the
    truth: else a large wrong answer would widen it.
    """
    given = _decimal(answer)
    expected = Decimal(truth) if isinstance(truth, int) else Decimal(str(float(truth)))
    if given is None or not expected.is_finite():
        return False
    with localcontext(_EXACT):
        allowed = max(Decimal(abs_tol), Decimal(rel_tol) * abs(expected))
        return abs(given - expected) <= allowed


def same_set(answer: str, truths: Collection[str], separator: str = ",") -> bool:
    """Compare the items of a list, folded, without regard to their order and repetitions."""
    given = {folded(item) for item in answer.split(separator)} - {""}
    return given == {folded(truth) for truth in truths} - {""}


def rouge_l(answer: str, truth: str) -> float:
    """Return ROUGE-L: the F1 of the longest common subsequence of words.

    Words are runs of a-z and 0-9, in lower case and not stemmed, as the package rouge-score has
    them; so two texts in other letters share none.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3.
    """
    # Numba takes longer to import than most environments take to play.
    from .lcs import lcs_length

    given, expected = _words(answer), _words(truth)
    if not given or not expected:
        return 0.0
    numbers = {word: i for i, word in enumerate({*given, *expected})}
    common = lcs_length(_numbered(given, numbers), _numbered(expected, numbers))
    return 2 * common / (len(given) + len(expected))


def chrf(answer: str, truth: str) -> float:
    """Return sacrebleu's chrF2 of a sentence: F2 over n-grams of up to six characters.

    Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation" (2015).
    """
    return _share(_chrf().sentence_score(answer, [truth]).score)


def bleu(answer: str, truth: str) -> float:
    """Return sacrebleu's BLEU-4 of a sentence: tokenised as 13a, smoothed, effective order.

    Source: Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation"
    (2002); Chen and Cherry, "A Systematic Comparison of Smoothing Techniques for Sentence-Level
    BLEU" (2014), method 3.
    """
    return _share(_bleu().sentence_score(answer, [truth]).score)


def folded(text: str) -> str:
    """Return the words of a text without case, accents, extra spaces and a last full stop."""
    letters = text.casefold()
    if not letters.isascii():  # most are, and have nothing to take away
        apart = unicodedata.normalize("NFKD", letters)
        letters = "".join(c for c in apart if not unicodedata.combining(c))
    return " ".join(letters.split()).rstrip(".")


class _Answer:
    """An answer whose number and words are read once, and not before they are needed."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def number(self) -> Decimal | None:
        return _decimal(self._text)

    @cached_property
    def words(self) -> str:
        return folded(self._text)


def _is_same(answer: _Answer, truth: _Answer) -> bool:
    expected = truth.number
    if expected is None:
        return answer.words == truth.words
    given = answer.number
    if given is None or expected == expected.to_integral_value():
        return given == expected
    return math.isclose(given, expected, rel_tol=5e-6)


def _decimal(text: str) -> Decimal | None:
    # In a context of its own, which traps nothing: that of the thread would note every failure.
    value = Decimal(_plain(text), _EXACT)
    return value if value.is_finite() else None


def _plain(text: str) -> str:
    return text.strip().rstrip(".").replace("−", "-").replace(",", "")


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def _numbered(words: list[str], numbers: dict[str, int]) -> NDArray[np.int64]:
    return np.array([numbers[word] for word in words], dtype=np.int64)


def _share(percent: float) -> float:
    # A product of n rounded precisions may exceed 100 by a bit.
    return min(max(percent / 100, 0.0), 1.0)


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@cache
def _bleu() -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)
