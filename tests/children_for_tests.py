"""Jobs whose children are to run in other workers; tests name them as they name jobs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gmpd
from gmpd.runtime.select import select_sync

#: What a spinning child takes: long beside a round trip, short beside a slice.
SPIN_S = 0.004


def spin(seconds: float) -> int:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return os.getpid()


def spin_and_square(n: int) -> tuple[int, int]:
    spin(SPIN_S)
    return os.getpid(), n * n


async def squares(n: int) -> list[Any]:
    """Children that take long enough to be worth stealing; [pid, square] of each, in order."""
    children = [gmpd.go(spin_and_square, i) for i in range(n)]
    return [await child for child in children]


def squares_sync(n: int) -> list[Any]:
    """The same from a sync G."""
    children = [gmpd.go(spin_and_square, i) for i in range(n)]
    return [child.result(30) for child in children]


async def nap_and_square(n: int) -> tuple[int, int]:
    done = spin_and_square(n)  # first: what has started stays where it is
    await gmpd.sleep(0.001)
    return done


async def squares_async(n: int) -> list[Any]:
    children = [gmpd.go(nap_and_square, i) for i in range(n)]
    return [await child for child in children]


async def tree(depth: int) -> Counter[int]:
    """How often each worker spun, over a tree of children of children; of 2 ** depth leaves."""
    if not depth:
        return Counter([spin(SPIN_S)])
    children = [gmpd.go(tree, depth - 1) for _ in range(2)]
    total = Counter[int]()
    for child in children:
        total += await child
    return total


class Unlucky(Exception):
    pass


def fail(n: int) -> None:
    spin(SPIN_S)
    raise Unlucky(n, os.getpid())


async def failures(n: int) -> list[tuple[int, int, str, str]]:
    """(number, pid, notes, remote traceback) of each child's error."""
    children = [gmpd.go(fail, i) for i in range(n)]
    found = []
    for child in children:
        try:
            await child
        except Unlucky as exc:
            notes = " ".join(getattr(exc, "__notes__", []))
            found.append((*exc.args, notes, str(exc.__cause__ or "")))
    return found


async def _pids(make: Callable[[int], Any], n: int) -> list[Any]:
    children = [make(i) for i in range(n)]
    return [await child for child in children]


def _spin_with(_thing: object) -> int:
    return spin(SPIN_S)


class Owner:
    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> int:
        self.calls += 1
        return spin(SPIN_S)


async def stay(kind: str, n: int) -> tuple[list[int], int]:
    """Children that cannot go elsewhere, or would not be the same there: (pids, side effects)."""
    seen: list[int] = []
    count = 0
    owner = Owner()

    def append() -> int:
        seen.append(1)
        return spin(SPIN_S)

    def increment() -> int:
        nonlocal count
        count += 1
        return spin(SPIN_S)

    makers: dict[str, Callable[[int], Any]] = {
        "lock": lambda _: gmpd.go(_spin_with, threading.Lock()),
        "mutex": lambda _: gmpd.go(_spin_with, gmpd.Mutex()),
        "waitgroup": lambda _: gmpd.go(_spin_with, gmpd.WaitGroup()),
        "event": lambda _: gmpd.go(_spin_with, asyncio.Event()),
        "generator": lambda _: gmpd.go(_spin_with, (i for i in range(3))),
        "closure": lambda _: gmpd.go(append),
        "nonlocal": lambda _: gmpd.go(increment),
        "method": lambda _: gmpd.go(owner.call),
    }
    pids = await _pids(makers[kind], n)
    return pids, len(seen) or count or owner.calls


async def go_closures(n: int) -> list[int]:
    """Closures over what cannot change travel by value."""
    factor = 7

    def multiply(i: int) -> tuple[int, int]:
        spin(SPIN_S)
        return os.getpid(), i * factor

    children = [gmpd.go(multiply, i) for i in range(n)]
    return [await child for child in children]


def note(path: str, text: str) -> None:
    """Append a line, in one write."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def notes(path: str) -> list[list[str]]:
    file = Path(path)
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


async def linger(path: str, number: int) -> None:
    """Wait to be cancelled, and tell of both."""
    spin(SPIN_S)
    note(path, f"began {number} {os.getpid()}")
    try:
        await gmpd.sleep(3600)
    except asyncio.CancelledError:
        note(path, f"cancelled {number} {os.getpid()}")
        raise


async def lingerers(path: str) -> tuple[list[Any], int]:
    """Children that linger in two workers; this worker's pid."""
    children: list[Any] = []
    await fill(lambda *call: children.append(gmpd.go(*call)), path)
    return children, os.getpid()


