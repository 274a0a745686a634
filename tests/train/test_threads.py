"""Each thread sees to its own rows, and all rows are seen to."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palaestra.train.threads import Threads


@pytest.mark.usefixtures("threads")
@given(rows=st.integers(1, 100), least=st.integers(1, 40))
def test_parts_follow_each_other_and_are_of_one_size(rows: int, least: int) -> None:
    parts = [range(rows)[part] for part in Threads(least).parts(rows)]
    assert [row for part in parts for row in part] == list(range(rows))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == 1 or min(sizes) >= least


def test_there_are_as_many_parts_as_threads(threads: int) -> None:
    assert len(Threads(8).parts(64)) == threads


def test_parts_are_seen_to_at_the_same_time(threads: int) -> None:
    own = Threads(1)
    together = threading.Barrier(threads, timeout=60)

    def see_to(part: slice) -> int:
        together.wait()
        return part.start

    parts = own.parts(12)
    assert own.each(see_to, parts) == [part.start for part in parts]
