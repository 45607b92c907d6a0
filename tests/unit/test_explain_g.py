"""Why a G waits: a reason, a sentence and facts for each state and each of Go's wait reasons."""

from __future__ import annotations

from typing import Any

import pytest

import gmpd.runtime.group
import gmpd.runtime.loop
import gmpd.runtime.remotechan
import gmpd.runtime.select
import gmpd.runtime.sleepers
import gmpd.runtime.sync
import gmpd.runtime.synctest  # noqa: F401 - all kinds of waits are to be known
from gmpd.explain_g import WAITS, GExplanation, GReason, explain_g, silence
from gmpd.runtime.sudog import Wait
from gmpd.status import PStatus


def told(state: str = "waiting", reason: str = "", **more: Any) -> GExplanation:
    row = {"id": 9, "state": state, "reason": reason, "function": "m:f", "since_s": 5.0,
           "job": True, "m": more.pop("m", None)}  # fmt: skip
    return explain_g(row, PStatus(p=1, up=1, **{"running": "m:slow", **more}))


@pytest.mark.parametrize(
    ("reason", "text", "facts"),
    [
        (GReason.RUNNING, "it runs on P1 for 5 s", {"state": "running"}),
        (GReason.RUNNING, "it runs on P1 on M3", {"state": "running", "m": 3, "running": "m:f"}),
        (GReason.BESIDE, "it computes on M3 beside P1", {"state": "running", "m": 3}),
        (GReason.BLOCKED, "it blocks on M3 beside P1", {"state": "syscall", "m": 3}),
        (GReason.RECEIVE, "it has waited 5 s for a value from a channel",
         {"state": "syscall", "m": 3, "reason": "chan receive"}),
        (GReason.RUNNABLE, "waits for its turn on P1, which runs m:slow: 7 in its run queue",
         {"state": "runnable", "runq": 7}),
        (GReason.DEAF_P, "P1, which runs m:slow, has made no round for 2 s",
         {"state": "runnable", "running_s": 2.0, "p_state": "deaf"}),
        (GReason.G, "it has waited 5 s for the end of G 12", {"reason": "G wait (G 12)"}),
        (GReason.OTHER, "it has waited 5 s for a new reason", {"reason": "a new reason"}),
        (GReason.ENDED, "it has ended", {"state": "dead"}),
    ],
)  # fmt: skip
def test_each_state_has_its_reason(reason: GReason, text: str, facts: dict[str, Any]) -> None:
    p_state = facts.pop("p_state", "running")
    row_state = facts.pop("state", "waiting")
    row = {"id": 9, "state": row_state, "reason": facts.pop("reason", ""), "function": "m:f",
           "since_s": 5.0, "job": True, "m": facts.pop("m", None)}  # fmt: skip
    found = explain_g(row, PStatus(p=1, up=1, state=p_state, **{"running": "m:slow", **facts}))
    assert found.reason is reason
    assert text in found.text


def test_every_wait_of_the_runtime_has_its_sentence() -> None:
    kinds, seen = [Wait], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        seen.add(kind.reason)
    seen.discard("")
    assert len(seen) > 10
    assert seen <= WAITS.keys()
    for reason in seen:
        assert told(reason=reason).text.startswith("it has waited 5 s ")


def test_the_facts_are_data() -> None:
    assert told(reason="G wait (G 12)").facts == {
        "p": 1, "wait_reason": "G wait (G 12)", "since_s": 5.0, "p_runs": "m:slow", "g": 12,
    }  # fmt: skip
    assert told("runnable", runq=3).facts["ahead"] == 3


def test_a_silent_worker_is_explained_by_its_status() -> None:
    assert silence(PStatus(p=1, state="starting")) == "did not answer: its state is starting"
    runs = silence(PStatus(p=1, up=1, running="m:slow", running_s=2.0))
    assert "running m:slow for 2.0 s" in runs
    assert "holds 2 started" in silence(PStatus(p=1, up=1, started=2))
