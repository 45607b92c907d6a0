"""The routes of the API that look: small functions from parameters to an answer.

A handler asks the coordinator (``questions``), and gives its answers the types of ``shapes``. It
never unpickles: values that are pickles are refused by name.
"""

from __future__ import annotations

from typing import Any

from gmpd.explain_g import explain_g, silence
from gmpd.findings import problems
from gmpd.gateway.api import shapes, trace_shapes
from gmpd.gateway.api.jobs import Absent, next_place, place_of, readable, why
from gmpd.gateway.api.questions import Questions, answer_as
from gmpd.sched.stored import StoredState
from gmpd.status import PStatus

#: Gs of each P that are looked at: some 20 ms of it, and more than a person reads.
GS_SEEN = 2000
#: Seconds for which a P that does not answer is waited for.
GS_WAIT_S = 1.0
G_WAIT_S = 0.5


async def snapshot(ask: Questions, _params: shapes.NoParams) -> shapes.Snapshot:
    """The whole status of the daemon, with its age."""
    reading, status = await ask.snapshot()
    return shapes.Snapshot(age_s=reading.age_s, up=reading.up, snapshot=status)


async def ps(ask: Questions, _params: shapes.NoParams) -> shapes.Ps:
    """All Ps, with their workers and counters."""
    reading, status = await ask.snapshot()
    return shapes.Ps(age_s=reading.age_s, up=reading.up, ps=status.ps)


async def hosts(ask: Questions, _params: shapes.NoParams) -> shapes.Hosts:
    """The hosts of the cluster: cores, state, jobs, batches, the last loss, and why one takes no
    work."""
    reading, status = await ask.snapshot()
    return shapes.Hosts(age_s=reading.age_s, up=reading.up, cluster=status.cluster)


async def one_p(ask: Questions, params: shapes.OfP) -> shapes.OneP:
    """One P."""
    reading, status = await ask.snapshot()
    for p in status.ps:
        if p.p == params.p:
            return shapes.OneP(age_s=reading.age_s, up=reading.up, p=p)
    raise Absent(f"there is no P{params.p}")


async def gs(ask: Questions, params: shapes.OfGs) -> shapes.Gs:
    """Gs of all Ps, or of one: filtered, sorted, and a page of them."""
    told = await ask.look("gs", limit=GS_SEEN, wait_s=GS_WAIT_S)
    answers = [each for each in told["ps"] if params.p is None or each["p"] == params.p]
    ps = {each["p"]: answer_as(each["status"], PStatus) for each in answers}
    rows = [{**row, "p": each["p"]} for each in answers for row in each.get("rows", ())]
    wanted = [
        row
        for row in rows
        if (params.state is None or row["state"] == params.state)
        and params.function in row["function"]
    ]
    key = params.sort
    # Unknown ones come last in either order.
    known = sorted(
        (row for row in wanted if row[key] is not None),
        key=lambda row: (row[key], row["p"], row["id"]),
        reverse=params.order == "down",
    )
    ordered = known + [row for row in wanted if row[key] is None]
    page = ordered[params.offset : params.offset + params.limit]
    return shapes.Gs(
        gs=[_g(row, ps[row["p"]]) for row in page],
        matching=len(wanted),
        seen=len(rows),
        total=sum(each.get("gs", 0) for each in answers),
        silent=[each["p"] for each in answers if not each["answered"]],
    )


async def one_g(ask: Questions, params: shapes.OfG) -> shapes.OneG:
    """One G with its stack, the job that it belongs to, and its last events. With ``epoch``, only
    of that worker of its P. A worker that does not answer is waited for half a second."""
    told = (await ask.look("g", p=params.p, id=params.id, wait_s=G_WAIT_S))["ps"]
    if not told:
        raise Absent(f"there is no P{params.p}")
    (answer,) = told
    p = answer_as(answer["status"], PStatus)
    if params.epoch not in (None, p.epoch):
        raise Absent(f"P{params.p} has another worker now: its Gs have ended")
    rows = answer.get("rows", ())
    if answer["answered"] and not rows:
        raise Absent(f"P{params.p} has no G {params.id} any more: it has ended")
    events = answer.get("story", {}).get("events", ())
    return shapes.OneG(
        p=params.p, id=params.id, epoch=p.epoch, pid=p.pid, answered=answer["answered"],
        silence="" if answer["answered"] else f"P{params.p} {silence(p)}",
        g=_g(rows[0], p) if rows else None,
        stack=answer.get("text", ""), job=answer.get("job", ""),
        story=[
            shapes.GEventInfo(
                kind=each["kind"], ago_s=each["ago_us"] / 1e6, took_s=each["took_us"] / 1e6,
                reason=each["reason"],
            )
            for each in events
        ],
    )  # fmt: skip


