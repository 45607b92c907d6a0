"""`gmpd cron`: list periodic jobs, run one now, pause and resume."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from gmpd.cli.app import App, help_alone, standard
from gmpd.cli.exits import Exit
from gmpd.cli.link import connect
from gmpd.client.stored import readable


@click.group(short_help="List and run periodic jobs.", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List periodic jobs, run one now, pause and resume them.

    \b
    A daemon runs the functions of the modules that it imports (--import) which are
    decorated with @gmpd.cron("*/5 * * * *", tz="Europe/Berlin") or @gmpd.every(30),
    and those that tables of its configuration name:
      [cron.report]
      function = "shop.jobs:report"
      cron = "30 6 * * 1-5"
      tz = "Europe/Berlin"
    Each tick is a durable job: `gmpd jobs ls` lists them.
    """
    help_alone(ctx)


@command.command(short_help="List periodic jobs with their next and last runs.")
@standard
def ls(app: App) -> int:
    """List periodic jobs: schedule, function, next tick, and how the last run ended."""
    with connect(app) as client:
        told = client.call("cron")
        rows = told["schedules"]
        ids = [row["job"] for row in rows if row["job"]]
        found = client.ask_jobs("find", ids, None) if ids else []
    jobs = {id_: readable(job) for id_, job in zip(ids, found, strict=True) if job}
    schedules = [_schedule(row, jobs.get(row["job"])) for row in rows]
    if app.as_json:
        app.json({"failure": told["failure"], "schedules": schedules})
        return Exit.OK
    for line in _table(schedules):
        app.data(line)
    for each in schedules:
        if each["problem"]:
            app.say(f"{each['name']} ({each['source']}): {each['problem']}")
    if told["failure"]:
        app.say(f"no schedule runs: {told['failure']}")
    elif not schedules:
        app.say("no periodic jobs: gmpd cron --help says how to have some")
    return Exit.OK


@command.command(short_help="Run a periodic job once, now.")
@click.argument("name")
@standard
def run(app: App, name: str) -> int:
    """Run the periodic job NAME once, now; prints the id of its job. One that runs already is not
    run a second time."""
    told = _ask(app, "cron_run", name)
    if told is None:
        return Exit.NOT_FOUND
    if app.as_json:
        app.json({"job": told["job"].hex(), "new": told["new"]})
        return Exit.OK
    app.data(told["job"].hex())
    if not told["new"]:
        app.say("that run had not ended, so no other was started")
    return Exit.OK


@command.command(short_help="Let ticks of a periodic job pass by.")
@click.argument("name")
@standard
def pause(app: App, name: str) -> int:
    """Have the ticks of the periodic job NAME pass by, until it is resumed; also after a restart of
    the daemon."""
    return Exit.NOT_FOUND if _ask(app, "cron_pause", name) is None else Exit.OK


@command.command(short_help="Run a paused periodic job again, from its next tick.")
@click.argument("name")
@standard
def resume(app: App, name: str) -> int:
    """Run the paused periodic job NAME again, from its next tick. Those that passed are not caught
    up."""
    return Exit.NOT_FOUND if _ask(app, "cron_resume", name) is None else Exit.OK


def _ask(app: App, method: str, name: str) -> dict[str, Any] | None:
    """Ask about one of them; None, and that was said, when there is none of this name."""
    with connect(app) as client:
        told: dict[str, Any] = client.call(method, name=name)
        if told["known"]:
            return told
        names = [row["name"] for row in client.call("cron")["schedules"]]
    app.say(f"there is no periodic job {name!r} (there are: {', '.join(names) or 'none'})")
    return None


def _schedule(row: dict[str, Any], job: dict[str, Any] | None) -> dict[str, Any]:
    """One as --json shows it: times in seconds since 1970, ids in hex."""
    state = row["outcome"] or None
    if job is not None:
        state = job["state"]
    last = None
    if row["job"]:
        last = {
            "tick": row["tick_ms"] / 1000,
            "job": row["job"].hex(),
            "state": state,
            "text": row["text"] if job is None else job["text"],
            "ended": None if job is None else job["ended"],
        }
    kept = ("name", "function", "source", "catch_up", "overlap", "paused", "waiting")
    counted = ("skipped", "missed", "problem")
    return {
        **{key: row[key] for key in kept},
        "schedule": row["when"],
        "next": None if row["next_ms"] is None else row["next_ms"] / 1000,
        "last": last,
        **{key: row[key] for key in counted},
    }


def _table(schedules: list[dict[str, Any]]) -> list[str]:
    if not schedules:
        return []
    rows = [("NAME", "SCHEDULE", "NEXT", "LAST", "ENDED", "LEFT OUT", "FUNCTION")]
    for each in schedules:
        last = each["last"]
        left_out = each["skipped"] + each["missed"]
        rows.append(
            (
                each["name"],
                each["schedule"],
                "paused" if each["paused"] else _moment(each["next"]),
                "never" if last is None else _moment(last["tick"]),
                "" if last is None else last["state"] or "",
                str(left_out) if left_out else "",
                each["function"],
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[6]])
        for row in rows
    ]


def _moment(at: float | None) -> str:
    if at is None:
        return "never"
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")
