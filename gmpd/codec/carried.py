"""A call with a few bytes in front of it, which travel with the job wherever its arguments do.

No process on the way looks at them, durable jobs keep them, every attempt has them. Calls without
them look as before, so they cost nothing where there are none. Counterpart: ``gmpd.spans``.

Layout: the mark, the length of the header in two bytes, the header, the call.
"""

from __future__ import annotations

from gmpd.codec.values import Blob
from gmpd.errors import ProtocolError

#: The first byte of such a call: no call begins so by itself.
MARK = b"\x94"
_HEAD = 3
#: Bytes of a header, at most.
HEADER_MAX = 0xFFFF


def carrying(header: bytes, blob: Blob) -> Blob:
    """A packed call with ``header``, of at most ``HEADER_MAX`` bytes."""
    data = b"".join((MARK, len(header).to_bytes(2, "big"), header, blob.data))
    return blob.with_data(data)


def carried(data: bytes) -> tuple[bytes, bytes]:
    """Header and call of what begins with the mark. Raises ProtocolError if it ends early."""
    at = _HEAD + int.from_bytes(data[1:_HEAD], "big")
    if len(data) <= at:
        raise ProtocolError(f"{len(data)} bytes are not the arguments of a call with a header")
    return data[_HEAD:at], data[at:]


def tag_of(data: bytes) -> bytes:
    """The first byte of a call, without its header."""
    if data[:1] != MARK:
        return data[:1]
    at = _HEAD + int.from_bytes(data[1:_HEAD], "big")
    return data[at : at + 1]
