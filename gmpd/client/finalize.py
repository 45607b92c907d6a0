"""The end of asyncio and gevent clients that are dropped without ``close``.

These clients have no thread of their own; they live on the program's loop. The loop refers to a
client through a ``LoopCallback``, which is strong only while the client has jobs out. Resources
that must close in order (the link, its network, a private daemon) are owned here, in
``ClientResources``, because the collector calls finalizers in any order, and a network blocks until
its links are closed.

It does not know the clients: each passes how its loop releases the link, and how to call the loop.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from gmpd import protocol
from gmpd.client.private import PrivateDaemon
from gmpd.netpoll import Dealer, Network

#: Milliseconds that the last messages get to leave when a client closes.
LINGER_MS = 500


class LoopCallback:
    """The loop's end of a client; ``client`` is set while jobs of it are out, and keeps it."""

    def __init__(self, client: Any, turn: Callable[[Any], None]) -> None:
        self.client: Any = None
        self._ref = weakref.ref(client)
        self._turn = turn

    def __call__(self) -> None:
        """The link stirs."""
        client = self._ref()
        if client is not None:
            self._turn(client)


class ClientResources:
    """Link and thread of one open client; ``end``, ``dropped`` or the interpreter ends them, once.

    ``unhook`` takes the link out of its loop, in the loop's thread. ``there`` has a function called
    in that thread soon, from any thread, without a lock; False when nothing runs there any more.
    """

    def __init__(
        self,
        client: object,
        link: Dealer,
        network: Network,
        daemon: PrivateDaemon | None,
        unhook: Callable[[], None],
        there: Callable[[Callable[[], None]], bool],
    ) -> None:
        self._link = link
        self._network = network
        self.daemon = daemon
        self._unhook = unhook
        self._there = there
        self._pid = os.getpid()
        self._kept = True
        #: There will be no client to describe when it is needed.
        own = " (private)" if daemon is not None else ""
        self._text = f"unclosed <gmpd.{type(client).__name__} {link.endpoint}{own}>"
        self._watching = weakref.finalize(client, self._dropped)
        self._watching.atexit = False
        _all.add(self)

    def end(self, bye: list[Any] | None) -> None:
        """Close the link; ``bye`` is its last message. The daemon is left to the caller."""
        self._watching.detach()
        if self._take():
            self._close(bye)

    def _take(self) -> bool:
        """Whether this is the first time, in the process that the link belongs to."""
        first, self._kept = self._kept, False
        _all.discard(self)
        return first and self._pid == os.getpid()

    def _close(self, bye: list[Any] | None) -> None:
        self._unhook()
        if bye is not None:
            self._link.send(bye)
        self._link.close(LINGER_MS)
        self._network.close()

    def _dropped(self) -> None:
        if self._pid != os.getpid():
            return
        if not self._there(self._end_dropped):
            self._end_dropped()
        warnings.warn(self._text, ResourceWarning, stacklevel=2)

    def _end_dropped(self) -> None:
        if self._take():
            self._close([protocol.pack(protocol.Bye("dropped"))])
            if self.daemon is not None:
                close_in_thread(self.daemon)

    def end_now(self) -> None:
        """The interpreter ends, and with it all loops and threads."""
        self._watching.detach()
        if self._take():
            self._close([protocol.pack(protocol.Bye("the program ended"))])
            if self.daemon is not None:
                self.daemon.close()


def close_in_thread(daemon: PrivateDaemon) -> None:
    """End it without waiting for its end; the interpreter's end waits."""
    threading.Thread(target=daemon.close, name="gmpd-end").start()


_all: set[ClientResources] = set()


def _at_exit() -> None:
    for resources in list(_all):
        resources.end_now()


atexit.register(_at_exit)
