"""The parser: every form of a call and of an answer, and any string at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palaestra.envs.parsing import PLAIN, Answer, Malformed, ToolCall, parse
from palaestra.envs.speech import Speech, harmless
from palaestra.envs.tools import Tool


def search(query: str) -> str:
    """Search.

    Args:
        query: Words.
    """
    return query


def python(code: str) -> str:
    """Run code.

    Args:
        code: A program.
    """
    return code


def roll(sides: int) -> str:
    """Roll a die.

    Args:
        sides: How many sides it has.
    """
    return str(sides)


def switch(on: bool) -> str:
    """Turn a switch.

    Args:
        on: Whether it is on.
    """
    return str(on)


def heat(degrees: float) -> str:
    """Heat an oven.

    Args:
        degrees: How hot.
    """
    return str(degrees)


def move(x: int, y: int) -> str:
    """Move a piece.

    Args:
        x: Column.
        y: Row.
    """
    return f"{x}{y}"


TOOLS = {f.__name__: Tool(f) for f in (search, python, roll, switch, heat, move)}


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(TOOLS[name], arguments)


def as_json(name: object, arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (as_json("search", {"query": "cats"}), call("search", query="cats")),
        (as_json("move", {"x": 1, "y": 2}), call("move", x=1, y=2)),
        (f"Let me see.\n{as_json('roll', {'sides': 6})}\nDone.", call("roll", sides=6)),
        (as_json("roll", {"sides": 6}).removesuffix("</tool_call>"), call("roll", sides=6)),
        ("<search>cats</search>", call("search", query="cats")),
        ("<search>\n  cats\n</search>", call("search", query="cats")),
        ("<SEARCH>cats</Search>", call("search", query="cats")),
        ("<python>print('<b>')</python>", call("python", code="print('<b>')")),
        ("<roll>6</roll>", call("roll", sides=6)),
        ("<switch>false</switch>", call("switch", on=False)),
        ("<heat>180</heat>", call("heat", degrees=180)),
        ("```python\nprint(1)\nprint(2)\n```", call("python", code="print(1)\nprint(2)")),
        ("```search  \ncats\n```", call("search", query="cats")),
        ("```sh\nls\n```\n```python\n1\n```", call("python", code="1")),
    ],
)
def test_calls(message: str, expected: ToolCall) -> None:
    assert parse(message, TOOLS) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("<answer>Paris</answer>", "Paris"),
        ("<ANSWER> Paris\n</ANSWER>", "Paris"),
        ("<answer></answer>", ""),
        ("<answer>Rome</answer> no, <answer>Paris</answer>", "Paris"),
        (r"\boxed{42}", "42"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"so it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"<answer>3</answer> \boxed{4}", "3"),
    ],
)
def test_answers(message: str, expected: str) -> None:
    assert parse(message, TOOLS) == Answer(expected)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("<answer>3</answer><search>cats</search>", call("search", query="cats")),
        ("<search>cats</search><answer>3</answer>", call("search", query="cats")),
        ("<search>cats</search><search>dogs</search>", call("search", query="cats")),
        ("```search\ncats\n```<roll>6</roll>", call("search", query="cats")),
        ("<roll>6</roll>```search\ncats\n```", call("roll", sides=6)),
        (f"<roll>6</roll>{as_json('search', {'query': 'cats'})}", call("roll", sides=6)),
        (f"{as_json('search', {'query': 'cats'})}<roll>6</roll>", call("search", query="cats")),
        (as_json("search", {"query": "<roll>6</roll>"}), call("search", query="<roll>6</roll>")),
        (f"{as_json('roll', {'sides': 2})}<answer>3</answer>", call("roll", sides=2)),
    ],
)
def test_the_first_call_goes_before_everything(message: str, expected: ToolCall) -> None:
    assert parse(message, TOOLS) == expected


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "no tool call and no answer"),
        ("I don't know.", "no tool call and no answer"),
        ("<answer>Paris", "no tool call and no answer"),
        ("<search>cats", "no tool call and no answer"),
        (r"\boxed{1", "no tool call and no answer"),
        ("<fly>away</fly>", "no tool call and no answer"),
        ("<tool_call></tool_call>", "not valid JSON"),
        ("<tool_call>{'name': 'search'}</tool_call>", "not valid JSON"),
        ('<tool_call>{"name": "search", "argu', "not valid JSON"),
        (
            '<tool_call>{"name": "heat", "arguments": {"degrees": NaN}}</tool_call>',
            "not valid JSON",
        ),
        ('<tool_call>{"name": "heat", "arguments": {"degrees": -Infinity}}</tool_call>', "JSON"),
        ('<tool_call>{"name": "heat", "arguments": {"degrees": 1e999}}</tool_call>', "finite"),
        ("<tool_call>" + "[" * 100_000, "not valid JSON"),
        ("<tool_call>[1]</tool_call>", 'needs a "name"'),
        ("<tool_call>{}</tool_call>", 'needs a "name"'),
        (as_json(3, {}), 'needs a "name"'),
        (as_json("fly", {}), "the tools are: search, python, roll, switch, heat, move"),
        (as_json("search", ["cats"]), '"arguments" must be an object'),
        (as_json("search", {}), "search takes query"),
        (as_json("search", {"query": 3}), "query must be of type string"),
        (as_json("roll", {"sides": 6.5}), "sides must be of type integer"),
        ('<tool_call>{"name": "roll"}</tool_call>', "roll takes sides"),
        ("<move>1 2</move>", "move takes x, y: call it with JSON"),
        ("<roll>six</roll>", "sides must be of type integer"),
        ("<roll>6.5</roll>", "sides must be of type integer"),
        ("<switch>maybe</switch>", "on must be of type boolean"),
        ("<switch>1</switch>", "on must be of type boolean"),
        ("<heat>nan</heat>", "degrees must be"),
        ("<heat>NaN</heat>", "degrees must be"),
        ("<heat>1e999</heat>", "degrees must be finite"),
        ("<heat>" + "[" * 100_000 + "</heat>", "degrees must be of type number"),
        ("<roll>" + "9" * 10_000 + "</roll>", "sides must be of type integer"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_neither_says_why(message: str, reason: str) -> None:
    parsed = parse(message, TOOLS)
    assert isinstance(parsed, Malformed)
    assert reason in parsed.reason


def test_without_tools_a_call_is_malformed_and_an_answer_is_not() -> None:
    assert parse(as_json("search", {}), {}) == Malformed("the tools are: none")
    assert parse("<search>cats</search><answer>3</answer>", {}) == Answer("3")


PIECES = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", '{"name": "search", "arguments": {', "}}", "<answer>",
        "</answer>", "\\boxed{", "}", "```python\n", "```", "<search>", "</search>", "<", ">",
        '"query": "', "\\ud800", "[", "{", "<roll>", "</roll>", "NaN",
    ]
)  # fmt: skip
ANY_TEXT = st.text(st.characters())


@given(ANY_TEXT | st.lists(PIECES | ANY_TEXT, max_size=30).map("".join))
def test_no_string_raises(message: str) -> None:
    assert isinstance(parse(message, TOOLS), ToolCall | Answer | Malformed)


@given(ANY_TEXT)
def test_an_argument_survives_json(query: str) -> None:
    parsed = parse(as_json("search", {"query": query}), TOOLS)
    # An end tag inside a string ends the call: a template writes it no other way.
    assert "</tool_call>" in query or parsed == call("search", query=query)


@pytest.mark.parametrize("name", ["getWeather", "read-file", "a.b", "Weather"])
@pytest.mark.parametrize("form", ["<{0}>Rome</{0}>", "```{0}\nRome\n```"])
def test_names_as_other_people_give_them(name: str, form: str) -> None:
    def ask(city: str) -> str:
        return city

    ask.__name__ = name
    call = parse(form.format(name), {name: Tool(ask)})
    assert isinstance(call, ToolCall)
    assert call.arguments == {"city": "Rome"}


AROUND = st.text(st.characters(codec="ascii"), max_size=12) | st.sampled_from(
    ["", "So: ", "I think\n\tit is ", "```ask\nx\n```", "```", r"\boxed{3}", "[INST]", "a < b"]
)


@given(
    AROUND,
    st.sampled_from(["answer", "ask", "think", "other", "tool_call", "Answer"]),
    AROUND,
    AROUND,
)
def test_a_plain_message_is_read_as_any_other(
    before: str, name: str, inside: str, after: str
) -> None:
    def ask(text: str) -> str:
        return text

    speech = Speech({"ask": Tool(ask)})
    message = f"{before}<{name}>{inside}</{name}>{after}"
    assert speech.hear(message) == speech._understood(message)


@pytest.mark.parametrize("around", ["", "So it is\n", "2 > 1, therefore: "])
@pytest.mark.parametrize("name", ["answer", "python"])
def test_prose_around_a_tag_is_plain(name: str, around: str) -> None:
    message = f"{around}<{name}> 42 </{name}>{around}"
    assert PLAIN.fullmatch(message)
    assert harmless(message, TOOLS) == message
    assert Speech(TOOLS).hear(message) == Speech(TOOLS)._understood(message)
