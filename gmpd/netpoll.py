"""ZeroMQ, and the only module that imports it: links, their gatekeeper, and waiting for them.

Frames go in and out as ``bytes`` and ``memoryview``; what they mean is not known here (that is
``protocol``), nor who the peers are to the scheduler.

Three facts of libzmq shape this module. A ROUTER drops what it cannot deliver unless
``ROUTER_MANDATORY`` is set. A NULL-security socket accepts ZMTP 1 and 2 greetings, and so a
browser's POST, unless a ZAP domain is set. And the readiness of ``Socket.FD`` is edge-triggered
and consumed by *any* call on the socket, sends included: after each call the owner has to look at
``readable`` again before it sleeps on the descriptor.
"""

from __future__ import annotations

import os
import select
import socket as sockets
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import zmq

from gmpd.errors import ConfigError, DaemonUnreachable
from gmpd.timeouts import wait_ms, wait_s

Frame: TypeAlias = bytes | memoryview
Frames: TypeAlias = Sequence[Any]

#: Frames at least this large are handed to libzmq without a copy. Below it a copy (0.1 ms) costs
#: less than what pyzmq starts for the first such frame: a thread and a context of its own.
ZERO_COPY_BYTES = 1 << 20

#: Whole messages that wait inside libzmq per peer. Ours are batches of up to thousands of jobs and
#: credit bounds them, so this is only what a misbehaving peer may pile up before its kernel
#: buffer pushes back.
RECV_MESSAGES_MAX = 64

#: A peer that does not finish the ZMTP handshake in this many ms is dropped (libzmq: 30,000).
HANDSHAKE_MS = 5_000

#: Connections that wait in the kernel to be accepted, and are accepted yet when the door is shut
#: (libzmq: 100). Who finds the line full tries again after RECONNECT_IVL.
BACKLOG = 32

#: How long a listening socket that closes waits for its doorman, seconds: some lines of Python.
DOORMAN_S = 5.0

#: The ZAP domain of every listening socket. Any non-empty name will do: setting one is what makes
#: libzmq ask the gatekeeper, and refuse greetings that are older than ZMTP 3.
ZAP_DOMAIN = b"gmpd"

# Plain ints: pyzmq's are enums, on which each "|" and "&" costs half a microsecond.
_NOBLOCK, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
#: What a monitor says first: event and value (zmq_socket_monitor(3)). pyzmq's own reader of it
#: imports asyncio: 3 MB and 10 ms that the coordinator does not need.
_EVENT = struct.Struct("=HI")
_ACCEPTED = int(zmq.Event.ACCEPTED)
_DROPPED = int(zmq.Event.DISCONNECTED)
_BAD_HANDSHAKE = int(
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)
_STOPPED = int(zmq.Event.MONITOR_STOPPED)
#: Ends the name of a socket's file while its door is shut.
_SHUT = ".shut"


class Network:
    """One ZeroMQ context: made and closed explicitly by whoever owns the process's links.

    ``green``: its sockets give way to other greenlets where they wait (needs gevent).
    """

    def __init__(self, *, green: bool = False) -> None:
        self.context: zmq.Context[Any] = _green_context() if green else zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, min(65_536, self.context.get(zmq.SOCKET_LIMIT)))

    def close(self) -> None:
        """Close every socket at once; nothing lingers."""
        self.context.destroy(linger=0)

    def close_gently(self, linger_ms: int) -> None:
        """Close, giving what was sent up to ``linger_ms`` to leave."""
        self.context.destroy(linger=linger_ms)


