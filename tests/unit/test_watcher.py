"""When the watcher looks for hosts (gmpd.cluster.watcher)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gmpd.cluster.port import Host
from gmpd.cluster.watcher import AGAIN_S, LOOK_S, Watcher


class Plain:
    """An engine with one host."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.waited: list[float] = []

    def hosts(self) -> list[Host]:
        return [Host("north", 2)]

    def close(self) -> None: ...


class Telling(Plain):
    """It knows when a host comes."""

    def await_change(self, timeout_s: float) -> None:
        self.waited.append(timeout_s)


def watching(engine: type[Plain]) -> tuple[Watcher, list[str]]:
    lines: list[str] = []
    settings = {"engine": f"{__name__}:{engine.__name__}", "engine_settings": {}}
    return Watcher(settings, lines.append), lines


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seen: list[float] = []
    monkeypatch.setattr("gmpd.cluster.watcher.time.sleep", seen.append)
    return seen


def test_an_engine_that_tells_of_hosts_is_waited_for(slept: list[float]) -> None:
    watcher, lines = watching(Telling)
    watcher.await_news(watcher.look())
    assert [json.loads(line) for line in lines] == [{"hosts": [["north", 2, False]]}]
    engine: Any = watcher._engine
    assert (engine.waited, slept) == ([LOOK_S], [])


def test_any_other_engine_is_asked_again_after_a_while(slept: list[float]) -> None:
    watcher, lines = watching(Plain)
    for _ in range(2):
        watcher.await_news(watcher.look())
    assert len(lines) == 1, "nothing has changed"
    assert slept == [LOOK_S] * 2


def test_an_engine_that_cannot_be_reached_is_not_waited_for(slept: list[float]) -> None:
    watcher, lines = watching(Telling)
    watcher._settings = {"engine": "no:Engine", "engine_settings": {}}
    watcher.await_news(watcher.look())
    assert "is no engine" in lines[0]
    assert slept == [AGAIN_S]
