"""`gmpd doctor`: problems of this machine that concern gmpd, and how to solve them.

Changes nothing. It asks a running daemon for its state; where none can start, it reports the rest.
"""

from __future__ import annotations

import errno
import importlib
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click

from gmpd import compiled, cpus, interpreter, pythons, rundir
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import AskingClient, PlainClient
from gmpd.client.discovery import far, reach
from gmpd.config import Config, split_address
from gmpd.errors import (
    ConfigError,
    DaemonUnreachable,
    GmpdError,
    NotAllowed,
    UnsupportedPython,
)
from gmpd.findings import Finding, Level, findings
from gmpd.keys import KeyDirectory
from gmpd.status import read

#: Descriptors that a daemon uses besides one for each session: sockets and pipes of workers,
#: journal, log, and the reserve that keeps libzmq from aborting at the limit.
FILES_BESIDES = 256

#: Clock sources that are read without a system call. With another one a timestamp costs
#: about 1 µs.
FAST_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")

#: As long as any socket's name in the runtime directory.
LONGEST_SOCKET = "coordinator"


def _packages(config: Config) -> Iterator[Finding]:
    missing, found = [], []
    for need in requires("gmpd") or []:
        if "extra ==" in need:
            continue
        name = next(iter(need.replace(">", " ").replace("=", " ").replace("<", " ").split()))
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(need)
    python = f"Python {sys.version.split()[0]}"
    if missing:
        yield Finding(
            "packages", Level.BAD, f"missing: {', '.join(missing)}", f"pip install '{missing[0]}'"
        )
    yield Finding("packages", Level.OK, ", ".join([python, *found]))


def _python(config: Config) -> Iterator[Finding]:
    here = f"Python {pythons.running()}"
    if not pythons.has_gil():
        fix = "PYTHON_GIL=1 in the environment, or python -X gil=1"
        yield Finding("python", Level.BAD, f"{here} without the GIL, which gmpd needs", fix)
    elif words := pythons.untried():
        yield Finding("python", Level.WARN, words, "use a newer gmpd, if there is one")
    else:
        yield Finding("python", Level.OK, f"{here}, one of the versions that gmpd was tried on")
    try:
        importlib.import_module("gmpd.runtime.internals")
    except UnsupportedPython as error:
        yield Finding("python", Level.BAD, str(error))


def _core(config: Config) -> Iterator[Finding]:
    """Whether the core of gmpd is compiled, and why not."""
    variant = compiled.variant()
    if variant.is_stale:
        fix = "install gmpd again (an editable one: GMPD_PURE=0 pip install -e .)"
        what = f"{variant}, compiled modules are not used: {variant.why}"
        yield Finding("core", Level.WARN, what, fix)
    else:
        yield Finding("core", Level.OK, ": ".join(filter(None, (str(variant), variant.why))))


def _cores(config: Config) -> Iterator[Finding]:
    facts = cpus.read_facts()
    quota = "no quota" if facts.quota is None else f"a quota of {facts.quota:g}"
    seen = f"{facts.cpus} CPUs, {len(facts.allowed)} allowed, {quota}"
    procs = config.daemon.procs or facts.procs
    if procs > len(facts.allowed):
        yield Finding(
            "cores",
            Level.WARN,
            f"{seen}, but daemon.procs = {procs}: workers would share cores",
            f"gmpd serve --procs {facts.procs}",
        )
    else:
        yield Finding("cores", Level.OK, f"{seen}: {procs} Ps")


def _files(config: Config) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = config.limits.sessions + FILES_BESIDES
    if soft >= need:
        yield Finding("open files", Level.OK, f"{soft} allowed, {need} needed")
    elif hard >= need or hard == resource.RLIM_INFINITY:
        yield Finding(
            "open files",
            Level.WARN,
            f"{soft} allowed, {need} needed for {config.limits.sessions} sessions",
            f"ulimit -n {need}",
        )
    else:
        yield Finding(
            "open files",
            Level.BAD,
            f"{soft} allowed, at most {hard}; {need} needed for {config.limits.sessions} sessions",
            "raise the hard limit (LimitNOFILE=), or lower limits.sessions",
        )


