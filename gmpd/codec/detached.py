"""Large values in frames of their own: bytes that no process on the way copies.

Inside an envelope, a value of 300 MB is copied at each packing and unpacking: six times between
a client and a worker, and the coordinator needs four times its size. Beside it, as a frame, it is
passed on as it came. A large ``bytes`` is its own frame: its sender copies nothing.

``data`` of such a value begins with two bytes that no other has, and one that says what it is.
Plain values are never detached: the command line reads ``data`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from gmpd.codec.pickles import Buffer

#: A frame costs some 10 us at each of four ends, as much as copying this many bytes.
LARGE = 128 * 1024

_MARK = b"\xc1\xc1"
#: The frame is a ``bytes``, a text in UTF-8, or what ``data`` would have been; ``data`` continues
#: with the arguments of a call, in which a number stands for each frame.
_BYTES, _TEXT, _DATA, _CALL = b"b", b"t", b"d", b"c"
_EXT_BYTES, _EXT_TEXT = 1, 2


def is_detached(data: Buffer) -> bool:
    """Whether the content of ``data`` is in separate frames."""
    return len(data) > len(_MARK) and bytes(data[: len(_MARK)]) == _MARK


def is_large(value: object, kind: type) -> bool:
    """Whether it is a ``bytes`` or text to be detached."""
    return (kind is bytes or kind is str) and len(value) > LARGE  # type: ignore[arg-type]


def scalar(value: bytes | str) -> tuple[bytes, tuple[Buffer, ...]]:
    """A large one. Raises UnicodeEncodeError for a text with lone surrogates."""
    if isinstance(value, bytes):
        return _MARK + _BYTES, (value,)
    return _MARK + _TEXT, (value.encode(),)


def call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bytes, tuple[Buffer, ...]]:
    """The arguments of a call, all scalars. Raises as msgpack does."""
    frames: list[Buffer] = []

    def detached(value: Any) -> Any:
        if not is_large(value, type(value)):
            return value
        text = type(value) is str
        frames.append(value.encode() if text else value)
        return msgpack.ExtType(_EXT_TEXT if text else _EXT_BYTES, len(frames).to_bytes(4, "big"))

    named = {key: detached(value) for key, value in kwargs.items()}
    data = msgpack.packb(([detached(value) for value in args], named))
    return _MARK + _CALL + data, tuple(frames)


def whole(data: bytes, buffers: tuple[Buffer, ...]) -> tuple[bytes, tuple[Buffer, ...]]:
    """The output of an encoder, with ``data`` as the first frame if it is large."""
    return (data, buffers) if len(data) <= LARGE else (_MARK + _DATA, (data, *buffers))


def read(data: Buffer, frames: Sequence[Buffer]) -> Any:
    """The value of ``scalar``; (args, kwargs) of ``call``; ``Rest`` of ``whole``.

    Raises ValueError, or msgpack's own error, when none of them made the data.
    """
    kind = bytes(data[len(_MARK) : len(_MARK) + 1])
    if kind == _DATA and frames:
        return Rest(frames[0], frames[1:])
    if kind == _BYTES and len(frames) == 1:
        return bytes(frames[0])
    if kind == _TEXT and len(frames) == 1:
        return str(frames[0], "utf-8")
    if kind == _CALL:
        return _read_call(data[len(_MARK) + 1 :], frames)
    raise ValueError(f"{len(frames)} frames came with a detached value of kind {kind!r}")


def _read_call(data: Buffer, frames: Sequence[Buffer]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def attached(code: int, number: bytes) -> Any:
        frame = frames[int.from_bytes(number, "big") - 1]
        return str(frame, "utf-8") if code == _EXT_TEXT else bytes(frame)

    args, kwargs = msgpack.unpackb(data, ext_hook=attached)
    return tuple(args), kwargs


class Rest:
    """The part that is still to be decoded."""

    __slots__ = ("buffers", "data")

    def __init__(self, data: Buffer, buffers: Sequence[Buffer]) -> None:
        self.data = data
        self.buffers = buffers