class Dealer:
    """The connecting end of a link: clients and workers. Not for two threads at once."""

    def __init__(
        self, network: Network, endpoint: str, *, value_bytes: int = -1, linger_ms: int = 0
    ) -> None:
        socket = network.context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, linger_ms)
        socket.set(zmq.SNDHWM, 0)  # bounded by the window of jobs, in the application
        socket.set(zmq.RCVHWM, 0)  # bounded by the credit given to the peer
        socket.set(zmq.MAXMSGSIZE, value_bytes)
        socket.set(zmq.RECONNECT_IVL, 20)  # ms: a daemon that is just binding is found at once
        self._monitor = socket.get_monitor_socket(_DROPPED)
        self._socket = socket
        self.endpoint = endpoint
        socket.connect(os.fsencode(endpoint))
        self.fd = _number(socket, zmq.FD)
        self.monitor_fd = _number(self._monitor, zmq.FD)
        self._waiting = iter(partial(socket.recv, _NOBLOCK, False), None)

    def send(self, frames: Frames) -> None:
        """Queue one message; never blocks (there is no limit here, the window is the limit)."""
        _send(self._socket, frames)

    def recv(self) -> list[Any] | None:
        """One message, or None when none waits."""
        if not self.readable:
            return None
        return _rest(self._socket)

    def take(self, inbox: deque[Any]) -> None:
        """Append all frames that wait; each has ``.buffer``, and ``.more`` if another follows.

        One C call moves them, so an exception thrown into this thread (Ctrl-C) finds each frame
        still in libzmq or already in ``inbox``: none is lost between the two.
        """
        try:
            inbox.extend(self._waiting)
        except zmq.Again:
            pass

    @property
    def readable(self) -> bool:
        """Whether a message waits: to be asked after every other call before sleeping on ``fd``."""
        return _readable(self._socket)

    def wait(self, timeout_s: float) -> bool:
        """Block this thread until a message waits; for a day at most."""
        return bool(self._socket.poll(wait_ms(timeout_s)))

    def take_disconnect(self) -> bool:
        """Whether the peer's end has been closed since the last question."""
        lost = False
        while _readable(self._monitor):
            self._monitor.recv_multipart(_NOBLOCK)
            lost = True
        return lost

    def close(self, linger_ms: int = 0) -> None:
        """Close; what was sent is still delivered for up to ``linger_ms``."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(linger_ms)


class Router:
    """The listening end: many peers, each known by the routing id of its connection.

    ``unreachable`` counts messages for peers that are gone; ``bad_handshakes`` peers that never got
    as far as a message (garbage, HTTP, another user). ``connections_max``: with so many connections
    its door is shut, see ``Doorman``; None: nobody counts them. ``messages_max``: with so many
    waiting inside libzmq for one peer that does not read, it counts as gone; 0: no limit.
    """

    def __init__(
        self,
        network: Network,
        endpoint: str,
        *,
        value_bytes: int = -1,
        connections_max: int | None = None,
        messages_max: int = 0,
    ) -> None:
        socket = network.context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.SNDHWM, messages_max)
        socket.set(zmq.RCVHWM, RECV_MESSAGES_MAX)
        socket.set(zmq.MAXMSGSIZE, value_bytes)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.BACKLOG, BACKLOG)
        socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        self.doorman: Doorman | None = None
        self._socket = socket
        self._last: memoryview | None = None
        self._disconnects = 0
        self.fd = _number(socket, zmq.FD)
        self.stirred = True
        self.endpoint = endpoint
        self._bound = 0, 0
        self.unreachable = 0
        try:
            if connections_max is not None:
                self.doorman = Doorman(socket, endpoint, connections_max)
            self._bind()
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot listen on {endpoint}: {error.strerror}") from None

    @property
    def is_there(self) -> bool:
        """Whether its file is the one that it has bound, or has another name for a while."""
        return self.is_shut or _inode_at(self.endpoint) == self._bound

    def bind_again(self) -> None:
        """Its file was removed: who is connected notices nothing, and others find it again.

        By a second listener. The first goes on without a file: its end would be the end of all
        connections that it has accepted.
        """
        try:
            self._bind()
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot listen on {self.endpoint}: {error.strerror}") from None

    def _bind(self) -> None:
        _bind_private(self._socket, self.endpoint)
        self._bound = _inode_at(self.endpoint)
        self.stirred = True

    def send(self, peer: bytes, frames: Frames) -> bool:
        """Queue one message for a peer; False (and counted) when it is not there any more."""
        self.stirred = True
        try:
            self._socket.send(peer, _MORE)
            _send(self._socket, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.unreachable += 1
            return False
        return True

    def recv(self) -> tuple[bytes, list[Any]] | None:
        """One message with its sender's routing id, or None when none waits."""
        # Asking is 1 us; an Again raised and caught is 3, and there is one in every turn.
        if not self.readable:
            return None
        self.stirred = True
        # Copied, which for a few bytes is cheaper than a view; a message always follows.
        peer = self._socket.recv(_NOBLOCK)
        frames = _rest(self._socket)
        self._last = frames[0]
        return peer, frames

    @property
    def readable(self) -> bool:
        """Whether a message waits; see ``Source``."""
        found = _readable(self._socket)
        self.stirred = found
        return found

    def take_disconnects(self) -> bool:
        """Whether connections have ended since the last question (of whom, nobody can say)."""
        if self.doorman is None:
            return False
        before, self._disconnects = self._disconnects, self.doorman.hear()
        return self._disconnects != before

    @property
    def bad_handshakes(self) -> int:
        return 0 if self.doorman is None else self.doorman.bad_handshakes

    @property
    def connections(self) -> int:
        return 0 if self.doorman is None else len(self.doorman)

    @property
    def is_shut(self) -> bool:
        """Whether nobody can connect, for there are too many connections."""
        return self.doorman is not None and self.doorman.is_shut

    def greet(self) -> None:
        """The sender of the last message is welcome: ``turn_out`` is not for it."""
        if self.doorman is not None and self._last is not None:
            frame: Any = self._last.obj
            self.doorman.greeted(int(frame.get(zmq.SRCFD)))

    def last_connection(self) -> Connection:
        """The connection that the last message came over; for ``cut``."""
        assert self._last is not None
        frame: Any = self._last.obj
        fd = int(frame.get(zmq.SRCFD))
        return Connection(fd, _inode(fd))

    def cut(self, connection: Connection) -> None:
        """End a connection, unless it has ended."""
        _cut(*connection)

    def turn_out(self, before_ns: int) -> None:
        """End the connections of who came before that time and was not greeted."""
        if self.doorman is not None:
            self.doorman.turn_out(before_ns)

    def close(self, linger_ms: int = 0) -> None:
        """Close and remove the socket's file; what was sent has ``linger_ms`` to leave."""
        if not self._socket.closed:
            if self.doorman is not None:
                self.doorman.close()
            self._socket.close(linger_ms)
        _remove(self.endpoint)


