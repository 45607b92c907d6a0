"""Each part of `loadtests/scale.py` with its smallest numbers, on real daemons."""

from __future__ import annotations

import pytest

from loadtests import scale

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ("jobs", "JOBS"),
        ("workers", "WORKERS"),
        ("gs", "GS"),
        ("clients", "CLIENTS"),
        ("payloads", "SIZES"),
    ],
)
def test_a_part_has_figures(part: str, numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, numbers, getattr(scale, numbers)[1:2])
    (row,) = scale.PARTS[part](0.02)
    assert all(value >= 0 for value in row.values())
    assert max(row.values()) > 0
