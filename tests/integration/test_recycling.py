"""Workers that serve are replaced, and no job notices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawClient


def status(client: RawClient) -> dict[str, Any]:
    answer: dict[str, Any] = client.call("status")
    return answer


def replaced(client: RawClient, reason: str, times: int = 1) -> bool:
    seen = status(client)["ps"]
    return all(each["up"] and each["restarts"].get(reason, 0) >= times for each in seen)


def leaving(client: RawClient) -> list[dict[str, Any]]:
    return list(status(client)["recycling"]["leaving"])


def values(client: RawClient, seqs: list[int]) -> list[Any]:
    ended = client.outcomes(seqs)
    assert {outcome for outcome, _, _ in ended} == {Outcome.OK}, ended
    return [value for _, value, _ in ended]


def test_workers_are_replaced_after_so_many_jobs_and_none_notices(boot: Boot) -> None:
    _, client = boot(**{"recycle.jobs": 40, "recycle.grace": 0.2})
    seqs = client.submit("jobs_recycled:rest", *[(2.0,)] * 20)
    while not replaced(client, "jobs", 2):
        now = client.submit("jobs_for_tests:pid", *[()] * 20)
        now += client.submit("jobs_recycled:nap", (0.02,), (0.0,))
        values(client, now)
        seqs += now
    assert len(set(values(client, seqs))) >= 4
    seen = status(client)["ps"]
    assert all(each["restarts"].keys() == {"jobs"} for each in seen)
    assert sum(each["jobs_finished"] for each in seen) == len(seqs)


def test_a_large_worker_is_replaced_and_ends_its_jobs(boot: Boot, short_tmp: Path) -> None:
    gate = str(short_tmp / "gate")
    _, client = boot(**{"daemon.procs": 1, "recycle.memory": 200 << 20})
    parked = client.submit("jobs_recycled:until_there", (gate,))
    client.until(lambda: set(parked) <= client.running)
    (large,) = values(client, client.submit("jobs_for_tests:pid", ()))
    client.outcomes(client.submit("jobs_unfit:grow", (300,)))
    client.until(lambda: replaced(client, "memory"))
    assert values(client, client.submit("jobs_for_tests:pid", ())) != [large]
    os.mknod(gate)
    assert values(client, parked) == [large]
    client.until(lambda: not leaving(client))


def test_an_old_worker_is_replaced(boot: Boot) -> None:
    _, client = boot(**{"recycle.age": 0.3})
    client.until(lambda: replaced(client, "age"))


def test_a_job_that_waits_for_long_is_not_ended_and_holds_nothing_back(
    boot: Boot, short_tmp: Path
) -> None:
    gate = str(short_tmp / "gate")
    _, client = boot(
        **{"daemon.procs": 1, "recycle.jobs": 5, "recycle.grace": 0.1, "recycle.leaving": 2}
    )
    first = client.submit("jobs_recycled:until_there", (gate,))
    client.until(lambda: set(first) <= client.running)
    values(client, client.submit("jobs_for_tests:pid", *[()] * 6))
    client.until(lambda: replaced(client, "jobs", 1))
    second = client.submit("jobs_recycled:until_there", (gate,))
    client.until(lambda: set(second) <= client.running)
    values(client, client.submit("jobs_for_tests:pid", *[()] * 6))
    client.until(lambda: replaced(client, "jobs", 2))
    (one, two) = leaving(client)
    assert one["functions"] == two["functions"] == ["jobs_recycled:until_there"]
    assert (one["p"], one["started"], one["pid"] != two["pid"]) == (0, 1, True)

    # At the limit the P keeps its worker, and says so.
    (kept,) = {*values(client, client.submit("jobs_for_tests:pid", *[()] * 20))}
    client.until(lambda: "recycle.leaving" in status(client)["recycling"]["problem"])
    assert values(client, client.submit("jobs_for_tests:pid", ())) == [kept]

    os.mknod(gate)
    assert values(client, first + second) == [one["pid"], two["pid"]]
    client.until(lambda: replaced(client, "jobs", 3) and not leaving(client))


def test_children_and_channels_of_a_leaving_worker_work_on(boot: Boot, short_tmp: Path) -> None:
    """The channel's home is the worker that leaves; the children run there, and elsewhere."""
    gate = str(short_tmp / "gate")
    _, client = boot(**{"recycle.jobs": 5, "recycle.grace": 5.0})
    job = client.submit("jobs_recycled:squares", (100, gate))
    client.until(lambda: set(job) <= client.running)
    values(client, client.submit("jobs_for_tests:pid", *[()] * 40))
    client.until(lambda: bool(leaving(client)))
    os.mknod(gate)
    ((home, squares, pids),) = values(client, job)
    assert squares == [n * n for n in range(100)]
    assert len({*pids} | {home}) > 1, "no child ran elsewhere"
    client.until(lambda: not leaving(client))


def test_what_a_job_leaves_behind_gets_the_grace(boot: Boot, short_tmp: Path) -> None:
    soon, late = short_tmp / "soon", short_tmp / "late"
    _, client = boot(**{"daemon.procs": 1, "recycle.jobs": 5, "recycle.grace": 5.0})
    calls = [(1.0, str(soon)), (3600.0, str(late))]
    pids = values(client, client.submit("jobs_recycled:leave_a_task", *calls))
    values(client, client.submit("jobs_for_tests:pid", *[()] * 6))
    client.until(lambda: replaced(client, "jobs"))
    client.until(lambda: not leaving(client))
    client.until(lambda: soon.exists() and soon.read_text() == str(pids[0]))
    assert not late.exists()


def test_a_worker_that_dies_while_it_leaves_costs_its_jobs_alone(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1, "recycle.jobs": 5})
    held = client.submit("jobs_recycled:rest", (3600.0,))
    client.until(lambda: set(held) <= client.running)
    values(client, client.submit("jobs_for_tests:pid", *[()] * 6))
    client.until(lambda: bool(leaving(client)))
    (left,) = leaving(client)
    os.kill(left["pid"], 9)
    ((outcome, _, details),) = client.outcomes(held)
    assert (outcome, details["pid"], details["p"]) == (Outcome.LOST, left["pid"], 0)
    values(client, client.submit("jobs_for_tests:pid", ()))
    assert status(client)["ps"][0]["restarts"] == {"jobs": 1}


def test_plain_calls_that_are_limited_stay_limited(boot: Boot) -> None:
    """As `gmpd.Executor` promises: the successor starts when the old one has ended its calls."""
    _, client = boot(**{"daemon.procs": 1, "recycle.jobs": 5, "limits.plain_calls": 1})
    values(client, client.submit("jobs_for_tests:pid", *[()] * 4))
    nap = client.submit("jobs_recycled:nap", *[(0.2,)] * 4)
    first, *_, last = values(client, nap)
    client.until(lambda: replaced(client, "jobs"))
    assert values(client, client.submit("jobs_for_tests:pid", ())) != [first]
    assert last in {first, status(client)["ps"][0]["pid"]}
