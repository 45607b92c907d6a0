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

#: How long a listening socket that closes waits for its doorman, seconds: some lines of Python.
DOORMAN_S = 5.0

#: A monitor's first frame: event and value (zmq_socket_monitor(3)). pyzmq's own reader of it
#: imports asyncio: 3 MB and 10 ms that the coordinator does not need.
_EVENT = struct.Struct("=HI")
_ACCEPTED = int(zmq.Event.ACCEPTED)
DROPPED = int(zmq.Event.DISCONNECTED)
_BAD_HANDSHAKE = int(
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)
_STOPPED = int(zmq.Event.MONITOR_STOPPED)
#: Ends the name of a socket's file while its door is shut.
_SHUT = ".shut"


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

    In a thread of its own: libzmq accepts every connection, in its own thread too, and aborts the
    process when no descriptor is left; a busy owner would come too late. Shut, the socket's file
    has another name: new connects get ENOENT, established connections are unaffected.
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
        events = _ACCEPTED | DROPPED | _BAD_HANDSHAKE | _STOPPED
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
            elif number == DROPPED:
                self._left(fd)
            else:
                self.bad_handshakes += 1
        self._monitor.close(0)

    def _came(self, fd: int) -> None:
        self._met[fd] = _Met(inode_of(fd), time.monotonic_ns())
        if not self.is_shut and len(self._met) >= self._limit and self._path:
            self.is_shut = rename_file(self._path, self._path + _SHUT)
            os.eventfd_write(self.fd, 1)

    def _left(self, fd: int) -> None:
        met = self._met.pop(fd, None)
        if met is not None:
            self._known.discard(met.inode)
        if self.is_shut and len(self._met) < self._limit * 7 // 8:
            self.is_shut = not rename_file(self._path + _SHUT, self._path)
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
        """The peer of this connection has identified itself."""
        self._known.add(inode_of(fd))

    def turn_out(self, before_ns: int) -> None:
        """End connections older than that of those who did not."""
        for fd, met in list(self._met.items()):
            if met.since_ns < before_ns and met.inode not in self._known:
                shut_down(fd, met.inode)

    def close(self) -> None:
        """Before the socket is closed."""
        self._socket.disable_monitor()
        self._thread.join(DOORMAN_S)
        os.close(self.fd)
        if self.is_shut:
            remove_file(f"ipc://{self._path}{_SHUT}")


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
