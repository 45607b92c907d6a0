"""One ZeroMQ context per process, and the calls on its sockets that every link makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import zmq

Frame: TypeAlias = bytes | memoryview
Frames: TypeAlias = Sequence[Any]
#: Sends one frame: the frame, flags, whether it is copied.
Send: TypeAlias = Callable[[Any, int, bool], object]

#: Frames at least this large are handed to libzmq without a copy. Below it a copy (0.1 ms) costs
#: less than what pyzmq starts for the first such frame: a thread and a context of its own, with
#: seven descriptors, which the process keeps to its end. They cannot be closed with the last link:
#: pyzmq has them for all of the process, and would free what a socket of the user's still sends.
ZERO_COPY_BYTES = 1 << 20

# Plain ints: pyzmq's are enums, on which each "|" and "&" costs half a microsecond.
NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


class Network:
    """One ZeroMQ context: made and closed explicitly by the owner of the process's links.

    ``green``: its sockets give way to other greenlets where they wait (needs gevent).
    """

    def __init__(self, *, green: bool = False) -> None:
        self.context: zmq.Context[Any] = _green_context() if green else zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, min(65_536, self.context.get(zmq.SOCKET_LIMIT)))

    def close(self) -> None:
        """Close every socket at once; nothing lingers."""
        self.context.destroy(linger=0)

    def close_gently(self, linger_ms: int) -> None:
        """Close, giving sent messages up to ``linger_ms`` to leave."""
        self.context.destroy(linger=linger_ms)


def _green_context() -> Any:
    # Imported here: gevent is optional, and importing it starts its hub's machinery.
    import zmq.green

    return zmq.green.Context()


def number_of(socket: zmq.Socket[bytes], option: int) -> int:
    value = socket.getsockopt(option)
    assert isinstance(value, int)
    return value


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(socket.getsockopt(_EVENTS) & _POLLIN)  # type: ignore[operator]


def sender_of(socket: zmq.Socket[bytes]) -> Send:
    """``socket.send`` without a step of Python, which costs as much as the sending. A green socket
    keeps its own, which wakes greenlets."""
    send: Send = super(zmq.Socket, socket).send if type(socket) is zmq.Socket else socket.send
    return send


def send_frames(send: Send, frames: Frames) -> None:
    """The frames of a message, or those that are left of it."""
    last = len(frames) - 1
    for i in range(last):
        frame = frames[i]
        send(frame, MORE, len(frame) < ZERO_COPY_BYTES)
    frame = frames[last]
    send(frame, NOBLOCK, len(frame) < ZERO_COPY_BYTES)


def recv_rest(socket: zmq.Socket[bytes]) -> list[Any]:
    """The frames of a message, or those that are left of it."""
    frame = socket.recv(NOBLOCK, False)
    frames: list[Any] = [frame.buffer]
    while frame.more:
        frame = socket.recv(NOBLOCK, False)
        frames.append(frame.buffer)
    return frames