def _runtime_dir(config: Config) -> Iterator[Finding]:
    directory = config.daemon.runtime_dir
    try:
        rundir.endpoint(directory, LONGEST_SOCKET)
        if os.path.lexists(directory):
            rundir.check(directory)
            rundir.check_room(directory, "daemon.runtime_dir")
        elif not os.access(os.path.dirname(directory), os.W_OK):
            raise ConfigError(f"{directory} is missing and cannot be made")
    except ConfigError as error:
        yield Finding("runtime dir", Level.BAD, str(error))
    else:
        yield Finding(
            "runtime dir", Level.OK, f"{directory} ({config.origin('daemon.runtime_dir')})"
        )


def _state_dir(config: Config) -> Iterator[Finding]:
    directory = Path(config.daemon.state_dir)
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if os.access(there, os.W_OK | os.X_OK):
        try:
            rundir.check_room(there, "daemon.state_dir")
        except ConfigError as error:
            yield Finding("state dir", Level.BAD, str(error))
        else:
            yield Finding("state dir", Level.OK, str(directory))
    else:
        yield Finding(
            "state dir",
            Level.BAD,
            f"{directory} cannot be written, so no durable job can be kept",
            "set daemon.state_dir or $XDG_STATE_HOME to a directory of yours",
        )


def _daemon(config: Config) -> Iterator[Finding]:
    try:
        record = rundir.read_discovery(config.daemon.runtime_dir)
    except DaemonUnreachable:
        yield Finding("daemon", Level.OK, "none runs here", "gmpd up")
    except ConfigError as error:
        yield Finding("daemon", Level.BAD, str(error))
    else:
        yield from _state_of(record, config)


def _state_of(record: rundir.Discovery, config: Config) -> Iterator[Finding]:
    """The daemon's own status."""
    who = f"pid {record.pid}, version {record.version}"
    try:
        with PlainClient(name="gmpd", target=reach(record, config)) as client:
            seen = read(client.call("status", timeout=config.client.connect_timeout))
    except GmpdError as error:
        yield Finding("daemon", Level.BAD, f"{who}: {error}", "gmpd down, then gmpd up")
        return
    if seen.variant not in ("", compiled.variant().name):
        what = f"{seen.variant} in the daemon of pid {seen.pid}, which is no other version"
        yield Finding("core", Level.OK, what)
    yield from findings(seen)


def _imports(config: Config) -> Iterator[Finding]:
    """Whether workers will find what they are to import. The module itself is not run here."""
    for name in config.daemon.imports:
        top = name.partition(".")[0]
        with_jobs = [*interpreter.current_directory(), *sys.path]
        if top in sys.builtin_module_names or PathFinder.find_spec(top, with_jobs) is not None:
            yield Finding("imports", Level.OK, name)
            continue
        yield Finding(
            "imports",
            Level.BAD,
            f"no module {top} is found ({config.origin('daemon.imports')}), so no worker can start",
            "install it, or start the daemon in the directory where it lies",
        )


def _http(config: Config) -> Iterator[Finding]:
    if config.http.enabled:
        yield _listening("http", config.http.listen)


