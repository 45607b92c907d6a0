"""The peers' table: every adapter has every workload or a reason; how figures are summed up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtests.peers import plot, run, tables, tasks, workloads
from loadtests.peers.peer import NAMES, Peer, adapter, gives
from loadtests.peers.workloads import ALL, Bench, Workload

ADAPTERS = Path(run.__file__).parent / "adapters"


def test_every_peer_has_an_adapter() -> None:
    assert {path.stem.removeprefix("on_") for path in ADAPTERS.glob("on_*.py")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_has_every_workload_or_a_reason(name: str) -> None:
    peer = adapter(name)
    assert peer.title
    assert gives(peer, "start")
    assert gives(peer, "stop")
    for key, reason in peer.cannot.items():
        assert key in ALL, "a workload that is not there"
        assert len(reason) > 5
    for each in ALL.values():
        if each.key not in peer.cannot:
            assert all(gives(peer, need) for need in each.needs), (name, each.key)
    assert set(peer.notes) <= set(ALL) - set(peer.cannot)
    assert peer.modes <= set(run.MODES)
    assert not peer.version_of or any(each.startswith(peer.version_of) for each in peer.packages)


class Inline(Peer):
    """Jobs run where they are submitted."""

    title = "inline"

    def submit(self, fn: Callable[..., Any], arg: Any) -> Any:
        return fn(arg)

    def result(self, handle: Any, timeout: float) -> Any:
        return handle

    def map(self, fn: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
        return [fn(item) for item in items]


TIMELESS = ("noop", "mapped", "round_trip", "mixed", "behind", "skew", "skew_each", "metg", "bytes")


@pytest.mark.parametrize("key", TIMELESS)
def test_a_workload_has_a_figure(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "BLOCKING_S", 0.0001)
    monkeypatch.setattr(tasks, "MIXED_NAP_S", 0.0001)
    bench = Bench(Inline(2), "none", burn_per_s=20e6, scale=0.01)
    bench._rate = 100_000.0
    cell = ALL[key].run(bench)
    assert ("value" in cell and cell["value"] > 0 and cell["n"] > 0) or "no" in cell


def test_a_slow_peer_gets_fewer_jobs() -> None:
    class Slow(Inline):
        def submit(self, fn: Callable[..., Any], arg: Any) -> Any:
            time.sleep(0.0005)
            return fn(arg)

    bench = Bench(Slow(2), "none", burn_per_s=20e6, scale=0.02)
    cell = workloads.noop(bench)
    assert cell["n"] < 100
    assert cell["value"] < 2000


def test_jobs_that_raise_are_counted_by_their_errors() -> None:
    class Broken(Inline):
        def result(self, handle: Any, timeout: float) -> Any:
            if handle == 2:
                raise BrokenPipeError
            return handle

    found = Broken(2).outcomes(tasks.noop, [1, 2, 3], 5.0)
    assert found == {"done": 2, "BrokenPipeError": 1}


def test_uneven_jobs_are_as_long_as_they_are_to_be_and_none_is_most_of_it() -> None:
    sizes = workloads.uneven(1, 500, 1_000_000)
    assert sum(sizes) == pytest.approx(1_000_000, rel=0.01)
    assert max(sizes) <= 1_000_000 / 19


def test_the_cells_of_rounds_are_one_cell_of_the_table() -> None:
    cells = [{"value": 10.0, "n": 5}, {"value": 30.0, "n": 7}, {"value": 20.0, "n": 6}]
    assert run.summary(cells) == {"median": 20.0, "low": 10.0, "high": 30.0, "rounds": 3, "n": 6}
    some = run.summary([{"value": 1.0, "n": 1}, {"no": "Oops: in /usr/lib/x.py | y"}])
    assert some["failed"] == "1 of 2 rounds: Oops: in … / y"
    assert run.summary([{"no": "hung"}]) == {"no": "hung"}


def recorded() -> dict[str, Any]:
    peers = {
        name: {
            "title": adapter(name).title,
            "version": "1",
            "packages": {},
            "settings": "its own",
            "load": 0.5,
        }
        for name in ("gmpd", "ray")
    }

    def cell(median: float) -> dict[str, Any]:
        return {"median": median, "low": median, "high": median * 1.5, "rounds": 3, "n": 10}

    return {
        "machine": {"cpu": "c", "cores": 2, "python": "3", "kernel": "6", "load_before": 0.1},
        "date": "2026-01-01", "rounds": 3, "procs": 2, "quick": False, "seconds": 9,
        "load_after": 0.1, "redis": "7", "peers": peers,
        "cells": {
            "noop": {"gmpd": cell(100.0), "ray": {"no": "it cannot"}},
            "round_trip": {"gmpd": cell(400.0), "ray": cell(200.0)},
        },
    }  # fmt: skip


def test_the_best_is_bold_and_a_no_has_its_reason() -> None:
    text = "\n".join(tables.full(recorded()))
    assert "| gmpd 1 | **100** (±50 %) |" in text
    assert "| Ray 1 | no <sup>1</sup> |" in text
    assert "1. it cannot." in text
    assert "| Ray 1 | **200** (±50 %) |" in text
    brief = "\n".join(tables.brief(recorded()))
    assert "| Ray | no | no | **0.2** |" in brief


def test_a_second_record_keeps_what_it_did_not_measure() -> None:
    new = recorded()
    new["cells"] = {"noop": {"ray": {"no": "new"}}}
    new["peers"] = {"ray": new["peers"]["ray"]}
    found = run.merged(recorded() | {"quick": True}, new)
    assert found["quick"], "some of it is of a short run"
    assert list(found["peers"]) == ["gmpd", "ray"]
    assert found["cells"]["noop"]["ray"] == {"no": "new"}
    assert found["cells"]["round_trip"]["ray"]["median"] == 200.0


@pytest.mark.parametrize(
    ("more", "theirs", "expected"), [(True, 50.0, 0.5), (False, 50.0, 2.0), (False, 0.0, None)]
)
def test_twice_as_good_is_twice_the_rate_or_half_the_time(
    more: bool, theirs: float, expected: float | None
) -> None:
    row = Workload("k", "t", "u", lambda _: {}, "w", more_is_better=more)
    assert plot.times_as_good({"median": theirs}, {"median": 100.0}, row) == expected
    assert plot.times_as_good({"no": "x"}, {"median": 100.0}, row) is None
