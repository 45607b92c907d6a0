"""The mark of a daemon whose durable jobs may run on hosts (gmpd.daemon.host_mark)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmpd.daemon.host_mark import EXIT_S, NAME, clear_mark, set_mark, wait_after


def test_a_mark_says_how_long_the_next_daemon_waits(tmp_path: Path) -> None:
    assert wait_after(tmp_path, 10.0) == 0.0
    set_mark(tmp_path, 3.0)
    set_mark(tmp_path, 2.5)
    assert wait_after(tmp_path, 10.0) == 2.5 + EXIT_S
    clear_mark(tmp_path)
    clear_mark(tmp_path)
    assert wait_after(tmp_path, 10.0) == 0.0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "soon", "\xff"])
def test_a_mark_that_cannot_be_read_counts_as_the_lease_that_is_configured(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / NAME).write_bytes(text.encode("latin-1"))
    assert wait_after(tmp_path, 10.0) == 10.0 + EXIT_S


@pytest.mark.parametrize("text", ["nan", "inf", "-5", "1e9"])
def test_a_mark_with_a_number_that_is_no_lease(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert wait_after(tmp_path, 10.0) == 10.0 + EXIT_S
