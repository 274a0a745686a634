"""Agents behind an endpoint: played like local ones, and not blamed for their machinery."""

import json
import math
import random
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palaestra.agents import resolve, spelled_out
from palaestra.agents.endpoint import Endpoint, Pace, Unanswered, _seconds
from palaestra.agents.exchange import MOST_BYTES, checked_url
from palaestra.agents.remote import Remote, parse_address, read_completion
from palaestra.envs import views
from palaestra.envs.parsing import Malformed, ToolCall, parse
from palaestra.envs.tools import Tool
from palaestra.errors import UserError
from palaestra.train.board import standings
from palaestra.train.cli import main
from palaestra.train.evaluation import INFRA_ATTEMPTS, Evaluation, seat
from palaestra.train.records import Record, read_records

from .chat_server import HANG_UP, HEAD, ChatServer, Raw, Says, Status, serving

CALCULATOR, CAPITALS, CARTPOLE = (
    "palaestra/Calculator-v0", "palaestra/Capitals-v0", "palaestra/CartPole-v1",
)  # fmt: skip
KEY = "sk-very-secret-0123456789"
WRONG = Says("<answer>-1</answer>")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(WRONG) as running:
        yield running


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


class Naps:
    """Stand for sleep: take no time, and remember how long it would have been."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def __call__(self, stop: Event, seconds: float) -> None:
        self.taken.append(seconds)


def remote(server: ChatServer, env_id: str = CALCULATOR, **options: Any) -> Any:
    """Return an agent without examples that does not sleep between its tries."""
    split = "test" if views.splits_of(views.find_spec(env_id)) else None
    agent = seat(env_id, split, f"openai:gpt-x@{server.url}", {"shots": 0} | options)
    assert isinstance(agent, Remote)
    agent.endpoint = replace(agent.endpoint, sleep=Naps())
    return agent


def evaluated(agent: Any, path: Path, episodes: int = 3, batch: int = 16) -> list[Record]:
    split = "test" if views.splits_of(views.find_spec(agent.seat.env_id)) else None
    Evaluation(agent, agent.seat.env_id, split).run(range(episodes), path, batch)
    return sorted(read_records([path]), key=lambda record: record.episode_seed)


def said_so_far(messages: list[dict[str, Any]]) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] != "system")


def book_of_solutions(env_id: str, episodes: int) -> dict[str, str]:
    """Return what an oracle says, by what was said before."""
    book = {}
    for seed in range(episodes):
        with views.Revealed(views.make(env_id, "text", split="test")) as env:
            _, info = env.reset(seed=seed)
            over = False
            while not over:
                action = book[said_so_far(info["messages"])] = info["solution"]
                *_, terminated, truncated, info = env.step(action)
                over = terminated or truncated
    return book


def post(server: ChatServer, **options: Any) -> tuple[Any, list[float]]:
    """Ask once, and return the completion, or the failure, and the naps."""
    naps = Naps()
    options = {"retries": 2, "timeout": 5.0, "chance": random.Random(0)} | options
    endpoint = Endpoint(server.url, KEY, sleep=naps, **options)
    try:
        return endpoint.post("/chat/completions", {"x": 1}, read_completion, Event()), naps.taken
    except Unanswered as failure:
        return failure, naps.taken


# Playing


@pytest.mark.parametrize("env_id", [CALCULATOR, CAPITALS])
def test_right_answers_solve_the_tasks_like_an_oracle_s(
    server: ChatServer, tmp_path: Path, env_id: str
) -> None:
    book = book_of_solutions(env_id, 6)
    server.answer = Says(lambda body: book[said_so_far(body["messages"])])
    records = evaluated(remote(server, env_id), tmp_path / "records", 6)
    assert [r.success for r in records] == [True] * 6
    assert all(r.valid and not r.failures and r.cost is None for r in records)
    assert [r.tokens for r in records] == [7 * r.length for r in records]
    assert set(server.paths) == {"/v1/chat/completions"}
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_a_dialogue_crosses_as_plain_text(server: ChatServer, tmp_path: Path) -> None:
    server.answer = Says("<calculator>1 + 1</calculator>")
    evaluated(remote(server, shots=2, max_new_tokens=9), tmp_path / "records", 1)
    first, second = server.asked[:2]
    assert set(first) == {"model", "messages", "temperature", "max_tokens"}
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("gpt-x", 0.0, 9)
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]
    assert all(set(message) == {"role", "content"} for message in second["messages"])
    assert second["messages"][: len(first["messages"])] == first["messages"]
    *_, call, result = second["messages"]
    assert (call["content"], result["content"]) == ("<calculator>1 + 1</calculator>", "2")
    examples = seat(CALCULATOR, "test", f"openai:gpt-x@{server.url}", {"shots": 2}).seat.prefix(2)
    assert said_so_far(first["messages"]).startswith(said_so_far(examples))


def test_an_array_environment_is_played_in_words(server: ChatServer, tmp_path: Path) -> None:
    server.answer = Says("left")
    [record] = evaluated(remote(server, CARTPOLE, shots=1), tmp_path / "records", 1)
    assert record.length == len(server.asked) > 5
    assert record.failures == {}


def test_without_a_key_none_is_sent(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    evaluated(remote(server), tmp_path / "records", 1)
    assert "Authorization" not in server.headers[0]


def test_the_limit_of_tokens_goes_by_either_name(server: ChatServer, tmp_path: Path) -> None:
    evaluated(remote(server, limit_field="max_completion_tokens"), tmp_path / "records", 1)
    assert server.asked[0]["max_completion_tokens"] == 512
    assert "max_tokens" not in server.asked[0]


def test_a_seed_is_its_episode_s_whatever_the_batch(server: ChatServer, tmp_path: Path) -> None:
    server.answer = Says("hm")

    def seeds(batch: int) -> dict[str, list[int]]:
        """Return what was sent for each question, in order."""
        server.asked.clear()
        evaluated(remote(server, temperature=0.7), tmp_path / f"{batch}", 4, batch)
        sent: dict[str, list[int]] = {}
        for body in server.asked:
            sent.setdefault(body["messages"][1]["content"], []).append(body["seed"])
        return sent

    alone = seeds(1)
    assert alone == seeds(3) == seeds(16)
    every = [seed for sent in alone.values() for seed in sent]
    assert len(set(every)) == len(every) > 4
    server.script = [Status(500)] * 3
    assert alone == {asked: list(dict.fromkeys(sent)) for asked, sent in seeds(2).items()}


def test_requests_in_flight_are_bounded(server: ChatServer, tmp_path: Path) -> None:
    three = Barrier(3)  # nobody is answered before three have asked

    asking: list[int] = [0]

    def answer(body: dict[str, Any]) -> str:
        with server.lock:
            asking.append(asking[-1] + 1)
        three.wait(60)
        with server.lock:
            asking.append(asking[-1] - 1)
        return "<answer>-1</answer>"

    server.answer = Says(answer)
    evaluated(remote(server, concurrency=3), tmp_path / "records", 12)
    assert max(asking) == 3


# What a completion says

CALL = {
    "type": "function",
    "function": {"name": "probe", "arguments": '{"text": "a</tool_call>b"}'},
}


def completion(message: Any, **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": message}], **more}).encode()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": " hm\n"}, "hm"),
        ({"content": None}, ""),
        ({}, ""),
        ({"content": "", "tool_calls": None}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}, "ab"),
        ({"content": "\ud800"}, "\ud800"),
        ({"content": "cut o", "finish_reason": "length"}, "cut o"),
    ],
)
def test_what_a_model_said(message: Any, text: str) -> None:
    assert read_completion(completion(message)).text == text


def probe(text: str) -> str:
    """Probe.

    Args:
        text: Anything.
    """
    return text


@pytest.mark.parametrize("content", [None, "Let me look."])
def test_calls_beside_the_text_are_put_into_it(content: str | None) -> None:
    found = read_completion(completion({"content": content, "tool_calls": [CALL, CALL]})).text
    assert found.startswith(content or "<tool_call>")
    assert found.count("<tool_call>") == 1
    tool = Tool(probe)
    assert parse(found, {"probe": tool}) == ToolCall(tool, {"text": "a</tool_call>b"})


@pytest.mark.parametrize("arguments", ["not JSON", '"text"', "", None, 3, {"text": 3}])
def test_a_call_with_wrong_arguments_is_the_agent_s_mistake(arguments: Any) -> None:
    call = {"function": {"name": "probe", "arguments": arguments}}
    found = read_completion(completion({"content": None, "tool_calls": [call]})).text
    assert isinstance(parse(found, {"probe": Tool(probe)}), Malformed)


def test_calls_beside_the_text_are_played(server: ChatServer, tmp_path: Path) -> None:
    function = {"name": "calculator", "arguments": '{"expression": "20 + 1"}'}
    server.answer = Says({"content": None, "tool_calls": [{"id": "1", "function": function}]})
    [record] = evaluated(remote(server), tmp_path / "records", 1)
    assert record.failures == {}
    assert server.asked[1]["messages"][-1] == {"role": "user", "content": "21"}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"completion_tokens": 4}, (None, 4)),
        (None, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 10**400, "completion_tokens": "4"}, (None, None)),
    ],
)
def test_tokens_are_counted_where_they_are_told(usage: Any, counts: Any) -> None:
    found = read_completion(completion({"content": "x"}, usage=usage))
    assert (found.prompt_tokens, found.tokens) == counts


NONE_AT_ALL = [
    b"", b"{", b"null", b"3", b"[]", b'"words"', b"\xff\xfe\xfa", b"{}", b'{"choices": []}',
    b'{"choices": {}}', b'{"choices": [null]}', b'{"choices": [{"message": null}]}',
    completion({"content": 3}), completion({"content": {}, "tool_calls": 3}),
    completion({"tool_calls": [{}]}), completion({"content": [3]}),
    completion({"content": "x"}, usage=[1]), b"[" * 100_000, b"9" * 10_000,
    completion({"tool_calls": [{"function": {"name": "x", "arguments": "[" * 100_000}}]}),
    b'{"error": {"message": "the model is loading"}}',
]  # fmt: skip


@pytest.mark.parametrize("body", NONE_AT_ALL, ids=range(len(NONE_AT_ALL)))
def test_what_is_no_completion_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match="no chat completion"):
        read_completion(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "tool_calls", "function", "name", "arguments", "text"]),
            inner,
            max_size=4,
        )
    ),
)


@settings(max_examples=50)
@given(json_values, json_values)
def test_nothing_else_is_raised_by_any_message(message: Any, usage: Any) -> None:
    try:
        found = read_completion(completion(message, usage=usage))
    except ValueError as error:
        assert "no chat completion" in str(error)  # noqa: PT017
    else:
        assert isinstance(found.text, str)


def test_a_silent_model_is_told_its_mistake(server: ChatServer, tmp_path: Path) -> None:
    server.answer = Says(None)
    [record] = evaluated(remote(server), tmp_path / "records", 1)
    assert (record.valid, set(record.failures)) == (True, {"format"})
    assert server.asked[1]["messages"][2] == {"role": "assistant", "content": "(no message)"}


# What passes


def test_a_limit_that_passes_is_waited_for(server: ChatServer) -> None:
    server.script = [Status(429, headers={"Retry_After": "7"}), Status(503)]
    found, naps = post(server)
    assert found.text == "<answer>-1</answer>"
    assert 7.5 <= naps[0] <= 8.0  # what was asked, and a pause of its own
    assert 1.0 <= naps[1] <= 2.0
    assert len(server.asked) == 3


def test_a_date_to_retry_after_is_waited_for(server: ChatServer) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.script = [Status(429, headers={"Retry_After": date})]
    _, [nap] = post(server)
    assert 28 <= nap <= 31


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        ("", 0), ("0", 0), ("2.5", 2.5), ("-3", 0), ("soon", 0), ("nan", 0), ("inf", 0), ("²", 0),
        ("9" * 400, math.inf), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 99 Oct 2015", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0), ("1 Jan 99999999 00:00:00 GMT", 0),
    ],
)  # fmt: skip
def test_seconds_to_retry_after(after: str, seconds: float) -> None:
    assert _seconds(after) == seconds


def test_nobody_waits_for_ever_because_an_endpoint_says_so(server: ChatServer) -> None:
    server.script = [Status(429, headers={"Retry_After": "86400"})]
    _, [nap] = post(server)
    assert nap < 125


def test_pauses_double_up_to_a_bound_and_differ_by_chance(server: ChatServer) -> None:
    server.answer = Status(500)
    _, naps = post(server, retries=8)
    for nap, longest in zip(naps, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert longest / 2 <= nap <= longest
    assert len({nap / 30 for nap in naps[-3:]}) == 3


PASSING = {
    "408": Status(408), "409": Status(409), "425": Status(425), "429": Status(429),
    "500": Status(500), "529": Status(529, b"\xff\x00overloaded"),
    "hung up": HANG_UP,
    "no HTTP": Raw([b"SSH-2.0-OpenSSH_9.6\r\n"]),
    "endless headers": Raw([HEAD, b"X-A: 1\r\n" * 200, b"\r\n"]),
    "broken off": Raw([HEAD, b"Content-Length: 1000\r\n\r\n", completion({"content": "x"})[:20]]),
    "wrong chunks": Raw([HEAD, b"Transfer-Encoding: chunked\r\n\r\n-5\r\nxxxxx\r\n0\r\n\r\n"]),
    "not JSON": Status(200, b"<html>Bad gateway</html>"),
    "not UTF-8": Status(200, b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "no choices": Status(200, b'{"choices": []}'),
    "error inside": Status(200, b'{"error": {"message": "not today"}}'),
    "enormous": Status(200, b" " * MOST_BYTES + completion({"content": "x"})),
    "a promise": Raw([HEAD, b"Content-Length: 999999999999999\r\n\r\n{}"]),
    "endless": Raw([HEAD, b"\r\n", *[b" " * 2**20] * 20]),
    "endless chunk": Raw(
        [HEAD, b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", *[b" " * 2**20] * 20]
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_asked_again(server: ChatServer, fault: str) -> None:
    server.script = [PASSING[fault]] * 2
    found, naps = post(server)
    assert found.text == "<answer>-1</answer>"
    assert len(naps) == 2


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_is_told_in_a_line(server: ChatServer, fault: str) -> None:
    server.answer = PASSING[fault]
    failure, naps = post(server, retries=1)
    assert isinstance(failure, Unanswered)
    assert len(naps) == 1
    assert str(failure).isprintable()
    assert len(str(failure)) < 300


def test_nobody_there_is_a_mistake_of_the_address(server: ChatServer, tmp_path: Path) -> None:
    agent = remote(server, retries=2, concurrency=1)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as caught:
        evaluated(agent, tmp_path / "records", 2)
    assert str(caught.value).startswith(f"{server.url} has never answered (ConnectionRefusedError")
    assert "start it, or give another address" in str(caught.value)
    assert len(agent.endpoint.sleep.taken) == 2  # and not those of what else was in the batch
    assert (tmp_path / "records").read_text() == ""


def test_a_name_that_nobody_knows_is_a_mistake_of_the_address(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match=r"never answered \(gaierror: .*Name or service not known"):
        post(server)


def test_nobody_there_any_more_is_not_a_bad_move(server: ChatServer, tmp_path: Path) -> None:
    agent = remote(server, retries=1)
    [before] = evaluated(agent, tmp_path / "records", 1)
    assert before.valid
    server.server_close()
    _, spoilt = evaluated(agent, tmp_path / "records", 2)
    assert (spoilt.valid, spoilt.failures) == (False, {"infra": INFRA_ATTEMPTS})


@pytest.mark.parametrize(
    "slow",
    [
        Says("late", delay=1.5),
        Raw([HEAD, b"\r\n", *[b" "] * 100], 0.03),
        Raw([bytes([byte]) for byte in HEAD * 4], 0.03),
        Raw([b"HTTP/1.1 100 Continue\r\n\r\n"] * 100, 0.03),
    ],
    ids=["silent", "dripping", "dripping headers", "putting off"],
)
def test_an_answer_that_drips_is_late_all_the_same(server: ChatServer, slow: Any) -> None:
    server.answer = slow
    start = time.perf_counter()
    failure, _ = post(server, timeout=0.25, retries=0)
    assert "in time" in str(failure)
    assert 0.2 < time.perf_counter() - start < 2.5  # of the three that it takes


# The machinery


def test_a_failure_of_the_endpoint_is_not_a_bad_move(server: ChatServer, tmp_path: Path) -> None:
    server.answer = Status(500)
    records = evaluated(remote(server, retries=1), tmp_path / "records", 2)
    assert [r.valid for r in records] == [False, False]
    assert [r.failures for r in records] == [{"infra": INFRA_ATTEMPTS}] * 2
    assert [(r.length, r.episode_return, r.tokens) for r in records] == [(0, 0.0, 0)] * 2
    assert len(server.asked) == 2 * 2 * INFRA_ATTEMPTS


def test_an_endpoint_that_recovers_has_done_no_harm(server: ChatServer, tmp_path: Path) -> None:
    book = book_of_solutions(CALCULATOR, 3)
    server.answer = Says(lambda body: book[said_so_far(body["messages"])])
    calm = evaluated(remote(server), tmp_path / "calm")
    # The second message of the first episode fails once in all its tries.
    server.script = [server.answer, *[HANG_UP] * 2]
    stormy = evaluated(remote(server, retries=1), tmp_path / "stormy", batch=1)
    assert [r.failures for r in stormy] == [{"infra": 1}, {}, {}]
    forgotten = [replace(r, failures={}, seconds=0.0) for r in stormy]
    assert forgotten == [replace(r, seconds=0.0) for r in calm]


def test_boards_count_what_the_endpoint_spoilt(server: ChatServer, tmp_path: Path) -> None:
    server.script = [Status(500)] * INFRA_ATTEMPTS
    evaluated(remote(server, retries=0), tmp_path / "records", batch=1)
    [standing] = standings(read_records([tmp_path / "records"]))
    assert standing.rows[0].episodes == 2
    assert standing.rows[0].failures == {"infra": INFRA_ATTEMPTS}


# Mistakes


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Status(400, b'{"error": {"message": "too long"}}'), "refuses the request .*400.*too long"),
        (Status(401, b'{"error": {"message": "wrong key sk-very-secret"}}'), "OPENAI_API_KEY"),
        (Status(402, b"pay first"), "402.*pay first"),
        (Status(403, f"{KEY} may not".encode()), r"403.*\*\*\* may not"),
        (Status(404, b'{"error": "no model gpt-x"}'), "knows no such model.*no model gpt-x"),
        (Status(405, b""), "405.*no word about why"),
        (Status(422, b'{"error": {"message": "\\u001b[31mred\\nseed?"}}'), "422.*red seed"),
        (Status(307, b"", {"Location": "http://127.0.0.1:1/"}), "is not the address any more"),
        (Status(429, b'{"error": {"code": "insufficient_quota"}}'), "429.*insufficient_quota"),
    ],
    ids=lambda value: str(value.code) if isinstance(value, Status) else "",
)
def test_a_mistake_of_the_user_is_told_at_once(
    server: ChatServer, tmp_path: Path, answer: Status, said: str
) -> None:
    agent = remote(server, concurrency=2)
    evaluated(agent, tmp_path / "records", 1)
    server.answer, known = answer, len(server.asked)
    with pytest.raises(UserError, match=said) as caught:
        evaluated(agent, tmp_path / "records", 8)
    assert KEY[:12] not in str(caught.value)
    assert str(caught.value).isprintable()
    assert not agent.endpoint.sleep.taken
    assert len(server.asked) - known <= 2  # and not what else was in the batch
    assert [r.episode_seed for r in read_records([tmp_path / "records"])] == [0]


def test_without_a_key_one_is_asked_for(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    server.answer = Status(401)
    with pytest.raises(UserError, match="wants a key, so set OPENAI_API_KEY"):
        evaluated(remote(server), tmp_path / "records", 1)


def test_a_mistake_ends_the_waiting_of_the_others(server: ChatServer) -> None:
    agent = seat(CALCULATOR, "test", f"openai:x@{server.url}", {"shots": 0})
    server.script = [Status(429, headers={"Retry_After": "100"}), Status(403, delay=0.2)]
    with views.make(CALCULATOR, "text", split="test") as env:
        infos = [env.reset(seed=seed)[1] for seed in range(2)]
    start = time.perf_counter()
    with pytest.raises(UserError, match="403"):
        agent.act(["", ""], infos, [np.random.default_rng(i) for i in range(2)])
    assert time.perf_counter() - start < 5


def test_a_key_that_is_none_is_refused_and_not_shown(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("sk-secret\nX-Evil: 1", "sk secret", "sk-sécret"):
        monkeypatch.setenv("OPENAI_API_KEY", wrong)
        with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
            remote(server)
        assert "secret" not in str(caught.value)
    assert KEY not in repr(Endpoint("http://x", KEY))


@pytest.mark.parametrize(
    "options",
    [
        {"shots": -1}, {"temperature": float("nan")}, {"max_new_tokens": 0}, {"concurrency": 0},
        {"limit_field": "tokens"}, {"timeout": 0.0}, {"timeout": math.inf}, {"retries": -1},
        {"requests_per_minute": -1.0}, {"price_in": -0.1}, {"price_out": math.inf},
        {"url": "http://x"}, {"key": "sk"}, {"device": "cpu"},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused(server: ChatServer, options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        remote(server, **options)


# Its pace


def test_a_pace_is_kept() -> None:
    now = 100.0
    pace = Pace(30, clock=lambda: now)
    assert [pace.delay() for _ in range(4)] == [0.0, 2.0, 4.0, 6.0]
    now = 107.0
    assert pace.delay() == 1.0
    now = 500.0  # what was not used is not saved up
    assert [pace.delay() for _ in range(2)] == [0.0, 2.0]
    assert [Pace(0).delay() for _ in range(3)] == [0.0] * 3


def test_all_threads_keep_one_pace_and_what_is_tried_again_does_too(
    server: ChatServer, tmp_path: Path
) -> None:
    agent = remote(server, concurrency=4)
    server.script = [Status(500)]
    agent.endpoint = replace(agent.endpoint, pace=Pace(60, clock=lambda: 0.0))
    evaluated(agent, tmp_path / "records", 5)
    requests = len(server.asked)
    assert requests == 6
    naps = [nap for nap in agent.endpoint.sleep.taken if nap >= 1]
    assert sorted(naps) == [float(i) for i in range(1, requests)]


# What it costs


def test_tokens_have_a_price(server: ChatServer, tmp_path: Path) -> None:
    agent = remote(server, price_in=2, price_out=10.0)
    [first, second] = evaluated(agent, tmp_path / "records", 2)
    assert first.cost == pytest.approx(first.length * (100 * 2 + 7 * 10) / 1e6)
    assert second.tokens == 7 * second.length
    server.answer = replace(WRONG, usage=None)
    [untold] = evaluated(remote(server, price_in=2), tmp_path / "untold", 1)
    assert (untold.cost, untold.tokens) == (None, 0)


# Its name


@pytest.mark.parametrize(
    ("text", "model", "url"),
    [
        ("openai:gpt-x@http://localhost:8000/v1", "gpt-x", "http://localhost:8000/v1"),
        ("openai:a/b:free@https://h/v1/", "a/b:free", "https://h/v1"),
        ("openai:@cf/meta/l@3@http://[::1]:80", "@cf/meta/l@3", "http://[::1]:80"),
        ("openai:m@https://h/api/v1/chat/completions", "m", "https://h/api/v1"),
    ],
)
def test_an_address_is_read(text: str, model: str, url: str) -> None:
    assert resolve(text) == (Remote, {"model": model, "url": url})
    assert parse_address(spelled_out(text)) == {"model": model, "url": url}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openai", "names no model: write openai:MODEL@URL"),
        ("openai:", "names no model"),
        ("openai:@http://h", "names no model"),
        ("openai:gpt-x", "names no endpoint: write openai:MODEL@URL, .* or set OPENAI_BASE_URL"),
        ("openai:gpt-x@", "is not the URL of an endpoint"),
        ("openai:gpt-x@localhost:8000", "give http://HOST:PORT/v1"),
        ("openai:gpt-x@ftp://h/v1", "give http://HOST:PORT/v1"),
        ("openai:gpt-x@http://", "is not the URL"),
        ("openai:gpt-x@http://h:port/v1", "is not the URL"),
        ("openai:gpt-x@http://h:99999/v1", "is not the URL"),
        ("openai:gpt-x@http://h:0/v1", "is not the URL"),
        ("openai:gpt-x@http://[::1/v1", "is not the URL"),
        ("openai:gpt-x@http://a..b/v1", "is not the URL"),
        ("openai:gpt-x@http://h/v 1", "is not the URL"),
        ("openai:gpt-x@http://h/v1\r\nX: y", "is not the URL"),
        ("openai:http://localhost:8000/v1", "follows its model: write openai:MODEL@URL"),
    ],
)
def test_a_malformed_address_is_told(text: str, said: str) -> None:
    for read in (resolve, spelled_out):
        with pytest.raises(UserError, match=said):
            read(text)


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@h/v1", "http://h/v1?key=hunter2", "http://h/v1#hunter2"]
)
def test_secrets_in_an_address_are_refused_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for read in (lambda: resolve(f"openai:gpt-x@{url}"), lambda: checked_url(url)):
        with pytest.raises(UserError) as caught:
            read()
        assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        resolve("openai:gpt-x")
    assert "hunter2" not in str(caught.value)


def test_the_address_may_be_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://h/v1/")
    assert resolve("openai:a/b") == (Remote, {"model": "a/b", "url": "https://h/v1"})
    assert spelled_out("openai:a/b") == "openai:a/b@https://h/v1"
    assert spelled_out("random") == "random"


def test_who_plays_otherwise_is_another_agent(server: ChatServer) -> None:
    plain = remote(server)
    assert plain.name == f"gpt-x@127.0.0.1:{server.server_port} (0 shots)"
    assert remote(server, shots=1, temperature=0.5).name.endswith("(1 shots, T=0.5)")
    same = [
        {}, {"timeout": 1}, {"retries": 0}, {"concurrency": 1}, {"requests_per_minute": 5},
        {"price_in": 1}, {"temperature": 0}, {"limit_field": "max_completion_tokens"},
    ]  # fmt: skip
    assert {remote(server, **options).fingerprint() for options in same} == {plain.fingerprint()}
    others = [{"shots": 1}, {"temperature": 1}, {"max_new_tokens": 9}]
    found = {remote(server, **options).fingerprint() for options in others}
    found.add(Remote(plain.seat, "gpt-y", server.url, shots=0).fingerprint())
    found.add(Remote(plain.seat, "gpt-x", "http://h", shots=0).fingerprint())
    assert len(found | {plain.fingerprint()}) == 6


def test_it_is_saved_without_its_key_and_loaded(server: ChatServer, tmp_path: Path) -> None:
    agent = remote(server, shots=1, temperature=0.5)
    agent.save(tmp_path)
    assert KEY not in (tmp_path / "agent.json").read_text()
    kind, found = resolve(str(tmp_path))
    loaded = kind.load(found["folder"], agent.seat)
    assert (loaded.name, loaded.fingerprint()) == (agent.name, agent.fingerprint())


# On the command line


def run(line: str) -> int:
    return main(shlex.split(line))


Capture = pytest.CaptureFixture[str]


def test_evaluate_play_and_board(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    options = "--set shots=0 --set price_in=1 --set price_out=2.5"
    evaluate = f"evaluate --quiet --env {CALCULATOR} --episodes 2"
    assert run(f"{evaluate} --agent openai:gpt-x {options}") == 0
    assert "cost: 0.0002 dollars" in capsys.readouterr().out
    assert run(f"{evaluate} --agent constant") == 0
    # The command of a record needs no variable but the key's.
    monkeypatch.delenv("OPENAI_BASE_URL")
    records = read_records([tmp_path / "runs" / "records.jsonl"])
    command = records[0].command
    assert f"--agent openai:gpt-x@{server.url}" in command
    capsys.readouterr()
    assert run(command.removeprefix("palaestra ")) == 0
    assert "0 episodes played, 2 were recorded before" in capsys.readouterr().out
    assert run("board runs/records.jsonl --html board.html") == 0
    shown, page = capsys.readouterr().out, (tmp_path / "board.html").read_text("utf-8")
    for place in (shown, page):
        assert "Dollars/ep." in place
        assert "0.00012" in place
        assert f"gpt-x@127.0.0.1:{server.server_port}" in place
    assert run(f"play --env {CALCULATOR} --agent openai:gpt-x@{server.url} {options}") == 0
    assert "<answer>-1</answer>" in capsys.readouterr().out
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text("utf-8")]


def test_what_was_spoilt_is_told_with_its_reason(
    server: ChatServer, tmp_path: Path, capsys: Capture
) -> None:
    server.answer = Status(500)
    who = f"--env {CALCULATOR} --agent openai:gpt-x@{server.url} --set shots=0 --set retries=0"
    assert run(f"evaluate --quiet --episodes 2 {who}") == 0
    shown = capsys.readouterr().out
    assert f"2 spoilt by the machinery, the last one: {server.url} gave no answer: " in shown
    assert "status 500: not today" in shown
    assert "mean return" not in shown
    assert run("board runs/records.jsonl") == 0
    board = capsys.readouterr().out
    [line] = [line for line in board.splitlines() if "gpt-x@" in line]
    assert line.split("│")[-2].strip() == f"{2 * INFRA_ATTEMPTS}"
    assert "  infra: attempts that the machinery spoilt" in board
    assert run(f"play {who}") == 0
    assert "the machinery failed: " in capsys.readouterr().out.replace("\n", " ")


def test_a_mistake_is_told_in_one_line(server: ChatServer, capsys: Capture) -> None:
    server.answer = Status(404, b'{"error": {"message": "no\\nsuch model"}}')
    who = f"--agent openai:gpt-x@{server.url} --set shots=0"
    assert run(f"evaluate --quiet --env {CALCULATOR} {who}") == 2
    [answer] = capsys.readouterr().err.splitlines()
    assert answer.startswith(f"palaestra: {server.url} knows no such model")
