"""The coordinator's part of the live timeline: asked once, not waited for, nothing told twice."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from gmpd import protocol
from gmpd.daemon.coordinator import Coordinator
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.timelines import (
    BACK_NS,
    FEW,
    LONG_US,
    REQUEST,
    ROWS_MAX,
    WAIT_NS,
    WATCHED_NS,
    Timelines,
)
from gmpd.errors import ConfigError
from gmpd.runtime.ring import Kind, Ring
from gmpd.sched.records import Job, PRecord
from gmpd.status import PStatus
from tests.desk import Desk

#: Workers: P and epoch.
P0, P1 = (0, 1), (1, 1)


def shown_id(job: Job) -> str:
    return f"durable {job.seq}" if job.session.patient else job.id


class Asked:
    """Timelines before a policy of the test's making, and what it sends."""

    def __init__(self, ps: int = 2) -> None:
        self.desk = Desk()
        for p in range(ps):
            self.desk.ready(p)
        self.deadlines = Deadlines()
        self.told: list[tuple[int, dict[str, int]]] = []
        self.replies: list[tuple[bytes, int, dict[str, Any]]] = []
        self.ring = Ring()
        self.noticed_us = 0
        daemon: Any = SimpleNamespace(
            sched=self.desk.sched, pool=SimpleNamespace(procs=ps), workers=self,
            deadlines=self.deadlines, ring=self.ring,
            durable=SimpleNamespace(shown_id=shown_id),
        )  # fmt: skip
        self.timelines = Timelines(
            daemon,
            lambda who: PStatus(who[0], state="deaf"),
            lambda *reply: self.replies.append(reply),
        )

    def tell(self, record: PRecord, ask: protocol.Ask) -> None:
        assert (ask.request, ask.what) == (REQUEST, "timeline")
        self.told.append((record.p, ask.params))

    def ask(self, request: int = 1, since: int = 0) -> dict[int, dict[str, int]]:
        """Ask; what the workers were told, by P."""
        self.told.clear()
        self.timelines.ask(b"gateway", request, {"since_ns": since, "rows": 100})
        return dict(self.told)

    def run(self, later_ns: int = 0) -> None:
        self.deadlines.run(time.monotonic_ns() + later_ns)

    def reply(self) -> dict[int, dict[str, Any]]:
        """The Ps of the last reply."""
        return {each["p"]: each for each in self.replies[-1][2]["ps"]}


def test_all_that_answer_are_in_one_reply() -> None:
    asked = Asked()
    assert set(asked.ask()) == {0, 1}
    asked.timelines.answered(P0, b"zero")
    asked.run()
    assert not asked.replies, "it waits for the other"
    asked.timelines.answered(P1, b"one")
    asked.run()
    assert {p: each["parts"] for p, each in asked.reply().items()} == {0: [b"zero"], 1: [b"one"]}
    (peer, request, value) = asked.replies[0]
    assert (peer, request) == (b"gateway", 1)
    assert value["since"] < value["until"] < value["now"]


def test_a_worker_that_is_silent_is_waited_for_once_and_asked_once() -> None:
    asked = Asked()
    asked.ask()
    asked.timelines.answered(P0, b"a")
    asked.run()
    asked.run(WAIT_NS)
    assert (asked.reply()[1]["parts"], asked.reply()[1]["state"]) == ([], "deaf")
    for n in range(3):
        assert set(asked.ask(2 + n)) == {0}
        asked.timelines.answered(P0, b"b")
        asked.run()
        assert len(asked.replies) == 2 + n, "the silent one is not waited for"
        assert asked.reply()[1]["silent_s"] > 0
    asked.timelines.answered(P1, b"late")
    assert set(asked.ask(9)) == {0, 1}
    asked.timelines.answered(P0, b"c")
    asked.timelines.answered(P1, b"now")
    asked.run()
    assert asked.reply()[1]["parts"] == [b"late", b"now"]


def test_windows_of_each_worker_adjoin() -> None:
    asked = Asked()
    first = asked.ask()
    asked.timelines.answered(P0, b"")
    asked.run(WAIT_NS)
    until = asked.replies[-1][2]["until"]
    second = asked.ask(2, until)
    assert second[0]["since_ns"] == first[0]["until_ns"] == until
    asked.timelines.answered(P1, b"")
    asked.timelines.answered(P0, b"")
    asked.run()
    third = asked.ask(3, asked.replies[-1][2]["until"])
    assert third[0]["since_ns"] == second[0]["until_ns"]
    assert third[1]["since_ns"] == first[1]["until_ns"], "it tells what it had no time to tell"


def test_a_dead_worker_is_not_waited_for() -> None:
    asked = Asked()
    asked.ask()
    asked.timelines.answered(P0, b"")
    asked.desk.died(1)
    asked.timelines.worker_died()
    asked.run()
    assert asked.reply()[1]["parts"] == []
    asked.desk.ready(1, 2)
    assert set(asked.ask(2)) == {0, 1}
    asked.timelines.answered(P1, b"of its predecessor")
    asked.timelines.answered((1, 2), b"its own")
    asked.timelines.answered(P0, b"")
    asked.run()
    assert asked.reply()[1]["parts"] == [b"its own"]


def test_calls_at_once_are_one_question() -> None:
    asked = Asked(1)
    assert asked.ask(1)
    assert not asked.ask(2)
    asked.timelines.answered(P0, b"")
    asked.run()
    assert [(request, value["ps"][0]["parts"]) for _, request, value in asked.replies] == [
        (1, [b""]), (2, [b""]),
    ]  # fmt: skip


