"""The live page in a real browser, before a real daemon: one of each for all tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

import gmpd
from gmpd import Client
from tests.daemon_process import Daemon
from tests.jobs_page import fail, family
from tests.page_browser import Seen, needs_chromium, page_daemon
from tests.support import stop, wait_until

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with page_daemon() as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(str(daemon.directory), name="page test") as client:
        yield client


def test_before_the_first_job_it_teaches_the_next_command(seen: Seen) -> None:
    seen.open()
    seen.sees(".lesson.shown code", "gmpd demo")
    assert seen.page.locator(".p-card").count() == 2
    assert not seen.page.locator(".hosts").is_visible(), "there is no cluster"
    seen.sees(".p-card .state", "idle")


def test_work_is_seen_as_it_moves(seen: Seen, client: Client) -> None:
    seen.open()
    naps = [client.submit(time.sleep, 4) for _ in range(3)]
    seen.sees(".m.call")
    seen.sees(".events .handoff")
    seen.sees(".legend", "sleep")
    children = client.submit(family, 80, 0.01)
    seen.sees(".events .steal", "stole")
    assert int(seen.page.evaluate("document.body.dataset.steals")) > 0
    children.result(60)
    for nap in naps:
        nap.result(60)


def test_a_failure_is_found_by_the_keyboard_alone(seen: Seen, client: Client) -> None:
    job = client.enqueue(fail)
    with pytest.raises(ValueError, match="no pixels"):
        client.job(job).result(60)
    seen.open()
    page = seen.page
    page.keyboard.press("2")
    seen.sees("tbody tr", "the image has no pixels")
    assert page.evaluate("location.hash") == "#/jobs"
    page.keyboard.press("/")
    page.keyboard.type("tests.jobs_page:fail")
    page.keyboard.press("Enter")
    page.wait_for_url("**/#/jobs?function=tests.jobs_page%3Afail")
    page.keyboard.press("Escape")
    seen.sees("tbody tr", "fail")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert "ValueError: the image has no pixels" in seen.sees(".traceback").inner_text()
    assert job in page.evaluate("location.hash")
    page.keyboard.press("?")
    seen.sees("dialog[open]", "Keys")
    page.keyboard.press("Escape")


def test_every_view_has_its_state_in_the_url(seen: Seen, client: Client) -> None:
    parked = client.submit(gmpd.sleep, 30)
    seen.open("/gs?state=waiting&sort=id")
    seen.sees("tbody tr", "sleep")
    seen.sees(".chip.on", "waiting")
    parked.cancel()
    seen.open("/clients")
    seen.sees("tbody tr", "page test")
    seen.open("/warnings")
    seen.sees(".note", "gmpd doctor")
    seen.open("/config?function=daemon.procs")
    assert "GMPD_DAEMON__PROCS" in seen.sees("tbody tr", "daemon.procs").inner_text()
    seen.open("/?paused=1")
    seen.sees("button", "Continue")
    seen.page.keyboard.press(" ")
    seen.sees("button", "Pause")
    assert seen.page.evaluate("location.hash") == "#/"


def test_it_fits_a_narrow_screen_in_both_shades(seen: Seen) -> None:
    page = seen.page
    page.set_viewport_size({"width": 390, "height": 844})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for view in ("/", "/jobs"):
            seen.open(view)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
    grounds = set()
    for _ in range(2):
        page.keyboard.press("t")
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_a_daemon_that_stands_still_is_said_and_it_comes_back(seen: Seen, daemon: Daemon) -> None:
    seen.open()
    stop(daemon.process.pid)
    try:
        seen.sees(".banner:not([hidden])", "does not answer")
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
    seen.page.wait_for_selector("body[data-link=live]")
    wait_until(lambda: not seen.page.locator(".banner").is_visible(), "the banner has gone")
    # The browser notes the questions of that time that had no answer.
    assert all("503" in each for each in seen.said), seen.said
    seen.said.clear()
