"""Tools of ours as an MCP server, in this process or over its standard streams."""

import threading
from collections.abc import Iterable
from typing import Any

from ... import __version__
from ...errors import UserError
from . import BadArguments, Tool, ToolError

try:
    import anyio
    import anyio.from_thread
    import anyio.to_thread
    import mcp_types as protocol
    from mcp import MCPError
    from mcp.server import Server
    from mcp.server.stdio import stdio_server

    from .mcp import FAILURE
except ImportError as error:
    raise UserError("tools over MCP need an extra: pip install 'palaestra[mcp]'") from error

_LOOK = 0.02
"""Seconds after which a call that waits for its turn sees whether it was called off."""


def serve(tools: Iterable[Tool], name: str = "palaestra") -> Server[Any]:
    """Return an MCP server that offers tools, each with its own schema.

    An error of a tool is a result with `isError`, which a model can read; anything else that a
    tool raises is an error of the protocol. Calls are run one after another; one that is called
    off before its turn has come is never run.
    """
    offered = {tool.name: tool for tool in tools}
    turn = threading.Lock()

    def run(tool: Tool, arguments: dict[str, Any]) -> str:
        while not turn.acquire(timeout=_LOOK):
            anyio.from_thread.check_cancelled()
        try:
            anyio.from_thread.check_cancelled()
            tool.check(arguments)
            return tool.call(arguments)
        finally:
            turn.release()

    async def list_tools(*_: object) -> protocol.ListToolsResult:
        return protocol.ListToolsResult(tools=[_offer(tool) for tool in offered.values()])

    async def call_tool(
        _: object, asked: protocol.CallToolRequestParams
    ) -> protocol.CallToolResult:
        if asked.name not in offered:
            known = ", ".join(offered)
            raise MCPError(protocol.INVALID_PARAMS, f"no tool {asked.name!r}; there are: {known}")
        try:
            tool, arguments = offered[asked.name], asked.arguments or {}
            return _result(await anyio.to_thread.run_sync(run, tool, arguments))
        except BadArguments as error:
            return _result(str(error), "format")
        except ToolError as error:
            return _result(str(error), error.failure)

    return Server(name, version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def serve_stdio(tools: Iterable[Tool], name: str = "palaestra") -> None:
    """Offer tools over the standard streams until the input ends; stdout holds nothing else."""
    server = serve(tools, name)

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(run)


def _offer(tool: Tool) -> protocol.Tool:
    about = tool.schema["function"]
    return protocol.Tool(
        name=about["name"], description=about["description"], input_schema=about["parameters"]
    )


def _result(text: str, failure: str | None = None) -> protocol.CallToolResult:
    content: list[protocol.ContentBlock] = [protocol.TextContent(type="text", text=text)]
    if failure is None:
        return protocol.CallToolResult(content=content)
    return protocol.CallToolResult(content=content, is_error=True, _meta={FAILURE: failure})
