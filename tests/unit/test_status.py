"""One declaration of the status of a daemon: wire, metrics and documentation agree with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from gmpd.daemon.snapshot import p_status
from gmpd.errors import ProtocolError
from gmpd.gateway.metrics import METRICS
from gmpd.runtime.stats import COUNTERS
from gmpd.sched.events import WorkerReady
from gmpd.sched.records import Policy
from gmpd.sched.schedt import Sched
from gmpd.status import PStatus, Status, read, read_p

ROOT = Path(__file__).parents[2]
#: They print the answer as it came with --json, and read it otherwise.
RAW = {"status.py", "demo.py"}
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
def test_no_part_leaves_a_field_out(kind: type[msgspec.Struct]) -> None:
    """A reader that knows this version finds each of them, whatever the worker does."""
    for name, hint in get_type_hints(kind).items():
        assert msgspec.UnsetType not in get_args(hint), name


class Workerless:
    """A daemon as far as the row of a P is made of it; no worker has started."""

    def __init__(self) -> None:
        self.sched = Sched(Policy())
        self.pool = SimpleNamespace(restart_counts={}, wanted=set(), past_cpu_s={}, past_stats={})
        self.supervisor = SimpleNamespace(processes={})

    def row(self, p: int) -> dict[str, Any]:
        daemon: Any = self
        found: dict[str, Any] = msgspec.to_builtins(p_status(daemon, p, 10**9))
        return found


def test_the_row_of_a_p_has_all_its_fields_whatever_its_worker_does() -> None:
    """Before it starts, when it has only said Hello, after it has died."""
    daemon = Workerless()
    rows = [daemon.row(0)]
    daemon.sched.handle(WorkerReady(0, 1), 1)
    rows.append(daemon.row(0))
    daemon.pool.past_stats[0] = {"schedtick": 7, "picks": dict(rows[0]["picks"], local=7)}
    daemon.pool.past_cpu_s[0] = 1.5
    rows.append(daemon.row(0))
    for row in rows:
        assert row.keys() == set(names(PStatus))
        assert (row["pid"], row["withheld"], row["fresh"]) == (None, 0, 0)
        groups = {name.partition(".")[::2] for name in COUNTERS if "." in name}
        missing = {(g, k) for g, k in groups if g not in ("ns", "gs") and k not in row[g]}
        assert not missing
        assert set(row["gs"].values()) == {0}
        assert set(row["state_s"].values()) == {0.0}
    assert (rows[2]["schedtick"], rows[2]["picks"]["local"], rows[2]["cpu_s"]) == (7, 7, 1.5)


@pytest.mark.parametrize("kind", sorted(set(structs(Status)), key=str))
def test_every_part_says_what_it_is(kind: type[msgspec.Struct]) -> None:
    assert kind.__doc__


def test_the_architecture_describes_every_key() -> None:
    text = (ROOT / "gmpd/ARCHITECTURE.md").read_text().partition("\n## The snapshot\n")[2]
    described = set(re.findall(r"`(\w+)`", text.partition("\n## ")[0]))
    assert not set(names(Status)) - described


def test_a_status_of_another_version_is_read_as_far_as_it_goes() -> None:
    assert read({}) == Status()
    seen = read({**SEEN, "new_in_a_later_version": {"a": 1}})
    assert (seen.queue.in_queue, seen.message_bytes.received) == (
        SEEN["queue"]["global"], SEEN["message_bytes"]["in"],
    )  # fmt: skip
    assert seen.ps[0].running == SEEN["ps"][0].get("running")
    assert read_p({"p": 7}).fresh == 0


@pytest.mark.parametrize("answer", [None, [], {"pid": "7"}, {"ps": [{"p": None}]}, {"queue": 1}])
def test_what_is_no_status_is_refused_with_the_field(answer: Any) -> None:
    with pytest.raises(ProtocolError, match="status is none that this version reads"):
        read(answer)


def test_commands_read_the_declared_status() -> None:
    """A map's key would be checked by nothing."""
    for path in (ROOT / "gmpd/cli").rglob("*.py"):
        text = path.read_text()
        asked = text.count('call("status"')
        assert text.count('read(client.call("status"') == asked or path.name in RAW, path
