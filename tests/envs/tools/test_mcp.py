"""Tools over MCP, in this process and in others, and what happens when they break."""

import asyncio
import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import palaestra.envs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.envs.parsing import Malformed, ToolCall, parse
from palaestra.envs.text import Task, TextEnv
from palaestra.envs.tools import BadArguments, Tool, ToolError, ToolTimeout
from palaestra.envs.views import is_text, make
from palaestra.errors import UserError

psutil = pytest.importorskip("psutil")
mcp_types = pytest.importorskip("mcp_types")
from mcp.server import MCPServer, Server  # noqa: E402
from palaestra.envs.tools.json_schema import Fits  # noqa: E402
from palaestra.envs.tools.mcp import McpTools  # noqa: E402
from palaestra.envs.tools.mcp_server import serve, serve_stdio  # noqa: E402

IDS = sorted(name for name in gymnasium.registry if name.startswith("palaestra/"))


def add(first: int, second: int) -> str:
    """Add two numbers.

    Args:
        first: One number.
        second: The other.
    """
    return str(first + second)


def shout(text: str, times: int = 1) -> str:
    """Say something louder.

    Args:
        text: What to say.
        times: How often.
    """
    return " ".join([text.upper()] * times)


def misbehave(how: str) -> str:
    """Do what no tool should.

    Args:
        how: Which way.
    """
    if how == "sleep":
        subprocess.Popen(["sleep", "60"])
        time.sleep(60)
    if how == "die":
        os._exit(1)
    if how == "crash":
        raise ZeroDivisionError
    if how == "print":
        print("this must not reach the protocol")
    if how == "refuse":
        raise ToolError("refused")
    if how == "late":
        raise ToolTimeout("too late")
    return how


OURS = [Tool(add), Tool(shout), Tool(misbehave)]


def offer() -> None:
    """Serve the tools above; what the process below runs."""
    serve_stdio(OURS)


COMMAND = [
    sys.executable,
    "-c",
    "import importlib.util as u; "
    f"spec = u.spec_from_file_location('tools_of_the_test', {__file__!r}); "
    "tests = u.module_from_spec(spec); spec.loader.exec_module(tests); "
    "tests.offer()",
]


@pytest.fixture(scope="module")
def shared() -> Iterator[McpTools]:
    with McpTools(COMMAND) as tools:
        yield tools


@pytest.fixture
def process(shared: McpTools) -> Iterator[McpTools]:
    yield shared
    # A server that broke starts again in the background: the next test counts threads.
    shared.call("add", first=1, second=1)


@pytest.fixture
def local() -> Iterator[McpTools]:
    with McpTools(serve(OURS)) as tools:
        yield tools


@pytest.fixture(params=["local", "process"])
def tools(request: pytest.FixtureRequest) -> McpTools:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not isinstance(thread, _Dummy)}


_Dummy = threading._DummyThread


def settled(look: Any, expected: Any) -> bool:
    """Wait for something that ends a moment after it was told to."""
    deadline = time.monotonic() + 3
    while not look() <= expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(look() <= expected)


# Calls


def test_the_schemas_arrive_as_they_were_sent(tools: McpTools) -> None:
    assert {name: tool.schema for name, tool in tools.tools.items()} == {
        tool.name: tool.schema for tool in OURS
    }


def test_calls_say_what_the_tools_say(tools: McpTools) -> None:
    assert tools.tools["add"].call({"first": 2, "second": 3}) == "5"
    assert tools.tools["shout"].call({"text": "čau"}) == "ČAU"
    assert tools.tools["shout"].call({"text": "hi", "times": 2}) == "HI HI"
    assert tools.call("add", first=2**70, second=1) == str(2**70 + 1)


def test_what_a_tool_prints_stays_out_of_the_protocol(process: McpTools) -> None:
    assert process.call("misbehave", how="print") == "print"


@pytest.mark.parametrize(("how", "kind"), [("refuse", ToolError), ("late", ToolTimeout)])
def test_errors_of_tools_stay_errors_of_tools(tools: McpTools, how: str, kind: Any) -> None:
    with pytest.raises(ToolError) as caught:
        tools.call("misbehave", how=how)
    assert type(caught.value) is kind
    assert str(caught.value) in ("refused", "too late")


def test_a_crash_of_a_tool_is_no_fault_of_the_agent(tools: McpTools) -> None:
    with pytest.raises(ConnectionError, match="failed"):
        tools.call("misbehave", how="crash")
    assert tools.call("add", first=1, second=1) == "2"


