"""Statistics of workers that only rise: those of a dead one are added to its successor's."""

from __future__ import annotations

from typing import Any

#: Keys of a worker's stats that only rise; the others are current values.
_TOTALS = frozenset({
    "schedtick", "picks", "handoffs", "max_ms_waits", "overruns", "overflows", "gs_created",
    "finished", "children", "state_s", "gc", "hist",
})  # fmt: skip


def merge_totals(past: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """``current``, with the rising values of ``past`` added."""
    out = dict(current)
    for key in _TOTALS & past.keys():
        out[key] = sum_of(past[key], current[key]) if key in current else past[key]
    return out


def sum_of(a: Any, b: Any) -> Any:
    """Numbers, and lists and maps of numbers, added place by place."""
    if isinstance(a, dict):
        return {
            k: sum_of(a[k], b[k]) if k in a and k in b else a.get(k, b.get(k)) for k in {**a, **b}
        }
    if isinstance(a, list):
        return [x + y for x, y in zip(a, b, strict=True)]
    return a + b
