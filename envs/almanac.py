"""Almanac: questions about the countries of the world, and a search that shows what it finds."""

from typing import ClassVar

from .questions.factbook_env import FactbookEnv
from .questions.factbook_store import PASSAGES


class Almanac(FactbookEnv):
    """Answer questions about countries from passages of The World Factbook.

    ## Description
    "What is the highest point of Barbados?": search for passages, read the three that are shown,
    and report what one of them says. There is one tool, whose results are read at once, as in
    Search-R1 (Jin et al., 2025, arXiv:2503.09516). The factbook has 256 entries, each field of
    which is a passage, or several of at most 60 words: 79,575 in all. There are three levels,
    which ask what those of `Factbook` ask. In `one-hop` one passage tells the answer: ten
    facts of a country, such as its capital, currency or highest point; others that are much like
    it may be shown beside it. In `multi-hop` it takes several: the one country that borders
    two others, the capital of the country that has a mountain, a fact of the country that has
    an anthem, the capital beyond the longest border, the neighbour with the largest population.
    In `comparison` six countries are named, and one of them is the answer: the one with the
    largest or second largest, smallest or second smallest number. The splits share no country
    in `one-hop` and `comparison`, and no question in `multi-hop`. `paraphrase` asks about those
    of `test` in phrasings that no other split uses.

    ## Action Space
    `Text`: a message with one call, `<search>Barbados highest point</search>` (or JSON in
    `<tool_call>`), or with the answer, `<answer>Mount Hillaby</answer>`.

    ## Observation Space
    `Text`: the question, then what the search says: the three passages that fit best, a line
    each. `info["gold"]` has the passages that are needed.

    ## Rewards
    1 for the right answer, 0 otherwise, -0.1 for a message that holds neither a call nor an
    answer. Case, accents, articles, units and other names of a country do not matter.

    ## Episode End
    Terminated by an answer, or after 4 messages in `one-hop` and 9 in the other levels;
    truncated when the index fails, with `info["failure"] == "infra"`.

    ## Reference Scores
    Success on `test`: random choices 0.12 in `one-hop` and `multi-hop` (one in eight), 0.17 in
    `comparison` (one in six); oracle 1 in each. On `one-hop` SmolLM2-135M-Instruct, 9 shots, held
    to the form of calls, greedy 0.31 (0.22 to 0.41), sampled at temperature 1 0.15 (0.08 to
    0.22), 96 episodes each. Choosing among eight messages, without examples, sampled 0.51
    (0.39 to 0.63), and after 1,024 messages of PPO by the recipe `language-choices` 0.75 (0.59
    to 0.90), a gain of 0.235 (0.192 to 0.278); these intervals are over three training seeds, 200
    episodes each. Writing, after 32 of the oracle's dialogues, sampled at temperature 0.7, 0.41
    (0.36 to 0.47), and after 1,536 messages of PPO by the recipe `language-ppo` 0.56 (0.48 to
    0.63), a gain of 0.145 (0.109 to 0.181), over five training seeds, 400 episodes each.

    ## Version History
    v0: first version.
    """

    form = PASSAGES
    turns: ClassVar[dict[str, int]] = {"one-hop": 4, "multi-hop": 9, "comparison": 9}
    instructions = (
        "Answer the question from The World Factbook. Find passages with <search>words</search>, "
        "which shows three. Then reply with <answer>result</answer>, a name, number, code or date "
        "as the passage has it."
    )
