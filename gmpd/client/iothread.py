"""The IO thread of a blocking client, and the end of clients that are dropped or left open.

It has only a weak reference to its client while it sleeps. Its work after a wake-up is in
``session``.
"""

from __future__ import annotations

import io
import logging
import os
import select
import threading
import time
import weakref
from typing import Any, Protocol

from gmpd.client.defer_signals import CoreLock
from gmpd.client.finalize import LINGER_MS
from gmpd.client.private import PrivateDaemon
from gmpd.netpoll import Dealer, Network

#: How long the thread waits for a client that is being dropped, seconds: the other thread has some
#: lines of Python to run, and may wait for the GIL.
DROP_S = 5.0


class Served(Protocol):
    """A client, as its IO thread needs it. ``_io`` is the thread's identifier."""

    _io: int

    def _turn(self, ready: list[tuple[int, int]]) -> bool: ...
    def _unwanted(self) -> bool: ...
    def _next_turn(self) -> float | None: ...
    def _finish(self) -> None: ...
    def _die(self, error: BaseException) -> None: ...


#: Clients that were opened and not collected.
open_sessions: weakref.WeakSet[Any] = weakref.WeakSet()


def new_epoll() -> select.epoll:
    """The epoll of an IO thread. Raises RuntimeError where gevent has removed it."""
    if not hasattr(select, "epoll"):
        raise RuntimeError(
            "gevent.monkey.patch_all() removed select.epoll, which this client's thread needs:"
            " use `from gmpd.client.green import Client`"
        )
    return select.epoll()


class EventFd(io.FileIO):
    """An eventfd that wakes the IO thread: ``write(ONE)``, from any thread at any time.

    Its last reference closes it, and no call does: a thread in ``write`` has released the GIL, and
    would write to a closed descriptor, or to another file that has got its number.
    """

    def __init__(self) -> None:
        super().__init__(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "r+")

    def __del__(self) -> None:
        self.close()


class Unwatched:
    """While it is entered, a client's IO thread does not wake for these descriptors."""

    __slots__ = ("_epoll", "_fds")

    def __init__(self, epoll: select.epoll, fds: tuple[int, ...]) -> None:
        self._epoll, self._fds = epoll, fds

    def __enter__(self) -> None:
        for fd in self._fds:
            self._epoll.modify(fd, 0)

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            self._epoll.modify(fd, select.EPOLLIN)


class ClosedEventFd:
    """In the place of the eventfd of a client that has ended: there is no thread to wake."""

    def write(self, _what: bytes) -> None:
        """Nothing."""


def serve(
    ref: weakref.ref[Served],
    dropped: list[Served],
    epoll: select.epoll,
    _eventfd: EventFd,
    *owned: Any,
) -> None:
    """A client's IO thread. It has ``_eventfd`` for the client, which may come back when the
    collector has closed sockets that only garbage refers to."""
    try:
        _serve_turns(ref, dropped, epoll)
    except BaseException as error:
        logging.getLogger("gmpd.client").critical("the client's thread ends", exc_info=True)
        client = dropped[0] if dropped else ref()
        if client is not None:
            client._die(error)
    dropped.clear()
    epoll.close()
    del _eventfd  # what ended the thread may be kept, and this frame with it
    _close_link(*owned)


def _serve_turns(ref: weakref.ref[Served], dropped: list[Served], epoll: select.epoll) -> None:
    """Until the client is to end. No name here may keep it while the thread sleeps."""
    client = ref()
    assert client is not None  # its maker has a reference
    client._io = threading.get_ident()
    pause_s: float | None = None
    while True:
        del client
        ready = epoll.poll(pause_s)
        client = dropped[0] if dropped else ref()
        if client is None:  # it is being dropped just now, and comes in the next moment
            client = _await_drop(dropped)
        if client is None:
            return
        if dropped:
            open_sessions.add(client)  # the collector has taken it out
        if not client._turn(ready) or client._unwanted():
            client._finish()
            return
        pause_s = client._next_turn()


def _await_drop(dropped: list[Served]) -> Served | None:
    """None when its finalizer was interrupted at once (Ctrl-C): it will never come."""
    end = time.monotonic() + DROP_S
    while not dropped and time.monotonic() < end:
        time.sleep(0.001)  # another thread is between the end of its references and __del__
    return dropped[0] if dropped else None


def _close_link(link: Dealer, network: Network, daemon: PrivateDaemon | None) -> None:
    link.close(LINGER_MS)
    network.close()
    if daemon is not None:
        daemon.close()


def _in_fork() -> None:
    """A fork has no threads: held locks stay held, and the socket is the parent's."""
    for client in list(open_sessions):
        client._core_lock = CoreLock()
        client._closed = client._ended = client._stopping = True


os.register_at_fork(after_in_child=_in_fork)
