"""The demonstration, at a hundredth of its length."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from palaestra.train.demo import demo
from palaestra.train.records import read_records

ENVIRONMENTS = ("palaestra/CartPole-v1", "palaestra/Calculator-v0", "palaestra/Capitals-v0")


def command(folder: Path) -> str:
    done = subprocess.run(
        [
            sys.executable, "-m", "palaestra.train.cli", "demo",
            "--budget", "0.01", "--out", str(folder),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_demonstration_shows_everybody_everywhere_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    shown = command(folder)
    path = folder / "records.jsonl"
    records = read_records([path])
    played = Counter((r.env, r.agent.partition(" ")[0]) for r in records)
    agents = ("random", "oracle", "ppo", "SmolLM2-135M-Instruct")
    assert played.keys() == {(env_id, agent) for env_id in ENVIRONMENTS for agent in agents}
    assert min(played.values()) >= 2
    assert all(r.valid and r.purpose == "evaluation" for r in records)
    page = (folder / "board.html").read_text("utf-8")
    for word in (*ENVIRONMENTS, *agents):
        assert word in shown
        assert word in page
    before = path.read_bytes()
    demo(folder, 0.01)
    assert path.read_bytes() == before
    assert "Scores: random 0, oracle 1." in capsys.readouterr().out
