"""`gmpd run`: a command as a job."""

from __future__ import annotations

import os
import sys
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
)
from gmpd.cli.submit import code_of, show, show_error
from gmpd.client.defer_signals import DEFER_SIGNALS

_WHOLE = "gmpd.cli.shell:run_command"
_STREAM = "gmpd.cli.shell:stream_command"


@click.command(
    short_help="Run a shell command as a job.", context_settings={"ignore_unknown_options": True}
)
@click.argument("argv", metavar="-- CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@job_options
@standard
def command(
    app: App, /, argv: tuple[str, ...],
    **job: Any,
) -> int:  # fmt: skip
    """Run CMD as a job in this directory and environment, and exit with its status.

    Its output is printed as it arrives; with --retries or --json when it has ended, since a second
    attempt writes everything again. Ctrl-C ends it. As in a shell, 127 means that there is no such
    command, and 126 that it cannot be executed.
    """
    options = chosen(**job)
    environment = {name: value for name, value in os.environ.items() if value.isprintable()}
    call = (list(argv), os.getcwd(), environment)
    with connect_or_start(app) as client:
        if app.as_json or job["retries"]:
            return _whole(app, client, options, call)
        return _streamed(client, options, call)


def _streamed(client: PlainClient, options: dict[str, Any], call: tuple[Any, ...]) -> int:
    status = 0
    try:
        with client.stream_named(function_named(_STREAM), options, *call) as parts:
            for name, part in parts:
                if name == "status":
                    status = int(part)
                else:
                    _write(name, part)
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - however the job ended; its own errors are texts
        show_error(error)
        return code_of(error)
    return _exit_status(status)


def _whole(app: App, client: PlainClient, options: dict[str, Any], call: tuple[Any, ...]) -> int:
    future: PlainFuture | None = None
    try:
        with DEFER_SIGNALS:
            future = client.submit_named(function_named(_WHOLE), options, *call)
        error = future.exception()
    except KeyboardInterrupt:
        if future is not None:
            future.cancel()
        raise
    if error is not None:
        return show(app, future)
    ended = future.result()
    if app.as_json:
        app.data(json_line(future.record()))
    else:
        _write("stdout", ended["stdout"])
        _write("stderr", ended["stderr"])
    return _exit_status(int(ended["status"]))


def _write(name: str, part: bytes) -> None:
    stream = sys.stdout if name == "stdout" else sys.stderr
    stream.buffer.write(part)
    stream.flush()


def _exit_status(status: int) -> int:
    """As a shell: 128 + the signal for a command that a signal ended."""
    return status if status >= 0 else Exit.INTERRUPTED - 2 - status
