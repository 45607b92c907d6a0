"""Why a job waits, or how it ended: one sentence with facts, a reason code, and a hint.

Pure: a job as ``client.job(id).info()`` has it, and the time, in; an explanation out. The daemon
adds the facts of the moment (``daemon/stages.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

#: Seconds that a worker may take to tell for which children a job waits.
LOOK_S: Final = 1.0
#: Functions and states of children that are named.
KINDS_MAX: Final = 5


class Reason(Enum):
    """Why a job is where it is."""

    DELAYED = "delayed"
    RETRIED = "retried"
    QUEUED = "queued"
    STORED = "stored"
    STALLED = "stalled"
    SUSPECT = "suspect"
    ISOLATED = "isolated"
    RESULTS_NOT_TAKEN = "results_not_taken"
    LIMITED = "limited"
    UNIQUE = "unique"
    LEASED = "leased"
    SET_ASIDE = "set_aside"
    DEAF_P = "deaf_p"
    RUNNING = "running"
    CHILDREN = "children"
    OVERRUNNING = "overrunning"
    WITHHELD = "withheld"
    BLOCKED = "blocked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"


class Explanation(NamedTuple):
    """``text``: one sentence. ``hint``: what may help; empty if nothing has to. ``facts``: those
    that are known of its stage, as plain data."""

    reason: Reason
    text: str
    hint: str = ""
    facts: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.text}. {self.hint}".rstrip() if self.hint else f"{self.text}."


_ENDS = {
    "done": (Reason.DONE, "it is done", ""),
    "failed": (Reason.FAILED, "it failed", "`gmpd jobs show ID` has the traceback of each attempt;"
               " `gmpd jobs retry ID` runs it again"),
    "cancelled": (Reason.CANCELLED, "it was cancelled", ""),
    "expired": (Reason.EXPIRED, "it did not begin before its `expires`", "give it more time, or the"
                " daemon more Ps"),
    "quarantined": (Reason.QUARANTINED, "it is quarantined: it ended its workers", "look at its"
                    " attempts with `gmpd jobs show ID`, then `gmpd jobs retry ID`"),
    "unknown": (Reason.UNKNOWN, "its worker died while it ran, and `once` forbids another attempt",
                "find out what it did, then `gmpd jobs retry ID` if it may run again"),
}  # fmt: skip


def explain(job: Mapping[str, Any], now: float) -> Explanation:
    """``now``: unix seconds."""
    return _explained(job, now)._replace(facts=_facts(job))


def _facts(job: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the job's stage and its limit that say anything."""
    stage = {k: v for k, v in (job.get("stage") or {}).items() if v not in ("", None)}
    told = {k: v for k, v in stage.items() if k != "stage" and v is not False}
    limit = job.get("limit")
    return told if limit is None else {**told, "limit": dict(limit)}


def _explained(job: Mapping[str, Any], now: float) -> Explanation:
    state = job["state"]
    if state in _ENDS:
        reason, text, hint = _ENDS[state]
        return Explanation(reason, f"{text}{_why(job)}", hint)
    if state == "blocked":
        return Explanation(
            Reason.BLOCKED, f"its function {job['function']} cannot be imported{_why(job)}",
            "put the module where the daemon's jobs find it: it is tried again every 5 s",
        )  # fmt: skip
    facts: Mapping[str, Any] = job.get("stage") or {}
    stage = facts.get("stage", "")
    if stage in ("started", "overrunning") or (state == "running" and stage != "leased"):
        return _running(job, facts, now)
    if stage == "leased":
        return _leased(job, facts)
    return _waiting(job, facts, now)


def _running(job: Mapping[str, Any], facts: Mapping[str, Any], now: float) -> Explanation:
    where = _where(job["p"]) if job["pid"] is not None else "a worker"
    if facts.get("stage") == "overrunning":
        return Explanation(
            Reason.OVERRUNNING,
            f"its time limit has passed, and its function still runs on {where}: the next attempt"
            " waits for its end",
            "`gmpd jobs cancel --force ID` ends it with its worker; `kill_after` does so by itself",
        )
    since = f" for {seconds(now - job['began'])}" if job["began"] else ""
    if facts.get("withheld"):
        return Explanation(
            Reason.WITHHELD, f"it has ended, and {where} keeps its result: its client takes none",
            "read the results, or raise limits.client_results",
        )  # fmt: skip
    attempt = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
    pid = f" (pid {job['pid']})" if job["pid"] is not None else ""
    if facts.get("deaf"):
        return Explanation(
            Reason.DEAF_P,
            f"it runs on {where}{pid}{since}{attempt}, whose loop has made no round for"
            f" {seconds(facts['deaf_s'])}",
            "`gmpd stacks` shows where; a call that computes or blocks without an await belongs"
            " into a plain function",
        )
    if facts.get("awaits"):
        return Explanation(
            Reason.CHILDREN,
            f"it waits on {where}{pid}{since}{attempt} for {_children(facts)}",
            "`gmpd stacks` shows where they are",
        )
    return Explanation(Reason.RUNNING, f"it runs on {where}{pid}{since}{attempt}")


