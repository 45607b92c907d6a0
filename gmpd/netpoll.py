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
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import zmq
from zmq.utils.monitor import parse_monitor_message

from gmpd.errors import ConfigError, DaemonUnreachable

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

#: The ZAP domain of every listening socket. Any non-empty name will do: setting one is what makes
#: libzmq ask the gatekeeper, and refuse greetings that are older than ZMTP 3.
ZAP_DOMAIN = b"gmpd"

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_DROPPED = zmq.Event.DISCONNECTED
_BAD_HANDSHAKE = (
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)


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
        socket.connect(endpoint)
        self.fd = _number(socket, zmq.FD)
        self.monitor_fd = _number(self._monitor, zmq.FD)
        self._waiting = iter(partial(socket.recv, zmq.NOBLOCK, False), None)

    def send(self, frames: Frames) -> None:
        """Queue one message; never blocks (there is no limit here, the window is the limit)."""
        _send(self._socket, frames)

    def recv(self) -> list[Any] | None:
        """One message, or None when none waits."""
        if not self.readable:
            return None
        first = self._socket.recv(zmq.NOBLOCK)
        return _rest(self._socket, first)

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
        return bool(_number(self._socket, zmq.EVENTS) & zmq.POLLIN)

    def wait(self, timeout_ms: int) -> bool:
        """Block this thread until a message waits."""
        return bool(self._socket.poll(timeout_ms))

    def take_disconnect(self) -> bool:
        """Whether the peer's end has been closed since the last question."""
        lost = False
        while _number(self._monitor, zmq.EVENTS) & zmq.POLLIN:
            self._monitor.recv_multipart(zmq.NOBLOCK)
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
    as far as a message (garbage, HTTP, another user).
    """

    def __init__(self, network: Network, endpoint: str, *, value_bytes: int = -1) -> None:
        socket = network.context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, RECV_MESSAGES_MAX)
        socket.set(zmq.MAXMSGSIZE, value_bytes)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        self.monitor = socket.get_monitor_socket(_DROPPED | _BAD_HANDSHAKE)
        self.socket = socket
        self.endpoint = endpoint
        self.unreachable = 0
        self.bad_handshakes = 0
        try:
            _bind_private(socket, endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot listen on {endpoint}: {error.strerror}") from None

    def send(self, peer: bytes, frames: Frames) -> bool:
        """Queue one message for a peer; False (and counted) when it is not there any more."""
        try:
            _send(self.socket, [peer, *frames])
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.unreachable += 1
            return False
        return True

    def recv(self) -> tuple[bytes, list[Any]] | None:
        """One message with its sender's routing id, or None when none waits."""
        # Asking is 1 us; an Again raised and caught is 7, and there is one in every turn.
        if not _number(self.socket, zmq.EVENTS) & zmq.POLLIN:
            return None
        peer = self.socket.recv(zmq.NOBLOCK)
        first = self.socket.recv() if self.socket.getsockopt(zmq.RCVMORE) else b""
        return peer, _rest(self.socket, first)

    def take_disconnects(self) -> bool:
        """Drain the monitor. True when some peer's connection ended (which one, it cannot say)."""
        ended = False
        while _number(self.monitor, zmq.EVENTS) & zmq.POLLIN:
            event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))["event"]
            if event == _DROPPED:
                ended = True
            else:
                self.bad_handshakes += 1
        return ended

    def close(self, linger_ms: int = 0) -> None:
        """Close and remove the socket's file; what was sent has ``linger_ms`` to leave."""
        if not self.socket.closed:
            self.socket.disable_monitor()
            self.monitor.close(0)
            self.socket.close(linger_ms)
        _remove(self.endpoint)


class Gatekeeper:
    """ZAP (ZeroMQ RFC 27): who may connect. Over ipc only this user's own processes.

    The kernel tells libzmq the peer's uid; a socket's file mode alone is not relied upon.
    """

    def __init__(self, network: Network, uid: int | None = None) -> None:
        self.uid = os.getuid() if uid is None else uid
        self.refused = 0
        self.socket = network.context.socket(zmq.ROUTER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(_ZAP_ENDPOINT)

    def answer(self) -> None:
        """Answer every waiting question."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._answer_one(frames)

    def _answer_one(self, frames: list[bytes]) -> None:
        # [route, empty, version, request id, domain, address, identity, mechanism, ...]
        if len(frames) < 8 or frames[2] != b"1.0":
            self.refused += 1
            return
        allowed = self.allows(frames[5].decode("ascii", "replace"), frames[7])
        self.refused += not allowed
        status = (b"200", b"OK") if allowed else (b"400", b"not this user's process")
        self.socket.send_multipart([*frames[:2], b"1.0", frames[3], *status, b"", b""])

    def allows(self, address: str, mechanism: bytes) -> bool:
        """Whether a peer at ``address`` (ipc: ``localhost:uid:gid:pid``) may come in."""
        parts = address.split(":")
        return mechanism == b"NULL" and len(parts) >= 4 and parts[-3] == str(self.uid)

    def close(self) -> None:
        self.socket.close(0)


class Poller:
    """Waits for sockets and plain descriptors; ``wait`` gives back the objects that are ready."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._objects: dict[Any, Any] = {}

    def add(self, key: Any, source: Any) -> None:
        """``source``: a zmq socket of this module, or a file descriptor; ``key`` names it."""
        self._poller.register(source, zmq.POLLIN)
        self._objects[source] = key

    def remove(self, source: Any) -> None:
        self._poller.unregister(source)
        del self._objects[source]

    def wait(self, timeout_s: float | None) -> list[Any]:
        """Keys that are ready; ``timeout_s`` None waits for ever. Signals end it early (empty)."""
        # Rounded up: a deadline that is 0.4 ms away must not become a busy loop of 0 ms waits.
        timeout_ms = None if timeout_s is None else max(0, int(timeout_s * 1000 + 0.999))
        return [self._objects[source] for source, _ in self._poller.poll(timeout_ms)]


def probe(endpoint: str, frames: Frames, timeout_s: float) -> list[Any]:
    """Ask one question on a link of its own: for commands that check on a daemon.

    Raises DaemonUnreachable when no answer comes within ``timeout_s`` seconds.
    """
    network = Network()
    try:
        link = Dealer(network, endpoint)
        link.send(frames)
        if not link.wait(int(timeout_s * 1000)):
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
    try:
        socket.bind(endpoint)
    finally:
        os.umask(before)


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


def _send(socket: zmq.Socket[bytes], frames: Frames) -> None:
    last = len(frames) - 1
    for i, frame in enumerate(frames):
        flags = zmq.NOBLOCK | (zmq.SNDMORE if i < last else 0)
        socket.send(frame, flags, copy=len(frame) < ZERO_COPY_BYTES)


def _rest(socket: zmq.Socket[bytes], first: bytes) -> list[Any]:
    frames: list[Any] = [first]
    while socket.getsockopt(zmq.RCVMORE):
        frames.append(socket.recv(copy=False).buffer)
    return frames
