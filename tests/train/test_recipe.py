"""Recipes: what is taken, and what is said about the rest."""

import math
import string
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import gymnasium
import palaestra.envs  # noqa: F401
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from palaestra.errors import UserError
from palaestra.train.recipe import RECIPES, Recipe, load_recipe, parse_settings

CARTPOLE = "palaestra/CartPole-v1"
IDS = sorted(name for name in gymnasium.registry if name.startswith("palaestra/"))


@pytest.mark.parametrize("env_id", IDS)
def test_every_environment_has_a_packaged_recipe(env_id: str) -> None:
    recipe = load_recipe(env_id)
    assert recipe.total_steps > recipe.n_envs * recipe.n_steps
    assert recipe.evaluate_every <= recipe.total_steps


@pytest.mark.parametrize("agent", RECIPES)
def test_packaged_recipes_are_of_environments_that_exist(agent: str) -> None:
    packaged = files("palaestra.train") / "recipes" / f"{agent}.yaml"
    named = yaml.safe_load(packaged.read_text("utf-8")).keys() - {"default"}
    assert named <= set(IDS)
    for env_id in named:
        recipe = load_recipe(env_id, agent=agent)
        assert recipe.evaluate_every <= recipe.total_steps


def test_an_environment_that_is_not_named_gets_the_default() -> None:
    assert load_recipe("palaestra/Other-v0") == Recipe(total_steps=100_000, n_envs=8)


def test_what_is_changed_goes_over_the_file_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"default: {{n_envs: 3, gamma: 0.5}}\n{CARTPOLE}: {{n_steps: 7, gamma: 0.25}}\n"
    )
    recipe = load_recipe(CARTPOLE, path, {"n_steps": 9})
    expected = asdict(Recipe()) | {"n_envs": 3, "gamma": 0.25, "n_steps": 9}
    assert asdict(recipe) == expected


def test_a_mistyped_key_brings_the_nearest_to_mind() -> None:
    with pytest.raises(UserError, match=r"unknown recipe key 'learning_rat'.*'learning_rate'"):
        load_recipe(CARTPOLE, changes={"learning_rat": 1})
    with pytest.raises(UserError, match="the keys are: total_steps, n_envs"):
        load_recipe(CARTPOLE, changes={"zzzz": 1})


WRONG: dict[str, list[Any]] = {
    "total_steps": [0, -1, 1.5, "many", None, True],
    "n_envs": [0, 2.0, [8]],
    "n_steps": [0, "128"],
    "batch_size": [0, None],
    "n_epochs": [0, False],
    "learning_rate": [0, -1e-3, "fast", math.nan, math.inf, True],
    "learning_rate_schedule": ["cosine", 1, None],
    "clip_range": [0.0, -0.2],
    "clip_range_schedule": ["", 0.1],
    "gamma": [-0.1, 1.1, math.nan],
    "gae_lambda": [-1, 2],
    "ent_coef": ["auto", None, math.inf],
    "vf_coef": ["half"],
    "max_grad_norm": [0, -1],
    "normalize_advantage": [1, "yes", None],
    "target_kl": ["small", False],
    "policy_kwargs": [[64, 64], "net_arch", 3],
    "evaluate_every": [0],
    "evaluate_episodes": [0, 1.0],
    "checkpoint_every": [-5],
}


def test_each_key_has_wrong_values_here() -> None:
    assert WRONG.keys() == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_wrong_value_is_named(key: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        load_recipe(CARTPOLE, changes={key: value})
    assert f"{key}={value!r}" in str(error.value)


def test_numbers_that_no_float_can_hold_are_refused() -> None:
    with pytest.raises(UserError, match="learning_rate"):
        load_recipe(CARTPOLE, changes={"learning_rate": 10**400})


def test_a_rollout_of_one_step_is_refused() -> None:
    with pytest.raises(UserError, match="n_steps=1"):
        load_recipe(CARTPOLE, changes={"n_envs": 1, "n_steps": 1})


@pytest.mark.parametrize("value", [1, 0.5, None, {"net_arch": [8]}])
def test_optional_values_may_be_left_empty(value: Any) -> None:
    key = "policy_kwargs" if isinstance(value, dict) else "target_kl"
    assert getattr(load_recipe(CARTPOLE, changes={key: value}), key) == value


# Files

BAD_FILES = [
    b"",
    b"- a\n- b\n",
    b"just words",
    b"palaestra/CartPole-v1: 3",
    b"palaestra/CartPole-v1:\n",
    b"a: [1, 2",
    b"a: b: c",
    b"\ta: 1",
    b"\xff\xfe\x00",
    b"when: 2001-13-45",
    b"a: !!bool maybe",
    b"a: !!python/object:os.system {}",
    b"[" * 3000,
]


@pytest.mark.parametrize("content", BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_bad_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_recipe(CARTPOLE, path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_the_environment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("palaestra/Other-v0: {n_envs: 2}\n")
    with pytest.raises(UserError, match="has no recipe for palaestra/CartPole-v1"):
        load_recipe(CARTPOLE, path)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the recipe .*absent"):
        load_recipe(CARTPOLE, tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot read the recipe"):
        load_recipe(CARTPOLE, tmp_path)


def test_a_number_may_be_written_as_in_python(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{CARTPOLE}: {{learning_rate: 3e-4}}\n")
    assert load_recipe(CARTPOLE, path).learning_rate == 3e-4


# Settings


def test_settings_are_read_as_yaml() -> None:
    assert parse_settings(
        ["a=1", "b=3e-4", "c=linear", "d={net_arch: [8, 8]}", "e=", "f=true", "g=x=y", " h =-2.5"]
    ) == {
        "a": 1, "b": 3e-4, "c": "linear", "d": {"net_arch": [8, 8]}, "e": None, "f": True,
        "g": "x=y", "h": -2.5,
    }  # fmt: skip


@pytest.mark.parametrize("setting", ["", "a", "=1", "a=[1", "a={", "a='x"])
def test_settings_that_cannot_be_read_are_quoted(setting: str) -> None:
    with pytest.raises(UserError) as error:
        parse_settings([setting])
    assert repr(setting) in str(error.value)


@given(st.one_of(st.text(), st.text(alphabet=string.punctuation + "0123456789abx \n=")))
@example("a=2001-13-45")
@example("a=!!bool maybe")
@example("a=!!timestamp maybe")
@example("a=!!int ''")
@example("a=0x_")
@example("a=" + "9" * 5000)
@example("a=" + "[" * 3000)
@example("a={[]: 1}")
@example("a=&x [*x]")
@example("a=\x00")
def test_any_setting_is_read_or_refused(setting: str) -> None:
    try:
        parsed = parse_settings([setting])
    except UserError:
        return
    assert list(parsed) == [setting.partition("=")[0].strip()]


@given(st.sampled_from([f.name for f in fields(Recipe)]), st.text(max_size=12))
@example("learning_rate", "1" * 400)
def test_any_value_makes_a_recipe_or_is_refused(key: str, text: str) -> None:
    try:
        recipe = load_recipe(CARTPOLE, changes=parse_settings([f"{key}={text}"]))
    except UserError as refused:
        recipe, said = None, str(refused)
    if recipe is None:
        assert key in said
    else:
        assert getattr(recipe, key) is not None or key in ("target_kl", "policy_kwargs")