def with_children(job: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """A job with the children for which it waits: ``answer`` is that to ``question_of``."""
    story: Mapping[str, Any] = {}
    for each in answer["ps"]:
        story = each.get("story", story)
    found = {"awaits": story.get("awaits", 0), "children": story.get("children", [])}
    return {**job, "stage": {**job["stage"], **found}}


def question_of(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters of the call ``g``, whose answer tells for which children a job waits; None:
    it does not wait for any, or cannot be asked."""
    facts: Mapping[str, Any] = job.get("stage") or {}
    if facts.get("stage") != "started" or facts.get("deaf"):
        return None
    if facts.get("on") is None or "token" not in facts:
        return None
    return {"p": facts["on"], "token": facts["token"], "wait_s": LOOK_S}


def _children(facts: Mapping[str, Any]) -> str:
    """The awaited children, in words: how many, and how many of each function and state."""
    n, rows = facts["awaits"], facts["children"]
    counted = Counter((row["function"], row["reason"] or row["state"]) for row in rows)
    kinds = [
        f"{function} ({state})" if many == 1 else f"{many:,} {function} ({state})"
        for (function, state), many in counted.most_common(KINDS_MAX)
    ]
    others = n - sum(many for _, many in counted.most_common(KINDS_MAX))
    kinds += [f"{others:,} others"] if others > 0 and kinds else []
    which = f": {', '.join(kinds)}" if kinds else ""
    return f"{n:,} child{'' if n == 1 else 'ren'}{which}"


def _leased(job: Mapping[str, Any], facts: Mapping[str, Any]) -> Explanation:
    where = _where(facts["on"])
    runs = f", which runs {facts['running']}" if facts["running"] else ""
    if facts["deaf"]:
        return Explanation(
            Reason.DEAF_P,
            f"{where} has it{runs}, and has made no round for {seconds(facts['deaf_s'])}",
            "it moves on as soon as another P has room; `gmpd stacks` shows where that P is",
        )
    if facts["aside"]:
        return Explanation(
            Reason.SET_ASIDE, f"{where} has set it aside{runs}: others begin before it",
            "plain functions that compute run in turns; limits.plain_calls bounds how many run",
        )  # fmt: skip
    ahead = f" behind {facts['ahead']:,} others" if facts["ahead"] else ""
    return Explanation(Reason.LEASED, f"{where} has it and begins it{ahead} soon{runs}")


def _waiting(job: Mapping[str, Any], facts: Mapping[str, Any], now: float) -> Explanation:
    stage = facts.get("stage", "")
    due_s = facts.get("due_s") if stage == "delayed" else job["run_at"] - now
    if stage == "delayed" or (due_s or 0) > 0:
        return _delayed(job, due_s, now)
    if job["limit"] is not None:
        return _limited(job["limit"])
    if stage == "held":
        holder = f"job {facts['holder']}" if facts["holder"] else "another job"
        return Explanation(Reason.UNIQUE, f"{holder} has its unique key, and it waits for that one")
    if stage == "queued":
        return _queued(facts)
    return Explanation(
        Reason.STORED, "it is on disk, and waits until jobs before it have begun",
        "`gmpd status` shows what the Ps run",
    )  # fmt: skip


def _delayed(job: Mapping[str, Any], due_s: float | None, now: float) -> Explanation:
    when = "" if due_s is None else f" in {seconds(due_s)}"
    if job["attempt"] > 1:
        return Explanation(
            Reason.RETRIED, f"attempt {job['attempt'] - 1} failed, and it is tried again{when}",
            "`gmpd failures` has the error",
        )  # fmt: skip
    return Explanation(Reason.DELAYED, f"it begins{when}, as its `delay` or `at` asks")


def _limited(limit: Mapping[str, Any]) -> Explanation:
    used = []
    if limit["at_once"]:
        used.append(f"{limit['inside']:,} of {limit['at_once']:,} run at once")
    if limit["starts"]:
        used.append(f"{limit['started']:,} of {limit['starts']:,} started in {limit['per_s']:g} s")
    return Explanation(
        Reason.LIMITED,
        f"it waits for its limit {limit['key']}: {' and '.join(used)}, {limit['waiting']:,} wait",
    )


def _queued(facts: Mapping[str, Any]) -> Explanation:
    if facts["stalled"]:
        return Explanation(Reason.STALLED, f"no P can get a worker: {facts['stalled']}", "mend it")
    if facts["held_back"]:
        return Explanation(
            Reason.RESULTS_NOT_TAKEN, "it is held back: its client takes no results",
            "read the results, or raise limits.client_results",
        )  # fmt: skip
    if facts["suspected"]:
        return Explanation(
            Reason.SUSPECT, "jobs of its function run one by one, as they ended several workers",
            "`gmpd failures` tells how",
        )  # fmt: skip
    if facts["isolated"]:
        return Explanation(
            Reason.ISOLATED,
            f"{facts['waiting']:,} isolated jobs wait, and {facts['isolated_max']:,} may run at a"
            " time",
            "limits.isolated",
        )
    runs = f", {facts['running']} among others" if facts["running"] else ""
    return Explanation(
        Reason.QUEUED,
        f"{facts['waiting']:,} jobs are in the global queue, and {facts['busy_ps']:,} of"
        f" {facts['ps']:,} Ps are busy{runs}",
        "a higher priority, or `gmpd procs N`, has it begin sooner",
    )


def _where(p: int | None) -> str:
    return "a worker of its own" if p is None else f"P{p}"


def _why(job: Mapping[str, Any]) -> str:
    return f": {job['text']}" if job["text"] else ""


def seconds(n: float) -> str:
    """A time in words."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if n >= 2 * size:
            return f"{n / size:.0f} {unit}"
    return f"{max(0.0, n):.3g} s"
