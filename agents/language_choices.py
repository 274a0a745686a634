"""A language model that has learned from reward what to choose."""

from typing import ClassVar

from .agent import View
from .language_ppo import TrainedLanguageModel


class LanguageChoicesAgent(TrainedLanguageModel):
    """Choose what a language model has learned to find likely."""

    view: ClassVar[View] = "choices"
    does: ClassVar[str] = "choices "
