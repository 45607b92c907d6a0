"""Children of Gs (`gmpd.go`) that run in other workers, on real daemons."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gmpd.codec import encode_call
from gmpd.errors import Unserializable
from gmpd.protocol import Outcome
from gmpd.runtime.chan import Chan
from tests.children_for_tests import notes
from tests.rawclient import RawClient, RawDaemon
from tests.support import wait_until

Boot = Callable[..., RawClient]


@pytest.fixture
def boot(short_tmp: Path) -> Iterator[Boot]:
    """A daemon with two Ps and a client of it; both end with the test."""
    started: list[Any] = []

    def start(**config: Any) -> RawClient:
        daemon = RawDaemon(short_tmp, **config)
        started.append(daemon.end)
        client = RawClient(daemon.endpoint)
        started.append(client.close)
        return client

    yield start
    for end in reversed(started):
        end()


def run(client: RawClient, name: str, *args: Any) -> Any:
    """The value of one job of children_for_tests."""
    ((outcome, value, _),) = client.outcomes(client.submit(f"children_for_tests:{name}", args))
    assert outcome is Outcome.OK, value
    return value


def status(client: RawClient) -> Any:
    return client.call("status")


def until_two(client: RawClient, pids_of: Callable[[Any], Any], name: str, *args: Any) -> Any:
    """The value of the first run of a job whose children two workers ran: mostly the first, but on
    a busy machine the other worker may not get a core in time.
    """
    end = time.monotonic() + 30
    while len(set(pids_of(value := run(client, name, *args)))) < 2:
        assert time.monotonic() < end, "no run was shared"
    return value


def first(rows: Any) -> set[int]:
    return {row[0] for row in rows}


@pytest.mark.parametrize("root", ["squares", "squares_sync", "squares_async"])
def test_an_idle_worker_takes_children(boot: Boot, root: str) -> None:
    """Both workers run them; each value finds the G that awaits it, in whatever face it waits."""
    client = boot()
    done = until_two(client, first, root, 200)
    assert [value for _, value in done] == [i * i for i in range(200)]
    assert first(done) == {each["pid"] for each in status(client)["ps"]}
    jobs = status(client)["jobs"]
    assert jobs["finished"] == {"ok": jobs["submitted"]}, "children are no jobs"


def test_children_that_moved_are_counted(boot: Boot, tmp_path: Path) -> None:
    """At the P that they left, and where they began: as many as said so themselves."""
    client = boot()
    told = run(client, "wait_group", str(tmp_path / "notes"))
    ran = Counter(int(at) for word, _, at in told if word == "began")

    def ps() -> Any:
        return status(client)["ps"]

    # The counters are shown when P falls asleep.
    client.until(lambda: sum(p["children"]["in"] for p in ps()) == _began_elsewhere(ps(), ran))
    (thief,) = [p for p in ps() if not p["children"]["out"]]
    assert thief["children"]["in"] == ran[thief["pid"]] > 0
    assert thief["picks"]["steal"] == thief["children"]["in"] <= thief["stolen"]


def _began_elsewhere(ps: list[dict[str, Any]], ran: Counter[int]) -> int:
    """Those that a P without children of its own ran, and those that home took back."""
    return sum(p["children"]["in"] if p["children"]["out"] else ran[p["pid"]] for p in ps)


def test_no_worker_is_without_work_while_another_has_much(boot: Boot) -> None:
    """One root, many children: how much each worker does is a matter of the other users of its
    core, but each has something to do nearly all the time."""
    client = boot()
    client.until(lambda: all("state_s" in p for p in status(client)["ps"]))
    before = {p["p"]: p["state_s"] for p in status(client)["ps"]}
    run(client, "squares", 600)
    after = {p["p"]: p["state_s"] for p in status(client)["ps"]}
    for p, now in after.items():
        spent = {state: now[state] - before[p][state] for state in now}
        assert spent["idle"] < sum(spent.values()) / 3


def test_children_of_stolen_children_are_stolen_too(boot: Boot) -> None:
    spun = until_two(boot(), set, "tree", 7)
    assert sum(spun.values()) == 128


def test_errors_keep_class_and_traceback(boot: Boot) -> None:
    """As if they had been raised at home, with a note on where it was."""
    failures = until_two(boot(), lambda rows: {pid for _, pid, *_ in rows}, "failures", 100)
    assert [number for number, *_ in failures] == list(range(100))
    own = Counter(pid for _, pid, _, cause in failures if not cause)
    elsewhere = [each for each in failures if each[3]]
    assert len(own) == 1
    assert elsewhere
    for _, pid, told, cause in elsewhere:
        assert f"(pid {pid})" in told
        assert "in fail" in cause


@pytest.mark.parametrize(
    "kind",
    ["lock", "mutex", "waitgroup", "event", "generator", "closure", "nonlocal", "method"],
)
def test_what_would_not_be_the_same_elsewhere_stays(boot: Boot, kind: str) -> None:
    """No error, no copy: such a child runs at home, also while the other worker idles."""
    client = boot()
    pids, effects = run(client, "stay", kind, 60)
    assert len(set(pids)) == 1
    if kind in ("closure", "nonlocal", "method"):
        assert effects == 60


def test_closures_over_what_cannot_change_travel(boot: Boot) -> None:
    done = until_two(boot(), first, "go_closures", 200)
    assert [value for _, value in done] == [7 * i for i in range(200)]


def test_what_the_thief_cannot_import_comes_back(boot: Boot) -> None:
    """It runs at home then: the parent does not notice."""
    client = boot()
    assert len(run(client, "with_own_module", 100)) == 1


def test_a_cancel_reaches_the_worker_where_the_child_runs(boot: Boot, tmp_path: Path) -> None:
    client = boot()
    path = str(tmp_path / "notes")
    away: int
    away, raised = run(client, "cancel_lingerers", path)
    assert raised == away > 0

    def cancelled() -> bool:
        return len([word for word, *_ in notes(path) if word == "cancelled"]) >= away

    wait_until(cancelled, "the children were cancelled where they ran")
    assert {at for word, _, at in notes(path) if word == "cancelled"} == {
        at for word, _, at in notes(path) if word == "began"
    } - {str(pid) for pid in _home(path)}


def _home(path: str) -> set[int]:
    """The workers in which no lingerer was cancelled."""
    cancelled = {int(at) for word, _, at in notes(path) if word == "cancelled"}
    return {int(at) for _, _, at in notes(path)} - cancelled


def test_children_outlive_the_g_that_made_them(boot: Boot, tmp_path: Path) -> None:
    """As at home: they need not be awaited."""
    client = boot()
    path = str(tmp_path / "notes")
    run(client, "leave_lingerers", path, "return")
    assert run(client, "squares", 20)
    assert not any(word == "cancelled" for word, *_ in notes(path))


def test_children_of_a_dead_worker_are_cancelled(boot: Boot, tmp_path: Path) -> None:
    """Their home is gone: no parent can await them."""
    client = boot()
    path = str(tmp_path / "notes")
    ((outcome, *_),) = client.outcomes(
        client.submit("children_for_tests:leave_lingerers", (path, "die"))
    )
    assert outcome is Outcome.LOST

    def all_ended() -> bool:
        (parent,) = (at for word, _, at in notes(path) if word == "parent")
        there = [(word, n) for word, n, at in notes(path) if at != parent]
        began = {n for word, n in there if word == "began"}
        return bool(began) and began == {n for word, n in there if word == "cancelled"}

    wait_until(all_ended, "children of the dead worker were cancelled")
    client.until(lambda: not status(client)["queue"]["unfinished"])


def test_a_dead_thief_is_told_to_who_awaits(boot: Boot, tmp_path: Path) -> None:
    """WorkerLost names the signal and pid; the parent's worker goes on."""
    client = boot()
    lost, told = run(client, "lose_the_thief", str(tmp_path / "notes"))
    assert lost > 0
    assert told == ["SIGKILL True"] * lost
    client.until(lambda: all(each["up"] for each in status(client)["ps"]))
    assert until_two(client, first, "squares", 200), "the new worker takes children too"


