"""The command line's way to a daemon: a client that never unpickles.

Functions go by name, arguments and results as plain values, errors as texts: a command only prints
a job's results, so no code of a job may run here.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import click

from gmpd import rundir, spans
from gmpd.bykey import Limit, Unique
from gmpd.cli.app import App
from gmpd.cli.daemons import daemons
from gmpd.client.discovery import far, reach, start_private
from gmpd.client.futures import JobFuture
from gmpd.client.outcomes import describe
from gmpd.client.stored import UNKNOWN, ended
from gmpd.client.streams import Incoming, Stream
from gmpd.client.sync import Client
from gmpd.codec import FunctionRef, error_summary, to_plain
from gmpd.config import Layer
from gmpd.errors import DaemonUnreachable, GmpdError, NotRegistered, RemoteError
from gmpd.interpreter import current_directory
from gmpd.job import JobOptions
from gmpd.job_ids import parse_job_id
from gmpd.protocol import ADMIN, Outcome
from gmpd.submit.events import JobDone

F = TypeVar("F", bound=Callable[..., Any])

_NOT_REGISTERED = f"{NotRegistered.__module__}.{NotRegistered.__qualname__}"


def remote_error(event: JobDone, job_id: str, fn_name: str) -> GmpdError:
    """A job's own exception by its texts."""
    try:
        summary = error_summary(event.payload)
    except GmpdError as broken:
        return broken
    text = f"{summary.type}: {summary.message}" if summary.message else summary.type
    error: GmpdError = RemoteError(text, summary.type, summary.traceback)
    if summary.type == _NOT_REGISTERED:  # its text says it all, and has a code of its own
        error = NotRegistered(summary.message)
    error.add_note(describe(event, job_id, fn_name))
    return error


class PlainFuture(JobFuture):
    """A future that keeps the packed outcome of its job and never unpickles it."""

    outcome = Outcome.CANCELLED
    ran_us = 0
    details: dict[str, Any]

    def ended(self, event: JobDone) -> None:
        """The outcome has come."""
        self.outcome, self.ran_us, self.details = event.outcome, event.ran_us, event.details
        super().ended(event)

    def _open(self, event: JobDone) -> tuple[Any, BaseException | None]:
        if event.outcome is Outcome.OK:
            try:
                return to_plain(event.payload), None
            except GmpdError as error:
                self.outcome = Outcome.ERROR
                return None, error
        if event.outcome is Outcome.ERROR and "error" not in event.details:
            return None, self._remote(event)
        return super()._open(event)

    def _remote(self, event: JobDone) -> GmpdError:
        return remote_error(event, self.job_id, self._fn_name)

    def record(self) -> dict[str, Any]:
        """How it ended, for --json; only once it is done."""
        details = getattr(self, "details", {})
        if not self.cancelled():
            self.exception()  # what came is opened, and may be what cannot be shown
        out: dict[str, Any] = {"job": self.job_id, "outcome": self.outcome.name.lower()}
        if self.cancelled():
            return out
        error = self.exception()
        if error is None:
            out["value"] = self.result()
        else:
            out["error"] = {
                "type": getattr(error, "type_name", "") or type(error).__name__,
                "message": str(error),
                "traceback": getattr(error, "remote_traceback", ""),
            }
        known = {key: details[key] for key in ("p", "attempt", "waited_us") if key in details}
        return {**out, "ran_us": self.ran_us, **known}


class PlainStoredFuture(PlainFuture):
    """The end of a durable job."""

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self._stored_id = job_id

    @property
    def job_id(self) -> str:
        """The job's id, in hex."""
        return self._stored_id


class PlainIncoming(Incoming):
    """The receiving end of a stream whose job's exception is told by its texts."""

    def _error(self, event: JobDone, job_id: str) -> BaseException:
        if event.outcome is Outcome.ERROR and "error" not in event.details:
            return remote_error(event, job_id, self._name)
        return super()._error(event, job_id)


class PlainStream(Stream):
    """A stream that never unpickles its values."""

    def _new_incoming(self, name: str) -> Incoming:
        return PlainIncoming(name)

    def _decode(self, item: tuple[bytes, Any]) -> Any:
        return to_plain(item[0])


