"""A worker and its children that leave and come back, without a coordinator."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import gmpd
from gmpd import protocol
from gmpd.codec import decode, decode_call, describe_function, encode, encode_call, encode_error
from gmpd.daemon import migration
from gmpd.daemon.migration import ChildMigration, is_migratable
from gmpd.errors import WorkerLost
from gmpd.protocol import Children, Define, Done, Options, Outcome, Submit, Undefine
from gmpd.runtime.g import G
from gmpd.runtime.loop import Loop
from gmpd.runtime.remote import ChanRouter


class Home:
    """A P with its migration; messages gather in ``sent``."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.sent: list[Any] = []
        router = ChanRouter((0, 1), self.loop, lambda _to, _message: None, 10_000)
        self.migration = ChildMigration(
            self.loop, lambda message, _: self.sent.append(message), router, 10_000
        )

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(main(), 10))

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.sent if isinstance(each, kind)]

    def calls(self) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [decode_call(payload) for each in self.of(Submit) for payload in each.payloads]

    def end(self, seq: int, payload: bytes, outcome: int = 0, **details: Any) -> None:
        specials: Any = {0: (Outcome(outcome), details)} if outcome or details else None
        self.migration.ended(Done([seq], [payload], [1], specials, None), [])


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(migration, "PACK_NS", 10**10)  # a busy machine must not end it early
    made = Home()
    yield made
    made.loop.close()


def quick(x: int = 0) -> int:
    return -x


def test_the_older_half_leaves_packed_in_order(home: Home) -> None:
    """Rounded up; alike ones share a message; then the answer."""

    async def main() -> list[int]:
        children = [gmpd.go(quick, i) for i in range(7)]
        home.migration.donate(100)
        assert [args for args, _ in home.calls()] == [(0,), (1,), (2,)]
        assert [type(each) for each in home.sent] == [Define, Submit, Children]
        assert home.of(Children) == [Children(3, asked=True)]
        assert home.sent[1].options == Options(child=(0, 1))
        assert home.loop.p.stats.children_out == 3
        for seq in range(1, 4):
            home.end(seq, encode(seq * 100).data)
        return [await child for child in children]

    assert home.run(main) == [100, 200, 300, -3, -4, -5, -6]
    assert not home.migration.away


def test_the_one_that_runs_next_stays(home: Home) -> None:
    """It is likely to run at once: Go steals runnext last of all."""

    async def main() -> None:
        child = gmpd.go(quick, 1)
        home.migration.donate(100)
        assert home.sent == [Children(0, asked=True)]
        assert await child == -1

    home.run(main)


@pytest.mark.parametrize("at_once", [1, 5])
def test_no_more_leave_than_were_asked_for(home: Home, at_once: int) -> None:
    async def main() -> None:
        children = [gmpd.go(quick, i) for i in range(20)]
        home.migration.donate(at_once)
        assert len(home.migration.away) == at_once
        for child in children:
            child.cancel()

    home.run(main)


def test_an_outcome_that_is_no_value(home: Home) -> None:
    async def main() -> None:
        children = [gmpd.go(quick, i) for i in range(7)]
        home.migration.donate(3)
        home.end(1, encode_error(KeyError("gone")), Outcome.ERROR, p=1, pid=77)
        home.end(2, b"", Outcome.LOST, p=1, pid=77, signal="SIGSEGV")
        home.end(3, b"", Outcome.CANCELLED, p=1)
        with pytest.raises(KeyError) as error:
            await children[0]
        assert any("ran on P1 (pid 77)" in note for note in error.value.__notes__)
        with pytest.raises(WorkerLost, match=r"'quick': the worker .* died by SIGSEGV") as lost:
            await children[1]
        assert (lost.value.pid, lost.value.signal) == (77, "SIGSEGV")
        with pytest.raises(asyncio.CancelledError):
            await children[2]

    home.run(main)


def test_a_value_that_cannot_be_rebuilt_is_an_error_of_that_child(home: Home) -> None:
    async def main() -> None:
        children = [gmpd.go(quick, i) for i in range(3)]
        home.migration.donate(1)
        home.end(1, b"\x80 no pickle")
        with pytest.raises(gmpd.errors.GmpdError):
            await children[0]

    home.run(main)


