"""Schedules and their ticks (gmpd.periodic): wrong values, time zones, changes of clocks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import gmpd
from gmpd.periodic import CatchUp, Cron, Every, Overlap, Schedule, schedules_of, zone_named

BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    """Of a time in Berlin, or with an offset."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=BERLIN)
    return round(moment.timestamp()) * 1000


def ticks(expression: str, since: str, until: str) -> list[str]:
    """In Berlin, with their offsets from UTC."""
    cron = Cron(expression, BERLIN)
    found, at = [], ms(since) - 1
    while (tick := cron.after(at)) is not None and tick <= ms(until):
        found.append(f"{datetime.fromtimestamp(tick / 1000, BERLIN):%d. %H:%M %z}"[:-2])
        at = tick
    newest = cron.newest(ms(since) - 1, ms(until), len(found) + 5)
    assert newest == cron.newest(ms(since) - 1, ms(until), 10_000)
    assert [cron.after(each - 1) for each in newest] == newest
    assert len(newest) == len(found)
    return found


# -- the clock is set forward on 29 March 2026: after 02:00 +01 comes 03:00 +02 ------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # What falls into the gap comes right after it, once.
        ("30 2 * * *", ["28. 02:30 +01", "29. 03:00 +02", "30. 02:30 +02"]),
        ("0 2,3 * * *", ["28. 02:00 +01", "28. 03:00 +01", "29. 03:00 +02", "30. 02:00 +02"]),
        ("0 3 * * *", ["28. 03:00 +01", "29. 03:00 +02"]),
    ],
)
def test_a_fixed_time_in_the_gap_of_spring_comes_after_it(
    expression: str, expected: list[str]
) -> None:
    assert ticks(expression, "2026-03-28T00:00", "2026-03-30T02:59") == expected


def test_a_time_with_a_star_follows_what_passes_in_spring() -> None:
    found = ticks("*/30 * * * *", "2026-03-29T01:00", "2026-03-29T04:00")
    assert found == ["29. 01:00 +01", "29. 01:30 +01", "29. 03:00 +02", "29. 03:30 +02",
                     "29. 04:00 +02"]  # fmt: skip


# -- and back on 25 October 2026: 02:00 to 03:00 come twice --------------------------------------


def test_a_fixed_time_that_comes_twice_in_autumn_runs_once() -> None:
    found = ticks("30 2 * * *", "2026-10-24T00:00", "2026-10-26T23:00")
    assert found == ["24. 02:30 +02", "25. 02:30 +02", "26. 02:30 +01"]


def test_a_time_with_a_star_follows_what_passes_in_autumn() -> None:
    found = ticks("0 * * * *", "2026-10-25T01:00", "2026-10-25T04:00")
    assert found == ["25. 01:00 +02", "25. 02:00 +02", "25. 02:00 +01", "25. 03:00 +01",
                     "25. 04:00 +01"]  # fmt: skip


def test_a_start_between_the_two_hours_of_autumn_repeats_nothing() -> None:
    cron = Cron("30 2 * * *", BERLIN)
    second = ms("2026-10-25T02:15+01:00")  # the first 02:30 has been
    assert cron.after(second) == ms("2026-10-26T02:30")
    assert cron.newest(second, ms("2026-10-25T23:00"), 5) == []


# -- ticks in general -----------------------------------------------------------------------------


def test_ticks_are_strictly_after_and_do_not_depend_on_the_start() -> None:
    cron = Cron("*/5 * * * *", UTC)
    noon = ms("2026-11-29T12:00+00:00")
    assert cron.after(noon - 1) == noon
    assert cron.after(noon) == cron.after(noon + 299_999) == noon + 300_000
    assert cron.newest(noon - 1, noon + 600_000, 2) == [noon + 300_000, noon + 600_000]


def test_a_year_of_minutes_gives_the_newest_ones() -> None:
    cron = Cron("* * * * *", UTC)
    now = ms("2026-11-29T12:00+00:00")
    found = cron.newest(0, now, 1001)
    assert (len(found), found[-1], found[0]) == (1001, now, now - 60_000 * 1000)
    yearly = Cron("0 0 1 1 *", UTC)
    assert yearly.newest(0, now, 10) == [ms("2026-01-01T00:00+00:00")]  # no further than a year


def test_a_period_counts_from_1970() -> None:
    every = Every(7_000)
    assert every.after(0) == 7_000
    assert every.after(6_999) == 7_000
    assert every.after(7_000) == 14_000
    assert every.newest(0, 21_000, 2) == [14_000, 21_000]
    assert every.newest(7_000, 13_999, 5) == []


