"""Problems of a running daemon, as far as its status tells, and their remedies.

One list for `gmpd doctor`, `gmpd status`, `gmpd top`, the JSON API and the live page. Those of the
work itself, which costs more than it has to, are *lints*. Pure: a status in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from gmpd.status import Cluster, Durable, FunctionTotals, HostStatus, PStatus, Results, Status

#: The remedy for blocked jobs.
UNBLOCK = (
    "put the module where the daemon's jobs find it (its directory, PYTHONPATH, site-packages):"
    " it is tried every 5 s, without a restart; `gmpd jobs cancel ID` gives a job up"
)
#: Overruns are named when they last this long (s).
OVERRUN_S = 1.0
#: Deaths of workers of one P, and losses of a host, from which on they are a finding.
DEATHS = 3
#: Isolated jobs that wait are a finding when the oldest has waited for this long (s).
WAITED_S = 5.0

#: Jobs of a function from which on short ones are a finding, and their median run time (s).
SMALL_JOBS = 10_000
SMALL_S = 20e-6
#: Large results (of a MiB or more) of a function from which on their cost is looked at; the time
#: that a byte takes, in all processes on its way (s); and the share of the run time from which on
#: that is a finding.
LARGE_RESULTS = 10
BYTE_S = 4e-9
LARGE_SHARE = 0.1
#: A result so large (bytes) is a finding by itself.
HUGE_BYTES = 64 << 20
#: Seconds without reading from which on a client with results is a finding.
UNREAD_S = 30.0
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


class Code(Enum):
    """The kind of a finding, for programs."""

    STATE = "state"
    STALLED = "stalled"
    DEGRADED = "degraded"
    SUSPECTS = "suspects"
    HELD_BACK = "held_back"
    SCHEDULE = "schedule"
    DURABLE = "durable"
    BLOCKED = "blocked"
    NOT_REPLACED = "not_replaced"
    ISOLATED_WAIT = "isolated_wait"
    OVERRUNNING = "overrunning"
    DEATHS = "deaths"
    CLUSTER = "cluster"
    HOST_LOST = "host_lost"
    HOST_REFUSED = "host_refused"
    # lints
    NEVER_YIELDS = "never_yields"
    BLOCKS_P = "blocks_p"
    UNPAID_STEALS = "unpaid_steals"
    SMALL_JOBS = "small_jobs"
    LARGE_RESULTS = "large_results"
    LARGE_ARGUMENTS = "large_arguments"
    UNREAD_RESULTS = "unread_results"


#: Findings about the work that a daemon is given, which `gmpd status` shows nowhere else.
LINTS: Final = frozenset(
    {
        Code.NEVER_YIELDS, Code.BLOCKS_P, Code.UNPAID_STEALS, Code.SMALL_JOBS, Code.LARGE_RESULTS,
        Code.LARGE_ARGUMENTS, Code.UNREAD_RESULTS,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its result; `fix` tells how to mend it. ``code`` is None for a check of the
    machine, and ``facts`` are the numbers in ``what``."""

    about: str
    level: Level
    what: str
    fix: str = ""
    code: Code | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_map(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "code": "" if self.code is None else self.code.value, "about": self.about,
            "level": self.level.value, "what": self.what, "fix": self.fix,
            "facts": dict(self.facts),
        }  # fmt: skip


def problems(seen: Status) -> list[Finding]:
    """The findings that are not good, bad ones first."""
    found = [each for each in findings(seen) if each.level is not Level.OK]
    return sorted(found, key=lambda each: each.level is not Level.BAD)


def findings(seen: Status) -> Iterator[Finding]:
    """All about a daemon that answers, the good ones included."""
    yield from _daemon(seen)
    for name, why in seen.cron.problems.items():
        fix = "correct it, or make the module importable for workers, and restart the daemon"
        what = f"{name} does not run: {why}"
        yield Finding("schedule", Level.WARN, what, fix, Code.SCHEDULE, {"schedule": name})
    yield from _durable(seen.durable)
    yield from _workers(seen)
    for p in seen.ps:
        yield from _of_p(p)
    yield from _cluster(seen.cluster, seen.started_at + seen.uptime_s)
    for row in seen.functions:
        yield from _of_function(row)
    yield from _unread(seen.results)
    yield from _stealing(seen)