class Connection(NamedTuple):
    """One connection of a Router: libzmq's descriptor, and the inode that tells it from a later
    one of the same number."""

    fd: int
    inode: int


class _Met(NamedTuple):
    """A connection: the number of its socket's inode, and since when (ns) it is there."""

    inode: int
    since_ns: int


class Doorman:
    """Watches the connections of a listening socket, and shuts its door when there are too many.

    In a thread of its own: libzmq accepts whoever knocks, in its own thread too, and aborts the
    process when no descriptor is left; a busy owner would come too late. Shut, the socket's file
    has another name: who connects finds nothing, and who is there already notices nothing.
    ``fd`` is readable when something has changed.
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, limit: int) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.bad_handshakes = 0
        self.disconnects = 0
        self.is_shut = False
        self._path = endpoint.removeprefix("ipc://") if endpoint.startswith("ipc://") else ""
        self._limit = limit
        self._met: dict[int, _Met] = {}
        #: Inodes of those who said who they are; that may be known before the connection is.
        self._known: set[int] = set()
        self._socket = socket
        events = _ACCEPTED | _DROPPED | _BAD_HANDSHAKE | _STOPPED
        self._monitor = socket.get_monitor_socket(events)
        self._thread = threading.Thread(target=self._watch, name="gmpd-door", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._met)

    def _watch(self) -> None:
        while True:
            number, fd = _EVENT.unpack(self._monitor.recv_multipart()[0])
            if number == _STOPPED:
                break
            if number == _ACCEPTED:
                self._came(fd)
            elif number == _DROPPED:
                self._left(fd)
            else:
                self.bad_handshakes += 1
        self._monitor.close(0)

    def _came(self, fd: int) -> None:
        self._met[fd] = _Met(_inode(fd), time.monotonic_ns())
        if not self.is_shut and len(self._met) >= self._limit and self._path:
            self.is_shut = _renamed(self._path, self._path + _SHUT)
            os.eventfd_write(self.fd, 1)

    def _left(self, fd: int) -> None:
        met = self._met.pop(fd, None)
        if met is not None:
            self._known.discard(met.inode)
        if self.is_shut and len(self._met) < self._limit * 7 // 8:
            self.is_shut = not _renamed(self._path + _SHUT, self._path)
        self.disconnects += 1
        os.eventfd_write(self.fd, 1)

    def hear(self) -> int:
        """Make ``fd`` unreadable; how many connections have ended so far."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        return self.disconnects

    def greeted(self, fd: int) -> None:
        """Who is at this connection has said who it is."""
        self._known.add(_inode(fd))

    def turn_out(self, before_ns: int) -> None:
        """End connections older than that of those who did not."""
        for fd, met in list(self._met.items()):
            if met.since_ns < before_ns and met.inode not in self._known:
                _cut(fd, met.inode)

    def close(self) -> None:
        """Before the socket is closed."""
        self._socket.disable_monitor()
        self._thread.join(DOORMAN_S)
        os.close(self.fd)
        if self.is_shut:
            _remove(f"ipc://{self._path}{_SHUT}")


