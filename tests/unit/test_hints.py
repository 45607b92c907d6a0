"""Hints after a map: when there is one, its words, and that it never raises."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest

import gmpd
from gmpd.client import hints
from gmpd.client.hints import MapTotals, PerformanceHint, in_words, of, tell
from gmpd.client.mapping import HINT_BYTES, HINT_ITEMS
from gmpd.findings import LARGE_RESULTS, SMALL_JOBS, Code

MB = 1 << 20


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was told yet in this process."""
    monkeypatch.setattr(hints, "_told", {})


def codes(**totals: Any) -> list[Code | None]:
    return [each.code for each in of(MapTotals("m:f", **totals))]


def test_a_map_of_short_calls_gets_a_hint_if_a_plain_loop_is_faster() -> None:
    assert codes(items=20_000, ran_s=0.1, took_s=0.3) == [Code.SMALL_JOBS]
    assert codes(items=20_000, ran_s=0.1, took_s=0.05) == [], "two Ps were faster"
    assert codes(items=20_000, ran_s=2.0, took_s=5.0) == [], "100 µs each"
    assert codes(items=2_000, ran_s=0.01, took_s=0.3) == [], "not many"
    assert codes(items=20_000, ran_s=0.1) == [Code.SMALL_JOBS], "its time is not known"
    assert codes() == []


def test_large_values_get_a_hint_if_their_way_costs_more_than_a_tenth() -> None:
    assert codes(items=20, ran_s=0.1, took_s=1, result_bytes=40 * MB) == [Code.LARGE_RESULTS]
    assert codes(items=20, ran_s=9.0, took_s=9, result_bytes=40 * MB) == []
    assert codes(items=100, ran_s=0.1, took_s=1, result_bytes=40 * MB) == [], "0.4 MB each"
    both = {"result_bytes": 40 * MB, "argument_bytes": 90 * MB}
    assert codes(items=20, ran_s=0.1, **both) == [Code.LARGE_RESULTS, Code.LARGE_ARGUMENTS]


def test_maps_that_are_not_looked_at_would_get_no_hint() -> None:
    assert HINT_ITEMS <= SMALL_JOBS
    assert HINT_BYTES <= LARGE_RESULTS * hints.LARGE_BYTES


def test_a_hint_begins_with_its_code_and_ends_with_the_remedy() -> None:
    (hint,) = of(MapTotals("m:f", 20_000, 0.1, 0.3, fix="leave chunksize out"))
    assert in_words(hint) == (
        "small_jobs: map of m:f: its 20,000 calls ran 0.1 s in all, and the map took 0.3 s: a plain"
        " loop is faster. Leave chunksize out."
    )


def small() -> MapTotals:
    return MapTotals("m:f", 20_000, 0.1, 0.3)


def test_each_code_is_told_once() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            tell(of(small()))
        tell(of(MapTotals("m:g", 20, 0.1, result_bytes=40 * MB)))
    assert [str(each.message).partition(":")[0] for each in seen] == ["small_jobs", "large_results"]
    assert {each.category for each in seen} == {PerformanceHint} == {gmpd.PerformanceHint}
    assert {each.filename for each in seen} == {__file__}


def test_where_warnings_are_errors_it_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "gmpd.hints"):
        warnings.simplefilter("error")
        tell(of(small()))
    assert caplog.messages[0].startswith("small_jobs: map of m:f")


def test_a_program_whose_way_to_show_warnings_fails_keeps_its_results(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "gmpd.hints"):
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", broken)
        tell(of(small()))
    assert len(caplog.messages) == 1


def test_it_is_filtered_by_its_code() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "small_jobs", PerformanceHint)
        tell(of(small()))
        tell(of(MapTotals("m:g", 20, 0.1, result_bytes=40 * MB)))
    assert [str(each.message).partition(":")[0] for each in seen] == ["large_results"]
