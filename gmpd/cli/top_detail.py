"""The details of `gmpd top`: of a P, a host, a function, a G, a job, a failure or a warning; lines.

Pure: facts in, text out. Both faces show these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from gmpd.cli.failures import described as failure_lines
from gmpd.cli.job_tables import described as job_lines
from gmpd.cli.top_view import (
    Facts,
    Found,
    Pane,
    busy_cores,
    busy_share,
    host_rate,
    rate_text,
)
from gmpd.daemon.logs import visible
from gmpd.daemon.trace_summary import in_words
from gmpd.explain_g import explain_g
from gmpd.findings import Finding, problems
from gmpd.status import FunctionTotals, Hist, HostStatus, PStatus, read_p

#: Jobs that a detail lists.
BEGUN_SHOWN = 20


@dataclass(slots=True)
class Detail:
    """``parts``: headings, with their lines; a heading may be empty."""

    title: str
    parts: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, heading: str, lines: list[str]) -> None:
        """A part, if it has lines."""
        if lines:
            self.parts.append((heading, lines))

    def lines(self) -> Iterator[tuple[str, bool]]:
        """All of it, line by line, and whether the line is a heading."""
        for n, (heading, lines) in enumerate(self.parts):
            if n:
                yield "", False
            if heading:
                yield heading, True
            indent = "  " if heading else ""
            yield from ((visible(f"{indent}{line}".rstrip()), False) for line in lines)


def detail(found: Found, facts: Facts) -> Detail:
    """The detail of a row, or that it is gone."""
    if found.pane in (Pane.GS, Pane.JOBS) and facts.asked != found:
        return Detail(found.key, [("", ["the daemon is asked"])])
    match found.pane:
        case Pane.PS if found.host:
            return _of_host(found.host, facts)
        case Pane.PS:
            return _of_p(found, facts)
        case Pane.FUNCTIONS:
            return _of_function(found.key, facts)
        case Pane.GS:
            return _of_g(found, facts)
        case Pane.JOBS:
            return _of_job(found.key, facts)
        case Pane.FAILURES:
            rows = [each for each in facts.failures if str(each["number"]) == found.key]
            text = [*failure_lines(rows[0])] if rows else ["the daemon keeps it no more"]
            return Detail(f"Failure {found.key}", [("", text)])
        case Pane.WARNINGS:
            return _of_warning(int(found.key), problems(facts.now))
        case _:
            assert_never(found.pane)


# -- a P -------------------------------------------------------------------------------------------


def _of_p(found: Found, facts: Facts) -> Detail:
    told = Detail(found.key)
    p = next((each for each in facts.now.ps if each.p == found.p), None)
    if p is None:
        told.add("", ["the daemon has no such P any more"])
        return told
    before = None
    if facts.before is not None:
        before = next((each for each in facts.before.ps if each.p == p.p), None)
        if before is not None and before.epoch != p.epoch:
            before = None
    told.title = f"P{p.p}: {p.state}"
    told.add("Worker", _worker(p, before))
    told.add("Running", [f"{p.running} for {in_words(p.running_s)}"] if p.running else ["nothing"])
    told.add(
        "Warnings", [f"{each.what}" for each in problems(facts.now) if each.about == f"P{p.p}"]
    )
    told.add("Begun jobs, the oldest first", _begun(facts, p.p))
    told.add(f"Queue: {p.fresh:,} leased, {p.runq:,} ready to run", _queue(facts, p.p))
    past = PStatus() if before is None else before
    since_s = None if before is None else facts.seconds
    told.add("Where it found each G", _counts(p.picks, past.picks, since_s))
    told.add("Hand-offs to another M", _counts(p.handoffs, past.handoffs, since_s))
    told.add("Steals", _steals(p))
    told.add("Gs", _counts(p.gs, {}, None))
    if found.stacks:
        is_told = facts.asked == found
        told.add("Stacks", _stacks(facts.told) if is_told else ["the worker is asked"])
    return told


def _worker(p: PStatus, before: PStatus | None) -> list[str]:
    core = "" if p.core is None else f", core {p.core}"
    spent = ", ".join(f"{name} {s:,.1f} s" for name, s in p.state_s.items() if s >= 0.05)
    restarts = ", ".join(f"{n:,} {why}" for why, n in p.restarts.items() if n)
    lines = [
        f"pid {p.pid or '-'}{core}, epoch {p.epoch}, {p.rss / 1e6:,.0f} MB, {p.cpu_s:,.1f} s CPU",
        f"busy {busy_share(p, before):.0%}; {spent}",
        f"Ms: {p.ms:,}, of them {p.idle_ms:,} idle",
        f"jobs: {p.jobs_finished:,} ended, {p.started:,} begun, {p.withheld:,} results kept",
        f"steps beyond a slice: {p.overruns:,} of {p.schedtick:,}",
    ]
    return [*lines, f"restarts: {restarts}"] if restarts else lines


def _begun(facts: Facts, p: int) -> list[str]:
    rows = _of_picture(facts, p).get("begun", [])
    names = (facts.picture or {}).get("names", [])
    lines = [f"{in_words(age):>8}  {job}  {names[fn]}" for fn, job, age in rows[:BEGUN_SHOWN]]
    return [*lines, f"and {more:,} more"] if (more := len(rows) - BEGUN_SHOWN) > 0 else lines


def _queue(facts: Facts, p: int) -> list[str]:
    """By function, of the first that are in it."""
    row = _of_picture(facts, p)
    names = (facts.picture or {}).get("names", [])
    counted = Counter(names[fn] for fn in row.get("fresh", []))
    return [f"{n:>8,}  {name}" for name, n in counted.most_common()] or ["empty"]


def _of_picture(facts: Facts, p: int) -> Mapping[str, Any]:
    rows = (facts.picture or {}).get("ps", [])
    return next((each for each in rows if each["p"] == p), {})


def _counts(now: Mapping[str, int], before: Mapping[str, int], since_s: float | None) -> list[str]:
    """Totals by name, and their rates since the look before."""
    lines = []
    for name, n in sorted(now.items(), key=lambda item: -item[1]):
        if n:
            rate = ""
            if since_s is not None:
                rate = f"  {rate_text((n - before.get(name, 0)) / max(since_s, 1e-9))}/s"
            lines.append(f"{n:>12,}  {name}{rate}")
    return lines


def _steals(p: PStatus) -> list[str]:
    tries = p.steals.hit + p.steals.empty
    return [
        f"tried {tries:,}, with success {p.steals.hit:,}",
        f"took {p.stolen:,} jobs and children from other Ps, gave {p.lost:,}",
    ]


def _stacks(told: Any) -> list[str]:
    if not told:
        return ["there is none"]
    (answer,) = told
    if not answer["answered"]:
        return [f"P{answer['p']} does not answer; `gmpd stacks {answer['p']}` looks from outside"]
    return answer["text"].splitlines() or ["no goroutines"]


# -- a host ----------------------------------------------------------------------------------------


def _of_host(name: str, facts: Facts) -> Detail:
    told = Detail(f"host {name}")
    host = next((each for each in facts.now.cluster.hosts if each.name == name), None)
    if host is None:
        told.add("", ["the engine has no such host any more"])
        return told
    told.title = f"host {name}: {host.state}"
    told.add("Host", _host(host, facts))
    told.add("Why", [host.problem] if host.problem else [])
    told.add(
        "Warnings", [each.what for each in problems(facts.now) if each.about == f"host {name}"]
    )
    if host.losses:
        ago_s = max(0.0, facts.now.started_at + facts.now.uptime_s - host.lost_at)
        jobs = f"{host.lost_jobs:,} begun job{'s' * (host.lost_jobs != 1)}"
        told.add("Last loss", [f"{in_words(ago_s)} ago, with {jobs}: {host.loss}"])
    if host.p is not None:
        told.add("Jobs there, the oldest first", _begun(facts, host.p))
        told.add(f"To send: {host.fresh:,}", _queue(facts, host.p))
    return told


def _host(host: HostStatus, facts: Facts) -> list[str]:
    bridge = (
        f"bridge pid {host.pid}, {host.cpu_s:,.1f} s CPU, P{host.p}" if host.pid else "no bridge"
    )
    waiting = f", {host.waiting:,} of them not begun as far as it said" if host.waiting else ""
    return [
        f"work for {busy_cores(host):,} of {host.cores:,} cores",
        bridge,
        f"jobs: {host.started:,} sent{waiting}, {host.jobs_finished:,} ended,"
        f" {rate_text(host_rate(host, facts))}/s",
        f"batches: {host.batches_away:,} on the way, {host.batches:,} came back",
        f"stole {host.stolen:,}, gave {host.lost:,}",
    ]


# -- a function ------------------------------------------------------------------------------------


def _of_function(name: str, facts: Facts) -> Detail:
    told = Detail(name)
    about = next((each for each in facts.functions if each.name == name), None)
    totals = next((each for each in facts.now.functions if each.name == name), None)
    if totals is not None:
        told.add("Since the daemon began", _totals(totals))
    if about is not None:
        head = f"{'':24} {'COUNT':>7} {'MEAN':>9} {'P99':>9} {'MAX':>9} {'TOTAL':>9}"
        ways = [
            f"{way:24.24} {stat.count:>7,} {in_words(stat.mean_s):>9} {in_words(stat.p99_s):>9}"
            f" {in_words(stat.max_s):>9} {in_words(stat.total_s):>9}"
            for way, stat in about.ways.items()
        ]
        told.add(f"In the last {facts.seconds:.1f} s, per job", [head, *ways])
    told.add("Warnings", [each.what for each in problems(facts.now) if _names(each, name)])
    told.add("Begun jobs", _jobs_of(name, facts))
    if not told.parts:
        told.add("", ["none of its jobs ran in this time"])
    return told


def _names(finding: Finding, name: str) -> bool:
    return finding.facts.get("function") == name


def _totals(row: FunctionTotals) -> list[str]:
    ended = ", ".join(f"{n:,} {outcome}" for outcome, n in row.finished.items() if n)
    return [
        f"jobs: {ended or 'none ended'}",
        f"run:  {_quantiles(row.run)}",
        f"wait: {_quantiles(row.wait)}",
        f"on P: {in_words(row.occupied_s)} in all",
    ]


def _quantiles(times: Hist) -> str:
    return f"p50 {in_words(times.quantile_s(0.5))}, p99 {in_words(times.quantile_s(0.99))}"


def _jobs_of(name: str, facts: Facts) -> list[str]:
    picture = facts.picture or {"ps": [], "names": []}
    names = picture["names"]
    begun = [
        (age, f"{in_words(age):>8}  P{row['p']}  {job}")
        for row in picture["ps"]
        for fn, job, age in row["begun"]
        if names[fn] == name
    ]
    return [line for _, line in sorted(begun, reverse=True)[:BEGUN_SHOWN]]


# -- a G, a job, a warning -------------------------------------------------------------------------


def _of_g(found: Found, facts: Facts) -> Detail:
    told = Detail(found.key)
    answer = facts.told[0] if facts.told else {}
    p = read_p(answer["status"]) if answer else PStatus()
    rows = answer.get("rows", ())
    if not rows:
        silent = bool(answer) and not answer["answered"]
        text = f"P{found.p} does not answer: it is {p.state}" if silent else "it has ended"
        told.add("", [text])
        return told
    row = rows[0]
    told.title = f"G{row['id']} on P{found.p}: {row['state']}"
    why = explain_g(row, p)
    kind = "a job's own G" if row["job"] else "a child or an asyncio task"
    job = answer.get("job", "")
    lines = [row["function"], kind + (f", of job {job}" if job else "")]
    told.add("Function", lines)
    told.add("Why it is where it is", [f"{why.text}.", *([why.hint] if why.hint else [])])
    story = answer.get("story", {}).get("events", ())
    told.add("Last events, the oldest first", [_event(each) for each in story])
    told.add("Stack", answer.get("text", "").splitlines())
    return told


def _event(event: Mapping[str, Any]) -> str:
    ago, took = in_words(event["ago_us"] / 1e6), event["took_us"] / 1e6
    ran = f" {in_words(took)}" if took else ""
    reason = f"  {event['reason']}" if event["reason"] else ""
    return f"{ago:>9} ago  {event['kind']}{ran}{reason}"


def _of_job(key: str, facts: Facts) -> Detail:
    told = Detail(f"Job {key}")
    if isinstance(facts.told, tuple):
        info, story = facts.told
        told.add("", [*job_lines(info, story)])
    else:
        told.add("", [str(facts.told or "it has ended, and is not kept")])
    return told


def _of_warning(n: int, found: list[Finding]) -> Detail:
    if n >= len(found):
        return Detail("Warning", [("", ["it is over"])])
    finding = found[n]
    told = Detail(f"{finding.level.value}: {finding.about}")
    told.add("", [finding.what])
    told.add("What to do", [finding.fix] if finding.fix else [])
    told.add("Facts", [f"{name}: {value}" for name, value in finding.facts.items()])
    return told
