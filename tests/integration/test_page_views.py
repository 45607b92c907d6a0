"""The views of the live page: what each shows of a real daemon, and that keys reach all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gmpd import Client
from loadtests.page_frames import Page, gs_of
from tests.daemon_process import Daemon
from tests.jobs_page import block, fail, hold, parked
from tests.page_browser import Seen, needs_chromium, page_daemon
from tests.support import wait_until

pytestmark = needs_chromium

GS = 100_000
#: Clicks are noted, and lead nowhere.
NOTE_CLICKS = """() => {
  window.clicked = [];
  document.addEventListener("click", (event) => {
    window.clicked.push(event.target);
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
}"""
#: The element that has the focus: null for none; `again` if it had it before.
FOCUSED = """() => {
  const el = document.activeElement, style = getComputedStyle(el);
  if (el === document.body) return null;
  const again = el.dataset.walked === "yes";
  el.dataset.walked = "yes";
  return {
    tag: el.tagName, again, html: el.outerHTML.slice(0, 120), id: el.id,
    shown: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
    squares: el.closest(".squares") !== null,
  };
}"""
#: What a mouse may press, and no key has come to.
UNREACHED = """() => {
  const pressed = "a[href], button, input, select, textarea, summary, [onclick]";
  const hand = (el) => getComputedStyle(el).cursor === "pointer";
  const walked = (el) => el.closest("[data-walked=yes]")
    || el.closest(".squares")?.querySelector("[data-walked=yes]")
    || (el.dataset.href && el.querySelector(`a[data-walked=yes][href="${el.dataset.href}"]`));
  return [...document.querySelectorAll("*")]
    .filter((el) => el.checkVisibility() && el.parentElement)
    .filter((el) => el.matches(pressed) || (hand(el) && !hand(el.parentElement)))
    .filter((el) => !walked(el)).map((el) => el.outerHTML.slice(0, 160));
}"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    # One plain call at a time: so jobs wait without computing.
    with page_daemon(GMPD_HTTP__ALLOW="cancel,retry", GMPD_LIMITS__PLAIN_CALLS="1") as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    client = Client(str(daemon.directory), name="page test")
    yield client
    client.close(wait=False)  # a test that fails leaves jobs that wait


@pytest.fixture(scope="module")
def failed(daemon: Daemon) -> str:
    """A durable job that has failed, beside two volatile ones."""
    with Client(str(daemon.directory), name="page test") as client:
        for _ in range(2):
            assert client.submit(fail).exception(60)
        job: str = client.enqueue(fail)
        assert client.job(job).exception(60)
    return job


def test_a_failure_shows_its_traceback(seen: Seen, failed: str) -> None:
    seen.open()
    seen.key("4")
    row = seen.sees("tbody tr", "ValueError: the image has no pixels")
    assert "3" in row.locator("td[data-label=Times]").inner_text()
    assert not seen.page.locator(".traceback").count()
    seen.key("j", "Enter")
    assert 'raise ValueError("the image has no pixels")' in seen.sees(".traceback").inner_text()
    assert "open=" in seen.page.evaluate("location.hash")
    seen.sees(".failure button", "Copy")
    assert seen.page.locator(".failed-jobs li").count() == 3
    seen.page.reload()  # it is in the address
    seen.sees(".traceback", "ValueError")
    assert seen.page.locator(".failed-jobs a").count() == 1  # the volatile ones are forgotten
    seen.page.locator(".failed-jobs a", has_text=failed).focus()
    seen.key("Enter")
    seen.sees(".why[data-code=failed]", "It failed: ValueError: the image has no pixels.")
    seen.key("Escape")
    seen.sees("tbody tr", "ValueError")
    seen.key("/")
    seen.page.keyboard.type("nothing like that")
    seen.key("Enter")
    seen.sees("td.none", "No failure is like that")
    assert "function=nothing" in seen.page.evaluate("location.hash")


def test_a_g_shows_its_stack_why_it_waits_and_its_job(seen: Seen, client: Client) -> None:
    job = client.submit(parked, 3)
    seen.open("/gs?function=receive")
    seen.sees("tbody tr", "It waits for a value from a channel.")
    seen.key("j", "Enter")
    assert "jobs_page.py" in seen.sees(".stack", "receive").inner_text()
    seen.sees(".why[data-code=receive]", "for a value from a channel")
    seen.page.get_by_role("link", name=job.job_id).focus()
    seen.key("Enter")
    seen.sees(".why[data-code=children]", "for 1 child: receive (chan receive)")
    seen.key("Escape")
    seen.sees(".stack", "receive")
    seen.open("/gs?function=parked")
    seen.sees("tbody tr", "G wait")
    seen.key("j", "Enter")
    seen.sees(".why[data-code=g]", "for the end of G")
    seen.sees(".g-story .step", "ran, then waited: G wait")
    job.cancel()
    seen.sees(".gone", "it has ended")
    assert "parked" in seen.page.locator(".stack").inner_text()
    assert len(seen.gone) == 1  # the page asks no more


def test_a_worker_that_does_not_answer_is_named(seen: Seen, client: Client, daemon: Daemon) -> None:
    go = daemon.directory / "go"
    job = client.submit(hold, str(go))
    try:
        p = wait_until(lambda: holder(client), "a P that is held")
        seen.open(f"/gs/{p - 1}.1")
        seen.sees(".why[data-code=deaf_p]", "has been running tests.jobs_page:hold")
        seen.open("/gs")
        seen.sees(".note", f"P{p - 1} did not answer in time")
    finally:
        go.touch()
    job.result(60)
    go.unlink()


def holder(client: Client) -> int:
    """One more than the P that runs ``hold``; 0 for none."""
    ps = client.call("status")["ps"]
    return next((p["p"] + 1 for p in ps if p["running"] == "tests.jobs_page:hold"), 0)


def test_a_job_is_cancelled_by_keys(seen: Seen, client: Client) -> None:
    job = client.submit(parked, 1)
    wait_until(job.running, "it runs")
    seen.open(f"/jobs/{job.job_id}")
    seen.sees("button", "Cancel").focus()
    seen.key("Enter")
    seen.sees("button", "sure?")
    seen.key(" ")
    assert wait_until(job.cancelled, "it is cancelled")
    seen.sees(".gone", "does not know this job")
    assert len(seen.gone) == 1  # the page asks no more


@contextmanager
def queue(client: Client, daemon: Daemon, n: int) -> Iterator[None]:
    """Jobs that block: one runs on each P, and the others wait."""
    go = daemon.directory / "go"
    jobs = [client.submit(block, str(go)) for _ in range(n)]
    try:
        yield
    finally:
        go.touch()
        for job in jobs:
            job.result(60)
        go.unlink()


VIEWS = (
    "/", "/jobs", "/functions", "/failures", "/gs", "/clients", "/warnings", "/config", "/gs/P.G",
    "/jobs/ID",
)  # fmt: skip


def test_keys_reach_all_that_a_mouse_reaches(
    seen: Seen, client: Client, daemon: Daemon, failed: str
) -> None:
    waiting = client.submit(parked, 2)
    with queue(client, daemon, 8):
        rows = wait_until(lambda: gs(client), "Gs that wait")
        for view in VIEWS:
            open_view(seen, view.replace("P.G", rows).replace("ID", failed))
            seen.page.evaluate(NOTE_CLICKS)
            tags = walk(seen)
            assert {"A", "BUTTON"} <= set(tags), view
            unreached = seen.page.evaluate(UNREACHED)
            assert not unreached, (view, unreached)
            seen.page.reload()  # without what notes clicks
    waiting.cancel()


def gs(client: Client) -> str:
    """``P.id`` of a G that waits."""
    for answer in client.call("gs", limit=100)["ps"]:
        for row in answer.get("rows", ()):
            if "receive" in row["function"]:
                return f"{answer['p']}.{row['id']}"
    return ""


def open_view(seen: Seen, view: str) -> None:
    """As it is when it shows something, and paused: it keeps still."""
    seen.open(view)
    if view == "/":
        seen.sees(".queue .squares a.g, .p-card .squares a.g")
        seen.key(" ")
    else:
        seen.sees("tbody tr[tabindex], .why, td.none")
        seen.page.goto(f"{seen.url}/#{view}?paused=1")
    seen.sees("button[aria-pressed=true]", "Continue")


def walk(seen: Seen) -> list[str]:
    """Press Tab until the walk is round; at each stop, Enter or space clicks."""
    tags: list[str] = []
    seen.page.evaluate("document.querySelector('.skip').focus()")
    seen.page.evaluate(FOCUSED)
    for _ in range(400):
        seen.key("Tab")
        stop = seen.page.evaluate(FOCUSED)
        if stop is None or stop["again"]:
            return tags
        tags.append(stop["tag"])
        assert stop["shown"] or stop["tag"] == "MAIN", f"no focus is seen on {stop['html']}"
        if stop["tag"] in ("A", "BUTTON"):
            for key in ("Enter", " ") if stop["tag"] == "BUTTON" else ("Enter",):
                seen.page.evaluate("window.clicked.length = 0")
                seen.key(key)
                assert seen.page.evaluate("window.clicked.includes(document.activeElement)"), stop
    raise AssertionError("the walk is not round")


def test_arrows_go_through_the_squares_of_a_queue(
    seen: Seen, client: Client, daemon: Daemon
) -> None:
    with queue(client, daemon, 12):
        seen.open("/")
        squares = seen.page.locator(".squares:has(a.g:nth-of-type(3):not([hidden]))").first
        squares.locator("a.g").nth(2).wait_for()
        assert squares.locator("a.g[tabindex='0']").count() == 1
        squares.locator("a.g[tabindex='0']").focus()
        seen.key("ArrowRight", "ArrowRight")
        assert (
            seen.page.evaluate(
                "[...document.activeElement.parentElement.children].indexOf(document.activeElement)"
            )
            == 2
        )
        seen.key("Home", "Enter")
        seen.page.wait_for_url("**/#/jobs?function=tests.jobs_page%3Ablock")
        seen.sees("tbody tr", "block")


def test_the_focus_stays_where_it_is_while_a_table_is_looked_at_again(
    seen: Seen, client: Client
) -> None:
    job = client.submit(parked, 5)
    seen.open("/gs?function=receive")
    seen.sees("tbody tr", "receive")
    seen.page.evaluate("window.looks = 0")
    seen.page.on(
        "response", lambda told: "/gs?" in told.url and seen.page.evaluate("window.looks++")
    )
    for selector in ("tbody tr:nth-child(3) a.open", ".chip:nth-child(2)", "th:nth-child(2) a"):
        seen.page.locator(selector).focus()
        place = seen.page.evaluate("document.activeElement.outerHTML")
        with seen.page.expect_response("**/gs?**"), seen.page.expect_response("**/gs?**"):
            pass
        assert seen.page.evaluate("document.activeElement.outerHTML") == place
    job.cancel()


def test_100_000_gs_do_not_freeze_it(seen: Seen, client: Client) -> None:
    """Bounds of CPU time, as a busy machine makes frames late by itself: some 8 % of a core are
    usual, and half a core would be felt."""
    jobs = [client.submit(parked, GS // 2) for _ in range(2)]
    wait_until(lambda: gs_of(client) >= GS, "all wait", timeout=60)
    page = Page(seen.page)
    for view in ("/", "/gs?state=waiting"):
        found = page.measure(seen.url, view, 2.0)
        assert found["frames"] > 1, view
        assert found["cpu_percent"] < 50, (view, found)
        assert found["elements"] < 5000, (view, found)
    # Those that were stolen are counted by their home, too.
    seen.sees(".note", re.compile(r"of 10\dk looked at"))
    seen.sees("tbody tr", "receive")
    seen.key("j", "Enter")
    seen.sees(".stack", "receive")
    for job in jobs:
        job.cancel()
    wait_until(lambda: gs_of(client) == 0, "all have ended", timeout=60)
