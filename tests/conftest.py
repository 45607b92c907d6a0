"""Rules for every test: markers by directory, short places for sockets, and nothing left behind."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import functools
import gc
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import trees
from tests.leaks import BADGE

HERE = Path(__file__).parent

#: Cheapest first, so that a run fails as early as it can.
ORDER = ("unit", "sim", "conformance", "integration")

UNIT_TIMEOUT_S = 40  # a busy machine gives a test a twentieth of a core

#: The deep one is a command: HYPOTHESIS_PROFILE=hunt python -m pytest tests/unit
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("hunt", deadline=None, max_examples=5_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# While tests are collected almost everything that is made stays: looking for what does not was a
# quarter of the time.
gc.disable()


def pytest_configure() -> None:
    os.environ[BADGE] = f"{os.getpid()}.{time.time_ns()}"
    # A shell starts what it puts into the background so, and nohup does: commands under test would
    # inherit it, and neither Ctrl-C, Ctrl-\ nor a hangup would end them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # No test finds a daemon that happens to run on this machine: there is none in this place.
    os.environ["GMPD_RUNTIME_DIR"] = f"/tmp/gmpd-tests-{os.getpid()}/none"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = _directory(item.path)
        item.add_marker(kind)
        if kind == "unit" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(UNIT_TIMEOUT_S))
    items.sort(key=lambda item: (ORDER.index(_directory(item.path)), _place(item)))


def _place(item: pytest.Item) -> int:
    """Among the tests of its directory: last beside the syntax trees, which are half a million
    objects."""
    return int(_reads_sources(item))


def _reads_sources(item: pytest.Item) -> bool:
    return hasattr(getattr(item, "module", None), trees.nodes_of.__name__)


def pytest_collection_finish() -> None:
    """Thousands of tests and all that they import live to the end: a pass of the collector over
    them takes longer than most tests, and several passes belong to each test with processes. Cycles
    that collection left are kept, too: to find them takes such a pass."""
    gc.enable()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Freeze the objects that the tests of one file leave alive (modules, reports, caches): they
    live to the end, too, and the passes of later tests need not look at them again."""
    told = yield
    if nextitem is None or (nextitem.path != item.path and not _reads_sources(nextitem)):
        trees.forget()
        gc.collect()
        gc.freeze()
    return told


@functools.cache
def _directory(path: Path) -> str:
    directory = path.relative_to(HERE).parts[0]
    if directory not in ORDER:
        raise pytest.UsageError(f"{path} lies in none of tests/{{{','.join(ORDER)}}}")
    return directory


# ------------------------------------------------------------------------------- nothing is left


@pytest.fixture
def short_tmp(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory whose path leaves room for socket names: libzmq takes 107 bytes in all.

    Sockets, lock and discovery file of a daemon must be gone in the end, except in a test that is
    marked `kills_daemon`.
    """
    path = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
    try:
        yield path
        left = _daemon_files(path)
    finally:
        shutil.rmtree(path)
    if left and request.node.get_closest_marker("kills_daemon") is None:
        pytest.fail(f"a daemon left files behind: {', '.join(left)}", pytrace=False)


def _daemon_files(top: Path) -> list[str]:
    return sorted(
        str(path.relative_to(top))
        for path in top.rglob("*")
        if path.name.startswith(("gmpd.json", "gmpd.lock")) or stat.S_ISSOCK(path.lstat().st_mode)
    )


@pytest.fixture
def no_daemon(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients find no daemon that happens to run on this machine: each starts its own, unannounced,
    so that a test may demand an empty stderr."""
    monkeypatch.setenv("GMPD_RUNTIME_DIR", str(short_tmp / "none"))
    monkeypatch.setenv("GMPD_CLIENT__ANNOUNCE", "false")


_HANDLERS = pytest.StashKey[dict[int, Any]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_HANDLERS] = _handlers()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """A signal handler that a test leaves is one that may wake a G: no later test would see a
    deadlock told. SIGALRM is pytest-timeout's. In hooks: a fixture takes ten times as long."""
    yield
    before, now = item.stash[_HANDLERS], _handlers()
    if now == before:
        return
    changed = [number for number in before | now if now.get(number) != before.get(number)]
    for number in changed:
        signal.signal(number, before.get(number, signal.SIG_DFL))
    names = ", ".join(signal.Signals(number).name for number in changed)
    pytest.fail(f"signal handlers were left changed: {names}", pytrace=False)


#: Asked before and after each test, so without the enums that ``signal.getsignal`` makes.
_WATCHED_SIGNALS = [int(number) for number in signal.Signals if number != signal.SIGALRM]


def _handlers() -> dict[int, Any]:
    found = {number: _signal.getsignal(number) for number in _WATCHED_SIGNALS}
    return {number: handler for number, handler in found.items() if handler is not None}
