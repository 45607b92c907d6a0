"""`gmpd explain`: why a job waits, or how it ended."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.job_logs import id_of_word
from gmpd.cli.link import connect
from gmpd.client.stored import StoredJob
from gmpd.daemon.logs import visible


@click.command(short_help="Explain the state of a job.")
@click.argument("job_id", metavar="ID")
@standard
def command(app: App, job_id: str) -> int:
    """Say in one sentence why a job waits or how it ended, and what may help."""
    with connect(app) as client:
        try:
            told = StoredJob(id_of_word(job_id), client.ask_jobs, client.call).explain()
        except LookupError as error:
            app.say(str(error))
            return Exit.NOT_FOUND
    if app.as_json:
        app.json({
            "reason": told.reason.value, "text": told.text, "hint": told.hint,
            "facts": dict(told.facts),
        })  # fmt: skip
        return Exit.OK
    app.data(visible(f"{told.text}."))
    if told.hint:
        app.data(f"  {told.hint}")
    return Exit.OK
