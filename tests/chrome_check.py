"""A validator of traces: the rules of Perfetto's importer of Chrome's JSON. Where it finds fault,
Perfetto drops an event and counts an error (``tests/integration/test_perfetto.py``)."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from typing import Any

Json = dict[str, Any]
Track = tuple[int, int]
Spans = dict[Track, list[tuple[float, float]]]

#: Perfetto reads pid and tid as numbers of 32 bits.
_ID_MAX = 1 << 32
#: Nanoseconds as fractions of microseconds: a sum of two may be this much off.
_ROUNDED = 1e-3


def check(events: list[Json], *, procs: int = 1) -> None:
    """Every track has one name; a thread belongs to one process; slices of a track do not overlap;
    arrows lead from one slice to the start of a later one; states nest, each ends as it began;
    counters have the same series throughout."""
    names = _names(events)
    slices: Spans = defaultdict(list)
    arrows: dict[tuple[str, int], list[Json]] = defaultdict(list)
    states: dict[tuple[str, str], list[Json]] = defaultdict(list)
    series: dict[tuple[int, str], set[str]] = {}
    for event in (event for event in events if event["ph"] != "M"):
        track = event["pid"], event["tid"]
        assert math.isfinite(event["ts"])
        assert event["ts"] >= 0
        assert event["name"]
        match event["ph"]:
            case "X":
                assert track in names
                assert event["dur"] >= 0
                slices[track].append((event["ts"], event["ts"] + event["dur"]))
            case "i":
                assert track in names
                assert event["s"] in "tpg"
            case "s" | "t" | "f":
                arrows[event["cat"], event["id"]].append(event)
            case "b" | "e":
                states[event["cat"], event["id"]].append(event)
            case "C":
                assert all(type(n) is int and n >= 0 for n in event["args"].values())
                assert event["args"].get("running", 0) <= procs
                known = series.setdefault((event["pid"], event["name"]), set(event["args"]))
                assert known == set(event["args"])
            case unknown:
                raise AssertionError(unknown)
    for spans in slices.values():
        spans.sort()
        assert all(end <= start + _ROUNDED for (_, end), (start, _) in itertools.pairwise(spans))
    for each in states.values():
        _check_states(each)
    for arrow in arrows.values():
        _check_arrow(arrow, slices)


def _names(events: list[Json]) -> dict[Track, str]:
    """The name of each track and, as thread 0, of each process."""
    names: dict[Track, str] = {}
    processes: dict[int, int] = {}
    json.dumps(events, allow_nan=False)
    for event in events:
        pid, tid = event["pid"], event["tid"]
        assert 0 <= pid < _ID_MAX
        assert 0 <= tid < _ID_MAX
        if tid:
            assert processes.setdefault(tid, pid) == pid
        if event["ph"] != "M":
            continue
        match event["name"]:
            case "process_name" | "thread_name":
                assert (pid, tid) not in names
                assert (event["name"] == "process_name") == (tid == 0)
                names[pid, tid] = event["args"]["name"]
                assert names[pid, tid]
            case "process_sort_index" | "thread_sort_index":
                assert type(event["args"]["sort_index"]) is int
            case unknown:
                raise AssertionError(unknown)
    assert {event["pid"] for event in events} <= {pid for pid, _ in names}
    return names


def _check_states(events: list[Json]) -> None:
    """In the order in which an importer takes them: by time, those of one time as in the file."""
    stack: list[str] = []
    for event in sorted(events, key=lambda each: each["ts"]):
        if event["ph"] == "b":
            stack.append(event["name"])
        else:
            assert stack.pop() == event["name"]
    assert not stack


def _check_arrow(arrow: list[Json], slices: Spans) -> None:
    phases = Counter(event["ph"] for event in arrow)
    assert arrow[0]["ph"] == "s"
    assert phases["s"] == 1
    assert phases["f"] <= 1
    assert len({event["name"] for event in arrow}) == 1
    assert all(one["ts"] <= other["ts"] for one, other in itertools.pairwise(arrow))
    for event in arrow:
        spans = slices[event["pid"], event["tid"]]
        assert any(start <= event["ts"] <= end for start, end in spans), event
        if event["ph"] == "f":
            assert event["bp"] == "e"  # else it binds to the next slice, not to this one
            assert any(start == event["ts"] for start, _ in spans), event
