"""The description of the metrics, and the collector that reads them off a snapshot."""

from __future__ import annotations

import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition
from prometheus_client.parser import text_string_to_metric_families

from gmpd.gateway.collector import (
    LABEL_CHARS_MAX,
    LABEL_VALUES_MAX,
    OTHER,
    Reading,
    SnapshotCollector,
    to_family,
)
from gmpd.gateway.metrics import BY_NAME, METRICS, Buckets, Kind

SNAPSHOT = json.loads((Path(__file__).parents[1] / "data" / "snapshot.json").read_text())


class Daemon:
    """A registry over a snapshot that the test changes as it likes."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.snapshot = snapshot
        self.age_s = 0.5
        self.up = True
        self.registry = CollectorRegistry()
        self.registry.register(SnapshotCollector(self.reading))

    def reading(self) -> Reading:
        return Reading(self.snapshot, self.age_s, self.up, {"ok": 3, "late": 1})

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def names(self) -> set[str]:
        return {sample.name for family in self.registry.collect() for sample in family.samples}


@pytest.fixture
def daemon() -> Daemon:
    return Daemon(copy.deepcopy(SNAPSHOT))


def shown(name: str) -> str:
    """The name of the first series of a metric."""
    return f"{name}_bucket" if BY_NAME[name].kind is Kind.HISTOGRAM else name


# -- the description -----------------------------------------------------------------------------


def test_no_two_metrics_share_a_name() -> None:
    assert len(BY_NAME) == len(METRICS)


def test_a_metric_is_named_as_prometheus_wants_it() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"(gmpd|go_sched)_[a-z0-9_]+", metric.name)
        assert metric.help.endswith((".", ". ")) or metric.help[-1] not in " \n", metric
        assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total"), metric
        assert metric.unit in {"", "seconds", "bytes", "threads", "goroutines"}, metric
        if metric.unit:
            assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}")
        assert not {"job", "pid", "client", "session", "instance"} & set(metric.labels), metric
        assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM), metric


def test_every_metric_has_a_value_in_a_whole_snapshot(daemon: Daemon) -> None:
    assert {shown(metric.name) for metric in METRICS} <= daemon.names()


# -- reading -------------------------------------------------------------------------------------


def test_values_come_from_where_the_snapshot_keeps_them(daemon: Daemon) -> None:
    assert daemon.value("gmpd_procs") == 2
    assert daemon.value("gmpd_jobs_finished_total", outcome="ok") == 17_900
    assert daemon.value("gmpd_sched_picks_total", p="0", source="steal") == 500
    assert daemon.value("gmpd_global_queue_oldest_age_seconds") == 0.75
    assert daemon.value("gmpd_messages_total", direction="in", kind="submit") == 400
    versions = {"version": "0.1.0", "python": "3.11.7", "variant": "compiled"}
    assert daemon.value("gmpd_build_info", **versions) == 1
    assert daemon.value("gmpd_daemon_state", state="running") == 1
    assert daemon.value("gmpd_daemon_state", state="draining") == 0
    assert daemon.value("gmpd_workers", state="running") == 1
    assert daemon.value("gmpd_workers", state="dead") == 0
    assert daemon.value("gmpd_snapshot_age_seconds") == 0.5
    assert daemon.value("gmpd_snapshot_fetches_total", outcome="error") == 0


def test_go_counts_the_global_queue_as_runnable_and_a_blocked_g_as_not_in_go(
    daemon: Daemon,
) -> None:
    assert daemon.value("go_sched_gomaxprocs_threads") == 2
    assert daemon.value("go_sched_goroutines_runnable_goroutines") == 5 + 250
    assert daemon.value("go_sched_goroutines_running_goroutines") == 1
    assert daemon.value("go_sched_goroutines_waiting_goroutines") == 80
    assert daemon.value("go_sched_goroutines_not_in_go_goroutines") == 4
    assert daemon.value("go_sched_goroutines_goroutines") == 255 + 1 + 80 + 4
    assert daemon.value("go_sched_goroutines_created_goroutines_total") == 96_000
    assert daemon.value("go_sched_threads_total_threads") == 6


def test_a_known_label_value_is_zero_before_its_first_event(daemon: Daemon) -> None:
    daemon.snapshot["jobs"]["finished"] = {}
    assert daemon.value("gmpd_jobs_finished_total", outcome="lost") == 0


def test_what_the_snapshot_has_not_is_absent(daemon: Daemon) -> None:
    for key in list(daemon.snapshot):
        smaller = {name: value for name, value in daemon.snapshot.items() if name != key}
        assert "gmpd_coordinator_up" in Daemon(smaller).names()
    del daemon.snapshot["ps"][0]["picks"]
    assert daemon.value("gmpd_sched_picks_total", p="0", source="local") is None
    assert daemon.value("gmpd_sched_picks_total", p="1", source="local") == 25_000


GATEWAYS_OWN = (
    "gmpd_coordinator_", "gmpd_snapshot_", "gmpd_collect_", "gmpd_label_", "gmpd_http_",
)  # fmt: skip


def test_without_any_snapshot_only_the_gateway_speaks(daemon: Daemon) -> None:
    daemon.snapshot, daemon.up = {}, False
    assert daemon.value("gmpd_coordinator_up") == 0
    assert daemon.value("gmpd_snapshot_age_seconds") is None
    assert all(name.startswith(GATEWAYS_OWN) for name in daemon.names())


@pytest.mark.parametrize("nonsense", ["text", 7, [1], {"a": {"b": None}}, [[]], None, -1, [None]])
def test_nonsense_costs_the_metrics_that_read_it_and_nothing_else(
    daemon: Daemon, nonsense: Any
) -> None:
    for key in ("ps", "jobs", "queue", "hist", "messages", "state", "procs"):
        daemon.snapshot[key] = nonsense
    lines = generate_latest(daemon.registry).decode().splitlines()
    assert {"gmpd_coordinator_up 1.0", "gmpd_sessions 3.0"} <= set(lines)


def test_a_metric_that_cannot_be_read_is_counted_and_named_once(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.snapshot["sessions"] = "three"
    daemon.names()
    assert daemon.value("gmpd_collect_errors_total") == 1
    assert daemon.value("gmpd_collect_errors_total") == 2
    assert [record.getMessage()[:43] for record in caplog.records] == [
        "gmpd_sessions is omitted from /metrics: its"
    ]


words: Any = st.sampled_from(["", "p", "ok", "buckets", "sum_ns", "wait", "é"])
json_like: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
# The machine that runs this may be busy with other tests: time is no property under test here.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(st.dictionaries(st.sampled_from(sorted(SNAPSHOT)), json_like))
def test_no_snapshot_whatever_can_break_a_scrape(changes: dict[str, Any]) -> None:
    generate_latest(Daemon(SNAPSHOT | changes).registry)


# -- totals never go down ------------------------------------------------------------------------


def test_a_new_worker_that_counts_from_zero_adds_to_what_was(daemon: Daemon) -> None:
    assert daemon.value("gmpd_sched_ticks_total", p="0") == 50_000
    daemon.snapshot["ps"][0].update(epoch=2, schedtick=10)
    assert daemon.value("gmpd_sched_ticks_total", p="0") == 50_010
    daemon.snapshot["ps"][0].update(epoch=2, schedtick=25)
    assert daemon.value("gmpd_sched_ticks_total", p="0") == 50_025


def test_a_new_worker_whose_past_the_daemon_kept_is_not_counted_twice(daemon: Daemon) -> None:
    daemon.names()
    daemon.snapshot["ps"][0].update(epoch=2, schedtick=50_003)
    assert daemon.value("gmpd_sched_ticks_total", p="0") == 50_003


def test_a_torn_reading_shows_what_was_shown(daemon: Daemon) -> None:
    daemon.names()
    daemon.snapshot["ps"][0]["schedtick"] = 49_999
    assert daemon.value("gmpd_sched_ticks_total", p="0") == 50_000
    daemon.snapshot["ps"][0]["schedtick"] = 50_001
    assert daemon.value("gmpd_sched_ticks_total", p="0") == 50_001


def test_a_p_that_is_gone_still_counts_in_the_sum(daemon: Daemon) -> None:
    assert daemon.value("gmpd_gs_created_total") == 96_000
    del daemon.snapshot["ps"][1]
    assert daemon.value("gmpd_gs_created_total") == 96_000
    assert daemon.value("gmpd_worker_up", p="1") is None


def test_a_histogram_stays_of_one_moment_when_its_counts_fall(daemon: Daemon) -> None:
    def at() -> tuple[float | None, float | None]:
        name = "gmpd_job_wait_seconds"
        return daemon.value(f"{name}_count"), daemon.value(f"{name}_sum")

    before = at()
    daemon.snapshot["hist"]["wait"] = {"buckets": [1] * 48, "sum_ns": 10, "count": 48}
    assert at() == before


def test_another_daemon_counts_from_zero(daemon: Daemon) -> None:
    daemon.names()
    daemon.snapshot.update(epoch=2, pid=9, jobs={"submitted": 1})
    assert daemon.value("gmpd_jobs_submitted_total") == 1


@unhurried
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=2))
def test_whatever_a_worker_reports_its_totals_never_fall(
    reports: list[tuple[int, int]],
) -> None:
    daemon, last = Daemon({"ps": [{"p": 0}]}), 0.0
    for epoch, ticks in reports:
        daemon.snapshot = {"ps": [{"p": 0, "epoch": epoch, "schedtick": ticks}]}
        now = daemon.value("gmpd_sched_ticks_total", p="0")
        assert now is not None
        assert now >= last
        last = now


# -- cardinality ---------------------------------------------------------------------------------


def test_a_label_has_at_most_so_many_values_and_the_rest_are_one(daemon: Daemon) -> None:
    daemon.snapshot["dropped"] = {f"reason-{i:03}": 1 for i in range(LABEL_VALUES_MAX + 25)}
    assert daemon.value("gmpd_messages_dropped_total", reason="reason-000") == 1
    assert daemon.value("gmpd_messages_dropped_total", reason=OTHER) == 25
    assert daemon.value("gmpd_label_values_folded_total") == 25


def test_who_has_a_series_keeps_it_whatever_comes_later(daemon: Daemon) -> None:
    daemon.snapshot["dropped"] = {"garbage": 5}
    daemon.names()
    flood = {f"reason-{i:03}": 1 for i in range(LABEL_VALUES_MAX)}
    daemon.snapshot["dropped"] = {**flood, "garbage": 6}
    assert daemon.value("gmpd_messages_dropped_total", reason="garbage") == 6
    assert daemon.value("gmpd_messages_dropped_total", reason=OTHER) == 1


def test_a_label_value_is_short(daemon: Daemon) -> None:
    daemon.snapshot["dropped"] = {"x" * 5_000: 1}
    assert daemon.value("gmpd_messages_dropped_total", reason="x" * LABEL_CHARS_MAX) == 1


# -- histograms ----------------------------------------------------------------------------------


@unhurried
@given(st.lists(st.integers(0, 1 << 46), max_size=200))
def test_every_value_lies_at_or_below_its_bound(values: list[int]) -> None:
    counts = [0] * 48
    for value in values:
        counts[value.bit_length()] += 1
    metric = BY_NAME["gmpd_job_run_seconds"]
    family = to_family(metric, [((), Buckets(counts, sum(values)))])
    got = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert got.pop("+Inf") == len(values)
    assert len(got) == len(metric.bounds)
    for bound, count in got.items():
        assert count == sum(value < float(bound) * 1e9 for value in values)
    total = next(s.value for s in family.samples if s.name.endswith("_sum"))
    assert total == pytest.approx(sum(values) / 1e9)


def test_bounds_are_a_factor_of_four_apart() -> None:
    for metric in METRICS:
        assert all(b - a == 2 for a, b in zip(metric.bounds, metric.bounds[1:], strict=False))


# -- the exposition ------------------------------------------------------------------------------


def test_both_formats_parse(daemon: Daemon) -> None:
    text = generate_latest(daemon.registry).decode()
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {metric.name.removesuffix("_total") for metric in METRICS} <= families
    openmetrics: Any = exposition.generate_latest
    assert openmetrics(daemon.registry).decode().endswith("# EOF\n")


def test_a_registry_can_be_asked_for_some_metrics_only(daemon: Daemon) -> None:
    some: Any = daemon.registry.restricted_registry(["gmpd_procs"])
    assert [family.name for family in some.collect()] == ["gmpd_procs"]


def test_collecting_does_not_happen_at_registration() -> None:
    def never() -> Reading:
        raise AssertionError("asked")

    CollectorRegistry(auto_describe=True).register(SnapshotCollector(never))


def test_a_scrape_of_64_ps_is_a_few_milliseconds(daemon: Daemon) -> None:
    p = daemon.snapshot["ps"][0]
    daemon.snapshot["ps"] = [{**p, "p": i} for i in range(64)]

    began = time.thread_time()  # others may have the cores meanwhile
    generate_latest(daemon.registry)
    # Ten times what it takes on a slow machine: this is to catch a quadratic, not to measure.
    assert time.thread_time() - began < 0.25
    assert (daemon.value("gmpd_collect_duration_seconds") or 0) > 0


def test_isolated_jobs_are_counted_apart(daemon: Daemon) -> None:
    assert daemon.value("gmpd_isolated_workers", state="running") == 2
    assert daemon.value("gmpd_isolated_workers", state="spare") == 0
    assert daemon.value("gmpd_isolated_queue_length") == 4
    assert daemon.value("gmpd_isolated_workers_started_total") == 17


def test_hosts_have_series_of_their_own(daemon: Daemon) -> None:
    serves, refused = "tcp://10.0.0.2:4001", "tcp://10.0.0.3:4001"
    assert daemon.value("gmpd_host_up", host=serves) == 1
    assert daemon.value("gmpd_host_up", host=refused) == 0
    assert daemon.value("gmpd_host_cores", host=serves) == 8
    assert daemon.value("gmpd_host_started_jobs", host=serves) == 17
    assert daemon.value("gmpd_host_losses_total", host=serves) == 2
    assert daemon.value("gmpd_host_batches_total", host=serves) == 40
    del daemon.snapshot["cluster"]
    assert daemon.value("gmpd_host_up", host=serves) is None
