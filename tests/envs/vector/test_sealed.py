"""What a process says of its members, and when it is read."""

import pickle
from typing import Any, ClassVar

import pytest
from palaestra.envs.vector.infos import Infos
from palaestra.envs.vector.members import APPLY, RESET, STEP, Job
from palaestra.envs.vector.sealed import opened, played_in, seal, sealed

JOBS: list[Job] = [(3, STEP, "a", 1), (4, APPLY, len, None), (5, STEP, "b", 2), (7, RESET, None, 3)]
END = ("the end", {"success": True})
SAID: list[tuple[int, Any]] = [
    (5, ("next", 1.0, True, False, {"turn": 0}, END)),
    (4, ("what", "a", True, False, {"function": "returned"}, None)),
    (3, ("more", 0.0, False, False, {"turn": 2}, None)),
    (7, ("first", 0.0, False, False, {"turn": 1}, None)),
]


def sent(results: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Send what became of jobs from one process to another."""
    told = pickle.loads(pickle.dumps(seal(results, played_in(JOBS))))
    return sealed(told, played_in(JOBS))


@pytest.mark.parametrize("first", range(len(SAID) + 1))
def test_what_is_sent_arrives_in_whatever_pieces(first: int) -> None:
    there = sent(SAID[:first]) + sent(SAID[first:])
    assert [index for index, _ in there] == [index for index, _ in SAID]
    results, applied = [o for i, o in there if i != 4], [o for i, o in there if i == 4]
    assert opened(results) == [o for i, o in SAID if i != 4]
    assert applied == [SAID[1][1]]  # which only looks like an outcome


class Loud:
    """Tells when it is read."""

    read = 0

    def __reduce__(self) -> Any:
        return _be_read, ()


def _be_read() -> Loud:
    Loud.read += 1
    return Loud()


def test_infos_are_read_when_one_is_looked_at_and_once() -> None:
    Loud.read = 0
    outcomes = [
        o for _, o in sent([(i, ("", 0, False, False, {"a": Loud()}, None)) for i in (3, 5)])
    ]
    infos = Infos([outcome[4] for outcome in outcomes])
    assert infos
    assert Loud.read == 2
    assert "a" in infos
    assert opened(outcomes)[0][4]["a"] is infos["a"][0]
    assert Loud.read == 2


def test_infos_that_nobody_looks_at_are_not_read() -> None:
    Loud.read = 0
    outcomes = [o for _, o in sent([(3, ("", 0, False, False, {"a": Loud()}, None))])]
    Infos([outcome[4] for outcome in outcomes])
    assert Loud.read == 0


class Stubborn:
    """Cannot be read at first, for the lack of a key."""

    known: ClassVar[dict[str, int]] = {}

    def __reduce__(self) -> Any:
        return _look_up, ("x",)


def _look_up(key: str) -> int:
    return Stubborn.known[key]


@pytest.mark.parametrize("look", [len, dict, lambda i: "a" in i, lambda i: i.get("a")])
def test_what_cannot_be_read_is_told_each_time_and_not_taken_for_absent(look: Any) -> None:
    Stubborn.known.clear()
    outcomes = [o for _, o in sent([(3, ("", 0, False, False, {"a": Stubborn()}, None))])]
    infos = Infos([outcome[4] for outcome in outcomes])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot be read here: KeyError"):
            look(infos)
    Stubborn.known["x"] = 5
    assert [*infos["a"]] == [5]
    assert len(infos) == 2
