"""BabyAI's missions: what is seen, what is said, and who can solve them."""

import copy
import pickle
import random
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from palaestra.envs.babyai import LEVELS, BabyAI, split_of
from palaestra.envs.views import AsChoices, AsText, Revealed
from palaestra.errors import UserError

pytest.importorskip("minigrid")

each_level = pytest.mark.parametrize("level", LEVELS)
THRESHOLD = 0.05


def by_id(level: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make an environment as a registered one would be, with its threshold."""
    spec = gymnasium.envs.registration.EnvSpec(
        f"test/BabyAI-{level}-v0", BabyAI, reward_threshold=THRESHOLD, kwargs={"level": level}
    )
    return gymnasium.make(spec, **kwargs)


def played(env: BabyAI, seed: int, rng: np.random.Generator | None) -> tuple[float, int]:
    """Play an episode, by solution or at random; return its return and length."""
    env.reset(seed=seed)
    total, length, over = 0.0, 0, False
    while not over:
        move = env.solution() if rng is None else int(rng.integers(6))
        _, reward, over, truncated, _ = env.step(move)
        assert not truncated
        total, length = total + reward, length + 1
    return total, length


@pytest.mark.parametrize("split", BabyAI.splits)
@each_level
def test_the_oracle_solves_every_task(level: str, split: str) -> None:
    env = BabyAI(level, split)
    for seed in range(6):
        total, length = played(env, seed, None)
        assert total == pytest.approx(1 - 0.9 * length / LEVELS[level][2])


@pytest.mark.parametrize("level", list(LEVELS)[:4])  # on the others it hardly ever succeeds
def test_a_random_agent_rarely_succeeds(level: str) -> None:
    env, rng = BabyAI(level, "test"), np.random.default_rng(0)
    returns = [played(env, seed, rng)[0] for seed in range(60)]
    assert np.mean([total > THRESHOLD for total in returns]) < 0.3  # of 500, under 0.2


@each_level
def test_the_splits_share_no_task(level: str) -> None:
    tasks: dict[str, set[bytes]] = {}
    for split in BabyAI.splits:
        env = BabyAI(level, split)
        for seed in range(15):
            env.reset(seed=seed)
            assert split_of(env._world) == split
            tasks.setdefault(split, set()).add(state_of(env))
    assert all(len(found) > 8 for found in tasks.values())
    assert not tasks["train"] & tasks["test"]
    assert not tasks["train"] & tasks["validation"]
    assert not tasks["validation"] & tasks["test"]


def state_of(env: BabyAI) -> bytes:
    world = env._world
    return (
        world.grid.encode().tobytes()
        + repr((world.mission, *map(int, world.agent_pos), int(world.agent_dir))).encode()
    )


@each_level
def test_a_seed_says_everything_and_no_global_generator_is_touched(level: str) -> None:
    seen = []
    for global_seed in (1, 2):
        random.seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        env, rng = BabyAI(level), np.random.default_rng(0)
        rows = [env.reset(seed=5)[0], env.reset()[0]]
        rows += [env.step(int(rng.integers(6)))[0] for _ in range(20)]
        seen.append([row.tobytes() for row in rows])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert seen[0] == seen[1]


def wander(level: str, seed: int, moves: int) -> list[tuple[Any, str]]:
    """Return observations and their descriptions along the way of half a bot."""
    env, rng = BabyAI(level), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    found = []
    for _ in range(moves):
        found.append((observation, env.describe(observation)))
        move = env.solution() if rng.random() < 0.7 else int(rng.integers(6))
        observation, _, over, _, _ = env.step(move)
        if over:
            observation, _ = env.reset()
    return found


@each_level
def test_a_description_says_all_that_is_seen(level: str) -> None:
    """Two observations that differ are said differently, and the other way round."""
    pairs = set()
    for observation, said in wander(level, 0, 200):
        pairs.add((observation[:-1].tobytes(), said.rpartition(" Turns left")[0]))
    assert len({seen for seen, _ in pairs}) == len({said for _, said in pairs}) == len(pairs) > 30


@each_level
def test_observations_fit_their_space_and_what_an_agent_may_read(level: str) -> None:
    for observation, said in wander(level, 1, 100):
        assert BabyAI(level).observation_space.contains(observation)
        assert len(said) < 1400
        assert said.isascii()


def test_a_description_agrees_with_the_world() -> None:
    env = BabyAI("PutNextLocal")
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        said, world = env.describe(observation), env._world
        assert f"Mission: {world.mission}." in said
        assert f"You face {('east', 'south', 'west', 'north')[world.agent_dir]} and carry" in said
        assert said.endswith("Turns left: 64.")
        front = world.grid.get(*world.front_pos)
        name = None if front is None else f"{front.color} {front.type} 1 step ahead;"
        if front is not None and front.type != "wall":
            assert name in said
        for x in range(world.width):
            for y in range(world.height):
                thing = world.grid.get(x, y)
                if thing is None or thing.type == "wall" or not world.in_view(x, y):
                    continue
                across, row = world.relative_coords(x, y)
                ahead, right = 6 - row, across - 3
                steps = f"{ahead} step{'s' if ahead > 1 else ''} ahead" if ahead else ""
                side = f"{abs(right)} to the {'right' if right > 0 else 'left'}" if right else ""
                where = " and ".join(part for part in (steps, side) if part)
                assert f"a {thing.color} {thing.type} {where}" in said


def test_what_is_carried_is_told_and_doors_tell_their_state() -> None:
    env = BabyAI("UnlockLocal")
    observation, _ = env.reset(seed=0)
    said = [env.describe(observation)]
    over = False
    while not over:
        observation, _, over, _, _ = env.step(env.solution())
        said.append(env.describe(observation))
    text = "\n".join(said)
    assert "carry nothing" in said[0]
    assert "carry a " in text
    assert "a locked " in text
    assert "an open " in said[-1]


def test_walls_are_told_as_lines() -> None:
    env = BabyAI("GoToObj")
    env.reset(seed=0)
    world = env._world
    world.agent_pos, world.agent_dir = (1, 6), 0  # in a corner, looking along a wall
    said = env.describe(env._observe(world.gen_obs()))
    assert "a wall 1 to the right from beside you to 6 steps ahead" in said
    world.agent_dir = 1  # at the wall
    said = env.describe(env._observe(world.gen_obs()))
    assert "a wall 1 step ahead from 3 to the left to 1 to the right" in said


def test_the_last_turn_ends_it_and_is_announced() -> None:
    env = BabyAI("PutNextLocal", "test")
    observation, _ = env.reset(seed=0)
    for turns in range(64, 0, -1):
        assert env.describe(observation).endswith(f"Turns left: {turns}.")
        observation, reward, terminated, truncated, _ = env.step(0)
    assert (reward, terminated, truncated) == (0.0, True, False)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_before_a_reset_there_is_no_step() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        BabyAI().step(0)


@pytest.mark.parametrize("action", [-1, 6, 2.0, "left", None])
def test_other_actions_are_refused(action: Any) -> None:
    env = BabyAI()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="is not in"):
        env.step(action)


@pytest.mark.parametrize("wrong", [{"level": "Nowhere"}, {"split": "x"}, {"render_mode": "ansi"}])
def test_mistakes_are_told(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match="there are: "):
        BabyAI(**wrong)


def test_without_the_extra_the_command_is_told() -> None:
    code = (
        "import sys; sys.modules['minigrid'] = None\n"
        "from palaestra.envs.babyai import BabyAI\nBabyAI()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserError: BabyAI needs an extra: pip install 'palaestra[babyai]'" in answer.stderr


def test_drawing_worlds_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for level in LEVELS:
        env = BabyAI(level)
        for seed in range(20):
            env.reset(seed=seed)
    assert capfd.readouterr().out == ""


# Snapshots and advice


@each_level
def test_a_snapshot_goes_on_in_any_instance(level: str) -> None:
    env, other, third = (BabyAI(level) for _ in range(3))
    env.reset(seed=3)
    other.reset(seed=4)
    third.reset(seed=5)
    for _ in range(4):
        env.step(env.solution())
    state = env.get_state()
    frozen = pickle.dumps(state)
    follow = [rest_of(env)]
    other.set_state(state)
    follow.append(rest_of(other))
    third.set_state(pickle.loads(frozen))
    follow.append(rest_of(third))
    env.set_state(state)
    follow.append(rest_of(env))
    assert follow[0] == follow[1] == follow[2] == follow[3]


def rest_of(env: BabyAI) -> list[bytes]:
    """Play to the end and a start beyond; return all that was seen."""
    rows, over = [], env._over
    while not over:
        observation, reward, over, _, _ = env.step(env.solution())
        rows.append(observation.tobytes() + repr(reward).encode())
    return [*rows, env.reset()[0].tobytes()]


def test_a_snapshot_of_another_world_is_refused() -> None:
    env = BabyAI("GoToObj")
    env.reset(seed=0)
    for other in (BabyAI("GoToLocal"), BabyAI("GoToObj", "test")):
        with pytest.raises(UserError, match="the state is of"):
            other.set_state(env.get_state())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_in_the_same_way(copied: Any) -> None:
    env = BabyAI("KeyCorridor")
    env.reset(seed=2)
    for _ in range(5):
        env.step(env.solution())
    assert rest_of(copied(env)) == rest_of(env)


def test_advice_is_the_same_however_often_it_is_asked() -> None:
    env = BabyAI("PutNextLocal", "test")
    env.reset(seed=0)
    over, total = False, 0.0
    while not over:
        assert env.solution() == env.solution() == env.solution()
        _, total, over, _, _ = env.step(env.solution())
    assert total > 0


@each_level
def test_advice_survives_anything(level: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        env = BabyAI(level)
        env.reset(seed=seed)
        over = False
        while not over:
            if rng.random() < 0.5:
                assert env.action_space.contains(env.solution())
            _, _, over, _, _ = env.step(int(rng.integers(6)))


# Views


def test_it_is_played_in_words() -> None:
    env = Revealed(AsText(by_id("GoToObj", split="test")))
    said, info = env.reset(seed=0)
    assert said.startswith("Mission: go to ")
    assert info["choices"] == ("left", "right", "forward", "pickup", "drop", "toggle")
    over = False
    while not over:
        said, reward, over, _, info = env.step(f"<answer>{info['solution']}</answer>")
    assert reward > 0
    assert info["success"]


def test_a_mission_done_at_the_last_moment_is_a_success() -> None:
    env = AsText(by_id("GoToObj"))
    env.reset(seed=0)
    moves = []
    over = False
    while not over:
        moves.append(env.solution())
        _, _, over, _, _ = env.step(moves[-1])
    env.reset(seed=0)
    for _ in range((32 - len(moves)) // 4 * 4):
        env.step("left")
    for move in moves:
        _, _, over, _, info = env.step(move)
    assert over
    assert info["success"]


def test_it_is_shown_as_choices() -> None:
    env = Revealed(AsChoices(by_id("OpenDoorsOrder", split="test")))
    _, info = env.reset(seed=1)
    over = False
    while not over:
        observation, reward, over, _, info = env.step(info.get("solution", 0))
        assert observation["mask"].sum() in (0, 6)
    assert reward > 0


def test_it_renders() -> None:
    env = BabyAI("KeyCorridor", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    env.close()
