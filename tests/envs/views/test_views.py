"""The two views: the same world, seen as text and as arrays."""

import json
import pickle
from typing import Any

import gymnasium
import numpy as np
import palaestra.envs  # noqa: F401
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from palaestra.envs.capitals import Capitals
from palaestra.envs.views import AsChoices, AsDialogue, AsText, Revealed, find_spec, make, splits_of
from palaestra.envs.views.crossing import as_lines
from palaestra.errors import UserError

IDS = ("palaestra/CartPole-v1", "palaestra/Calculator-v0", "palaestra/Capitals-v0")
CARTPOLE, CALCULATOR, CAPITALS = IDS


def decoded(row: NDArray[np.uint8]) -> str:
    return row.tobytes().rstrip(b"\0").decode()


@pytest.mark.parametrize("env_id", IDS)
def test_every_environment_has_both_views(env_id: str) -> None:
    text = make(env_id, "text")
    question, info = text.reset(seed=0)
    assert isinstance(question, str)
    assert text.observation_space.contains(question)
    assert {"messages", "tools", "choices", "success", "failure", "reward_valid"} <= info.keys()

    arrays = AsChoices(make(env_id))
    observation, info = arrays.reset(seed=0)
    assert arrays.observation_space.contains(observation)
    assert arrays.action_space == spaces.Discrete(text.get_wrapper_attr("max_choices"))


def shown_in(observation: dict[str, NDArray[Any]]) -> list[dict[str, str]]:
    """Return the dialogue that an observation holds."""
    return [json.loads(line) for line in decoded(observation["dialogue"]).split("\n")]


def said_in(info: dict[str, Any]) -> list[dict[str, str]]:
    """Return the dialogue that an info holds, as an observation would show it."""
    return [{key: m[key] for key in ("role", "content")} for m in info["messages"]]


@pytest.mark.parametrize("env_id", IDS)
def test_text_crosses_as_bytes(env_id: str) -> None:
    env = AsChoices(make(env_id))
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        for _ in range(2):
            rows = [decoded(row) for row in observation["choices"]]
            count = len(info["choices"])
            assert rows == [*info["choices"], *[""] * (len(rows) - count)]
            np.testing.assert_array_equal(observation["mask"], np.arange(len(rows)) < count)
            np.testing.assert_array_equal(observation["mask"], env.action_masks())
            assert shown_in(observation) == said_in(info)
            observation, *_, info = env.step(env.solution())
        assert shown_in(observation) == said_in(info)


@pytest.mark.parametrize(
    "name",
    [
        "Factbook",
        "Factbook-multi-hop",
        "Factbook-comparison",
        "Almanac",
        "Capitals-join",
        "Synthesis",
    ],
)
def test_a_dialogue_that_solves_a_task_crosses_whole(name: str) -> None:
    env = make(f"palaestra/{name}-v0", "dialogue")
    for seed in range(8):
        _, info = env.reset(seed=seed)
        done = False
        while not done:
            row, _, terminated, truncated, info = env.step(env.get_wrapper_attr("solution")())
            done = terminated or truncated
            assert [json.loads(line) for line in decoded(row).split("\n")] == said_in(info)
        assert info["success"]


def test_choices_may_come_with_the_whole_dialogue() -> None:
    env = make("palaestra/Factbook-v0", "choices", split="train")
    brief = make("palaestra/Factbook-v0", "array", split="train")
    cut = 0
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        brief.reset(seed=seed)
        done = False
        while not done:
            lines = decoded(observation["dialogue"]).split("\n")
            assert [json.loads(line) for line in lines] == said_in(info)
            action = env.get_wrapper_attr("solution")()
            less = brief.step(action)[0]["dialogue"]
            observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            cut += decoded(less) != decoded(observation["dialogue"])
        assert info["success"]
    assert cut


def test_an_array_environment_is_chosen_in_by_what_it_says() -> None:
    env = make("palaestra/CartPole-v1", "choices")
    observation, info = env.reset(seed=0)
    assert tuple(decoded(row) for row in observation["choices"]) == info["choices"]


def test_room_for_a_dialogue_is_what_was_asked_for() -> None:
    env = AsDialogue(make(CALCULATOR), dialogue_bytes=500)
    assert env.reset(seed=0)[0].shape == env.observation_space.shape == (500,)


