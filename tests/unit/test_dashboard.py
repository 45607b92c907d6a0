"""The Grafana dashboard: made from the description of the metrics, and not by hand."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gmpd.gateway.metrics import METRICS, Kind

GRAFANA = Path(__file__).parents[2] / "config" / "grafana"
BOARD = json.loads((GRAFANA / "dashboards" / "gmpd-overview.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    pytest.importorskip("grafana_foundation_sdk", reason="it is in the extra dev")
    spec = importlib.util.spec_from_file_location("gmpd_dashboard", GRAFANA / "dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their own module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_file_is_what_the_script_makes(generator: Any) -> None:
    made = generator.build()
    assert made == generator.TARGET.read_text(), "run: python config/grafana/dashboard.py"


def test_a_query_for_what_is_not_there_is_not_made(generator: Any) -> None:
    with pytest.raises(KeyError):
        generator.rate("gmpd_no_such_total")
    with pytest.raises(ValueError, match="is a gauge, not a counter"):
        generator.rate("gmpd_procs")
    with pytest.raises(ValueError, match="is a counter, not a histogram"):
        generator.quantile(0.5, "gmpd_jobs_finished_total")
    with pytest.raises(ValueError, match=r"no label \['queue'\]"):
        generator.rate("gmpd_jobs_finished_total", "queue")


def test_panels_have_titles_descriptions_and_numbers_of_their_own() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"] for panel in PANELS)
    assert BOARD["uid"] == "gmpd-overview"


def test_rows_fill_the_width_and_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        taken |= cells


def test_rates_are_taken_over_the_interval_that_grafana_knows() -> None:
    for query in QUERIES:
        for window in re.findall(r"\[([^\]]+)\]", query):
            assert window in {"$__rate_interval", "$__range"}


def test_nearly_every_metric_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"(?:gmpd|go)_[a-z0-9_]+", " ".join(QUERIES)))
    missing = {
        metric.name
        for metric in METRICS
        if metric.name + ("_bucket" if metric.kind is Kind.HISTOGRAM else "") not in shown
    }
    # Facts and plumbing: no course of theirs over time says anything; alerts watch the last ones.
    assert missing == {
        "gmpd_build_info",
        "gmpd_started_timestamp_seconds",
        "gmpd_daemon_state",
        "gmpd_durable_store_state",
        "gmpd_global_queue_bytes",
        "gmpd_sched_ticks_total",
        "gmpd_worker_up",
        "gmpd_worker_idle_threads",
        "gmpd_worker_heartbeat_age_seconds",
        "go_sched_goroutines_goroutines",
        "go_sched_goroutines_created_goroutines_total",
        "go_sched_pauses_total_gc_seconds",
        "gmpd_coordinator_up",
        "gmpd_snapshot_fetches_total",
        "gmpd_collect_errors_total",
        "gmpd_label_values_folded_total",
    }
