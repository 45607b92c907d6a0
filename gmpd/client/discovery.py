"""Which daemon to talk to: one that was named, one that runs, or a private one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gmpd import rundir
from gmpd.client.calls import INSTEAD
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config, Layer
from gmpd.errors import DaemonUnreachable

#: The name of the clients' socket in the discovery file.
CLIENTS = "client"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, how long to wait (seconds), and the daemon if it is this client's own."""

    endpoint: str
    connect_timeout: float
    daemon: PrivateDaemon | None = None
    #: Seconds after which a caller that waits for a silent daemon is notified.
    liveness: float = 10.0

    @classmethod
    def of(cls, endpoint: str, config: Config, daemon: PrivateDaemon | None = None) -> Target:
        """With the times that the settings say."""
        client = config.client
        return cls(endpoint, client.connect_timeout, daemon, client.liveness)


def find(
    endpoint: str | None = None,
    *,
    config: Config | None = None,
    say: Callable[[str], object] | None = None,
) -> Target:
    """``endpoint``: an address or a runtime directory; None looks, and starts a private daemon. In
    a job, and in what a job starts, the daemon that runs the job is found first.

    ``say`` gets the line that announces a private daemon; by default it goes to standard error,
    unless ``client.announce`` is off. Raises DaemonUnreachable when the one that was named does not
    run, or none may be started; NotImplementedError for one on another machine.
    """
    config = config or Config.load()
    if endpoint is not None and endpoint.startswith("tcp://"):
        raise NotImplementedError(f"{endpoint}: {INSTEAD['tcp']}")
    if endpoint is not None and "://" in endpoint:
        return Target.of(endpoint, config)
    if endpoint is None and (around := _around(config)):
        return Target.of(around, config)
    try:
        record = rundir.read_discovery(endpoint or config.daemon.runtime_dir)
    except DaemonUnreachable as missing:
        if endpoint is not None or not config.client.autostart:
            raise
        return start_private(config, str(missing), say)
    return reach(record, config)


def _around(config: Config) -> str:
    """The daemon that runs the job which this code is a part of; empty outside of jobs.

    A runtime directory that the job's own code asks for comes first, and so does any other place
    once that daemon is gone: a process that a job left behind may live longer.
    """
    endpoint = os.environ.get(rundir.AROUND, "")
    asked_for = config.origin("daemon.runtime_dir").layer
    if not endpoint or asked_for in (Layer.FLAG, Layer.ENVIRONMENT):
        return ""
    return endpoint if rundir.is_open(endpoint) else ""


def reach(record: rundir.Discovery, config: Config) -> Target:
    """The daemon of a record. Raises DaemonUnreachable when it listens for no clients."""
    address = record.endpoints.get(CLIENTS) or next(iter(record.endpoints.values()), "")
    if not address:
        raise DaemonUnreachable(f"the daemon (pid {record.pid}) listens for no clients: restart it")
    return Target.of(address, config)


def start_private(
    config: Config,
    why: str,
    say: Callable[[str], object] | None,
    *,
    stdout: int = 1,
    modules: tuple[str, ...] = (),
) -> Target:
    """A private daemon, announced in one line: a program whose environment hides the running daemon
    (cron, a restart) would otherwise work on without its operator noticing.

    ``stdout`` is the descriptor that jobs print to, ``modules`` are directories in which they look
    for modules beside this program's ``sys.path``.
    """
    daemon = PrivateDaemon(config, stdout=stdout, modules=modules)
    if config.client.announce:
        _announce(daemon.pid, why.partition(": start ")[0], say)
    return Target.of(daemon.endpoint, config, daemon)


def _announce(pid: int, missing: str, say: Callable[[str], object] | None) -> None:
    line = (
        f"gmpd: {missing}; started a private daemon (pid {pid});"
        f" GMPD_CLIENT__AUTOSTART=false forbids it"
    )
    if say is not None:
        say(line)
    elif sys.stderr is not None:
        with suppress(OSError, ValueError):  # closed, full, or a pipe whose reader left
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
