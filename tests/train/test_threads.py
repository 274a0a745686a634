"""Each thread sees to its own rows, and all rows are seen to."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palaestra.train.threads import Threads, parts_of


@pytest.mark.usefixtures("threads")
@given(rows=st.integers(1, 100), least=st.integers(1, 40), multiple=st.integers(1, 9))
def test_parts_follow_each_other_and_are_of_one_size(rows: int, least: int, multiple: int) -> None:
    rows, least = rows * multiple, least * multiple
    parts = [range(rows)[part] for part in parts_of(rows, least, multiple=multiple)]
    assert [row for part in parts for row in part] == list(range(rows))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) in (0, multiple)
    assert all(size % multiple == 0 for size in sizes)
    assert len(parts) == 1 or min(sizes) >= least


def test_there_are_as_many_parts_as_threads(threads: int) -> None:
    assert len(parts_of(64, 8)) == threads


def test_parts_are_seen_to_at_the_same_time(threads: int) -> None:
    own = Threads()
    together = threading.Barrier(threads, timeout=60)

    def see_to(part: slice) -> int:
        together.wait()
        return part.start

    parts = parts_of(12, 1)
    assert own.each(see_to, parts) == [part.start for part in parts]
