"""The gateway's process: settings, the listening socket, its parent, its end.

Started by the daemon as ``python -m gmpd.gateway`` with its settings on standard input, one msgpack
map:

    listen           "host:port", port 0 for any            default 127.0.0.1:7412
    client_endpoint  where the coordinator takes clients    required
    hosts            further Host headers to answer to      default []
    allow            what the JSON API may change           default []
    token_file       with the token for others              default none
    parent           pid of the daemon                      default: the parent at start

When it serves, it prints one line of JSON on standard output: ``{"url": …, "pid": …}``; when it
cannot, ``{"problem": …}``, the sentence that it also says on standard error. It ends on SIGTERM,
and with its parent, however that ends; on SIGHUP it opens its log again. Exit codes: 0 ended as
told, 1 cannot listen, 78 bad settings.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import ipaddress
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack

from gmpd import inherited
from gmpd.errors import ConfigError
from gmpd.gateway.api.questions import Questions
from gmpd.gateway.api.rules import Rules
from gmpd.gateway.app import make_app, serve_until
from gmpd.gateway.latest import Latest
from gmpd.gateway.link import CoordinatorLink
from gmpd.keys import read_private
from gmpd.logfile import LogFile

#: sysexits.h EX_CONFIG: what the daemon itself ends with for a bad configuration.
EX_CONFIG: Final = 78

#: Most bytes of settings: a map of four short values.
SETTINGS_BYTES_MAX: Final = 1 << 16

#: A shorter token could be guessed.
TOKEN_CHARS_MIN: Final = 16

#: Where cores are short, work goes before watching: a third of the weight of a worker or of the
#: coordinator, which still is a quarter of a core when all are busy.
NICE: Final = 5

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that the daemon gives its gateway."""

    client_endpoint: str
    listen: str = "127.0.0.1:7412"
    hosts: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    token_file: str = ""
    parent: int = 0

    @classmethod
    def read(cls, stream: BinaryIO) -> Settings:
        """One msgpack map from ``stream``, which need not end after it; else ConfigError."""
        unpacker = msgpack.Unpacker(
            max_buffer_size=SETTINGS_BYTES_MAX, unicode_errors="surrogateescape"
        )
        while chunk := os.read(stream.fileno(), 4096):
            unpacker.feed(chunk)
            for found in unpacker:
                return cls.of(found)
        raise ConfigError("the gateway's settings (a msgpack map on standard input) are not whole")

    @classmethod
    def of(cls, found: Any) -> Settings:
        """The settings in a map; ConfigError names what is wrong with it."""
        if not isinstance(found, dict) or not isinstance(found.get("client_endpoint"), str):
            raise ConfigError("the gateway's settings must be a map with a client_endpoint")
        unknown = found.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigError(f"the gateway does not know the settings {sorted(unknown)}")
        lists = {name: tuple(found.get(name, ())) for name in ("hosts", "allow")}
        return cls(**(found | lists))


def split_listen(listen: str) -> tuple[str, int]:
    """``host:port`` in two; ConfigError when it is something else."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"http.listen is {listen!r}, not host:port (as in 127.0.0.1:7412)")
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(listen: str) -> socket.socket:
    """A listening socket; ConfigError names the holder of the port if that can be known."""
    host, port = split_listen(listen)
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
    except OSError as error:
        raise ConfigError(f"the gateway cannot listen on {listen}: {error.strerror}") from None
    # Only TIME_WAIT is overruled: Linux still refuses a port on which a process listens.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"the gateway cannot listen on {listen}: {holder_of(port)} holds that port. "
                "End it, or choose another port (port 0 takes any that is free)"
            ) from None
        raise ConfigError(f"the gateway cannot listen on {listen}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def holder_of(port: int) -> str:
    """The process that listens on a TCP port of this machine, in words."""
    inodes = set(_listening_inodes(port))
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # processes end, and others' are not ours to look into
            if os.readlink(fd).removeprefix("socket:[").removesuffix("]") in inodes:
                name = (fd.parents[1] / "comm").read_text().strip()
                return f"process {fd.parents[1].name} ({name})"
    return "another process (of another user, or of another container)"


def _listening_inodes(port: int) -> Any:
    listen_state = "0A"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == listen_state and int(columns[1].rsplit(":", 1)[1], 16) == port:
                    yield columns[9]


def hosts_of(sock: socket.socket, settings: Settings) -> list[str]:
    """The Host headers to answer to.

    On loopback: this machine's own names. Elsewhere only what the operator lists, because a name
    that is not listed is how a foreign web page would come in; ConfigError when nothing is.
    """
    address, port = sock.getsockname()[:2]
    hosts = [host.lower() for host in settings.hosts]
    if ipaddress.ip_address(address).is_loopback:
        return [*hosts, f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"]
    if not hosts:
        raise ConfigError(
            f"the gateway listens on {settings.listen}, which other machines reach: list in "
            "http.hosts the names that it is to answer to (as in gmpd.example:7412)"
        )
    # The container's own health check comes over loopback, whatever is listed.
    return [*hosts, f"127.0.0.1:{port}", f"localhost:{port}"]


def token_of(settings: Settings) -> str:
    """The token of other machines and users; empty if there is none. ConfigError for a file that
    others may read, or that holds no token."""
    if not settings.token_file:
        return ""
    token = read_private(Path(settings.token_file)).strip()
    if len(token) < TOKEN_CHARS_MIN or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"{settings.token_file} (http.token_file) holds no token of {TOKEN_CHARS_MIN} printable"
            " characters or more: `head -c 32 /dev/urandom | base64` makes one"
        )
    return token


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends; SystemExit when it has ended already.

    The parent is the *thread* that started this process: the daemon starts it from its main thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if parent and os.getppid() != parent:
        raise SystemExit(0)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM; from the line that says where on, SIGHUP is taken."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, LogFile().reopen)
    # Ctrl-C reaches the whole terminal; whether and when the gateway ends is for the daemon to say.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    sock = bind(settings.listen)
    rules = Rules(
        frozenset(hosts_of(sock, settings)), frozenset(settings.allow), token_of(settings)
    )
    link = CoordinatorLink(settings.client_endpoint)
    latest = Latest(link.snapshot)
    ask = Questions(latest, partial(CoordinatorLink, settings.client_endpoint))
    address, port = sock.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    print(json.dumps({"url": f"http://{shown}:{port}", "pid": os.getpid()}), flush=True)  # noqa: T201
    try:
        await serve_until(make_app(latest, rules, ask), sock, stop)
    finally:
        await latest.close()
        await ask.close()
        await asyncio.to_thread(link.close)


def main() -> int:
    """The process; its exit code."""
    before = os.getppid()
    inherited.settle()
    try:
        settings = Settings.read(sys.stdin.buffer)
        die_with_parent(settings.parent or before)
    except ConfigError as error:
        _say_problem(error)
        return EX_CONFIG
    os.nice(NICE)
    try:
        asyncio.run(run(settings))
    except ConfigError as error:
        _say_problem(error)
        return 1
    return 0


def _say_problem(error: ConfigError) -> None:
    """To the log, and to the daemon, which reports it to its starter."""
    sys.stderr.write(f"gmpd gateway: {error}\n")
    with suppress(BrokenPipeError):
        print(json.dumps({"problem": str(error)}), flush=True)  # noqa: T201