def test_short_forms_and_seconds() -> None:
    noon = ms("2026-11-29T12:00+00:00")
    assert Cron("@hourly", UTC).after(noon) == noon + 3_600_000
    assert Cron("@Daily", UTC).after(noon) == ms("2026-11-30T00:00+00:00")
    assert Cron("*/10 * * * * *", UTC).after(noon) == noon + 10_000


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: gmpd.cron("0 0 31 2 *"), "never fires, as its months have no such day"),
        (lambda: gmpd.cron("0 0 30 2 *", tz="Europe/Berlin"), "never fires"),
        (lambda: gmpd.cron(""), "five fields are needed"),
        (lambda: gmpd.cron("61 * * * *"), "bad minute"),
        (lambda: gmpd.cron("* * * * * * *"), "five fields"),
        (lambda: gmpd.cron("@often"), "the short forms are @yearly"),
        (lambda: gmpd.cron("* " * 200), "more than 256 characters"),
        (lambda: gmpd.cron("* * * * *", tz="Europe/Berlim"), "tz='Europe/Berlim': no such"),
        (lambda: gmpd.cron("* * * * *", tz="Europe"), "tz='Europe': no such"),
        (lambda: gmpd.cron("* * * * *", tz="../x"), "tz='../x': no such"),
        (lambda: gmpd.cron("* * * * *", tz=""), "tz='': must be"),
        (lambda: gmpd.cron("* * * * *", catch_up="some"), "catch_up='some': must be one of 'none'"),
        (lambda: gmpd.every(5, overlap="allow"), "overlap='allow': must be one of 'skip', 'queue'"),
        (lambda: gmpd.every(5, overlap="skip", catch_up="all"), "drop one of them"),
        (lambda: gmpd.every(0), "every=0: must be from 0.1 s"),
        (lambda: gmpd.every(-1), "every=-1"),
        (lambda: gmpd.every(math.nan), "every=nan"),
        (lambda: gmpd.every(math.inf), "every=inf"),
        (lambda: gmpd.every(timedelta(days=400)), "to a year"),
        (lambda: gmpd.every(5, tick_as="not a name"), "tick_as='not a name'"),
        (lambda: gmpd.every(5, tick_as="x", kwargs={"x": 1}), "kwargs has that argument"),
        (lambda: gmpd.every(5, name="a\nb"), "printable"),
    ],
    ids=range(22),
)
def test_a_wrong_value_is_refused_by_its_name(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: gmpd.cron(5), "takes an expression"),  # type: ignore[arg-type]
        (lambda: gmpd.every("5"), "every='5'"),  # type: ignore[arg-type]
        (lambda: gmpd.every(True), "every=True"),
        (lambda: gmpd.every(5, args="x"), "args='x'"),
        (lambda: gmpd.every(5, kwargs={"1": 2}), "kwargs="),
        (lambda: gmpd.cron("* * * * *", tz=timedelta(1)), "tz="),  # type: ignore[arg-type]
        (lambda: gmpd.every(5)(5), "a schedule decorates a function"),  # type: ignore[type-var]
    ],
    ids=range(7),
)
def test_a_value_of_a_wrong_type_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(TypeError, match=re.escape(says)):
        make()


def report() -> None:
    """At the top of a module."""


def items() -> Any:
    yield 1


def test_only_a_function_that_workers_find_by_name_is_scheduled() -> None:
    def nested() -> None: ...

    with pytest.raises(ValueError, match="at the top of a module"):
        gmpd.every(1)(nested)
    with pytest.raises(ValueError, match="is a generator"):
        gmpd.every(1)(items)


def test_a_function_has_several_schedules_by_different_names() -> None:
    marked = gmpd.cron("0 6 * * *", name="early")(gmpd.every(60)(report))
    assert marked is report
    assert [each.name for each in schedules_of(vars(report))] == ["", "early"]
    with pytest.raises(ValueError, match="has a schedule of that name already"):
        gmpd.every(1, name="early")(report)
    del report.__gmpd_cron__  # type: ignore[attr-defined]


def test_a_schedule_tells_its_ticks_in_words() -> None:
    assert Schedule(cron="0 6 * * *", tz="Europe/Berlin").when == "0 6 * * * Europe/Berlin"
    assert Schedule(every_ms=1500).when == "every 1.5 s"
    assert Schedule(every_ms=1000, catch_up=CatchUp.ALL).waits
    assert Schedule(every_ms=1000, overlap=Overlap.QUEUE).waits
    assert not Schedule(every_ms=1000).waits
    assert zone_named("UTC") is UTC
    gmpd.cron("* * * * *", tz=ZoneInfo("Asia/Tokyo"))(report)
    assert [each.tz for each in schedules_of(vars(report))] == ["Asia/Tokyo"]
    del report.__gmpd_cron__  # type: ignore[attr-defined]
