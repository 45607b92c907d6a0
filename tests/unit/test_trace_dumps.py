"""Traces that the daemon writes by itself."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gmpd.config import Config
from gmpd.daemon.trace_dumps import KEPT, PAUSE_NS, TraceDumps, read_dump
from gmpd.errors import ConfigError
from tests.support import wait_until

S = 1_000_000_000


class Workers:
    """They answer when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Callable[[dict[str, Any]], None]] = []
        self.busy = False

    def ask(self, told: Callable[[dict[str, Any]], None]) -> None:
        if self.busy:
            raise ConfigError("too many questions")
        self.asked.append(told)

    def answer(self) -> None:
        self.asked.pop()({"ps": []})


@pytest.fixture
def workers() -> Workers:
    return Workers()


def dumps(workers: Workers, tmp_path: Path, **trace: object) -> TraceDumps:
    flags: dict[str, object] = {"daemon.state_dir": str(tmp_path)}
    flags |= {f"trace.{name}": value for name, value in trace.items()}
    return TraceDumps(workers.ask, Config.load(flags=flags, env={}, files=[]))


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "traces").glob("*.gmpdtrace"))


def new_files(tmp_path: Path, seen: set[Path]) -> set[Path]:
    return set(files(tmp_path)) - seen


P = cast("Any", SimpleNamespace(job=lambda _token: SimpleNamespace(fn=SimpleNamespace(name="f"))))


def test_a_dump_is_a_file_and_the_oldest_go(workers: Workers, tmp_path: Path) -> None:
    it = dumps(workers, tmp_path)
    seen: set[Path] = set()
    for _ in range(KEPT + 2):
        it.dump("SIGUSR2")
        it.dump("a second one, while the first is on its way")
        assert len(workers.asked) == 1
        workers.answer()
        seen |= wait_until(partial(new_files, tmp_path, seen), "one more file")
    wait_until(lambda: len(files(tmp_path)) == KEPT, "the oldest are removed")
    assert read_dump(files(tmp_path)[-1])["why"] == "SIGUSR2"


def test_dumps_are_named_in_their_order(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within one second, in which another clock begins its own."""
    monotonic = itertools.count(10**9 - 3)
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(monotonic))
    it = dumps(workers, tmp_path)
    seen: list[Path] = []
    for _ in range(6):
        it.dump("SIGUSR2")
        workers.answer()
        seen += wait_until(partial(new_files, tmp_path, set(seen)), "one more file")
    assert seen == files(tmp_path)


def test_a_slow_job_leaves_one_a_minute(workers: Workers, tmp_path: Path) -> None:
    it = dumps(workers, tmp_path, slow="2s")
    it.finished(P, [1], [2_000_000], S)
    assert not workers.asked
    it.finished(P, [1, 2], [5, 3_000_000], S)
    workers.answer()
    it.finished(P, [3], [3_000_000], S + PAUSE_NS - 1)
    assert not workers.asked
    (file,) = wait_until(lambda: files(tmp_path), "a file")
    assert read_dump(file)["why"] == "f ran for 3 s, longer than trace.slow"
    it.finished(P, [3], [3_000_000], S + PAUSE_NS)
    assert workers.asked


def test_without_a_limit_or_without_rings_no_job_is_slow(workers: Workers, tmp_path: Path) -> None:
    dumps(workers, tmp_path).finished(P, [1], [10**12], S)
    dumps(workers, tmp_path, slow="1s", enabled=False).finished(P, [1], [10**12], S)
    assert not workers.asked


def test_a_question_that_cannot_be_asked_is_no_fault(workers: Workers, tmp_path: Path) -> None:
    it = dumps(workers, tmp_path)
    workers.busy = True
    it.dump("SIGUSR2")
    workers.busy = False
    it.dump("SIGUSR2")
    assert workers.asked


def test_a_directory_that_cannot_be_made_is_only_logged(
    workers: Workers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "traces").write_text("a file")
    dumps(workers, tmp_path).dump("SIGUSR2")
    workers.answer()
    wait_until(lambda: "cannot be written" in caplog.text, "the log says so")


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", b"text"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="no trace"):
        read_dump(file)
