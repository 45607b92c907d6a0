"""`gmpd jobs`: list, show, cancel, retry and remove durable jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click

from gmpd.cli.app import App, help_alone, standard
from gmpd.cli.exits import Exit
from gmpd.cli.job_logs import id_of_word, logs
from gmpd.cli.link import AskingClient, connect
from gmpd.client.stored import StoredJob, ids_of, readable
from gmpd.sched.stored import StoredState

_STATES = [state.name.lower() for state in StoredState if state is not StoredState.LEASED]
#: Rows of a page, unless asked for others.
LIMIT = 50


@click.group(short_help="List, show, cancel and retry durable jobs.", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show, cancel, retry and remove durable jobs: those of Client.enqueue and --durable."""
    help_alone(ctx)


command.add_command(logs)


@command.command(short_help="List jobs, the newest first.")
@click.option("--state", type=click.Choice(_STATES), help="Only jobs in this state.")
@click.option("--fn", default="", metavar="MODULE:FUNCTION", help="Only jobs of this function.")
@click.option("--limit", type=click.IntRange(1, 1000), default=LIMIT, metavar="N", help="Rows.")
@click.option("--before", type=int, metavar="NUMBER", help="Only jobs with smaller numbers.")
@standard
def ls(app: App, state: str | None, fn: str, limit: int, before: int | None) -> int:
    """List durable jobs, the newest first."""
    with connect(app) as client:
        rows = client.call("jobs", state=state, function=fn, limit=limit, before=before)
        counts = client.call("job_counts")
    found = [readable(row) for row in rows]
    if app.as_json:
        app.json(found)
        return Exit.OK
    for line in _table(found):
        app.data(line)
    app.say(_counted(counts))
    if len(found) == limit:
        app.say(f"older ones: --before {found[-1]['number']}")
    return Exit.OK


@command.command(short_help="Show a job, its attempts, and its error.")
@click.argument("job_id", metavar="ID")
@standard
def show(app: App, job_id: str) -> int:
    """Show a job, each of its attempts, and the traceback of the last one that failed."""
    with connect(app) as client:
        job = StoredJob(id_of_word(job_id), client.ask_jobs)
        try:
            info, story = job.info(), job.story()
        except LookupError as error:
            app.say(str(error))
            return Exit.NOT_FOUND
    if app.as_json:
        app.json({**info, "story": [each._asdict() for each in story]})
        return Exit.OK
    for line in _described(info):
        app.data(line)
    for each in story:
        where = "" if each.p is None else f" on P{each.p} (pid {each.pid})"
        text = f": {each.text}" if each.text else ""
        app.data(f"attempt {each.n} {_moment(each.ended)}{where} {each.outcome}{text}")
    if story and story[-1].traceback:
        app.data(story[-1].traceback.rstrip())
    return Exit.OK


@command.command(short_help="Cancel jobs.")
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@standard
def cancel(app: App, job_ids: tuple[str, ...]) -> int:
    """Cancel jobs that have not begun. Coroutines that run are cancelled where they wait."""

    def ask(client: AskingClient, ids: list[bytes]) -> Sequence[bytes]:
        told = client.ask_jobs("cancel", ids, None)
        return [*told["cancelled"], *told["asked"]]

    return _each(app, job_ids, ask, "cancelled", "it has ended, or there is no such job")


@command.command(short_help="Run failed jobs again.")
@click.argument("job_ids", nargs=-1, metavar="[ID...]")
@click.option("--failed", is_flag=True, help="All that failed or are quarantined.")
@standard
def retry(app: App, job_ids: tuple[str, ...], failed: bool) -> int:
    """Run ended jobs again, from their first attempt; not those that are done."""
    if failed == bool(job_ids):
        raise click.UsageError("give ids, or --failed")
    if failed:
        with connect(app) as client:
            job_ids = tuple(_failed(client))
        if not job_ids:
            app.say("no job has failed")
            return Exit.OK
    return _each(
        app, job_ids, lambda client, ids: client.ask_jobs("retry", ids, None), "queued again",
        "it is done, runs, or there is no such job",
    )  # fmt: skip


@command.command(short_help="Forget ended jobs and their results.")
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@standard
def rm(app: App, job_ids: tuple[str, ...]) -> int:
    """Forget ended jobs and their results, before their keep-time is over."""
    return _each(
        app, job_ids, lambda client, ids: client.ask_jobs("remove", ids, None), "removed",
        "it has not ended, or there is no such job",
    )  # fmt: skip


def _failed(client: AskingClient) -> list[str]:
    ids: list[str] = []
    for state in ("failed", "quarantined"):
        before: int | None = None
        while rows := client.call("jobs", state=state, limit=1000, before=before):
            ids += [row["id"].hex() for row in rows]
            before = rows[-1]["number"]
    return ids


def _each(
    app: App,
    job_ids: Sequence[str],
    ask: Callable[[AskingClient, list[bytes]], Sequence[bytes]],
    done: str,
    why_not: str,
) -> int:
    """Do it for all of them; the exit code tells whether it was done for each."""
    ids = ids_of_words(job_ids)
    with connect(app) as client:
        changed = set(ask(client, ids))
    missed = [id_.hex() for id_ in ids if id_ not in changed]
    if app.as_json:
        app.json({"changed": sorted(id_.hex() for id_ in changed), "unchanged": missed})
    else:
        for id_ in missed:
            app.say(f"{id_} is not {done}: {why_not}")
        app.say(f"{len(changed)} {done}")
    return Exit.NOT_FOUND if missed else Exit.OK


def ids_of_words(words: Sequence[str]) -> list[bytes]:
    """Ids that were typed. Raises UsageError for the first that is none."""
    try:
        return ids_of(words)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


# -- for people ------------------------------------------------------------------------------------


def _table(found: list[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    rows = [("ID", "STATE", "AGE", "ATTEMPT", "FUNCTION")]
    now = time.time()
    for job in found:
        age = _age(now - job["created"])
        rows.append((job["id"], job["state"], age, str(job["attempt"]), job["function"]))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]


def _counted(counts: dict[Any, int]) -> str:
    names = {StoredState(int(state)).name.lower(): n for state, n in counts.items()}
    running = names.pop("leased", 0)
    if running:
        names["queued"] = names.get("queued", 0) + running
    return ", ".join(f"{n} {name}" for name, n in names.items()) or "no durable jobs"


def _described(info: dict[str, Any]) -> list[str]:
    lines = [f"{info['id']} {info['function']} is {info['state']}"]
    if info["text"]:
        lines.append(f"  {info['text']}")
    lines.append(
        f"  of {info['client'] or 'a client without a name'}, enqueued {_moment(info['created'])},"
        f" priority {info['priority']}, attempt {info['attempt']}"
    )
    if info["unique"]:
        lines.append(f"  unique key {info['unique']!r}")
    if info["ended"] is not None:
        until = info["ended"] + info["keep"]
        lines.append(f"  ended {_moment(info['ended'])}, kept until {_moment(until)}")
    elif info["run_at"] > time.time():
        lines.append(f"  begins {_moment(info['run_at'])}")
    return lines


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