def test_an_unknown_tool_or_argument_is_a_fault_of_the_agent(tools: McpTools) -> None:
    with pytest.raises(ToolError, match="there are: add"):
        tools.call("subtract")
    with pytest.raises(ToolError, match="add takes first, second"):
        tools.call("add", first=1)


def test_it_works_inside_a_running_loop(tools: McpTools) -> None:
    async def cell() -> str:
        return tools.tools["add"].call({"first": 1, "second": 2})

    assert asyncio.run(cell()) == "3"


def test_threads_take_turns(tools: McpTools) -> None:
    said: list[str] = []
    workers = [
        threading.Thread(target=lambda n=n: said.append(tools.call("add", first=n, second=0)))
        for n in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(said) == [str(n) for n in range(8)]


def test_names_of_arguments_may_be_any() -> None:
    server = Server("odd", on_list_tools=listing({"type": "object"}), on_call_tool=repeat)
    with McpTools(server) as tools:
        arguments = {"self": 1, "name": 2, "request": 3}
        assert json.loads(tools.tools["odd"].call(arguments)) == arguments


# Time-outs, crashes, ends


def sleepers() -> set[int]:
    """Processes that a tool which sleeps has started."""
    running = psutil.Process().children(recursive=True)
    return {one.pid for one in running if "sleep" in one.name()}


def test_a_late_call_ends_with_its_process() -> None:
    before, running = children(), threads()
    with McpTools(COMMAND, timeout=0.3) as tools:
        for _ in range(2):
            tools.call("add", first=1, second=1)  # a new process does not start in the limit
            server = children() - before
            begun = time.monotonic()
            with pytest.raises(ToolTimeout, match=r"longer than 0\.3 s"):
                tools.call("misbehave", how="sleep")
            assert time.monotonic() - begun < 0.8
            assert settled(lambda server=server: (children() & server) | sleepers(), set())
        assert tools.call("add", first=1, second=1) == "2"
    assert settled(children, before)
    assert settled(threads, running)


def test_the_next_server_starts_before_the_next_call() -> None:
    with McpTools(COMMAND, timeout=1.0) as tools:
        tools.call("add", first=1, second=1)
        for how, error in (("sleep", ToolTimeout), ("die", ConnectionError)):
            with pytest.raises(error):
                tools.call("misbehave", how=how)
            begins = tools._connection
            assert begins is not None
            begins.wait(20)
            begun = time.monotonic()
            assert tools.call("add", first=1, second=1) == "2"
            assert time.monotonic() - begun < 0.3


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3])
def test_a_server_that_is_still_starting_is_ended_too(pause: float) -> None:
    before, running = children(), threads()
    for end in (McpTools.close, lambda _: None):
        tools = McpTools(COMMAND, timeout=0.1)
        with pytest.raises(ToolTimeout):
            tools.call("misbehave", how="sleep")
        time.sleep(pause)
        end(tools)
        del tools
        assert settled(children, before)
        assert settled(threads, running)


def test_a_server_that_cannot_start_again_is_no_fault_of_the_agent(tmp_path: Path) -> None:
    """It starts once, sleeps at the second start, and works from the third on."""
    starts = tmp_path / "starts"
    code = (
        f"import time; starts = open({str(starts)!r}, 'a+'); starts.write('x'); starts.flush(); "
        f"starts.seek(0); time.sleep(60 if starts.read() == 'xx' else 0); {COMMAND[2]}"
    )
    with McpTools([COMMAND[0], "-c", code], timeout=0.3, start_timeout=8) as tools:
        with pytest.raises(ToolTimeout):
            tools.call("misbehave", how="sleep")
        tools._start_timeout = 0.5
        with pytest.raises(ConnectionError, match="cannot be started"):
            tools.call("add", first=1, second=1)
        tools._start_timeout = 8
        assert tools.call("add", first=1, second=1) == "2"


def test_a_server_that_dies_is_started_again() -> None:
    with McpTools(COMMAND) as tools:
        with pytest.raises(ConnectionError):
            tools.call("misbehave", how="die")
        assert tools.call("add", first=1, second=1) == "2"


def test_nothing_is_left_when_the_object_is_forgotten() -> None:
    before, running = children(), threads()
    tools = McpTools(COMMAND)
    tools.call("add", first=1, second=1)
    assert not children() <= before
    del tools
    assert settled(children, before)
    assert settled(threads, running)