def began_elsewhere(path: str, pid: int) -> list[int]:
    """Numbers of lingerers that began in another worker."""
    return [int(n) for word, n, at in notes(path) if word == "began" and int(at) != pid]


async def cancel_lingerers(path: str) -> tuple[int, int]:
    """Cancel those that run elsewhere: how many, and how many raised CancelledError here."""
    children, pid = await lingerers(path)
    away = began_elsewhere(path, pid)
    raised = 0
    for number in away:
        children[number].cancel()
        try:
            await children[number]
        except asyncio.CancelledError:
            raised += 1
    return len(away), raised


async def leave_lingerers(path: str, how: str) -> None:
    """Die, or return, while children linger elsewhere."""
    _, pid = await lingerers(path)
    note(path, f"parent 0 {pid}")
    if how == "die":
        os.kill(pid, signal.SIGKILL)


async def lose_the_thief(path: str) -> tuple[int, list[str]]:
    """Kill the worker where lingerers run: (how many ran there, what each child then gave)."""
    children, pid = await lingerers(path)
    thief = next(int(at) for word, _, at in notes(path) if word == "began" and int(at) != pid)
    os.kill(thief, signal.SIGKILL)
    there = {int(n) for word, n, at in notes(path) if word == "began" and int(at) == thief}
    told = []
    for number in sorted(there):
        try:
            await children[number]
        except gmpd.errors.WorkerLost as exc:
            told.append(f"{exc.signal} {exc.pid == thief}")
    return len(there), told


# ---- groups -----------------------------------------------------------------------------------


def pids_of(path: str) -> set[int]:
    """The workers in which something began."""
    return {int(at) for word, _, at in notes(path) if word == "began"}


async def fill(go: Callable[..., Any], path: str) -> None:
    """Let a group start lingerers, more than one worker can begin at once, until two have."""
    number = 0
    while len(pids_of(path)) < 2:
        for _ in range(20):
            go(linger, path, number)
            number += 1
        await gmpd.sleep(0.02)


async def group_fails(path: str) -> tuple[str, int]:
    """A child fails while others linger here and elsewhere: what the group raises; the home."""
    group = gmpd.Group()
    await fill(group.go, path)
    group.go(fail, 7)
    try:
        await group.wait()
    except Unlucky as exc:
        return f"{type(exc).__name__} {exc.args[0]}", os.getpid()
    return "", 0


def fail_unless_at(home: int) -> None:
    spin(SPIN_S)
    if os.getpid() != home:
        raise Unlucky(os.getpid())


async def group_fails_elsewhere() -> tuple[bool, str]:
    """A child that runs in another worker fails: was it there, and its notes."""
    group, home = gmpd.Group(), os.getpid()
    while group.error is None:
        for _ in range(20):
            group.go(fail_unless_at, home)
        await gmpd.sleep(0.02)
    try:
        await group.wait()
    except Unlucky as exc:
        return exc.args[0] != home, " ".join(exc.__notes__)
    return False, ""


async def group_loses_a_worker(path: str) -> tuple[str, bool]:
    """Kill the other worker: the signal in the group's WorkerLost, and whether the pid is right."""
    group = gmpd.Group()
    await fill(group.go, path)
    (thief,) = pids_of(path) - {os.getpid()}
    os.kill(thief, signal.SIGKILL)
    try:
        await group.wait()
    except gmpd.errors.WorkerLost as exc:
        return exc.signal, exc.pid == thief
    return "", False


def measured(path: str, number: int, seconds: float = SPIN_S) -> None:
    note(path, f"began {number} {os.getpid()}")
    spin(seconds)
    note(path, f"ended {number} {os.getpid()}")


#: Longer than a thread of the same interpreter waits for the GIL: a sync G keeps its group full.
LONG_SPIN_S = 0.02


async def limited_group(path: str, limit: int) -> None:
    """Children of a group, until two workers have run some."""
    async with gmpd.Group() as group:
        group.set_limit(limit)
        number = 0
        while len(pids_of(path)) < 2:
            for _ in range(5):
                await group.go(measured, path, number, LONG_SPIN_S)
                number += 1


def limited_group_sync(path: str, limit: int) -> None:
    group = gmpd.Group()
    group.set_limit(limit)
    number = 0
    while len(pids_of(path)) < 2:
        for _ in range(5):
            group.sync.go(measured, path, number, LONG_SPIN_S)
            number += 1
    group.sync.wait()


async def wait_group(path: str) -> list[list[str]]:
    """The notes of a WaitGroup's children at the moment when its waiter continued."""
    wg, number = gmpd.WaitGroup(), 0
    while len(pids_of(path)) < 2:
        for _ in range(20):
            wg.go(measured, path, number)
            number += 1
        await gmpd.sleep(0.02)
    await wg.wait()
    return notes(path)


