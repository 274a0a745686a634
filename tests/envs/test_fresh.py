"""No cache outlives the code that it was compiled from."""

import ast
import os
import shutil
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


def test_every_module_whose_compiled_functions_others_call_is_watched() -> None:
    modules = [path for room in ("envs", "train") for path in (ROOT / room).rglob("*.py")]
    compiled = {path: compiled_in(path) for path in modules}
    called = set()
    for path in modules:
        if not compiled[path]:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                source = path.parents[node.level - 1].joinpath(*node.module.split("."))
                names = compiled.get(source.with_suffix(".py"), set())
                if names & {alias.name for alias in node.names}:
                    called.add(str(source.with_suffix(".py").relative_to(ROOT)))
    assert called <= set(CALLED)
    assert {"envs/kernel.py", "envs/pcg64.py", "train/compiled/network.py"} <= called


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
