"""Starting and ending a daemon: directory, lock, sockets, signals, gateway, farewell.

``serve`` is `gmpd serve`; a client starts ``serve_private`` for itself, and it ends with the
client. The loop in between is ``coordinator``'s.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gmpd
from gmpd import inherited, interpreter, needs, pythons, rundir
from gmpd.config import Config
from gmpd.cpus import check_procs, read_facts
from gmpd.daemon import logs
from gmpd.daemon.coordinator import Coordinator
from gmpd.daemon.early import EarlyWorkers
from gmpd.daemon.gateway import (
    NO_PAGE,
    Gateway,
    OnDemand,
    TellPage,
    Watched,
    private_settings,
    settings_of,
)
from gmpd.daemon.notify import Notifier, Watchdog, datagram
from gmpd.daemon.owner import Owner
from gmpd.daemon.reload import Reloads
from gmpd.daemon.supervisor import SpawnContext
from gmpd.daemon.watch import SourceWatch
from gmpd.errors import ConfigError, GmpdError, StoreBroken
from gmpd.keys import KeyDirectory

log = logging.getLogger("gmpd.serve")


class Signals:
    """TERM, INT, HUP, USR2 as readable bytes on a pipe: handlers do nothing but write. One that is
    ignored, as nohup does it, stays so. Every other signal that has a Python handler shows up there
    as well, and is that handler's business alone.

    ``STRAY`` ones would end the process at once, with all its jobs, and mean something to other
    servers (to open their logs again, for example): they are reported in the log, and change
    nothing."""

    TAKEN = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2})
    STRAY = frozenset({signal.SIGUSR1, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF})

    def __init__(self) -> None:
        self.fd, self._out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._out, warn_on_full_buffer=False)
        for number in self.TAKEN:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        self._stray = {n for n in self.STRAY if signal.getsignal(n) is signal.SIG_DFL}
        for number in self._stray:
            signal.signal(number, lambda *_: None)

    def take(self) -> list[int]:
        """The signals that came since the last call, and that mean something to the daemon."""
        try:
            came = os.read(self.fd, 64)
        except BlockingIOError:
            return []
        for number in self._stray.intersection(came):
            name = signal.Signals(number).name
            log.warning("%s is ignored; SIGTERM ends the daemon", name)
        return [number for number in came if number in self.TAKEN]

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._out)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that is open."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(fd)
    return True


class SignalHandler:
    """The first signal drains, the second stops now. SIGHUP reloads (``reload``), unless it says
    that the terminal has closed; without ``reload`` it is as the others. SIGUSR2 writes a trace."""

    def __init__(
        self,
        coordinator: Coordinator,
        signals: Signals,
        notifier: Notifier,
        reload: Callable[[], None] | None,
    ) -> None:
        self._coordinator = coordinator
        self._signals = signals
        self._notifier = notifier
        self._reload = reload
        self._had_terminal = has_terminal()
        self._asked = False

    def on_signal(self) -> None:
        for number in self._signals.take():
            name = signal.Signals(number).name
            if number == signal.SIGUSR2:
                self._coordinator.dumps.dump(name)
            elif number == signal.SIGHUP and self._reload is not None and not self._is_abandoned():
                self._reload()
            elif self._asked:
                self._coordinator.stop(f"{name} a second time")
            else:
                self._asked = True
                self._notifier.send(datagram(stopping=True, status="draining"))
                self._coordinator.drain(f"{name}: draining")

    def _is_abandoned(self) -> bool:
        return self._had_terminal and not has_terminal()


class Presence:
    """The outside of a daemon: discovery file, gateway, words to systemd and the starter.

    The daemon is there once all its workers are; where its gateway serves may become known before
    or after that, and is not waited for.
    """

    def __init__(
        self,
        config: Config,
        coordinator: Coordinator,
        notifier: Notifier,
        directory: Path,
        announce: Callable[[str], None],
    ) -> None:
        self._coordinator = coordinator
        self._notifier = notifier
        self._directory = directory
        self._announce = announce
        client = rundir.endpoint(directory, "client")
        self.endpoints = {"client": client}
        self._ready = False
        self._http: str | None = None
        self._http_problem: str | None = None if config.http.enabled else ""
        self._gateway: Gateway | None = None
        coordinator.pool.on_ready = self._on_ready
        coordinator.ask_page = self._tell_page
        if notifier.watchdog_s is not None:
            coordinator.tick_s = notifier.watchdog_s
            coordinator.on_tick = Watchdog(notifier, notifier.watchdog_s, self._status)
        if config.http.enabled:
            self._gateway = Gateway(settings_of(config, client))
            Watched(self._gateway, coordinator.watch, coordinator.unwatch, self._on_gateway)

    def _on_ready(self) -> None:
        self._ready = True
        self.publish()
        self._notifier.send(datagram(ready=True, status=self._status()))
        self._announce(
            f"gmpd {gmpd.__version__} serves on {self._coordinator.procs} Ps in {self._directory}"
        )
        if address := self.endpoints.get("tcp"):
            self._announce(f"clients of other machines with a key: {address}")
        self._announce_gateway()

    def _on_gateway(self, gateway: Gateway) -> None:
        self._http, self._http_problem = gateway.url, gateway.problem or None
        if self._ready:
            self.publish()
            self._announce_gateway()

    def _announce_gateway(self) -> None:
        if self._http is not None:
            self._announce(f"live page at {self._http}/, metrics at {self._http}/metrics")
        elif self._http_problem:
            self._announce(f"no metrics: {self._http_problem}")

    def _tell_page(self, tell: TellPage) -> None:
        tell(self._http, "" if self._http else self._http_problem or NO_PAGE)

    def publish(self) -> bool:
        """Write the record by which clients find the daemon; False before it is there for them."""
        if not self._ready:
            return False
        record = rundir.Discovery.of_this_process(
            version=gmpd.__version__,
            started_at=self._coordinator.started_at,
            endpoints=self.endpoints,
            http=self._http,
            http_problem=self._http_problem,
        )
        try:
            rundir.write_discovery(self._directory, record)
        except OSError as error:  # the disk has filled up: connected clients continue
            log.error(
                "%s cannot be written (%s): clients that start now do not find this daemon",
                self._directory / rundir.DISCOVERY,
                error.strerror,
            )
        return True

    def _status(self) -> str:
        sched = self._coordinator.sched
        return f"{len(sched.ps)} Ps, {len(sched.queue)} jobs queued, {sched.unfinished} unfinished"

    def reopen_log(self) -> None:
        """The log was moved away."""
        if self._gateway is not None:
            self._gateway.reopen_log()

    def close(self) -> None:
        """Take it all back."""
        self._notifier.send(datagram(stopping=True))
        if self._gateway is not None:
            self._gateway.stop()


def procs_of(config: Config) -> int:
    """How many Ps: as configured, else what the machine gives (Go's default GOMAXPROCS).

    Fewer when this process may not have the resources for them. Raises ConfigError for more than
    the machine can use, and when there is too little for one.
    """
    check_procs(config.daemon.procs)
    wanted = config.daemon.procs or read_facts().procs
    procs, why = needs.fitting(wanted, config.limits.isolated, needs.read_given())
    if why:
        log.warning("%s", why)
    return procs


def serve(
    config: Config,
    *,
    announce: Callable[[str], None] = print,
    accept_loss: bool = False,
    reread: Callable[[], Config] | None = None,
    watch: bool = False,
) -> int:
    """Run the daemon of ``config.daemon.runtime_dir`` until it is told to end. Gives an exit code.
    ``accept_loss``: a store of durable jobs that has lost some is used all the same. ``reread``
    reads the settings again, at a reload. ``watch``: replace the workers when modules change that
    they have imported.

    Raises ConfigError when one runs there already or the directory cannot be used, StoreBroken when
    the store of durable jobs has ended the daemon.
    """
    pythons.welcome()
    own = inherited.settle()
    directory = rundir.prepare(config.daemon.runtime_dir)
    rundir.check_room(directory, "daemon.runtime_dir")
    if config.tcp.enabled:
        KeyDirectory(config.tcp.keys).server_secret()  # or there is no point in starting workers
    with rundir.Lock.acquire(directory) as lock:
        for name in lock.clear_stale():
            log.info("removed %s, left by a daemon that died", name)
        endpoints = {name: rundir.endpoint(directory, name) for name in ("client", "worker")}
        rundir.note_end(directory, "")
        notifier = Notifier.take_environment(os.environ)
        here = interpreter.current_directory()
        context = SpawnContext(
            endpoints["worker"], endpoints["client"], here, inherited=own, watch=watch,
            log_form=logs.form_for(config.daemon.log_format, sys.stderr),
        )  # fmt: skip
        coordinator = Coordinator(config, endpoints, context, procs_of(config))
        presence = Presence(config, coordinator, notifier, directory, announce)
        coordinator.live_in(lock, presence.publish)
        coordinator.durable.resume(accept_loss=accept_loss, lease_s=config.cluster.lease)
        if every_ms := config.daemon.schedtrace:
            # With it comes asyncio, which a coordinator has no other use for.
            from gmpd.daemon.schedtrace import SchedTrace

            SchedTrace(coordinator, coordinator.deadlines, every_ms)
        try:
            if config.tcp.enabled:
                presence.endpoints["tcp"] = coordinator.listen_on_network()
            reread, reopen = reread or (lambda: config), presence.reopen_log
            reloads = Reloads(coordinator, reread, procs_of, notifier, reopen)
            coordinator.reload = reloads.reload
            _watch_sources(coordinator)
            _run(coordinator, notifier, reloads.on_signal)
        finally:
            presence.close()
    _conclude(coordinator, directory)
    return 0


def _conclude(coordinator: Coordinator, directory: Path) -> None:
    """Note why it has ended, if not as it was told. Raises as ``serve`` does."""
    _leave_place(coordinator)
    why = coordinator.durable.failure if coordinator.durable.is_broken else coordinator.failure
    if why and not coordinator.is_displaced:
        rundir.note_end(directory, why)
    if coordinator.durable.is_broken:
        raise StoreBroken(
            f"{coordinator.durable.failure}, so this daemon ended. The next start continues"
            " with all that is on disk: look for the cause (dmesg, the disk), and start the daemon"
            " again"
        )
    if coordinator.failure:
        raise ConfigError(coordinator.failure)


def _watch_sources(coordinator: Coordinator) -> None:
    """Workers report what they import only under --watch."""
    source = SourceWatch(coordinator.deadlines, coordinator.pool.recycling.leave_all)
    coordinator.workers.on_imported = source.add


def serve_private(settings: dict[str, Any], early: EarlyWorkers) -> int:
    """Run a daemon that belongs to the process at the other end of standard input. ``early``: its
    first workers.

    Its directory is its own, too: it removes it, since its client may be dead by then.
    """
    pythons.require()
    config = Config.from_wire(settings["config"])
    directory = rundir.prepare(settings["runtime_dir"])
    try:
        return _serve_private(config, directory, settings, early)
    finally:
        with suppress(OSError):  # another program put a file into it
            os.rmdir(directory)


def _serve_private(
    config: Config, directory: Path, settings: dict[str, Any], early: EarlyWorkers
) -> int:
    endpoints = {name: rundir.endpoint(directory, name) for name in ("client", "worker")}
    initializer = settings.get("initializer")
    context = SpawnContext(
        endpoints["worker"],
        endpoints["client"],
        tuple(settings["sys_path"]),
        settings["cwd"],
        initializer,
        settings.get("stdout"),
        inherited.settle(),
        tuple(settings.get("options", ())),
        tuple(settings.get("warnings", ())),
        early=early,
        lends=settings.get("lends", ""),
        env=settings.get("env", {}),
    )
    procs = procs_of(config)
    early.dismiss(procs)
    with rundir.Lock.acquire(directory) as lock:
        coordinator = Coordinator(config, endpoints, context, procs, private=True)
        # Clients may queue work while the workers still start.
        publish = partial(_publish_private, directory, coordinator, endpoints["client"])
        publish()
        page = OnDemand(lambda: Gateway(private_settings(endpoints["client"])), publish)
        if config.http.enabled:
            coordinator.ask_page = partial(
                page.ask, watch=coordinator.watch, unwatch=coordinator.unwatch
            )
        coordinator.live_in(lock, publish)
        _tell({"ok": True, "endpoint": endpoints["client"], "pid": os.getpid()})

        def owner_left() -> None:
            coordinator.unwatch(0)
            coordinator.clients.awaits_starter = False
            coordinator.stop("its client ended")

        def lease_over() -> None:
            coordinator.clients.awaits_starter = False
            coordinator.stop("its owner did not renew its lease")
            coordinator.pool.kill_all()

        coordinator.watch(0, Owner(coordinator.deadlines, owner_left, lease_over).read)
        try:
            _run(coordinator, Notifier(""), None)
        finally:
            page.stop()
    _leave_place(coordinator)
    return 0


def _leave_place(coordinator: Coordinator) -> None:
    """Another daemon lives where this one did: end without the clean-up of libzmq, which would
    remove the other one's sockets."""
    if coordinator.is_displaced:
        logging.shutdown()
        os._exit(0)


def _publish_private(
    directory: Path, coordinator: Coordinator, endpoint: str, http: str | None = None
) -> bool:
    """For `gmpd ls` and `gmpd --of PID status`; no other client looks here unasked."""
    record = rundir.Discovery.of_this_process(
        version=gmpd.__version__,
        started_at=coordinator.started_at,
        endpoints={"client": endpoint},
        http=http,
        http_problem=None if http else "it starts when asked for: gmpd page --of PID",
        owner_pid=os.getppid(),
    )
    rundir.write_discovery(directory, record)
    return True


def _run(coordinator: Coordinator, notifier: Notifier, reload: Callable[[], None] | None) -> None:
    signals = Signals()
    try:
        handler = SignalHandler(coordinator, signals, notifier, reload)
        coordinator.watch(signals.fd, handler.on_signal)
        coordinator.run()
    finally:
        signals.close()


def _tell(answer: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # its starter is gone: the end of standard input says so
        os.write(1, json.dumps(answer).encode() + b"\n")


def start_private(settings: dict[str, Any], early: EarlyWorkers) -> int:
    """``python -m gmpd.daemon``: run a private daemon, or tell its starter why that cannot be."""
    # It writes where the program does, and what failed the program is told as an error.
    level = settings.get("log_level", "error").upper()
    logging.basicConfig(level=level, handlers=[logs.queued("bare", sys.stderr, "coordinator")])
    try:
        return serve_private(settings, early)
    except GmpdError as error:
        _tell({"ok": False, "error": str(error)})
        return 78
    finally:
        early.dismiss()
