"""A connection to an MCP server that blocking code can use, and that ends when it shall."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import mcp_types as protocol
from anyio.abc import ByteReceiveStream, ByteSendStream, ObjectReceiveStream, ObjectSendStream
from anyio.abc import Process as ServerProcess
from mcp import Client
from mcp.client.stdio import get_default_environment
from mcp.server import MCPServer, Server
from mcp.shared.message import SessionMessage

T = TypeVar("T")
AnyServer = Server[Any] | MCPServer[Any]
_PATIENCE = 0.4
"""Seconds that work which was called off, or a server that shall end, may still take."""


class Late(Exception):
    """The answer did not come in time, and the server was told to stop."""


class Stuck(Exception):
    """The answer did not come in time, and the work cannot be ended."""


class Connection:
    """A client in an event loop in a thread of its own, so that it works inside any other loop.

    Args:
        target: A server object, or the command of one with variables for its environment.
    """

    def __init__(self, target: "AnyServer | tuple[list[str], dict[str, str]]") -> None:
        self._target = target
        self._in_peace = self._closed = False
        self._opened: Future[Client] = Future()
        self._thread = threading.Thread(target=self._work, name="palaestra-mcp", daemon=True)

    def start(self) -> None:
        """Start the server and shake hands with it, in the background."""
        self._begun = time.monotonic()
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until `start` is done, in these seconds since; raise whatever prevents that."""
        try:
            self._opened.result(max(self._begun + seconds - time.monotonic(), 0))
        except TimeoutError:
            raise TimeoutError(f"no answer within {seconds:g} s") from None

    def ask(self, request: Callable[[Client], Awaitable[T]], seconds: float) -> T:
        """Return what a request to the server comes to.

        Raises:
            Late: it was not done in time and was called off.
            Stuck: even that took too long.
            Exception: whatever the client raised.
        """
        asked = asyncio.run_coroutine_threadsafe(self._within(request, seconds), self._loop)
        try:
            return asked.result(seconds + _PATIENCE)
        except TimeoutError:
            if asked.done():
                raise
            raise Stuck from None
        finally:
            del asked  # else what it raised and this frame keep each other, and their callers

    @property
    def works(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def abandon(self) -> None:
        """Close as soon as the work is done that cannot be ended, and do not wait for it."""
        asyncio.run_coroutine_threadsafe(self._stop_when_idle(), self._loop)

    def close(self, *, in_peace: bool = False) -> None:
        """End the server, at once or in peace, and wait for the end of the thread."""
        self._in_peace, self._closed = in_peace, True
        with contextlib.suppress(RuntimeError, AttributeError):  # it has ended, or not yet begun
            self._loop.call_soon_threadsafe(self._stop)
        # A collector of garbage that runs in that very thread may be what calls this.
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5 * _PATIENCE)

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._opened.done():
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                self._opened.set_exception(error)

    async def _serve(self) -> None:
        main = asyncio.current_task()
        assert main is not None
        self._stop, self._loop = main.cancel, asyncio.get_running_loop()
        if self._closed:
            return
        target = self._process(*self._target) if isinstance(self._target, tuple) else self._target
        async with Client(target) as client:
            await client.list_tools()  # what a first request costs belongs to the start
            self._opened.set_result(client)
            await asyncio.Event().wait()  # until `close` cancels this

    async def _within(self, request: Callable[[Client], Awaitable[T]], seconds: float) -> T:
        with anyio.move_on_after(seconds):
            return await request(self._opened.result())
        with anyio.move_on_after(_PATIENCE / 2):
            await _idle()
            raise Late
        raise Stuck

    async def _stop_when_idle(self) -> None:
        await _idle()
        self._stop()

    @contextlib.asynccontextmanager
    async def _process(self, command: list[str], environment: dict[str, str]) -> AsyncIterator[Any]:
        """Start a server and yield streams of messages from it and to it.

        The transport of `mcp` waits for up to four seconds before it kills a server.
        """
        process = await anyio.open_process(
            command,
            env=get_default_environment() | environment,
            stderr=None,  # where ours goes
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        to_client, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_client = anyio.create_memory_object_stream[SessionMessage](0)
        async with to_client, incoming, outgoing, from_client, anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process.stdout, to_client)
            tasks.start_soon(_write, from_client, process.stdin, to_client)
            try:
                yield incoming, outgoing
            finally:
                incoming.close()
                with anyio.CancelScope(shield=True):
                    await _end(process, self._in_peace)
                tasks.cancel_scope.cancel()


async def _idle() -> None:
    """Wait for the threads of this loop, in which a server of this process does what blocks."""
    while anyio.to_thread.current_default_thread_limiter().borrowed_tokens:
        await anyio.sleep(0.02)


async def _read(
    stdout: ByteReceiveStream, to_client: ObjectSendStream[SessionMessage | Exception]
) -> None:
    rest = b""
    with contextlib.suppress(anyio.ClosedResourceError, OSError):
        async with to_client:
            with contextlib.suppress(anyio.BrokenResourceError):
                async for chunk in stdout:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        await to_client.send(_message(line))
        async for _ in stdout:
            pass  # nobody listens any more; but a full pipe would keep the process from its end


async def _write(
    from_client: ObjectReceiveStream[SessionMessage],
    stdin: ByteSendStream,
    to_client: ObjectSendStream[SessionMessage | Exception],
) -> None:
    try:
        async for message in from_client:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            await stdin.send(text.encode() + b"\n")
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        await to_client.aclose()  # so that the client does not wait for an answer


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(protocol.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _end(process: ServerProcess, in_peace: bool) -> None:
    """End a process and its group; in peace, it may first end by itself.

    What has asked for a session or a group of its own is left.
    """
    assert process.stdin is not None
    with contextlib.suppress(anyio.BrokenResourceError, OSError):
        await process.stdin.aclose()
    if in_peace:
        with anyio.move_on_after(_PATIENCE):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.move_on_after(_PATIENCE):
        await process.wait()
