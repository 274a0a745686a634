"""What is kept in memory, and until when."""

from pathlib import Path

from palaestra.envs.tools.remembering import Remembered, forget_everything, identity


def test_the_next_one_takes_the_place_of_all() -> None:
    remembered = Remembered[str](2)
    for key in "abc":
        assert remembered.get(key) is None
        remembered.keep(key, key * 2)
        assert remembered.get(key) == key * 2
    assert remembered.get("a") is remembered.get("b") is None
    assert len(remembered) == 1


def test_everything_can_be_forgotten() -> None:
    one, other = Remembered[int](2), Remembered[str](2)
    one.keep("a", 1)
    other.keep("a", "b")
    forget_everything()
    assert len(one) == len(other) == 0


def test_a_file_is_told_from_its_successor(tmp_path: Path) -> None:
    path, other = tmp_path / "one", tmp_path / "other"
    for file in (path, other):
        file.write_text("the same")
    before = identity(path)
    assert identity(path) == before
    other.replace(path)
    assert identity(path) != before
