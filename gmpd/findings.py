"""Problems of a running daemon, as far as its status tells, and their remedies.

One list for `gmpd doctor`, the JSON API and the live page. Pure: a status in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from gmpd.status import Durable, PStatus, Status

#: The remedy for blocked jobs.
UNBLOCK = (
    "put the module where the daemon's jobs find it (its directory, PYTHONPATH, site-packages):"
    " it is tried every 5 s, without a restart; `gmpd jobs cancel ID` gives a job up"
)
#: Overruns are named when they last this long (s).
OVERRUN_S = 1.0
#: Deaths of workers of one P from which on they are a finding.
DEATHS = 3
#: Isolated jobs that wait are a finding when the oldest has waited for this long (s).
WAITED_S = 5.0


#: Jobs of a function from which on short ones are a finding, and their median run time (s).
SMALL_JOBS = 10_000
SMALL_S = 20e-6
#: Steals from which on their use is looked at.
STEALS = 1000
#: Steps of coroutines beyond a slice that are a finding, and their share of all Gs started.
OVERRUNS = 100
OVERRUNS_SHARE = 0.01


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its result; `fix` tells how to mend it."""

    about: str
    level: Level
    what: str
    fix: str = ""


def findings(seen: Status) -> Iterator[Finding]:
    """All about a daemon that answers, the good ones included."""
    yield from _daemon(seen)
    for name, why in seen.cron.problems.items():
        fix = "correct it, or make the module importable for workers, and restart the daemon"
        yield Finding("schedule", Level.WARN, f"{name} does not run: {why}", fix)
    yield from _durable(seen.durable)
    yield from _workers(seen)
    for p in seen.ps:
        yield from _of_p(p)
    yield from _wasteful(seen)


def _wasteful(seen: Status) -> Iterator[Finding]:
    """Work that costs more than it has to."""
    for row in seen.functions:
        jobs = sum(row.finished.values())
        each_s = row.run.quantile_s(0.5)
        if jobs >= SMALL_JOBS and each_s < SMALL_S:
            what = f"{row.name}: half of its {jobs:,} jobs ran less than {each_s * 1e6:.2g} µs"
            fix = "map(fn, items) sends many in one job; so does one call for a list of items"
            yield Finding("functions", Level.WARN, what, fix)
    hits = sum(p.steals.hit for p in seen.ps)
    work, steal = seen.hist.get("occupied"), seen.hist.get("steal")
    if hits >= STEALS and work is not None and steal is not None:
        stolen_s = work.quantile_s(0.5) * sum(p.stolen for p in seen.ps) / hits
        if stolen_s < (cost_s := steal.quantile_s(0.5)):
            what = (
                f"{hits:,} steals of {cost_s * 1e6:,.0f} µs brought {stolen_s * 1e6:,.0f} µs of"
                " work each"
            )
            yield Finding("stealing", Level.WARN, what, "larger jobs, or fewer Ps")


def _daemon(seen: Status) -> Iterator[Finding]:
    who = f"pid {seen.pid}, version {seen.version}"
    if seen.state == "running":
        yield Finding("daemon", Level.OK, f"{who}, running")
    else:
        yield Finding("daemon", Level.WARN, f"{who}, is {seen.state}", "gmpd status says more")
    if seen.stalled:
        yield Finding("workers", Level.BAD, f"no job is taken: {seen.stalled}", "mend that")
    if seen.degraded:
        yield Finding("workers", Level.WARN, seen.degraded, "the log names what ended them")
    if seen.queue.suspects:
        what = f"{seen.queue.suspects:,} jobs run one by one: their functions ended several workers"
        yield Finding("queue", Level.WARN, what, "gmpd jobs ls --state failed names them")
    if seen.results.held_back:
        names = ", ".join(seen.results.full) or "some clients"
        what = f"{seen.results.held_back:,} jobs are held back: {names} take no results"
        yield Finding("clients", Level.WARN, what, "read the results, or use limits.client_results")


def _durable(durable: Durable) -> Iterator[Finding]:
    """Whether the running daemon keeps durable jobs, and which of them cannot run."""
    about = "durable jobs"
    if durable.why:
        yield Finding(about, Level.BAD, f"refused: {durable.why}", "mend that, restart the daemon")
    elif durable.state == "full":
        yield Finding(about, Level.BAD, "refused: the disk is full", "free some space")
    elif durable.state == "open":
        waiting = durable.jobs.get("queued", 0) + durable.jobs.get("running", 0)
        yield Finding(about, Level.OK, f"{waiting:,} waiting or running")
    for each in durable.blocked:
        what = f"{each.jobs:,} blocked: {each.name} cannot be imported ({each.why})"
        yield Finding(about, Level.WARN, what, UNBLOCK)


def _workers(seen: Status) -> Iterator[Finding]:
    if seen.recycling.problem:
        yield Finding("workers", Level.WARN, f"none is replaced: {seen.recycling.problem}")
    limit = seen.isolated.limit
    if seen.isolated.queued and seen.isolated.oldest_age_s > WAITED_S:
        what = (
            f"{seen.isolated.queued:,} isolated jobs wait, the oldest for"
            f" {seen.isolated.oldest_age_s:.0f} s; {limit} may run at once"
        )
        yield Finding("isolated", Level.WARN, what, "raise limits.isolated")


def _of_p(p: PStatus) -> Iterator[Finding]:
    about = f"P{p.p}"
    if p.state == "deaf":
        what = (
            f"its loop stands still: {p.running or 'a function'} keeps it, for {p.running_s:.1f} s"
        )
        fix = "await in it, or call the blocking part by `await gmpd.blocking(fn, ...)`"
        yield Finding(about, Level.WARN, what, fix)
    for each in p.overruns_now:
        if each.over_s >= OVERRUN_S:
            what = f"{each.name} runs on, {each.over_s:.1f} s past its time limit"
            yield Finding(about, Level.WARN, what, "kill_after= ends it with its worker")
    if p.overruns >= max(OVERRUNS, OVERRUNS_SHARE * p.schedtick):
        what = f"coroutines kept it {p.overruns:,} times for a slice or more between two awaits"
        fix = "await gmpd.gosched() in long loops, or gmpd.blocking(fn, ...); `gmpd trace` has them"
        yield Finding(about, Level.WARN, what, fix)
    deaths = p.restarts.get("signal", 0) + p.restarts.get("exit", 0)
    if deaths >= DEATHS:
        what = f"its workers ended unasked {deaths} times"
        yield Finding(about, Level.WARN, what, "the log names the functions that ended it")
