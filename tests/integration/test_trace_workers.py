"""A trace has tracks of workers that serve no P: isolated, leaving and former ones."""

from __future__ import annotations

import os
from pathlib import Path

from gmpd.daemon.trace_chrome import chrome_document
from gmpd.daemon.trace_runs import Track, read
from gmpd.protocol import Outcome
from tests.chrome_check import check
from tests.rawclient import Boot, RawClient

ISOLATE = {"isolate": True}


def others(client: RawClient) -> list[Track]:
    """The tracks of workers that serve no P; the whole trace is one that viewers take."""
    daemon = read(client.call("trace", last_s=600.0, wait_s=20.0))
    check(chrome_document(daemon, "1")["traceEvents"], procs=len(daemon.tracks))
    return [track for track in daemon.tracks if not track.serves]


def names(track: Track) -> list[str]:
    return [run.name for run in track.runs]


def test_an_isolated_job_has_its_track_while_it_runs_and_afterwards(
    boot: Boot, short_tmp: Path
) -> None:
    gate = str(short_tmp / "gate")
    _, client = boot()
    job = client.submit("jobs_recycled:until_there", (gate,), options=ISOLATE)
    client.until(lambda: set(job) <= client.running)
    (track,) = others(client)
    assert (names(track), track.runs[0].runs) == (["jobs_recycled:until_there"], True)
    assert track.title == f"isolated worker {track.pid}"
    os.mknod(gate)
    ((outcome, pid, _),) = client.outcomes(job)
    assert (outcome, pid) == (Outcome.OK, track.pid)
    client.until(lambda: any(not run.runs for each in others(client) for run in each.runs))
    (after,) = others(client)
    assert (after.pid, names(after), after.missing) == (pid, names(track), "")
    assert after.runs[0].blocked, "the waits of its coroutine"


def test_leaving_workers_have_theirs_and_one_that_was_killed_says_that_it_is_lost(
    boot: Boot, short_tmp: Path
) -> None:
    gate = str(short_tmp / "gate")
    _, client = boot(**{"daemon.procs": 1, "recycle.grace": 0.1})
    jobs = client.submit("jobs_recycled:until_there", (gate,))
    client.until(lambda: set(jobs) <= client.running)
    client.call("reload", wait=True)
    (track,) = others(client)
    assert (names(track), track.title) == (
        ["jobs_recycled:until_there"], f"P0, leaving worker {track.pid}",
    )  # fmt: skip
    os.mknod(gate)
    client.outcomes(jobs)
    client.until(lambda: "former" in others(client)[0].title)
    (former,) = others(client)
    assert (former.pid, names(former), former.runs[0].runs) == (track.pid, names(track), False)

    held = client.submit("jobs_recycled:rest", (3600.0,))
    client.until(lambda: set(held) <= client.running)
    client.call("reload", wait=True)
    (leaving,) = [each for each in others(client) if "leaving" in each.title]
    os.kill(leaving.pid, 9)
    client.outcomes(held)
    client.until(lambda: any(each.missing for each in others(client)))
    (lost,) = [each for each in others(client) if each.missing]
    assert lost.pid == leaving.pid
    assert "lost with its worker, which was killed by SIGKILL" in lost.missing
