"""Events of a session to the sinks of its jobs and calls: applied outside the session's lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from gmpd import protocol
from gmpd.protocol import Outcome


class JobDone(NamedTuple):
    """The end of one job, to its sink."""

    outcome: Outcome
    payload: bytes
    buffers: protocol.Buffers
    ran_us: int
    details: dict[str, Any]


class ItemsReceived(NamedTuple):
    """Items of a generator job, to its sink."""

    payloads: list[bytes]
    buffers: list[protocol.Buffers]


class JobNotice(NamedTuple):
    """Something else for a sink: ``what`` is "running" or "kept"."""

    what: str


class JobProgress(NamedTuple):
    """How far a job is, to its sink: see ``gmpd.progress``."""

    done: float
    total: float | None
    note: str


class CallReply(NamedTuple):
    """The reply to a call, to its sink."""

    ok: bool
    value: Any


#: A sink and the news for it. The news does not name its sink: a sink that keeps it would otherwise
#: refer to itself, and live on with its value until the collector passes.
Event: TypeAlias = tuple[Any, JobDone | ItemsReceived | JobNotice | JobProgress | CallReply]


def progressed(message: protocol.Progress, sinks: Mapping[int, Any]) -> list[Event]:
    """The news of a message for those sinks that are known."""
    rows = zip(message.jobs, message.done, message.total, message.notes, strict=True)
    return [
        (sinks[seq], JobProgress(done, total, note))
        for seq, done, total, note in rows
        if seq in sinks
    ]


def apply(event: tuple[Any, Any]) -> None:
    """Hand news, an ``Event``, to its sink. The commonest first, by the cheapest comparison."""
    sink, news = event
    if type(news) is JobDone:
        sink.ended(news)
    elif isinstance(news, ItemsReceived):
        sink.yielded(news)
    elif isinstance(news, CallReply):
        sink.answered(news.ok, news.value)
    elif isinstance(news, JobProgress):
        sink.progressed(news)
    else:
        sink.noted(news.what)
