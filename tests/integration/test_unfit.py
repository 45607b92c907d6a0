"""A worker whose own process lacks what jobs need is replaced, at the cost of only the jobs that
found it so."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawClient
from tests.support import go_on, stop


def restarts(client: RawClient) -> dict[str, Any]:
    return dict(client.call("status")["ps"][0]["restarts"])


def retired(client: RawClient) -> bool:
    seen = client.call("status")["ps"][0]
    return bool(seen["up"]) and seen["restarts"] == {"unfit": 1}


def test_a_worker_without_descriptors_retires(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    client.outcomes(client.submit("jobs_for_tests:pid", ()))
    (leak,) = client.outcomes(client.submit("jobs_unfit:leak_files", ()))
    assert leak[0] is Outcome.OK
    ended = client.outcomes(client.submit("jobs_unfit:read_a_file", *[()] * 300))
    failed = sum(outcome is not Outcome.OK for outcome, _, _ in ended)
    assert failed < 30, "the worker stayed in service"
    client.until(lambda: retired(client))


def test_a_worker_that_can_start_no_thread_retires(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    client.outcomes(client.submit("jobs_unfit:forbid_threads", ()))
    (lost,) = client.outcomes(client.submit("jobs_unfit:start_a_thread", ()))
    assert lost[0] is Outcome.ERROR
    client.until(lambda: retired(client))
    assert client.outcomes(client.submit("jobs_unfit:start_a_thread", ()))[0][0] is Outcome.OK


@pytest.mark.parametrize("what", ["modules", "path", "asyncio", "time"])
def test_a_worker_whose_python_is_broken_retires(boot: Boot, what: str) -> None:
    _, client = boot(**{"daemon.procs": 1})
    client.outcomes(client.submit("jobs_unfit:replace_clock", ()))
    client.outcomes(client.submit("jobs_unfit:break_python", (what,)))
    client.until(lambda: retired(client))
    ended = client.outcomes(client.submit("asyncio:sleep", (0.01, "rested")))
    assert ended[0][:2] == (Outcome.OK, "rested")


def test_a_healthy_failure_is_no_reason(boot: Boot) -> None:
    """Errors that look like a want, and are none of this process."""
    _, client = boot(**{"daemon.procs": 1})
    client.outcomes(client.submit("jobs_unfit:raise_want", *[()] * 3))
    client.outcomes(client.submit("time:sleep", (0.3,)))
    assert restarts(client) == {}


WAYS = ["without the GIL", "blocked beside P", "with the GIL", "never back"]


def test_a_worker_that_has_lost_a_thread_is_replaced(boot: Boot) -> None:
    """Its jobs are told, and the one that did it is blamed. C code that computes is left alone."""
    _, client = boot(**{"daemon.procs": 1, "restart.frozen": 0.6})
    client.outcomes(client.submit("jobs_unfit:compute_with_gil", (24,)))
    for how in WAYS:
        parked = client.submit("asyncio:sleep", (60.0,))
        client.until(lambda parked=parked: set(parked) <= client.running)
        (ended,) = client.outcomes(client.submit("jobs_unfit:end_thread", (how,)))
        assert (ended[0], ended[2]["blamed"]) == (Outcome.LOST, True), how
        assert client.outcomes(parked)[0][2]["culprit"] == "jobs_unfit:end_thread"
    assert sum(restarts(client).values()) == len(WAYS)


def test_a_worker_that_has_lost_its_main_thread_is_replaced(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    (ended,) = client.outcomes(client.submit("jobs_unfit:end_main_thread", ()))
    assert (ended[0], ended[2]["blamed"]) == (Outcome.LOST, True)
    assert client.outcomes(client.submit("jobs_for_tests:pid", ()))[0][0] is Outcome.OK


def test_an_isolated_worker_that_has_lost_a_thread_is_ended(boot: Boot) -> None:
    """Nothing else would end it: its job has no time limit."""
    _, client = boot(**{"daemon.procs": 1, "restart.frozen": 0.6, "limits.isolated": 8})
    alone = {"isolate": True}
    blocked = client.submit("jobs_unfit:block_p", (1.5,), options=alone)
    ends = client.submit(
        "jobs_unfit:end_thread", ("without the GIL",), ("with the GIL",), options=alone
    )
    ends += client.submit("jobs_unfit:end_main_thread", (), options=alone)
    for outcome, _, details in client.outcomes(ends):
        assert outcome is Outcome.LOST
        assert (details["blamed"], details["culprit"] != "") == (True, True)
    assert client.outcomes(blocked)[0][0] is Outcome.OK
    assert restarts(client) == {}


def test_a_coroutine_that_blocks_is_not_frozen(boot: Boot) -> None:
    """It keeps its P standing still, and the GIL can be had: its neighbours live to its end."""
    _, client = boot(**{"daemon.procs": 1, "restart.frozen": 0.3})
    parked = client.submit("asyncio:sleep", (0.1,))
    client.until(lambda: set(parked) <= client.running)
    blocks = client.submit("jobs_unfit:block_p", (2.0,))
    assert [end[0] for end in client.outcomes([*blocks, *parked])] == [Outcome.OK, Outcome.OK]
    assert restarts(client) == {}


def test_a_stopped_worker_is_not_frozen(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1, "restart.frozen": 0.3})
    call = client.submit("time:sleep", (0.5,))
    client.until(lambda: set(call) <= client.running)
    pid = client.call("status")["ps"][0]["pid"]
    stop(pid)
    woken = client.submit("jobs_for_tests:pid", ())  # else it sleeps, as it may
    client.until(lambda: client.call("status")["ps"][0]["state"] == "deaf")
    time.sleep(2)
    go_on(pid)
    assert [end[0] for end in client.outcomes([*call, *woken])] == [Outcome.OK, Outcome.OK]
    assert client.call("status")["ps"][0]["pid"] == pid