@pytest.mark.parametrize("turns", [None, np.inf, 10.0, 10**6], ids=str)
def test_room_is_bounded_whatever_an_environment_says(
    turns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make(CALCULATOR)
    monkeypatch.setattr(env.unwrapped, "max_turns", turns)
    (room,) = AsDialogue(env).observation_space.shape or ()
    assert room == (131_072 if turns == 10**6 else 4096)


def test_accents_cross_as_bytes() -> None:
    env = AsChoices(make(CAPITALS))
    seen = ""
    for seed in range(200):
        observation, info = env.reset(seed=seed)
        seen += "".join(info["choices"])
        assert tuple(decoded(row) for row in observation["choices"]) == info["choices"]
    assert not seen.isascii()


def after_one_call(room: int) -> tuple[NDArray[np.uint8], list[dict[str, str]]]:
    """Return what an observation shows after one call, and what was said."""
    env = AsChoices(make(CALCULATOR), dialogue_bytes=room)
    env.reset(seed=0)
    observation, *_, info = env.step(0)
    return observation["dialogue"], said_in(info)


def test_where_room_lacks_old_messages_are_left_out() -> None:
    plenty, _ = after_one_call(4096)
    size = np.count_nonzero(plenty)
    for room, left_out in ((size, 0), (size - 1, 1)):
        row, said = after_one_call(room)
        shown = [json.loads(line) for line in decoded(row).split("\n")]
        assert shown == said[:2] + said[2 + left_out :]


def test_a_dialogue_is_readable_however_little_room_there_is() -> None:
    for room in (512, 256, 128):
        for line in decoded(after_one_call(room)[0]).split("\n"):
            assert json.loads(line)["role"]


def test_a_long_choice_is_cut_in_the_observation_only() -> None:
    env = AsChoices(make(CALCULATOR), choice_bytes=12)
    observation, info = env.reset(seed=0)
    assert decoded(observation["choices"][0]) == "<calculator>"
    assert env.step(0)[4]["messages"][2]["content"] == info["choices"][0]


class Shrinking(Capitals):
    """Capitals with fewer choices after the first message."""

    def _choices(self) -> tuple[str, ...]:
        return super()._choices()[: 3 if self._turns else 8]


def test_a_padded_choice_is_a_format_failure() -> None:
    env = AsChoices(Shrinking())
    env.reset(seed=0)
    observation, *_ = env.step(0)
    assert observation["mask"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert not observation["choices"][3:].any()
    _, reward, terminated, truncated, info = env.step(7)
    assert (reward, terminated, truncated, info["failure"]) == (-0.1, False, False, "format")
    assert env.step(0)[4]["failure"] is None


@pytest.mark.parametrize("action", [-1, 6, 100])
def test_a_choice_that_does_not_exist_is_refused(action: int) -> None:
    env = AsChoices(make(CALCULATOR))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"{action} is not in"):
        env.step(action)


def test_choices_after_the_end_are_none() -> None:
    env = AsChoices(make(CALCULATOR))
    env.reset(seed=0)
    env.step(env.solution())
    observation, reward, terminated, *_ = env.step(env.solution())
    assert (reward, terminated) == (1.0, True)
    assert not observation["mask"].any()
    assert not observation["choices"].any()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_all_views_are_the_same_world() -> None:
    """The three views of an episode, move by move."""
    for seed in range(5):
        native, text, arrays = (make(CALCULATOR, view) for view in ("native", "text", "array"))
        infos = [env.reset(seed=seed)[1] for env in (native, text, arrays)]
        assert infos[0] == infos[1] == infos[2]
        over = False
        while not over:
            move = infos[0]["choices"][seed % 6]
            steps = [native.step(move), text.step(move), arrays.step(seed % 6)]
            assert steps[0] == steps[1]
            assert steps[0][1:] == steps[2][1:]
            infos = [step[4] for step in steps]
            over = steps[0][2]


def test_cartpole_in_words_is_the_same_cartpole() -> None:
    plain, spoken, chosen = make(CARTPOLE), make(CARTPOLE, "text"), AsChoices(make(CARTPOLE))
    observation, _ = plain.reset(seed=3)
    said, info = spoken.reset(seed=3)
    chosen.reset(seed=3)
    assert info["choices"] == ("left", "right")
    rng = np.random.default_rng(3)
    over = False
    while not over:
        assert said == plain.unwrapped.describe(observation)
        action = int(rng.integers(2))
        observation, *outcome, _ = plain.step(action)
        said, *spoken_outcome, info = spoken.step(info["choices"][action])
        assert outcome == spoken_outcome == list(chosen.step(action)[1:4])
        over = outcome[1] or outcome[2]


@pytest.mark.parametrize(
    ("message", "move"),
    [
        ("left", "left"),
        ("right", "right"),
        (" Left. ", "left"),
        ("RIGHT\n", "right"),
        ("<answer>left</answer>", "left"),
        ("It leans. <answer> Right. </answer>", "right"),
        (r"\boxed{left}", "left"),
    ],
)
def test_moves_in_words(message: str, move: str) -> None:
    env, twin = make(CARTPOLE, "text"), make(CARTPOLE, "text")
    env.reset(seed=0)
    twin.reset(seed=0)
    said, reward, *_, info = env.step(message)
    assert (said, reward) == twin.step(move)[:2]
    assert (reward, info["failure"]) == (1.0, None)
    assert move in str(info["parsed_action"])


@pytest.mark.parametrize(
    "message",
    ["", "up", "left or right", "0", "<answer></answer>", "left" * 2000, "\ud800", "<|im_end|>"],
    ids=lambda message: message.encode("ascii", "backslashreplace").decode()[:20],
)
def test_what_is_no_move_leaves_the_world_as_it_was(message: str) -> None:
    env, twin = make(CARTPOLE, "text"), make(CARTPOLE, "text")
    env.reset(seed=0)
    seen, _ = twin.reset(seed=0)
    said, reward, terminated, truncated, info = env.step(message)
    assert (reward, terminated, truncated) == (-0.1, False, False)
    assert (info["failure"], info["choices"]) == ("format", ("left", "right"))
    assert seen in said
    assert env.observation_space.contains(said)
    assert "<|im_end|>" not in str(info["messages"])
    np.testing.assert_array_equal(env.unwrapped.state, twin.unwrapped.state)
    for move in ("left", "right", "left"):
        assert env.step(move)[:4] == twin.step(move)[:4]


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"])
def test_after_the_third_message_that_is_no_move_the_world_goes_on_by_itself(name: str) -> None:
    env, plain = (make(f"palaestra/{name}", "text") for _ in range(2))
    _, info = env.reset(seed=0)
    plain.reset(seed=0)
    first = info["choices"][0]
    for message in ("???", first, "!!!"):
        assert env.step(message)[2:4] == (False, False)
    said, reward, *ended, info = env.step("...")
    plain.step(first)
    expected, ends = -0.1, [False, False]
    while not any(ends):
        seen, earned, *ends, _ = plain.step(first)
        expected += earned
    assert (reward, ended) == (pytest.approx(expected), ends)
    assert seen in said
    assert (info["failure"], info["choices"], info["success"]) == ("format", (), False)
    env.reset()
    assert env.step("???")[2] is False


@pytest.mark.parametrize("name", ["Acrobot-v1", "MountainCar-v0"])
def test_nonsense_is_no_success_where_every_step_costs(name: str) -> None:
    env = make(f"palaestra/{name}", "text")
    env.reset(seed=0)
    rewards = [env.step("banana") for _ in range(3)]
    assert sum(float(r) for _, r, *_ in rewards) < -190
    assert not rewards[-1][4]["success"]


PENDULUM = "palaestra/Pendulum-v1"


@pytest.mark.parametrize(
    ("message", "torque"),
    [
        ("1.5", 1.5),
        ("-2", -2.0),
        (" +0.25 \n", 0.25),
        (".5", 0.5),
        ("1.", 1.0),
        ("0.3.", 0.3),
        ("1e-3", 0.001),
        ("<answer>-0.7</answer>", -0.7),
        (r"It falls. \boxed{2}", 2.0),
    ],
)
def test_numbers_are_moves_of_a_continuous_world(message: str, torque: float) -> None:
    env, plain = make(PENDULUM, "text"), make(PENDULUM)
    env.reset(seed=0)
    plain.reset(seed=0)
    said, reward, *_, info = env.step(message)
    observation, expected, *_ = plain.step(np.array([torque], np.float32))
    assert (said, reward) == (plain.unwrapped.describe(observation), expected)
    assert info["failure"] is None
    assert float(info["parsed_action"][1]) == pytest.approx(torque)


@pytest.mark.parametrize(
    "message",
    ["", "2.01", "-3", "nan", "inf", "-inf", "1e999", "9" * 400, "1_0", "0x1", "1,5", "one", "1 2",
     "\u0661", "--1", "1e99999999", "<answer></answer>", "."],
)  # fmt: skip
def test_what_is_no_number_within_the_bounds_is_a_format_failure(message: str) -> None:
    env, twin = make(PENDULUM, "text"), make(PENDULUM, "text")
    env.reset(seed=0)
    twin.reset(seed=0)
    said, reward, terminated, _, info = env.step(message)
    assert (reward, terminated, info["failure"]) == (-0.1, False, "format")
    assert "one number from -2 to 2: the torque in N m" in said
    assert env.step("1")[:2] == twin.step("1")[:2]


def test_who_reads_is_told_the_form_of_a_number() -> None:
    for name, low, high in (("Pendulum-v1", -2, 2), ("MountainCarContinuous-v0", -1, 1)):
        env = make(f"palaestra/{name}", "text")
        _, info = env.reset(seed=0)
        assert f"Reply with one number from {low} to {high}: the " in info["messages"][0]["content"]
        np.testing.assert_array_equal(
            [float(c) for c in info["choices"]], np.linspace(low, high, 9)
        )


def test_the_choices_of_a_continuous_world_are_its_numbers() -> None:
    chosen, plain = AsChoices(make(PENDULUM)), make(PENDULUM)
    chosen.reset(seed=1)
    plain.reset(seed=1)
    assert chosen.action_space == spaces.Discrete(9)
    for action in (0, 8, 4, 5):
        torque = np.array([-2 + action / 2], np.float32)
        assert chosen.step(action)[1] == plain.step(torque)[1]
    assert abs(float(plain.unwrapped.solution()[0]) - (chosen.solution() / 2 - 2)) <= 0.25


@pytest.mark.parametrize("name", ["Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"])
def test_in_words_the_oracle_solves_the_classics(name: str) -> None:
    env = make(f"palaestra/{name}", "text")
    for seed in range(3):
        env.reset(seed=seed)
        over = False
        while not over:
            *_, terminated, truncated, info = env.step(env.solution())
            over = terminated or truncated
        assert info["success"]


@pytest.mark.parametrize("action", [0, None, b"left"])
def test_a_move_in_words_is_a_string(action: Any) -> None:
    env = make(CARTPOLE, "text")
    env.reset(seed=0)
    with pytest.raises(TypeError, match="type str"):
        env.step(action)


@pytest.mark.parametrize("message", ["left", "up"])
def test_moves_in_words_need_a_reset(message: str) -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        make(CARTPOLE, "text").step(message)


def test_the_messages_go_back_as_far_as_asked() -> None:
    for history in (1, 3):
        env = AsText(make(CARTPOLE), history=history)
        env.reset(seed=0)
        for _ in range(5):
            said, *_, info = env.step(env.solution())
        roles = [message["role"] for message in info["messages"]]
        assert roles == ["system", "user", *["assistant", "user"] * history]
        assert info["messages"][-1]["content"] == said


def test_messages_in_words_are_snapshots() -> None:
    env, twin = make(CARTPOLE, "text"), make(CARTPOLE, "text")
    for message in env.reset(seed=0)[1]["messages"]:
        message["content"] = "ruined"
    twin.reset(seed=0)
    assert env.step("left")[4]["messages"] == twin.step("left")[4]["messages"]


def test_a_held_pole_is_a_success() -> None:
    env = make(CARTPOLE, "text")
    env.reset(seed=0)
    over = False
    while not over:
        *_, terminated, truncated, info = env.step(env.get_wrapper_attr("solution")())
        over = terminated or truncated
        assert info["success"] is over
    assert truncated


@pytest.mark.parametrize("view", ["native", "text", "array"])
@pytest.mark.parametrize("env_id", IDS)
def test_the_solution_is_a_move_of_the_view(env_id: str, view: Any) -> None:
    env = Revealed(make(env_id, view))
    _, info = env.reset(seed=0)
    assert env.action_space.contains(info["solution"])
    *_, info = env.step(info["solution"])
    assert env.action_space.contains(info["solution"])


def test_after_the_end_there_is_no_solution() -> None:
    env = Revealed(make(CALCULATOR))
    _, info = env.reset(seed=0)
    for _ in range(2):
        *_, info = env.step(info["solution"])
    assert info["success"]
    assert "solution" not in info


def test_gymnasiums_own_environments_have_no_solution_and_no_words() -> None:
    with pytest.raises(UserError, match="no oracle"):
        Revealed(gymnasium.make("CartPole-v1"))
    for view in (AsText, AsChoices):
        with pytest.raises(UserError, match="cannot be shown as text"):
            view(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env_id": "palaestra/Capitols-v0"}, "did you mean 'palaestra/Capitals-v0'"),
        ({"env_id": "capitals"}, "did you mean 'palaestra/Capitals-v0'"),
        ({"env_id": "palaestra/CartPole-v7"}, "did you mean 'palaestra/CartPole-v1'"),
        ({"env_id": "palaestra/Qzx-v0"}, "palaestra list"),
        ({"env_id": "nowhere:palaestra/Capitals-v0"}, "cannot import nowhere"),
        ({"env_id": ""}, "unknown environment"),
        ({"env_id": CAPITALS, "split": "exam"}, "splits are: train, validation, test, paraphrase"),
        ({"env_id": CARTPOLE, "split": "test"}, "has no splits"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


def test_splits() -> None:
    assert splits_of(find_spec(CARTPOLE)) == ()
    assert splits_of(find_spec(CAPITALS)) == ("train", "validation", "test", "paraphrase")
    assert make(CAPITALS, split="test").unwrapped.split == "test"
    assert make(CAPITALS).unwrapped.split == "train"


def test_a_module_may_stand_before_the_id() -> None:
    assert make("palaestra.envs:palaestra/CartPole-v1").spec.id == CARTPOLE


@pytest.mark.parametrize("view", ["native", "text", "array"])
@pytest.mark.parametrize("env_id", IDS)
def test_a_view_can_be_made_again_from_its_spec(env_id: str, view: Any) -> None:
    env = make(env_id, view)
    again = gymnasium.make(env.spec)
    assert type(again) is type(env)
    assert repr(again.reset(seed=5)) == repr(env.reset(seed=5))


@pytest.mark.parametrize("view", ["native", "text", "array"])
def test_play_goes_on_from_a_snapshot_in_every_view(view: Any) -> None:
    env, other = (make("palaestra/Calculator-two-step-v0", view) for _ in range(2))
    env.reset(seed=3)
    env.step(env.get_wrapper_attr("solution")())
    state = env.get_wrapper_attr("get_state")()
    expected = [env.step(env.get_wrapper_attr("solution")()) for _ in range(2)]
    for again in (env, other):
        again.get_wrapper_attr("set_state")(pickle.loads(pickle.dumps(state)))
        played = [again.step(again.get_wrapper_attr("solution")()) for _ in range(2)]
        assert repr(played) == repr(expected)


def test_the_question_is_seen_to_the_end_of_a_long_dialogue() -> None:
    env = make("palaestra/Factbook-multi-hop-v0", "array", split="test")
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        question, over = info["messages"][1]["content"], False
        while not over:
            said = [json.loads(line) for line in decoded(observation["dialogue"]).split("\n")]
            assert question in [message["content"] for message in said]
            observation, _, over, _, info = env.step(env.get_wrapper_attr("solution")())


@pytest.mark.parametrize("room", [200, 500, 800, 2048])
def test_where_room_lacks_the_question_stays_longest(room: int) -> None:
    messages = [
        {"role": role, "content": letter * 700}
        for role, letter in (("system", "s"), ("user", "q"), ("assistant", "a"), ("tool", "é"))
    ]
    shown = as_lines(messages, room)
    assert len(shown.encode()) <= room
    kept = {m["content"][:1]: len(m["content"]) for m in map(json.loads, shown.split("\n"))}
    assert kept.get("q", 0) >= min(700, room - 160)
    assert "a" not in kept


class Faulty(gymnasium.Env[NDArray[Any], int]):
    """A world of arrays whose machinery fails in the second step."""

    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)
    instructions, action_words = "Go.", ("left", "right")
    spec = gymnasium.envs.registration.EnvSpec("Faulty-v0", reward_threshold=0.2)

    def reset(self, **kwargs: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        super().reset(**kwargs)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        broken = {"failure": "infra", "reward_valid": False} if action == 1 else {}
        return np.zeros(1, np.float32), 0.25 * (action == 0), True, False, broken

    def describe(self, observation: NDArray[Any]) -> str:
        return "Here."


def test_in_words_an_infra_failure_of_a_world_of_arrays_stays_one() -> None:
    env = AsText(Faulty())
    env.reset()
    info = env.step("right")[4]
    assert (info["failure"], info["reward_valid"]) == ("infra", False)


def test_what_was_not_understood_costs_reward_and_not_success() -> None:
    env = AsText(Faulty())
    env.reset()
    assert [env.step("Hm.")[1] for _ in range(2)] == [-0.1, -0.1]
    assert env.step("left")[4]["success"] is True
