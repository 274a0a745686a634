"""What there is: environments with their splits, agents, and the packaged language model."""

import inspect

import gymnasium
from gymnasium.envs.registration import load_env_creator
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from ..agents import AGENTS, agent_class
from ..envs import views
from ..policies import PACKAGED_MODEL
from .progress import console


def show(verbose: bool) -> None:
    """Print a table of the environments and one of the agents."""
    out = console()
    ids = [name for name in gymnasium.registry if name.startswith("palaestra/")]
    environments = Table(title="Environments", title_justify="left", title_style="bold")
    for column in ("Id", "Splits", "What it asks"):
        environments.add_column(column, overflow="fold")
    for env_id in ids:
        splits = ", ".join(views.splits_of(gymnasium.spec(env_id))) or "none"
        environments.add_row(env_id, splits, escape(_docstring(env_id).partition("\n")[0]))
    out.print(environments)
    agents = Table(title="Agents", title_justify="left", title_style="bold")
    for column in ("Name", "What it does"):
        agents.add_column(column, overflow="fold")
    for name in AGENTS:
        agents.add_row(_said(name), escape(_first_line(agent_class(name))))
    out.print(agents)
    if verbose:
        for env_id in ids:
            out.print(Markdown(f"# {env_id}\n\n{_docstring(env_id)}"))


def _said(name: str) -> str:
    """Return what a user writes for an agent."""
    return {"ppo": "FOLDER of a run", "language-model": f"{PACKAGED_MODEL}, or a folder"}.get(
        name, name
    )


def _docstring(env_id: str) -> str:
    entry = gymnasium.spec(env_id).entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    return inspect.getdoc(creator) or ""


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]
