"""The process that has imported the engine of a cluster: it watches, and bridges fork from it.

An engine's library takes half a second to import, and most of a bridge's memory. A fork of a
process that has imported it starts in milliseconds and shares that memory. The template
(``gmpd.cluster.template``) has one thread, so its forks are whole. It forks the watcher, whose
lines are its output, and a process for each ``fork``. The coordinator becomes the parent of that
one, so its death is told as any worker's.

An engine that must not be imported before a fork has a template that is the watcher, and forks
nothing: then, as while it imports and when it is silent, a bridge is a fresh interpreter.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgpack

from gmpd import interpreter
from gmpd.daemon import early
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.early import Forked, Started
from gmpd.daemon.reaper import adopt_orphans

log = logging.getLogger("gmpd.coordinator")

#: A fork takes some ms; a template that needs longer than this is not asked again (seconds).
FORK_S = 3.0
#: The template's words beside pids.
READY = b"ready"
#: Libraries that engines import start threads for these, and a process with threads is not forked.
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Asked(NamedTuple):
    """A fork that was asked for; ``then`` gets it, or None."""

    started: Started
    then: Callable[[Started | None], None]
    until_ns: int


class Template:
    """One process. ``heard`` gets what the watcher writes, and empty bytes at its end. Raises
    OSError when the system has no process to give."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        heard: Callable[[bytes], None],
        watch: Callable[[int, Callable[[], object]], None],
        unwatch: Callable[[int], None],
        deadlines: Deadlines,
    ) -> None:
        self._heard = heard
        self._watch = watch
        self._unwatch = unwatch
        self._deadline = deadlines.new(self._overdue)
        self._asked: deque[Asked] = deque()
        self._ready = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = process = subprocess.Popen(
                interpreter.command("gmpd.cluster.template", str(theirs.fileno())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=early.environment() | dict.fromkeys(ONE_THREAD, "1"),
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgpack.packb(settings, unicode_errors="surrogateescape"))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended: the end of its output says so
        self._socket: socket.socket | None = ours
        ours.setblocking(False)
        self._out = process.stdout.fileno()
        os.set_blocking(self._out, False)
        watch(self._out, self._read)
        watch(ours.fileno(), self._answered)

    @property
    def forks(self) -> bool:
        """Whether it can be asked for a fork."""
        return self._ready

    def fork(self, name: str, then: Callable[[Started | None], None]) -> None:
        """Have a process forked that waits for its settings; ``name``: of its memory. ``then`` gets
        it, or None when there is none."""
        assert self._socket is not None
        try:
            memory = os.memfd_create(name, os.MFD_CLOEXEC)
        except OSError:
            return then(None)
        try:
            stdin, ours = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(memory)
            return then(None)
        started = Started(Forked(os.fdopen(ours, "wb")), memory)
        adopt_orphans(True)
        try:
            socket.send_fds(self._socket, [b"fork"], [stdin, memory])
        except OSError:  # hundreds are asked for already, or it has ended: its end is told
            _close(started)
            return then(None)
        finally:
            os.close(stdin)
        self._asked.append(Asked(started, then, time.monotonic_ns() + int(FORK_S * 1e9)))
        return self._wait()

    def close(self) -> None:
        """End it; forks that were asked for do not come."""
        self._give_up()
        self._unwatch(self._out)
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        self._heard(os.read(self._out, 1 << 16))

    def _answered(self) -> None:
        """It is ready, or it has forked, or says why not."""
        assert self._socket is not None
        try:
            words = self._socket.recv(256)
        except OSError:
            words = b""
        if not words:
            self._give_up()
        elif words == READY:
            self._ready = True
        else:
            started, then, _ = self._asked.popleft()
            self._wait()
            then(_taken(started, words))

    def _overdue(self, now: int) -> None:
        if self._asked and self._asked[0].until_ns <= now:
            log.warning("the process that forks bridges is silent: they are started without it")
            self._give_up()
        self._wait()

    def _wait(self) -> None:
        """For the first answer; while one is to come, a process that its parent leaves is this
        one's child."""
        self._deadline.set(self._asked[0].until_ns if self._asked else None)
        if not self._asked:
            adopt_orphans(False)

    def _give_up(self) -> None:
        """Ask it no more. A fork that comes late finds its input at the end, and exits."""
        if self._socket is None:
            return
        self._ready = False
        self._unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = None
        asked, self._asked = self._asked, deque()
        self._wait()
        for each in asked:
            _close(each.started)
            each.then(None)


def _taken(started: Started, words: bytes) -> Started | None:
    """The process of an answer, if it is this process's child."""
    process = started.process
    assert isinstance(process, Forked)
    if words.isdigit():
        process.pid = int(words)
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            words = b"its fork has another parent"
        else:
            return started
    log.warning("no fork of the process with the engine: %s", words.decode(errors="replace"))
    _close(started)
    return None


def _close(started: Started) -> None:
    os.close(started.memory)
    assert started.process.stdin is not None
    started.process.stdin.close()
