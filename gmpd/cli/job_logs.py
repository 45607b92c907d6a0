"""`gmpd jobs logs`: the output of a job, also while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.client.stored import log_text
from gmpd.job_ids import parse_job_id

#: Seconds between two looks at the output of a job that is followed.
FOLLOW_S = 0.25


def id_of_word(word: str) -> bytes:
    """An id that was typed. Raises UsageError."""
    try:
        return parse_job_id(word)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@click.command(short_help="Print what a job has printed.")
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt.")
@standard
def logs(app: App, job_id: str, follow: bool, attempt: int | None) -> int:
    """Print the output and the logging of a job: of the attempt that runs, or of the last one.

    Durable jobs are captured, others if they were submitted with capture=True.
    """
    id_ = id_of_word(job_id)
    with connect(app) as client:
        reader = LogReader(partial(client.ask_jobs, "log", [id_], None), attempt)
        try:
            told = reader.read(app.print)
            while follow and not reader.is_over(told):
                time.sleep(FOLLOW_S)
                told = reader.read(app.print)
        except LookupError:
            app.say(f"the daemon knows no job {id_.hex()}: it was removed, or never there")
            return Exit.NOT_FOUND
    if app.as_json:
        app.json({"id": id_.hex(), "attempt": reader.n, "log": reader.text})
        return Exit.OK
    _say_about_log(app, reader, told)
    return Exit.OK


def _say_about_log(app: App, reader: LogReader, told: dict[str, Any]) -> None:
    if reader.n > told["last"] + told["runs"]:
        app.say(f"attempt {reader.n} has not begun")
    elif not reader.at:
        app.say(f"attempt {reader.n} has printed nothing, or is not captured")
    elif told["last"] > 1:
        app.say(f"this was attempt {reader.n} of {told['last'] + told['runs']}: --attempt N")


class LogReader:
    """Reads the output of a job, attempt by attempt. ``ask`` asks the daemon."""

    def __init__(self, ask: Callable[..., Any], n: int | None) -> None:
        self._ask = ask
        self._only = n is not None
        self.n = n or 0
        #: Bytes of this attempt that were read, and the text.
        self.at = 0
        self.text = ""

    def read(self, put: Callable[[str], None]) -> dict[str, Any]:
        """Read what there is; ``put`` gets it. Raises LookupError."""
        told: dict[str, Any] | None = self._ask(n=self.n or None, after=self.at)
        if told is None:
            raise LookupError
        if told["end"] > self.at:
            text = log_text(told, self.at)
            self.text += text
            put(text)
        self.n, self.at = told["n"] or 1, told["end"]
        return told

    def is_over(self, told: dict[str, Any]) -> bool:
        """Whether nothing follows; else the next attempt's is read next if this one has ended."""
        if told["runs"] or told["last"] < self.n:
            return bool(told["over"])
        if self._only or (told["over"] and told["last"] == self.n):
            return True
        self.n, self.at = self.n + 1, 0
        return False
