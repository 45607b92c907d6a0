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
