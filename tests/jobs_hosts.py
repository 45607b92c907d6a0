"""Functions for jobs on hosts. A host's daemon has another parent than this machine's workers."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import gmpd

#: How the tests' hosts name themselves to their jobs.
NAME = "NAME_OF_TEST_HOST"


def where(pause_s: float = 0.0) -> str:
    """The host that this runs on; "" on the machine of the tests."""
    time.sleep(pause_s)
    return os.environ.get(NAME, "")


def mixed(n: int) -> object:
    """Jobs of several kinds and lengths, by their number."""
    if not n % 97:
        time.sleep(0.005)
    if not n % 89:
        raise ValueError(n)
    return {0: n, 1: [n, str(n)], 2: {"n": n * 0.5}}[n % 3]


async def waits(n: int) -> int:
    await gmpd.sleep(0.01)
    return n


async def parent(n: int) -> list[str]:
    """The places of a job and of its children."""
    children = [gmpd.go(where, 0.01) for _ in range(n)]
    return [where(), *[await child for child in children]]


def note(path: str, text: str, pause_s: float = 0.0) -> str:
    """Leave a line in a file, which all hosts of a test can write."""
    with Path(path).open("a") as file:
        file.write(f"{text} {where()}\n")
    time.sleep(pause_s)
    return where()


def note_and_hang(path: str) -> str:
    """Run until the host is gone; another attempt gives its place at once."""
    if Path(path).exists() and Path(path).read_text():
        return note(path, "again")
    note(path, "begun")
    time.sleep(120)
    return where()


def beats(path: str, job: int) -> str:
    """Leave a line every 20 ms: the job, the attempt, the time, and the place; until there is a
    file with ``.end`` at the end of its name."""
    attempt = secrets.token_hex(4)
    while not Path(f"{path}.end").exists():
        with Path(path).open("a") as file:
            file.write(f"{job} {attempt} {time.monotonic()} {where()}\n")
        time.sleep(0.02)
    return where()


def beating(path: Path) -> set[str]:
    """The places where there were attempts."""
    return {line.split(" ")[3] for line in path.read_text().splitlines()}


def attempts(path: Path) -> int:
    """How many there were."""
    return len({line.split(" ")[1] for line in path.read_text().splitlines()})


def overlapping(path: Path) -> list[str]:
    """Jobs of which two attempts have run at once."""
    spans: dict[str, dict[str, tuple[float, float]]] = {}
    for line in path.read_text().splitlines():
        job, attempt, at, _ = line.split(" ")
        of_job = spans.setdefault(job, {})
        began, _ = of_job.get(attempt, (float(at), 0.0))
        of_job[attempt] = began, float(at)
    return [
        job
        for job, of_job in spans.items()
        for one, two in pairwise(sorted(of_job.values()))
        if two[0] <= one[1]
    ]


def counts(n: int) -> Iterator[tuple[int, str]]:
    for i in range(n):
        yield i, where()


def tells() -> str:
    for done in range(3):
        gmpd.progress(done, 3, where())
        time.sleep(0.1)
    return where()


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nbytes(data: bytes) -> tuple[int, str]:
    return len(data), where()


#: What the last initializer in this process was given, and where it ran.
initialized: tuple[object, str] | None = None


def initialize(value: object) -> None:
    """Of a pool. Fails on the host that it is told to fail on."""
    global initialized
    if value == where():
        raise OSError(f"no data for {value} here")
    initialized = value, where()


def look(pause_s: float = 0.0) -> tuple[object, str, str, str]:
    """The value that this process was initialized with, and where; where it is; a variable."""
    value, place = initialized or (None, "nowhere")
    return value, place, where(pause_s), os.environ.get("OF_THE_POOL", "")
