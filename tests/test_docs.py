"""What the documentation shows is what was measured."""

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def tables() -> Any:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_results() -> None:
    made = tables()
    assert {path.stem for path in made.RESULTS.glob("*.json")} >= {"buffers", "envs", "ppo", "text"}
    assert made.PAGE.read_text() == made.page(made.RESULTS)
