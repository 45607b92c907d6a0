"""Messages of a daemon with which only plain values are exchanged: nothing in them is unpickled.

Results come from jobs, and what a job returns or raises is not the daemon's word. So this is not
left to the daemon, which makes plain results itself: a value that is none becomes an error, and of
a job's exception the texts and the plain arguments remain.
"""

from __future__ import annotations

from typing import Any

from gmpd.errors import ProtocolError, Unserializable
from gmpd.protocol import Outcome
from gmpd.submit.events import ItemsReceived, JobDone

#: First bytes of values that may hold pickles (``codec.values``).
_NOT_PLAIN = frozenset({0x80, 0xC1})
#: Entries of an error that are pickles (``codec.failures``).
_PICKLED = frozenset({"pickled", "bare", "grouped"})
#: Exceptions within exceptions; deeper ones are left out.
_DEPTH_MAX = 20


def is_plain(payload: bytes, buffers: Any = ()) -> bool:
    """Whether a value is plain."""
    return not buffers and (not payload or payload[0] not in _NOT_PLAIN)


def only_plain(event: JobDone) -> JobDone:
    """The same end, without anything that would be unpickled."""
    match event.outcome:
        case Outcome.OK if not is_plain(event.payload, event.buffers):
            details = {"error": Unserializable("the result is a Python object, which this client's"
                " key does not allow: let the function return plain data")}  # fmt: skip
            return JobDone(Outcome.LOST, b"", (), 0, details)
        case Outcome.ERROR:
            return event._replace(payload=_texts_of(event.payload, 0), buffers=())
        case _:
            return event


def check_items(event: ItemsReceived) -> None:
    """Raises ProtocolError for values of a stream that are not plain."""
    if not all(map(is_plain, event.payloads, event.buffers)):
        raise ProtocolError("the daemon sent a Python object to a client of plain values")


def only_plain_reply(value: Any) -> Any:
    """The reply to a question; that for the end of a durable job holds a value."""
    if not isinstance(value, dict) or not isinstance(value.get("value"), bytes):
        return value
    outcome = Outcome.OK if value.get("outcome") == "ok" else Outcome.ERROR
    buffers = tuple(value.get("buffers") or ())
    done = only_plain(JobDone(outcome, value["value"], buffers, 0, {}))
    if done.outcome is Outcome.LOST:
        raise ProtocolError(str(done.details["error"]))
    return {**value, "value": done.payload, "buffers": ()}


def _texts_of(payload: bytes, depth: int) -> bytes:
    """An encoded error without its pickles."""
    import msgpack  # for few clients

    if not payload or depth > _DEPTH_MAX:
        return b""
    try:
        error = msgpack.unpackb(payload)
    except Exception:  # noqa: BLE001 - garbage: its reader says so
        return payload
    if not isinstance(error, dict):
        return payload
    left = {key: value for key, value in error.items() if key not in _PICKLED}
    parts = left.get("parts")
    if isinstance(parts, list):
        left["parts"] = [_texts_of(part, depth + 1) for part in parts if isinstance(part, bytes)]
    packed: bytes = msgpack.packb(left)
    return packed
