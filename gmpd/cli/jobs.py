"""`gmpd jobs`: list, show, cancel, retry and remove jobs; the functions that take most time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from gmpd.cli.app import App, help_alone, standard
from gmpd.cli.exits import Exit
from gmpd.cli.job_logs import id_of_word, logs
from gmpd.cli.job_tables import columns, described, table
from gmpd.cli.job_top import top
from gmpd.cli.link import AskingClient, connect
from gmpd.client.stored import StoredJob, ids_of, readable
from gmpd.sched.stored import StoredState

_STATES = [
    "running",
    *(each.name.lower() for each in StoredState if each is not StoredState.LEASED),
]
#: Rows of a page, unless asked for others.
LIMIT = 50


@click.group(short_help="List, show, cancel and retry jobs.", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show and cancel jobs; retry and remove durable ones (of Client.enqueue, --durable)."""
    help_alone(ctx)


command.add_command(logs)
command.add_command(top)


@command.command(short_help="List jobs, the newest first.")
@click.option("--state", type=click.Choice(_STATES), help="Only jobs in this state.")
@click.option("--fn", default="", metavar="MODULE:FUNCTION", help="Only jobs of this function.")
@click.option("--kind", type=click.Choice(["durable", "volatile"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=LIMIT, metavar="N", help="Rows.")
@click.option("--before", type=int, metavar="NUMBER", help="Durable jobs with smaller numbers.")
@click.option("--after", default="", metavar="PLACE", help="Volatile jobs after those of a page.")
@standard
def ls(
    app: App, state: str | None, fn: str, kind: str | None, limit: int, before: int | None,
    after: str,
) -> int:  # fmt: skip
    """List jobs, the newest first: volatile ones that have not ended, then durable ones."""
    with connect(app) as client:
        pages = Pages(client, state, fn, limit)
        if kind != "durable" and before is None:
            pages.add_volatile(after)
        if kind != "volatile" and not after:
            pages.add_durable(before)
        counts = client.call("job_counts")
    if app.as_json:
        app.json(pages.found)
        return Exit.OK
    for line in table(pages.found, columns()):
        app.data(line)
    app.say(_counted(counts))
    for how in pages.further:
        app.say(f"older ones: gmpd jobs ls {how}")
    return Exit.OK


class Pages:
    """One page of jobs, of both kinds."""

    def __init__(self, client: AskingClient, state: str | None, fn: str, limit: int) -> None:
        self._client = client
        self._wanted: dict[str, Any] = {"state": state, "function": fn}
        self._limit = limit
        self.found: list[dict[str, Any]] = []
        #: The options that show what follows.
        self.further: list[str] = []

    @property
    def _room(self) -> int:
        return self._limit - len(self.found)

    def add_volatile(self, after: str) -> None:
        """The daemon looks at some thousands at a time."""
        place: str | None = after
        while place is not None and self._room:
            page = self._client.call("volatile_jobs", after=place, limit=self._room, **self._wanted)
            self.found += map(readable, page["rows"])
            place = page["next"]
        if place is not None:
            self.further.append(f"--after {place}")

    def add_durable(self, before: int | None) -> None:
        """Add the durable jobs for which there is room."""
        if not self._room:
            return
        room = self._room
        rows = self._client.call("jobs", limit=room, before=before, **self._wanted)
        self.found += map(readable, rows)
        if len(rows) == room and self._wanted["state"] != "running":
            self.further.append(f"--before {rows[-1]['number']}")


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
        progress = None if info["progress"] is None else info["progress"]._asdict()
        app.json({**info, "progress": progress, "story": [each._asdict() for each in story]})
        return Exit.OK
    for line in described(info, story):
        app.data(line)
    return Exit.OK


@command.command(short_help="Cancel jobs.")
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--force", is_flag=True, help="End functions that do not stop with their workers.")
@standard
def cancel(app: App, job_ids: tuple[str, ...], force: bool) -> int:
    """Cancel jobs that have not begun. Coroutines that run are cancelled where they wait; other
    functions that run end only with --force, by which their worker is replaced."""

    def ask(client: AskingClient, ids: list[bytes]) -> Sequence[bytes]:
        told = client.ask_jobs("force" if force else "cancel", ids, None)
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


def _counted(counts: dict[Any, int]) -> str:
    names = {StoredState(int(state)).name.lower(): n for state, n in counts.items()}
    running = names.pop("leased", 0)
    if running:
        names["queued"] = names.get("queued", 0) + running
    told = ", ".join(f"{n} {name}" for name, n in names.items())
    return f"durable jobs: {told}" if told else "no durable jobs"
