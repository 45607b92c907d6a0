"""The two ends of a link: ``Dealer`` connects, ``Router`` listens."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import zmq

from gmpd.errors import ConfigError, DaemonUnreachable
from gmpd.netpoll.curve import CurveKeys, be_client, be_server
from gmpd.netpoll.files import inode_at, remove_file
from gmpd.netpoll.lane import LANES_MAX, Lane, new_lane, sweep
from gmpd.netpoll.monitor import (
    BAD_HANDSHAKE,
    BAD_KEY,
    DROPPED,
    GREETED,
    Connection,
    ConnectionMonitor,
    event_of,
    inode_of,
    shut_down,
)
from gmpd.netpoll.sockets import (
    MORE,
    NOBLOCK,
    Frames,
    Network,
    is_readable,
    number_of,
    recv_rest,
    send_frames,
    sender_of,
)
from gmpd.netpoll.zap import LOCAL, NETWORK
from gmpd.timeouts import wait_ms

#: Whole messages that wait inside libzmq per peer. Ours are batches of up to thousands of jobs and
#: credit bounds them, so this is only what a misbehaving peer may pile up before its kernel
#: buffer pushes back.
RECV_MESSAGES_MAX = 64

#: A peer that does not finish the ZMTP handshake in this many ms is dropped (libzmq: 30,000).
HANDSHAKE_MS = 5_000

#: Connections that wait in the kernel, and are accepted even at the limit (libzmq: 100). A peer
#: that finds this queue full tries again after RECONNECT_IVL.
BACKLOG = 32

#: The longest pause of a link that was renewed between two attempts to connect (ms).
RECONNECT_MAX_MS = 500


class Single(NamedTuple):
    """The frame of a message that came over a lane, as ``Dealer.take`` gives it."""

    buffer: bytes
    more: bool = False


class Dealer:
    """The connecting end of a link: clients and workers. Not for two threads at once.

    ``keys``: of a client on another machine.
    """

    def __init__(
        self,
        network: Network,
        endpoint: str,
        *,
        value_bytes: int = -1,
        linger_ms: int = 0,
        keys: CurveKeys | None = None,
    ) -> None:
        self._network = network
        self._value_bytes = value_bytes
        self._linger_ms = linger_ms
        self._keys = keys
        self.endpoint = endpoint
        #: The second way of small messages, if there is one.
        self.lane: Lane | None = None
        #: Messages that were taken and not returned.
        self._ready: deque[list[Any]] = deque()
        self._open(0)

    def offer_lane(self) -> bytes:
        """The name of this end of a lane, to be in the message that is sent next, the first one;
        empty where there can be none."""
        self.lane = new_lane(self.endpoint) if self.endpoint.startswith("ipc://") else None
        return b"" if self.lane is None else self.lane.name

    def open_lane(self, name: bytes) -> int | None:
        """The first message that has come names the other end; the descriptor of the lane, to be
        watched beside the link's, or None if there is no lane."""
        lane = self.lane
        if lane is not None and lane.connect(name) and lane.greet():
            return lane.fd
        self._drop_lane()
        return None

    def borrow(self) -> None:
        """The peer lends descriptors over its lane: a message's second frame is its descriptor."""
        if self.lane is not None:
            self.lane.borrow()

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors by which messages are told: the link's, and that of an open lane."""
        lane = self.lane
        return (self.fd,) if lane is None or not lane.is_open else (self.fd, lane.fd)

    def _drop_lane(self) -> None:
        lane, self.lane = self.lane, None
        self._ready.clear()
        if lane is not None:
            lane.close()

    def _open(self, pause_max_ms: int) -> None:
        socket = self._network.context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, self._linger_ms)
        socket.set(zmq.SNDHWM, 0)  # bounded by the window of jobs, in the application
        socket.set(zmq.RCVHWM, 0)  # bounded by the credit given to the peer
        socket.set(zmq.MAXMSGSIZE, self._value_bytes)
        socket.set(zmq.RECONNECT_IVL, 20)  # ms: a daemon that is just binding is found at once
        socket.set(zmq.RECONNECT_IVL_MAX, pause_max_ms)
        watched = DROPPED
        if self._keys is not None:
            be_client(socket, self._keys)
            watched |= GREETED | BAD_HANDSHAKE
        self._monitor = socket.get_monitor_socket(watched)
        #: The other end has passed the handshake; without keys it has none to pass.
        self._greeted = self._keys is None
        #: The daemon does not know this client's key; or something else went wrong.
        self.is_refused = self.is_misunderstood = False
        self._socket = socket
        socket.connect(os.fsencode(self.endpoint))
        self.fd = number_of(socket, zmq.FD)
        self.monitor_fd = number_of(self._monitor, zmq.FD)
        self._waiting = iter(partial(socket.recv, NOBLOCK, False), None)
        self._send = sender_of(socket)

    def renew(self) -> None:
        """Begin anew, with other descriptors: what was queued for the last peer is dropped, as the
        next one must not get it. It connects as soon as a peer listens."""
        self.close()
        self._open(RECONNECT_MAX_MS)

    def send(self, frames: Frames) -> bool:
        """Queue one message; never blocks (there is no limit here, the window is the limit).
        Whether ``readable`` has to be looked at again."""
        lane = self.lane
        if lane is not None:
            if len(frames) == 1 and lane.send(frames[0]):
                return False
            lane.sent += 1
        send_frames(self._send, frames)
        return True

    def recv(self, *, expected: bool = False) -> list[Any] | None:
        """One message, or None when none waits. ``expected``: as of ``Router.recv``."""
        if (frames := self.recv_lane()) is not None:
            return frames
        if not expected and not is_readable(self._socket):
            return None
        try:
            frames = recv_rest(self._socket)
        except zmq.Again:
            return None
        if self.lane is not None:
            self._ready.extend(map(self._of_lane, self.lane.take_all()))
            self._ready.append(frames)
            self.lane.heard += 1
            return self._ready.popleft()
        return frames

    def recv_lane(self) -> list[Any] | None:
        """One message, if it has come over the lane."""
        if self._ready:
            return self._ready.popleft()
        if self.lane is None or (data := self.lane.take()) is None:
            return None
        return self._of_lane(data)

    def _of_lane(self, data: bytes) -> list[Any]:
        """The frames of a message."""
        fd = self.lane.lent(data) if self.lane is not None else None
        return [data] if fd is None else [data, fd]

    def take(self, inbox: deque[Any]) -> None:
        """Append the frames of one message; each has ``.buffer``, and ``.more`` if another follows.

        One C call moves a frame, so an exception thrown into this thread (Ctrl-C) finds it still in
        libzmq or already in ``inbox``: it is not lost between the two.
        """
        lane, waiting = self.lane, self._waiting
        if lane is not None and (data := lane.take()) is not None:
            inbox.append(Single(data))
            return
        try:
            inbox.extend(islice(waiting, 1))
            while inbox and inbox[-1].more:
                inbox.extend(islice(waiting, 1))
        except zmq.Again:  # it costs 8 us: ``readable`` is asked before, for 2
            return
        if lane is not None and inbox:
            if older := lane.take_all():
                inbox.extend(map(Single, older))
                inbox.rotate(len(older))
            lane.heard += 1

    @property
    def readable(self) -> bool:
        """Whether a message waits: to be asked after every other call before sleeping on ``fd``."""
        if self._ready or (self.lane is not None and self.lane.has_message()):
            return True
        return is_readable(self._socket)

    def wait(self, timeout_s: float) -> bool:
        """Block this thread until a message waits; for a day at most. Before a lane is open."""
        return bool(self._socket.poll(wait_ms(timeout_s)))

    def take_disconnect(self) -> bool:
        """Whether the peer's end has been closed since the last question: all that it sent before
        is readable by then. Before a handshake has succeeded nothing was there to be closed."""
        lost = False
        while is_readable(self._monitor):
            event, _ = event_of(self._monitor.recv_multipart(NOBLOCK)[0])
            if event == GREETED:
                self._greeted, self.is_misunderstood = True, False
            elif event == DROPPED:
                lost = lost or self._greeted
            else:
                self.is_refused = self.is_refused or event == BAD_KEY
                self.is_misunderstood = True
        return lost

    def close(self, linger_ms: int = 0) -> None:
        """Close; sent messages are still delivered for up to ``linger_ms``."""
        self._drop_lane()
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(linger_ms)


