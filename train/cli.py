"""The command line: `palaestra train | evaluate | board | check | list | play | mcp | ...`."""

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..errors import MORE_MEMORY, UserError, memory_permitting

# Each command imports what it needs when it runs, so that `--help` is quick.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for faults found, 2 for a user's mistake."""
    # By default threads that wait for each other spin, and hold up what runs beside them and so
    # themselves: beside one busy process a language model on two cores takes half as long again.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except UserError as error:
        print(f"palaestra: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("palaestra: interrupted; what was finished is saved", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has enough; Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"palaestra: {error.strerror}{where}: mend that, then go on", file=sys.stderr)
        return 1
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that says what was wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="palaestra",
        description="Train, evaluate and rank agents: PPO and language models in the same worlds.",
    )
    parser.add_argument("--version", action="version", version=f"palaestra {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_warmup,
        _add_train,
        _add_evaluate,
        _add_board,
        _add_check,
        _add_play,
        _add_list,
        _add_mcp,
        _add_bench,
        _add_demo,
        _add_fetch,
    ):
        add(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"example: {example}",
    )
    parser.set_defaults(run=run)
    return parser


def _add_warmup(commands: Any) -> None:
    example = "palaestra warmup --env palaestra/Calculator-v0 --recipe tiny --out runs/tiny"
    does = "teach a language model by dialogues, before there is a reward"
    parser = _command(commands, "warmup", _warmup, does, example)
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")
    _add_recipe(parser, "a value of the recipe: `warmup=oracle` or `warmup=blind`, for instance")
    parser.add_argument("--seed", type=_natural, default=0, help="of the weights and the dialogues")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder of the model"
    )
    _add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _warmup(options: argparse.Namespace) -> int:
    from ..envs import views
    from .language_training import warm_up
    from .progress import progress_bar
    from .recipe import LanguageRecipe, load_recipe, parse_settings
    from .training import make_folder

    env_id = views.find_spec(options.env).id
    recipe = load_recipe(env_id, options.recipe, parse_settings(options.set), "language-ppo")
    assert isinstance(recipe, LanguageRecipe)
    _check_device(options.device)
    if recipe.warmup == "none":
        raise UserError("the recipe shows nothing: add --set warmup=oracle, or warmup=blind")
    if options.out.exists():
        raise UserError(f"{options.out} exists already: give another --out")
    make_folder(options.out.parent)
    with progress_bar(recipe.warmup_steps, "steps", options.quiet) as bar:
        warm_up(
            env_id, recipe, options.seed, options.out, lambda loss: bar.update(1), options.device
        )
    print(f"taught by {recipe.warmup_dialogues:,} dialogues ({recipe.warmup}): {options.out}")
    print(
        f"  train: palaestra train --env {env_id} --agent language-ppo "
        f"--set model={options.out} --set warmup=none"
    )
    return 0


