"""Tools of MCP servers for text environments.

The Model Context Protocol says how a program offers tools to a model. `McpTools` takes them from
a server into an environment; `mcp_server` offers an environment's own to any client.
"""

import copy
import json
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

from ...errors import UserError
from . import Tool, ToolError, ToolTimeout

try:
    import mcp_types as protocol
    from mcp import Client, MCPError
    from mcp.server import MCPServer, Server

    from .json_schema import Fits
    from .mcp_connection import AnyServer, Connection, Late, Stuck
except ImportError as error:
    raise UserError("tools over MCP need an extra: pip install 'palaestra[mcp]'") from error

T = TypeVar("T")
_MOST_PAGES = 100
"""Pages of a list of tools that are read; a server could go on for ever."""
_MOST_ABANDONED = 4
"""Threads that may be busy with late calls which cannot be ended."""
FAILURE = "palaestra/failure"
"""Where a result of ours says which failure it is; other clients see an error like any other."""


class McpTools:
    """The tools of an MCP server, for a text environment.

    The server is started at the first use. One that is a command is a process of its own: it is
    killed with its process group when a call takes too long or it breaks down, and the next one
    starts at once, in the background. A call waits for that start and is not charged for it.

    Only servers from a command are ended. One that is an object runs in threads of this
    process, which Python cannot end: a call that takes too long is cancelled, and that ends
    asynchronous work only. Other work goes on to its own end, and the program waits for that
    before it exits. Meanwhile calls have new threads; once four are busy with late calls,
    further ones are a failure of the machinery, until one is done. Serve tools that may hang
    from a command.

    Calls from several threads take turns.

    Args:
        server: A command, such as `["python", "-m", "weather"]`, or a server object of `mcp`.
        timeout: Seconds that a call may take.
        start_timeout: Seconds that the start of the server may take.
        only: Names of the tools to take; None for all.
        environment: Variables for the command, beside those that every program needs.

    Raises:
        UserError: the command is not a list of words, or a time-out is not above 0.
    """

    _connection: Connection | None
    _abandoned: list[Connection]

    def __init__(
        self,
        server: Sequence[str] | AnyServer,
        timeout: float = 1.0,
        start_timeout: float = 30.0,
        only: Collection[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(server, str) or not server:
            raise UserError(f"the command of an MCP server is a list of words, not {server!r}")
        if not (0 < timeout < float("inf") and 0 < start_timeout < float("inf")):
            raise UserError("a time-out of an MCP server is a number of seconds above 0")
        self._is_object = isinstance(server, Server | MCPServer)
        self._server = server if isinstance(server, Server | MCPServer) else list(server)
        self._only, self._environment = only, dict(environment or {})
        self._timeout, self._start_timeout = timeout, start_timeout
        self._name = server.name if isinstance(server, Server | MCPServer) else " ".join(server)
        self._forget()

    @cached_property
    def tools(self) -> dict[str, Tool]:
        """The tools by name, as the server lists them at the first use.

        Raises:
            ConnectionError: the server cannot be started or does not answer.
            UserError: a tool is not there, or its schema is not valid.
        """
        try:
            listed = {found.name: found for found in self._ask(_list, self._start_timeout)}
        except ToolError as error:
            raise ConnectionError(f"{self._name} does not list its tools: {error}") from None
        names = list(listed) if self._only is None else self._only
        if missing := set(names) - listed.keys():
            known = ", ".join(listed) or "none"
            raise UserError(f"{self._name} has no tool {missing.pop()!r}; there are: {known}")
        return {name: self._tool(listed[name]) for name in names}

    def call(self, name: str, /, **arguments: Any) -> str:
        """Call a tool and return what it says.

        Raises:
            ToolError: the server says that the call failed.
            ToolTimeout: the call took too long and was ended, or abandoned in this process.
            ConnectionError: the server cannot be started, broke down, or is too busy with
                calls that cannot be ended.
        """

        async def request(client: Client) -> protocol.CallToolResult:
            return await client.call_tool(name, arguments)

        return _read(self._ask(request, self._timeout))

    def close(self) -> None:
        """End the server and the thread that speaks to it; a later call starts both again."""
        with self._lock:
            self._disconnect(in_peace=True)

    def __enter__(self) -> "McpTools":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_object:
            raise TypeError(f"{self._name} lives in this process; only a command can be copied")
        more = self._timeout, self._start_timeout, self._only, self._environment
        return McpTools, (self._server, *more)

    def _tool(self, found: protocol.Tool) -> Tool:
        about = {
            "name": found.name,
            "description": found.description or "",
            "parameters": found.input_schema,
        }
        tool = McpTool(partial(self.call, found.name), about=about)
        try:
            _ = tool.fits
        except ValueError as error:
            raise UserError(
                f"the schema of {found.name!r} of {self._name} is not valid ({error}): "
                "name the other tools in `only`"
            ) from None
        return tool

    def _ask(self, request: Callable[[Client], Awaitable[T]], seconds: float) -> T:
        with self._lock:
            connection = self._connected()
            try:
                return connection.ask(request, seconds)
            except (Late, Stuck) as late:
                if not self._is_object:
                    self._restart()
                elif isinstance(late, Stuck):
                    self._abandon(connection)
                raise ToolTimeout(f"the tool took longer than {seconds:g} s") from None
            except MCPError as error:
                if error.code == protocol.INVALID_PARAMS:
                    raise ToolError(error.message) from None
                if error.code == protocol.CONNECTION_CLOSED:
                    self._restart()
                raise ConnectionError(f"{self._name} failed: {error.message}") from error
            except Exception as error:
                self._disconnect()
                raise ConnectionError(f"{self._name} failed: {error!r}") from error

    def _connected(self) -> Connection:
        if self._owner != os.getpid():  # a fork has no threads: leave its parent's server alone
            self._forget()
        connection = self._connection or self._start()
        try:
            connection.wait(self._start_timeout)
        except Exception as error:
            self._disconnect()
            raise ConnectionError(f"{self._name} cannot be started: {error!r}") from error
        return connection

    def _start(self) -> Connection:
        self._abandoned = [one for one in self._abandoned if one.works]
        if len(self._abandoned) >= _MOST_ABANDONED:
            raise ConnectionError(
                f"{_MOST_ABANDONED} late calls of tools of {self._name} are still at work and "
                "cannot be ended in this process: serve it from a command"
            )
        target: Any = self._server if self._is_object else (self._server, self._environment)
        self._connection = connection = Connection(target)
        self._at_the_end = weakref.finalize(self, connection.close)
        connection.start()
        return connection

    def _restart(self) -> None:
        """End the server and start the next one, which the next call waits for."""
        self._disconnect()
        self._start()

    def _abandon(self, connection: Connection) -> None:
        """Leave a server of this process to a call that cannot be ended."""
        self._at_the_end.detach()
        connection.abandon()
        self._abandoned.append(connection)
        self._connection = None

    def _disconnect(self, *, in_peace: bool = False) -> None:
        if self._connection is not None and self._owner == os.getpid():
            self._at_the_end.detach()
            self._connection.close(in_peace=in_peace)
        self._connection = None

    def _forget(self) -> None:
        self._owner, self._lock = os.getpid(), threading.RLock()
        self._connection, self._abandoned = None, []


@dataclass(frozen=True)
class McpTool(Tool):
    """A tool that brings its own JSON schema."""

    about: dict[str, Any] = field(default_factory=dict)
    """Name, description and the schema of the parameters, as chat templates take them."""

    @property
    def name(self) -> str:
        """The name by which it is called."""
        return str(self.about["name"])

    @cached_property
    def parameters(self) -> dict[str, type]:
        """Names of the parameters; `str` where the schema asks for a text, else `object`."""
        properties: dict[str, Any] = self.about["parameters"].get("properties", {})
        return {
            name: str if isinstance(kind, dict) and kind.get("type") == "string" else object
            for name, kind in properties.items()
        }

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a call, in the shape that chat templates take."""
        return {"type": "function", "function": copy.deepcopy(self.about)}

    @cached_property
    def fits(self) -> Fits:
        """What arguments are compared with."""
        return Fits(self.about["parameters"])

    def check(self, arguments: dict[str, Any]) -> None:
        """Compare arguments with the schema.

        Raises:
            BadArguments: they do not fit.
        """
        self.fits.check(arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return McpTool, (self.function, self.timeout, self.about)


async def _list(client: Client) -> list[protocol.Tool]:
    page = await client.list_tools()
    found = list(page.tools)
    for _ in range(_MOST_PAGES):
        if page.next_cursor is None:
            break
        page = await client.list_tools(cursor=page.next_cursor)
        found += page.tools
    return found


def _read(result: protocol.CallToolResult) -> str:
    said = "\n".join(_in_words(block) for block in result.content)
    if not result.content and result.structured_content is not None:
        said = json.dumps(result.structured_content, ensure_ascii=False)
    if not result.is_error:
        return said
    is_late = (result.meta or {}).get(FAILURE) == ToolTimeout.failure
    raise (ToolTimeout if is_late else ToolError)(said or "the tool failed")


def _in_words(block: protocol.ContentBlock) -> str:
    """Return the text of a part of a result, or say what it is."""
    match block:
        case protocol.TextContent():
            return block.text
        case protocol.ResourceLink():
            return f"(a link to {block.uri})"
        case protocol.EmbeddedResource(resource=protocol.TextResourceContents() as inside):
            return inside.text
        case protocol.EmbeddedResource():
            kind = block.resource.mime_type or "of unknown type"
            return f"(data from {block.resource.uri}, {kind})"
        case protocol.ImageContent():
            return f"(an image, {block.mime_type})"
        case _:
            return f"(a sound, {block.mime_type})"
