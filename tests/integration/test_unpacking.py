"""Values are unpacked by the worker that runs the job, and by the client that gets its result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd

pytestmark = pytest.mark.usefixtures("no_daemon")

#: A result of this size has no room in the ring that small ones are kept in.
LARGE = 1_000_000


class Witness:
    """Notes the process in which it is unpickled."""

    def __init__(self, path: Path, payload: bytes = b"") -> None:
        self.path = path
        self.payload = payload

    def __reduce__(self) -> Any:
        return seen, (self.path, self.payload)


def seen(path: Path, payload: bytes) -> Witness:
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Witness(path, payload)


class WitnessError(Exception):
    """Carries one in its attributes."""


def give_back(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs, os.getpid()


def fail_with(witness: Witness) -> None:
    error = WitnessError("as it was asked to")
    error.witness = witness  # type: ignore[attr-defined]
    raise error


def give_each(*witnesses: Witness) -> Iterator[Witness]:
    yield from witnesses


def test_the_coordinator_never_does(tmp_path: Path) -> None:
    log = tmp_path / "pids"
    small, large = Witness(log), Witness(log, bytes(LARGE))
    with gmpd.Client() as client:
        ran = [client.submit(give_back, small, key=large).result()[2] for _ in range(5)]
        ran += [pid for _, _, pid in client.map(give_back, [small, large] * 5)]
        ran.append(client.options(isolate=True).submit(give_back, small, large).result()[2])
        assert len(list(client.stream(give_each, small, large))) == 2
        with pytest.raises(WitnessError):
            client.submit(fail_with, large).result()
        with pytest.raises(WitnessError):
            client.options(retries=1).submit(fail_with, small).result()
        status = client.call("status")
    unpacked = {int(line) for line in log.read_text().split()}
    workers = {p["pid"] for p in status["ps"]} | {*ran}
    assert {*ran, os.getpid()} <= unpacked
    assert unpacked <= workers | {os.getpid()}
    assert status["pid"] not in workers
