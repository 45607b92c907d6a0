"""Hosts of a cluster on the live page, before a real daemon with hosts that are processes here."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmpd import Client
from gmpd.errors import WorkerLost
from tests import jobs_hosts as jobs
from tests.daemon_process import Daemon
from tests.hosts_of_tests import ENGINE, Hosts, await_hosts
from tests.jobs_page import block
from tests.page_browser import Seen, needs_chromium, page_daemon
from tests.support import wait_until

pytestmark = needs_chromium


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as place:
        made = Hosts(Path(place))
        yield made
        made.close()


@pytest.fixture
def daemon(hosts: Hosts) -> Iterator[Daemon]:
    with page_daemon(
        GMPD_CLUSTER__ENGINE=ENGINE,
        GMPD_CLUSTER__ADDRESS=str(hosts.directory),
        GMPD_CLUSTER__LEASE="2s",
        GMPD_DAEMON__PROCS="1",
    ) as daemon:
        yield daemon


def test_hosts_are_seen_as_they_come_work_and_are_lost(
    seen: Seen, daemon: Daemon, hosts: Hosts, tmp_path: Path
) -> None:
    """One story: to start hosts takes seconds."""
    seen.open()
    seen.sees(".hosts .dim", "No host has come yet")
    for name in ("north", "south"):
        hosts.start(name)
    with Client(str(daemon.directory)) as client:
        await_hosts(client, "north", "south")
        seen.sees(".hosts-head", "2 of 2 take work · 4 cores")
        seen.sees(".events .worker", "Host north takes work on 2 cores")
        assert seen.page.locator(".p-card:not(.host-card)").count() == 1, "a host is no P of here"
        work_is_seen(seen, client)
        work_is_in_the_task_stream(seen, client)
        fits(seen)
        end = tmp_path / "end"
        held = [client.submit(block, str(end)) for _ in range(12)]
        north = seen.page.locator(".host-card[data-host=north]")
        north.locator(".now:not(.none) .fn", has_text="block").wait_for()
        hosts.kill("north")
        is_lost(seen)
        end.touch()
        assert {type(each.exception(60)) for each in held} == {WorkerLost, type(None)}
        hosts.start("north")
        seen.sees(".host-card[data-host=north][data-state=idle] a", "begun job")


def work_is_seen(seen: Seen, client: Client) -> None:
    """Jobs as squares, cores, batches, steals."""
    futures = [client.submit(jobs.where, 0.02) for _ in range(600)]
    seen.sees(".host-card[data-state=running] .squares .g")
    seen.sees(".host-card .core.on")
    seen.sees(".host-card .batch.away")
    seen.sees(".host-card .row", re.compile("batches.*jobs each", re.DOTALL))
    assert {"north", "south"} <= {future.result(60) for future in futures}
    wait_until(lambda: "0" not in texts(seen, ".host-card .number:first-child b"), "jobs/s")


def work_is_in_the_task_stream(seen: Seen, client: Client) -> None:
    """A row for each host, with its share and its jobs."""
    seen.page.locator(".task-stream").scroll_into_view_if_needed()
    canvas = seen.page.locator(".ts-canvas")

    def told(pattern: str) -> bool:
        return bool(re.search(pattern, str(canvas.get_attribute("aria-label"))))

    wait_until(lambda: told(r"Host north: \d+ jobs, .*Host south: "), "rows of hosts")
    for _ in client.map(jobs.where, [0.05] * 200, chunksize=1):
        pass
    wait_until(lambda: told(r"Host north: [1-9]\d* jobs, [1-9]\d* % busy"), "what it ran")


def texts(seen: Seen, selector: str) -> list[str]:
    found: list[str] = seen.page.locator(selector).all_inner_texts()
    return found


def fits(seen: Seen) -> None:
    """A narrow screen; and keys come to each host, which has a name."""
    seen.page.set_viewport_size({"width": 390, "height": 844})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.page.set_viewport_size({"width": 1440, "height": 900})
    reached = set[str]()
    for _ in range(60):
        seen.key("Tab")
        reached.add(seen.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))
        if sum(each.startswith("Host ") for each in reached) == 2:
            return
    raise AssertionError(reached)


def is_lost(seen: Seen) -> None:
    """On its card, among the moves, and as a warning."""
    card = seen.sees(".host-card[data-host=north][data-state=lost]")
    assert re.search(r"last loss\s+.* ago · \d+ begun jobs? lost", card.inner_text())
    seen.sees(".events .failure", "Host north was lost, with")
    seen.sees(".hosts-head", "1 of 2 take work · 2 cores")
    card.locator("a[href='#/warnings']").click()
    seen.sees("tbody tr", re.compile(r"host north.*lost .* ago, with", re.DOTALL))
    seen.open()


def test_a_cluster_that_does_not_answer_is_said(seen: Seen, daemon: Daemon, hosts: Hosts) -> None:
    hosts.directory.rename(f"{hosts.directory}-away")
    try:
        seen.open()
        seen.sees(".host-problem", "nothing answers at")
    finally:
        Path(f"{hosts.directory}-away").rename(hosts.directory)
