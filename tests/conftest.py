"""Rules for every test: markers by directory, short places for sockets, and nothing left behind."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import gc
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings

from tests.trees import nodes_of

T = TypeVar("T")

HERE = Path(__file__).parent

#: Cheapest first, so that a run fails as early as it can.
ORDER = ("unit", "sim", "conformance", "integration")

#: Tests in these directories start processes and are watched for what they leave.
WATCHED = ("conformance", "integration")

UNIT_TIMEOUT_S = 40  # a busy machine gives a test a twentieth of a core

#: Everything that this run starts inherits it, also what has lost its parent. Not GMPD_...: the
#: daemon takes those out of the environment of jobs.
BADGE = "PYTEST_SESSION_OF_GMPD"

#: Ended processes and closed descriptors may take a moment to go, on a busy machine.
GRACE_S = 5.0

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
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
        kind = _directory(item)
        item.add_marker(kind)
        if kind == "unit" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(UNIT_TIMEOUT_S))
    items.sort(key=lambda item: (ORDER.index(_directory(item)), _reads_sources(item)))


def _reads_sources(item: pytest.Item) -> bool:
    """The syntax trees are a million objects: tests of the collector come before them."""
    return hasattr(getattr(item, "module", None), nodes_of.__name__)


def pytest_collection_finish() -> None:
    """Thousands of tests and all that they import live to the end: a pass of the collector over
    them takes longer than most tests, and several passes belong to each test with processes."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """What the tests of one file leave alive (modules, reports, caches) lives to the end, too: it
    is frozen, so that the passes of later tests do not look at it again."""
    told = yield
    if nextitem is None or nextitem.path != item.path:
        if nextitem is None or not _reads_sources(nextitem):
            nodes_of.cache_clear()
        gc.collect()
        gc.freeze()
    return told


def _directory(item: pytest.Item) -> str:
    directory = item.path.relative_to(HERE).parts[0]
    if directory not in ORDER:
        raise pytest.UsageError(f"{item.path} lies in none of tests/{{{','.join(ORDER)}}}")
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


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """A signal handler that a test leaves is one that may wake a G: no later test would see a
    deadlock told. SIGALRM is pytest-timeout's."""
    before = _handlers()
    yield
    if _handlers() == before:
        return
    changed = {n: handler for n, handler in before.items() if signal.getsignal(n) != handler}
    for number, handler in changed.items():
        signal.signal(number, handler)
    if changed:
        names = ", ".join(signal.Signals(number).name for number in changed)
        pytest.fail(f"signal handlers were left changed: {names}", pytrace=False)


#: Asked before and after each test, so without the enums that ``signal.getsignal`` makes.
_WATCHED_SIGNALS = [int(number) for number in signal.Signals if number != signal.SIGALRM]


def _handlers() -> dict[int, Any]:
    found = {number: _signal.getsignal(number) for number in _WATCHED_SIGNALS}
    return {number: handler for number, handler in found.items() if handler is not None}


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process, and no more descriptors than before, are left by a test that starts processes."""
    if _directory(request.node) not in WATCHED:
        yield
        return
    processes, descriptors = _processes(), _descriptors()
    yield
    leaked = _still(lambda: _processes() - processes)
    named = [_describe(pid) for pid in sorted(leaked)]
    for pid in leaked:  # or they would disturb the next test
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if leaked:
        pytest.fail(f"processes left behind: {'; '.join(named)}", pytrace=False)
    opened = _still(lambda: _descriptors() - descriptors)
    if opened:
        names = ", ".join(f"{fd} -> {target}" for fd, target in sorted(opened))
        pytest.fail(f"descriptors left open: {names}", pytrace=False)


def _still(look: Callable[[], set[T]]) -> set[T]:
    """What is there after it had time to go away."""
    nothing = threading.Event()
    deadline = time.monotonic() + GRACE_S
    gc.collect()
    while (found := look()) and time.monotonic() < deadline:
        nothing.wait(0.01)
        gc.collect()
    return found


def _processes() -> set[int]:
    """Everything alive that this run started."""
    badge = f"{BADGE}={os.environ[BADGE]}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            mine = badge in (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
        except OSError:  # it ended just now, or belongs to somebody else
            continue
        # A zombie has no command. The tracker of multiprocessing lives as long as this process.
        if mine and command and b"resource_tracker" not in command:
            found.add(int(entry.name))
    return found


def _describe(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        command = "ended meanwhile"
    return f"{pid} ({command.strip()})"


def _descriptors() -> set[tuple[int, str]]:
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:  # the listing's own
            continue
        if int(entry.name) != getattr(tracker, "_fd", None):
            found.add((int(entry.name), target))
    return found
