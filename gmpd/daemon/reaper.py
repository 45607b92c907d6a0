"""Ends the processes of jobs when the daemon is killed: a process that only waits for that.

The kernel ends a worker with its coordinator (``PR_SET_PDEATHSIG``) at once, without running its
code; processes that its jobs started survive. So the coordinator forks, before it has threads, a
process that knows the workers' process groups and sleeps in ``read`` on a pipe. The end of the pipe
is the end of the coordinator, however that came.

A process that leaves its group on purpose (``start_new_session=True``) is left alone.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import struct
from typing import NoReturn

log = logging.getLogger("gmpd.coordinator")

#: A process group: begun (positive) or ended.
_WORD = struct.Struct("=q")
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_NAME = b"gmpd-reaper"


class Reaper:
    """The coordinator's side. To be made while the process has one thread."""

    def __init__(self) -> None:
        self._out = -1
        self.pid = 0
        end, out = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = os.fork()
        except OSError as error:
            log.warning(
                "no reaper (%s): if the daemon is killed, processes of its jobs survive it",
                error.strerror,
            )
            os.close(end)
            os.close(out)
            return
        if not self.pid:
            _watch(end)
        os.close(end)
        self._out = out

    def began(self, group: int) -> None:
        """A worker and the processes that its jobs start are this process group."""
        self._tell(group)

    def ended(self, group: int) -> None:
        """Nothing is left of it."""
        self._tell(-group)

    def _tell(self, word: int) -> None:
        if self._out < 0:
            return
        try:
            os.write(self._out, _WORD.pack(word))
        except BrokenPipeError:  # it was killed
            log.warning(
                "the reaper was killed: if the daemon is killed, processes of its jobs survive it"
            )
            os.close(self._out)
            self._out = -1

    def close(self) -> None:
        """All workers are gone: so is it."""
        if self._out >= 0:
            os.close(self._out)
            self._out = -1
        if self.pid:
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass
            self.pid = 0


def adopt_orphans(adopt: bool) -> None:
    """Whether a process below this one that its parent leaves becomes this one's child."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def _watch(end: int) -> NoReturn:
    """The life of the reaper. It keeps no descriptor of the daemon open: a reader would wait for
    the end of a pipe, or a terminal stay in use."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(end, 3)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        ctypes.CDLL(None).prctl(_PR_SET_NAME, _NAME, 0, 0, 0)
        groups: set[int] = set()
        while word := os.read(3, _WORD.size):
            (group,) = _WORD.unpack(word)
            (groups.add if group > 0 else groups.discard)(abs(group))
        for group in groups:
            _kill(group)
    finally:
        os._exit(0)


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EPERM):
            raise