def wait_group_sync(path: str) -> list[list[str]]:
    wg, number = gmpd.WaitGroup(), 0
    while len(pids_of(path)) < 2:
        for _ in range(5):
            wg.go(measured, path, number, LONG_SPIN_S)
            number += 1
        time.sleep(0.02)
    wg.sync.wait()
    return notes(path)


async def group_that_stays(n: int) -> tuple[list[int], int]:
    """Children of a group that share what cannot be copied: their pids; the home."""
    pids: list[int] = []
    lock = threading.Lock()

    def with_lock(_lock: object) -> None:
        pids.append(spin(SPIN_S))

    async with gmpd.Group() as group:
        for _ in range(n):
            group.go(with_lock, lock)
    return pids, os.getpid()


async def with_own_module(n: int) -> set[int]:
    """A function that another worker cannot import, of a module made here."""
    import sys
    import types

    module = types.ModuleType("made_here")
    source = (
        "import os, time\ndef f(i):\n    time.sleep(0)\n    spin(0.004)\n    return os.getpid()\n"
    )
    module.__dict__["spin"] = spin
    exec(source, module.__dict__)
    sys.modules["made_here"] = module
    children = [gmpd.go(module.f, i) for i in range(n)]
    return {await child for child in children}


# ---- channels ---------------------------------------------------------------------------------


async def square_all(numbers: gmpd.Chan[int], out: gmpd.Chan[tuple[int, int]]) -> int:
    """A stage of a pipeline; slow to begin, so that it is stolen. Its pid."""
    spin(SPIN_S)
    async for n in numbers:
        spin(SPIN_S / 4)
        await out.send((os.getpid(), n * n))
    return os.getpid()


def square_all_sync(numbers: gmpd.Chan[int], out: gmpd.Chan[tuple[int, int]]) -> int:
    spin(SPIN_S)
    for n in numbers.sync:
        spin(SPIN_S / 4)
        out.sync.send((os.getpid(), n * n))
    return os.getpid()


async def pipeline(kind: str, n: int) -> tuple[list[int], list[int]]:
    """(squares as they came, pids of the stages that made them): ``n`` at least, of two workers."""
    numbers: gmpd.Chan[int] = gmpd.Chan(2)
    out: gmpd.Chan[tuple[int, int]] = gmpd.Chan()
    stage = square_all if kind == "async" else square_all_sync
    stages: list[Any] = []
    pids: list[int] = []
    squares: list[int] = []

    async def feed() -> None:
        number = 0
        while number < n or len(set(pids)) < 2:
            await numbers.send(number)
            number += 1
        numbers.close()

    async def employ() -> None:
        while len(set(pids)) < 2:
            stages.extend(gmpd.go(stage, numbers, out) for _ in range(20))
            await gmpd.sleep(0.02)
        for each in stages:
            await each
        out.close()

    gmpd.go(feed)
    gmpd.go(employ)
    async for pid, square in out:
        pids.append(pid)
        squares.append(square)
    return squares, pids


async def ask_about(ch: gmpd.Chan[int], home: int) -> dict[str, Any]:
    """The attributes of a channel as a child in another worker sees them; empty at home."""
    spin(SPIN_S)
    if os.getpid() == home:
        return {}
    seen: dict[str, Any] = {"cap": ch.cap, "type": isinstance(ch, gmpd.Chan), "bool": bool(ch)}
    await ch.send(1)
    seen["len"] = len(ch)
    seen["first"] = await ch.recv()
    try:
        await ch.send(threading.Lock())  # type: ignore[arg-type]
    except gmpd.errors.Unserializable as exc:
        seen["unsendable"] = str(exc)
    try:
        await gmpd.select(gmpd.send(ch, 1))
    except RuntimeError as exc:
        seen["select"] = str(exc)
    seen["default"] = await gmpd.select(gmpd.recv(ch), default=True)
    await ch.send(2)
    seen["selected"] = await gmpd.select(gmpd.recv(ch), gmpd.recv(gmpd.Chan()), default=True)
    waiting = gmpd.go(ch.recv)
    await gmpd.sleep(0.01)
    waiting.cancel()
    ch.close()
    for name, operation in (("send", ch.send(2)), ("recv", ch.recv())):
        try:
            await operation
        except gmpd.errors.GmpdError as exc:
            seen[name] = type(exc).__name__
    try:
        ch.close()
    except gmpd.errors.Panic as exc:
        seen["close"] = str(exc)
    seen["recv_ok"] = await ch.recv_ok()
    seen["closed"] = ch.closed
    return seen


