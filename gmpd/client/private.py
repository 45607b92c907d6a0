"""A daemon that belongs to one client: started by it, ended with it.

Knows the daemon only as a program: its first input, its first line, and that the end of its input
ends it. So it also ends when this process is killed.
"""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgpack

from gmpd import inherited, interpreter
from gmpd.codec import describe_function, encode_call
from gmpd.config import Config, Layer
from gmpd.errors import ConfigError, DaemonUnreachable
from gmpd.timeouts import wait_s

if TYPE_CHECKING:
    from gmpd.mp_proxy import ProxyServer

#: Seconds for an orderly end; then it is killed.
END_S = 10.0
#: Seconds between the end of its output and its own, when it could not start.
ENDED_S = 0.5


class PrivateDaemon:
    """Starts it. Raises DaemonUnreachable with its own words when it cannot start."""

    def __init__(
        self,
        config: Config,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        stdout: int = 1,
        modules: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        first: Sequence[Any] | None = None,
    ) -> None:
        """``env``: variables of its environment, and of its workers', besides this process's.
        ``first``: an initializer, as the daemon of another machine was told it.

        Raises ConfigError when the initializer needs this machine, and hosts of a cluster are used.
        """
        #: Objects of this program that initializers use.
        self._proxy_server: ProxyServer | None = None
        if initializer is not None:
            from gmpd.mp_proxy import ProxyServer  # 5 ms that nothing else needs

            self._proxy_server = ProxyServer()
            first = _initializer(initializer, initargs, self._proxy_server)
            if self._proxy_server.lends and config.cluster.engine:
                self._take_back()
                raise ConfigError(lent_and_hosts(self._proxy_server.lends, config.cluster.engine))
        # Short, and not below TMPDIR: a socket's path may have 107 bytes.
        self.directory = _new_directory()
        try:
            # Output of jobs goes where this process prints, as with the standard pools.
            out = _duplicate(stdout)
            try:
                # A group of its own: Ctrl-C at the terminal is for this process to answer.
                self._process = subprocess.Popen(
                    interpreter.command("gmpd.daemon"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=() if out is None else (out,),
                    env=interpreter.environment({**os.environ, **(env or {})}),
                    process_group=0,
                )
            finally:
                if out is not None:
                    os.close(out)
            _started.add(self)
            try:
                self._say(config, first, out, modules, env)
                answer = self._answer(config.daemon.start_timeout)
            except BaseException:
                self._end(0)
                raise
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            self._take_back()
            raise
        self.endpoint: str = answer["endpoint"]
        self.pid = self._process.pid

    def _say(
        self,
        config: Config,
        initializer: Sequence[Any] | None,
        stdout: int | None,
        modules: Sequence[str],
        env: Mapping[str, str] | None,
    ) -> None:
        server = self._proxy_server
        message = msgpack.packb(
            {
                "config": config.to_wire(),
                "runtime_dir": self.directory,
                "sys_path": interpreter.absolute([*sys.path, *modules]),
                "cwd": "".join(interpreter.current_directory()),
                "initializer": initializer,
                "lends": "" if server is None else server.lends,
                "env": dict(env or {}),
                "options": interpreter.options(),
                "warnings": list(sys.warnoptions),
                "stdout": stdout,
                "log_level": _log_level(config),
            },
            unicode_errors="surrogateescape",  # a path may be any bytes
        )
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(struct.pack(">I", len(message)) + message)
            stdin.flush()
        except BrokenPipeError:
            pass  # it ended already: what it said is read next

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        began = time.monotonic()
        ready, _, _ = select.select([stdout], [], [], wait_s(timeout_s))
        line = stdout.readline() if ready else b""
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            answer = {"ok": False, "error": self._silence(line, time.monotonic() - began)}
        if not answer.get("ok"):
            raise DaemonUnreachable(f"a private daemon could not start: {answer.get('error')}")
        return answer

    def _silence(self, line: bytes, waited_s: float) -> str:
        """Why there is no answer, in words."""
        try:
            code = self._process.wait(ENDED_S)
        except subprocess.TimeoutExpired:
            said = f"it said {line.decode(errors='replace').strip()!r}" if line else "it is silent"
            return f"{said} after {waited_s:.2g} s (daemon.start_timeout)"
        how = f"with exit status {code}" if code >= 0 else f"by signal {-code}"
        said = "" if not line else f" and said {line.decode(errors='replace').strip()!r}"
        return f"it ended {how} after {waited_s:.2g} s{said}; more of it is on standard error"

    def close(self) -> None:
        """End it, wait for its end, remove its directory. Once or often."""
        self._end(END_S)
        self._take_back()
        shutil.rmtree(self.directory, ignore_errors=True)

    def renew(self, until_s: float) -> None:
        """It ends its workers at this time of the monotonic clock, unless that is put off again.
        From the first call on."""
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError, BlockingIOError, ValueError):  # it ends, or stands still
            os.set_blocking(stdin.fileno(), False)
            os.write(stdin.fileno(), struct.pack(">Q", int(until_s * 1e9)))

    def let_end(self) -> None:
        """Have it end, without waiting: it starts no more workers, and reports no deaths."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _take_back(self) -> None:
        if self._proxy_server is not None:
            self._proxy_server.close()

    def _end(self, wait_s: float) -> None:
        process = self._process
        assert process.stdout is not None
        self.let_end()
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


_started: weakref.WeakSet[PrivateDaemon] = weakref.WeakSet()


def lent_and_hosts(lent: str, engine: str) -> str:
    """Why an initializer and the hosts of a cluster do not go together."""
    return (
        f"the initializer has a {lent} of multiprocessing, which is an object of this machine, and"
        f" cluster.engine = {engine!r} has jobs run on other ones: use no hosts for this pool"
        " (GMPD_CLUSTER__ENGINE=''), or an initializer without such objects"
    )


def _let_go_in_fork() -> None:
    """A fork has the other end of each daemon's input too, and must not keep it from its end.

    Replaced, not closed: the number still belongs to the fork's copy of the file.
    """
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for daemon in list(_started):
        stdin = daemon._process.stdin
        if stdin is not None and not stdin.closed:
            os.dup2(nothing, stdin.fileno(), inheritable=False)
    os.close(nothing)


os.register_at_fork(after_in_child=_let_go_in_fork)


def _log_level(config: Config) -> str:
    """Errors only, unless configured: it writes on the program's standard error."""
    name = "daemon.log_level"
    return config.daemon.log_level if config.origin(name).layer is not Layer.DEFAULT else "error"