@pytest.mark.parametrize(
    "command",
    [
        ["/nowhere/at/all"],
        [sys.executable, "-c", "raise SystemExit(3)"],
        [sys.executable, "-c", "print('hello', flush=True); input(); print('{}')"],
        [sys.executable, "-c", "import time; time.sleep(60)"],
    ],
)
def test_what_is_no_server_cannot_be_started(command: list[str]) -> None:
    before, running = children(), threads()
    begun = time.monotonic()
    with McpTools(command, start_timeout=0.7) as tools, pytest.raises(ConnectionError):
        _ = tools.tools
    assert time.monotonic() - begun < 3
    assert settled(children, before)
    assert settled(threads, running)


async def listed_tools(schema: dict[str, Any]) -> Any:
    return mcp_types.ListToolsResult(tools=[mcp_types.Tool(name="odd", input_schema=schema)])


def listing(schema: dict[str, Any]) -> Any:
    return lambda *_: listed_tools(schema)


async def repeat(_: object, asked: Any) -> Any:
    text = mcp_types.TextContent(type="text", text=json.dumps(asked.arguments))
    return mcp_types.CallToolResult(content=[text])


async def sleep(*_: object) -> Any:
    await asyncio.sleep(60)


async def block(*_: object) -> Any:
    RELEASED.wait(30)
    return mcp_types.CallToolResult(content=[])


RELEASED = threading.Event()
"""When the tools end that block."""


def test_asynchronous_work_in_this_process_is_cancelled() -> None:
    server = Server("slow", on_list_tools=listing({"type": "object"}), on_call_tool=sleep)
    running = threads()
    with McpTools(server, timeout=0.1) as tools:
        for _ in range(5):
            with pytest.raises(ToolTimeout):
                tools.call("odd")
        assert set(tools.tools) == {"odd"}
    assert settled(threads, running)


def napping() -> Any:
    """Return a server whose tool sleeps in a thread, as others write it."""
    server: Any = MCPServer("naps")

    @server.tool()
    def odd(seconds: float = 30.0) -> str:
        """Sleep."""
        RELEASED.wait(seconds)
        return "slept"

    return server


def blocking() -> Any:
    return Server("stuck", on_list_tools=listing({"type": "object"}), on_call_tool=block)


@pytest.mark.parametrize("server", [blocking, napping])
def test_blocking_work_in_this_process_is_late_and_bounded(server: Any) -> None:
    running = threads()
    RELEASED.clear()
    with McpTools(server(), timeout=0.1) as tools:
        for _ in range(4):
            begun = time.monotonic()
            with pytest.raises(ToolTimeout, match=r"longer than 0\.1 s"):
                tools.call("odd")
            assert time.monotonic() - begun < 0.7
        left = threads() - running
        for _ in range(3):
            with pytest.raises(ConnectionError, match="serve it from a command"):
                tools.call("odd")
        assert threads() <= running | left
        RELEASED.set()
        assert settled(threads, running)
        tools.call("odd")
    assert settled(threads, running)


def test_a_late_tool_of_a_thread_leaves_the_others_their_server() -> None:
    running = threads()
    RELEASED.clear()
    with McpTools(napping(), timeout=0.3) as tools:
        with pytest.raises(ToolTimeout):
            tools.call("odd")
        assert tools.call("odd", seconds=0.0) == "slept"
        RELEASED.set()
    assert settled(threads, running)


def test_what_waits_for_its_turn_in_vain_is_never_run() -> None:
    done: list[int] = []

    def note(number: int) -> str:
        """Note a number.

        Args:
            number: Which one.
        """
        time.sleep(1.0 if number == 0 else 0.0)
        done.append(number)
        return str(number)

    running = threads()
    with McpTools(serve([Tool(note)]), timeout=0.1) as tools:
        for number in range(3):
            with pytest.raises(ToolTimeout):
                tools.call("note", number=number)
        assert settled(lambda: {0} - set(done), set())
        assert tools.call("note", number=7) == "7"
    assert done == [0, 7]
    assert settled(threads, running)


def test_copies_have_a_server_of_their_own(process: McpTools) -> None:
    with pickle.loads(pickle.dumps(process)) as other:
        assert other.call("add", first=1, second=1) == "2"
        assert other._connection is not process._connection
    tool = copy.deepcopy(process.tools["shout"])
    assert tool.schema == process.tools["shout"].schema
    assert tool.call({"text": "x"}) == "X"


