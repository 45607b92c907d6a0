"""The work of a host's cores over time (gmpd.cluster.occupancy)."""

from __future__ import annotations

from gmpd.cluster.occupancy import SPAN_NS, WATCHED_NS, Occupancy
from gmpd.runtime.timeline import FUNCTIONS_OF_SPAN, Timeline

MS = 1_000_000
#: The begin of a span.
T = 1000 * SPAN_NS


def watched(cores: int = 2) -> Occupancy:
    seen = Occupancy(cores)
    seen.define(1, "m:a")
    seen.define(2, "m:b")
    assert not seen.read(T - SPAN_NS, T).rows
    return seen


def told(found: Timeline) -> list[tuple[int, str, int, int]]:
    """Rows as span, function, jobs, and ms of all cores."""
    return [
        (
            row.began // SPAN_NS - T // SPAN_NS,
            found.names[row.function],
            row.jobs,
            row.busy_us // 1000,
        )
        for row in found.rows
    ]


def test_short_jobs_take_a_share_of_the_cores_when_their_outcomes_come() -> None:
    seen = watched()
    for n in range(10):
        seen.ended(n, 1, 4 * MS, T + 50 * MS)
    seen.ended(10, 2, 30 * MS, T + 120 * MS)
    found = seen.read(T, T + 250 * MS)
    assert told(found) == [(0, "m:a", 10, 20), (0, "m:b", 0, 5), (1, "m:b", 1, 10)]
    assert found.jobs == 11


def test_each_span_is_told_once_and_when_it_has_ended() -> None:
    seen = watched()
    seen.ended(0, 1, 10 * MS, T + 90 * MS)
    seen.ended(1, 1, 10 * MS, T + 130 * MS)
    assert told(seen.read(T, T + 150 * MS)) == [(0, "m:a", 1, 5)]
    seen.ended(2, 1, 20 * MS, T + 160 * MS)
    assert told(seen.read(T + 150 * MS, T + 300 * MS)) == [(1, "m:a", 2, 15)]
    assert told(seen.read(T + 300 * MS, T + 400 * MS)) == []


def test_jobs_that_run_are_told_while_they_run() -> None:
    seen = watched()
    seen.begun(0, 1, T)
    assert told(seen.read(T, T + 200 * MS)) == [(0, "m:a", 0, 50), (1, "m:a", 0, 50)]
    seen.ended(0, 1, 999 * MS, T + 240 * MS)
    assert told(seen.read(T + 200 * MS, T + 400 * MS)) == [(2, "m:a", 1, 20)]


def test_no_more_is_taken_than_there_is() -> None:
    seen = watched(cores=2)
    for n in range(40):  # coroutines
        seen.begun(n, 1 + n % 2, T)
    assert told(seen.read(T, T + 100 * MS)) == [(0, "m:a", 0, 50), (0, "m:b", 0, 50)]


def test_many_functions_are_shown_as_several() -> None:
    seen = watched(cores=1)
    for fid in range(1, 21):
        seen.ended(fid, fid, fid * MS, T + 50 * MS)
    found = seen.read(T, T + 100 * MS)
    assert len(found.rows) == FUNCTIONS_OF_SPAN
    assert found.names[found.rows[-1].function] == "several functions"
    assert sum(row.jobs for row in found.rows) == 20


def test_without_questions_nothing_is_kept_but_what_runs() -> None:
    seen = watched()
    late = T + 2 * WATCHED_NS
    seen.begun(0, 1, late)
    assert not seen.is_watched(late)
    seen.ended(1, 1, 10 * MS, late)
    found = seen.read(late - SPAN_NS, late + SPAN_NS)
    assert told(found) == [((late - T) // SPAN_NS, "m:a", 0, 50)]
    assert found.jobs == 0
