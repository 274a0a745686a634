"""Factbook: questions about the countries of the world, and two tools to look them up."""

from typing import ClassVar

from .questions.factbook_env import FactbookEnv
from .questions.factbook_store import PAGES


class Factbook(FactbookEnv):
    """Answer questions about countries by searching The World Factbook.

    ## Description
    "What is the capital of the country whose national anthem is called "Kassaman"?": search
    for pages, open the one that tells, follow what it says to the next, and report what stands
    there. The factbook has 256 entries on 13,196 pages of at most 120 words. There are three
    levels. In `one-hop` a page tells the answer: ten facts of a country, such as its capital,
    currency or highest point. In `multi-hop` it takes several pages: the one country that
    borders two others, the capital of the country that has a mountain, a fact of the country
    that has an anthem, the capital beyond the longest border, the neighbour with the largest
    population. In `comparison` six countries are named, and one of them is the answer: the one
    with the largest or second largest, smallest or second smallest number. (Of two, every
    other guess would be right.) The splits share no country in `one-hop` and `comparison`, and
    no question in `multi-hop`. `paraphrase` asks about those of `test` in phrasings that no
    other split uses.

    ## Action Space
    `Text`: a message with one call, `<search>France capital</search>` or
    `<open_page>france/government/1</open_page>` (or JSON in `<tool_call>`), or with the answer,
    `<answer>Paris</answer>`.

    ## Observation Space
    `Text`: the question, then what the tools say: the names, titles and excerpts of the five
    pages that fit a search best, or a page. `info["gold"]` has the names of the pages that are
    needed.

    ## Rewards
    1 for the right answer, 0 otherwise, -0.1 for a message that holds neither a call nor an
    answer. Case, accents, articles, units and other names of a country do not matter.

    ## Episode End
    Terminated by an answer, or after 6 messages in `one-hop` and 12 in the other levels;
    truncated when the index fails, with `info["failure"] == "infra"`.

    ## Reference Scores
    Success on `test`: random choices 0.12 in `one-hop` and `multi-hop` (one in eight), 0.17 in
    `comparison` (one in six); oracle 1 in each. On `one-hop` PPO through `AsChoices` and MiniLM
    0.26 (0.20 to 0.32; 6,144 steps, one training seed, 200 episodes), where random choices took
    0.16 (0.11 to 0.21) of the same tasks; SmolLM2-135M-Instruct, 2 shots, greedy 0.03 (0.01 to
    0.05; 200 episodes), with 4.3 messages an episode that hold no call and no answer; sampled at
    temperature 1 0.00 (none of 200), with 5.5 of them. After 96 dialogues of the oracle (all
    weights) and held to the form of calls, greedy 0.81 (0.75 to 0.86; four training seeds, 200 or
    400 episodes each); after 1,280 messages of PPO on top 0.84 (0.78 to 0.90), a gain of 0.028
    (-0.029 to 0.085) on the same tasks. These intervals are over training seeds.
    Choosing among eight messages, after 32 of those dialogues, sampled 0.96 (0.92 to 0.98; one
    training seed, 200 episodes).

    ## Version History
    v0: first version.
    """

    form = PAGES
    turns: ClassVar[dict[str, int]] = {"one-hop": 6, "multi-hop": 12, "comparison": 12}
    instructions = (
        "Answer the question from The World Factbook. Find pages with <search>words</search>, "
        "which names five, and read one with <open_page>name</open_page>. Then reply with "
        "<answer>result</answer>, a name, number, code or date as the page has it."
    )
