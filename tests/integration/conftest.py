"""Fixtures of the tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.leaks import nothing_left
from tests.rawclient import Boot, RawClient, RawDaemon

__all__ = ["nothing_left"]


@pytest.fixture
def boot(short_tmp: Path) -> Iterator[Boot]:
    """Start a daemon and a client of it; both end with the test."""
    started: list[Any] = []

    def start(**config: Any) -> tuple[RawDaemon, RawClient]:
        daemon = RawDaemon(short_tmp, **config)
        started.append(daemon.end)
        client = RawClient(daemon.endpoint)
        started.append(client.close)
        return daemon, client

    yield start
    for end in reversed(started):
        end()


@pytest.fixture
def record(short_tmp: Path) -> str:
    """The path of a file in which jobs of a test note what they do."""
    return str(short_tmp / "record")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of one module: asyncio.run does not work beside it."""
    from tests.page_browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def seen(daemon: Any, browser: Any) -> Iterator[Any]:
    """A page of the module's own ``daemon``."""
    from tests.page_browser import Seen, seen_page

    with seen_page(browser, daemon.url, Seen) as page:
        yield page
