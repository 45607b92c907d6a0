"""`gmpd up`: the daemon, in the background."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import click

from gmpd import interpreter, rundir
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect_here, stay_here
from gmpd.cli.page import open_page
from gmpd.cli.report import say_error
from gmpd.cli.serve import network_flags
from gmpd.config import Config
from gmpd.cpus import check_procs
from gmpd.errors import ConfigError, DaemonUnreachable
from gmpd.private_dir import make_private
from gmpd.status import read

#: Seconds between two looks for the new daemon: starting one takes about half a second.
LOOK_S = 0.02
#: Seconds that the gateway gets, beyond the workers, to say where it serves: it takes no work, so
#: only the person at the terminal waits for it.
GATEWAY_S = 5.0
#: Of a daemon that could not start, the last bytes of what it said are shown.
TAIL_BYTES = 2000


@click.command(short_help="Start the daemon in the background.")
@click.option("--procs", type=int, metavar="N", help="How many Ps; 0: as the machine allows.")
@click.option("--import", "imports", multiple=True, metavar="MODULE", help="As for gmpd serve.")
@click.option("--tcp", metavar="HOST:PORT", help="As for gmpd serve.")
@click.option("--open", "opens", is_flag=True, help="Open its live page in a browser.")
@standard
def command(
    app: App, procs: int | None, imports: tuple[str, ...], tcp: str | None, opens: bool
) -> int:
    """Start the daemon in the background and wait until it is ready.

    A running daemon is left as it is; the exit code is then 0 if it takes work, 6 if it drains or
    is degraded.

    Jobs find the modules that are installed, on PYTHONPATH, and in the directory where you start
    it: start it where your code is. It logs to gmpd.log in the state directory.
    """
    stay_here(app)
    config = app.config(
        {"daemon.procs": procs, "daemon.imports": imports or None, **network_flags(tcp)}
    )
    check_procs(config.daemon.procs)
    record = _running(config)
    if record is not None:
        code = _already(app, config, record.pid)
        if code is not None:
            if opens:
                open_page(app, record.http)
            return code
    flags = ["--runtime-dir", config.daemon.runtime_dir]
    flags += ["--config", app.config_file] if app.config_file else []
    flags += ["--procs", str(procs)] if procs is not None else []
    flags += ["--tcp", tcp] if tcp is not None else []
    flags += [word for name in imports for word in ("--import", name)]
    log = _log_file(config)
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = subprocess.Popen(
            interpreter.command("gmpd.cli", "serve", *flags), env=interpreter.environment(),
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    begun = _await(app, config, process, log, start)
    if opens and begun == Exit.OK:
        open_page(app, rundir.read_discovery(config.daemon.runtime_dir).http)
    return begun


def _running(config: Config) -> rundir.Discovery | None:
    try:
        return rundir.read_discovery(config.daemon.runtime_dir)
    except DaemonUnreachable:
        return None


def _already(app: App, config: Config, pid: int) -> Exit | None:
    """The exit code beside a daemon that runs already; None when it has just ended."""
    try:
        with connect_here(app) as client:
            state = read(client.call("status", timeout=config.client.connect_timeout)).state
    except DaemonUnreachable:
        if _running(config) is None:
            return None
        raise
    match state:
        case "running":
            app.say(f"a daemon runs already (pid {pid}); look with `gmpd status`")
            return Exit.OK
        case "draining":
            app.say(
                f"a daemon (pid {pid}) drains: it finishes what runs and takes no more work;"
                f" `gmpd down` waits for its end, then `gmpd up` starts another"
            )
        case _:
            app.say(
                f"a daemon runs already (pid {pid}), but is {state}: `gmpd status` and its log say"
                f" more, `gmpd down` ends it"
            )
    return Exit.REJECTED


def _log_file(config: Config) -> Path:
    path = Path(config.daemon.state_dir)
    try:
        make_private(path)
    except OSError as error:
        raise ConfigError(
            f"the state directory {path} cannot be made: {error.strerror}; set daemon.state_dir"
        ) from error
    rundir.check_room(path, "daemon.state_dir")
    return path / "gmpd.log"


def _await(
    app: App, config: Config, process: subprocess.Popen[bytes], log: Path, start: int
) -> int:
    deadline = time.monotonic() + config.daemon.start_timeout
    while time.monotonic() < deadline:
        record = _running(config)
        if record is not None:
            _say_up(app, _with_gateway(config, record), log)
            return Exit.OK
        code = process.poll()
        if code is not None:
            say_error("the daemon could not start:", _reason(_tail(log, start)))
            app.say(f"its log is {log}")
            return code if code > 0 else Exit.BUG
        time.sleep(LOOK_S)
    process.terminate()
    process.wait()
    raise DaemonUnreachable(
        f"the daemon was not ready within {config.daemon.start_timeout:g} s"
        f" (daemon.start_timeout) and was ended; its log is {log}"
    )


def _with_gateway(config: Config, record: rundir.Discovery) -> rundir.Discovery:
    """The record once it says where the gateway serves, or that it does not."""
    deadline = time.monotonic() + GATEWAY_S
    while record.http is None and record.http_problem is None and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        record = _running(config) or record
    return record


def _say_up(app: App, record: rundir.Discovery, log: Path) -> None:
    where = f", live page at {record.http}/" if record.http else ""
    if record.http_problem:
        where = f" without metrics ({record.http_problem})"
    app.say(f"gmpd is up (pid {record.pid}){where}; next: `gmpd status`, `gmpd down`")
    app.say(f"it logs to {log}", level=1)


def _reason(lines: list[str]) -> list[str]:
    """Its last output, from the word that begins an error; all of it when there is none."""
    at = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return lines[at[-1] :] if at else lines


def _tail(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        at = max(start, os.fstat(file.fileno()).st_size - TAIL_BYTES)
        file.seek(at)
        lines = file.read().decode(errors="replace").splitlines()
    return lines if at == start else lines[1:]  # the first of a tail is rarely whole
