"""`gmpd demo`: a private daemon, real work, nothing left behind."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import textwrap
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gmpd.cli import demo_jobs
from gmpd.cli.app import App, standard
from gmpd.cli.exits import Exit
from gmpd.cli.private import private_client
from gmpd.cli.status import table
from gmpd.status import PStatus, read_p

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Seconds that the local server takes for a page: like a service on another continent.
PAGE_S = 0.2
#: Imported by workers before they are ready: an import inside a coroutine would hold up its P.
IMPORTS = ("aiohttp", "gmpd.cli.demo_jobs")
#: Pages to fetch: enough to have hundreds of connections open at once.
PAGES = 1000
#: Seconds of computing for each P: two seconds for all nine measurements, and stable ratios.
WORK_S = 0.6
#: Text is folded at this width: a terminal's, less the margin.
WIDTH = 76
PAGE = b"<p>" + b"gopher " * 500


class Site:
    """A local aiohttp server in a thread of its own."""

    def __init__(self) -> None:
        self.url = ""
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.open = self.most = 0

    def __enter__(self) -> Site:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self) -> None:
        from aiohttp import web

        async def page(_request: web.Request) -> web.Response:
            self.open += 1
            self.most = max(self.most, self.open)
            await asyncio.sleep(PAGE_S)
            self.open -= 1
            return web.Response(body=PAGE)

        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_get("/{n}", page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        self._started.set()
        await self._over.wait()
        await runner.cleanup()


@click.command(short_help="Run real work on a private daemon; leave nothing behind.")
@click.option(
    "--procs", type=click.IntRange(0), metavar="N",
    help="How many Ps; 0: as the machine allows.",
)  # fmt: skip
@click.option(
    "--files", type=click.IntRange(1), metavar="N",
    help="Files of the standard library to read.  [default: all]",
)  # fmt: skip
@click.option(
    "--pages", type=click.IntRange(1), metavar="N", help="Pages to fetch.  [default: 1000]"
)  # fmt: skip
@click.option(
    "--walkthrough",
    is_flag=True,
    help="Instead: the six steps of G, M and P on a real P, and what switches cost here.",
)
@click.option(
    "--cpu-bound",
    is_flag=True,
    help="Instead: measure why more CPU-bound Gs than Ps do not help.",
)
@click.option(
    "--work",
    type=click.FloatRange(0.01, 60),
    metavar="S",
    help="For --cpu-bound: seconds of computing for each P, in each of its 9 measurements."
    "  [default: 0.6]",
)
@standard
def command(
    app: App,
    procs: int | None,
    files: int | None,
    pages: int | None,
    walkthrough: bool,
    cpu_bound: bool,
    work: float | None,
) -> int:
    """Start a private daemon, give it a mixed load, show which P ran which job, and clean up."""
    if walkthrough and cpu_bound:
        raise click.UsageError(
            "--walkthrough and --cpu-bound are two demos: run one after the other"
        )
    if walkthrough:
        _refuse("is not for --walkthrough", procs=procs, files=files, pages=pages, work=work)
        from gmpd.cli.teach import walkthrough as stories

        stories.run(app)
    elif cpu_bound:
        _refuse("is not for --cpu-bound", files=files, pages=pages)
        from gmpd.cli.teach import cpu_bound as crowd

        crowd.run(app, procs, WORK_S if work is None else work)
    else:
        _refuse("is for --cpu-bound alone", work=work)
        _mixed(app, procs, files, PAGES if pages is None else pages)
    return Exit.OK


def _refuse(why: str, **options: float | None) -> None:
    """UsageError for an option that this demo would not look at."""
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"--{name} {why}")


def _mixed(app: App, procs: int | None, files: int | None, pages: int) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    paths = [str(path) for path in library.rglob("*.py") if "site-packages" not in path.parts]
    paths = paths[:files]
    with Site() as site, private_client(app, procs, IMPORTS) as client:
        began = time.perf_counter()
        naps = [client.submit(demo_jobs.nap) for _ in range(20)]
        fetched = [client.submit(demo_jobs.fetch, f"{site.url}/{n}") for n in range(pages)]
        counted = [client.submit(demo_jobs.count, path) for path in paths]
        wrong = client.submit(demo_jobs.parse_port, "70000")
        _follow(app, [*naps, *fetched, *counted, wrong], began)
        took = time.perf_counter() - began
        facts = _facts(naps, fetched, counted, site.most)
        ps: list[dict[str, Any]] = client.call("status")["ps"]
        seen = [read_p(p) for p in ps]
        error = wrong.exception()
    if app.as_json:
        app.json({**facts, "seconds": took, "ps": ps})
    else:
        _tell(app, facts, took, seen, error)


def _facts(
    naps: Sequence[Future[Any]],
    fetched: Sequence[Future[Any]],
    counted: Sequence[Future[Any]],
    most: int,
) -> dict[str, int]:
    lines, words, functions = zip(*(future.result() for future in counted), strict=True)
    return {
        "files": len(counted),
        "lines": sum(lines),
        "words": sum(words),
        "functions": sum(functions),
        "pages": len(fetched),
        "page_bytes": sum(future.result() for future in fetched),
        "pages_at_once": most,
        "naps": len(naps),
    }


def _follow(app: App, futures: Sequence[Future[Any]], began: float) -> None:
    """Wait for all, with a bar on a terminal."""
    from concurrent.futures import as_completed

    if not sys.stderr.isatty() or app.verbosity < 0:
        for future in as_completed(futures):
            future.exception()
        return
    from rich.console import Console
    from rich.progress import track

    for future in track(
        as_completed(futures), "running", total=len(futures), console=Console(stderr=True)
    ):
        future.exception()


def _tell(
    app: App,
    facts: dict[str, int],
    took: float,
    ps: list[PStatus],
    error: BaseException | None,
) -> None:
    blocked = facts["naps"] * demo_jobs.NAP_S
    app.data(
        f"read      {facts['files']:,} files of the standard library: {facts['lines']:,} lines,\n"
        f"          {facts['words']:,} words, {facts['functions']:,} functions\n"
        f"fetched   {facts['pages']:,} pages with aiohttp,"
        f" up to {facts['pages_at_once']:,} at once\n"
        f"blocked   {facts['naps']} times {demo_jobs.NAP_S:g} s in time.sleep: {blocked:g} s,"
        " and no P waited for it\n"
        f"          all of it together in {took:.2f} s on {len(ps)} Ps\n"
    )
    app.data("one job failed, as it was meant to; its caller sees:\n")
    if error is not None:
        app.data("\n".join(f"  {line}" for line in _fitting(error)) + "\n")
    for line in table(ps):
        app.data(line)
    app.data("\n" + "\n".join(_handed_off(p) for p in ps))
    app.say("\nnext: `gmpd up`, then `gmpd status`, or `gmpd.Client()` in your own program")


def _fitting(error: BaseException) -> list[str]:
    """The traceback's lines: long ones of prose are folded between words, code is left alone."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    shown: list[str] = []
    for line in lines:
        prose = line.startswith("job ")
        shown += textwrap.wrap(line, WIDTH, subsequent_indent="  ") if prose else [line.rstrip()]
    return shown


def _handed_off(p: PStatus) -> str:
    handoffs = p.handoffs
    why = ", ".join(f"{n:,} {name}" for name, n in handoffs.items() if n) or "never"
    jobs, stolen, lost = p.jobs_finished, p.stolen, p.lost
    return (
        f"P{p.p}: {jobs:,} jobs, {stolen:,} of them stolen; {lost:,} were stolen from it;\n"
        f"    {p.cpu_s:.1f} s of CPU; handed to another thread: {why}"
    )
