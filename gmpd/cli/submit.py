"""`gmpd submit`: one function as a job."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import (
    PlainFuture,
    chosen,
    connect,
    function_named,
    job_options,
    json_line,
    value_of,
    words_of,
)
from gmpd.cli.report import report, say_error
from gmpd.errors import RemoteError


@click.command(short_help="Run a function as a job.")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.argument("args", nargs=-1)
@click.option("--kw", multiple=True, metavar="NAME=VALUE", help="An argument by name.")
@click.option("--text", is_flag=True, help="Arguments are texts, also those that read as JSON.")
@click.option(
    "--wait", is_flag=True, help="Wait for the result: always so until jobs can be durable."
)
@job_options
@standard
def command(
    app: App, function: str, args: tuple[str, ...], kw: tuple[str, ...], text: bool, wait: bool,
    retries: int | None, timeout: float | None, priority: int | None, isolate: bool,
) -> int:  # fmt: skip
    """Run MODULE:FUNCTION with ARGS as a job, wait for it, and print its result.

    An argument that reads as JSON is that value (2, true, [1, 2]); any other is a text.
    """
    read = str if text else value_of
    ref = function_named(function)
    named = {name: read(value) for name, value in map(_named, kw)}
    options = chosen(retries=retries, timeout=timeout, priority=priority, isolate=isolate)
    with connect(app) as client:
        future = client.submit_named(ref, options, *map(read, args), **named)
        return show(app, future)


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.UsageError(f"--kw {text!r}: write it as NAME=VALUE")
    return name, value


def show(app: App, future: PlainFuture) -> int:
    """Wait for it, print how it ended; the exit code."""
    error = future.exception()
    if app.as_json:
        app.data(json_line(future.record()))
    elif error is None:
        app.data(words_of(future.result()))
    elif isinstance(error, RemoteError):
        click.echo(error.remote_traceback.rstrip("\n"), err=True)
        say_error(str(error), getattr(error, "__notes__", []))
    else:
        return report(error)
    return Exit.OK if error is None else Exit.JOB_FAILED
