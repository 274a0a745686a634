"""The views through which every environment is played by every kind of agent.

`AsText` lets an array environment speak, so that a language model can play it. `AsChoices`
shows a text environment as arrays, so that stable-baselines3 can, and `AsDialogue` shows one to
its policies that are language models. All leave the world as it
is: the same state, the same seeds, the same rewards.
"""

from .as_choices import AsChoices
from .as_dialogue import AsDialogue
from .as_text import AsText
from .making import View, find_spec, make, splits_of, training_split
from .moves import is_text
from .revealed import Revealed

__all__ = [
    "AsChoices", "AsDialogue", "AsText", "Revealed", "View", "find_spec", "is_text", "make",
    "splits_of", "training_split",
]  # fmt: skip