def test_without_workers_the_reply_is_immediate() -> None:
    asked = Asked(1)
    asked.desk.died(0)
    asked.ask()
    asked.run()
    assert asked.reply()[0]["state"] == "deaf"


def test_a_window_is_never_longer_than_it_is_kept() -> None:
    asked = Asked(1)
    params = asked.ask(1, 0)[0]
    assert 0 < params["until_ns"] - params["since_ns"] <= BACK_NS


@pytest.mark.parametrize(
    "params",
    [{"since_ns": -1}, {"since_ns": 1.5}, {"rows": 0}, {"rows": ROWS_MAX + 1}, {"rows": True}],
)
def test_other_questions_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Asked().timelines.ask(b"c", 1, params)


def test_jobs_are_remembered_while_they_can_be_seen() -> None:
    asked = Asked(1)
    p, client = asked.desk.sched.ps[0], asked.desk.client("c")
    asked.desk.teach(p, client, "m:f", 0.01)
    asked.desk.submit(client, 20)
    asked.desk.take()
    record, tokens = p, list(p.fresh)
    ids = [job.id for job in p.fresh.values()]
    now = time.monotonic_ns()
    tell = asked.timelines.finished
    tell(record, tokens[:2], [LONG_US, LONG_US - 1], now)  # there is no question yet
    asked.ask()
    tell(record, tokens[2:4], [5, 5], now)
    tell(record, tokens[4 : 5 + FEW], [5] * FEW + [1000], now)
    asked.timelines.answered(P0, b"")
    asked.run()
    known = [row[3] for row in asked.replies[-1][2]["jobs"]]
    assert known == [ids[4 + FEW], ids[3], ids[2], ids[0]]
    asked.desk.start(p, tokens[10:11])
    asked.ask(2, asked.replies[-1][2]["until"])
    asked.timelines.answered(P0, b"")
    asked.run()
    assert ids[10] in [row[3] for row in asked.replies[-1][2]["jobs"]], "it runs"


def test_ends_of_short_jobs_are_passed_on_only_while_a_page_asks() -> None:
    asked = Asked(1)
    asked.noticed_us = LONG_US
    coordinator: Any = Coordinator.__new__(Coordinator)
    coordinator.workers = asked
    coordinator._admin = SimpleNamespace(timelines=asked.timelines)
    coordinator.dumps = SimpleNamespace(least_us=LONG_US * 2, finished=lambda *_: None)

    def noticed_after(later_ns: int) -> int:
        coordinator._finished(asked.desk.sched.ps[0], [], [], time.monotonic_ns() + later_ns)
        return asked.noticed_us

    asked.ask()
    assert asked.noticed_us == 0
    assert noticed_after(0) == 0
    assert noticed_after(WATCHED_NS) == LONG_US
    coordinator.dumps.least_us = LONG_US // 2
    assert noticed_after(WATCHED_NS) == LONG_US // 2


def test_durable_jobs_have_the_id_of_the_store() -> None:
    asked = Asked(1)
    p, client = asked.desk.sched.ps[0], asked.desk.client("store")
    client.patient = True
    (seq,) = asked.desk.submit(client, 1)
    asked.desk.take()
    asked.timelines.finished(p, list(p.fresh), [LONG_US], time.monotonic_ns())
    asked.ask()
    asked.timelines.answered(P0, b"")
    asked.run()
    ((*_, id_, _accepted, durable),) = asked.replies[-1][2]["jobs"]
    assert (id_, durable) == (f"durable {seq}", True)


def test_steals_and_deaths_come_from_the_coordinators_own_ring() -> None:
    asked = Asked(1)
    at = time.monotonic_ns() - 50_000_000
    asked.ring.add((Kind.REVOKED | (1 | (0 + 1) << 24) << 8, at - 9, at, 5))
    asked.ring.add((Kind.DIED | 1 << 8, at, 0, 7))
    asked.ring.add((Kind.TURN | 1 << 8, at, at, 0))
    asked.ask(1, at - 1)
    asked.timelines.answered(P0, b"")
    asked.run()
    value = asked.replies[-1][2]
    assert value["steals"] == [(at, 1, 0, 5)]
    assert value["workers"] == [(at, 1, 7, True)]


def test_an_isolated_job_that_vanishes_has_ended() -> None:
    asked = Asked(1)
    job: Any = SimpleNamespace(
        session=SimpleNamespace(patient=False),
        fn=SimpleNamespace(name="m:f"),
        id="ab",
        accepted_ns=3,
    )
    record: Any = SimpleNamespace(p=1 << 16, epoch=1, leased_ns=9, started={1: job})
    asked.desk.sched.isolated.ps[1 << 16] = record

    def rows() -> list[Any]:
        asked.ask(len(asked.replies) + 1, asked.replies[-1][2]["until"] if asked.replies else 0)
        asked.timelines.answered(P0, b"")
        asked.run()
        found: list[Any] = asked.replies[-1][2]["isolated"]
        return found

    assert rows() == [[1 << 16, 9, 0, "m:f", "ab", 3, False]]
    del asked.desk.sched.isolated.ps[1 << 16]
    ((number, began, ended, *_),) = rows()
    assert (number, began) == (1 << 16, 9)
    assert ended > 9
