"""Functions of durable jobs that the session of the store has defined, by their digests.

A function stays defined while a job in the window calls it, or another function needs it.
"""

from __future__ import annotations

from collections.abc import Callable

from gmpd import protocol
from gmpd.sched import events
from gmpd.sched.stored import StoredFunction

#: Functions that stay defined although no job in the window calls them.
FUNCTIONS_MAX = 1024


class Defined:
    """A function that the session has defined. ``users``: jobs, and functions that need it."""

    __slots__ = ("fid", "name", "needs", "users")

    def __init__(self, fid: int, name: str, needs: tuple[bytes, ...]) -> None:
        self.fid = fid
        self.name = name
        self.needs = needs
        self.users = 0


class DefinedFunctions:
    """``feed`` gives an event to the rest of the policy, for session ``sid``."""

    def __init__(self, sid: int, feed: Callable[[events.ClientEvent], None]) -> None:
        self._sid = sid
        self._feed = feed
        self._by_digest: dict[bytes, Defined] = {}
        self._next_fid = 1

    def __repr__(self) -> str:
        return f"<DefinedFunctions: {len(self._by_digest)}>"

    def __getitem__(self, digest: bytes) -> Defined:
        return self._by_digest[digest]

    def define(self, function: StoredFunction) -> None:
        """Define it, unless it is. Its parts come first."""
        if function.digest in self._by_digest:
            return
        defined = Defined(self._next_fid, function.name, function.needs)
        self._next_fid += 1
        self._by_digest[function.digest] = defined
        for part in function.needs:
            self._by_digest[part].users += 1
        needs = [self._by_digest[part].fid for part in function.needs]
        define = protocol.Define(defined.fid, function.kind, function.name, function.payload, needs)
        digest = function.digest if function.payload else b""
        self._feed(events.Defined(self._sid, define, digest))

    def shrink(self) -> None:
        """If they are many, forget those without users, then the parts that only they need."""
        if len(self._by_digest) <= FUNCTIONS_MAX:
            return
        fids = []
        for digest, defined in reversed(list(self._by_digest.items())):  # parts came first
            if not defined.users:
                fids.append(defined.fid)
                del self._by_digest[digest]
                for part in defined.needs:
                    self._by_digest[part].users -= 1
        if fids:
            self._feed(events.Undefined(self._sid, fids))
