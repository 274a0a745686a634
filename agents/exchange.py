"""Send one HTTP request and read what comes back: all of it in time, and no more than is wanted."""

import io
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from ..errors import UserError

MOST_BYTES = 4 * 2**20
"""Of an answer, its headers included."""
FAULTS = (OSError, HTTPException, ValueError)
"""What an exchange raises where the other side, or the way there, fails."""

_LOOK = 0.2
"""Seconds after which a thread that waits for bytes looks whether it still should."""


def exchange(
    url: str, data: bytes, headers: dict[str, str], timeout: float, stop: Event, reached: Event
) -> tuple[int, bytes, str]:
    """Post bytes, and return the status, the bytes and the `Retry-After` of the answer.

    Args:
        url: Where to.
        data: What is posted.
        headers: What goes with it.
        timeout: Seconds for all of it.
        stop: Ends the waiting as soon as somebody sets it.
        reached: Is set as soon as there is a connection.

    Raises:
        OSError, HTTPException, ValueError: there is no whole answer; see `FAULTS`.
    """
    deadline = time.monotonic() + timeout
    parts = urlsplit(url)
    kind: type[HTTPConnection] = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(kind(parts.hostname or "", parts.port, timeout=timeout)) as connection:
        connection.connect()
        reached.set()
        connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        connection.request("POST", parts.path, data, {**headers, "Connection": "close"})
        source: Any = _Until(connection.sock, deadline, stop)
        with closing(HTTPResponse(source, method="POST")) as response:
            response.begin()
            # A number of bytes, lest what the headers promise be set aside for them.
            answer = response.read(MOST_BYTES)
            return response.status, answer, response.getheader("Retry-After", "")


def checked_url(url: str) -> str:
    """Return the address of an endpoint as it is recorded, without what does not belong to it.

    Raises:
        UserError: it is none, or holds what must not be recorded.
    """
    if "@" in url or "?" in url or "#" in url:  # which may be secret, so it is not repeated
        raise UserError(
            "the URL of an endpoint is recorded, so it may hold no user, password, query or "
            "fragment: set OPENAI_API_KEY to the key, and give https://HOST/v1"
        )
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        sound = bool(host) and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise UserError(
            f"{url!r} is not the URL of an endpoint: give http://HOST:PORT/v1 or https://HOST/v1"
        )
    return url.rstrip("/").removesuffix("/chat/completions").rstrip("/")


class _Until(io.RawIOBase):
    """Read a socket until a deadline, however slowly the bytes drip, or until somebody stops it.

    Time-outs of a socket are those of one read, so an endpoint that sends a byte now and then
    could hold a thread for ever, and one that sends many fill the memory.
    """

    def __init__(self, sock: Any, deadline: float, stop: Event) -> None:
        self._sock, self._deadline, self._stop = sock, deadline, stop
        self._left = MOST_BYTES

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return what `HTTPResponse` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, at least a byte where the stream has not ended."""
        while (left := self._deadline - time.monotonic()) > 0 and not self._stop.is_set():
            self._sock.settimeout(min(left, _LOOK))
            try:
                count = int(self._sock.recv_into(buffer))
            except TimeoutError:
                continue
            self._left -= count
            if self._left < 0:
                raise OSError(f"the answer has more than {MOST_BYTES} bytes")
            return count
        raise TimeoutError("no whole answer in time")
