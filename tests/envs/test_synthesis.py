import json

import numpy as np
import pytest
from palaestra.envs.questions.programs import Program
from palaestra.envs.synthesis import _SHAPES, Synthesis
from palaestra.envs.tools.bubblewrap import Bubblewrap
from palaestra.envs.tools.monty import Monty
from palaestra.errors import UserError

LEVELS = pytest.mark.parametrize("level", Synthesis.levels)
SHAPES = [
    pytest.param(shape, id=f"{level}-{i}")
    for level, shapes in _SHAPES.items()
    for i, shape in enumerate(shapes)
]


def _sandboxes():
    yield pytest.param("monty", id="monty")
    try:
        Bubblewrap()
        marks = []
    except UserError as error:
        marks = [pytest.mark.skip(reason=f"no bubblewrap here: {error}")]
    yield pytest.param("bubblewrap", id="bubblewrap", marks=marks)


sandboxes = pytest.mark.parametrize("python", list(_sandboxes()))


def _answered(env, answer):
    """Answer and return the reward."""
    return env.step(f"<answer>{answer}</answer>")[1]


@pytest.fixture
def env():
    """Return an environment with a task about a list, whose source is in `env.task`."""
    env = Synthesis("test", "composition")
    seed = 0
    while env.reset(seed=seed)[1]["kind"] != "list":
        seed += 1
    return env


@sandboxes
@pytest.mark.parametrize("shape", SHAPES)
def test_source_and_host_compute_the_same(python, shape):
    options = range(max(len(pool) for pool in shape.pools))
    programs = [Program(shape, tuple(p[i % len(p)] for p in shape.pools)) for i in options]
    probes = list(shape.input.probes)
    place = Monty() if python == "monty" else Bubblewrap()
    said = place.run(
        "\n".join(f"{p.source}\nprint([f(x) for x in {probes!r}])" for p in programs), 10**6
    )
    assert said.splitlines() == [repr([p(x) for x in probes]) for p in programs]


@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_are_as_the_probes(shape):
    generator = np.random.default_rng(0)
    drawn = [shape.input.draw(lambda n: int(generator.random() * n)) for _ in range(50)]
    assert {type(x) for x in drawn} == {type(x) for x in shape.input.probes}
    assert len({repr(x) for x in drawn}) > 20


@LEVELS
def test_the_oracle_solves_every_task(level):
    env = Synthesis("test", level)
    for seed in range(60):
        _, info = env.reset(seed=seed)
        assert info["python"] == "monty"
        _, _, over, _, _ = env.step(env.solution())
        assert not over
        _, reward, over, _, info = env.step(env.solution())
        assert (reward, over, info["success"]) == (1, True, True)


@LEVELS
def test_splits_share_no_function(level):
    seen = {}
    for split in Synthesis.splits:
        env = Synthesis(split, level)
        seen[split] = set()
        for seed in range(70):
            env.reset(seed=seed)
            seen[split] |= {p.behaviour for p in env._similar(env._shape())}
    assert all(len(behaviours) > 300 for behaviours in seen.values())
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


@LEVELS
@sandboxes
def test_one_choice_is_right(level, python):
    env = Synthesis("train", level, python=python)
    for seed in range(5 if python == "monty" else 1):
        _, info = env.reset(seed=seed)
        assert len(info["choices"]) == len(set(info["choices"])) == env.max_choices
        _, _, _, _, info = env.step(env.solution())
        state, right = env.get_state(), []
        for choice in info["choices"]:
            env.set_state(state)
            right.append(env.step(choice)[1])
        assert sorted(right) == [0] * 7 + [1]


@LEVELS
def test_what_a_call_shows_stands_in_the_question(level):
    env = Synthesis("train", level)
    for seed in range(20):
        question, info = env.reset(seed=seed)
        example = question.partition("Examples: ")[2].partition(" = ")[0]
        assert all(f"\n{example}</python>" in choice for choice in info["choices"])
        result, _, _, _, info = env.step(env.solution())
        assert info["failure"] is None
        assert f"{example} = {result}" in question
        assert question.count("f(") == 4  # f(x) and three examples


def test_every_choice_can_be_tried(env):
    state = env.get_state()
    for choice in env._choices():
        env.set_state(state)
        assert env.step(choice)[4]["failure"] is None


def test_hidden_tests_are_hidden(env):
    _, info = env.reset()
    assert len(env.task.tests) == 10
    told = json.dumps({**info, "choices": []})
    assert "tests" not in told
    assert repr(env.task.tests[0][0]) not in told.partition("Examples: ")[2]


def test_another_way_to_write_it_is_right(env):
    source = env.task.plan.answer
    state = env.get_state()
    for answer in (
        source,
        f"import json\n{source}\nprint('noise')",
        source.replace("def f(x):", "def f(x):\n    print('noise', end='')"),
        source.replace("def f(x)", "def g(x)") + "\nf = lambda x: g(x)",
        f"{source}\ng = f\ndef f(x):\n    y = g(x)\n    return tuple(y) if type(y) is list else y",
        source + "  # done",
    ):
        env.set_state(state)
        assert _answered(env, answer) == 1, answer