def _listening(section: str, listen: str) -> Finding:
    """Whether the daemon can listen there, or does."""
    host, port = split_address(listen)
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(infos[0][0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(infos[0][4])
    except OSError as error:
        return _port_problem(section, listen, port, error)
    return Finding(section, Level.OK, f"{listen} is free")


def _port_problem(section: str, listen: str, port: int, error: OSError) -> Finding:
    fix = f"set {section}.listen"
    if error.errno != errno.EADDRINUSE:
        return Finding(section, Level.BAD, f"{listen}: {error.strerror}", fix)
    holder = port_holder(port)
    if holder is not None and "gmpd" in _command(holder):
        return Finding(section, Level.OK, f"{listen} is served by gmpd (pid {holder})")
    who = f"pid {holder}, {_command(holder)}" if holder else "a process of another user"
    return Finding(
        section, Level.BAD, f"{listen} is taken by {who}", f"end it, or {fix} (port 0: any)"
    )


def _keys(config: Config) -> Iterator[Finding]:
    """Keys of other machines, and the port that they connect to."""
    directory = KeyDirectory(config.tcp.keys)
    if not config.tcp.enabled and not directory.is_there:
        return
    try:
        directory.server_secret()
        names = [client.name for client in directory.clients()]
    except ConfigError as error:
        yield Finding("keys", Level.BAD, str(error))
    else:
        fix = "" if names else "gmpd keys add NAME"
        level = Level.OK if names else Level.WARN
        what = f"clients that may connect: {', '.join(names) or 'none'}"
        yield Finding("keys", level, f"{directory.path}: {what}", fix)
    if config.tcp.enabled:
        yield _listening("tcp", config.tcp.listen)


def _elsewhere(config: Config) -> Iterator[Finding]:
    """The daemon on another machine that the settings name."""
    try:
        target = far(None, None, config)
        if target is None:
            return
        with AskingClient(name="gmpd", target=target) as client:
            client.call("ping", timeout=config.client.connect_timeout)
    except (ConfigError, NotAllowed, DaemonUnreachable) as error:
        yield Finding("elsewhere", Level.BAD, str(error))
    else:
        yield Finding("elsewhere", Level.OK, f"{target.endpoint} takes this client's key")


def port_holder(port: int) -> int | None:
    """The pid that listens on a TCP port of this machine, if it may be known."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # LISTEN
                inodes.add(f"socket:[{fields[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                return int(link.parts[2])
        except OSError:  # gone, or not ours to see
            continue
    return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "ended meanwhile"


def _clock(config: Config) -> Iterator[Finding]:
    source = _read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if not source:
        return
    if source in FAST_CLOCKS:
        yield Finding("clock", Level.OK, source)
    else:
        yield Finding(
            "clock",
            Level.WARN,
            f"{source} makes every timestamp a system call",
            "boot with clocksource=tsc, where the machine has one",
        )


def _huge_pages(config: Config) -> Iterator[Finding]:
    if "[always]" in _read("/sys/kernel/mm/transparent_hugepage/enabled"):
        yield Finding(
            "huge pages",
            Level.WARN,
            "transparent huge pages are always on: workers look larger than they are",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    _python, _packages, _core, _cores, _files, _runtime_dir, _state_dir, _imports, _daemon, _http,
    _keys, _elsewhere, _clock,
    _huge_pages,
)  # fmt: skip


def examine(app: App) -> list[Finding]:
    """Everything that can be looked at; wrong settings are a finding, too."""
    try:
        config = app.config()
        found = []
    except ConfigError as error:
        fix = "mend them, and see `gmpd config check`"
        found = [Finding("settings", Level.BAD, line, fix) for line in str(error).splitlines()]
        config = Config.load(env={}, files=[])
    for check in CHECKS:
        found += check(config)
    return found


_SHADE = {Level.OK: "green", Level.WARN: "yellow", Level.BAD: "red"}


@click.command(short_help="Check this machine for problems.")
@standard
def command(app: App) -> int:
    """Look for what is wrong with this machine, and say how to mend it.

    Ends with 78 when something would keep a daemon from working.
    """
    found = examine(app)
    if app.as_json:
        app.json([asdict(finding) | {"level": finding.level.value} for finding in found])
    else:
        for finding in found:
            level = click.style(f"{finding.level.value:<4}", fg=_SHADE[finding.level])
            app.data(f"{level} {finding.about:<12} {finding.what}")
            if finding.fix and finding.level is not Level.OK:
                app.data(f"{'':17} fix: {finding.fix}")
    return Exit.CONFIG if any(f.level is Level.BAD for f in found) else Exit.OK