def test_a_server_of_this_process_cannot_be_copied(local: McpTools) -> None:
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="only a command can be copied"):
            copied(local)


@pytest.mark.parametrize("server", ["python -m weather", [], ()])
def test_a_command_is_a_list(server: Any) -> None:
    with pytest.raises(UserError, match="list of words"):
        McpTools(server)


def test_a_choice_of_tools(tools: McpTools) -> None:
    with McpTools(serve(OURS), only=["add"]) as some:
        assert list(some.tools) == ["add"]
    with McpTools(serve(OURS), only=["sub"]) as none, pytest.raises(UserError, match="are: add"):
        _ = none.tools
    with pytest.raises(UserError, match="above 0"):
        McpTools(COMMAND, timeout=0)


def test_without_the_extra_the_command_is_told() -> None:
    code = "import sys; sys.modules['mcp'] = None\nimport palaestra.envs.tools.mcp"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserError: tools over MCP need an extra: pip install 'palaestra[mcp]'" in answer.stderr


# Servers by others


def weather_server() -> Any:
    server: Any = MCPServer("weather")

    @server.tool()
    def forecast(city: str, days: list[int], unit: str | None = None) -> str:
        """Forecast the weather."""
        if city == "Atlantis":
            raise ValueError("it sank")
        return f"{city}: {sum(days)} {unit}"

    return server


def test_an_mcp_server_as_others_write_it() -> None:
    with McpTools(weather_server()) as tools:
        tool = tools.tools["forecast"]
        assert tool.parameters == {"city": str, "days": object, "unit": object}
        tool.check({"city": "Oslo", "days": [1, 2], "unit": None})
        assert tool.call({"city": "Oslo", "days": [1, 2]}) == "Oslo: 3 None"
        with pytest.raises(ToolError):
            tool.call({"city": "Atlantis", "days": []})
        for wrong in ({}, {"city": "Oslo"}, {"city": 1, "days": []}, {"city": "", "days": [""]}):
            with pytest.raises(BadArguments):
                tool.check(wrong)


def test_results_that_are_no_text_are_told_in_words() -> None:
    blocks = [
        mcp_types.TextContent(type="text", text="look:"),
        mcp_types.ImageContent(type="image", data="AAAA", mime_type="image/png"),
        mcp_types.AudioContent(type="audio", data="AAAA", mime_type="audio/wav"),
        mcp_types.ResourceLink(type="resource_link", name="page", uri="file:///page"),
        mcp_types.EmbeddedResource(
            type="resource",
            resource=mcp_types.TextResourceContents(uri="file:///a", text="inside"),
        ),
        mcp_types.EmbeddedResource(
            type="resource", resource=mcp_types.BlobResourceContents(uri="file:///b", blob="AA==")
        ),
    ]

    async def show(*_: object) -> Any:
        return mcp_types.CallToolResult(content=blocks)

    async def structure(*_: object) -> Any:
        return mcp_types.CallToolResult(content=[], structured_content={"a": 1})

    lines = [
        "look:",
        "(an image, image/png)",
        "(a sound, audio/wav)",
        "(a link to file:///page)",
        "inside",
        "(data from file:///b, of unknown type)",
    ]
    for answer, said in ((show, "\n".join(lines)), (structure, '{"a": 1}')):
        server = Server("show", on_list_tools=listing({"type": "object"}), on_call_tool=answer)
        with McpTools(server) as tools:
            assert tools.call("odd") == said


# Arguments


SCHEMA = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "place": {"$ref": "#/$defs/place"},
        "ratio": {"type": "number", "multipleOf": 0.5, "maximum": 1e300},
        "code": {"type": "string", "pattern": "^(a+)+$"},
    },
    "required": ["tags"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"inside": {"$ref": "#/$defs/place"}, "x": {"type": "integer"}},
            "required": ["x"],
        }
    },
}


def nested(depth: int) -> dict[str, Any]:
    place: dict[str, Any] = {"x": 1}
    for _ in range(depth):
        place = {"x": 1, "inside": place}
    return place


