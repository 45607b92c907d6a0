"""From the coordinator's reply to a chunk: rows with the facts of their jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gmpd.errors import DaemonUnreachable, ProtocolError
from gmpd.gateway.api.trace import BACK_S, TraceFeed
from gmpd.gateway.api.trace_shapes import Chunk
from gmpd.gateway.api.tracks import Tracks
from gmpd.protocol import Outcome
from gmpd.runtime.timeline import Move, Row, Timeline, What

S, MS = 10**9, 10**6
ID = "0123456789abcdef" * 2


def part(*rows: Row, **more: Any) -> bytes:
    """A worker's answer."""
    return msgspec.msgpack.encode(
        Timeline(0, 2 * S, list(rows), names={1: "m:f", 2: "m:g"}, **more)
    )


def reply(*parts: bytes, since: int = S, until: int = 2 * S, **more: Any) -> dict[str, Any]:
    """The coordinator's reply about one P."""
    p = {"p": 0, "epoch": 3, "parts": list(parts), "silent_s": 0.0}
    if not parts:
        p |= {"state": "deaf", "pid": 5, "silent_s": 2.5}
    return {
        "since": since, "until": until, "now": until + 20 * MS, "wall_ms": 5020, "ps": [p],
        "jobs": [], "isolated": [], "steals": [], "workers": [], **more,
    }  # fmt: skip


def test_times_are_relative_and_facts_are_joined() -> None:
    row = Row(What.RAN, S + 5 * MS, S + 9 * MS, 2, 1, 4000, 77)
    told = reply(
        part(row, failed={77: int(Outcome.ERROR)}, jobs=1, idle=[(S, S + MS)], idle_ns=MS),
        jobs=[[0, 3, 77, ID, S + 2 * MS, True], [0, 3, 78, "x", 0, True], [1, 3, 77, "y", 0, True]],
        steals=[[S + MS, 1, 0, 4]], workers=[[S + 2 * MS, 0, 3, False]],
    )  # fmt: skip
    chunk = Tracks().chunk(8, told)
    (track,) = chunk.tracks
    assert (chunk.number, chunk.since_us, chunk.until_us, chunk.wall_ms) == (
        8,
        10**6,
        2 * 10**6,
        5000,
    )
    assert track.bars == [(What.RAN, 5000, 4000, 0, 1, 4000, 3000)]
    assert chunk.names == ["m:g"]
    assert (track.known, track.failed) == ([(0, ID, True)], [(0, "error")])
    assert (track.idle, track.idle_us, track.jobs) == ([(0, 1000)], 1000, 1)
    assert chunk.steals == [(1000, 1, 0, 4)]
    assert chunk.workers == [(2000, 0, 3, False)]


def test_a_job_that_lost_p_chunks_ago_has_both_parts() -> None:
    tracks = Tracks()
    runs = Row(What.BESIDE, S, 0, 1, 1, 0, 5)
    (track,) = tracks.chunk(1, reply(
        part(running=[runs], moves=[Move(S + 10 * MS, 5, "blocked", S)])
    )).tracks  # fmt: skip
    assert track.handoffs == [(10_000, "blocked", 0)]
    assert (track.running[0].what, track.running[0].began) == (What.BESIDE, 10_000)
    tracks.chunk(2, reply(part(running=[runs])))
    tracks.chunk(3, reply(part(moves=[Move(S + 40 * MS, 5, "", 0)])))
    (track,) = tracks.chunk(4, reply(part(Row(What.RAN, S, S + 50 * MS, 1, 1, 50_000, 5)))).tracks
    assert [bar[:3] for bar in track.bars] == [
        (What.RAN, 0, 10_000), (What.BESIDE, 10_000, 30_000), (What.RAN, 40_000, 10_000),
    ]  # fmt: skip
    (track,) = tracks.chunk(5, reply(part(Row(What.RAN, S, S + MS, 1, 1, 1000, 5)))).tracks
    assert [bar[:3] for bar in track.bars] == [(What.RAN, 0, 1000)], "it is forgotten"


