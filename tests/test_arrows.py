"""Who may import whom: train -> agents -> policies, train -> envs, all -> the root modules."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import palaestra
import pytest

ROOT = Path(palaestra.__file__).parent
ROOMS = ("envs", "policies", "agents", "train")
MAY_IMPORT = {
    "root": set(),
    "envs": set(),
    "policies": set(),
    "agents": {"policies"},
    "train": {"agents", "policies", "envs"},
}
HEAVY = {"torch", "transformers", "stable_baselines3"}

MODULES = [
    path
    for folder in (ROOT, *(ROOT / room for room in ROOMS))
    for path in sorted(folder.glob("*.py") if folder == ROOT else folder.rglob("*.py"))
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(module: str) -> str:
    """Return the room of a dotted name inside palaestra; a root module's is `root`."""
    second = (*module.split("."), "")[1]
    return second if second in ROOMS else "root"


def imported(source: str, package: str) -> set[str]:
    """Return the dotted names that a module of `package` imports, wherever in its source."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def imports_of(path: Path) -> set[str]:
    package = ".".join(("palaestra", *path.relative_to(ROOT).parent.parts))
    return imported(path.read_text("utf-8"), package)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ..envs import views", {"palaestra.envs.views"}),
        ("from ..envs.views import make", {"palaestra.envs.views.make"}),
        ("from .. import assets, train", {"palaestra.assets", "palaestra.train"}),
        ("from . import minilm", {"palaestra.policies.minilm"}),
        ("def f():\n    import palaestra.train.cli", {"palaestra.train.cli"}),
        ("import torch.nn as nn", {"torch.nn"}),
    ],
)
def test_the_reader_sees_every_form_of_import(source: str, expected: set[str]) -> None:
    assert imported(source, "palaestra.policies") == expected


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows(path: Path) -> None:
    room = room_of(".".join(("palaestra", *path.relative_to(ROOT).parts)))
    targets = {room_of(name) for name in imports_of(path) if name.split(".")[0] == "palaestra"}
    assert targets <= {room, "root"} | MAY_IMPORT[room]


@pytest.mark.parametrize("path", [p for p in MODULES if ROOT / "envs" in p.parents], ids=name_of)
def test_environments_import_no_network_library(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports_of(path)} & HEAVY


def test_the_package_itself_imports_nothing() -> None:
    assert imports_of(ROOT / "__init__.py") == set()


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `code`."""
    report = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(json.loads(answer.stdout.splitlines()[-1]))


def test_importing_the_environments_loads_neither_torch_nor_numba() -> None:
    loaded = loaded_after("import palaestra.envs")
    assert "palaestra.envs" in loaded
    assert not loaded & (HEAVY | {"numba", "sqlite3"})


PLAY_EACH = """
import gymnasium, palaestra.envs
from palaestra.envs.views import make
classes = {}
for spec in gymnasium.registry.values():
    if spec.id.startswith("palaestra/"):
        classes.setdefault(spec.entry_point, spec.id)
for env_id in classes.values():
    for view in ("native", "text", "array"):
        env = make(env_id, view)
        _, info = env.reset(seed=0)
        text = isinstance(env.action_space, gymnasium.spaces.Text)
        env.step(info["choices"][0] if text else env.action_space.sample())
        env.close()
"""


def test_playing_every_class_of_environments_leaves_torch_out() -> None:
    loaded = loaded_after(PLAY_EACH)
    assert {"palaestra.envs.cartpole", "palaestra.envs.capitals"} <= loaded
    assert not loaded & HEAVY


TRAIN = """
from palaestra.train.cli import main
asked = "train --env palaestra/CartPole-v1 --agent ppo --quiet --set total_steps=256 --out".split()
assert main([*asked, {out!r}]) == 0
"""


def test_training_where_a_kernel_steps_leaves_transformers_out(tmp_path: Path) -> None:
    loaded = loaded_after(TRAIN.format(out=str(tmp_path / "run")))
    assert "palaestra.train.training" in loaded
    assert "transformers" not in loaded
