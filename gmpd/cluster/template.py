"""``python -m gmpd.cluster.template``: has imported the engine; watcher and bridges fork from it.

See ``gmpd.daemon.template``, the coordinator's end. Each request is one packet with two
descriptors: the standard input of a bridge, and its memory. The bridge is forked twice, so that it
loses its parent, and the coordinator becomes that before the answer is written.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import traceback
from typing import NoReturn

import msgpack

from gmpd import inherited
from gmpd.cluster import watcher
from gmpd.cluster.port import ClusterError, engine_class
from gmpd.daemon import process
from gmpd.daemon.template import READY

#: A fork that an error ended.
EXIT_ERROR = 1


class Template:
    """One thread that forks and does nothing else."""

    def __init__(self, asks: socket.socket) -> None:
        self._asks = asks

    def serve(self) -> None:
        """Until the daemon asks no more."""
        self._asks.send(READY)
        while True:
            words, fds, _, _ = socket.recv_fds(self._asks, 16, 2)
            if not words:
                return
            try:
                answer = str(self._fork(*fds))
            except OSError as error:
                answer = f"the system refused a process: {error}"
            for fd in fds:
                os.close(fd)
            self._asks.send(answer.encode())

    def _fork(self, stdin: int, memory: int) -> int:
        """The pid of a bridge. Raises OSError when there is none."""
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            raise OSError(f"{threads} threads, and a fork has one")
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            between = os.fork()
            if not between:
                self._leave_behind(stdin, memory, theirs)
            os.close(theirs)
            theirs = -1
            os.waitpid(between, 0)
            word = os.read(ours, 16)
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)
        if not word:
            raise OSError("it did not fork twice")
        return int(word)

    def _leave_behind(self, stdin: int, memory: int, told: int) -> NoReturn:
        """Between the two forks."""
        try:
            pid = os.fork()
            if not pid:
                os.close(told)
                self._asks.close()
                os.dup2(stdin, 0)
                os.close(stdin)
                become_bridge(memory)
            os.setpgid(pid, pid)  # before it can be told to end
            os.write(told, str(pid).encode())
        finally:
            os._exit(0)


def become_bridge(memory: int) -> NoReturn:
    """As ``python -m gmpd.cluster.bridge``."""
    code = EXIT_ERROR
    try:
        from gmpd.cluster import bridge  # imported before the fork

        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        code = bridge.main(["", str(memory)])
    except SystemExit as error:
        if isinstance(error.code, int):
            code = error.code
        else:
            print(error.code, file=sys.stderr)  # noqa: T201 - as the interpreter does it
    except BaseException:  # noqa: BLE001 - as the interpreter does it: a fork must not return
        traceback.print_exc()
    finally:
        process.leave(code)


def main(argv: list[str]) -> None:
    """``argv``: the descriptor of the socket. Settings come as msgpack on standard input."""
    inherited.settle()
    asks = socket.socket(fileno=int(argv[1]))
    settings = msgpack.unpackb(
        sys.stdin.buffer.read(), use_list=False, unicode_errors="surrogateescape"
    )
    process.end_with_parent(settings["parent"])
    try:
        forks = getattr(engine_class(settings["engine"]), "forks", False)
    except ClusterError:
        forks = False  # the watcher says so
    out = os.dup(1)
    os.dup2(2, 1)  # libraries of engines print, too
    if not forks:
        asks.close()
        watcher.watch(settings, out)
        return
    import gmpd.cluster.bridge  # noqa: F401 - for the forks

    gc.collect()
    gc.freeze()  # what a collection marks, a fork shares no more
    parent = os.getpid()
    if not os.fork():
        try:
            asks.close()
            process.end_with_parent(parent)
            watcher.watch(settings, out)
        finally:
            process.leave(EXIT_ERROR)
    os.close(out)  # it ends with the watcher
    Template(asks).serve()


if __name__ == "__main__":
    main(sys.argv)
