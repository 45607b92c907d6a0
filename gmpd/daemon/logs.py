"""How the daemon's log looks on stderr: lines for people, or a JSON object on each line.

Knows the standard ``logging`` and nothing of what is logged.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import TextIO

#: So long after a warning of a kind the next is told, with how many were not: what comes with every
#: message must not fill a disk.
SELDOM_NS = 10_000_000_000


class Seldom:
    """Tells the first of a kind of warning at once, then at most one each ``pause_ns``.

    ``tell`` is a logger's method.
    """

    def __init__(self, tell: Callable[..., None], pause_ns: int = SELDOM_NS) -> None:
        self._tell = tell
        self._pause_ns = pause_ns
        self._after_ns = 0
        self._untold = 0

    def __call__(
        self, now_ns: int, text: str, *args: object, exc_info: BaseException | None = None
    ) -> None:
        """``now_ns``: time on any clock that goes on from a value above 0."""
        if now_ns < self._after_ns:
            self._untold += 1
            return
        if self._untold:
            text, args = f"{text} (and %d more like it since the last)", (*args, self._untold)
        if exc_info is None:
            self._tell(text, *args)
        else:
            self._tell(text, *args, exc_info=exc_info)
        self._after_ns, self._untold = now_ns + self._pause_ns, 0


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
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


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
        return json.dumps(line, ensure_ascii=False)