def _renamed(old: str, new: str) -> bool:
    """Whether it could be; somebody may have removed the whole directory."""
    try:
        os.rename(old, new)
    except OSError:
        return False
    return True


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:  # it was closed just now
        return 0


def _cut(fd: int, inode: int) -> None:
    """End the connection whose descriptor libzmq has; its number may be another's by now."""
    try:
        own = os.dup(fd)
    except OSError:
        return
    try:
        status = os.fstat(own)
        if status.st_ino == inode and stat.S_ISSOCK(status.st_mode):
            with sockets.socket(fileno=os.dup(own)) as connection:
                connection.shutdown(sockets.SHUT_RDWR)
    except OSError:  # the other end has gone meanwhile
        pass
    finally:
        os.close(own)


class Gatekeeper:
    """ZAP (ZeroMQ RFC 27): who may connect. Over ipc only this user's own processes.

    The kernel tells libzmq the peer's uid; a socket's file mode alone is not relied upon.
    """

    def __init__(self, network: Network, uid: int | None = None) -> None:
        self.uid = os.getuid() if uid is None else uid
        self.refused = 0
        self._socket = network.context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(_ZAP_ENDPOINT)
        self.fd = _number(self._socket, zmq.FD)
        self.stirred = True

    def answer(self) -> None:
        """Answer every waiting question."""
        while self.readable:
            self._answer_one(self._socket.recv_multipart(_NOBLOCK))

    @property
    def readable(self) -> bool:
        """Whether a question waits; see ``Source``."""
        self.stirred = found = _readable(self._socket)
        return found

    def _answer_one(self, frames: list[bytes]) -> None:
        # [route, empty, version, request id, domain, address, identity, mechanism, ...]
        if len(frames) < 8 or frames[2] != b"1.0":
            self.refused += 1
            return
        allowed = self.allows(frames[5].decode("ascii", "replace"), frames[7])
        self.refused += not allowed
        status = (b"200", b"OK") if allowed else (b"400", b"not this user's process")
        self._socket.send_multipart([*frames[:2], b"1.0", frames[3], *status, b"", b""])

    def allows(self, address: str, mechanism: bytes) -> bool:
        """Whether a peer at ``address`` (ipc: ``localhost:uid:gid:pid``) may come in."""
        parts = address.split(":")
        return mechanism == b"NULL" and len(parts) >= 4 and parts[-3] == str(self.uid)

    def close(self) -> None:
        self._socket.close(0)


class Source(Protocol):
    """A link that a Poller can wait for.

    ``stirred``: something was done to its socket since ``readable`` was last False, so its
    descriptor's edge may be used up: ask before sleeping.
    """

    fd: int
    stirred: bool

    @property
    def readable(self) -> bool: ...


