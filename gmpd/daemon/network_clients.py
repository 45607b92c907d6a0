"""Clients of other machines: the keys that are known now, and connections whose key is no more.

It knows no message and no session: ``clients`` has those, and ``rights`` what a role allows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.logs import RateLimitedLog
from gmpd.daemon.registry import Registry
from gmpd.errors import ConfigError
from gmpd.keys import AllowedClient, KeyDirectory, read_allowed
from gmpd.netpoll import Connection, NetworkPeer, NetworkRouter

log = logging.getLogger("gmpd.network")

#: While clients of other machines are connected, the files of keys are looked at this often (ns).
LOOK_NS = 500_000_000

#: The name of a key's file, and what changes with its content.
_Stamp: TypeAlias = tuple[str, int, int, int, int]


class AllowList:
    """The clients of a KeyDirectory, read again whenever its files have changed.

    A file that cannot be trusted or read admits no client; the log tells why.
    """

    def __init__(self, directory: KeyDirectory) -> None:
        self._directory = directory
        self._stamps: list[_Stamp] | None = None
        self._by_name: dict[str, AllowedClient] = {}
        self._by_public: dict[bytes, AllowedClient] = {}
        self._refused = RateLimitedLog(log.warning)

    def admit(self, public: bytes, address: str) -> str:
        """The name of the client with this public key; empty if there is none."""
        self.look()
        client = self._by_public.get(public)
        if client is None:
            now = time.monotonic_ns()
            self._refused(now, "a client from %s was refused: its key is not known", address)
            return ""
        return client.name

    def get(self, name: str) -> AllowedClient | None:
        """A client that is known now."""
        return self._by_name.get(name)

    def look(self) -> bool:
        """Read the files that have changed; whether any has."""
        try:
            stamps = [_stamp(path) for path in self._directory.client_files()]
        except (ConfigError, OSError) as error:
            stamps = None
            if self._by_name:
                log.error("no key is known any more: %s", error)
        if stamps is not None and stamps == self._stamps:
            return False
        changed = stamps is not None or bool(self._by_name)
        self._stamps = stamps
        self._read()
        return changed

    def _read(self) -> None:
        clients: list[AllowedClient] = []
        if self._stamps is not None:
            try:
                self._directory.check()
                clients = [client for stamp in self._stamps if (client := _read(Path(stamp[0])))]
            except ConfigError as error:
                log.error("no key is known any more: %s", error)
        self._by_name = {client.name: client for client in clients}
        self._by_public = {client.public: client for client in reversed(clients)}


def _stamp(path: Path) -> _Stamp:
    info = path.lstat()
    return str(path), info.st_ino, info.st_mtime_ns, info.st_size, info.st_mode


def _read(path: Path) -> AllowedClient | None:
    try:
        return read_allowed(path)
    except FileNotFoundError:  # it was removed just now
        return None
    except ConfigError as error:
        log.error("%s", error)
        return None


class NetworkClients:
    """The connections of known clients. ``revoked`` is called with each whose key has changed or
    is known no more: it is to be cut."""

    def __init__(
        self,
        router: NetworkRouter,
        allowed: AllowList,
        deadlines: Deadlines,
        revoked: Callable[[NetworkPeer, Connection], None],
        value_bytes: int,
        registry: Registry,
    ) -> None:
        self.router = router
        self.value_bytes = value_bytes
        self.registry = registry
        self._allowed = allowed
        self._revoked = revoked
        self._deadline = deadlines.new(self._due)
        self._known: dict[NetworkPeer, tuple[AllowedClient, Connection]] = {}

    def client(self, peer: NetworkPeer) -> AllowedClient | None:
        """The client at the other end; None if its key is not known any more."""
        known = self._known.get(peer)
        return self._allowed.get(peer.name) if known is None else known[0]

    def greeted(self, peer: NetworkPeer, client: AllowedClient) -> None:
        """The peer that sent the last message has said Hello."""
        self._known[peer] = client, self.router.last_connection()
        if len(self._known) == 1:
            self._deadline.set(time.monotonic_ns() + LOOK_NS)

    def left(self, peer: NetworkPeer) -> None:
        """Its session is over."""
        self._known.pop(peer, None)

    def _due(self, now: int) -> None:
        if self._allowed.look():
            for peer, (client, connection) in list(self._known.items()):
                if self._allowed.get(peer.name) != client:
                    log.warning("the client %r is disconnected: its key has changed", client.name)
                    self._revoked(peer, connection)
        self._deadline.set(now + LOOK_NS if self._known else None)