def test_children_cost_no_message_each(boot: Boot) -> None:
    """The coordinator hears of them in batches."""
    client = boot()
    before = status(client)["messages"]["in"]
    run(client, "squares", 600)
    after = status(client)["messages"]["in"]
    assert after["submit"] - before.get("submit", 0) < 40
    assert after["children"] - before.get("children", 0) < 60


def test_clients_are_served_while_children_wait(boot: Boot) -> None:
    """A queue full of children does not delay another client's job by all of them."""
    client = boot()
    (root,) = client.submit("children_for_tests:squares", (500,))
    client.until(lambda: status(client)["jobs"]["submitted"] and _stolen(client))
    client.outcomes(client.submit("math:sqrt", *[(4.0,)] * 10))
    assert root not in client.done
    client.outcomes([root])


def _stolen(client: RawClient) -> int:
    return sum(int(each.get("stolen", 0)) for each in status(client)["ps"])


def test_a_draining_daemon_finishes_the_family(boot: Boot) -> None:
    """It takes no more jobs; children that cannot leave any more run at home."""
    client = boot()
    (root,) = client.submit("children_for_tests:squares", (200,))
    client.until(lambda: _stolen(client))
    client.call("drain")
    ((outcome, value, _),) = client.outcomes([root])
    assert outcome is Outcome.OK
    assert [square for _, square in value] == [i * i for i in range(200)]


# --------------------------------------------------------------------------------------- groups


def test_the_first_error_of_a_group_cancels_the_others_wherever_they_run(
    boot: Boot, tmp_path: Path
) -> None:
    path = str(tmp_path / "notes")
    error, home = run(boot(), "group_fails", path)
    assert error == "Unlucky 7"

    def all_ended() -> bool:
        began = {(n, at) for word, n, at in notes(path) if word == "began"}
        return began == {(n, at) for word, n, at in notes(path) if word == "cancelled"}

    wait_until(all_ended, "every child that had begun was cancelled where it ran")
    assert {str(home)} < {at for word, _, at in notes(path) if word == "cancelled"}


