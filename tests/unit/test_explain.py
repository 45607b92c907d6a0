"""Why a job waits: a reason, a sentence and a hint for each state."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.client.stored import readable
from gmpd.daemon.job_views import JobViews
from gmpd.daemon.stages import stage_of
from gmpd.explain import Explanation, Reason, explain
from gmpd.protocol import Outcome
from gmpd.sched.records import Job, Session
from gmpd.sched.states import JobState
from gmpd.sched.stored import StoredState
from tests.desk import MS, Desk

NOW = 1_000_000.0


def told(state: str = "queued", stage: dict[str, Any] | None = None, **more: Any) -> Explanation:
    job = {
        "state": state, "function": "m:f", "text": "", "p": None, "pid": None, "began": None,
        "run_at": 0.0, "attempt": 1, "limit": None, "stage": stage, **more,
    }  # fmt: skip
    return explain(job, NOW)


QUEUED = {"stage": "queued", "stalled": "", "waiting": 7, "isolated": False, "isolated_max": 2,
          "suspected": False, "held_back": False, "busy_ps": 2, "ps": 2,
          "running": "m:slow"}  # fmt: skip
ON_P1 = {"stage": "leased", "on": 1, "isolated": False, "deaf": False, "deaf_s": 0.0,
         "aside": False, "withheld": False, "ahead": 0, "running": "m:slow"}  # fmt: skip
STARTED = {**ON_P1, "stage": "started"}
CHILD = {"function": "m:part", "state": "waiting", "reason": "sleep"}
FRESH = {"function": "m:part", "state": "runnable", "reason": ""}
RUNS = {"state": "running", "p": 1, "pid": 7, "began": NOW - 5}
LIMIT = {"key": "api", "at_once": 4, "inside": 4, "starts": 10, "started": 3, "per_s": 1.0,
         "waiting": 120}  # fmt: skip

TABLE: list[tuple[Reason, str, dict[str, Any]]] = [
    (Reason.QUEUED, "7 jobs are in the global queue, and 2 of 2 Ps are busy, m:slow among others",
     {"stage": QUEUED}),
    (Reason.STALLED, "no P can get a worker: no memory",
     {"stage": {**QUEUED, "stalled": "no memory"}}),
    (Reason.SUSPECT, "one by one", {"stage": {**QUEUED, "suspected": True}}),
    (Reason.ISOLATED, "7 isolated jobs wait, and 2 may run at a time",
     {"stage": {**QUEUED, "isolated": True}}),
    (Reason.RESULTS_NOT_TAKEN, "its client takes no results",
     {"stage": {**QUEUED, "held_back": True}}),
    (Reason.STORED, "it is on disk", {}),
    (Reason.DELAYED, "it begins in 30 s", {"run_at": NOW + 30}),
    (Reason.DELAYED, "it begins in 3 min", {"stage": {"stage": "delayed", "due_s": 180.0}}),
    (Reason.RETRIED, "attempt 2 failed, and it is tried again in 2.5 s",
     {"stage": {"stage": "delayed", "due_s": 2.5}, "attempt": 3}),
    (Reason.RETRIED, "it is tried again in 3 days", {"run_at": NOW + 3 * 86400, "attempt": 2}),
    (Reason.RETRIED, "it is tried again",
     {"stage": {"stage": "delayed", "due_s": None}, "attempt": 2}),
    (Reason.LIMITED, "api: 4 of 4 run at once and 3 of 10 started in 1 s, 120 wait",
     {"limit": LIMIT, "stage": {"stage": "limited"}}),
    (Reason.UNIQUE, "job abcd has its unique key", {"stage": {"stage": "held", "holder": "abcd"}}),
    (Reason.LEASED, "P1 has it and begins it soon, which runs m:slow", {"stage": ON_P1}),
    (Reason.LEASED, "behind 3 others", {"stage": {**ON_P1, "ahead": 3}}),
    (Reason.SET_ASIDE, "P1 has set it aside, which runs m:slow",
     {"stage": {**ON_P1, "aside": True}}),
    (Reason.DEAF_P, "P1 has it, which runs m:slow, and has made no round for 2 s",
     {"stage": {**ON_P1, "deaf": True, "deaf_s": 2.0}}),
    (Reason.RUNNING, "it runs on P1 (pid 7) for 5 s, attempt 2",
     {**RUNS, "stage": STARTED, "attempt": 2}),
    (Reason.CHILDREN, "it waits on P1 (pid 7) for 5 s for 1 child: m:part (sleep)",
     {**RUNS, "stage": {**STARTED, "awaits": 1, "children": [CHILD]}}),
    (Reason.CHILDREN, "for 2,000 children: 2 m:part (sleep), m:part (runnable), 1,997 others",
     {**RUNS, "stage": {**STARTED, "awaits": 2000, "children": [CHILD, CHILD, FRESH]}}),
    (Reason.CHILDREN, "for 3 children",
     {**RUNS, "stage": {**STARTED, "awaits": 3, "children": []}}),
    (Reason.RUNNING, "it runs on a worker of its own (pid 7)",
     {**RUNS, "p": None, "stage": {**STARTED, "on": None}}),
    (Reason.DEAF_P, "it runs on P1 (pid 7) for 5 s, whose loop has made no round for 2 s",
     {**RUNS, "stage": {**STARTED, "deaf": True, "deaf_s": 2.0}}),
    (Reason.OVERRUNNING, "its function still runs on P1",
     {**RUNS, "stage": {**STARTED, "stage": "overrunning"}}),
    (Reason.WITHHELD, "P1 keeps its result", {**RUNS, "stage": {**STARTED, "withheld": True}}),
    (Reason.BLOCKED, "m:f cannot be imported: no module m", {"state": "blocked",
                                                             "text": "no module m"}),
    (Reason.DONE, "it is done", {"state": "done"}),
    (Reason.FAILED, "it failed: ValueError: no", {"state": "failed", "text": "ValueError: no"}),
    (Reason.CANCELLED, "it was cancelled", {"state": "cancelled"}),
    (Reason.EXPIRED, "it did not begin", {"state": "expired"}),
    (Reason.QUARANTINED, "it ended its workers", {"state": "quarantined"}),
    (Reason.UNKNOWN, "its worker died", {"state": "unknown"}),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "text", "facts"), TABLE, ids=lambda each: str(each)[:30])
def test_each_state_has_its_reason_and_its_facts(
    reason: Reason, text: str, facts: dict[str, Any]
) -> None:
    found = told(**facts)
    assert found.reason is reason
    assert text in found.text
    assert not found.text.endswith(".")
    assert str(found)


def test_every_reason_is_in_the_table() -> None:
    assert {reason for reason, _, _ in TABLE} == set(Reason)


def test_the_facts_of_a_sentence_are_data_too() -> None:
    assert told(stage={**QUEUED, "stalled": ""}).facts == {
        "waiting": 7, "isolated_max": 2, "busy_ps": 2, "ps": 2, "running": "m:slow",
    }  # fmt: skip
    assert told(stage=ON_P1).facts == {"on": 1, "deaf_s": 0.0, "ahead": 0, "running": "m:slow"}
    assert told(limit=LIMIT, stage={"stage": "limited"}).facts == {"limit": LIMIT}
    assert told("done").facts == {}


def test_every_state_of_the_ledger_and_of_the_store_has_a_reason() -> None:
    facts: dict[str, Any] = QUEUED | ON_P1 | {"due_s": 1.0, "holder": ""}
    for state in set(JobState) - {JobState.FINAL}:
        stage = facts | {"stage": state.name.lower()}
        limit = LIMIT if state is JobState.LIMITED else None
        began = state in (JobState.STARTED, JobState.OVERRUNNING)
        more: dict[str, Any] = RUNS if began else {}
        assert told(stage=stage, limit=limit, **more).reason is not Reason.STORED, state
    stored = {each: told(each.name.lower()).reason for each in StoredState}
    assert stored.pop(StoredState.QUEUED) is stored.pop(StoredState.LEASED) is Reason.STORED
    assert {reason.name for reason in stored.values()} == {state.name for state in stored}


# -- the facts of a ledger -----------------------------------------------------------------------


def seen(desk: Desk, session: Session, seq: int) -> Explanation:
    """As a client is told."""
    job = session.jobs[seq]
    row = JobViews(desk.sched, lambda p: 1000 + p).row(job)
    row["stage"] = stage_of(desk.sched, job, desk.now)
    return explain(readable({**row, "id": b"x" * 16}), row["created_ms"] / 1000)


def test_the_ledger_tells_the_facts_of_each_stage() -> None:
    desk = Desk(credit_ns=1)
    p, one = desk.ready(0), desk.client()
    desk.teach(p, one, "m:f", 5)
    first, second = desk.submit(one, 2, "m:f")
    (late,) = desk.submit(one, 1, delay=60)
    holder, held = (desk.submit(one, 1, "m:f", unique="k", on_held="wait")[0] for _ in range(2))
    desk.take()
    assert seen(desk, one, first).reason is Reason.LEASED
    desk.start(p)
    desk.take()
    assert seen(desk, one, first).reason is Reason.RUNNING
    assert seen(desk, one, second).reason in (Reason.QUEUED, Reason.LEASED)
    assert seen(desk, one, late).text == "it begins in 60 s, as its `delay` or `at` asks"
    assert seen(desk, one, holder).reason in (Reason.QUEUED, Reason.LEASED)
    assert seen(desk, one, held).text.startswith(f"job {one.jobs[holder].id} has its unique key")


def test_a_retry_is_told_with_its_time() -> None:
    desk = Desk()
    p, one, seq = desk.begun(retries=1)
    desk.end(p, outcome=Outcome.ERROR)
    found = seen(desk, one, seq)
    assert found.reason is Reason.RETRIED
    assert " in " in found.text


def test_a_deaf_p_is_named() -> None:
    desk = Desk()
    p, one, seq = desk.begun()
    p.deaf, p.deaf_ns = True, desk.now
    desk.now += 2_000 * MS
    job: Job = one.jobs[seq]
    facts = stage_of(desk.sched, job, desk.now)
    assert (facts["deaf"], facts["deaf_s"], facts["on"]) == (True, 2.0, 0)
    assert seen(desk, one, seq).reason is Reason.DEAF_P