def test_arguments_that_fit() -> None:
    fits = Fits(SCHEMA)
    fits.check({"tags": []})
    fits.check({"tags": ["a", "b"], "place": nested(5), "ratio": 1.5})
    fits.check({"tags": [], "code": "a" * 40 + "!"})  # patterns are the server's to check


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'tags' is a required property"),
        ({"tags": ["c"]}, r"\$\.tags\[0\]"),
        ({"tags": "a"}, "not of type 'array'"),
        ({"tags": [], "more": 1}, "more"),
        ({"tags": [], "place": {"x": 1.5}}, r"place\.x"),
        ({"tags": [], "place": nested(31)}, "nested too deep"),
        ({"tags": [], "place": nested(400)}, "nested too deep"),
        ({"tags": [], "ratio": 10**4000}, "too large|greater than"),
        ({"tags": [], "ratio": float("inf")}, "not valid JSON"),
        ({"tags": [], "ratio": float("nan")}, "not valid JSON"),
        ({"tags": [], "code": "\ud800"}, "not valid JSON"),
        ({"tags": [], "code": {1, 2}}, "not valid JSON"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadArguments, match=message):
        Fits(SCHEMA).check(arguments)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from("xa"), inner),
    max_leaves=20,
)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(["tags", "place", "ratio", "code", "x"]), JSON))
def test_any_arguments_fit_or_are_bad(arguments: dict[str, Any]) -> None:
    with contextlib.suppress(BadArguments):
        Fits(SCHEMA).check(arguments)


BOMB = {
    "$ref": "#/$defs/n0",
    "$defs": {
        **{f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(60)},
        "n60": {},
    },
}
LOOP = {"$ref": "#"}
ANCHORS = {
    "$dynamicAnchor": "me",
    "allOf": [{"$dynamicRef": "#me"}, {"$dynamicRef": "#me"}],
}


@pytest.mark.parametrize("schema", [BOMB, LOOP, ANCHORS])
def test_references_without_end_come_to_an_end(schema: dict[str, Any]) -> None:
    begun = time.monotonic()
    with pytest.raises(BadArguments, match="too large or nested too deep"):
        Fits(schema).check({})
    assert time.monotonic() - begun < 5


def test_slow_patterns_are_not_run() -> None:
    slow = {
        "properties": {"x": {"pattern": "^(a+)+$", "format": "regex"}},
        "patternProperties": {"^(b+)+$": {}},
        "propertyNames": {"pattern": "^(b+)+$"},
        "additionalProperties": False,
        "unevaluatedProperties": False,
    }
    begun = time.monotonic()
    Fits(slow).check({"x": "a" * 60 + "!", "b" * 60 + "!": 1})
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/schema", "file:///etc/passwd", "other.json"])
def test_nothing_outside_a_schema_is_looked_up(uri: str) -> None:
    Fits({"properties": {"x": {"$ref": uri}}}).check({"x": 1})


def test_a_schema_that_is_none_is_told() -> None:
    server = Server(
        "bad", on_list_tools=listing({"type": "object", "required": "x"}), on_call_tool=repeat
    )
    with McpTools(server) as tools, pytest.raises(UserError, match="'odd' of bad is not valid"):
        _ = tools.tools


def test_the_dialect_of_a_schema_counts() -> None:
    draft7 = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"pair": {"items": [{"type": "integer"}, {"type": "string"}]}},
    }
    Fits(draft7).check({"pair": [1, "a"]})
    with pytest.raises(BadArguments):
        Fits(draft7).check({"pair": ["a", 1]})


# Environments


class Sums(TextEnv):
    """A tiny environment whose tools come from elsewhere."""

    instructions = "Add the numbers with a tool. Then reply with <answer>sum</answer>."
    max_choices = 2

    def __init__(self, source: McpTools, split: str = "train") -> None:
        super().__init__(split)
        self._source = source

    @property
    def tools(self) -> dict[str, Tool]:
        return self._source.tools

    def _new_task(self) -> Task:
        self.numbers = [int(n) for n in self.np_random.integers(100, size=2)]
        return Task(f"What is {self.numbers[0]} plus {self.numbers[1]}?", "sum")

    def _choices(self) -> tuple[str, ...]:
        return (self.solution(),)

    def _judge(self, answer: str) -> bool | str:
        return answer == str(sum(self.numbers))

    def solution(self) -> str:
        if self._results:
            return f"<answer>{sum(self.numbers)}</answer>"
        return called("add", {"first": self.numbers[0], "second": self.numbers[1]})