class PlainClient(Client):
    """A client whose futures are `PlainFuture`s, and whose streams are `PlainStream`s."""

    _plain = True

    def _new_future(self) -> JobFuture:
        return PlainFuture()

    def _new_stream(self, name: str) -> Stream:
        return PlainStream(self, name)

    def _outage_began(self) -> None:
        say_waiting(self._reconnect_s)

    @property
    def is_private(self) -> bool:
        """Whether its daemon ends with it."""
        return self._daemon is not None

    def stream_named(
        self, ref: FunctionRef, options: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Stream:
        """The values of the generator function that ``ref`` names; arguments are plain, too."""
        wanted = {**options, "plain": True}
        return self.stream_with(wanted, ref, args, kwargs)  # type: ignore[arg-type]

    def submit_named(
        self, ref: FunctionRef, options: dict[str, Any], *args: Any, **kwargs: Any
    ) -> PlainFuture:
        """Run the function that ``ref`` names; arguments and result are plain."""
        wanted = {**options, "plain": True}
        future = self.submit_with(wanted, ref, args, kwargs)  # type: ignore[arg-type]
        assert isinstance(future, PlainFuture)
        return future

    def enqueue_named(
        self, ref: FunctionRef, options: dict[str, Any], *args: Any, **kwargs: Any
    ) -> str:
        """Store a call of the function that ``ref`` names as a durable job; its id."""
        job_id: str = self.enqueue_with({**options, "plain": True}, ref, args, kwargs)  # type: ignore[arg-type]
        return job_id

    def stored_future(self, job_id: str) -> PlainFuture:
        """A durable job's future, once the job has ended."""
        told = self.ask_jobs("result", [parse_job_id(job_id)], None)
        if told is False:
            raise GmpdError(UNKNOWN.format(job_id))
        future = PlainStoredFuture(job_id)
        future.ended(ended(told))
        return future


class AskingClient(PlainClient):
    """A client that only asks: daemons of every version answer it."""

    _role = ADMIN


def say_waiting(bound_s: float) -> None:
    """A command waits for the next daemon."""
    with suppress(OSError):
        click.echo(f"the daemon went away: waiting up to {bound_s:g} s for the next one", err=True)


def connect(app: App) -> AskingClient:
    """To the daemon of the settings, for commands that look at it or steer it, also to one on
    another machine.

    Raises DaemonUnreachable when none runs. Settings that cannot be read are left out: they must
    not keep an operator from the daemon.
    """
    elsewhere = far(None, None, app.config_to_reach())
    if elsewhere is not None:
        return AskingClient(name="gmpd", target=elsewhere, reconnect=0)
    return connect_here(app)


def stay_here(app: App, instead: str = "") -> None:
    """For commands that start and end processes. Raises UsageError when another machine is named.

    ``instead``: the command that does it there.
    """
    if {"client.address", "client.key"} & app.flags.keys():
        hint = f"; `{instead}` does it there" if instead else ""
        raise click.UsageError(f"this command is for this machine only{hint}")


def connect_here(app: App) -> AskingClient:
    """To the running daemon of this machine; see ``connect``."""
    config = app.config_to_reach()
    directory = config.daemon.runtime_dir
    try:
        record = rundir.read_discovery(directory)
    except DaemonUnreachable as error:
        if elsewhere := len(list(daemons(directory))):
            them = "1 daemon of yours runs" if elsewhere == 1 else f"{elsewhere} of yours run"
            error.add_note(f"{them} elsewhere: `gmpd ls` says where")
        raise
    return AskingClient(name="gmpd", target=reach(record, config), reconnect=0)


def connect_or_start(app: App, *, durable: bool = False) -> PlainClient:
    """For commands that start jobs: to the daemon of the settings, or to a private one as
    `gmpd.Client` starts it, which is said on stderr and ends with the command. ``durable``: a
    private one would keep none of its jobs.

    Raises DaemonUnreachable when none runs where ``--runtime-dir`` names a place, or when
    ``client.autostart`` is off.
    """
    spans.around(os.environ)
    config = app.config()
    elsewhere = far(None, None, config)
    if elsewhere is not None:
        return PlainClient(name="gmpd", target=elsewhere)
    directory = config.daemon.runtime_dir
    try:
        target = reach(rundir.read_discovery(directory), config)
    except DaemonUnreachable as missing:
        named = config.origin("daemon.runtime_dir").layer is Layer.FLAG
        if named or durable or not config.client.autostart:
            raise
        # stdout belongs to the command's data: what jobs print goes to stderr.
        target = start_private(config, str(missing), app.say, stdout=2, modules=current_directory())
    return PlainClient(name="gmpd", target=target)


# -- from words to calls, and from values to words -------------------------------------------------


def function_named(text: str) -> FunctionRef:
    """``module:function``; a usage error for anything else."""
    module, _, name = text.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise click.UsageError(f"{text!r} names no function: write it as module:function")
    return FunctionRef("name", text, b"")


def value_of(text: str) -> Any:
    """The value of a command-line word: JSON where it parses, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def words_of(value: Any) -> str:
    """A result for people and pipes: texts as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return json_line(value)


def json_line(value: Any) -> str:
    """One line of JSON; bytes become {"base64": ...}."""
    return json.dumps(value, ensure_ascii=False, default=_bytes)


def _bytes(value: Any) -> Any:
    return {"base64": b64encode(value).decode()}


# -- options that every command that starts jobs has -----------------------------------------------


def _limit(ctx: click.Context, _param: click.Parameter, value: str | None) -> Limit | None:
    """``gmpd.Limit`` in words."""
    try:
        return None if value is None else Limit.from_text(value)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--{error}", ctx) from None


def _unique(ctx: click.Context, _param: click.Parameter, value: str | None) -> Unique | None:
    """``gmpd.Unique`` in words."""
    try:
        return None if value is None else Unique.from_text(value)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--{error}", ctx) from None


_JOB_OPTIONS = [
    click.option("--retries", type=click.IntRange(0, 1000), metavar="N", help="Further attempts."),
    click.option("--timeout", type=float, metavar="S", help="Seconds that an attempt may run."),
    click.option("--priority", type=click.IntRange(-100, 100), metavar="N", help="Higher first."),
    click.option("--isolate", is_flag=True, help="In a worker process of its own."),
    click.option(
        "--unique", callback=_unique, metavar="KEY",
        help="One job of KEY at a time; KEY:raise, KEY:replace: when there is one.",
    ),
    click.option("--delay", type=float, metavar="S", help="Seconds before it may begin."),
    click.option("--expires", type=float, metavar="S", help="Seconds after which it may not."),
    click.option(
        "--limit", callback=_limit, metavar="KEY:N", help="At most N jobs of KEY at once;"
        " KEY:N/60s: at most N starts in 60 s; KEY:3,100/60s: both.",
    ),
]  # fmt: skip


def job_options(function: F) -> F:
    """Add the options of jobs: --retries, --timeout and others."""
    for option in reversed(_JOB_OPTIONS):
        function = option(function)
    return function


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were given; a flag that was not is False. UsageError for a wrong value."""
    given = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    try:
        JobOptions(**given)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--{error}") from None
    return given
