"""The format of the daemon's log on stderr: lines for people, or a JSON object on each line.

It uses the standard ``logging`` and does not know the messages.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, TextIO

#: The least time between two warnings of a kind; the next says how many were suppressed. A fault
#: that comes with every message must not fill a disk.
WARN_EVERY_NS = 10_000_000_000


class RateLimitedLog:
    """Logs the first warning of a kind at once, then at most one each ``pause_ns``.

    ``log`` is a logger's method.
    """

    def __init__(self, log: Callable[..., None], pause_ns: int = WARN_EVERY_NS) -> None:
        self._log = log
        self._pause_ns = pause_ns
        self._after_ns = 0
        self._suppressed = 0

    def __call__(
        self, now_ns: int, text: str, *args: object, exc_info: BaseException | None = None
    ) -> None:
        """``now_ns``: time on any clock that starts above 0."""
        if now_ns < self._after_ns:
            self._suppressed += 1
            return
        if self._suppressed:
            text, args = f"{text} (and %d more like it since the last)", (*args, self._suppressed)
        if exc_info is None:
            self._log(text, *args)
        else:
            self._log(text, *args, exc_info=exc_info)
        self._after_ns, self._suppressed = now_ns + self._pause_ns, 0


def set_up(level: str, form: str, stream: TextIO) -> None:
    """Log to ``stream`` from ``level`` on. ``form``: "console", "json", or "auto".

    "auto" is console on a terminal and JSON elsewhere, as `daemon.log_format` says.
    """
    if form == "auto":
        form = "console" if stream.isatty() else "json"
    handler = logging.StreamHandler(stream)
    if form == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(Console("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def visible(text: str) -> str:
    """``text`` with escapes for all that moves a cursor, reverses characters, or ends a line for
    other programs: names come from clients, and logs are read in terminals."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


class Console(logging.Formatter):
    """Lines for people. Further lines of a message are indented: none looks like a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The record without its traceback."""
        return visible(super().formatMessage(record)).replace("\n", "\n    ")

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Its traceback."""
        return visible(super().formatException(ei))


class JsonLines(logging.Formatter):
    """``{"time", "level", "logger", "message"}``, and ``traceback`` where there is one.

    ``time`` is UTC, ISO 8601 with milliseconds. A message of several lines stays one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _escaped_json(json.dumps(line, ensure_ascii=False))


def _escaped_json(text: str) -> str:
    """JSON with escapes for what a terminal would not print."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