def _add_train(commands: Any) -> None:
    from .recipe import RECIPES

    example = "palaestra train --env palaestra/CartPole-v1 --agent ppo --set total_steps=50000"
    parser = _command(commands, "train", _train, "train an agent", example)
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")
    parser.add_argument("--agent", choices=list(RECIPES), help="what is trained; `ppo` by default")
    _add_recipe(parser, "a value of the recipe")
    parser.add_argument("--seed", type=_natural, default=0, help="seed of the training")
    _add_device(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on where the run stopped")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _train(options: argparse.Namespace) -> int:
    from ..envs import views
    from .progress import progress_bar
    from .recipe import load_recipe, parse_settings
    from .training import Run, recorded, train

    env_id = views.find_spec(options.env).id
    folder = options.out or _run_folder(env_id, options.agent or "ppo", options.seed)
    begun = recorded(folder) if options.resume else None
    agent = options.agent or (begun.agent if begun else "ppo")
    changes = (begun.recipe if begun else {}) | parse_settings(options.set)
    recipe = load_recipe(env_id, options.recipe, changes, agent)
    run = Run(env_id, recipe, options.seed, folder)
    _check_device(options.device)
    with progress_bar(recipe.total_steps, "steps", options.quiet) as bar:
        model = train(run, options.resume, options.device, lambda n: bar.update(n - bar.n))
    print(f"trained {model.num_timesteps:,} steps: {run.folder}")
    print(f"  watch:    tensorboard --logdir {run.folder}")
    print(f"  evaluate: palaestra evaluate --env {env_id} --agent {run.folder}")
    return 0


def _add_evaluate(commands: Any) -> None:
    example = (
        "palaestra evaluate --env palaestra/Capitals-v0 --agent random --episodes 100 --seed 0"
    )
    does = "play episodes with an agent and append a record of each"
    parser = _command(commands, "evaluate", _evaluate, does, example)
    _add_who(parser)
    parser.add_argument("--episodes", type=_positive, default=100, help="how many")
    parser.add_argument("--batch", type=_positive, default=16, help="episodes side by side")
    parser.add_argument(
        "--records", type=Path, default=Path("runs/records.jsonl"), help="file to append to"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _evaluate(options: argparse.Namespace) -> int:
    from ..agents import spelled_out
    from .evaluation import Episode, Evaluation, evaluation_command
    from .progress import progress_bar

    agent, env_id, split = _seat(options)
    command = evaluation_command(
        env_id, spelled_out(options.agent), split, options.set, options.episodes, options.seed
    )
    evaluation = Evaluation(agent, env_id, split, command=command)
    seeds = range(options.seed, options.seed + options.episodes)
    ended: list[Episode] = []
    smaller = "give a smaller --batch; what was played is recorded"
    with (
        memory_permitting(smaller),
        progress_bar(options.episodes, "episodes", options.quiet) as bar,
    ):

        def tell(episode: Episode) -> None:
            ended.append(episode)
            bar.update(1)

        played = evaluation.run(seeds, options.records, options.batch, tell)
    known = options.episodes - played
    if returns := [episode.episode_return for episode in ended if not episode.broken]:
        print(f"{agent.name} on {env_id}: mean return {sum(returns) / len(returns):.3f}")
    if costs := [episode.cost for episode in ended if episode.cost is not None]:
        print(f"cost: {sum(costs):.4f} dollars")
    if broken := [episode for episode in ended if episode.broken]:
        print(f"{len(broken)} spoilt by the machinery, the last one: {broken[-1].observation}")
    print(
        f"{played} episode{'' if played == 1 else 's'} played, "
        f"{known} {'was' if known == 1 else 'were'} recorded before: {options.records}\n"
        f"  rank: palaestra board {options.records} --html board.html"
    )
    return 0


def _add_board(commands: Any) -> None:
    example = "palaestra board runs/records.jsonl runs/*/records.jsonl --html board.html"
    parser = _command(commands, "board", _board, "rank agents from their records", example)
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORDS", help="JSON Lines")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page, too")


def _board(options: argparse.Namespace) -> int:
    from .board import as_table, standings, write_page
    from .progress import console
    from .records import read_records

    records = read_records(options.records)
    found = standings(records)
    for standing in found:
        console().print(as_table(standing))
        if standing.missing:
            print(f"  no scores: evaluate {' and '.join(standing.missing)} on the same tasks")
        if standing.has_infra:
            print("  infra: attempts that the machinery spoilt; evaluate plays lost episodes again")
    print("Scores: random 0, oracle 1. Agents that the noise does not tell apart share a rank.")
    if options.html:
        write_page(found, options.html, records)
        print(f"page: {options.html}")
    return 0


def _add_check(commands: Any) -> None:
    example = "palaestra check palaestra/Capitals-v0 --hostile 1000"
    does = "look for faults in an environment, your own for instance"
    parser = _command(commands, "check", _check, does, example)
    parser.add_argument("env", metavar="ENV_ID", help="a Gymnasium id, or MODULE:ID")
    parser.add_argument("--episodes", type=_positive, default=200, help="of each check")
    parser.add_argument("--hostile", type=_natural, default=300, help="hostile messages")
    parser.add_argument("--seed", type=_natural, default=0, help="the first seed that is tried")


def _check(options: argparse.Namespace) -> int:
    from ..envs.checking import check
    from .checking import report

    # A module in the folder where somebody stands can be named, too.
    sys.path.append(os.getcwd())
    found = check(
        options.env, episodes=options.episodes, hostile=options.hostile, seed=options.seed
    )
    again = f"palaestra check {options.env} --episodes {options.episodes}"
    return 0 if report(options.env, found, f"{again} --hostile {options.hostile}") else 1


def _add_play(commands: Any) -> None:
    example = "palaestra play --env palaestra/Capitals-v0 --agent SmolLM2-135M-Instruct --seed 3"
    parser = _command(commands, "play", _play, "watch an agent in the terminal", example)
    _add_who(parser)
    parser.add_argument("--episodes", type=_positive, default=1, help="how many")
    parser.add_argument("--delay", type=_seconds, default=0.0, help="seconds between steps")


def _play(options: argparse.Namespace) -> int:
    from .watching import watch

    agent, env_id, split = _seat(options)
    with memory_permitting(MORE_MEMORY):
        for seed in range(options.seed, options.seed + options.episodes):
            watch(agent, env_id, split, seed, options.delay)
    return 0


def _add_list(commands: Any) -> None:
    parser = _command(
        commands, "list", _list, "show the environments and the agents", "palaestra list"
    )
    parser.add_argument("--verbose", action="store_true", help="whole descriptions")


def _list(options: argparse.Namespace) -> int:
    from .listing import show

    show(options.verbose)
    return 0


def _add_mcp(commands: Any) -> None:
    does = "offer the tools of an environment to any MCP client, over stdin and stdout"
    parser = _command(commands, "mcp", _mcp, does, "palaestra mcp --env palaestra/Capitals-v0")
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")


def _mcp(options: argparse.Namespace) -> int:
    from ..envs import views
    from ..envs.tools.mcp_server import serve_stdio

    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the protocol alone
        spec = views.find_spec(options.env)
        env = views.make(spec.id)
        tools = env.get_wrapper_attr("tools") if views.is_text(env) else {}
        if not tools:
            raise UserError(f"{spec.id} has no tools")
        env.reset(seed=0)
    serve_stdio(tools.values(), spec.id)
    return 0


def _add_bench(commands: Any) -> None:
    from .benchmarks import NAMES

    does = "measure speed side by side with other libraries"
    parser = _command(commands, "bench", _bench, does, "palaestra bench envs --json envs.json")
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"{', '.join(NAMES)}; none runs all. Each takes minutes, language half an hour",
    )  # fmt: skip
    parser.add_argument("--rounds", type=_positive, help="of each contestant")
    parser.add_argument(
        "--json", type=Path, metavar="FILE",
        help="write the results; a folder if there are several. In an existing folder: NAME.json",
    )  # fmt: skip


