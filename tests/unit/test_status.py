"""One declaration of the status of a daemon: wire, metrics and documentation agree with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from gmpd.gateway.metrics import METRICS
from gmpd.runtime.stats import COUNTERS
from gmpd.status import PStatus, Status

ROOT = Path(__file__).parents[2]
SEEN = json.loads((ROOT / "tests/data/snapshot.json").read_text())


def structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """``kind`` and all that its fields hold."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        for hint in get_type_hints(kind).values():
            yield from structs(hint)
    for inner in get_args(kind):
        yield from structs(inner)


def names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(each.encode_name for each in msgspec.structs.fields(kind))


def paths_of(read: Any) -> Iterator[str]:
    """The paths that a reader of metrics was made for."""
    for cell in getattr(read, "__closure__", None) or ():
        if isinstance(cell.cell_contents, str):
            yield cell.cell_contents


def test_what_the_metrics_are_tested_with_is_a_status() -> None:
    whole = {"children": 0, "degraded": "", "stalled": "", **SEEN}
    status = msgspec.convert(whole, Status)
    assert msgspec.to_builtins(status).keys() == set(names(Status))
    unknown = {key for each in SEEN["ps"] for key in each} - set(names(PStatus))
    assert not unknown


def test_every_metric_is_read_from_a_declared_field() -> None:
    declared = {name for kind in structs(Status) for name in names(kind)} | {"gateway", "build"}
    asked = {
        path.partition(".")[0]
        for metric in METRICS
        for read in (metric.read, metric.buckets)
        for path in paths_of(read)
    }
    assert asked  # the readers are closures over their paths
    histograms = set(SEEN["hist"])
    assert not asked - declared - histograms


def test_every_counter_of_a_worker_is_declared() -> None:
    assert {name.partition(".")[0] for name in COUNTERS} - {"ns"} <= set(names(PStatus))


@pytest.mark.parametrize("kind", sorted(set(structs(Status)), key=str))
def test_every_part_says_what_it_is(kind: type[msgspec.Struct]) -> None:
    assert kind.__doc__


def test_the_architecture_describes_every_key() -> None:
    text = (ROOT / "gmpd/ARCHITECTURE.md").read_text().partition("\n## The snapshot\n")[2]
    described = set(re.findall(r"`(\w+)`", text.partition("\n## ")[0]))
    assert not set(names(Status)) - described
