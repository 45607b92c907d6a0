"""The task stream of the live page in a real browser: what real jobs look like on its canvas."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import gmpd
from gmpd import Client
from tests.daemon_process import Daemon
from tests.jobs_page import spin
from tests.page_browser import PATIENT_MS, Seen, needs_chromium, page_daemon, seen_page
from tests.support import stop, wait_until

pytestmark = needs_chromium

#: Where the canvas has the colour of a function.
FIND_PIXELS = """async (name) => {
  const { colour } = await import("/page/dom.js");
  const light = getComputedStyle(document.documentElement).getPropertyValue("--fn-l").trim();
  const often = { willReadFrequently: true };
  const one = new OffscreenCanvas(1, 1).getContext("2d", often);
  one.fillStyle = colour(name).replace("var(--fn-l)", light);
  one.fillRect(0, 0, 1, 1);
  const wanted = one.getImageData(0, 0, 1, 1).data;
  const canvas = document.querySelector(".ts-canvas");
  const width = canvas.width;
  const copy = new OffscreenCanvas(width, canvas.height).getContext("2d", often);
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, canvas.height);
  const found = [];
  for (let i = 0; i < data.length; i += 4) {
    if ([0, 1, 2].every((k) => Math.abs(data[i + k] - wanted[k]) < 3)) {
      found.push([i / 4 % width, Math.floor(i / 4 / width)]);
    }
  }
  return found;
}"""


class Stream(Seen):
    """The page with its task stream in view."""

    def open(self, view: str = "/") -> None:
        super().open(view)
        self.is_seen()

    def is_seen(self) -> None:
        """Wait until the stream is in view and drawn."""
        self.page.wait_for_selector("body[data-link=live][data-seq]")
        self.page.locator(".task-stream").scroll_into_view_if_needed()
        self.page.wait_for_selector(".ts-canvas[data-bars]")

    def window_is(self, span: tuple[float, float], ago: tuple[float, float]) -> None:
        """Wait until the address has a window within these bounds, in seconds. The present goes on
        meanwhile: on a busy machine the window is longer ago when it is written."""
        bounds = {"span": span, "ago": ago}

        def holds(url: str) -> bool:
            shown = dict(parse_qsl(urlsplit(url).fragment.partition("?")[2]))
            return shown.keys() == bounds.keys() and all(
                least <= float(shown[name]) <= most for name, (least, most) in bounds.items()
            )

        self.page.wait_for_url(holds)

    def words(self) -> str:
        """The stream as it is told to those who cannot see it."""
        return str(self.page.locator(".ts-canvas").get_attribute("aria-label"))

    def pixels(self, name: str) -> list[tuple[int, int]]:
        """Where the canvas has the colour of this function."""
        found: list[tuple[int, int]] = self.page.evaluate(FIND_PIXELS, name)
        return found

    def tip_over(self, x: int, y: int) -> str:
        """Go to a place of the canvas, and wait for what it says there."""
        box = self.page.locator(".ts-canvas").bounding_box()
        self.page.mouse.move(box["x"] + x + 0.5, box["y"] + y + 0.5)
        tip = self.page.locator(".ts-tip:not([hidden])")
        tip.wait_for()
        return str(tip.inner_text())


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with page_daemon() as daemon:
        yield daemon


@pytest.fixture
def stream(daemon: Daemon, browser: Any) -> Iterator[Stream]:
    with seen_page(browser, daemon.url, Stream, width=1200) as page:
        yield page


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(str(daemon.directory), name="stream test") as client:
        yield client


def seen(fact: Callable[[], Any], what: str) -> None:
    wait_until(fact, what, timeout=PATIENT_MS / 1000)


def test_jobs_of_two_functions_have_two_colours_and_say_what_they_are(
    stream: Stream, client: Client
) -> None:
    job = client.enqueue(spin, 0.4)
    client.job(job).result(60)
    nap = client.submit(time.sleep, 0.7)
    nap.result(60)
    parked = client.submit(gmpd.sleep, 600)
    stream.open("/?span=20")
    seen(lambda: re.search(r"P0: .* P1: ", stream.words()), "there is a row for each P")
    seen(lambda: "1 have begun" in stream.words(), "the one that is parked is there")
    stream.page.keyboard.press(" ")  # the page is paused: what is shown stands still
    stream.page.wait_for_selector("button[aria-pressed=true]")
    assert len(stream.pixels("time:sleep")) > 5
    places = stream.pixels("tests.jobs_page:spin")
    assert len(places) > 50
    stream.page.wait_for_selector(".ts-fn >> text=spin")
    tip = stream.tip_over(*places[len(places) // 2])
    for text in ("tests.jobs_page:spin", "start", "wait", job, "click to open"):
        assert text in tip
    stream.page.mouse.down()
    stream.page.mouse.up()
    stream.page.wait_for_url(f"**/#/jobs/{job}")
    parked.cancel()


def test_the_window_is_in_the_address_and_keys_and_mouse_change_it(stream: Stream) -> None:
    stream.open()
    page, canvas = stream.page, stream.page.locator(".ts-canvas")
    canvas.focus()
    page.keyboard.press("+")
    page.wait_for_url("**/#/?span=18.75")
    page.keyboard.press("ArrowLeft")
    stream.window_is((18.75, 18.75), ago=(3.75, 30))
    page.keyboard.press("0")
    page.wait_for_url("**/#/")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 30, steps=4)
    page.mouse.up()
    stream.window_is((4, 7), ago=(10, 30))
    page.mouse.wheel(0, -200)
    stream.window_is((1, 4), ago=(10, 30))
    page.reload()
    stream.is_seen()
    seen(
        lambda: re.search(r"[1-3](\.\d)? s, [12]\d s ago", page.locator(".range").inner_text()),
        "range",
    )
    page.get_by_role("button", name="The last 30 seconds").click()
    page.wait_for_url("**/#/")


def test_a_hand_off_is_marked_and_a_stopped_worker_is_named(
    stream: Stream, client: Client, daemon: Daemon
) -> None:
    nap = client.submit(time.sleep, 0.3)
    stream.open()
    nap.result(60)
    seen(lambda: "hand-off" in stream.page.locator(".ts-counts").inner_text(), "it is counted")
    pid = json.loads(daemon.get("/api/v1/ps/1"))["p"]["pid"]
    stop(pid)
    try:
        seen(lambda: re.search(r"P1: .*no answer for", stream.words()), "it is named")
        asked = time.monotonic()
        seen(lambda: re.search(r"P0: \d+ jobs", stream.words()), "the other is shown")
        assert time.monotonic() - asked < PATIENT_MS / 1000
    finally:
        os.kill(pid, signal.SIGCONT)
    seen(lambda: re.search(r"P1: \d+ jobs", stream.words()), "it is back")


def test_a_finger_that_the_browser_took_to_scroll_is_not_one_of_a_pinch(
    stream: Stream,
) -> None:
    stream.open("/?span=4&ago=10")
    touch = stream.page.context.new_cdp_session(stream.page)
    box = stream.page.locator(".ts-canvas").bounding_box()

    def finger(kind: str, *xs: float) -> None:
        points = [{"x": box["x"] + x, "y": box["y"] + 20} for x in xs]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    finger("touchStart", 300)
    finger("touchCancel")
    finger("touchStart", 300)
    for x in (320, 400, 500):
        finger("touchMove", x)
    finger("touchEnd")
    # It pans: the span stays.
    stream.page.wait_for_url(re.compile(r"#/\?span=4&ago=1[01]\.\d+"))


def test_it_fits_a_narrow_screen_and_asks_only_while_it_is_seen(
    stream: Stream, client: Client
) -> None:
    asked: list[str] = []
    stream.page.on("request", lambda request: asked.append(request.url))
    stream.page.set_viewport_size({"width": 390, "height": 844})
    stream.page.goto(f"{stream.url}/#/gs")
    stream.page.wait_for_selector("body[data-link=live][data-seq]")
    assert not [url for url in asked if "/trace" in url]
    stream.open("/?paused=1")
    stream.page.wait_for_selector('.ts-canvas[data-looks="1"]')  # a paused page has one look
    assert stream.page.evaluate("document.documentElement.scrollWidth") <= 390
    client.submit(spin, 0.01).result(60)
    stream.page.keyboard.press(" ")
    stream.page.wait_for_selector("button[aria-pressed=false]")
    stream.page.wait_for_selector('.ts-canvas[data-looks="4"]')
    assert len([url for url in asked if "/trace" in url]) >= 3