def test_refused_and_unopened_ones_run_at_home(home: Home) -> None:
    async def main() -> None:
        children = [gmpd.go(quick, i) for i in range(5)]
        home.migration.donate(2)
        home.end(1, b"", Outcome.REJECTED, text="full")
        home.end(2, encode_error(ImportError("no such module")), Outcome.ERROR, unopened=True)
        assert [await child for child in children] == [0, -1, -2, -3, -4]
        more = [gmpd.go(quick, i) for i in range(5)]
        home.migration.donate(2)
        assert not home.migration.away, "what could not be opened is not sent again soon"
        for child in more:
            await child

    home.run(main)


def test_a_cancel_ends_it_here_and_there(home: Home) -> None:
    """At once here; what comes later is dropped."""

    async def main() -> None:
        children = [gmpd.go(quick, i) for i in range(3)]
        home.migration.donate(1)
        assert children[0].cancel()
        assert home.of(protocol.Cancel) == [protocol.Cancel([1])]
        assert not home.migration.away
        with pytest.raises(asyncio.CancelledError):
            await children[0]
        home.end(1, encode(5).data)
        home.end(99, encode(5).data)
        await children[1]

    home.run(main)


def test_one_cancelled_while_away_does_not_come_back(home: Home) -> None:
    async def main() -> None:
        children = [gmpd.go(quick, i) for i in range(3)]
        home.migration.donate(1)
        assert not children[0].is_fresh()
        children[0].cancel()
        assert not children[0].come_back()

    home.run(main)


def test_what_cannot_be_packed_stays_and_is_left_alone(home: Home, monkeypatch: Any) -> None:
    """The first of a kind is tried, not each of a thousand."""
    tried: list[object] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        tried.append(args)
        return encode_call(*args, **kwargs)

    monkeypatch.setattr(migration, "encode_call", counted)
    monkeypatch.setattr(migration, "PIN_MIN_NS", 10**11)  # a busy machine must not end it early

    async def main() -> None:
        children = [gmpd.go(functools.partial(quick), _generator()) for _ in range(1000)]
        for _ in range(5):
            home.migration.donate(512)
        assert len(tried) == 1
        assert home.of(Children)[-1] == Children(0, asked=True)
        for child in children:
            child.cancel()

    home.run(main)


def test_packing_ends_in_time_and_always_gets_somewhere(home: Home, monkeypatch: Any) -> None:
    monkeypatch.setattr(migration, "PACK_NS", 0)

    async def main() -> None:
        children = [gmpd.go(quick, i) for i in range(20)]
        home.migration.donate(10)
        assert len(home.migration.away) == 1
        assert home.of(Children) == [Children(18, asked=True)]
        home.end(1, encode(0).data)
        assert [await child for child in children] == [-i for i in range(20)]

    home.run(main)


def test_too_large_a_child_stays(home: Home) -> None:
    async def main() -> None:
        children = [gmpd.go(len, b"x" * 20_000) for _ in range(3)]
        home.migration.donate(10)
        assert not home.of(Submit)
        assert [await child for child in children] == [20_000] * 3

    home.run(main)


def test_started_and_cancelled_ones_stay(home: Home) -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        children = [gmpd.go(forever) for _ in range(4)]
        await asyncio.sleep(0.01)
        queued = [gmpd.go(forever) for _ in range(4)]
        for child in [*children, *queued]:
            child.cancel()
        home.migration.donate(10)
        assert not home.of(Submit)

    home.run(main)


def test_what_is_told_of_them(home: Home) -> None:
    """That there are some, once; that there are none, once; nothing of a P without children."""
    look = home.migration.look

    async def main() -> None:
        look(time.monotonic_ns())
        assert home.sent == []
        children = [gmpd.go(quick, i) for i in range(3)]
        look(time.monotonic_ns())
        look(time.monotonic_ns())
        assert home.sent == [Children(2, asked=False)]
        for child in children:
            await child
        look(time.monotonic_ns())
        look(0)
        assert home.sent == [Children(2, asked=False), Children(0, asked=False)]

    home.run(main)


