"""The ids of durable jobs: UUIDs of version 7, which people read and write as 32 hex digits."""

from __future__ import annotations

import os
import time


def new_job_id() -> bytes:
    """A UUIDv7: by the time in milliseconds, then at random, so ids of one program are in order."""
    head = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    tail = bytearray(os.urandom(10))
    tail[0] = 0x70 | tail[0] & 0x0F
    tail[2] = 0x80 | tail[2] & 0x3F
    return head + bytes(tail)


def parse_job_id(text: str) -> bytes:
    """The 16 bytes of an id in hex, with or without dashes. Raises ValueError."""
    try:
        id_ = bytes.fromhex(text.replace("-", ""))
    except (ValueError, AttributeError, TypeError):
        id_ = b""
    if len(id_) != 16:
        raise ValueError(
            f"{text!r} is no id of a job: 32 hex digits, as enqueue() and future.job_id give it"
        )
    return id_
