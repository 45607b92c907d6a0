"""The figures of `loadtests/scale.py`: what is drawn and tabled is there."""

from __future__ import annotations

import json

import pytest

from loadtests import readme, scale_plot

RECORDED = json.loads(scale_plot.RESULTS.read_text())


@pytest.mark.parametrize("panel", scale_plot.PANELS, ids=lambda panel: f"{panel[0]}: {panel[1]}")
def test_a_panel_has_its_figures(panel: scale_plot.Panel) -> None:
    part, _, x, _, lines = panel
    rows = RECORDED[part]
    assert len(rows) >= 3
    assert [row[x] for row in rows] == sorted(row[x] for row in rows)
    assert all(row[key] >= 0 for row in rows for key in lines)


def test_the_table_has_every_row() -> None:
    lines = readme.scale(RECORDED)
    rows = sum(len(RECORDED[part]) for part in ("jobs", "workers", "clients", "gs", "payloads"))
    assert sum(line.startswith("|") for line in lines) == rows + 2 * 5
