"""The live page in a real Chromium, as tests open it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.daemon_process import Daemon

sync_api = pytest.importorskip("playwright.sync_api", reason="it is in the extra dev")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium (Debian: chromium)"
)
#: A browser on a busy machine.
PATIENT_MS = 60_000


#: Its details ask once more, and the browser writes down that it is gone.
ENDED_MEANWHILE = re.compile(r"/api/v1/(jobs|ps/\d+/gs)/[^/]+$")


class Seen:
    """The page, and what its console said; apart, the jobs and Gs that it was told are gone."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.said: list[str] = []
        self.gone: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def _hear(self, said: Any) -> None:
        asked = said.location["url"].partition("?")[0]
        if " 404 " in said.text and ENDED_MEANWHILE.search(asked):
            self.gone.append(asked)
        else:
            self.said.append(f"{said.type}: {said.text}")

    def open(self, view: str = "/") -> None:
        """A view, as it is when it has heard of the daemon."""
        self.page.goto(f"{self.url}/#{view}")
        self.page.wait_for_selector("body[data-link=live][data-seq]")

    def sees(self, selector: str, text: str | re.Pattern[str] = "") -> Any:
        """The first element that has the text, once there is one."""
        found = self.page.locator(selector).filter(has_text=text).first
        try:
            found.wait_for()
        except sync_api.Error as error:
            error.add_note(f"the page: {self.page.url}\n{self.page.inner_text('body')[:2000]}")
            raise
        return found

    def key(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for each in keys:
            self.page.keyboard.press(each)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. The test is skipped if there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium (Debian: chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
            timeout=PATIENT_MS,
        )
        yield browser
        browser.close()


Page = TypeVar("Page", bound=Seen)


@contextmanager
def seen_page(browser: Any, url: str, kind: type[Page], *, width: int = 1440) -> Iterator[Page]:
    """A page whose console has said nothing at the end."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(PATIENT_MS)
    page = kind(context.new_page(), url)
    yield page
    context.close()
    assert not page.said, page.said


@contextmanager
def page_daemon(**env: str) -> Iterator[Daemon]:
    """A daemon with a gateway, that imports ``tests.jobs_page``."""
    place = Path(tempfile.mkdtemp(prefix="gmpd-", dir="/tmp"))
    daemon = Daemon(place, GMPD_DAEMON__IMPORTS="tests.jobs_page", **env).wait_ready()
    yield daemon
    daemon.close()
    shutil.rmtree(place)
