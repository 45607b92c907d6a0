"""Quick jobs share a G in their worker, and are jobs of their own all the same."""

from __future__ import annotations

import contextvars
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import WorkerLost

_seen: contextvars.ContextVar[int] = contextvars.ContextVar("seen", default=0)
JOBS = 2_000


@pytest.fixture
def client() -> Iterator[gmpd.Client]:
    with gmpd.Client() as client:
        yield client


def note(directory: str, n: int, *, sleep_at: int = -1, exit_at: int = -1) -> int:
    """Say that it began; one blocks, one ends its worker."""
    with open(f"{directory}/{os.getpid()}", "a") as file:
        file.write(f"{n}\n")
    if n == sleep_at:
        time.sleep(1.0)
    if n == exit_at:
        os._exit(3)
    return n


def begun(directory: Path) -> Counter[int]:
    return Counter(int(line) for file in directory.iterdir() for line in file.read_text().split())


def count_up(n: int) -> int:
    _seen.set(_seen.get() + 1)
    return _seen.get()


def child(n: int) -> int:
    gmpd.progress(n)
    return n


def tell_by_child(n: int) -> int:
    return int(gmpd.go(child, n).result())


def warm(client: gmpd.Client, directory: Path) -> None:
    """The function is known to be quick."""
    for future in [client.submit(note, str(directory), -n - 10) for n in range(100)]:
        future.result(60)


def test_jobs_behind_one_that_blocks_do_not_wait_for_it(
    client: gmpd.Client, tmp_path: Path
) -> None:
    warm(client, tmp_path)
    futures = [client.submit(note, str(tmp_path), n, sleep_at=7) for n in range(JOBS)]
    for n, future in enumerate(futures):
        if n != 7:
            assert future.result(60) == n
    assert futures[7].result(60) == 7
    assert set(begun(tmp_path).values()) == {1}


def test_a_worker_that_ends_loses_the_one_job_that_ended_it(
    client: gmpd.Client, tmp_path: Path
) -> None:
    warm(client, tmp_path)
    futures = [client.submit(note, str(tmp_path), n, exit_at=700) for n in range(JOBS)]
    errors = {n: error for n, each in enumerate(futures) if (error := each.exception(60))}
    assert {n: type(error) for n, error in errors.items()} == {700: WorkerLost}
    assert set(begun(tmp_path).values()) == {1}


def test_each_has_a_context_of_its_own(client: gmpd.Client) -> None:
    for _ in range(2):
        assert {each.result(60) for each in [client.submit(count_up, 0) for _ in range(300)]} == {1}


def test_children_report_for_the_job_that_started_them(client: gmpd.Client) -> None:
    for _ in range(2):
        futures = [client.submit(tell_by_child, n) for n in range(200)]
        assert [each.result(60) for each in futures] == list(range(200))
        assert {(each.result(), each.progress and each.progress.done) for each in futures} <= {
            *((n, n) for n in range(200)),
            *((n, None) for n in range(200)),
        }
