"""Figures by function: those of all jobs, taken apart, and bounded in number."""

from __future__ import annotations

import msgspec
from prometheus_client import CollectorRegistry

from gmpd.cli.job_top import as_map, duration, table
from gmpd.daemon.snapshot import _functions, _hist
from gmpd.gateway.collector import Reading, SnapshotCollector
from gmpd.protocol import Outcome
from gmpd.sched.per_function import (
    LISTED_MAX,
    NAME_MAX,
    OTHER,
    ROWS_MAX,
    FunctionCounts,
    PerFunction,
)
from gmpd.status import FunctionTotals, Hist
from tests.desk import Desk


class Fn:
    """A function, as it is counted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: FunctionCounts | None = None


def ran(table: PerFunction, fn: Fn, *runs_ns: int) -> None:
    """Jobs of it ended well."""
    table.add_plain([fn] * len(runs_ns), [5] * len(runs_ns), runs_ns, [1] * len(runs_ns))


def shown(table: PerFunction) -> dict[str, dict[str, int]]:
    return {row.name: dict(row.outcomes()) for row in table.shown()}


def by_function(desk: Desk) -> dict[str, dict[str, int]]:
    return shown(desk.sched.counters.functions)


def test_each_way_to_end_counts_for_the_function_of_the_job() -> None:
    desk = Desk(credit_ns=10**12)
    p, one = desk.ready(0), desk.client()
    for name in ("m:f", "m:g"):
        desk.teach(p, one, name, 0.01)
    for name in ("m:f", "m:g", "m:f"):
        desk.submit(one, 2, name)
    desk.take()
    assert len(p.fresh) == 6
    desk.end(p)  # in one message, of two functions
    for outcome in (Outcome.ERROR, Outcome.TIMEOUT):
        desk.submit(one, 1, "m:g")
        desk.take()
        desk.end(p, outcome=outcome)
    desk.cancel(one, desk.submit(one, 4, "m:h"))
    desk.take()
    desk.submit(one, 1, "m:dies")
    desk.take()
    desk.start(p)
    desk.died(0, list(p.started), next(iter(p.started)))
    desk.take()
    desk.submit(one, 2, "m:left")
    desk.leave(one)
    assert by_function(desk) == {
        "m:f": {"ok": 5},
        "m:g": {"ok": 3, "error": 1, "timeout": 1},
        "m:h": {"cancelled": 4},
        "m:dies": {"lost": 1},
        "m:left": {"cancelled": 2},
    }
    counters = desk.sched.counters
    assert counters.finished == {"ok": 8, "error": 1, "timeout": 1, "cancelled": 6, "lost": 1}
    assert sum(counters.finished.values()) == counters.submitted
    assert counters.functions.total().occupied_ns == counters.occupied.sum_ns


def test_children_and_retries_are_no_ended_jobs() -> None:
    desk = Desk()
    p, one = desk.ready(0), desk.client()
    desk.submit(one, 1, retries=1)
    desk.take()
    desk.end(p, outcome=Outcome.ERROR)
    assert desk.sched.counters.finished == {}
    (row,) = desk.sched.counters.functions.shown()
    assert row.occupied_ns  # its first attempt


def test_functions_with_one_name_are_one_row() -> None:
    table = PerFunction()
    ran(table, Fn("m:f"), 10)
    ran(table, Fn("m:f"), 20)
    assert shown(table) == {"m:f": {"ok": 2}}


def test_a_long_name_is_known_by_its_end() -> None:
    table = PerFunction()
    ran(table, Fn("m" * 500 + ":end"), 10)
    (name,) = shown(table)
    assert len(name) == NAME_MAX
    assert name.endswith(":end")


def test_the_busiest_are_named_and_the_rest_are_one_row() -> None:
    table = PerFunction()
    for n in range(LISTED_MAX + 50):
        ran(table, Fn(f"m:f{n}"), 1000 * (n + 1))
    rows = table.shown()
    assert len(rows) == LISTED_MAX + 1
    assert [row.name for row in rows[:2]] == [f"m:f{LISTED_MAX + 49}", f"m:f{LISTED_MAX + 48}"]
    assert (rows[-1].name, dict(rows[-1].outcomes())) == (OTHER, {"ok": 50})
    assert sum(row.run.sum_ns for row in rows) == table.total().run.sum_ns


def test_no_figure_falls_when_a_busier_function_is_named() -> None:
    table = PerFunction()
    for n in range(LISTED_MAX):
        ran(table, Fn(f"m:f{n}"), 1000 + n)
    table.shown()
    late = Fn("m:late")
    ran(table, late, 1500)
    before = shown(table)
    assert before[OTHER] == {"ok": 1}  # not twice the least of the others
    ran(table, late, 10_000)
    swapped = shown(table)
    assert "m:f0" not in swapped
    assert swapped["m:late"] == {}  # it begins now
    assert swapped[OTHER] == {"ok": 3}
    ran(table, late, 5)
    after = shown(table)
    assert (after["m:late"], after[OTHER]) == ({"ok": 1}, {"ok": 3})
    assert sum(n for row in after.values() for n in row.values()) == LISTED_MAX + 3
    for name, row in before.items():
        if name != "m:f0":
            assert after[name].get("ok", 0) >= row["ok"]


def test_a_flood_of_names_is_bounded_and_counts_on() -> None:
    table = PerFunction()
    kept = [Fn(f"m:kept{n}") for n in range(LISTED_MAX)]
    for fn in kept:
        ran(table, fn, 10**9)
    table.shown()
    flood = [Fn(f"m:once{n}") for n in range(5 * ROWS_MAX)]
    for fn in flood:
        ran(table, fn, 1)
    assert sum(1 for _ in table) <= ROWS_MAX + 1
    ran(table, flood[0], 1)  # its row was folded
    ran(table, kept[0], 1)
    assert table.total().outcomes() == {"ok": LISTED_MAX + 5 * ROWS_MAX + 2}
    rows = shown(table)
    assert (rows["m:kept0"], rows["m:kept1"]) == ({"ok": 2}, {"ok": 1})
    assert len(rows) == LISTED_MAX + 1


def test_a_function_may_be_named_as_the_rest_is() -> None:
    table = PerFunction()
    ran(table, Fn(OTHER), 10)
    assert shown(table) == {OTHER: {"ok": 1}}


def test_a_wait_between_two_clocks_may_be_negative() -> None:
    table = PerFunction()
    one, two = Fn("m:f"), Fn("m:g")
    table.add_plain([one, two], [-5, -5], [10, 1 << 60], [1, 1])
    table.add_plain([one] * 4, [-5] * 4, [10, 1 << 60] * 2, [1] * 4)
    total = table.total()
    assert (total.wait.sum_ns, total.wait.count, total.wait.buckets[0]) == (0, 6, 6)
    assert (total.run.count, total.run.buckets[-1]) == (6, 3)


def test_the_metrics_by_function_add_up_to_those_of_all_jobs() -> None:
    desk = Desk(credit_ns=10**12)
    p, one = desk.ready(0), desk.client()
    for n in range(3):
        desk.submit(one, n + 1, f"m:f{n}")
        desk.take()
        desk.end(p, occupied_ms=n + 1)
    desk.submit(one, 1, "m:f1")
    desk.take()
    desk.end(p, outcome=Outcome.ERROR)
    total = desk.sched.counters.functions.total()
    snapshot = {
        "jobs": {"finished": dict(desk.sched.counters.finished)},
        "functions": msgspec.to_builtins(_functions(desk.sched)),
        "hist": msgspec.to_builtins({"run": _hist(total.run), "wait": _hist(total.wait)}),
    }
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(lambda: Reading(snapshot, 0.1, True, {})))
    sums: dict[tuple[str, str], float] = {}
    for family in registry.collect():
        for sample in family.samples:
            kept = {name: of for name, of in sample.labels.items() if name != "function"}
            key = sample.name, str(sorted(kept.items()))
            sums[key] = sums.get(key, 0.0) + sample.value
    pairs = 0
    for (name, labels), value in sums.items():
        if name.startswith("gmpd_function_") and "occupied" not in name:
            assert (
                sums[
                    name.replace("gmpd_function_", "gmpd_job_").replace(
                        "gmpd_job_jobs", "gmpd_jobs"
                    ),
                    labels,
                ]
                == value
            )
            pairs += 1
    assert pairs > 30


def test_a_quantile_is_within_its_bucket() -> None:
    assert Hist().quantile_s(0.5) == 0.0
    buckets = [0] * 48
    buckets[20] = 99
    buckets[30] = 1
    seen = Hist(buckets, 0, 100)
    assert 2**19 / 1e9 < seen.quantile_s(0.5) < 2**20 / 1e9
    assert seen.quantile_s(0.99) == 2**20 / 1e9
    assert 2**29 / 1e9 < seen.quantile_s(0.995) < 2**30 / 1e9


def test_the_table_names_functions_with_their_times() -> None:
    buckets = [0] * 48
    buckets[21] = 10
    row = FunctionTotals(
        "shop.reports:build", {"ok": 9, "error": 1}, Hist(buckets, 15_000_000, 10),
        Hist(buckets, 15_000_000, 10), 0.012,
    )  # fmt: skip
    head, line = table([row])
    assert head.split() == ["JOBS", "FAILED", "TIME", "ON", "P", "RUN", "99", "%", "WAIT", "99",
                            "%", "FUNCTION"]  # fmt: skip
    assert line.split()[:6] == ["10", "1", "15", "ms", "12", "ms"]
    assert line.endswith("shop.reports:build")
    assert as_map(row)["time_s"] == 0.015
    assert table([]) == []


def test_durations_have_three_digits() -> None:
    assert [*map(duration, (0, 12e-6, 0.0034, 1.2, 90, 300, 20_000))] == [
        "0 µs", "12 µs", "3.4 ms", "1.2 s", "90 s", "5 min", "5.56 h",
    ]  # fmt: skip
