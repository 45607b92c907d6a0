"""Which Pythons gmpd runs on: what it says of others, and where it says so."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd import pythons
from gmpd.cli import app, doctor
from gmpd.errors import UnsupportedPython
from gmpd.findings import Level
from gmpd.runtime import internals
from gmpd.runtime.loop import Loop

TOP = Path(__file__).parents[2]


async def nothing() -> None:
    pass


def start_run() -> None:
    coro = nothing()
    try:
        gmpd.run(coro)
    finally:
        coro.close()


STARTS: dict[str, Callable[[], Any]] = {
    "run": start_run,
    "new_event_loop": gmpd.new_event_loop,
    "Loop": Loop,
    "Client": gmpd.Client,
    "AsyncClient": gmpd.AsyncClient,
    "Executor": gmpd.Executor,
}


@pytest.fixture
def no_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pythons, "NEWEST", (3, 10))
    monkeypatch.setattr(pythons, "_told", False)


@pytest.mark.usefixtures("no_gil")
@pytest.mark.parametrize("start", STARTS)
def test_nothing_starts_without_the_gil(start: str) -> None:
    with pytest.raises(UnsupportedPython, match=r"needs the GIL.* PYTHON_GIL=1 .*-X gil=1$"):
        STARTS[start]()


@pytest.mark.usefixtures("newer")
def test_a_newer_python_is_told_of_once_and_used(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        gmpd.run(nothing())
        gmpd.new_event_loop().close()
        gmpd.Client  # noqa: B018 - only looked up
    (told,) = [r.message for r in caplog.records]
    assert f"Python {pythons.running()} is newer than 3.10" in told


@pytest.mark.usefixtures("no_gil")
def test_doctor_tells_that_the_gil_is_off() -> None:
    (found,) = [f for f in doctor.examine(app.App()) if f.about == "python"]
    assert found.level is Level.BAD
    assert "PYTHON_GIL=1" in found.fix


@pytest.mark.usefixtures("newer")
def test_doctor_tells_that_this_python_is_untried() -> None:
    (found,) = [f for f in doctor.examine(app.App()) if f.about == "python"]
    assert found.level is Level.WARN


def test_doctor_tells_what_this_python_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, internals.__name__)
    monkeypatch.delattr(sys.modules["asyncio"], "_register_task")
    found = [f for f in doctor.examine(app.App()) if f.about == "python"]
    assert found[-1].level is Level.BAD
    assert "has no asyncio._register_task" in found[-1].what


def test_the_versions_are_the_same_wherever_they_stand() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    minors = [
        int(found[1])
        for line in project["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line))
    ]
    assert minors == list(range(pythons.OLDEST[1], pythons.NEWEST[1] + 1))
    assert project["requires-python"] == f">=3.{minors[0]}"
    assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in (TOP / "README.md").read_text()
    ci = (TOP / ".ci" / "run").read_text()
    assert [m for m in minors if not re.search(rf"^OLDEST=.*\b3\.{m}\b", ci, re.MULTILINE)] == []