def ask_about_sync(ch: gmpd.Chan[int], home: int) -> dict[str, Any]:
    spin(SPIN_S)
    if os.getpid() == home:
        return {}
    ch.sync.send(1)
    ch.sync.send(2)
    seen: dict[str, Any] = {"len": len(ch.sync), "first": ch.sync.recv()}
    own: gmpd.Chan[int] = gmpd.Chan()
    seen["selected"] = [select_sync(gmpd.recv(own), gmpd.recv(ch), default=True) for _ in range(2)]
    gmpd.go(ch.send, 2)
    seen["waited"] = select_sync(gmpd.recv(own), gmpd.recv(ch))
    ch.sync.send(2)
    ch.sync.close()
    seen["rest"] = list(ch.sync)
    try:
        ch.sync.close()
    except gmpd.errors.Panic as exc:
        seen["close"] = str(exc)
    try:
        ch.sync.send(3)
    except gmpd.errors.Panic as exc:
        seen["send"] = str(exc)
    return seen


async def far_facts(kind: str) -> dict[str, Any]:
    """The facts of one child that ran elsewhere, of many with a channel each."""
    fn = ask_about if kind == "async" else ask_about_sync
    while True:
        children = [gmpd.go(fn, gmpd.Chan(3), os.getpid()) for _ in range(40)]
        for facts in [await child for child in children]:
            if facts:
                return facts  # type: ignore[no-any-return]


async def make_and_wait(gift: gmpd.Chan[Any], home: int) -> Any:
    """Give a channel made here to the parent, and wait for a value on it."""
    spin(SPIN_S)
    if os.getpid() == home:
        return None
    own: gmpd.Chan[Any] = gmpd.Chan()
    await gift.send((own, os.getpid()))
    return await own.recv()


async def thief_dies() -> tuple[str, str]:
    """Kill the home of a channel on which this G waits: what it, and the child there, got."""
    gift: gmpd.Chan[Any] = gmpd.Chan()
    children: list[Any] = []
    coming = gmpd.go(gift.recv)
    while not coming.done():
        children += [gmpd.go(make_and_wait, gift, os.getpid()) for _ in range(20)]
        await gmpd.sleep(0.02)
    own, thief = await coming
    waiting = gmpd.go(own.recv)
    await gmpd.sleep(0.05)
    os.kill(thief, signal.SIGKILL)
    told = ""
    try:
        await waiting
    except gmpd.errors.WorkerLost as exc:
        told = str(exc)
    lost = ""
    gift.close()  # others may wait to give theirs
    for child in children:
        try:
            await child
        except gmpd.errors.WorkerLost as exc:
            lost = exc.signal
        except gmpd.errors.Panic:
            pass
    return told, lost


async def count_up(out: gmpd.Chan[int], n: int) -> None:
    for i in range(n):
        await out.send(i)
    out.close()


async def make_source(given: gmpd.Chan[str], home: int) -> dict[str, Any] | None:
    """A channel made here, filled by a child of this one, in a value that has others in it too."""
    spin(SPIN_S)
    if os.getpid() == home:
        return None
    source: gmpd.Chan[int] = gmpd.Chan(2)
    gmpd.go(count_up, source, 10)
    await given.send("hello")
    return {"source": source, "given": [given]}


async def select_over_homes() -> tuple[list[int], list[int]]:
    """Values that a select received from a channel of this worker, and from one of another."""
    found = None
    while found is None:
        given: gmpd.Chan[str] = gmpd.Chan(100)
        children = [gmpd.go(make_source, given, os.getpid()) for _ in range(20)]
        for each in [await child for child in children]:
            found = found or each
    near: gmpd.Chan[int] = gmpd.Chan()
    gmpd.go(count_up, near, 10)
    chans = [near, found["source"]]
    got: tuple[list[int], list[int]] = ([], [])
    lists = list(got)
    while chans:
        index, value, ok = await gmpd.select(*map(gmpd.recv, chans))
        if ok:
            lists[index].append(value)
        else:
            del chans[index], lists[index]
    return got


async def sources_of_children() -> tuple[list[int], bool, str, bool]:
    """Values of a channel that a child elsewhere returned; whether the other is the same yet."""
    given: gmpd.Chan[str] = gmpd.Chan(1000)
    found = None
    while found is None:
        children = [gmpd.go(make_source, given, os.getpid()) for _ in range(20)]
        for each in [await child for child in children]:
            found = found or each
        del children
    gc.collect()
    source = found["source"]
    values = [value async for value in source]
    return values, found["given"][0] is given, await given.recv(), source.home[0] >= 0


def take_chan(_ch: object) -> None:
    pass


async def return_chan() -> gmpd.Chan[int]:
    return gmpd.Chan()