def _new_directory() -> str:
    try:
        directory = tempfile.mkdtemp(prefix="gmpd-", dir="/tmp")
        os.chmod(directory, 0o700)  # whatever the umask
    except OSError as error:
        raise DaemonUnreachable(
            f"a private daemon could not start: no directory for it in /tmp ({error.strerror})"
        ) from error
    return directory


def _duplicate(descriptor: int) -> int | None:
    """A duplicate of one of this process's standard streams, if it has it."""
    try:
        return inherited.above_standard(descriptor)
    except OSError:
        return None


def _initializer(
    fn: Callable[..., object], args: tuple[Any, ...], server: ProxyServer
) -> list[Any]:
    """``[kind, name, payload, call, parts]``: a FunctionRef, the bytes of its arguments, and name
    and bytes of each part of this program that they need."""
    from gmpd.mp_proxy import proxying

    with proxying(server):
        ref = describe_function(fn)
        blob = encode_call(ref.name, args, {}, fn=fn)
        if blob.buffers:  # the first message has no frames for them: arguments go in the function
            ref = describe_function(functools.partial(fn, *args))
            blob = encode_call(ref.name, (), {})
        ref = ref.needing(blob.needs)
        parts = [[part.name, part.data()] for part in ref.needs]
    return [ref.kind, ref.name, ref.payload, blob.data, parts]
