"""Records: none is lost, none is counted twice, and half of one is none."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from palaestra.errors import UserError
from palaestra.train.records import Record, RecordFile, commit, existing, read_records, versions

RECORD = Record(
    env="palaestra/Calculator-v0",
    split="test",
    purpose="evaluation",
    agent="random",
    agent_hash="0123abcd",
    training_seed=None,
    training_steps=None,
    episode_seed=7,
    episode_return=1.0,
    success=True,
    length=2,
    tokens=0,
    seconds=0.25,
    failures={"format": 1},
    kind="addition",
    command="palaestra evaluate --env palaestra/Calculator-v0 --agent random",
    commit="abc",
    versions={"numpy": "2.0"},
)
each_kind = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(path: Path, *records: Record) -> Path:
    with RecordFile(path) as file:
        for record in records:
            file.append(record)
    return path


def line(record: Record) -> str:
    return json.dumps(asdict(record), ensure_ascii=False)


names = st.text(max_size=30)
numbers = st.integers(0, 2**53)
records = st.builds(
    Record,
    env=names, split=st.none() | names, purpose=names, agent=names, agent_hash=names,
    training_seed=st.none() | numbers, training_steps=st.none() | numbers, episode_seed=numbers,
    episode_return=st.floats(allow_nan=False, allow_infinity=False),
    success=st.none() | st.booleans(), length=numbers, tokens=numbers,
    seconds=st.floats(0, 1e9), valid=st.booleans(), cost=st.none() | st.floats(0, 1e9),
    failures=st.dictionaries(names, numbers, max_size=3), kind=st.none() | names, command=names,
    commit=st.none() | names, versions=st.dictionaries(names, names, max_size=3),
)  # fmt: skip


@each_kind
@given(st.lists(records, min_size=1, max_size=4, unique_by=lambda r: r.key))
def test_what_is_written_is_read(tmp_path: Path, several: list[Record]) -> None:
    path = tmp_path / "records.jsonl"
    path.unlink(missing_ok=True)
    half = len(several) // 2
    written(path, *several[:half])
    written(path, *several[half:])
    assert read_records([path]) == several
    assert existing(path) == {record.key for record in several if record.valid}


def test_what_was_played_again_counts_in_place_of_what_was_spoilt(tmp_path: Path) -> None:
    spoilt, good = replace(RECORD, valid=False, length=0), replace(RECORD, valid=True, length=3)
    for order in ([spoilt, good], [good, spoilt], [spoilt, spoilt, good]):
        path = tmp_path / "records.jsonl"
        path.unlink(missing_ok=True)
        written(path, *order)
        assert read_records([path]) == [good]
        assert existing(path) == {good.key}


def test_the_folder_is_made(tmp_path: Path) -> None:
    path = written(tmp_path / "a" / "b" / "records.jsonl", RECORD)
    assert read_records([path]) == [RECORD]


def test_an_episode_counts_once_and_the_newest_record_of_it(tmp_path: Path) -> None:
    again = replace(RECORD, seconds=9.0)
    other = replace(RECORD, episode_seed=8)
    first = written(tmp_path / "1.jsonl", RECORD, other)
    second = written(tmp_path / "2.jsonl", again)
    assert read_records([first, second, first, second]) == [again, other]


@pytest.mark.parametrize(
    "change",
    [
        {"env": "x"}, {"split": None}, {"purpose": "validation"}, {"agent": "x"},
        {"agent_hash": "x"}, {"training_seed": 1}, {"training_steps": 1}, {"episode_seed": 8},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whoever_differs_in_one_thing_is_somebody_else(change: dict[str, Any]) -> None:
    assert replace(RECORD, **change).key != RECORD.key


# Torn lines and damaged ones


def test_a_line_torn_anywhere_is_passed_over_and_closed_off(tmp_path: Path) -> None:
    whole = line(replace(RECORD, episode_seed=8)).encode()
    path = tmp_path / "records.jsonl"
    third = replace(RECORD, episode_seed=9)
    for cut in range(1, len(whole)):
        path.write_bytes(line(RECORD).encode() + b"\n" + whole[:cut])
        assert read_records([path]) == [RECORD], whole[:cut]
        written(path, third)
        assert read_records([path]) == [RECORD, third], whole[:cut]


def test_a_last_line_that_only_lacks_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(line(RECORD), "utf-8")
    written(path, replace(RECORD, episode_seed=8))
    assert [r.episode_seed for r in read_records([path])] == [7, 8]


def test_a_character_torn_in_two_is_a_torn_line(tmp_path: Path) -> None:
    raw = line(replace(RECORD, agent="é")).encode()
    path = tmp_path / "records.jsonl"
    path.write_bytes(raw[: raw.index("é".encode()) + 1])
    assert existing(path) == set()


def with_field(**changes: Any) -> str:
    return json.dumps(asdict(RECORD) | changes)


@pytest.mark.parametrize(
    "damaged",
    [
        "nonsense",
        "{}",
        "[]",
        "3",
        "null",
        '"words"',
        line(RECORD)[1:],
        line(RECORD).replace('"split"', "split"),
        with_field(more=1),
        with_field(episode_return=float("nan")),
        with_field(episode_return="1"),
        with_field(env=3),
        with_field(agent=None),
        json.dumps({k: v for k, v in asdict(RECORD).items() if k != "length"}),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{line(RECORD)}\n{damaged}\n{line(RECORD)}\n", "utf-8")
    for read in (lambda: read_records([path]), lambda: existing(path)):
        with pytest.raises(UserError, match=f"{path}, line 2: .*remove the line"):
            read()


WRONG: dict[str, Any] = {
    "split": 3, "purpose": None, "agent_hash": ["x"], "training_seed": "0", "training_steps": {},
    "episode_seed": None, "success": "yes", "length": None, "tokens": "3", "valid": 2,
    "failures": None, "kind": 3, "command": None, "commit": 3, "versions": None, "cost": "1 $",
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_field_of_a_wrong_type_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(with_field(**{key: WRONG[key]}) + "\n", "utf-8")
    with pytest.raises(UserError, match="line 1"):
        read_records([path])


def test_empty_and_missing_files_say_what_to_do(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(UserError, match=r"holds no records yet.*palaestra evaluate"):
        read_records([empty])
    with pytest.raises(UserError, match=r"cannot read records from .*absent"):
        read_records([tmp_path / "absent.jsonl"])
    with pytest.raises(UserError, match="cannot read records"):
        read_records([tmp_path])
    assert existing(tmp_path / "absent.jsonl") == set()
    assert existing(empty) == set()


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "records.jsonl"):
        with pytest.raises(UserError, match="cannot write records to"):
            RecordFile(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    with RecordFile(Path("/dev/full")) as file, pytest.raises(OSError, match="space"):
        file.append(RECORD)


def test_a_record_says_what_it_was_made_with() -> None:
    assert {"python", "palaestra", "gymnasium", "torch", "numpy"} <= versions().keys()
    found = commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40
    assert {f.name for f in fields(Record)} == asdict(RECORD).keys()


def test_a_record_from_before_there_were_costs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    raw = asdict(RECORD)
    del raw["cost"]
    path.write_text(json.dumps(raw) + "\n", "utf-8")
    assert read_records([path]) == [RECORD]


# A kill


def evaluating(path: Path, episodes: int) -> list[str]:
    return [
        sys.executable, "-m", "palaestra.train.cli", "evaluate", "--quiet",
        "--env", "palaestra/Calculator-v0", "--agent", "random",
        "--episodes", str(episodes), "--records", str(path), "--batch", "4",
    ]  # fmt: skip


def test_a_kill_leaves_whole_records_and_a_rerun_plays_the_missing_ones(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    process = subprocess.Popen(evaluating(path, 1_000_000), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (not path.exists() or path.stat().st_size < 40_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    before = [json.loads(one) for one in lines]
    known = {r["episode_seed"] for r in before}
    assert len(known) == len(before) > 20
    wanted = max(known) + 10
    done = subprocess.run(evaluating(path, wanted), capture_output=True, text=True, check=True)
    played = set(range(wanted)) - known
    assert f"{len(played)} episodes played, {wanted - len(played)} were recorded" in done.stdout
    seeds = [record.episode_seed for record in read_records([path])]
    assert sorted(seeds) == list(range(wanted))
    assert len(path.read_text().splitlines()) == wanted
    assert set(seeds[len(before) :]) == played
    again = subprocess.run(evaluating(path, wanted), capture_output=True, text=True, check=True)
    assert f"0 episodes played, {wanted} were recorded before" in again.stdout
