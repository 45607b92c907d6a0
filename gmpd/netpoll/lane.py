"""A link's second way on one machine, for small messages: a pair of datagram sockets.

libzmq's own threads send and receive, so a message wakes three threads on its way, and the two in
between cost more than is done with most messages. A datagram wakes its receiver alone. It is read
by the thread that waits, so a lane is for peers that wait for its descriptor, too. Large messages,
and batches, go over ZeroMQ, whose threads work beside the sender.

**Order.** Messages of both ways arrive as they were sent. A datagram begins with the number of
messages that its sender has sent over ZeroMQ, and waits until as many have come. A message over
ZeroMQ comes after all datagrams that were sent before it: these are in the kernel's queue already,
and are taken first. A message that does not fit, or for which the queue is full, goes over ZeroMQ.

**Peers.** The dealer's Hello, over ZeroMQ, names its socket, a file in the directory of the link's.
The router connects one of its own to it, and names that in its Welcome. Once it has connected,
either end removes the file of the other, and the kernel takes datagrams of the two from each other
only. Files of ends that died before that go with the daemon. The first datagram of either side, its
greeting, proves by the kernel's word that the peer is this user's; a lane without it is not used.

**Lent.** A datagram may bring a descriptor: that of another lane's end, by which its receiver sends
to that lane's peer, too; in no order with the messages of the lane's owner.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import struct
from collections import deque
from typing import Any

#: The largest message that a lane takes: a job or two, or what is said about some.
LANE_BYTES = 512
#: Of a router: further peers have ZeroMQ alone, as a lane needs a descriptor.
LANES_MAX = 128
#: Datagrams that wait for a message over ZeroMQ are read, up to this many: those in the kernel's
#: queue would keep the descriptor readable, and their reader awake.
HELD_MAX = 4_096

_NAME_BYTES = 8
_FILE = re.compile("l-[0-9a-f]{16}")
_COUNT = struct.Struct("<Q")
_READ_BYTES = LANE_BYTES + _COUNT.size + 1
_CREDENTIALS = struct.Struct("3i")
_DESCRIPTOR = struct.Struct("i")
_DESCRIPTOR_BYTES = socket.CMSG_SPACE(_DESCRIPTOR.size)
#: Before a message that waits for none over ZeroMQ.
_UNORDERED = _COUNT.pack(0)


class Lane:
    """One end. ``endpoint``: of the link. ``sent`` and ``heard`` count its messages over ZeroMQ, in
    either direction."""

    def __init__(self, endpoint: str, sent: int = 0, heard: int = 0) -> None:
        self._directory = os.path.dirname(endpoint.removeprefix("ipc://"))
        self.sent, self.heard = sent, heard
        #: Whether messages may be sent; nothing is read before.
        self.is_open = False
        #: Of a router: the peer, and a frame of its connection.
        self.peer = b""
        self.frame: Any = None
        self.name = secrets.token_bytes(_NAME_BYTES)
        self._peer_name = b""
        #: Descriptors that came with messages that were not taken; None: none are taken.
        self._lent: dict[bytes, int] | None = None
        #: Datagrams that were read and not taken, the first of which may wait for a message over
        #: ZeroMQ.
        self._held: deque[bytes] = deque()
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.setblocking(False)  # gevent's sockets wait, whatever their kind
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind(self._path(self.name))
            os.chmod(self._path(self.name), 0o600)
        except OSError:
            self._socket.close()
            raise
        self.fd = self._socket.fileno()
        self._send, self._recv = self._socket.send, self._socket.recv

    def connect(self, name: bytes) -> bool:
        """Have the socket of this name as the peer; False when it is not there."""
        if len(name) != _NAME_BYTES:
            return False
        try:
            self._socket.connect(self._path(name))
            self._peer_name = name
            self._socket.send(self.name)
        except OSError:
            return False
        self._remove(name)
        return True

    def _path(self, name: bytes) -> str:
        return f"{self._directory}/l-{name.hex()}"

    def _remove(self, name: bytes) -> None:
        with contextlib.suppress(OSError):  # the other end, or the directory's owner, was first
            os.unlink(self._path(name))

    def greet(self) -> bool:
        """Look for the peer's greeting; whether it has come, now or before."""
        while not self.is_open:
            try:
                data, more, _, _ = self._socket.recvmsg(
                    _READ_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except OSError:
                return False
            # Before it was connected, other processes of this user could send to it.
            self.is_open = data == self._peer_name and _uid_in(more) == os.getuid()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        return True

    def send(self, message: bytes) -> bool:
        """Send a message, unless the lane does not take it."""
        if not self.is_open or len(message) > LANE_BYTES:
            return False
        try:
            self._send(_COUNT.pack(self.sent) + message)
        except OSError:  # full, or the peer has gone: ZeroMQ knows more about that
            return False
        return True

    def lend(self, message: bytes, fd: int) -> bool:
        """As ``send``, and the peer gets its own of the descriptor ``fd``."""
        if not self.is_open:
            return False
        try:
            self._socket.sendmsg(
                [_COUNT.pack(self.sent), message],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(fd))],
            )
        except OSError:
            return False
        return True

    def borrow(self) -> None:
        """The peer may lend descriptors, from now on."""
        self._lent = {}

    def lent(self, message: bytes) -> int | None:
        """The descriptor that came with a message, which is the caller's then."""
        return self._lent.pop(message, None) if self._lent else None

    def has_message(self) -> bool:
        """Whether ``take`` gives one."""
        held = self._held
        if not held and not self._read():
            return False
        if _COUNT.unpack_from(held[0])[0] <= self.heard:
            return True
        while len(held) < HELD_MAX and self._read():
            pass
        return False

    def take(self) -> bytes | None:
        """The next message, or None if none may be delivered now."""
        if not self.has_message():
            return None
        return self._held.popleft()[_COUNT.size :]

    def _read(self) -> bool:
        """Read one datagram, if there is one."""
        if not self.is_open:
            return False
        try:
            data = self._recv(_READ_BYTES) if self._lent is None else self._borrow(self._lent)
        except OSError:
            return False
        # One that is too short for a number has no message in it, and is refused as one.
        self._held.append(data if len(data) >= _COUNT.size else bytes(_COUNT.size))
        return True

    def _borrow(self, lent: dict[bytes, int]) -> bytes:
        """Read a datagram that may bring a descriptor: without it, if there is no room for one."""
        data, more, _, _ = self._socket.recvmsg(
            _READ_BYTES, _DESCRIPTOR_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, fds in more:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                (lent[data[_COUNT.size :]],) = _DESCRIPTOR.unpack_from(fds)
        return data

    @property
    def is_held(self) -> bool:
        """Whether a datagram waits for a message over ZeroMQ, or to be taken."""
        return bool(self._held)

    def take_all(self) -> list[bytes]:
        """All that may be delivered now."""
        found = []
        while (data := self.take()) is not None:
            found.append(data)
        return found

    def close(self) -> None:
        """Messages that were not taken are lost."""
        self.is_open = False
        self._held.clear()
        for fd in (self._lent or {}).values():
            os.close(fd)
        self._remove(self.name)
        self._socket.close()


class LentLane:
    """Another lane's end, for sending."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=fd)
        self._socket.setblocking(False)  # whatever a job has made the default
        self.fd = fd
        self._send = self._socket.send

    def send(self, message: bytes) -> bool:
        """As ``Lane.send``."""
        if len(message) > LANE_BYTES:
            return False
        try:
            self._send(_UNORDERED + message)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The descriptor of this process; the lane itself is its owner's."""
        with contextlib.suppress(OSError):  # a job may have closed every descriptor
            self._socket.close()


def new_lane(endpoint: str, sent: int = 0, heard: int = 0) -> Lane | None:
    """One end; None where this system has none, the path is too long, or no descriptor is left."""
    with contextlib.suppress(OSError):
        return Lane(endpoint, sent, heard)
    return None


def sweep(endpoint: str, *, ends: bool = False) -> None:
    """Remove the files of ends that died before the other one had connected. The caller holds the
    directory's lock, and is about to serve there: workers and clients may have been quicker, whose
    files are left. Or it ``ends``: then all go."""
    if not endpoint.startswith("ipc://"):
        return
    directory = os.path.dirname(endpoint.removeprefix("ipc://"))
    with contextlib.suppress(OSError):  # the directory may have been removed
        for name in filter(_FILE.fullmatch, os.listdir(directory)):
            path = f"{directory}/{name}"
            with contextlib.suppress(FileNotFoundError):
                if ends or not _lives(path):
                    os.unlink(path)


def _lives(path: str) -> bool:
    """Whether a socket is bound to this file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # it is connected to its peer already
            pass
    return True


def _uid_in(more: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in more:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(_CREDENTIALS.unpack_from(data)[1])
    return None
