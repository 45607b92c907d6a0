"""`gmpd run`: a command as a job."""

from __future__ import annotations

import os
import sys

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import chosen, connect_or_start, function_named, job_options, json_line
from gmpd.cli.submit import show

_JOB = "gmpd.cli.shell:run_command"


@click.command(
    short_help="Run a shell command as a job.", context_settings={"ignore_unknown_options": True}
)
@click.argument("argv", metavar="-- CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@job_options
@standard
def command(
    app: App, argv: tuple[str, ...],
    retries: int | None, timeout: float | None, priority: int | None, isolate: bool,
) -> int:  # fmt: skip
    """Run CMD as a job, here and with this environment, and end as it ended.

    What it wrote is printed when it has ended. Ctrl-C ends it. 127: there is no such command, 126:
    it cannot be executed, as a shell has it.
    """
    options = chosen(retries=retries, timeout=timeout, priority=priority, isolate=isolate)
    environment = {name: value for name, value in os.environ.items() if value.isprintable()}
    with connect_or_start(app) as client:
        future = client.submit_named(
            function_named(_JOB), options, list(argv), os.getcwd(), environment
        )
        try:
            error = future.exception()
        except KeyboardInterrupt:
            future.cancel()
            raise
        if error is not None:
            return show(app, future)
        ended = future.result()
    if app.as_json:
        app.data(json_line(future.record()))
    else:
        sys.stdout.buffer.write(ended["stdout"])
        sys.stdout.flush()
        sys.stderr.buffer.write(ended["stderr"])
        sys.stderr.flush()
    status = int(ended["status"])
    return status if status >= 0 else Exit.INTERRUPTED - 2 - status  # 128 + signal, as a shell
