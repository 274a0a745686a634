"""Calculator: exact arithmetic, and tasks whose splits share nothing."""

import ast
import contextlib
import operator
import re
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from palaestra.envs.calculator import Calculator, calculator
from palaestra.envs.tools import ToolError

DISJOINT = ("train", "validation", "test")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def by_python(node: ast.AST) -> Fraction:
    """Evaluate an expression with Python's own precedence, exactly."""
    match node:
        case ast.Expression(body):
            return by_python(body)
        case ast.BinOp(left, op, right):
            return Fraction(OPERATORS[type(op)](by_python(left), by_python(right)))
        case ast.UnaryOp(op, operand):
            return OPERATORS[type(op)](by_python(operand))
        case ast.Constant(value):
            return Fraction(str(value))
    raise AssertionError(ast.dump(node))


NUMBERS = st.integers(0, 10**6).map(str) | st.decimals(0, 1000, places=2).map(str)
SPACES = st.sampled_from(["", " ", "  "])


def joined(parts: tuple[str, str, str, str]) -> str:
    left, space, operation, right = parts
    return f"{left}{space}{operation}{space}{right}"


EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, SPACES, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            joined
        )
        | inner.map("({})".format)
        | inner.map("-{}".format)
    ),
    max_leaves=10,
)


@given(EXPRESSIONS)
def test_it_computes_as_python_does(expression: str) -> None:
    assume(len(expression) <= 200)
    try:
        expected = by_python(ast.parse(expression, mode="eval"))
    except ZeroDivisionError:
        with pytest.raises(ToolError, match="division by zero"):
            calculator(expression)
        return
    if expected.denominator == 1:
        assert calculator(expression) == str(expected)
    else:
        assert float(calculator(expression)) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("79 - 86", "-7"),
        ("-7 % 3", "2"),
        ("7 // -2", "-4"),
        ("2 - -3", "5"),
        ("8 / 2 / 2", "2"),
        ("1 / 3", "0.3333333333"),
        ("0.1 + 0.2", "0.3"),
        ("1.50 * 2", "3"),
        ("007", "7"),
        ("2.5e-05 * 1e6", "25"),
        ("((((1))))", "1"),
        ("9" * 90 + "+1", "1" + "0" * 90),
    ],
)
def test_examples(expression: str, value: str) -> None:
    assert calculator(expression) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "ends too early"),
        ("   ", "ends too early"),
        ("2 +", "ends too early"),
        ("2 3", "'3' was not expected"),
        ("2 ** 3", "'\\*' was not expected"),
        ("1e555", "'e' was not expected"),
        (".5", "'.' was not expected"),
        ("1,000", "',' was not expected"),
        ("٣ + ٤", "'٣' was not expected"),
        ("²", "'²' was not expected"),
        ("__import__('os')", "'_' was not expected"),
        ("2 × 3", "'×' was not expected"),
        ("(2", "not closed"),
        ("2)", "'\\)' was not expected"),
        ("()", "'\\)' was not expected"),
        ("1 / 0", "division by zero"),
        ("1 // (2 - 2)", "division by zero"),
        ("1 % 0", "division by zero"),
        ("(" * 21 + "1" + ")" * 21, "deeper than 20"),
        ("-" * 30 + "1", "deeper than 20"),
        ("1" * 201, "longer than 200"),
    ],
    ids=lambda value: value[:30],
)
def test_errors_say_what_is_wrong(expression: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        calculator(expression)


@given(
    st.text(st.characters(), max_size=250)
    | st.text("0123456789+-*/%(). ²٣", max_size=200)
    | st.text("0123456789+-*/%() ", max_size=200)
)
def test_any_text_gets_a_number_or_a_tool_error(expression: str) -> None:
    with contextlib.suppress(ToolError):
        float(calculator(expression))


def questions(split: str, count: int = 2000) -> list[str]:
    env = Calculator(split)
    return [env.reset(seed=0 if i == 0 else None)[0] for i in range(count)]


@pytest.fixture(scope="module")
def asked() -> dict[str, list[str]]:
    return {split: questions(split) for split in Calculator.splits}


def operands(asked: list[str]) -> set[str]:
    return {number for question in asked for number in re.findall(r"\d+", question)}


def phrasings(asked: list[str]) -> set[str]:
    return {re.sub(r"\d+", "N", question) for question in asked}


def test_splits_share_no_operand(asked: dict[str, list[str]]) -> None:
    used = {split: operands(asked[split]) for split in DISJOINT}
    assert {split: len(numbers) for split, numbers in used.items()} == {
        "train": 70,
        "validation": 14,
        "test": 14,
    }
    assert len(set.union(*used.values())) == 98
    assert operands(asked["paraphrase"]) == used["test"]


def test_paraphrases_are_used_by_no_other_split(asked: dict[str, list[str]]) -> None:
    train, validation, test, paraphrase = (phrasings(asked[split]) for split in asked)
    assert train == validation == test
    assert len(train) == 8
    assert not paraphrase & train
    assert len(paraphrase) >= 8


def test_a_smaller_number_may_be_reduced_by_a_larger_one(asked: dict[str, list[str]]) -> None:
    """Which operand comes first must be read, not guessed from their sizes."""
    reduced = [re.fullmatch(r"What is (\d+) reduced by (\d+)\?", q) for q in asked["test"]]
    larger_first = [int(found[1]) > int(found[2]) for found in reduced if found]
    assert {True, False} == set(larger_first)


def test_operands_may_lie_close_together(asked: dict[str, list[str]]) -> None:
    """As in "What is 79 reduced by 86?", the example of the documentation."""
    pairs = [sorted(map(int, re.findall(r"\d+", question))) for question in asked["test"]]
    assert any(larger < 2 * smaller for smaller, larger in pairs)


@pytest.mark.parametrize("level", Calculator.levels)
@pytest.mark.parametrize("split", Calculator.splits)
def test_each_step_is_asked_for_and_computed(level: str, split: str) -> None:
    env = Calculator(split, level)
    for seed in range(50):
        question, _ = env.reset(seed=seed)
        results: list[str] = []
        for _ in range(1 + Calculator.levels.index(level)):
            message = env.solution()
            expression = message.removeprefix("<calculator>").removesuffix("</calculator>")
            assert not results or results[-1] in expression.split(" ")
            said, *_ = env.step(message)
            assert said == calculator(expression)
            results.append(said)
        assert len(results) == len(question.split(", then "))
        assert env.solution() == f"<answer>{results[-1]}</answer>"
        assert env.step(env.solution())[1] == 1.0


def test_a_step_may_be_saved_by_brackets() -> None:
    env = Calculator(level="two-step")
    env.reset(seed=0)
    first, second = (call[12:-13] for call in env.task.plan.calls)
    value = calculator(first)
    said, *_ = env.step(f"<calculator>{second.replace(value, f'({first})', 1)}</calculator>")
    assert env.step(f"<answer>{said}</answer>")[1] == 1.0