WRONG = {
    "nothing": "",
    "no function": "x = 3",
    "another name": "def g(x): return x",
    "no Python": "I do not know",
    "not finished": "def f(x):",
    "open string": 'def f(x): return x\n"""',
    "open bracket": "def f(x): return (x",
    "backslash": "def f(x): return x\\",
    "the input": "def f(x): return x",
    "None": "def f(x): return None",
    "raises": "def f(x): raise ValueError",
    "raises at once": "raise ValueError",
    "exits": "raise SystemExit(0)",
    "exits when called": "def f(x): raise SystemExit",
    "exits hard": "import os\nos._exit(0)",
    "prints and exits": "print('\\n[' + ', '.join(['0'] * 10) + ']')\nraise SystemExit(0)",
    "prints the inputs": "def f(x): print(x)",
    "says true": "print(True)\nprint(1)\nraise SystemExit(0)",
    "never ends": "def f(x):\n    while True: pass",
    "never begins": "while True: pass",
    "recursion": "def f(x): return f(x)",
    "memory": "def f(x): return 'x' * 10**10",
    "much": "def f(x): return 'x' * 10**5",
    "is equal to all": (
        "class A:\n    def __eq__(self, other): return True\n"
        "    def __ne__(self, other): return False\n    def __hash__(self): return 0\n"
        "def f(x): return A()"
    ),
    "own json": (
        "import json\ndef dumps(x): return 'true'\njson.dumps = dumps\ndef f(x): return 1"
    ),
    "own print": "def print(*a): pass\ndef f(x): return 1",
    "own output": "import sys\nsys.stdout = None\ndef f(x): return 1",
    "NaN": "def f(x): return float('nan')",
    "deep": "def f(x):\n    y = []\n    for _ in range(90000): y = [y]\n    return y",
    "looks for the answers": (
        "import sys\nf = lambda x: [v for v in sys._getframe(1).f_locals.values()]"
    ),
    "reads the source": "print(open(__file__).read())\ndef f(x): return 1",
}


@sandboxes
@pytest.mark.parametrize("attempt", WRONG)
def test_what_is_not_the_function_is_wrong(env, python, attempt):
    env = Synthesis("test", "composition", python=python)
    env.reset(seed=1)
    _, reward, terminated, truncated, info = env.step(f"<answer>{WRONG[attempt]}</answer>")
    failure = "timeout" if attempt in ("never begins", "never ends") else None
    assert (reward, terminated, truncated, info["failure"]) == (0, True, False, failure)


@pytest.mark.parametrize("fake", ["{} == 1", "float({})", "bool({})", "[{}]", "str({})"])
def test_another_type_is_wrong(fake):
    env = Synthesis("test", "expression")
    env.reset(seed=1)
    source = env.task.plan.answer
    answer = f"{source}\ng = f\ndef f(x): return {fake.format('g(x)')}"
    assert _answered(env, answer) == 0


def test_a_broken_sandbox_is_not_the_agents_fault(env, monkeypatch):
    def broken(*_):
        raise OSError("no space")

    monkeypatch.setattr(env._sandbox, "run", broken, raising=False)
    _, reward, terminated, truncated, info = env.step("<answer>def f(x): return x</answer>")
    assert (reward, terminated, truncated, info["failure"]) == (0, False, True, "infra")
    assert not info["reward_valid"]


@LEVELS
def test_a_snapshot_can_be_played_elsewhere(level):
    env, other = Synthesis("test", level), Synthesis("test", level)
    env.reset(seed=3)
    env.step(env.solution())
    other.set_state(env.get_state())
    assert other.step(other.solution())[1] == env.step(env.solution())[1] == 1


def test_the_sandbox_is_chosen():
    with pytest.raises(UserError, match="unknown sandbox"):
        Synthesis(python="docker")


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_is_the_same_task(seed):
    env, other = Synthesis("train", "loop"), Synthesis("train", "loop")
    other.reset(seed=99)
    first, second = env.reset(seed=seed), other.reset(seed=seed)
    assert first == second
    assert env.task.tests == other.task.tests


def test_an_answer_that_does_not_end_is_a_time_out():
    env = Synthesis()
    env.reset(seed=0)
    _, reward, over, cut, info = env.step("<answer>def f(x):\n    while True: pass</answer>")
    assert (reward, over, cut, info["failure"]) == (0.0, True, False, "timeout")


def test_a_right_answer_may_print():
    env = Synthesis()
    env.reset(seed=0)
    env.step(env.solution())
    answer = env.solution().replace("<answer>", "<answer>print('x' * 11_000)\n")
    answer = answer.replace("def f(x):\n", "def f(x):\n    print('y' * 3_000)\n")
    assert env.step(answer)[1] == 1.0