def test_an_error_elsewhere_is_the_groups(boot: Boot) -> None:
    was_elsewhere, told = run(boot(), "group_fails_elsewhere")
    assert was_elsewhere
    assert "ran on P" in told


def test_a_group_is_told_of_a_worker_that_died(boot: Boot, tmp_path: Path) -> None:
    """As its first error; those at home are cancelled."""
    path = str(tmp_path / "notes")
    assert run(boot(), "group_loses_a_worker", path) == ("SIGKILL", True)
    killed = {at for word, _, at in notes(path) if word == "began"} - _cancelled_at(path)
    assert len(killed) == 1


def _cancelled_at(path: str) -> set[str]:
    return {at for word, _, at in notes(path) if word == "cancelled"}


@pytest.mark.parametrize("root", ["limited_group", "limited_group_sync"])
def test_a_groups_limit_holds_over_all_workers(boot: Boot, tmp_path: Path, root: str) -> None:
    """Never more at once than it says, counted over both."""
    path = str(tmp_path / "notes")
    run(boot(), root, path, 3)
    running = most = 0
    for word, *_ in notes(path):
        running += 1 if word == "began" else -1
        most = max(most, running)
    assert running == 0
    assert 2 <= most <= 3
    assert len({at for *_, at in notes(path)}) == 2


@pytest.mark.parametrize("root", ["wait_group", "wait_group_sync"])
def test_a_wait_group_counts_down_when_the_child_elsewhere_ends(
    boot: Boot, tmp_path: Path, root: str
) -> None:
    seen = run(boot(), root, str(tmp_path / "notes"))
    began = [n for word, n, _ in seen if word == "began"]
    assert sorted(began) == sorted(n for word, n, _ in seen if word == "ended")
    assert len(began) == len(set(began)) >= 5
    assert len({at for *_, at in seen}) == 2


def test_children_of_a_group_that_cannot_be_copied_stay(boot: Boot) -> None:
    pids, home = run(boot(), "group_that_stays", 60)
    assert pids == [home] * 60


# ------------------------------------------------------------------------------------- channels


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_pipeline_spans_workers(boot: Boot, kind: str) -> None:
    """Stages elsewhere receive from, and send to, channels of the root; each value comes once."""
    client = boot()
    squares, pids = run(client, "pipeline", kind, 400)
    assert len(squares) >= 400
    assert sorted(squares) == [i * i for i in range(len(squares))]
    assert len(set(pids)) == 2


def test_a_channel_elsewhere_is_as_one_at_home(boot: Boot) -> None:
    """Values, capacity, the end, errors; what differs says what to do."""
    seen = run(boot(), "far_facts", "async")
    assert (seen["cap"], seen["type"], seen["bool"]) == (3, True, True)
    assert (seen["len"], seen["first"]) == (1, 1)
    assert (seen["send"], seen["recv"], seen["recv_ok"]) == ("Panic", "ChanClosed", (None, False))
    assert seen["close"] == "close of closed channel"
    assert seen["closed"] is True
    assert "cannot be sent" in seen["unsendable"]
    assert "Send on a channel that is made here" in seen["select"]
    assert tuple(seen["default"]) == (-1, None, False)
    assert tuple(seen["selected"]) == (0, 2, True)


def test_its_face_for_sync_gs(boot: Boot) -> None:
    seen = run(boot(), "far_facts", "sync")
    assert (seen["len"], seen["first"], seen["rest"]) == (2, 1, [2])
    assert [tuple(each) for each in seen["selected"]] == [(1, 2, True), (-1, None, False)]
    assert tuple(seen["waited"]) == (1, 2, True)
    assert seen["close"] == "close of closed channel"
    assert seen["send"] == "send on closed channel"


def test_a_dead_home_elsewhere_is_told_of(boot: Boot) -> None:
    """A parent waits for a channel that its child made: both ends name the worker that died."""
    told, lost = run(boot(), "thief_dies")
    assert "its home, the worker of P" in told
    assert lost == "SIGKILL"


def test_a_child_returns_channels(boot: Boot) -> None:
    """Its own, to be used from here, and the one that it was given, which is the same again."""
    values, same, said, is_remote = run(boot(), "sources_of_children")
    assert values == list(range(10))
    assert same
    assert said == "hello"
    assert is_remote


def test_a_select_receives_from_channels_of_several_workers(boot: Boot) -> None:
    near, far = run(boot(), "select_over_homes")
    assert near == list(range(10))
    assert far == list(range(10))


def test_a_clients_job_takes_and_returns_no_channel(boot: Boot) -> None:
    """It says why, and what to do instead."""
    client = boot()
    ((outcome, error, _),) = client.outcomes(client.submit("children_for_tests:return_chan", ()))
    assert outcome is Outcome.ERROR
    assert "Send values to a job, not channels" in error.message
    with pytest.raises(Unserializable, match="not channels"):
        encode_call("take_chan", (Chan(),), {})
