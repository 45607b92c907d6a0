"""A validator of traces: what Perfetto's importer needs of Chrome's JSON."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

Json = dict[str, Any]
Track = tuple[int, int]


def check(events: list[Json], *, procs: int = 1) -> None:
    """Slices of a track do not overlap, arrows lead from one slice to the start of a later one,
    states nest, and every track has a name."""
    slices: dict[Track, list[tuple[float, float]]] = defaultdict(list)
    arrows: dict[int, list[Json]] = defaultdict(list)
    depth: Counter[str] = Counter()
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M"}
    titled = {pid for pid, _ in named}
    for event in events:
        if event["ph"] == "M":
            continue
        assert event["pid"] in titled
        assert event["ts"] >= 0
        track = event["pid"], event["tid"]
        match event["ph"]:
            case "X":
                assert track in named
                assert event["dur"] >= 0
                slices[track].append((event["ts"], event["ts"] + event["dur"]))
            case "i":
                assert track in named
            case "s" | "t" | "f":
                arrows[event["id"]].append(event)
            case "b":
                depth[event["id"]] += 1
            case "e":
                depth[event["id"]] -= 1
                assert depth[event["id"]] >= 0
            case "C":
                assert all(isinstance(n, int) and n >= 0 for n in event["args"].values())
                assert event["args"].get("running", 0) <= procs
            case unknown:
                raise AssertionError(unknown)
    assert not +depth
    for spans in slices.values():
        spans.sort()
        assert all(end <= start + 1e-3 for (_, end), (start, _) in itertools.pairwise(spans))
    for arrow in arrows.values():
        _check_arrow(arrow, slices)


def _check_arrow(arrow: list[Json], slices: dict[Track, list[tuple[float, float]]]) -> None:
    assert arrow[0]["ph"] == "s"
    assert [e["ph"] for e in arrow].count("s") == 1
    assert [e["ph"] for e in arrow].count("f") <= 1
    assert all(one["ts"] <= other["ts"] for one, other in itertools.pairwise(arrow))
    for event in arrow:
        spans = slices[event["pid"], event["tid"]]
        assert any(start <= event["ts"] <= end for start, end in spans), event
        if event["ph"] == "f":
            assert any(start == event["ts"] for start, _ in spans), event
