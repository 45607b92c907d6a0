"""Which daemon to talk to: one that was named, one that runs, or a private one."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from gmpd import keys, rundir
from gmpd.client.finalize import close_in_thread
from gmpd.client.private import PrivateDaemon
from gmpd.config import Config, Layer, split_cluster
from gmpd.errors import ConfigError, DaemonUnreachable
from gmpd.timeouts import FOREVER_S, checked

#: The name of the clients' socket in the discovery file.
CLIENTS = "client"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, how long to wait (seconds), and the daemon if it is this client's own.
    ``key``: this client's; only a daemon on another machine needs one."""

    endpoint: str
    connect_timeout: float
    daemon: PrivateDaemon | None = None
    #: Seconds after which a caller that waits for a silent daemon is notified.
    liveness: float = 10.0
    key: keys.ClientKey | None = None
    #: Seconds for which a client with durable jobs looks for a daemon that went away.
    reconnect: float = 60.0

    @classmethod
    def of(
        cls,
        endpoint: str,
        config: Config,
        daemon: PrivateDaemon | None = None,
        key: keys.ClientKey | None = None,
    ) -> Target:
        """With the times that the settings say."""
        client = config.client
        return cls(endpoint, client.connect_timeout, daemon, client.liveness, key, client.reconnect)

    def reconnecting(self, seconds: float | None) -> Target:
        """With another time to look for the next daemon; None: as the settings say."""
        if seconds is None:
            return self
        bound_s = checked(seconds, "reconnect")
        return replace(self, reconnect=FOREVER_S if bound_s is None else bound_s)


def find(
    endpoint: str | None = None,
    *,
    key: str | os.PathLike[str] | None = None,
    config: Config | None = None,
    say: Callable[[str], object] | None = None,
) -> Target:
    """``endpoint``: an address or a runtime directory; None looks, and starts a private daemon. In
    a job, and in what a job starts, the daemon that runs the job is found first. ``key``: for a
    daemon on another machine, the path of this client's key or the key itself.

    ``say`` gets the line that announces a private daemon; by default it goes to standard error,
    unless ``client.announce`` is off. Raises DaemonUnreachable when the one that was named does not
    run, or none may be started; ConfigError for a key that cannot be used.
    """
    config = config or Config.load()
    if (elsewhere := far(endpoint, key, config)) is not None:
        return elsewhere
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


def private_cluster(cluster: str, endpoint: str | None) -> Target:
    """A private daemon that uses the hosts of ``dask://head:8786`` or ``ray://head:10001`` beside
    this machine's cores. Raises ConfigError for what names no engine."""
    if endpoint is not None:
        raise ConfigError(
            f"cluster={cluster!r} is for a private daemon, and {endpoint!r} names another: have"
            f" that one use the hosts (`gmpd cluster up {cluster}`), and leave cluster out"
        )
    try:
        engine, address, scheduler_file = split_cluster(cluster)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    config = Config.load().override(
        {
            "cluster.engine": engine,
            "cluster.address": address,
            "cluster.scheduler_file": scheduler_file,
        }
    )
    daemon = PrivateDaemon(config)
    return Target.of(daemon.endpoint, config, daemon)


def far(endpoint: str | None, key: str | os.PathLike[str] | None, config: Config) -> Target | None:
    """The daemon on another machine that is meant; None: it is one of this machine.

    What the caller says comes first; then flags, variables and files, of which a stronger one may
    name a runtime directory instead. Raises ConfigError.
    """
    named = endpoint is not None and endpoint.startswith("tcp://")
    if endpoint is not None and not named:
        if key is not None:
            raise ConfigError(
                f"a key is for a daemon on another machine, tcp://host:7411; {endpoint} is one of"
                " this machine, which the kernel vouches for: leave the key out"
            )
        return None
    if not named and key is None and not _is_far(config):
        return None
    address = endpoint or config.client.address
    if not (what := key or config.client.key):
        raise ConfigError(
            f"{address} is a daemon on another machine, which needs a key: key=..., GMPD_KEY, or"
            " client.key in the settings; `gmpd keys add NAME` makes one where the daemon runs"
        )
    own = keys.read_client_key(what)
    try:
        address = keys.checked_address(address or own.address)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Target.of(address, config, key=own)


def _is_far(config: Config) -> bool:
    """Whether the settings name a daemon on another machine."""
    ranks = {layer: rank for rank, layer in enumerate(Layer)}
    wanted = [
        ranks[config.origin(name).layer]
        for name in ("client.address", "client.key")
        if config.value(name)
    ]
    if not wanted or ranks[config.origin("daemon.runtime_dir").layer] < min(wanted):
        return False
    return not _around(config) or min(wanted) <= ranks[Layer.ENVIRONMENT]


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


def page_of(endpoint: str) -> str | None:
    """Where the gateway serves of the daemon that listens for clients at ``endpoint``; None if it
    has none, or does not say so here: it is on another machine, or gone."""
    directory, _, _ = endpoint.removeprefix("ipc://").rpartition("/")
    if not endpoint.startswith("ipc://"):
        return None
    try:
        record = rundir.read_discovery(directory)
    except (DaemonUnreachable, ConfigError, OSError):
        return None
    return record.http if endpoint in record.endpoints.values() else None


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


class Search:
    """``find`` in a thread, which cannot be stopped. If the caller gives up, a private daemon that
    the thread starts is ended by the one of the two that comes second."""

    def __init__(
        self, where: str | None, key: str | os.PathLike[str] | None, cluster: str | None = None
    ) -> None:
        self._where, self._key, self._cluster = where, key, cluster
        self._lock = threading.Lock()
        self._target: Target | None = None
        self._unwanted = False

    def find(self) -> Target:
        """In the thread; raises as ``find``."""
        if self._cluster is not None:
            target = private_cluster(self._cluster, self._where)
        else:
            target = find(self._where, key=self._key)
        with self._lock:
            self._target = target
            unwanted = self._unwanted
        if unwanted and target.daemon is not None:
            target.daemon.close()
        return target

    def give_up(self) -> None:
        """Its result is not wanted any more."""
        with self._lock:
            self._unwanted = True
            target = self._target
        if target is not None and target.daemon is not None:
            close_in_thread(target.daemon)
