"""The connections of a listening socket, as libzmq's monitor reports them, and their limit."""

from __future__ import annotations

import os
import socket as sockets
import stat
import struct
import threading
import time
from typing import NamedTuple

import zmq

from gmpd.netpoll.files import remove_file, rename_file

#: How long a listening socket that closes waits for its monitor's thread, seconds: some lines of
#: Python.
MONITOR_END_S = 5.0

#: A monitor's first frame: event and value (zmq_socket_monitor(3)). pyzmq's own reader of it
#: imports asyncio: 3 MB and 10 ms that the coordinator does not need.
_EVENT = struct.Struct("=HI")
_ACCEPTED = int(zmq.Event.ACCEPTED)
DROPPED = int(zmq.Event.DISCONNECTED)
#: Of a connecting end: the handshake has succeeded; the other end refuses this one's key.
GREETED = int(zmq.Event.HANDSHAKE_SUCCEEDED)
BAD_KEY = int(zmq.Event.HANDSHAKE_FAILED_AUTH)
BAD_HANDSHAKE = BAD_KEY | int(
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
)
_STOPPED = int(zmq.Event.MONITOR_STOPPED)
#: Ends the name of a socket's file while new connections are refused.
_SHUT = ".shut"


class Connection(NamedTuple):
    """One connection of a Router: libzmq's descriptor, and the inode that tells it from a later
    one of the same number."""

    fd: int
    inode: int


class _Accepted(NamedTuple):
    """A connection: the number of its socket's inode, and since when (ns) it is there."""

    inode: int
    since_ns: int


class ConnectionMonitor:
    """Watches the connections of a listening socket, and refuses new ones at the limit.

    In a thread of its own: libzmq accepts every connection, in its own thread too, and aborts the
    process when no descriptor is left; a busy owner would come too late. While it refuses, the
    socket's file has another name: new connects get ENOENT, established connections are unaffected.
    A TCP socket has no file, so there one connection too many ends the oldest whose peer has not
    identified itself: a flood of strangers keeps no client out that shows its key soon.
    ``fd`` is readable when a connection came or went.
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, limit: int) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.bad_handshakes = 0
        self.disconnects = 0
        self.is_refusing = False
        self._path = endpoint.removeprefix("ipc://") if endpoint.startswith("ipc://") else ""
        self._limit = limit
        self._accepted: dict[int, _Accepted] = {}
        #: Inodes of peers that identified themselves; the Hello may come before the event.
        self._identified: set[int] = set()
        self._socket = socket
        events = _ACCEPTED | DROPPED | BAD_HANDSHAKE | _STOPPED
        self._monitor = socket.get_monitor_socket(events)
        self._thread = threading.Thread(target=self._watch, name="gmpd-monitor", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._accepted)

    def _watch(self) -> None:
        while True:
            number, fd = event_of(self._monitor.recv_multipart()[0])
            if number == _STOPPED:
                break
            if number == _ACCEPTED:
                self._on_accepted(fd)
            elif number == DROPPED:
                self._on_disconnected(fd)
            else:
                self.bad_handshakes += 1
        self._monitor.close(0)

    def _on_accepted(self, fd: int) -> None:
        self._accepted[fd] = _Accepted(inode_of(fd), time.monotonic_ns())
        if len(self._accepted) >= self._limit and not self._path:
            self._end_oldest()
        elif len(self._accepted) >= self._limit and not self.is_refusing:
            self.is_refusing = rename_file(self._path, self._path + _SHUT)
            os.eventfd_write(self.fd, 1)

    def _end_oldest(self) -> None:
        """End the oldest connection that has not identified itself; the newest if all have."""
        ages = list(self._accepted.items())
        strangers = [each for each in ages if each[1].inode not in self._identified]
        fd, accepted = strangers[0] if strangers else ages[-1]
        del self._accepted[fd]
        shut_down(fd, accepted.inode)

    def _on_disconnected(self, fd: int) -> None:
        accepted = self._accepted.pop(fd, None)
        if accepted is not None:
            self._identified.discard(accepted.inode)
        if self.is_refusing and len(self._accepted) < self._limit * 7 // 8:
            self.is_refusing = not rename_file(self._path + _SHUT, self._path)
        self.disconnects += 1
        os.eventfd_write(self.fd, 1)

    def take_disconnects(self) -> int:
        """Make ``fd`` unreadable; how many connections have ended so far."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        return self.disconnects

    def identified(self, fd: int) -> None:
        """The peer of this connection has identified itself."""
        self._identified.add(inode_of(fd))

    def drop_unidentified(self, before_ns: int) -> None:
        """End connections older than that whose peers did not identify themselves."""
        for fd, accepted in list(self._accepted.items()):
            if accepted.since_ns < before_ns and accepted.inode not in self._identified:
                shut_down(fd, accepted.inode)

    def close(self) -> None:
        """Before the socket is closed."""
        self._socket.disable_monitor()
        self._thread.join(MONITOR_END_S)
        os.close(self.fd)
        if self.is_refusing:
            remove_file(f"ipc://{self._path}{_SHUT}")


def event_of(frame: bytes) -> tuple[int, int]:
    """Number and value of a monitor's event, from its first frame."""
    number, value = _EVENT.unpack(frame)
    return number, value


def inode_of(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:  # it was closed just now
        return 0


def shut_down(fd: int, inode: int) -> None:
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
