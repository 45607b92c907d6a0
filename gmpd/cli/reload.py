"""`gmpd reload`: new workers with the code and settings of now, without losing a job."""

from __future__ import annotations

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect


@click.command(short_help="Replace the workers, read the settings again.")
@click.option("--no-wait", is_flag=True, help="Do not wait until every worker has a successor.")
@standard
def command(app: App, no_wait: bool) -> int:
    """Read the settings again, open the log again, and replace every worker, one at a time.

    Jobs that run end in their workers; new ones run the code of now. Wait for this command before
    you restart clients with new code. When a new worker cannot start (a module does not import),
    the workers stay as they are, and the exit code is 6; wrong settings change nothing. The log
    names settings that need a restart. SIGHUP to the daemon does the same.
    """
    with connect(app) as client:
        answer = client.call("reload", wait=not no_wait, timeout=30.0 if no_wait else None)
    workers, problem = answer["workers"], answer.get("problem", "")
    if app.as_json:
        app.json(answer)
    if problem:
        app.say(f"the workers stay as they are, as no successor starts: {problem}")
        return Exit.REJECTED
    if no_wait:
        app.say(f"{workers} workers are being replaced; `gmpd status` shows how far it is")
    else:
        app.say(f"{workers} workers were replaced")
    return Exit.OK