def test_functions_are_named_once_until_there_are_too_many(home: Home) -> None:
    home.migration._functions._most = 2

    async def main() -> None:
        for fn in (math.sqrt, math.floor, math.sqrt, math.ceil, math.sqrt, math.floor):
            children = [gmpd.go(fn, 4.0) for _ in range(3)]
            home.migration.donate(1)
            children[0].cancel()
            for child in children[1:]:
                await child

    home.run(main)
    named = [(each.fid, each.name) for each in home.of(Define)]
    assert named == [(1, "math:sqrt"), (2, "math:floor"), (3, "math:ceil"), (4, "math:floor")]
    assert [each.fids for each in home.of(Undefine)] == [[2], [3]]


class Thing:
    def method(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...


def _made(kind: str) -> Callable[..., Any]:
    number, text, shared = 3, ("a", 1.5), [1]
    count = 0

    def increment() -> None:
        nonlocal count
        count += 1

    def unbound() -> object:
        return later

    made: dict[str, Callable[..., Any]] = {
        "a lambda": lambda x: x,
        "over a number": lambda: number,
        "over a tuple": lambda: text,
        "over a function": lambda: quick(),
        "over a list": lambda: shared,
        "over its maker's variable": increment,
        "over what is not there yet": unbound,
        "a method": Thing().method,
        "a class method": Thing.of_class,
        "a method of a list": shared.append,
        "a builtin": math.sqrt,
        "a generator": _generator,
        "an object": Thing,
    }
    if kind == "never":
        later = 1
    return made[kind]


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("a lambda", True),
        ("over a number", True),
        ("over a tuple", True),
        ("over a function", True),
        ("over a list", False),
        ("over its maker's variable", False),
        ("over what is not there yet", False),
        ("a method", False),
        ("a class method", True),
        ("a method of a list", False),
        ("a builtin", True),
        ("a generator", False),
        ("an object", True),
    ],
)
def test_which_functions_are_the_same_elsewhere(kind: str, *, expected: bool) -> None:
    fn = _made(kind)
    try:
        ref = describe_function(fn)
    except gmpd.errors.Unserializable:
        assert not expected
        return
    assert is_migratable(fn, ref) is expected


def test_a_packed_child_is_the_call_that_was_made(home: Home) -> None:
    async def main() -> None:
        children = [gmpd.go(quick, x=i) for i in range(3)]
        home.migration.donate(10)
        ((args, kwargs),) = home.calls()
        assert (args, kwargs) == ((), {"x": 0})
        assert decode(encode(1).data) == 1
        assert isinstance(children[0], G)
        for child in children:
            child.cancel()

    home.run(main)


@pytest.mark.parametrize(
    "tool",
    [
        gmpd.Mutex, gmpd.RWMutex, gmpd.WaitGroup, gmpd.Group, gmpd.Once,
        functools.partial(gmpd.Timer, 60), functools.partial(gmpd.Ticker, 60),
    ],
    ids=str,
)  # fmt: skip
def test_tools_of_one_worker_keep_a_child_at_home(home: Home, tool: Callable[[], Any]) -> None:
    """A copy of a lock would lock nothing."""

    async def main() -> None:
        thing = tool()
        children = [gmpd.go(id, thing) for _ in range(3)]
        home.migration.donate(10)
        assert not home.of(Submit)
        assert [await child for child in children] == [id(thing)] * 3
        if hasattr(thing, "stop"):
            thing.stop()

    home.run(main)


def test_channels_and_closures_over_them_leave(home: Home) -> None:
    """The channel stays; its address goes."""

    async def main() -> None:
        ch: gmpd.Chan[int] = gmpd.Chan(2)

        async def closure() -> None:
            await ch.send(1)

        children = [gmpd.go(closure) for _ in range(3)]
        children += [gmpd.go(id, ch) for _ in range(3)]
        home.migration.donate(10)
        assert len(home.migration.away) == 3
        for child in children:
            child.cancel()

    home.run(main)
