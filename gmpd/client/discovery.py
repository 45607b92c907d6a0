"""Which daemon to talk to: one that was named, one that runs, or a private one."""

from __future__ import annotations

from dataclasses import dataclass

from gmpd import rundir
from gmpd.client.core import INSTEAD
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config
from gmpd.errors import DaemonUnreachable

#: The name of the clients' socket in the discovery file.
CLIENTS = "client"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, how long to wait (seconds), and the daemon if it is this client's own."""

    endpoint: str
    connect_timeout: float
    daemon: PrivateDaemon | None = None


def find(endpoint: str | None = None) -> Target:
    """``endpoint``: an address or a runtime directory; None looks, and starts a private daemon.

    Raises DaemonUnreachable when the one that was named does not run, or none may be started;
    NotImplementedError for one on another machine.
    """
    config = Config.load()
    wait = config.client.connect_timeout
    if endpoint is not None and endpoint.startswith("tcp://"):
        raise NotImplementedError(f"{endpoint}: {INSTEAD['tcp']}")
    if endpoint is not None and "://" in endpoint:
        return Target(endpoint, wait)
    try:
        record = rundir.read_discovery(endpoint or config.daemon.runtime_dir)
    except DaemonUnreachable:
        if endpoint is not None or not config.client.autostart:
            raise
        daemon = PrivateDaemon(config)
        return Target(daemon.endpoint, wait, daemon)
    address = record.endpoints.get(CLIENTS) or next(iter(record.endpoints.values()), "")
    if not address:
        raise DaemonUnreachable(f"the daemon (pid {record.pid}) listens for no clients: restart it")
    return Target(address, wait)
