"""`gmpd submit`: one function as a job."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit, exit_of
from gmpd.cli.link import (
    PlainClient,
    PlainFuture,
    chosen,
    connect_or_start,
    function_named,
    job_options,
    json_line,
    value_of,
    words_of,
)
from gmpd.cli.report import report, say_error
from gmpd.client.defer_signals import DEFER_SIGNALS
from gmpd.client.progress import DRAW_S, LOOK_S, JobBar
from gmpd.client.stored import StoredJob
from gmpd.errors import RemoteError

#: Seconds that a cancelled job gets to end: a coroutine's cleanup, the death of an isolated worker.
CANCEL_S = 1.0


class Dashes(click.Command):
    """Says what to do with arguments that look like options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(
                f"there is no option {error.option_name}; write -- before the arguments of a job"
                f" that begin with a dash: gmpd submit MODULE:FUNCTION -- {error.option_name}",
                ctx,
            ) from None


@click.command(cls=Dashes, short_help="Run a function as a job.")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.argument("args", nargs=-1)
@click.option("--kw", multiple=True, metavar="NAME=VALUE", help="An argument by name.")
@click.option("--text", is_flag=True, help="Arguments are texts, also those that read as JSON.")
@click.option("--wait", is_flag=True, help="Wait for the result: always on without --durable.")
@click.option("--durable", is_flag=True, help="Store it on disk, print its id, and do not wait.")
@job_options
@standard
def command(
    app: App, /, function: str, args: tuple[str, ...], kw: tuple[str, ...], text: bool, wait: bool,
    durable: bool, **job: Any,
) -> int:  # fmt: skip
    """Run MODULE:FUNCTION with ARGS as a job, wait for it, and print its result.

    Ctrl-C cancels the job if it has not begun, is a coroutine, or has --isolate. A running plain
    function cannot be stopped from outside: it continues, and a message says so.

    An argument that reads as JSON is that value (2, true, [1, 2]); any other is a text. Arguments
    that begin with a dash go behind --: gmpd submit math:fabs -- -1
    """
    read = str if text else value_of
    ref = function_named(function)
    named = {name: read(value) for name, value in map(_named, kw)}
    options = chosen(**job)
    with connect_or_start(app, durable=durable) as client:
        if durable:
            job_id = client.enqueue_named(ref, options, *map(read, args), **named)
            return _stored(app, client, job_id, wait=wait)
        future: PlainFuture | None = None
        try:
            with DEFER_SIGNALS:  # the future is there when an interrupt asks what becomes of it
                future = client.submit_named(ref, options, *map(read, args), **named)
            return show(app, future)
        except KeyboardInterrupt:
            if future is None:  # nothing was submitted
                raise
            app.say(f"\ninterrupted: {_called_off(client, future)}")
            client.close(wait=False)  # a job that cannot be stopped keeps no terminal waiting
            return Exit.INTERRUPTED


def _stored(app: App, client: PlainClient, job_id: str, *, wait: bool) -> int:
    """It is on disk: print its id, or wait for its end."""
    if wait:
        if not app.as_json and sys.stderr.isatty():
            _watch_stored(client.job(job_id))
        try:
            return show(app, client.stored_future(job_id))
        except KeyboardInterrupt:
            app.say(f"\ninterrupted: job {job_id} continues; `gmpd jobs show {job_id}` has its end")
            client.close(wait=False)
            return Exit.INTERRUPTED
    if app.as_json:
        app.json({"job": job_id})
    else:
        app.data(job_id)
        app.say(f"`gmpd jobs show {job_id}` shows its state")
    return Exit.OK


def _called_off(client: PlainClient, future: PlainFuture) -> str:
    """Cancel it; returns the outcome."""
    future.cancel()
    if not future.ended_within(CANCEL_S):
        if client.is_private:
            return f"job {future.job_id} ends with its private daemon"
        return (
            f"job {future.job_id} continues in the daemon: a running plain function cannot be"
            f" stopped (one with --isolate can be killed)"
        )
    return "the job was cancelled" if future.cancelled() else "the job had ended already"


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.UsageError(f"--kw {text!r}: write it as NAME=VALUE")
    return name, value


def show(app: App, future: PlainFuture) -> int:
    """Wait for it, print how it ended; the exit code."""
    if not app.as_json and sys.stderr.isatty():
        _watch(future)
    error = future.exception()
    if error is None:
        app.data(json_line(future.record()) if app.as_json else words_of(future.result()))
        return Exit.OK
    if app.as_json:
        app.data(json_line(future.record()))
    else:
        show_error(error)
    return code_of(error)


def _watch(future: PlainFuture) -> None:
    """Draw how far it is until it has ended."""
    bar = JobBar()
    try:
        while not future.done():
            future.ended_within(DRAW_S)
            bar.show(future.progress)
    finally:
        bar.stop()


def _watch_stored(job: StoredJob) -> None:
    """As ``_watch``, by questions."""
    bar = JobBar()
    try:
        while (info := job.info())["ended"] is None:
            bar.show(info["progress"])
            time.sleep(LOOK_S)
    except LookupError:
        pass  # it was removed, which the wait for its result tells
    finally:
        bar.stop()


def show_error(error: BaseException) -> None:
    """How a job failed, on stderr: with the worker's traceback where there is one."""
    if not isinstance(error, RemoteError):
        report(error)
        return
    if "\n  File " in error.remote_traceback:  # or it says no more than the next line
        click.echo(error.remote_traceback.rstrip("\n"), err=True)
    say_error(str(error), getattr(error, "__notes__", []))


def code_of(error: BaseException) -> Exit:
    """The command's exit code for a job's end: NOT_FOUND, TIMEOUT, ..., else JOB_FAILED."""
    code = exit_of(error)
    return Exit.JOB_FAILED if code in (Exit.BUG, Exit.USAGE) else code
