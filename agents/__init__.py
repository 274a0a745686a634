"""Who acts: one file and one name each.

The names are those of the command line; an agent's module is imported when it is asked for.
"""

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..policies import PACKAGED_MODEL, is_gguf
from .agent import Actions, Agent, Seat, read_card

AGENTS = {
    "random": f"{__name__}.random:Random",
    "constant": f"{__name__}.constant:Constant",
    "oracle": f"{__name__}.oracle:Oracle",
    "ppo": f"{__name__}.ppo:PPOAgent",
    "language-ppo": f"{__name__}.language_ppo:LanguagePPOAgent",
    "language-choices": f"{__name__}.language_choices:LanguageChoicesAgent",
    "language-model": f"{__name__}.language_model:LanguageModel",
    "openai": f"{__name__}.remote:Remote",
}
"""Name: where the class is."""
_TRAINED = ("ppo", "language-ppo", "language-choices")
"""Of these a user gives the folder."""

__all__ = ["AGENTS", "Actions", "Agent", "Seat", "agent_class", "resolve", "spelled_out"]


def agent_class(name: str) -> type[Agent]:
    """Return the class of a registered name.

    Raises:
        UserError: there is no such agent; the message suggests the nearest.
    """
    if name not in AGENTS:
        near = difflib.get_close_matches(name.lower(), AGENTS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown agent {name!r}; {hint}{_whom()}")
    module, _, attribute = AGENTS[name].partition(":")
    found: type[Agent] = getattr(import_module(module), attribute)
    return found


def resolve(text: str) -> tuple[type[Agent], dict[str, Any]]:
    """Find out whom a user means: a registered name, a saved agent, or a language model.

    A language model may be here, or behind an endpoint: `openai:MODEL@URL`.

    Returns:
        The class, and the arguments that follow from the text.

    Raises:
        UserError: nobody goes by that name, or the folder holds no agent.
    """
    if _is_remote(text):
        return agent_class("openai"), _address(text)
    if text in _TRAINED:
        raise UserError(f"an untrained {text} cannot play: train one, then give its run's folder")
    if text in AGENTS:
        return agent_class(text), {}
    path = _path(text)
    if path and path.is_dir():
        return _in_folder(path)
    if path and is_gguf(path):
        return agent_class("language-model"), {"model": str(path)}
    if path and path.exists():
        raise UserError(f"{text!r} is not a folder that holds an agent; give a run or a checkpoint")
    if _means_folder(text, path):
        raise UserError(f"there is no folder {text!r}; {_whom()}")
    if text.lower() == PACKAGED_MODEL.lower() or text.count("/") == 1:  # or owner/model of a hub
        return agent_class("language-model"), {"model": text}
    return agent_class(text), {}


def spelled_out(text: str) -> str:
    """Return a text that names the same agent whatever the environment's variables are.

    Raises:
        UserError: it names an endpoint, and is malformed.
    """
    return "openai:{model}@{url}".format(**_address(text)) if _is_remote(text) else text


def _is_remote(text: str) -> bool:
    return text.partition(":")[0] == "openai"


def _address(text: str) -> dict[str, Any]:
    from .remote import parse_address

    return dict(parse_address(text))


def _path(text: str) -> Path | None:
    """Return the path that a text means, None if no file system could hold it."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def _means_folder(text: str, path: Path | None) -> bool:
    """Tell a folder, which need not be there, from the name of a model and its owner on a hub."""
    if text.startswith((".", "/", "~", "runs/")) or text.endswith("/") or text.count("/") > 1:
        return True
    # Of two parts, the first is a folder of runs here.
    return path is not None and any(path.parent.glob("*/checkpoints")) and len(path.parts) > 1


def _whom() -> str:
    untrained = ", ".join(name for name in AGENTS if name not in _TRAINED)
    return (
        f"give {untrained}:MODEL@URL, a run's folder, which `palaestra train` makes, or the name "
        "or folder of a language model"
    )


def _in_folder(path: Path) -> tuple[type[Agent], dict[str, Any]]:
    checkpoints = sorted((path / "checkpoints").glob("[0-9]*"))
    folder = checkpoints[-1] if checkpoints else path
    if (folder / "agent.json").is_file():
        try:
            kind = read_card(folder)["agent"]
        except (ValueError, KeyError, TypeError, OSError):
            raise UserError(
                f"{folder}/agent.json is damaged: delete that checkpoint and use an older one"
            ) from None
        return agent_class(str(kind)), {"folder": folder}
    if (path / "config.json").is_file():
        return agent_class("language-model"), {"model": str(path)}
    raise UserError(f"{path} holds no agent: neither a run, a checkpoint nor a language model")
