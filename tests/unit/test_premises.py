"""The place where a daemon lives: what is put back, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmpd import rundir
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.premises import Premises


class FakeLock:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_held = True

    def take_again(self) -> None:
        self.is_held = True


def premises(directory: Path, ready: list[bool]) -> tuple[Premises, FakeLock]:
    lock: Any = FakeLock(directory)

    def publish() -> bool:
        if ready[0]:
            (directory / rundir.DISCOVERY).touch()
        return ready[0]

    return Premises(lock, (), publish, pytest.fail, Deadlines()), lock


def test_a_daemon_that_starts_has_lost_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its record is not there yet, for its workers are not: that is no news."""
    ready = [False]
    place, lock = premises(tmp_path, ready)
    assert place.look() == ""
    assert not caplog.records
    lock.is_held = False
    place.look()
    assert "restored files" in caplog.text, "its lock was removed"
    caplog.clear()
    ready[0] = True
    place.look()
    place.look()
    assert len(caplog.records) == 1