def _g(row: dict[str, Any], p: PStatus) -> shapes.GInfo:
    told = explain_g(row, p)
    reasons = why(told.reason.value, told.text, told.hint, told.facts)
    found: shapes.GInfo = answer_as({**row, "p": p.p, "why": reasons}, shapes.GInfo)
    return found


async def jobs(ask: Questions, params: shapes.OfJobs) -> shapes.JobPage:
    """Jobs, the newest first: volatile ones that have not ended, then durable ones."""
    wanted = {"state": params.state, "function": params.function}
    kind, place = place_of(params)
    rows: list[dict[str, Any]] = []
    further: str | None = None
    if kind != "durable":
        page = await ask.look("volatile_jobs", after=place, limit=params.limit, **wanted)
        rows, further = page["rows"], next_place("v", page["next"])
    room = params.limit - len(rows)
    if params.kind != "volatile" and further is None and room:
        before = int(place) if kind == "durable" and place else None
        stored = await ask.look("jobs", limit=room, before=before, **wanted)
        if len(stored) == room and params.state != "running":
            further = next_place("d", stored[-1]["number"])
        rows = [*rows, *stored]
    elif params.kind != "volatile" and further is None:
        further = "d999999999999999"  # it is full: durable ones begin on the next one
    counts = await ask.look("job_counts")
    return shapes.JobPage(
        jobs=[readable(row) for row in rows], next=further, counts=_state_counts(counts)
    )


def _state_counts(told: dict[Any, int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state, n in told.items():
        name = StoredState(int(state)).name.lower()
        name = "queued" if name == "leased" else name
        counts[name] = counts.get(name, 0) + n
    return counts


async def failures(ask: Questions, params: shapes.OfFailures) -> shapes.Failures:
    """The last failed attempts of jobs with their tracebacks, the newest first."""
    told = await ask.look("failures", n=params.limit, function=params.function)
    found: shapes.Failures = answer_as(told, shapes.Failures)
    return found


async def clients(ask: Questions, _params: shapes.NoParams) -> shapes.Clients:
    """Connected clients, and what they have."""
    found: shapes.Clients = answer_as(await ask.look("clients"), shapes.Clients)
    return found


async def settings(ask: Questions, _params: shapes.NoParams) -> shapes.Settings:
    """Every setting with its origin; secrets are left out."""
    found: shapes.Settings = answer_as(await ask.look("config"), shapes.Settings)
    return found


async def registered(ask: Questions, _params: shapes.NoParams) -> shapes.RegisteredOnes:
    """Functions that may be called by name: ``@gmpd.job`` marks them in modules of
    ``daemon.imports``."""
    told = await ask.look("registered")
    rows = [
        shapes.Registered(
            name=each["name"],
            options={
                **(each["options"] or {}), "keep": each["keep"], "once": each["once"],
                **({} if each["expires"] is None else {"expires": each["expires"]}),
            },
        )
        for each in told["functions"]
    ]  # fmt: skip
    return shapes.RegisteredOnes(functions=rows, total=told["total"])


async def functions(ask: Questions, _params: shapes.NoParams) -> shapes.Functions:
    """Totals of the busiest functions, the most time first; the rest is ``_other``."""
    _, status = await ask.snapshot()
    rows = [
        shapes.FunctionInfo(
            function=each.name,
            finished=each.finished,
            time_s=each.run.sum_ns / 1e9,
            on_p_s=each.occupied_s,
            run_p50_s=each.run.quantile_s(0.5),
            run_p99_s=each.run.quantile_s(0.99),
            wait_p50_s=each.wait.quantile_s(0.5),
            wait_p99_s=each.wait.quantile_s(0.99),
        )
        for each in status.functions
    ]
    return shapes.Functions(functions=rows)


async def warnings(ask: Questions, _params: shapes.NoParams) -> shapes.Warnings:
    """Problems and their remedies: the part of ``gmpd doctor`` that the daemon knows."""
    _, status = await ask.snapshot()
    rows = [each.as_map() for each in problems(status)]
    return shapes.Warnings(warnings=answer_as(rows, list[shapes.Finding]))


async def trace(ask: Questions, params: trace_shapes.OfTrace) -> trace_shapes.Trace:
    """The work of all Ps in the last half minute, or since the answer before: jobs, steps of
    async jobs, hand-offs and steals. Short jobs are merged by function. A P whose worker does not
    answer is named, and not waited for."""
    return await ask.trace.after(params.after)


async def picture(ask: Questions) -> shapes.Picture:
    """The queues as they are now."""
    found: shapes.Picture = answer_as(await ask.look("picture"), shapes.Picture)
    return found
