"""``limit=`` in a real daemon: between clients, kinds of functions, and deaths of workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import gmpd
from gmpd import Limit, Unique
from gmpd.cli import main
from gmpd.errors import JobExpired, UniqueHeld, WorkerLost
from tests import jobs_limits as jobs
from tests.rawclient import Boot
from tests.support import wait_until

Spans = Sequence[tuple[float, float]]


def most_at_once(spans: Spans) -> int:
    running = most = 0
    for _, change in sorted([(a, 1) for a, _ in spans] + [(b, -1) for _, b in spans]):
        running += change
        most = max(most, running)
    return most


def test_so_many_run_at_once_of_all_clients_and_others_go_past_them(boot: Boot) -> None:
    daemon, _ = boot()
    with gmpd.Client(daemon.endpoint) as one, gmpd.Client(daemon.endpoint) as two:
        limit = Limit("api.example.com", at_once=2)
        futures = []
        for client in (one, two):
            limited = client.options(limit=limit)
            futures += [limited.submit(jobs.span, 0.05) for _ in range(8)]
            futures += [limited.submit(jobs.aspan, 0.05) for _ in range(8)]
        assert one.submit(jobs.span, 0).result(60) is not None
        assert not all(future.done() for future in futures), "it went past those that wait"
        assert most_at_once([future.result(60) for future in futures]) == 2


def test_no_interval_has_more_starts_and_a_cancelled_job_does_not_start(boot: Boot) -> None:
    """Half of the interval: a job that has started may have to wait for a processor, and for the
    import of its module. ``tests/sim`` has the exact figure."""
    daemon, _ = boot()
    with gmpd.Client(daemon.endpoint) as client:
        limited = client.options(limit=Limit("rate", per=(4, 1.0)))
        futures = [limited.submit(jobs.span, 0.0) for _ in range(14)]
        assert futures[-1].cancel()
        starts = sorted(future.result(60)[0] for future in futures[:-1])
        assert all(b - a >= 0.5 for a, b in zip(starts, starts[4:], strict=False))


def test_a_dead_worker_keeps_no_place(boot: Boot) -> None:
    daemon, _ = boot()
    with gmpd.Client(daemon.endpoint) as client:
        limited = client.options(limit=Limit("one", at_once=1))
        dying = limited.submit(jobs.die)
        after = limited.submit(jobs.span, 0.0)
        with pytest.raises(WorkerLost):
            dying.result(60)
        assert after.result(60)


def test_unique_and_timed_jobs_of_several_clients(boot: Boot) -> None:
    daemon, _ = boot()
    with gmpd.Client(daemon.endpoint) as one, gmpd.Client(daemon.endpoint) as two:
        busy = one.options(limit=Limit("l", at_once=1)).submit(jobs.aspan, 3600)
        behind: dict[str, Any] = {"limit": Limit("l", at_once=1)}
        first = one.options(unique="k", **behind).submit(jobs.span, 0.0)
        # Else the jobs of the other client may come first.
        wait_until(lambda: one.call("status")["queue"]["limited"] == 1, "it waits")
        second = two.options(unique="k", **behind).submit(jobs.span, 0.0)
        refused = two.options(unique=Unique("k", "raise"), **behind).submit(jobs.span, 0.0)
        with pytest.raises(UniqueHeld, match="has its unique key 'k'") as told:
            refused.result(60)
        assert told.value.job_id == first.job_id
        late = two.options(expires=0.05, **behind).submit(jobs.span, 0.0)
        with pytest.raises(JobExpired, match="before its expires"):
            late.result(60)
        newest = two.options(unique=Unique("k", "replace"), **behind).submit(jobs.aspan, 0.0)
        with pytest.raises(CancelledError):
            first.result(60)
        wait_until(busy.cancel, "its worker has heard of it")
        assert second.result(60) == newest.result(60)
        soon = datetime.now(UTC) + timedelta(seconds=0.2)
        asked = time.monotonic()
        began, _ = one.options(at=soon).submit(jobs.span, 0.0).result(60)
        assert began >= asked + 0.1
        with pytest.raises(ValueError, match=r"at=.* has no time zone"):
            one.options(at=soon.replace(tzinfo=None))
        with pytest.raises(ValueError, match=r"keep=5\.0 needs durable=True"):
            one.options(keep=5).submit(jobs.span, 0.0)
        with pytest.raises(ValueError, match=r"unique='k' has no map\(\)"):
            one.options(unique="k").map(jobs.span, [0.0])


def test_the_status_says_what_waits_and_the_command_line_has_limits(
    boot: Boot, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _ = boot()
    monkeypatch.setenv("GMPD_RUNTIME_DIR", str(daemon.directory))
    with gmpd.Client(daemon.endpoint) as client:
        limited = client.options(limit=Limit("api", at_once=1))
        running = limited.submit(jobs.aspan, 3600)
        waiting = [limited.submit(jobs.aspan, 0.0) for _ in range(3)]
        wait_until(lambda: client.call("status")["queue"]["limited"] == 3, "they wait")
        assert main(["status"]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "3 jobs wait for the limits of their keys: api has 1 of 1 at once, 3 wait" in told
        wait_until(running.cancel, "its worker has heard of it")
        assert all(future.result(60) for future in waiting)
    assert main(["submit", "--limit", "api:3,100/60s", "math:sqrt", "9"]) == 0
    assert main(["submit", "--limit", "api", "math:sqrt", "9"]) == 2
    out, err = capsys.readouterr()
    assert out == "3.0\n"
    assert "--limit='api': write KEY:N for N at once" in err
