"""The recorder of the load tests: its error, its sums, its verdict."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.recorder import Latencies, Limits, Recorder, bucket_of, upper_ns

durations = st.integers(0, 10**12)


@given(durations)
def test_a_duration_is_known_to_three_percent(ns: int) -> None:
    assert ns <= upper_ns(bucket_of(ns)) <= ns * (1 + 1 / 32)


@given(durations, durations)
def test_buckets_keep_the_order(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert bucket_of(low) <= bucket_of(high)


@given(st.lists(durations, min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_that_of_the_values(values: list[int], q: float) -> None:
    seen = Latencies()
    for ns in values:
        seen.add(ns)
    exact = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    assert exact / 1e6 <= seen.quantile_ms(q) <= exact * (1 + 1 / 32) / 1e6


@given(st.lists(st.tuples(st.sampled_from("ab"), durations, st.booleans())))
def test_what_processes_saw_adds_up_also_over_json(seen: list[tuple[str, int, bool]]) -> None:
    alone, master, parts = Recorder(), Recorder(), [Recorder(), Recorder()]
    for i, (kind, ns, failed) in enumerate(seen):
        alone.add(kind, ns, failed=failed)
        parts[i % 2].add(kind, ns, failed=failed)
    for part in parts:
        master.put(json.loads(json.dumps(part.take())))
        assert part.take() == {}
    assert master.report(10) == alone.report(10)


def test_nothing_seen_is_no_division_by_zero() -> None:
    assert Recorder().report(0)["kinds"]["all"]["p99_ms"] == 0
    assert "all" in Recorder().table(0)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(), ["1 of 100 jobs failed"]),
        (Limits(fail_ratio=0.01), []),
        (Limits(fail_ratio=1, min_jobs=101), ["100 jobs were run, at least 101 were asked for"]),
        (Limits(fail_ratio=1, min_rate=11), ["10.0 jobs/s, at least 11 were asked for"]),
        (Limits(fail_ratio=1, p99_ms={"short": 1}), []),
        (
            Limits(fail_ratio=1, p99_ms={"short": 0.5, "all": 0.5, "cpu": 9}),
            [
                "p99 of short is 1.000 ms, at most 0.5 is allowed",
                "p99 of all is 1.000 ms, at most 0.5 is allowed",
                "no job of kind cpu was run, its p99 has a limit",
            ],
        ),
    ],
)
def test_every_broken_limit_is_said(limits: Limits, said: list[str]) -> None:
    recorder = Recorder()
    for i in range(100):
        recorder.add("short", 1_000_000, failed=i == 0)
    assert limits.broken_by(recorder, 10) == said


def test_a_run_without_jobs_is_broken() -> None:
    assert Limits().broken_by(Recorder(), 10) == ["0 jobs were run, at least 1 were asked for"]
