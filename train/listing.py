"""What there is: environments with their splits, agents, and the packaged language model."""

import ast
import inspect
from importlib.resources import files
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from .. import envs  # noqa: F401  (registers them)
from ..agents import AGENTS
from ..policies import PACKAGED_MODEL
from .progress import console


def show(verbose: bool) -> None:
    """Print a table of the environments and one of the agents."""
    out = console()
    worlds = _worlds()
    environments = Table(title="Environments", title_justify="left", title_style="bold")
    for column in ("Id", "Splits", "What it asks"):
        environments.add_column(column, overflow="fold")
    for world, ids in worlds.items():
        splits = ", ".join(getattr(world, "splits", ())) or "none"
        environments.add_row(_some(ids), splits, escape(_first_line(inspect.getdoc(world))))
    out.print(environments)
    agents = Table(title="Agents", title_justify="left", title_style="bold")
    for column in ("Name", "What it does"):
        agents.add_column(column, overflow="fold")
    for name in AGENTS:
        agents.add_row(_said(name), escape(_does(name)))
    out.print(agents)
    if verbose:
        for world, ids in worlds.items():
            said = inspect.getdoc(world) or ""
            out.print(Markdown(f"# {world.__name__}\n\n`{'`, `'.join(ids)}`\n\n{said}"))


def _worlds() -> dict[type, list[str]]:
    """Return the classes of the environments, and the ids of each: its levels, or its family."""
    worlds: dict[type, list[str]] = {}
    for name, spec in gymnasium.registry.items():
        if name.startswith("palaestra/"):
            entry = spec.entry_point
            creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
            worlds.setdefault(creator, []).append(name)
    return worlds


def _some(ids: list[str], most: int = 8) -> str:
    shown = ids if len(ids) <= most else [*ids[: most - 1], f"and {len(ids) - most + 1} more"]
    return "\n".join(shown)


def _said(name: str) -> str:
    """Return what a user writes for an agent."""
    return {
        "ppo": "FOLDER of a run",
        "language-ppo": "FOLDER of its run",
        "language-choices": "FOLDER of its run",
        "language-model": f"{PACKAGED_MODEL}, or a folder",
        "openai": "openai:MODEL@URL",
    }.get(name, name)


def _does(name: str) -> str:
    """Return the first line about an agent, from its source: nobody waits for torch here."""
    module, _, attribute = AGENTS[name].partition(":")
    package, _, file = module.rpartition(".")
    body = ast.parse(files(package).joinpath(f"{file}.py").read_text("utf-8")).body
    (kind,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == attribute)
    return _first_line(ast.get_docstring(kind))


def _first_line(document: str | None) -> str:
    return (document or "").partition("\n")[0]
