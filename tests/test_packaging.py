"""The wheel holds all of the package, nothing else, and works away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import palaestra
import pytest

ROOT = Path(palaestra.__file__).parent
ROOMS = ("agents", "envs", "policies", "train")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "runs", "*.egg-info")


def expected_files() -> set[str]:
    """Return the sources and data of the package, by their names in the wheel."""
    found = [*ROOT.glob("*.py"), ROOT / "py.typed", *(ROOT / "train").glob("recipes/*.yaml")]
    found += [p for p in [ROOT / "train" / "board.html"] if p.exists()]
    for room in ROOMS:
        found += (ROOT / room).rglob("*.py")
    return {f"palaestra/{path.relative_to(ROOT).as_posix()}" for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source"],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("palaestra-*.whl"))


def test_the_wheel_holds_every_source_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == expected_files()


def test_the_wheel_has_the_command_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(n for n in names if n.endswith(".dist-info/entry_points.txt"))
        assert "palaestra = palaestra.train.cli:main" in archive.read(entry_points).decode()
    assert any(name.endswith("LICENSE") for name in names)


IMPORT_ALL = """
import importlib, pkgutil, sys
import palaestra
assert palaestra.__file__.startswith(sys.argv[1]), palaestra.__file__
names = [m.name for m in pkgutil.walk_packages(palaestra.__path__, "palaestra.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


def test_every_module_imports_from_the_unpacked_wheel(wheel: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    answer = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(unpacked)],
        cwd=tmp_path,
        # The unpacked modules have no compiled code in any cache, and compiling takes a minute.
        env=os.environ | {"PYTHONPATH": str(unpacked), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    # Every file is a module, a package's `__init__.py` stands for the package, and the root's
    # is not listed.
    modules = [name for name in expected_files() if name.endswith(".py")]
    assert int(answer.stdout) == len(modules) - 1