def _bench(options: argparse.Namespace) -> int:
    from .benchmarks import bench

    bench(options.names, options.rounds, options.json)
    return 0


def _add_demo(commands: Any) -> None:
    does = "train PPO, evaluate four agents on all environments, and show the board"
    parser = _command(commands, "demo", _demo, does, "palaestra demo --out runs/demo")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of results")
    parser.add_argument(
        "--budget", type=float, default=1.0, help="share of the steps and episodes, such as 0.01"
    )


def _demo(options: argparse.Namespace) -> int:
    if not 0 < options.budget <= 1:
        raise UserError(f"--budget {options.budget:g} must be above 0 and at most 1")
    print("PPO and a language model, in the same three worlds: a few minutes.", flush=True)
    from .demo import demo

    demo(options.out, options.budget)
    return 0


def _add_fetch(commands: Any) -> None:
    does = "list the pinned models and data, or fetch them"
    parser = _command(commands, "fetch", _fetch, does, "palaestra fetch --all")
    parser.add_argument("assets", nargs="*", metavar="ASSET", help="names; none lists them")
    parser.add_argument("--all", action="store_true", help="fetch and convert everything")


def _fetch(options: argparse.Namespace) -> int:
    from .. import assets

    unknown = [name for name in options.assets if name not in assets.ASSETS]
    if unknown:
        raise UserError(f"unknown asset {unknown[0]!r}; there are: {', '.join(assets.ASSETS)}")
    wanted = list(assets.ASSETS) if options.all else options.assets
    for name in wanted:
        print(f"{name} {assets.ASSETS[name].version}", end=": ", flush=True)
        print(assets.prepare(assets.ASSETS[name]))
    if not wanted:
        for asset in assets.ASSETS.values():
            state = "cached" if assets.is_cached(asset) else "not fetched"
            print(
                f"{asset.name:22} {asset.version:8} {asset.license:12} {state:12} {asset.summary}"
            )
        print(f"cache: {assets.cache_directory()}")
    return 0


def _add_who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")
    parser.add_argument(
        "--agent", required=True, metavar="WHO",
        help="random, constant, oracle, a run's folder, a language model, or openai:MODEL@URL",
    )  # fmt: skip
    parser.add_argument("--split", help="which tasks; `test` where there are splits")
    _add_set(parser, "an option of the agent, such as shots=4")
    parser.add_argument("--seed", type=_natural, default=0, help="seed of the first episode")
    _add_device(parser)


def _add_recipe(parser: argparse.ArgumentParser, does: str) -> None:
    parser.add_argument(
        "--recipe", type=Path, metavar="FILE", help="YAML, environments as keys; or `tiny`"
    )
    _add_set(parser, does)


def _add_set(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=what)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")


def _seat(options: argparse.Namespace) -> tuple[Any, str, str | None]:
    from ..envs import views
    from .evaluation import seat
    from .recipe import parse_settings

    spec = views.find_spec(options.env)
    splits = views.splits_of(spec)
    split = options.split or ("test" if "test" in splits else None)
    _check_device(options.device)
    agent = seat(spec.id, split, options.agent, parse_settings(options.set), options.device)
    return agent, spec.id, split


def _run_folder(env_id: str, agent: str, seed: int) -> Path:
    name = env_id.rpartition("/")[2].lower()
    return Path("runs") / f"{name}-{agent}-seed{seed}"


def _check_device(device: str) -> None:
    import torch

    try:
        kind = "auto" if device == "auto" else torch.device(device).type
        if kind not in ("auto", "meta", "cuda"):
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ModuleNotFoundError):
        kind = "meta"
    if kind == "meta":
        raise UserError(f"unknown device {device!r}: give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"there is no GPU for --device {device}: give auto or cpu")


def _seconds(text: str) -> float:
    if not text.replace(".", "", 1).isdecimal() or not text.isascii() or float(text) > 3600:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 3600")
    return float(text)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
