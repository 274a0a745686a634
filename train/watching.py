"""Watch an agent in the terminal: text environments as a dialogue, others step by step."""

import time
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..agents import Agent
from .evaluation import Evaluation, generator
from .progress import console

_COLOURS = {"system": "dim", "user": "cyan", "tool": "yellow", "assistant": "green"}


def watch(agent: Agent, env_id: str, split: str | None, seed: int, delay: float) -> None:
    """Play one episode and show it as it goes.

    Args:
        agent: Who plays.
        env_id: Where.
        split: Of which tasks.
        seed: Of the episode.
        delay: Seconds to wait after each step.
    """
    out = console()
    out.rule(escape(f"{agent.name} on {env_id}, seed {seed}"))
    with Evaluation(agent, env_id, split).make() as env:
        observation, info = env.reset(seed=seed)
        rng = generator(seed)
        shown = _show(out, info, 0)
        total, steps, over = 0.0, 0, False
        while not over:
            acted = agent.act([observation], [info], [rng])
            action = acted.actions[0]
            if acted.failed and acted.failed[0] is not None:
                out.print(f"[red]the machinery failed:[/] {escape(acted.failed[0])}")
                return
            observation, reward, terminated, truncated, info = env.step(action)
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
            if "messages" in info:
                shown = _show(out, info, shown)
            else:
                out.print(escape(_line(env, observation, action, steps)))
            time.sleep(delay)
    out.print(f"[bold]return {total:g}[/] after {steps} steps{_ending(info)}")


def _show(out: Console, info: dict[str, Any], shown: int) -> int:
    """Print the messages that have not been shown, and return how many have been now."""
    messages = info.get("messages", [])
    if len(messages) <= shown:  # a dialogue that forgets: only its last exchange is new
        shown = len(messages) - 2
    for message in messages[shown:]:
        role = message.get("name", message["role"])
        colour = _COLOURS.get(message["role"], "white")
        out.print(f"[{colour} bold]{role:>10}[/]  [{colour}]{escape(message['content'])}[/]")
    return len(messages)


def _line(env: Any, observation: Any, action: Any, steps: int) -> str:
    """Return one step of an array environment, in its own words where it has some."""
    world = env.unwrapped
    if hasattr(world, "describe"):
        words = getattr(world, "action_words", None)
        move = words[int(action)] if words else f"{float(action[0]):g}"
        return f"{steps:4}  {move:6} {world.describe(observation)}"
    return f"{steps:4}  action {action}  observation {observation}"


def _ending(info: dict[str, Any]) -> str:
    if "success" not in info:
        return ""
    return ", [green]solved[/]" if info["success"] else ", [red]not solved[/]"
