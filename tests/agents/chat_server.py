"""A chat endpoint on this machine that answers as it is told, or misbehaves."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: "ChatServer"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append(body)
            server.paths.append(self.path)
            server.headers.append(dict(self.headers))
            answer = server.script.pop(0) if server.script else server.answer
        self.close_connection = True
        with suppress(OSError):  # whoever asked has left
            answer(self, body)

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


class ChatServer(ThreadingHTTPServer):
    """Remembers what it was asked; answers by `script` while there is one, then by `answer`."""

    request_queue_size = 64

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.script: list[Answer] = []
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def serving(answer: Answer) -> Iterator[ChatServer]:
    with ChatServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@dataclass
class Says:
    """Answer with a message, or with what a function makes of the request."""

    text: Any
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 7}
    )
    delay: float = 0.0

    def __call__(self, handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(self.delay)
        content = self.text(body) if callable(self.text) else self.text
        message = content if isinstance(content, dict) else {"content": content}
        answer: dict[str, Any] = {
            "choices": [{"message": {"role": "assistant"} | message, "finish_reason": "stop"}]
        }
        if self.usage is not None:
            answer["usage"] = self.usage
        handler.send(200, json.dumps(answer).encode())


@dataclass
class Status:
    """Answer with a status code."""

    code: int
    content: bytes = b'{"error": {"message": "not today"}}'
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0

    def __call__(self, handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(self.delay)
        handler.send(self.code, self.content, **self.headers)


@dataclass
class Raw:
    """Answer with bytes as they are, an interval before each piece, and hang up."""

    pieces: list[bytes]
    interval: float = 0.0

    def __call__(self, handler: Handler, body: dict[str, Any]) -> None:
        for piece in self.pieces:
            time.sleep(self.interval)
            handler.wfile.write(piece)
            handler.wfile.flush()


HANG_UP = Raw([])
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