class Router:
    """The listening end: many peers, each known by the routing id of its connection.

    ``bad_handshakes`` counts peers that never got as far as a message (garbage, HTTP, another
    user). ``connections_max``: the limit of connections, see ``ConnectionMonitor``; None: they are
    not counted. ``messages_max``: a peer that does not read, and for which this many messages wait
    inside libzmq, counts as gone; 0: no limit. ``secret``: it takes clients of other machines,
    which encrypt for this key.
    """

    def __init__(
        self,
        network: Network,
        endpoint: str,
        *,
        value_bytes: int = -1,
        connections_max: int | None = None,
        messages_max: int = 0,
        secret: bytes = b"",
    ) -> None:
        socket = network.context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.SNDHWM, messages_max)
        socket.set(zmq.RCVHWM, RECV_MESSAGES_MAX)
        socket.set(zmq.MAXMSGSIZE, value_bytes)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.BACKLOG, BACKLOG)
        socket.set(zmq.ZAP_DOMAIN, NETWORK if secret else LOCAL)
        if secret:
            be_server(socket, secret)
            socket.set(zmq.IPV6, "[" in endpoint)
        self.monitor: ConnectionMonitor | None = None
        self._socket = socket
        self._send = sender_of(socket)
        self._last: memoryview | None = None
        #: The sender of the last message.
        self.last_peer = b""
        #: The lanes by peer. These two watch a lane's descriptor, for as long as it is there.
        self._lanes: dict[bytes, Lane] = {}
        self.watch_lane: Callable[[Lane], object] | None = None
        self.unwatch_lane: Callable[[Lane], object] = _nothing
        #: Messages that were taken and not returned.
        self._ready: deque[tuple[bytes, list[Any]]] = deque()
        self._disconnects = 0
        self.fd = number_of(socket, zmq.FD)
        self.stirred = True
        self.endpoint = endpoint
        self._bound = 0, 0
        try:
            if connections_max is not None:
                self.monitor = ConnectionMonitor(socket, endpoint, connections_max)
            sweep(endpoint)
            self._bind()
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot listen on {endpoint}: {error.strerror}") from None

    @property
    def is_there(self) -> bool:
        """Whether its file is the one that it has bound, or has another name for a while."""
        return self.is_refusing or inode_at(self.endpoint) == self._bound

    def bind_again(self) -> None:
        """Its file was removed: restore it for new clients; connected ones are unaffected.

        By a second listener. The first continues without a file: its end would be the end of all
        connections that it has accepted.
        """
        try:
            self._bind()
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot listen on {self.endpoint}: {error.strerror}") from None

    def _bind(self) -> None:
        _bind_private(self._socket, self.endpoint)
        if not self.endpoint.startswith("ipc://"):  # a port 0 has got a number
            last: Any = self._socket.get(zmq.LAST_ENDPOINT)
            self.endpoint = last.decode().rstrip("\0")
        self._bound = inode_at(self.endpoint)
        self.stirred = True

    def open_lane(self, name: bytes) -> bytes:
        """The sender of the last message, its first one, has named its end of a lane: the name of
        this end, to be in the message that is sent to it next; empty if there is to be none."""
        if not name or self.watch_lane is None or len(self._lanes) >= LANES_MAX:
            return b""
        lane = new_lane(self.endpoint, heard=1)
        if lane is None or self.last_peer in self._lanes:
            return b""
        if not lane.connect(name):
            lane.close()
            return b""
        lane.peer, lane.frame = self.last_peer, self._last
        self._lanes[lane.peer] = lane
        self.watch_lane(lane)
        return lane.name

    def lane_of(self, peer: bytes) -> Lane | None:
        """The lane of a peer, if it has one."""
        return self._lanes.get(peer)

    def lend(self, peer: bytes, frame: bytes, lane: Lane) -> bool:
        """Send a message over a peer's lane, and with it the use of this end of ``lane``; False
        when that has no way."""
        own = self._lanes.get(peer)
        return own is not None and lane.is_open and own.lend(frame, lane.fd)

    def drop_lane(self, peer: bytes) -> None:
        """A peer's lane, if it has one, is not needed any more."""
        if (lane := self._lanes.pop(peer, None)) is not None:
            self.unwatch_lane(lane)
            lane.close()

    def recv_lane(self, lane: Lane) -> tuple[bytes, list[Any]] | None:
        """One message that has come over a lane, or None."""
        if self._ready:  # older ones, for ``recv``
            return None
        data = lane.take() if lane.is_open or lane.greet() else None
        if data is None:
            return None
        self._last, self.last_peer = lane.frame, lane.peer
        return lane.peer, [data]

    def send(self, peer: bytes, frames: Frames) -> bool:
        """Queue one message for a peer; False when it is not there any more."""
        if self._lanes and (lane := self._lanes.get(peer)) is not None:
            if len(frames) == 1 and lane.send(frames[0]):
                return True
            lane.sent += 1
        self.stirred = True
        try:
            self._send(peer, MORE, True)
            send_frames(self._send, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def recv(self, *, expected: bool = False) -> tuple[bytes, list[Any]] | None:
        """One message with its sender's routing id, or None when none waits.

        ``expected``: the descriptor was readable a moment ago, or ``readable`` was, so one waits
        almost always.
        """
        # Asking is 2 us, a system call among them; an Again raised and caught is 8, and would be in
        # every turn if none were asked before the last.
        if self._ready:
            return self._ready.popleft()
        if not expected and not self.readable:
            return None
        self.stirred = True
        # Copied, which for a few bytes is cheaper than a view; a message always follows.
        try:
            peer = self._socket.recv(NOBLOCK)
        except zmq.Again:
            return None
        frames = recv_rest(self._socket)
        self._last, self.last_peer = frames[0], peer
        if self._lanes and (lane := self._lanes.get(peer)) is not None:
            return self._in_order(lane, frames)
        return peer, frames

    def _in_order(self, lane: Lane, frames: list[Any]) -> tuple[bytes, list[Any]]:
        """A message has come over ZeroMQ from a peer with a lane: the first of all that come."""
        peer, ready = lane.peer, self._ready
        if lane.is_open or lane.greet():  # else nothing was sent over it before
            ready.extend((peer, [data]) for data in lane.take_all())
        ready.append((peer, frames))
        lane.heard += 1
        if lane.is_held:
            ready.extend((peer, [data]) for data in lane.take_all())
        return ready.popleft()

    @property
    def readable(self) -> bool:
        """Whether a message waits; see ``Source``."""
        if self._ready:
            return True
        found = is_readable(self._socket)
        self.stirred = found
        return found

    def take_disconnects(self) -> bool:
        """Whether connections have ended since the last call (libzmq does not say which)."""
        if self.monitor is None:
            return False
        before, self._disconnects = self._disconnects, self.monitor.take_disconnects()
        return self._disconnects != before

    @property
    def bad_handshakes(self) -> int:
        return 0 if self.monitor is None else self.monitor.bad_handshakes

    @property
    def connections(self) -> int:
        return 0 if self.monitor is None else len(self.monitor)

    @property
    def is_refusing(self) -> bool:
        """Whether new connections are refused because there are too many."""
        return self.monitor is not None and self.monitor.is_refusing

    def identified(self) -> None:
        """The sender of the last message has identified itself: ``drop_unidentified`` leaves it
        alone.
        """
        if self.monitor is not None and self._last is not None:
            frame: Any = self._last.obj
            self.monitor.identified(int(frame.get(zmq.SRCFD)))

    def last_connection(self) -> Connection:
        """The connection that the last message came over; for ``cut``."""
        assert self._last is not None
        frame: Any = self._last.obj
        fd = int(frame.get(zmq.SRCFD))
        return Connection(fd, inode_of(fd))

    def cut(self, connection: Connection) -> None:
        """End a connection, unless it has ended."""
        shut_down(*connection)

    def drop_unidentified(self, before_ns: int) -> None:
        """End connections older than that whose peers have not identified themselves."""
        if self.monitor is not None:
            self.monitor.drop_unidentified(before_ns)

    def close(self, linger_ms: int = 0) -> None:
        """Close and remove the socket's file; sent messages have ``linger_ms`` to leave."""
        for peer in list(self._lanes):
            self.drop_lane(peer)
        sweep(self.endpoint, ends=True)
        if not self._socket.closed:
            if self.monitor is not None:
                self.monitor.close()
            self._socket.close(linger_ms)
        remove_file(self.endpoint)


def _nothing(_lane: Lane) -> None:
    pass


def _bind_private(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind under a umask that makes the socket's file this user's alone from the first moment."""
    remove_file(endpoint)
    before = os.umask(0o177)
    address: Any = os.fsencode(endpoint)  # a path may be any bytes
    try:
        socket.bind(address)
    finally:
        os.umask(before)


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