def _of_function(row: FunctionTotals) -> Iterator[Finding]:
    """Jobs that are too small, and results that are too large."""
    jobs = sum(row.finished.values())
    each_s = row.run.quantile_s(0.5)
    if jobs >= SMALL_JOBS and each_s < SMALL_S:
        what = f"{row.name}: half of its {jobs:,} jobs ran less than {each_s * 1e6:.2g} µs"
        fix = "map(fn, items) sends many in one job; so does one call for a list of items"
        facts = {"function": row.name, "jobs": jobs, "run_p50_s": each_s}
        yield Finding("functions", Level.WARN, what, fix, Code.SMALL_JOBS, facts)
    if results_cost(row.large_results, row.large_bytes, row.run.sum_ns / 1e9) or (
        row.largest_bytes >= HUGE_BYTES
    ):
        mean = row.large_bytes / max(1, row.large_results)
        what = (
            f"{row.name}: {row.large_results:,} result{'s' * (row.large_results != 1)} of"
            f" {size_text(mean)}, the largest {size_text(row.largest_bytes)}, went through the"
            " coordinator"
        )
        facts = {
            "function": row.name, "results": row.large_results, "bytes": row.large_bytes,
            "largest_bytes": row.largest_bytes,
        }  # fmt: skip
        yield Finding("functions", Level.WARN, what, SMALLER_RESULTS, Code.LARGE_RESULTS, facts)


#: The remedy for large results.
SMALLER_RESULTS: Final = (
    "write it to a file and return the path, or return only what its reader needs"
)


def results_cost(n: int, nbytes: int, run_s: float) -> bool:
    """Whether the way of ``n`` large values costs too much beside the time their jobs ran."""
    return n >= LARGE_RESULTS and nbytes * BYTE_S >= LARGE_SHARE * run_s


def size_text(nbytes: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB"):
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.3g} GB"


def _unread(results: Results) -> Iterator[Finding]:
    for each in results.unread:
        if each.for_s >= UNREAD_S:
            who = each.client or "a client without a name"
            what = (
                f"{who} has not read results for {each.for_s:.0f} s: {each.outcomes:,} of"
                f" {size_text(each.bytes)} wait for it"
            )
            fix = "its process is stopped, or hangs: continue it, or end it"
            facts = {
                "client": each.client, "for_s": each.for_s, "outcomes": each.outcomes,
                "bytes": each.bytes,
            }  # fmt: skip
            yield Finding("clients", Level.WARN, what, fix, Code.UNREAD_RESULTS, facts)


def _stealing(seen: Status) -> Iterator[Finding]:
    hits = sum(p.steals.hit for p in seen.ps)
    work, steal = seen.hist.get("occupied"), seen.hist.get("steal")
    if hits >= STEALS and work is not None and steal is not None:
        stolen_s = work.quantile_s(0.5) * sum(p.stolen for p in seen.ps) / hits
        if stolen_s < (cost_s := steal.quantile_s(0.5)):
            what = (
                f"{hits:,} steals of {cost_s * 1e6:,.0f} µs brought {stolen_s * 1e6:,.0f} µs of"
                " work each"
            )
            facts = {"steals": hits, "steal_s": cost_s, "work_s": stolen_s}
            fix = "larger jobs, or fewer Ps"
            yield Finding("stealing", Level.WARN, what, fix, Code.UNPAID_STEALS, facts)


def _daemon(seen: Status) -> Iterator[Finding]:
    who = f"pid {seen.pid}, version {seen.version}"
    if seen.state == "running":
        yield Finding("daemon", Level.OK, f"{who}, running", code=Code.STATE)
    else:
        what = f"{who}, is {seen.state}"
        yield Finding("daemon", Level.WARN, what, "gmpd status says more", Code.STATE)
    if seen.stalled:
        what = f"no job is taken: {seen.stalled}"
        yield Finding("workers", Level.BAD, what, "mend that", Code.STALLED)
    if seen.degraded:
        fix = "the log names what ended them"
        yield Finding("workers", Level.WARN, seen.degraded, fix, Code.DEGRADED)
    if n := seen.queue.suspects:
        what = f"{n:,} jobs run one by one: their functions ended several workers"
        fix = "gmpd jobs ls --state failed names them"
        yield Finding("queue", Level.WARN, what, fix, Code.SUSPECTS, {"jobs": n})
    if n := seen.results.held_back:
        names = ", ".join(seen.results.full) or "some clients"
        what = f"{n:,} jobs are held back: {names} take no results"
        fix = "read the results, or use limits.client_results"
        yield Finding("clients", Level.WARN, what, fix, Code.HELD_BACK, {"jobs": n})


def _durable(durable: Durable) -> Iterator[Finding]:
    """Whether the running daemon keeps durable jobs, and which of them cannot run."""
    about = "durable jobs"
    if durable.why:
        what, fix = f"refused: {durable.why}", "mend that, restart the daemon"
        yield Finding(about, Level.BAD, what, fix, Code.DURABLE)
    elif durable.state == "full":
        what = "refused: the disk is full"
        yield Finding(about, Level.BAD, what, "free some space", Code.DURABLE)
    elif durable.state == "open":
        waiting = durable.jobs.get("queued", 0) + durable.jobs.get("running", 0)
        yield Finding(about, Level.OK, f"{waiting:,} waiting or running", code=Code.DURABLE)
    for each in durable.blocked:
        what = f"{each.jobs:,} blocked: {each.name} cannot be imported ({each.why})"
        facts = {"function": each.name, "jobs": each.jobs}
        yield Finding(about, Level.WARN, what, UNBLOCK, Code.BLOCKED, facts)


