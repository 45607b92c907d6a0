"""The simulation of `loadtests/feed.py`: the same seed is the same run, and it saturates where its
costs say."""

from __future__ import annotations

import json

import pytest

from loadtests import feed, feed_plot, readme
from loadtests.feed_model import Costs, World

MS = 1_000_000
RECORDED = json.loads(feed.RESULTS.read_text())
COSTS = Costs(
    client_job=5, coordinator_job=2, coordinator_message=30, bridge_job=5, bridge_exchange=200,
    host_job=10, host_message=30, host_exchange=250, worker_job=8, way=200, hop=30,
)  # fmt: skip


def test_the_same_seed_is_the_same_run() -> None:
    own = feed.lengths("tail", 9, seed=3)[:1000]
    first, again = (World(4, 2, own, COSTS, seed=3).run() for _ in range(2))
    assert first == again
    assert first.jobs == 1000


def test_a_few_cores_are_kept_busy_with_jobs_of_a_millisecond() -> None:
    report = World(4, 2, [MS] * 9000, COSTS).run()
    assert report.by_ideal is not None
    assert report.by_ideal < 1.1
    assert report.busy > 0.9
    assert report.coordinator < 0.5


def test_a_slow_coordinator_is_what_limits() -> None:
    """A job takes 100 us there: no number of hosts gets more than 10,000 of them in a second."""
    report = World(8, 8, [MS] * 4000, COSTS._replace(coordinator_job=100)).run()
    assert report.coordinator > 0.9
    assert 5_000 < report.jobs_per_s <= 10_000
    assert report.by_ideal is not None
    assert report.by_ideal > 5


def test_a_slow_bridge_is_what_limits() -> None:
    report = World(1, 8, [0] * 3000, COSTS._replace(bridge_job=1000)).run()
    assert report.bridge > 0.9


@pytest.mark.parametrize("kind", feed.KINDS)
def test_lengths_keep_all_cores_busy(kind: str) -> None:
    own = feed.lengths(kind, 17, seed=1)
    assert feed.JOBS_MIN <= len(own) <= feed.JOBS_MAX
    assert own == feed.lengths(kind, 17, seed=1)


def test_every_panel_has_its_rows() -> None:
    for kind in feed_plot.KINDS:
        rows = [row for row in RECORDED["rows"] if row["kind"] == kind]
        assert len(rows) == len(feed.HOSTS) * len(feed.CORES)
        assert all(key in row for row in rows for key, _ in feed_plot.PANELS)


def test_the_table_has_every_kind_and_number_of_hosts() -> None:
    lines = readme.feed(RECORDED)
    rows = sum(line.startswith("|") for line in lines)
    assert rows == len(feed.KINDS) + len(feed.HOSTS) + 2 * 2