def test_a_job_that_lost_p_before_the_first_look_is_beside_it() -> None:
    tracks = Tracks()
    tracks.chunk(1, reply(part(running=[Row(What.BESIDE, S, 0, 1, 1, 0, 5)])))
    (track,) = tracks.chunk(2, reply(part(Row(What.RAN, S, S + MS, 1, 1, 1000, 5)))).tracks
    assert [bar[:3] for bar in track.bars] == [(What.BESIDE, 0, 1000)]


def test_a_worker_that_does_not_answer_is_told_with_its_state() -> None:
    (track,) = Tracks().chunk(1, reply()).tracks
    assert (track.answered, track.state, track.silent_s) == (False, "deaf", 2.5)
    (track,) = Tracks().chunk(1, reply(part(keeps=False))).tracks
    assert "trace.enabled" in track.missing


def test_isolated_jobs_are_told_whether_they_run_or_have_ended() -> None:
    told = reply(
        part(),
        isolated=[
            [70_000, S, S + MS, "m:f", ID, S - MS, False],
            [70_001, S, 0, "m:g", "", S, True],
        ],
    )
    ended, runs = Tracks().chunk(1, told).isolated
    assert (ended.ran_us, ended.wait_us, ended.job) == (1000, 1000, ID)
    assert (runs.ran_us, runs.durable) == (-1, True)


# -- the feed --------------------------------------------------------------------------------------


class Daemon:
    """Answers a reply that ends a second after the last one; counts seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[dict[str, int]] = []
        self.problem: Exception | None = None

    async def look(self, method: str, **params: int) -> Any:
        assert method == "timeline"
        self.asked.append(params)
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        until = int(self.now * 1e9)
        return reply(part(), since=params["since_ns"], until=until)


def feed_of(daemon: Daemon) -> TraceFeed:
    return TraceFeed(daemon.look, clock=lambda: daemon.now)


def chunks(told: Any) -> list[int]:
    """The numbers of chunks, as they are sent."""
    return [msgspec.json.decode(bytes(raw), type=Chunk).number for raw in told.chunks]


def test_ten_pages_are_one_question_and_each_gets_what_it_has_not() -> None:
    async def main() -> None:
        daemon = Daemon()
        feed = feed_of(daemon)
        assert not daemon.asked, "nothing asks"
        first = await asyncio.gather(*[feed.after(0) for _ in range(10)])
        assert len(daemon.asked) == 1
        assert {len(each.chunks) for each in first} == {1}
        assert all(each.reset for each in first)
        daemon.now += 0.2
        again = await feed.after(first[0].next)
        assert (again.chunks, again.reset, len(daemon.asked)) == ([], False, 1)
        daemon.now += 0.5
        more = await feed.after(first[0].next)
        assert chunks(more) == [more.next]
        assert daemon.asked[1]["since_ns"] == 100 * S, "where the last one ended"
        assert daemon.asked[1]["rows"] < daemon.asked[0]["rows"]
        late = await feed.after(0)
        assert (len(late.chunks), late.reset) == (2, True)

    asyncio.run(main())


def test_half_a_minute_is_kept() -> None:
    async def main() -> None:
        daemon = Daemon()
        feed = feed_of(daemon)
        told = await feed.after(0)
        for _ in range(50):
            daemon.now += 1
            told = await feed.after(0)
        assert len(told.chunks) == BACK_S + 1
        old = await feed.after(told.next - 40)
        assert old.reset, "chunks between are gone"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("problem", "answer"),
    [(DaemonUnreachable("gone"), None), (None, {"ps": 3})], ids=["no answer", "another answer"],
)  # fmt: skip
def test_a_failed_question_is_told_to_all_and_the_next_one_is_asked(
    problem: Exception | None, answer: Any
) -> None:
    async def main() -> None:
        daemon = Daemon()
        daemon.problem = problem
        look: Callable[..., Any] = daemon.look
        if answer is not None:

            async def look(*_: Any, **__: Any) -> Any:
                return answer

        feed = TraceFeed(look, clock=lambda: daemon.now)
        found = await asyncio.gather(feed.after(0), feed.after(0), return_exceptions=True)
        assert {type(each) for each in found} == {type(problem) if problem else ProtocolError}
        if problem is not None:
            daemon.problem = None
            daemon.now += 1
            assert len((await feed.after(0)).chunks) == 1

    asyncio.run(main())
