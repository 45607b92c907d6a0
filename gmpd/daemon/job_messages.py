"""Messages about jobs: of clients about theirs, of workers about their Gs' children that
run elsewhere. This module knows neither the sender nor the way of a message.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, TypeAlias, assert_never

from gmpd import protocol
from gmpd.sched import events
from gmpd.sched.functions import PART
from gmpd.sched.records import Session
from gmpd.sched.schedt import Sched

JobMessage: TypeAlias = protocol.Submit | protocol.Define | protocol.Undefine | protocol.Cancel


def apply(sched: Sched, session: Session, message: JobMessage, frames: list[Any], now: int) -> None:
    """Pass the message to the policy as an event. Raises its ProtocolError: nothing has changed."""
    match message:
        case protocol.Submit():
            submit(sched, session.sid, message, frames, now)
        case protocol.Define(kind=kind, payload=payload):
            # A part has a name of its own, and may be large.
            hashed = payload and kind != PART
            digest = blake2b(payload, digest_size=16).digest() if hashed else b""
            sched.handle(events.Defined(session.sid, message, digest), now)
        case protocol.Undefine(fids):
            sched.handle(events.Undefined(session.sid, fids), now)
        case protocol.Cancel(seqs):
            sched.handle(events.Cancelled(session.sid, seqs), now)
        case _:
            assert_never(message)


def submit(
    sched: Sched,
    sid: int,
    message: protocol.Submit,
    frames: list[Any],
    now: int,
    unregistered: str = "",
) -> None:
    """``apply`` for the message that is worth a way of its own."""
    buffers = protocol.split_buffers(message.buffer_counts, len(message.payloads), frames)
    sched.handle(events.Submitted(sid, message, buffers, unregistered), now)
