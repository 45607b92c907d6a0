"""Waiting for links and plain descriptors together."""

from __future__ import annotations

import select
from typing import Any, Protocol

from gmpd.timeouts import wait_s


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
