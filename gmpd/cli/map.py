"""`gmpd map`: a function over the lines of stdin, like xargs, on warm workers.

A thread reads and submits, the main thread prints in order; a semaphore between them bounds what is
under way, so an endless input needs no more memory than a short one.
"""

from __future__ import annotations

import json
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import (
    PlainClient,
    PlainFuture,
    chosen,
    connect_or_start,
    function_named,
    job_options,
    json_line,
    words_of,
)
from gmpd.client.hints import MapTotals, in_words
from gmpd.client.hints import of as hints_of
from gmpd.errors import DaemonUnreachable, GmpdError, NotRegistered

#: Lines under way: read, and not yet printed. Enough to keep hundreds of cores busy.
WINDOW = 8192
#: Bytes asked of stdin at once.
CHUNK = 1 << 16
#: Seconds between two looks of the progress line.
PROGRESS_S = 0.2


@dataclass
class Tally:
    """The progress of printing."""

    done: int = 0
    failed: int = 0
    began: float = field(default_factory=time.monotonic)
    ran_us: int = 0
    result_bytes: int = 0
    shown: float = 0.0

    def add(self, future: PlainFuture, error: BaseException | None) -> None:
        """A line has its result."""
        self.done += 1
        self.failed += error is not None
        self.ran_us += future.ran_us
        self.result_bytes += future._nbytes

    def hints(self, function: str) -> Iterator[str]:
        """Remedies, if most of the time went into the way of the lines."""
        totals = MapTotals(function, self.done, self.ran_us / 1e6, result_bytes=self.result_bytes)
        totals.fix = "each line is a job: put more work into one"
        return map(in_words, hints_of(totals))

    def line(self) -> str:
        if not self.done:
            return "no lines"
        rate = self.done / max(1e-9, time.monotonic() - self.began)
        return f"{self.done - self.failed:,} ok, {self.failed:,} failed, {rate:,.0f}/s"


def lines_of(fd: int, longest: int) -> Iterator[str]:
    """The lines of a descriptor as texts, without their ends.

    Reads it directly: a thread that waits in ``sys.stdin`` could not be left behind at the end.
    UsageError for what is not UTF-8, or longer than ``longest`` bytes.
    """
    rest, number = b"", 0
    while chunk := os.read(fd, CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield _text(line, number)
        if len(rest) > longest:
            raise click.UsageError(
                f"line {number + 1} is longer than {longest} bytes (limits.value_bytes)"
            )
    if rest:
        yield _text(rest, number + 1)


def _text(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"line {number} is not UTF-8: {error.reason}") from None


class Feeder:
    """Submits lines while there is room; their futures come out of `futures` in order."""

    def __init__(self, submit: Callable[[str], PlainFuture], longest: int) -> None:
        self._submit = submit
        self._longest = longest
        self.room = threading.Semaphore(WINDOW)
        #: Futures, then None, or the error that ended it.
        self.futures: queue.SimpleQueue[PlainFuture | BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="gmpd-map", daemon=True).start()

    def _run(self) -> None:
        try:
            for line in lines_of(sys.stdin.fileno(), self._longest):
                self.room.acquire()
                self.futures.put(self._submit(line))
            self.futures.put(None)
        except BaseException as error:  # noqa: BLE001 - carried to the main thread, which raises it
            self.futures.put(error)


@click.command(short_help="Run a function over the lines of stdin.")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--values", is_flag=True, help="Each line is a JSON value, not a text.")
@job_options
@standard
def command(
    app: App, /, function: str, values: bool,
    **job: Any,
) -> int:  # fmt: skip
    """Run MODULE:FUNCTION once for each line of stdin, on all Ps; results are lines, in order.

    A result that is no text is printed as JSON; a line whose job failed gives an empty line, and
    its error on stderr. With --json each line is an object with outcome, value or error, and times.
    """
    ref = function_named(function)
    options = chosen(**job)
    longest = app.config().limits.value_bytes
    client = connect_or_start(app)
    tally = Tally()
    whole = False

    def submit(line: str) -> PlainFuture:
        return client.submit_named(ref, options, json.loads(line) if values else line)

    try:
        _print_all(app, Feeder(submit, longest), tally)
        whole = True
        for hint in tally.hints(function):
            app.say(f"hint: {hint}")
    except KeyboardInterrupt:
        app.say(f"\ninterrupted: {tally.line()}; what had not started was cancelled")
        return Exit.INTERRUPTED
    finally:
        _leave(client, cancel=not whole)
    return Exit.JOB_FAILED if tally.failed else Exit.OK


def _leave(client: PlainClient, *, cancel: bool) -> None:
    client.close(wait=False, cancel=cancel)


def _print_all(app: App, feeder: Feeder, tally: Tally) -> None:
    progress = sys.stderr.isatty() and app.verbosity >= 0 and _goes_to_a_file()
    while True:
        if feeder.futures.empty():
            sys.stdout.flush()
        future = feeder.futures.get()
        if future is None:
            break
        if isinstance(future, ValueError):
            raise click.UsageError(f"line {tally.done + 1} is not JSON: {future}")
        if isinstance(future, BaseException):
            raise future
        _print(app, future, tally)
        feeder.room.release()
        if progress and time.monotonic() - tally.shown > PROGRESS_S:
            tally.shown = time.monotonic()
            click.echo(f"\r{tally.line()}\x1b[K", err=True, nl=False)
    sys.stdout.flush()
    if progress:
        click.echo(f"\r{tally.line()}\x1b[K", err=True)
    elif not tally.done:
        app.say(tally.line())


def _goes_to_a_file() -> bool:
    """Whether results cannot appear on this terminal, where a counter would be written into their
    lines: those in a pipe may, `gmpd map f | cat` for one.
    """
    mode = os.fstat(sys.stdout.fileno()).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not sys.stdout.isatty())


def _print(app: App, future: PlainFuture, tally: Tally) -> None:
    if not future.done():
        sys.stdout.flush()  # a reader sees all results so far before a long job
    error = future.exception()
    tally.add(future, error)
    if isinstance(error, DaemonUnreachable | NotRegistered):  # so would every other line
        raise error
    out: Any = None
    if app.as_json:
        out = json_line({"line": tally.done, **future.record()})
    else:
        out = words_of(future.result()) if error is None else ""
    sys.stdout.write(out + "\n")
    if error is not None and not app.as_json:
        kind = "" if not isinstance(error, GmpdError) else f"{type(error).__name__}: "
        kind = "" if getattr(error, "type_name", "") else kind
        app.say(f"line {tally.done}: {kind}{error}")
