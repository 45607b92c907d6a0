"""A limit on one value is never met by several that travel together."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd import protocol
from gmpd.errors import Unserializable
from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawDaemon

LIMIT = 1 << 20
SETTINGS: Any = {"limits.value_bytes": LIMIT, "daemon.procs": 2}


def text(n: int) -> str:
    return "x" * n


def texts(k: int, n: int) -> Iterator[str]:
    for _ in range(k):
        yield "x" * n


@pytest.fixture
def client(short_tmp: Path) -> Iterator[gmpd.Client]:
    """Of a daemon that allows 1 MiB."""
    daemon = RawDaemon(short_tmp, **SETTINGS)
    try:
        with gmpd.Client(daemon.endpoint) as client:
            yield client
    finally:
        daemon.end()


@pytest.mark.parametrize("n", [100, 60_000, 900_000])
def test_values_below_the_limit_pass_however_many_gather(client: gmpd.Client, n: int) -> None:
    k = min(400, 40_000_000 // n)
    assert [len(each) for each in client.stream(texts, k, n)] == [n] * k
    assert [len(each) for each in client.map(text, [n] * k)] == [n] * k
    futures = [client.submit(len, "x" * n) for _ in range(k)]
    assert [future.result(30) for future in futures] == [n] * k


def some_large(i: int) -> str:
    if i == 7:
        raise KeyError(i)
    return "x" * (LIMIT + 1 if i == 5 else 300_000)


@pytest.mark.parametrize("chunksize", [10, 200])
def test_results_of_a_chunk_may_be_larger_together(client: gmpd.Client, chunksize: int) -> None:
    """Each item once: it is not run again to find out what fits."""
    marks = list(client.map(marked, range(200), chunksize=chunksize))
    assert [i for i, _, _ in marks] == list(range(200))
    assert {len(value) for _, value, _ in marks} == {100_000}
    counts = dict[int, list[int]]()
    for _, _, (pid, nth) in marks:
        counts.setdefault(pid, []).append(nth)
    for nths in counts.values():
        assert sorted(nths) == list(range(1, len(nths) + 1)), "nothing was run twice"


_ran = itertools.count(1)


def marked(i: int) -> tuple[int, bytes, tuple[int, int]]:
    return i, b"x" * 100_000, (os.getpid(), next(_ran))


def test_buffers_of_a_chunk_may_be_larger_together(client: gmpd.Client) -> None:
    got = list(client.map(bytearray, [300_000] * 100, chunksize=100))
    assert got == [bytearray(300_000)] * 100


def test_only_the_item_that_is_too_large_fails(client: gmpd.Client) -> None:
    results = client.map(some_large, range(10), chunksize=10)
    assert [len(next(results)) for _ in range(5)] == [300_000] * 5
    with pytest.raises(Unserializable, match=r"result has .* limits\.value_bytes allows 1048576"):
        next(results)
    rest = client.map(some_large, range(6, 10), chunksize=10)
    assert len(next(rest)) == 300_000
    with pytest.raises(KeyError):
        next(rest)


def test_chunks_of_an_executor_and_of_coroutines_too(client: gmpd.Client) -> None:
    with gmpd.Executor(client=client) as pool:
        sizes = [len(each) for each in pool.map(text, [300_000] * 20, chunksize=20)]
    assert sizes == [300_000] * 20
    got = list(client.map(text_later, [300_000] * 20, chunksize=20))
    assert [len(each) for each in got] == [300_000] * 20


async def text_later(n: int) -> str:
    return "x" * n


def test_a_larger_argument_is_refused_at_submit_and_harms_nobody(client: gmpd.Client) -> None:
    neighbour = client.submit(text, 3)
    with pytest.raises(Unserializable, match=r"arguments of .*len\(\) have .* limits.value_bytes"):
        client.submit(len, "x" * (LIMIT + 1))
    big = "x" * (LIMIT + 1)
    with pytest.raises(Unserializable, match=r"limits\.value_bytes"):
        client.submit(lambda: big)
    assert neighbour.result(30) == "xxx"
    assert client.submit(len, "x" * (LIMIT - 100)).result(30) == LIMIT - 100


def test_a_larger_result_is_an_error_of_its_job_alone(client: gmpd.Client) -> None:
    large, small = client.submit(text, 2 * LIMIT), client.submit(text, 2)
    with pytest.raises(Unserializable, match=r"limits\.value_bytes"):
        large.result(30)
    assert small.result(30) == "xx"


def test_a_worker_whose_link_was_cut_is_replaced(boot: Boot) -> None:
    """A frame over the limit costs the connection; other messages on it are unknown."""
    _, client = boot(**SETTINGS)
    code = (
        "import sys\n"
        "for frame in sys._current_frames().values():\n"
        "    while frame is not None:\n"
        "        link = getattr(frame.f_locals.get('worker'), 'link', None)\n"
        "        if link is not None:\n"
        "            link.send([bytes(9 << 20)])\n"
        "        frame = frame.f_back\n"
    )
    (cut,) = client.outcomes(client.submit("builtins:exec", (code,)))
    assert cut[0] in (Outcome.OK, Outcome.LOST), cut
    client.until(lambda: any(each["restarts"].get("exit") for each in client.call("status")["ps"]))
    good = client.outcomes(client.submit("math:sqrt", *[(4.0,)] * 20))
    assert {(outcome, value) for outcome, value, _ in good} == {(Outcome.OK, 2.0)}
    assert protocol.GATHER_BYTES < protocol.ENVELOPE_SLACK
