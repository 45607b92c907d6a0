"""Processes: starts workers as fresh interpreters, learns of their deaths from the kernel.

It knows pids, descriptors and shared memory, not jobs and messages. A worker is dead when its pidfd
is readable and ``waitpid`` returns its status; a timer or a silent socket proves nothing.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from gmpd.config import Config
from gmpd.cpus import core_of
from gmpd.daemon.early import (
    WORKER,
    EarlyWorkers,
    Process,
    Started,
    end,
    kill_group,
    name_of,
    start,
)
from gmpd.daemon.frozen import Stillness
from gmpd.daemon.loop_watch import LoopWatch
from gmpd.daemon.reaper import Reaper
from gmpd.daemon.shm import WorkerShm
from gmpd.inherited import Inherited
from gmpd.sched.events import Exit
from gmpd.sched.isolated import ISOLATED_FROM
from gmpd.sched.leavers import number_beside, p_of
from gmpd.timeouts import wait_ms

#: The program of a bridge: it has an engine, and is a module of a higher floor.
BRIDGE = "gmpd.cluster.bridge"


@dataclass(frozen=True)
class HostSpec:
    """A host that a bridge is for, and the settings of its engine. ``lease_s``: seconds for which
    the host works on without hearing of the bridge; ``drain_s``: seconds that its jobs have to end
    when the engine ends its process there."""

    name: str
    cores: int
    engine: str
    engine_settings: dict[str, Any]
    lease_s: float
    drain_s: float


@dataclass(eq=False)
class WorkerProcess:
    """One worker process: epoch ``epoch`` of P ``of_p``, or the only one of isolated worker ``p``.

    ``p`` is its number: that of its P while it serves (see ``sched.leavers``).
    """

    p: int
    epoch: int
    process: Process
    pidfd: int
    shm: WorkerShm
    secret: bytes
    core: int | None
    #: Not ready by then: it hangs in an import, and is killed.
    start_by_ns: int
    ready: bool = False
    #: It is the bridge to this host.
    host: HostSpec | None = None
    #: The routing id of its connection, once it said Hello.
    peer: bytes = b""
    #: We asked it to end, or killed it ourselves: its death is no surprise.
    expected: bool = False
    finished: int = 0
    #: The clients whose lanes it was lent.
    lent: set[int] = field(default_factory=set)
    #: Looks of its sysmon at the last probe.
    seen_looks: int = 0
    #: It was said that it is deaf, and it was not heard of since.
    called_deaf: bool = False
    #: Since when it stands still, while it is deaf.
    stillness: Stillness = field(default_factory=Stillness)
    #: CPU time of the process, once it is gone; and of a bridge, the jobs that were lost with it.
    cpu_s: float = 0.0
    lost_jobs: int = 0
    #: It was killed to end one of its jobs: which one, and why.
    replaced: str = ""
    #: It retires: why, and when it is ended whatever it holds (0: never).
    retires: str = ""
    retire_by_ns: int = 0
    #: It has left its P to a successor, since then.
    left_ns: int = 0
    #: It is replaced when it has finished this number of jobs, and at this time (``recycling``).
    recycle_at: int = sys.maxsize
    recycle_at_ns: int | None = None
    #: The fault that it reported before it ended.
    fault: str = ""
    #: Its last events, which it sent before it ends.
    ring_tail: bytes = b""

    #: Whether its run loop moves.
    watch: LoopWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = LoopWatch(self.shm.slots)

    def heard(self) -> None:
        """A message of it came: its run loop lives."""
        self.watch.heard()
        self.called_deaf = False

    @property
    def isolated(self) -> bool:
        return self.p >= ISOLATED_FROM

    @property
    def of_p(self) -> int:
        """The P that it serves, has served, or will serve."""
        return p_of(self.p)

    @property
    def leaving(self) -> bool:
        """Whether it ends the jobs that it has begun, and its P is another worker's."""
        return self.p < 0 and self.ready

    @property
    def unwanted(self) -> bool:
        """Whether it was ended before it was ready, and nothing was wrong with it."""
        return self.expected and not self.ready and not self.fault

    def __str__(self) -> str:
        if self.host is not None:
            return f"bridge {self.process.pid} to host {self.host.name}"
        of = "an isolated job" if self.isolated else f"P{self.of_p}"
        return f"worker {self.process.pid} of {of}"


