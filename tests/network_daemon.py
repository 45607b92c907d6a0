"""A daemon that listens for other machines, on a free port of this one, and keys for it."""

from __future__ import annotations

from pathlib import Path

from gmpd import rundir
from gmpd.keys import AllowedClient, ClientKey, KeyDirectory, Role
from gmpd.netpoll import new_secret, public_of
from tests.daemon_process import Daemon


class NetworkDaemon(Daemon):
    """``imports``: modules with registered functions."""

    def __init__(self, directory: Path, imports: str, **environment: str) -> None:
        self.keys = KeyDirectory(directory / "state/keys")
        self.keys.create(new_secret())
        super().__init__(
            directory,
            GMPD_TCP__ENABLED="true",
            GMPD_TCP__LISTEN="127.0.0.1:0",
            GMPD_DAEMON__IMPORTS=imports,
            **environment,
        )

    @property
    def address(self) -> str:
        """tcp://127.0.0.1:PORT."""
        return rundir.read_discovery(self.directory).endpoints["tcp"]

    def add(self, name: str, role: Role = Role.SUBMIT, *, pickle: bool = False) -> ClientKey:
        """A new client's key."""
        secret = new_secret()
        self.keys.add(AllowedClient(name, public_of(secret), role, pickle, secret))
        return self.key(name, secret)

    def key(self, name: str, secret: bytes) -> ClientKey:
        """The line of a client, whether the daemon knows it or not."""
        return ClientKey(name, public_of(self.keys.server_secret()), secret, self.address)