def called(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_an_environment_takes_tools_from_a_server(tools: McpTools) -> None:
    env = Sums(tools)
    _, info = env.reset(seed=0)
    assert [tool["function"]["name"] for tool in info["tools"]] == ["add", "shout", "misbehave"]
    said, *_ = env.step(env.solution())
    assert said == str(sum(env.numbers))
    assert env.step(env.solution())[1] == 1


def test_failures_are_told_apart(process: McpTools) -> None:
    env = Sums(process)
    failures = []
    for message in (
        "<shout>hello</shout>",
        called("add", {"first": "one", "second": 2}),
        called("misbehave", {"how": "refuse"}),
        called("misbehave", {"how": "late"}),
        called("misbehave", {"how": "die"}),
    ):
        env.reset(seed=0)
        *_, info = env.step(message)
        failures.append((info["failure"], info["reward_valid"]))
    assert failures == [
        ("format", True),  # shout takes two parameters, so it has to be called with JSON
        ("format", True),
        ("tool", True),
        ("timeout", True),
        ("infra", False),
    ]


def test_a_tool_with_one_parameter_is_called_by_its_tag(process: McpTools) -> None:
    assert isinstance(parse("<misbehave>x</misbehave>", process.tools), ToolCall)
    assert isinstance(parse("<add>1</add>", process.tools), Malformed)


def conversation(env: Any) -> Iterator[tuple[Tool, dict[str, Any]]]:
    """Yield the calls of a solution."""
    env.reset(seed=0)
    for _ in range(env.get_wrapper_attr("max_turns")):
        message = env.get_wrapper_attr("solution")()
        parsed = parse(message, env.get_wrapper_attr("tools"))
        if isinstance(parsed, ToolCall):
            yield parsed.tool, parsed.arguments
        _, _, terminated, truncated, _ = env.step(message)
        if terminated or truncated:
            return


def outcome(tool: Tool, arguments: dict[str, Any]) -> tuple[str, str]:
    try:
        return "said", tool.call(arguments)
    except ToolError as error:
        return error.failure, str(error)


@pytest.mark.parametrize("env_id", IDS)
def test_the_tools_of_every_environment_are_the_same_over_mcp(env_id: str) -> None:
    env = make(env_id)
    if not is_text(env):
        return
    offered = env.get_wrapper_attr("tools")
    with McpTools(serve(offered.values()), timeout=5) as tools:
        assert {name: tool.schema for name, tool in tools.tools.items()} == {
            name: tool.schema for name, tool in offered.items()
        }
        for tool, arguments in conversation(env):
            tools.tools[tool.name].check(arguments)
            assert outcome(tools.tools[tool.name], arguments) == outcome(tool, arguments)


def test_the_command_line_offers_the_tools_of_an_environment() -> None:
    env = make("palaestra/Capitals-v0")
    command = [sys.executable, "-m", "palaestra.train.cli", "mcp", "--env", "palaestra/Capitals-v0"]
    with McpTools(command, environment=dict(os.environ)) as tools:
        assert list(tools.tools) == ["sql"]
        for query in (
            "SELECT capital FROM countries WHERE name = 'France'",
            "SELECT name FROM cities LIMIT 30",
            "DROP TABLE cities",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n",
        ):
            direct = env.get_wrapper_attr("tools")["sql"]
            assert outcome(tools.tools["sql"], {"query": query}) == outcome(
                direct, {"query": query}
            )


def test_the_command_line_prints_nothing_but_the_protocol() -> None:
    command = [sys.executable, "-m", "palaestra.train.cli", "mcp", "--env", "palaestra/Capitals-v0"]
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "0"},
        },
    }
    answer = subprocess.run(
        command, input=json.dumps(hello) + "\n", capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line["id"] for line in lines] == [1]
    about = lines[0]["result"]["serverInfo"]
    assert (about["name"], about["version"]) == ("palaestra/Capitals-v0", palaestra.__version__)


def test_an_environment_without_tools_has_nothing_to_offer() -> None:
    command = [sys.executable, "-m", "palaestra.train.cli", "mcp", "--env", "palaestra/CartPole-v1"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "has no tools" in answer.stderr
    assert not answer.stdout


def test_the_root_of_the_checkout_may_be_the_working_directory() -> None:
    """A module of ours is called `mcp`, like the package that it uses."""
    folder = Path(palaestra.envs.__file__).parent
    code = "import palaestra.envs.tools.mcp as ours, mcp; print(mcp.__file__ != ours.__file__)"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "True"