@dataclass(frozen=True)
class SpawnContext:
    """The settings of every worker beside the configuration."""

    endpoint: str
    client_endpoint: str = ""
    sys_path: tuple[str, ...] = ()
    cwd: str = ""
    #: [kind, name, payload, call data]: a function to call before serving, or None.
    initializer: Any = None
    #: The descriptor on which jobs print; None: the daemon's standard error.
    stdout: int | None = None
    #: The part of the daemon's inherited state that is for jobs.
    inherited: Inherited = field(default_factory=Inherited)
    #: Options of the program's interpreter for theirs; and its ``-W``, which apply to jobs alone.
    options: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    #: Workers report the files of modules that they import.
    watch: bool = False
    #: Workers that were started before.
    early: EarlyWorkers = field(default_factory=EarlyWorkers)
    #: How workers write what is logged without a handler (``logs.queued``); empty: as Python does.
    log_form: str = ""
    #: The class of an object of the program that the initializer uses: no other machine has it.
    lends: str = ""
    #: Variables that a private daemon was given for its workers.
    env: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """The worker processes of one daemon."""

    def __init__(
        self,
        config: Config,
        context: SpawnContext,
        procs: int,
        reaper: Reaper | None = None,
    ) -> None:
        self.config = config
        self.context = context
        self.procs = procs
        self.processes: dict[int, WorkerProcess] = {}
        self._reaper = reaper
        self._epochs: dict[int, int] = {}

    def worker_of(self, p: int, epoch: int) -> WorkerProcess | None:
        """The process of this epoch of a P, while it is not confirmed dead."""
        worker = self.processes.get(p)
        if worker is None or worker.epoch != epoch:
            worker = self.processes.get(p if p < 0 else number_beside(p, epoch))
        return worker if worker is not None and worker.epoch == epoch else None

    def renumber(self, worker: WorkerProcess, number: int) -> None:
        """File a worker under another number: it begins to serve its P, or leaves it."""
        del self.processes[worker.p]
        worker.p = number
        self.processes[number] = worker

    def spawn(self, p: int) -> WorkerProcess:
        """Start a worker for P ``p``. Raises OSError when the system has no process to give."""
        epoch = self._epochs[p] = self._epochs.get(p, 0) + 1
        core = core_of(p, self.procs) if self.config.daemon.pin else None
        return self._start(p, epoch, core)

    def spawn_successor(self, p: int) -> WorkerProcess:
        """Start another worker for P ``p`` beside the one that it has. Raises OSError as ``spawn``
        does."""
        epoch = self._epochs[p] = self._epochs.get(p, 0) + 1
        core = core_of(p, self.procs) if self.config.daemon.pin else None
        return self._start(number_beside(p, epoch), epoch, core)

    def spawn_isolated(self, p: int) -> WorkerProcess:
        """Start a worker for one isolated job. Raises OSError as ``spawn`` does.

        It is not pinned: on one core it would share that with a P's worker while another is free.
        """
        return self._start(p, 1, None)

    def spawn_bridge(self, p: int, host: HostSpec, forked: Started | None = None) -> WorkerProcess:
        """Start the bridge to a host, which is P ``p``. ``forked``: a process that waits to be it.
        Raises OSError as ``spawn`` does."""
        epoch = self._epochs[p] = self._epochs.get(p, 0) + 1
        return self._start(p, epoch, None, host, forked)

    def _start(
        self,
        p: int,
        epoch: int,
        core: int | None,
        host: HostSpec | None = None,
        forked: Started | None = None,
    ) -> WorkerProcess:
        secret = secrets.token_bytes(32)
        process, memory = forked or self._interpreter(p, WORKER if host is None else BRIDGE)
        try:
            shm = WorkerShm.create_in(memory)
        except BaseException:
            end(process)
            raise
        finally:
            os.close(memory)
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:  # without it the process's death would never be noticed
            end(process)
            shm.close()
            raise
        self._brief(process, p, epoch, secret, core, host)
        start_by_ns = time.monotonic_ns() + int(self.config.daemon.start_timeout * 1e9)
        worker = WorkerProcess(p, epoch, process, pidfd, shm, secret, core, start_by_ns, host=host)
        self.processes[p] = worker
        if self._reaper is not None:
            self._reaper.began(process.pid)
        return worker

    def _interpreter(self, p: int, program: str) -> Started:
        context = self.context
        ready = context.early.take(p)
        return ready or start(program, name_of(p_of(p)), context.options, context.stdout)

    def _brief(
        self,
        process: Process,
        p: int,
        epoch: int,
        secret: bytes,
        core: int | None,
        host: HostSpec | None,
    ) -> None:
        config, context = self.config, self.context
        settings = {
            "p": p_of(p),
            "epoch": epoch,
            "secret": secret,
            "core": core,
            "parent": os.getpid(),
            "procs": self.procs,
            "isolated": p >= ISOLATED_FROM,
            "endpoint": context.endpoint,
            "client_endpoint": context.client_endpoint,
            "sys_path": list(context.sys_path),
            "cwd": context.cwd,
            "imports": list(config.daemon.imports),
            "scheduled": [each.function for each in config.cron.values()],
            "initializer": context.initializer,
            "max_ms": config.limits.max_ms,
            "plain_calls": config.limits.plain_calls,
            "value_bytes": config.limits.value_bytes,
            "worker_results": config.limits.worker_results,
            "memory": config.recycle.memory,
            "grace": config.recycle.grace,
            "job_output": config.limits.job_output,
            "worker_calls": config.limits.worker_calls,
            "trace": config.trace.enabled,
            "umask": context.inherited.umask,
            "variables": dict(context.inherited.variables),
            "warnings": list(context.warnings),
            "watch": context.watch,
            "log_form": context.log_form,
        }
        if host is not None:
            settings |= _of_bridge(host, config)
            settings["env"] = dict(context.env)
        assert process.stdin is not None
        try:
            process.stdin.write(msgpack.packb(settings, unicode_errors="surrogateescape"))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died already: its pidfd will tell

    def reap(self, worker: WorkerProcess) -> Exit:
        """Its pidfd said that it ended: collect it, and end the processes that it left behind."""
        status = self._wait(worker)
        kill_group(worker.process.pid)
        if self._reaper is not None:
            self._reaper.ended(worker.process.pid)
        os.close(worker.pidfd)
        if self.processes.get(worker.p) is worker:
            del self.processes[worker.p]
        if status < 0:
            name = _signal_name(-status)
            text = f"was killed by {name}"
            if name == "SIGKILL" and not worker.expected:
                text += " (not by gmpd: perhaps the system was out of memory)"
            return Exit(worker.process.pid, name, None, text)
        return Exit(worker.process.pid, "", status, f"ended with exit status {status}")

    def has_ended(self, worker: WorkerProcess, *, within_s: float) -> bool:
        """Whether a worker that was killed ends in time."""
        poll = select.poll()
        poll.register(worker.pidfd, select.POLLIN)
        return bool(poll.poll(wait_ms(within_s)))

    def _wait(self, worker: WorkerProcess) -> int:
        """Its exit status, as subprocess has it. Notes the CPU time of it and its processes."""
        try:
            _, status, used = os.wait4(worker.process.pid, 0)
        except ChildProcessError:  # another wait took its status
            worker.process.returncode = 0
            return 0
        worker.cpu_s = used.ru_utime + used.ru_stime
        worker.process.returncode = os.waitstatus_to_exitcode(status)
        return worker.process.returncode

    def kill(self, worker: WorkerProcess) -> None:
        """End it now, with all that it started."""
        worker.expected = True
        kill_group(worker.process.pid)


def _of_bridge(host: HostSpec, config: Config) -> dict[str, Any]:
    """The settings of a bridge, and through it of the daemon on its host."""
    return {
        "host": host.name,
        "cores": host.cores,
        "engine": host.engine,
        "engine_settings": host.engine_settings,
        "lease_s": host.lease_s,
        "drain_s": host.drain_s,
        "start_timeout": config.daemon.start_timeout,
        "host_config": {
            "daemon.procs": host.cores,
            "daemon.imports": list(config.daemon.imports),
            "daemon.log_level": config.daemon.log_level,
            "daemon.start_timeout": config.daemon.start_timeout,
            "limits.value_bytes": config.limits.value_bytes,
            "limits.max_gs": config.limits.max_gs,
            "limits.max_ms": config.limits.max_ms,
            "limits.plain_calls": config.limits.plain_calls,
            "limits.worker_calls": config.limits.worker_calls,
            "limits.client_window": 1 << 20,
            "client.liveness": config.client.liveness,
            "http.enabled": False,
        },
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
