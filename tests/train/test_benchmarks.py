"""Benchmarks: a table, a file that says on what it was measured, and no success that was none."""

import importlib
import json
import sys
from pathlib import Path

import gymnasium
import pytest
from palaestra.errors import UserError
from palaestra.train import benchmarks
from palaestra.train.benchmarks import NAMES, bench


def test_every_name_is_a_program_of_the_checkout() -> None:
    assert all((benchmarks.FOLDER / f"{name}.py").is_file() for name in NAMES)


def test_results_say_on_what_they_were_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "buffers.json"
    bench(["buffers"], 1, path)
    shown = capfd.readouterr().out
    assert "ours is" in shown
    found = json.loads(path.read_text())
    assert {"machine", "system", "commit", "versions", "load"} <= found["machine"].keys()
    assert {row["contestant"] for row in found["results"]} == {"palaestra", "SB3"}
    for row in found["results"]:
        assert len(row["seconds"]) == 1
        assert row["contestant"] in shown
        assert (row["ratio"] == 1) == (row["contestant"] == "palaestra")


def test_a_contestant_does_what_it_is_told_and_says_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(benchmarks.FOLDER)
    sides = importlib.import_module("sides")
    command = [sys.executable, benchmarks.FOLDER / "peers_side.py", "palaestra"]
    with sides.Side("palaestra", command) as side:
        assert side.ask(versions=["gymnasium"])["gymnasium"] == gymnasium.__version__
        assert side.ask(step=[2, 8]) == 16
        assert 0 < side.ask(run=True) < side.ask(spent=True)
        assert side.ask(train=["CartPole-v1", 2, 32, {"n_steps": 16, "batch_size": 32}]) == 32
        assert side.ask(run=True) > 0


def test_what_takes_seconds_is_not_shown_as_none_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(benchmarks.FOLDER)
    tables = importlib.import_module("tables")
    assert tables.amount({"per_second": 0.25, "unit": "starts"}) == "one in 4.0 s"
    assert tables.amount({"per_second": 2500.0, "unit": "steps"}) == "2,500 steps"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand where two benchmarks say that they have been run, and write what they are told to."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("envs", "text"):
        (folder / f"{name}.py").write_text(
            "import pathlib, sys\nprint('measured')\n"
            "if '--json' in sys.argv: pathlib.Path(sys.argv[-1]).write_text('[]')\n"
        )
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "full" / "text.json").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmarks, "FOLDER", folder)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "results", "written"),
    [
        (["envs"], "new/one.json", ["new/one.json"]),
        (["envs"], "file", ["file"]),
        (["envs"], "folder", ["folder/envs.json"]),
        (["envs", "text"], "folder", ["folder/envs.json", "folder/text.json"]),
        (["envs", "text"], "a/b", ["a/b/envs.json", "a/b/text.json"]),
    ],
)
def test_results_are_where_they_were_asked_for(
    checkout: Path, names: list[str], results: str, written: list[str]
) -> None:
    bench(names, None, Path(results))
    found = [path for path in checkout.rglob("*") if path.is_file() and path.suffix != ".py"]
    assert {p.relative_to(checkout).as_posix() for p in found} == {*written, "file"}
    assert all((checkout / path).read_text() == "[]" for path in written)


@pytest.mark.parametrize(
    ("names", "results"),
    [
        (["envs"], "file/envs.json"),
        (["envs", "text"], "file"),
        (["text"], "full"),
        (["envs", "text"], "full"),
        (["envs"], "/proc/no-such-folder/envs.json"),
        (["envs"], "/proc/envs.json"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_measured(
    checkout: Path, names: list[str], results: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(checkout.rglob("*"))
    with pytest.raises(UserError, match="cannot write results to"):
        bench(names, None, Path(results))
    assert "measured" not in capfd.readouterr().out
    assert sorted(checkout.rglob("*")) == before


def test_a_benchmark_that_fails_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "envs.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="the benchmark envs failed"):
        bench(["envs"], None, None)
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path / "installed")
    with pytest.raises(UserError, match="part of a checkout"):
        bench(["envs"], None, None)
