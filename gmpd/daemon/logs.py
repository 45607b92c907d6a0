"""The format of the daemon's log on stderr: lines for people, or a JSON object on each line.

It uses the standard ``logging`` and does not know the messages. Lines leave through ``log_queue``.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any, TextIO

from gmpd.daemon.log_queue import Descriptor, Out, QueuedHandler, Text

#: The least time between two warnings of a kind; the next says how many were suppressed. A fault
#: that comes with every message must not fill a disk.
WARN_EVERY_NS = 10_000_000_000


#: Characters of a message, and of a traceback, that are written: of a longer one the beginning, of
#: the traceback the end.
MESSAGE_MAX = 16_384
TRACEBACK_MAX = 65_536


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
        self,
        now_ns: int,
        text: str,
        *args: object,
        exc_info: BaseException | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        """``now_ns``: time on any clock that starts above 0. ``extra``: attributes of the
        record."""
        if now_ns < self._after_ns:
            self._suppressed += 1
            return
        if self._suppressed:
            text, args = f"{text} (and %d more like it since the last)", (*args, self._suppressed)
        more: dict[str, object] = {} if exc_info is None else {"exc_info": exc_info}
        if extra is not None:
            more["extra"] = extra
        self._log(text, *args, **more)
        self._after_ns, self._suppressed = now_ns + self._pause_ns, 0


#: Attributes of a record that JSON lines have beside the message, where they are not empty. The
#: first ones are those of records of jobs.
IDS = {
    "p": "gmpd_p", "job": "gmpd_job", "attempt": "gmpd_attempt", "g": "gmpd_g",
    "function": "gmpd_function", "suppressed": "suppressed", "dropped": "dropped",
}  # fmt: skip


def set_up(level: str, form: str, stream: TextIO, process: str = "coordinator") -> QueuedHandler:
    """Log to ``stream`` from ``level`` on. ``form``: "console", "json", or "auto".

    "auto" is console on a terminal and JSON elsewhere, as `daemon.log_format` says. Nothing waits
    for the stream; the end of the process writes what is left.
    """
    handler = queued(form_for(form, stream), stream, process)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return handler


def form_for(form: str, stream: TextIO) -> str:
    """ "console" or "json"."""
    if form == "auto":
        return "console" if stream.isatty() else "json"
    return form


def queued(form: str, stream: TextIO, process: str) -> QueuedHandler:
    """A handler that does not wait for ``stream``. ``form``: "console", "json"; or "bare": name and
    message, as a daemon writes them among the lines of its program."""
    handler = QueuedHandler(_out(stream))
    match form:
        case "json":
            handler.setFormatter(JsonLines(process))
            handler.is_for_programs = True
        case "bare":
            handler.setFormatter(Console("%(name)s: %(message)s"))
        case _:
            handler.setFormatter(Console("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


def _out(stream: TextIO) -> Out:
    try:
        return Descriptor(stream.fileno())
    except (io.UnsupportedOperation, AttributeError):
        return Text(stream)


def visible(text: str) -> str:
    """``text`` with escapes for all that moves a cursor, reverses characters, or ends a line for
    other programs: names come from clients, and logs are read in terminals."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def message_of(record: logging.LogRecord) -> str:
    """Its message; where its arguments do not fit, or their code raises, what there is."""
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - a line about odd values is not lost by them
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        text = f"{template} [its arguments cannot be shown: {type(error).__name__}]"
    if len(text) > MESSAGE_MAX:
        return f"{text[:MESSAGE_MAX]}… [{len(text) - MESSAGE_MAX:,} characters more]"
    return text


def traceback_of(ei: Any) -> str:
    """As ``logging`` writes it; of a long one the end."""
    try:
        text = logging.Formatter().formatException(ei)
    except Exception as error:  # noqa: BLE001 - as above
        text = f"[the traceback cannot be shown: {type(error).__name__}]"
    return text if len(text) <= TRACEBACK_MAX else f"…{text[-TRACEBACK_MAX:]}"


class Console(logging.Formatter):
    """Lines for people. Further lines of a message are indented: none looks like a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, with its traceback. Never raises."""
        record.message = message_of(record)
        if self.usesTime():
            record.asctime = self.formatTime(record)
        text = visible(self.formatMessage(record)).replace("\n", "\n    ")
        return f"{text}\n{visible(traceback_of(record.exc_info))}" if record.exc_info else text


class JsonLines(logging.Formatter):
    """``{"time", "level", "logger", "message", "process", "pid"}``; ``traceback`` where there is
    one, and what ``IDS`` says.

    ``time`` is UTC, ISO 8601 with milliseconds. A message of several lines stays one. Texts are
    valid Unicode: half of a pair of surrogates is written as an escape that is text.
    """

    def __init__(self, process: str = "coordinator") -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line. Never raises."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _unicode(message_of(record)),
            "process": self._process,
            "pid": os.getpid(),
        }
        for name, attribute in IDS.items():
            value = record.__dict__.get(attribute, "")
            if type(value) is int or (type(value) is str and value):
                line[name] = _unicode(value) if type(value) is str else value
        if record.exc_info:
            line["traceback"] = _unicode(traceback_of(record.exc_info))
        return _escaped_json(json.dumps(line, ensure_ascii=False))


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped_json(text: str) -> str:
    """JSON with escapes for what a terminal would not print."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