class Poller:
    """Waits for links and plain descriptors; ``wait`` gives back the keys of those that are ready.

    An epoll of the links' descriptors, not ``zmq_poll``, which asks every socket twice.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, Any] = {}
        self._links: list[Source] = []

    def add(self, key: Any, source: Source | int) -> None:
        """``source``: a link of this module, or a file descriptor; ``key`` names it."""
        if isinstance(source, int):
            fd = source
            self._epoll.register(fd, select.EPOLLIN)
        else:
            fd = source.fd
            # Edge-triggered: a descriptor of libzmq stays readable until its socket is asked, and
            # one that has nothing for us would keep a level-triggered epoll awake.
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
            self._links.append(source)
        self._keys[fd] = key

    def remove(self, fd: int) -> None:
        """Wait no longer for a file descriptor; before it is closed."""
        self._epoll.unregister(fd)
        del self._keys[fd]

    def wait(self, timeout_s: float | None) -> list[Any]:
        """Keys that are ready; ``timeout_s`` None waits for ever, a number for a day at most."""
        keys = self._keys
        waiting = [keys[link.fd] for link in self._links if link.stirred and link.readable]
        # Rounded up by epoll: a deadline that is 0.4 ms away must not become a loop of 0 ms waits.
        if timeout_s is not None:
            timeout_s = wait_s(timeout_s)
        found = self._epoll.poll(0 if waiting else timeout_s, len(keys) + 1)
        for fd, _ in found:
            if (key := keys[fd]) not in waiting:
                waiting.append(key)
        return waiting

    def close(self) -> None:
        self._epoll.close()


def probe(endpoint: str, frames: Frames, timeout_s: float) -> list[Any]:
    """Ask one question on a link of its own: for commands that check on a daemon.

    Raises DaemonUnreachable when no answer comes within ``timeout_s`` seconds.
    """
    network = Network()
    try:
        link = Dealer(network, endpoint)
        link.send(frames)
        if not link.wait(timeout_s):
            raise DaemonUnreachable(f"nothing answered at {endpoint} within {timeout_s:g} s")
        return link.recv() or []
    finally:
        network.close()


def _green_context() -> Any:
    # Imported here: gevent is optional, and importing it starts its hub's machinery.
    import zmq.green

    return zmq.green.Context()


def _bind_private(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind under a umask that makes the socket's file this user's alone from the first moment."""
    _remove(endpoint)
    before = os.umask(0o177)
    address: Any = os.fsencode(endpoint)  # a path may be any bytes
    try:
        socket.bind(address)
    finally:
        os.umask(before)


def _inode_at(endpoint: str) -> tuple[int, int]:
    """What names the file of an ipc endpoint; (0, 0) when there is none, or it is no ipc."""
    try:
        info = os.stat(endpoint.removeprefix("ipc://"), follow_symlinks=False)
    except OSError:
        return 0, 0
    return info.st_dev, info.st_ino


def _remove(endpoint: str) -> None:
    """Remove an ipc endpoint's file. The caller holds the runtime directory's lock."""
    if endpoint.startswith("ipc://"):
        try:
            os.unlink(endpoint.removeprefix("ipc://"))
        except FileNotFoundError:
            pass


def _number(socket: zmq.Socket[bytes], option: int) -> int:
    value = socket.getsockopt(option)
    assert isinstance(value, int)
    return value


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(socket.getsockopt(_EVENTS) & _POLLIN)  # type: ignore[operator]


def _send(socket: zmq.Socket[bytes], frames: Frames) -> None:
    last = len(frames) - 1
    for i, frame in enumerate(frames):
        flags = _MORE if i < last else _NOBLOCK
        socket.send(frame, flags, copy=len(frame) < ZERO_COPY_BYTES)


def _rest(socket: zmq.Socket[bytes]) -> list[Any]:
    """The frames of a message, or those that are left of it."""
    frame = socket.recv(_NOBLOCK, False)
    frames: list[Any] = [frame.buffer]
    while frame.more:
        frame = socket.recv(_NOBLOCK, False)
        frames.append(frame.buffer)
    return frames
