"""Ask an HTTP endpoint until it answers, within its limits and in bounded time.

Idea: what can go wrong is told apart by whose it is. What the endpoint refuses is the user's
mistake, and asking again would not help; everything else may pass, is asked again with growing
pauses, and in the end is nobody's mistake (`Unanswered`), but where nobody has ever been reached.
"""

import json
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any, TypeVar

from .. import __version__
from ..errors import UserError
from .exchange import FAULTS, exchange

T = TypeVar("T")

_PASSING = (408, 409, 425, 429)
"""Status codes below 500 after which asking again may help."""
_NO_MONEY = (b"insufficient_quota", b"billing_hard_limit_reached")
"""Said with 429, too, but no pause helps."""
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED = 1.0, 30.0, 120.0
"""Seconds before the second try; before any; and before one that the endpoint puts off itself."""


class Unanswered(Exception):
    """Say in one line why an endpoint gave no answer, which may pass.

    Args:
        reason: That line.
        after: Seconds that the endpoint asks to wait before the next try.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Pace:
    """Keep requests to so many a minute: a bucket of one token, shared by all threads.

    Args:
        per_minute: Requests a minute; 0 is as many as there are.
        clock: Tells the seconds.
    """

    def __init__(
        self, per_minute: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._next = -math.inf
        self._lock = threading.Lock()

    def delay(self) -> float:
        """Take the next token, and return the seconds until it is there."""
        with self._lock:
            now = self._clock()
            turn = max(self._next, now)
            self._next = turn + self._interval
        return turn - now


@dataclass(frozen=True)
class Endpoint:
    """Somebody who takes JSON and gives JSON.

    Raises:
        UserError: a value is out of range, or the key is none.
    """

    url: str
    """As `checked_url` returns it."""
    key: str = field(default="", repr=False)
    """Sent as a bearer token, and shown nowhere; empty for none."""
    timeout: float = 60.0
    """Seconds that one request may take from its first byte to its last."""
    retries: int = 4
    """Times that a request is tried again."""
    pace: Pace = field(default_factory=Pace)
    """Every request waits for it, those that are tried again as well."""
    sleep: Callable[[Event, float], object] = Event.wait
    """Waits for an event, and no longer than so many seconds."""
    chance: random.Random = field(default_factory=random.Random, repr=False)
    """Spreads the pauses of threads that failed together; no episode depends on it."""
    reached: Event = field(default_factory=Event, repr=False)
    """Whether there has ever been a connection."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout < math.inf or self.retries < 0:
            raise UserError(
                f"timeout={self.timeout} must be finite and above 0, and retries={self.retries} "
                "at least 0"
            )
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise UserError("OPENAI_API_KEY holds characters that no key has: set it anew")

    def post(self, path: str, body: dict[str, Any], read: Callable[[bytes], T], stop: Event) -> T:
        """Return what `read` makes of the answer.

        Args:
            path: Follows the URL.
            body: Any JSON.
            read: Takes the answer's bytes, and raises ValueError where they are none.
            stop: Ends the waiting as soon as somebody sets it.

        Raises:
            UserError: the endpoint refuses the request, its key or its model, or nobody has ever
                been there.
            Unanswered: it failed in all tries, or was stopped.
        """
        data, failure = json.dumps(body).encode(), Unanswered("nobody waits for it any more")
        for attempt in range(self.retries + 1):
            if attempt:
                self._rest(stop, self._pause(attempt, failure.after))
            self._rest(stop, self.pace.delay())
            if stop.is_set():
                break
            try:
                return self._read(self._once(path, data, stop), read)
            except Unanswered as error:
                failure = error
        if not self.reached.is_set() and not stop.is_set():
            raise UserError(
                f"{self.url} has never answered ({failure}): start it, or give another address"
            )
        raise failure

    def _rest(self, stop: Event, seconds: float) -> None:
        if seconds and not stop.is_set():
            self.sleep(stop, seconds)

    def _pause(self, attempt: int, asked: float) -> float:
        # Half of it by chance, lest all who failed together come back together.
        longest = min(_FIRST_PAUSE * 2.0 ** min(attempt - 1, 10), _LONGEST_PAUSE)
        return min(asked, _LONGEST_ASKED) + longest * (0.5 + 0.5 * self.chance.random())

    def _read(self, answer: bytes, read: Callable[[bytes], T]) -> T:
        try:
            return read(answer)
        except ValueError as error:
            raise Unanswered(f"{error}: {self._said(answer)}") from None

    def _once(self, path: str, data: bytes, stop: Event) -> bytes:
        """Return the answer to one request."""
        try:
            status, answer, after = exchange(
                self.url + path, data, self._headers(), self.timeout, stop, self.reached
            )
        except FAULTS as error:
            told = self._clean(str(error))
            raise Unanswered(f"{type(error).__name__}{told and f': {told}'}") from None
        if 200 <= status < 300:
            return answer
        said = self._said(answer)
        no_money = any(word in answer for word in _NO_MONEY)
        if status >= 500 or (status in _PASSING and not no_money):
            raise Unanswered(f"status {status}: {said}", _seconds(after))
        why = "" if status == 401 else f": {said}"  # of a key, some endpoints repeat a part
        raise UserError(f"{self.url} {self._refusal(status)} (status {status}){why}")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"palaestra/{__version__}"}
        return headers | {"Authorization": f"Bearer {self.key}"} if self.key else headers

    def _refusal(self, status: int) -> str:
        match status:
            case 401 if not self.key:
                return "wants a key, so set OPENAI_API_KEY"
            case 401:
                return "does not take the key in OPENAI_API_KEY"
            case 404:
                return "knows no such model or address; most addresses end in /v1"
            case _ if 300 <= status < 400:
                return "is not the address any more; give the one that it leads to"
            case _:
                return "refuses the request"

    def _said(self, answer: bytes) -> str:
        """Return the endpoint's own words about what went wrong, as far as it has any."""
        try:
            told = json.loads(answer)["error"]
            text = str(told["message"] if isinstance(told, dict) else told)
        except (ValueError, LookupError, TypeError, RecursionError):
            text = answer.decode("utf-8", "replace")
        return self._clean(text) or "no word about why"

    def _clean(self, text: str) -> str:
        """Return a line of somebody else's words that can be printed, and holds no key."""
        # A short key is a word like EMPTY, which a server at home asks for and is no secret.
        shown = text.replace(self.key, "***") if len(self.key) >= 8 else text
        line = " ".join("".join(c if c.isprintable() else " " for c in shown[:2000]).split())
        return line if len(line) <= 200 else f"{line[:199]}…"


def _seconds(after: str) -> float:
    """Read a Retry-After header, which is a number of seconds or a date (RFC 9110, 10.2.3)."""
    if after.replace(".", "", 1).isdecimal() and after.isascii():
        return float(after)
    try:
        date = parsedate_to_datetime(after)
        when = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(when.timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
