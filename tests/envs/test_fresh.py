"""No cache outlives the code that it was compiled from."""

import ast
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from palaestra.envs.fresh import CALLED, forget_stale

ROOT = Path(__file__).parents[2]


def compiled_in(path: Path) -> set[str]:
    """Return the functions of a module that Numba compiles."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and any(name in ast.unparse(d) for d in node.decorator_list for name in ("njit", "fast"))
    }


def part_of_what_is_compiled(path: Path) -> set[str]:
    """Return constants of a module, what makes intrinsics, and the functions that are compiled."""
    found = compiled_in(path)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and "@intrinsic" in ast.unparse(node):
            found.add(node.name)
        if isinstance(node, ast.Assign):
            names = [name.id for name in ast.walk(node) if isinstance(name, ast.Name)]
            found |= {name for name in names if name.strip("_").isupper()}
    return found


def imported_by(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield from which module of the project each name comes; "" for a whole module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = node.module.split(".") if node.module else []
            source = path.parents[node.level - 1].joinpath(*parts)
            for alias in node.names:
                whole = (source / alias.name).with_suffix(".py")
                yield (whole, "") if whole.exists() else (source.with_suffix(".py"), alias.name)


def test_every_module_whose_compiled_functions_others_call_is_watched() -> None:
    modules = [path for room in ("envs", "train") for path in (ROOT / room).rglob("*.py")]
    compiled = {path: compiled_in(path) for path in modules}
    parts = {path: part_of_what_is_compiled(path) for path in modules}
    called = set()
    for path in modules:
        if not compiled[path]:
            continue
        for source, name in imported_by(path):
            if name in parts.get(source, set()) or (not name and compiled.get(source)):
                called.add(str(source.relative_to(ROOT)))
    assert called <= set(CALLED)
    assert {"envs/kernel.py", "envs/pcg64.py", "train/compiled/network.py"} <= called
    of_images = {f"train/compiled/{name}.py" for name in ("sums", "windows", "winograd")}
    assert of_images <= called


def test_caches_stay_until_a_module_changes(tmp_path: Path) -> None:
    for name in CALLED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    folders = {(tmp_path / name).parent / "__pycache__" for name in CALLED}

    def fill() -> set[Path]:
        for folder in folders:
            folder.mkdir(exist_ok=True)
            for kind in ("nbi", "nbc", "pyc"):
                (folder / f"cached.{kind}").touch()
        return set(tmp_path.rglob("cached.*"))

    whole = fill()
    compiled = {path for path in whole if path.suffix != ".pyc"}
    forget_stale(tmp_path)
    assert {path for path in whole if path.exists()} == whole - compiled
    fill()
    forget_stale(tmp_path)
    assert all(path.exists() for path in whole)
    os.utime(tmp_path / CALLED[-1], (1, 1))
    forget_stale(tmp_path)
    assert {path for path in whole if path.exists()} == whole - compiled