def _workers(seen: Status) -> Iterator[Finding]:
    if seen.recycling.problem:
        what = f"none is replaced: {seen.recycling.problem}"
        yield Finding("workers", Level.WARN, what, code=Code.NOT_REPLACED)
    limit = seen.isolated.limit
    if seen.isolated.queued and seen.isolated.oldest_age_s > WAITED_S:
        what = (
            f"{seen.isolated.queued:,} isolated jobs wait, the oldest for"
            f" {seen.isolated.oldest_age_s:.0f} s; {limit} may run at once"
        )
        facts = {"jobs": seen.isolated.queued, "oldest_s": seen.isolated.oldest_age_s}
        fix = "raise limits.isolated"
        yield Finding("isolated", Level.WARN, what, fix, Code.ISOLATED_WAIT, facts)


def _of_p(p: PStatus) -> Iterator[Finding]:
    about = f"P{p.p}"
    if p.state == "deaf":
        what = (
            f"its loop stands still: {p.running or 'a function'} keeps it, for {p.running_s:.1f} s"
        )
        fix = "await in it, or call the blocking part by `await gmpd.blocking(fn, ...)`"
        facts: dict[str, Any] = {"p": p.p, "function": p.running or "", "for_s": p.running_s}
        yield Finding(about, Level.WARN, what, fix, Code.NEVER_YIELDS, facts)
    for each in p.overruns_now:
        if each.over_s >= OVERRUN_S:
            what = f"{each.name} runs on, {each.over_s:.1f} s past its time limit"
            facts = {"p": p.p, "function": each.name, "over_s": each.over_s}
            fix = "kill_after= ends it with its worker"
            yield Finding(about, Level.WARN, what, fix, Code.OVERRUNNING, facts)
    if p.overruns >= max(OVERRUNS, OVERRUNS_SHARE * p.schedtick):
        what = f"coroutines kept it {p.overruns:,} times for a slice or more between two awaits"
        fix = "await gmpd.gosched() in long loops, or gmpd.blocking(fn, ...); `gmpd trace` has them"
        facts = {"p": p.p, "overruns": p.overruns, "picks": p.schedtick}
        yield Finding(about, Level.WARN, what, fix, Code.BLOCKS_P, facts)
    deaths = p.restarts.get("signal", 0) + p.restarts.get("exit", 0)
    if deaths >= DEATHS:
        what = f"its workers ended unasked {deaths} times"
        fix = "the log names the functions that ended it"
        yield Finding(about, Level.WARN, what, fix, Code.DEATHS, {"p": p.p, "deaths": deaths})


def _cluster(cluster: Cluster, now: float) -> Iterator[Finding]:
    """An engine that is not there, and hosts that were lost or take no work."""
    if cluster.problem:
        fix = "mend that; jobs run on this machine meanwhile, and its hosts are looked for again"
        facts = {"engine": cluster.engine, "address": cluster.address}
        yield Finding("cluster", Level.WARN, cluster.problem, fix, Code.CLUSTER, facts)
    for host in cluster.hosts:
        about, facts = f"host {host.name}", {"host": host.name}
        if host.state == "refused" and host.problem:
            what, fix = f"it takes no work: {host.problem}", "mend that; it is asked again"
            yield Finding(about, Level.WARN, what, fix, Code.HOST_REFUSED, facts)
        elif host.state == "lost" or host.losses >= DEATHS:
            yield Finding(about, Level.WARN, _loss(host, now), BRING_BACK, Code.HOST_LOST,
                          {**facts, "losses": host.losses, "jobs": host.lost_jobs})  # fmt: skip


#: The remedy for a lost host.
BRING_BACK: Final = (
    "see whether the machine runs, and the engine's worker on it; it is used again when it is"
    " back, and `retries=` has jobs that were lost with it run again"
)


def _loss(host: HostStatus, now: float) -> str:
    if host.state == "lost" and host.p is not None:  # its lease has not ended
        return host.problem
    n = host.lost_jobs
    cost = f", with {n:,} begun job{'s' * (n != 1)}" if n else ""
    ago = f"{max(0.0, now - host.lost_at):,.0f} s ago"
    times = f"lost {host.losses:,} times, the last time {ago}" if host.losses > 1 else f"lost {ago}"
    return f"{times}{cost}: {host.loss}"
