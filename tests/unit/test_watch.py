"""The watch over what tests leave behind sees what it must: or its silence would mean nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests import conftest, leaks
from tests.support import wait_until


def test_a_descriptor_is_seen_while_it_is_open() -> None:
    before = leaks.descriptors()
    reading, writing = os.pipe()
    assert {fd for fd, _ in leaks.descriptors() - before} == {reading, writing}
    os.close(reading)
    os.close(writing)
    assert leaks.descriptors() == before


def test_the_files_of_a_daemon_are_seen(tmp_path: Path, short_tmp: Path) -> None:
    (tmp_path / "gmpd.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    assert conftest._daemon_files(tmp_path) == ["gmpd.json"]
    path = short_tmp / "worker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert conftest._daemon_files(short_tmp) == ["worker.sock"]
    path.unlink()


def test_waiting_for_a_fact_ends_with_a_sentence() -> None:
    with pytest.raises(AssertionError, match=r"after 0.01 s still not so: pigs fly \(last: 0\)"):
        wait_until(lambda: 0, "pigs fly", timeout=0.01)
    assert wait_until(lambda: 7, "seven") == 7
