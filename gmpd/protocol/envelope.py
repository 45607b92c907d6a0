"""From messages to frames and back: encoding, checking, buffers, and the handshake.

Nothing here knows a message by itself, except the two whose form never changes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from functools import cached_property
from typing import Any, get_args

import msgspec
from msgspec import Struct

from gmpd.errors import ProtocolError
from gmpd.protocol.fields import (
    ADMIN,
    ADMIN_VERSION_MIN,
    MAGIC,
    VERSION,
    VERSION_MIN,
    Buffers,
    Info,
    Options,
    Refusal,
)
from gmpd.protocol.messages import (
    FromClient,
    FromWorker,
    Hello,
    Message,
    Refused,
    ToClient,
    ToWorker,
)


def kind_of(cls: type[Any]) -> int:
    """The first field of a message's array."""
    tag: int = cls.__struct_config__.tag
    return tag


class _Head(Struct, array_like=True):
    kind: int


class Direction:
    """Which messages may arrive on one kind of link: everything else is refused."""

    def __init__(self, name: str, messages: Any) -> None:
        self.name = name
        self.classes: dict[int, type[Any]] = {kind_of(cls): cls for cls in get_args(messages)}
        self._messages = messages

    @cached_property
    def decode(self) -> Any:
        """From a frame to a message; built on first use, as a process reads one direction."""
        return msgspec.msgpack.Decoder(self._messages).decode

    def explain(self, frame: Any, error: Exception) -> ProtocolError:
        """The fault of a frame, in words that name message and field."""
        if not isinstance(error, msgspec.ValidationError):
            return ProtocolError(f"not a message: {type(error).__name__}: {error}")
        try:
            kind = msgspec.msgpack.decode(frame, type=_Head).kind
        except Exception:  # noqa: BLE001 - whatever garbage makes of it
            return ProtocolError("not a message: no array that begins with a kind")
        cls = self.classes.get(kind)
        if cls is None:
            return ProtocolError(f"a {self.name} never sends kind {kind}")
        return ProtocolError(_in_words(cls, str(error)))


FROM_CLIENT = Direction("client", FromClient)
TO_CLIENT = Direction("coordinator", ToClient)
FROM_WORKER = Direction("worker", FromWorker)
TO_WORKER = Direction("coordinator", ToWorker)

_PATH = re.compile(r"(.*) - at (`key` in )?`\$\[(\d+)\](.*)`", re.DOTALL)


def _in_words(cls: type[Any], error: str) -> str:
    """msgspec's sentence, with the field's name for its place in the array."""
    found = _PATH.fullmatch(error)
    if found is None:
        return f"{cls.__name__}: {error}"
    what, key, at, path = found.groups()
    field = cls.__struct_fields__[int(at) - 1]
    return f"{cls.__name__}.{field}{path}: {what}{' as a key' if key else ''}"


_encode = msgspec.msgpack.Encoder().encode


def pack(message: Message) -> bytes:
    """The envelope frame of ``message``. Its content is not checked: the reader does that."""
    return _encode(message)


def pack_refusal(code: Refusal, reason: str) -> bytes:
    """A Refused of this side."""
    refused = Refused(VERSION_MIN, VERSION, reason, code)
    if code is Refusal.VERSION:  # in the form that every version reads
        return _encode((kind_of(Refused), VERSION_MIN, VERSION, reason))
    return _encode(refused)


def unpack(frame: Any, direction: Direction, buffers: int = 0) -> Any:
    """The message in an envelope frame, checked field by field; ``frames`` others came with it.

    Raises ProtocolError saying what is wrong; it never raises anything else, and allocates at most
    a small multiple of the frame's size.
    """
    decode = direction.decode
    try:
        message = decode(frame)
    except Exception as error:  # noqa: BLE001 - also RecursionError, when it nests too deeply
        raise direction.explain(frame, error) from None
    message.check()
    if buffers and not message.carries:
        raise ProtocolError(
            f"{type(message).__name__} came with {buffers} frames, it has no values"
        )
    return message


def split_buffers(counts: list[int] | None, rows: int, frames: Buffers) -> list[Buffers]:
    """Deal the frames after the envelope out to ``rows`` values.

    Raises ProtocolError when the counts and the frames disagree.
    """
    if counts is None:
        if frames:
            raise ProtocolError(f"{len(frames)} frames that no value claims")
        return [()] * rows
    if sum(counts) != len(frames):
        raise ProtocolError(f"{sum(counts)} buffers announced, {len(frames)} frames came")
    out: list[Buffers] = []
    at = 0
    for count in counts:
        out.append(frames[at : at + count])
        at += count
    return out


def join_buffers(buffers: Sequence[Buffers]) -> tuple[list[int] | None, list[Any]]:
    """The counterpart of split_buffers: ``(buffer_counts, frames)``."""
    if not any(buffers):
        return None, []
    return [len(each) for each in buffers], [frame for each in buffers for frame in each]


def hello(role: str, session: bytes, info: dict[str, Any]) -> Hello:
    """This side's Hello."""
    least = ADMIN_VERSION_MIN if role == ADMIN else VERSION_MIN
    return Hello(MAGIC, least, VERSION, role, session, Info(**info))


def options(wire: dict[str, Any] | None) -> Options | None:
    """Job options as they travel."""
    return None if wire is None else Options(**wire)


def drawing() -> str:
    """All messages by direction, in lines of 100 columns; a test compares the docstring above."""
    return "\n".join(
        _arrow(who, direction, to)
        for who, direction, to in (
            ("client", FROM_CLIENT, "───▶ coordinator"),
            ("client", TO_CLIENT, "◀─── coordinator"),
            ("worker", FROM_WORKER, "───▶ coordinator"),
            ("worker", TO_WORKER, "◀─── coordinator"),
        )
    )


def _arrow(who: str, direction: Direction, to: str) -> str:
    names = " ".join(cls.__name__ for cls in direction.classes.values())
    margin = " " * 6
    lines = textwrap.wrap(names, 90)
    return "\n".join([f"    {who} {to}", *(margin + line for line in lines)])


def agree(message: Hello) -> int:
    """The version to speak with this peer; ProtocolError naming both sides' when there is none.

    One that only asks is answered whatever its version: Hello, Welcome, Call, Reply, Gone and Bye
    have kept their forms.
    """
    if message.magic != MAGIC:
        raise ProtocolError(f"the peer speaks {message.magic[:32]!r}, not {MAGIC}")
    if message.role == ADMIN:
        return min(VERSION, message.version_max)
    version = min(VERSION, message.version_max)
    if version < max(VERSION_MIN, message.version_min):
        raise ProtocolError(
            f"the peer speaks protocol versions {message.version_min} to {message.version_max}, "
            f"this gmpd {VERSION_MIN} to {VERSION}: install the same gmpd on both sides"
        )
    return version
