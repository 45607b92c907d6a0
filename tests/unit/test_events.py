"""Events as values: each is handled, kept without its values, and told when something is wrong."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest

from gmpd.errors import InvariantError, ProtocolError
from gmpd.protocol import Define, Finished, Output, Progress, Submit
from gmpd.sched import events
from gmpd.sched.events import AnyEvent, Event
from gmpd.sched.history import EVENTS_KEPT
from gmpd.sched.lease_events import LeaseEvents
from gmpd.sched.states import JobState
from tests.desk import KILLED, Desk, replay

SECRET = b"a user's value"
MANY = list(range(5000))
_DONE = Finished(MANY, [SECRET] * 5000, MANY, MANY, None, None)
#: One of each kind, as large as it may be.
LARGE: tuple[AnyEvent, ...] = (
    events.SessionOpened(1, b"peer", "c"),
    events.Defined(1, Define(1, "pickle", "f" * 5000, SECRET), b"digest"),
    events.Undefined(1, MANY),
    events.Submitted(1, Submit(1, 1, None, [SECRET] * 5000, None), [(SECRET,)] * 5000),
    events.RoomDeclined(1),
    events.StartsRecalled(1, ("k", 0, 9, 1.0), tuple(MANY)),
    events.Cancelled(1, MANY),
    events.Recalled(1, MANY),
    events.Pulled(1, 1, 1),
    events.Acknowledged(1, 1),
    events.SessionClosed(1),
    events.Heard(0, 1),
    events.Started(0, 1, MANY),
    events.SetAside(0, 1, MANY),
    events.Returned(0, 1, MANY),
    events.Withheld(0, 1, MANY, MANY),
    events.Expired(0, 1, MANY),
    events.NotCancelled(0, 1, MANY),
    events.Finished(0, 1, _DONE, [(SECRET,)] * 5000),
    events.ItemsYielded(0, 1, 1, [SECRET] * 5000, [(SECRET,)] * 5000),
    events.ChildrenCounted(0, 1, 1, True),
    events.Printed(0, 1, Output(MANY, [SECRET] * 5000, MANY)),
    events.Progressed(0, 1, Progress(MANY, [*MANY], [*MANY], [repr(SECRET)] * 5000)),
    events.WorkerReady(0, 1),
    events.ParentOpened(0, 1),
    events.Drained(0),
    events.Left(0),
    events.Removed(0),
    events.WorkerDied(0, MANY, 1, KILLED, MANY),
    events.Severed(0),
    events.IsolatedReady(1 << 16),
    events.IsolatedUnfit(1 << 16),
    events.IsolatedDied(1 << 16, MANY, KILLED, "why " * 5000),
    events.IsolatedRenewed(),
    events.IsolatedLimited(1),
    events.Stalled("why " * 5000),
    events.Draining(),
    events.Probed(0, True, False),
    events.Claimed(0, MANY),
    events.Revoked(0, MANY, MANY, 1, 0),
    events.OutcomesRecovered(0, _DONE, [(SECRET,)] * 5000),
    events.TurnEnded(),
)


def test_every_event_is_in_the_union_that_the_policy_handles() -> None:
    bases = {
        events.Event, events.OfSession, events.FromWorker, events.OfPool, events.OfShell,
        events._AboutTokens,
    }  # fmt: skip
    classes = {
        each
        for _, each in inspect.getmembers(events, inspect.isclass)
        if issubclass(each, Event) and each not in bases
    }
    assert classes == set(get_args(AnyEvent)) == {type(each) for each in LARGE}


@pytest.mark.parametrize("event", LARGE, ids=lambda event: type(event).__name__)
def test_what_is_kept_of_an_event_is_bounded_and_holds_no_value(event: Event) -> None:
    kept = event.kept()
    assert len(repr(kept)) < 400
    assert "user's" not in repr(kept)
    assert type(event).__name__ in repr(kept)
    assert _size(kept) < 2000
    if not isinstance(event, events.Undefined | events.Cancelled | events._AboutTokens):
        assert "user's" not in repr(event)
    with pytest.raises(AttributeError):
        event.p = 3  # type: ignore[attr-defined]


def _size(it: Any) -> int:
    """Of all that it keeps alive: texts, numbers, lists."""
    if isinstance(it, bytes | str):
        return len(it)
    if isinstance(it, list | tuple):
        return sum(map(_size, it)) + 8 * len(it)
    fields = getattr(it, "__struct_fields__", ())
    return 8 + sum(_size(getattr(it, name)) for name in fields)


def test_the_policy_keeps_the_last_events_and_what_it_decided() -> None:
    desk = Desk()
    p, client = desk.ready(0), desk.client("nightly")
    desk.submit(client, 30)
    desk.take()
    desk.finish(p)
    story = desk.sched.story()
    lines = story.splitlines()
    assert "WorkerReady(p=0, epoch=1, cores=1" in lines[1]
    assert "name='nightly'" in lines[2]
    assert "Submitted(session 1, 30 rows from 0, function 0)" in lines[4]
    assert "TurnEnded -> DefineAt, LeaseJobs" in lines[5]
    assert "Finished(P0, 1 rows from 1)" in lines[6]
    for _ in range(EVENTS_KEPT):
        desk.heard(p)
        desk.take()  # which decides nothing, and fills nothing
    assert len(desk.sched.history) == EVENTS_KEPT
    assert "Submitted" not in desk.sched.story()


def test_a_broken_rule_carries_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    p, client, _ = desk.begun()
    job = next(iter(p.started.values()))
    job.state = JobState.QUEUED
    with pytest.raises(InvariantError) as broken:
        desk.sched.validate()
    assert "Started(p=0, epoch=1, tokens=[1])" in broken.value.__notes__[0]

    def bug(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(LeaseEvents, "started", bug)
    with pytest.raises(KeyError) as failed:
        desk.start(p, [7])
    assert "tokens=[7]" in failed.value.__notes__[0]
    with pytest.raises(ProtocolError) as refused:
        desk.ack(client, 99)
    assert not hasattr(refused.value, "__notes__")


def test_an_event_of_a_session_that_is_not_open_is_a_bug_but_its_second_end() -> None:
    desk = Desk()
    client = desk.client()
    desk.leave(client)
    desk.leave(client)
    with pytest.raises(InvariantError, match="session 1 is not open"):
        desk.ack(client, 0)
    other = desk.client()
    with pytest.raises(InvariantError, match="open already"):
        desk.tell(events.SessionOpened(other.sid, "again", "again"))


def test_nothing_of_an_old_epoch_or_an_unknown_worker_is_believed() -> None:
    """One door: every message of a worker is refused there, and counted by what it is about."""
    desk = Desk()
    desk.ready(0, 3)
    worker = [each for each in LARGE if isinstance(each, events.FromWorker)]
    for event in worker:
        desk.tell(event)  # of epoch 1
    about = sum(each.rows for each in worker)
    assert desk.sched.counters.dropped == {"stale_epoch": about}
    desk.tell(events.Heard(9, 1))
    assert desk.sched.counters.dropped["stale_epoch"] == about + 1


def test_a_history_that_is_told_again_leads_to_the_same_decisions() -> None:
    desk = Desk()
    p, client, seq = desk.begun(retries=1)
    desk.died(0, p.started, next(iter(p.started)))
    desk.ready(0, 2)
    desk.take(200)
    desk.end(p)
    assert desk.ended(client, seq) is not None
    assert replay(desk) == desk.decisions
    assert any(desk.decisions)
