"""Signal handlers that use the client which they interrupt, or raise: at every line of it.

The signal is real, and comes while a given line of a given verb is about to run in the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed, wait
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle
import pytest

import gmpd
from gmpd.client.defer_signals import DEFER_SIGNALS
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")

ROOMS = tuple(f"{Path(gmpd.__file__).parent / room}{os.sep}" for room in ("client", "codec"))
DEADLINE_S = 20.0
SIGNAL = signal.SIGUSR1

Line = tuple[str, int]
Action = Callable[[gmpd.Client, list[Any]], object]


def one(client: gmpd.Client, out: list[Any]) -> None:
    out.append(client.submit(abs, -1))
    assert out[-1].result(DEADLINE_S) == 1


def many(client: gmpd.Client, out: list[Any]) -> None:
    mine = [client.submit(abs, -1) for _ in range(70)]
    out += mine
    assert not wait(mine, DEADLINE_S).not_done
    assert {f.result(0) for f in as_completed(mine, DEADLINE_S)} == {1}


def pickled(client: gmpd.Client, out: list[Any]) -> None:
    assert client.submit(divmod, 7, 2).result(DEADLINE_S) == (3, 1)


def mapped(client: gmpd.Client, out: list[Any]) -> None:
    assert list(client.map(abs, [-1] * 20, chunksize=2)) == [1] * 20
    assert list(client.map(abs, [-1] * 20, ordered=False)) == [1] * 20


def streamed(client: gmpd.Client, out: list[Any]) -> None:
    assert list(client.stream(range, 40)) == list(range(40))


def asked(client: gmpd.Client, out: list[Any]) -> None:
    assert client.call("ping")["unfinished"] >= 0


def cancelled(client: gmpd.Client, out: list[Any]) -> None:
    out.append(client.submit(asyncio.sleep, 0.01, 1))
    out[-1].cancel()


def called_back(client: gmpd.Client, out: list[Any]) -> None:
    called: list[object] = []
    out.append(client.submit(abs, -1))
    out[-1].add_done_callback(called.append)
    wait_until(lambda: called, "the callback")


def only_submitted(client: gmpd.Client, out: list[Any]) -> None:
    out.append(client.submit(abs, -1))


def pooled(client: gmpd.Client, out: list[Any]) -> None:
    with gmpd.Executor(client=client) as pool:
        out.append(pool.submit(abs, -1))
        assert list(pool.map(abs, [-1] * 4, chunksize=2, buffersize=1)) == [1] * 4
        pool.submit(abs, -1).cancel()


SCRIPT = """
count, LIMIT, big = 0, 1, "x" * 20_000

def f():
    global count
    count += 1
    return helper(count)

def helper(x):
    return x + len(big) - 20_000

def of(thing):
    return LIMIT, type(thing).__name__, isinstance(thing, Thing)

class Thing:
    pass
"""


class Script(types.ModuleType):
    """A module that goes by value, while it is in use."""

    def __enter__(self) -> dict[str, Any]:
        exec(SCRIPT, self.__dict__)
        sys.modules[self.__name__] = self
        cloudpickle.register_pickle_by_value(self)
        return self.__dict__

    def __exit__(self, *_: object) -> None:
        cloudpickle.unregister_pickle_by_value(self)
        del sys.modules[self.__name__]


numbers = itertools.count()


def by_value(client: gmpd.Client, out: list[Any]) -> None:
    """Functions, classes and globals of a script: new ones, so that nothing of them was sent."""
    with Script(f"script_{next(numbers)}") as script:
        called = client.submit(script["f"])
        out.append(called)
        script["LIMIT"] = 2
        found = client.submit(script["of"], script["Thing"]())
        thing = script["Thing"]
        made = client.submit(lambda: thing())
        assert found.result(DEADLINE_S) == (2, "Thing", True)
        assert called.result(DEADLINE_S) == 1
        assert type(made.result(DEADLINE_S)) is thing


VERBS: list[Action] = [
    one, many, pickled, mapped, streamed, asked, cancelled, called_back, pooled, by_value,
]  # fmt: skip
#: What a handler does.
ACTIONS: list[Action] = [only_submitted, one, mapped, streamed, asked, cancelled, pooled, by_value]


class Raised(TimeoutError, ValueError, KeyError, IndexError, RuntimeError):
    """The error that a handler raises, of each kind that an ``except`` of the client is for."""


class At:
    """Raises the signal at the n-th coming of one line; remembers all lines that came."""

    def __init__(self, line: Line | None, times: int = 1) -> None:
        self.line, self.times = line, times
        self.seen: dict[Line, int] = {}

    def __enter__(self) -> At:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(ROOMS):
            return None
        if event == "line":
            line = frame.f_code.co_filename, frame.f_lineno
            self.seen[line] = self.seen.get(line, 0) + 1
            if line == self.line and self.seen[line] == self.times:
                sys.settrace(None)
                signal.raise_signal(SIGNAL)
        return self._trace


#: Lines of one verb that are tried. A function by value passes many more.
MOST = 150


def some_of(survey: At, dice: random.Random) -> list[Line]:
    lines = sorted(survey.seen)
    return lines if len(lines) <= MOST else dice.sample(lines, MOST)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gmpd.Client]:
    with gmpd.Client() as made:
        yield made


@pytest.fixture(autouse=True)
def handler_restored() -> Iterator[None]:
    """The test's handler is gone, and the recorder of a block whose end the last one interrupted:
    the next block restores those, once no frame of that one is kept."""
    before = signal.getsignal(SIGNAL)
    yield
    signal.signal(SIGNAL, before)
    gc.collect()  # the frames of a test refer to each other
    with DEFER_SIGNALS:
        pass


def check(client: gmpd.Client, out: list[Any], where: str) -> None:
    left = wait(out, DEADLINE_S).not_done
    assert not left, f"{where}: {len(left)} futures never ended"
    assert {f.result(0) for f in out if not f.cancelled()} <= {1}, where
    wait_until(lambda: client.unfinished() == 0, f"{where}: no job is left over")
    assert client.submit(abs, -2).result(DEADLINE_S) == 2, where


@pytest.mark.timeout(40)
@pytest.mark.parametrize("verb", VERBS)
def test_a_handler_uses_the_client_at_every_line(client: gmpd.Client, verb: Action) -> None:
    dice = random.Random(verb.__name__)
    with At(None) as survey:
        verb(client, [])
    for number, line in enumerate(some_of(survey, dice)):
        action = ACTIONS[number % len(ACTIONS)]
        ran: list[Any] = []
        out: list[Any] = []

        def handler(*_: object, action: Action = action, ran: Any = ran, out: Any = out) -> None:
            action(client, out)
            ran.append(action)

        signal.signal(SIGNAL, handler)
        at = At(line, dice.randint(1, survey.seen[line]))
        with at:
            verb(client, out)
        where = f"{action.__name__} in {verb.__name__} at {line}"
        assert bool(ran) == (at.seen.get(line, 0) >= at.times), where
        if number % 20 == 0:
            check(client, out, where)
    assert len(survey.seen) > 30


@pytest.mark.timeout(40)
@pytest.mark.parametrize("how", [{"wait": False, "cancel_futures": True}, {"wait": True}])
def test_a_handler_ends_the_executor_at_every_line_of_it(
    client: gmpd.Client, how: dict[str, bool]
) -> None:
    def use(pool: gmpd.Executor, out: list[Any]) -> None:
        out.append(pool.submit(abs, -1))
        out.append(pool.submit(divmod, 7, 2))
        pool.shutdown()

    with At(None) as survey:
        use(gmpd.Executor(client=client), [])
    for line in sorted(survey.seen):
        pool = gmpd.Executor(client=client)
        out: list[Any] = []
        signal.signal(SIGNAL, lambda *_, pool=pool: pool.shutdown(**how))
        with contextlib.suppress(RuntimeError), At(line):  # it cannot be used after shutdown
            use(pool, out)
        assert not wait(out, DEADLINE_S).not_done, line
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(abs, -1)
    assert len(survey.seen) > 30


@pytest.mark.timeout(40)
@pytest.mark.parametrize("verb", [one, mapped, streamed, asked, called_back, by_value])
def test_what_a_handler_raises_reaches_its_program(client: gmpd.Client, verb: Action) -> None:
    """At every line, whatever it is: no ``except`` of the client takes it for its own."""
    dice = random.Random(verb.__name__)

    def handler(*_: object) -> None:
        raise Raised

    signal.signal(SIGNAL, handler)
    with At(None) as survey:
        verb(client, [])
    for number, line in enumerate(some_of(survey, dice)):
        at = At(line, dice.randint(1, survey.seen[line]))
        out: list[Any] = []
        raised = False
        try:
            with at:
                verb(client, out)
        except Raised:
            raised = True
        assert raised == (at.seen.get(line, 0) >= at.times), f"in {verb.__name__} at {line}"
        if number % 20 == 0:
            check(client, out, verb.__name__)


@pytest.mark.timeout(90, method="thread")  # the test has the timer that the other method uses
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("verb", VERBS)
def test_a_handler_that_raises_at_any_moment_loses_nothing(
    client: gmpd.Client, verb: Action
) -> None:
    """A timer's handler raises an ordinary exception, as programs do to bound a call.

    Python drops it in a finalizer, and so does the standard library where it expects one of its
    kind (`os.path.realpath`, a ChainMap): the timer goes off again. No line of gmpd drops any.
    """
    dice = random.Random(verb.__name__)
    called: list[FrameType] = []

    def handler(_number: int, frame: FrameType | None) -> None:
        assert frame is not None
        called.append(frame)
        raise Raised

    signal.signal(signal.SIGALRM, handler)
    kept = [client.submit(divmod, 7, 2) for _ in range(5)]
    # `concurrent.futures.wait` keeps conditions that it has when a handler raises in it: a second.
    try:
        for _ in range(5 if verb is many else 25):
            out: list[Any] = []
            del called[:]
            try:
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.00005, 0.002), 5)
                while True:
                    del out[:]
                    verb(client, out)
                    for future in kept:
                        future.result(DEADLINE_S)
            except Raised:
                signal.setitimer(signal.ITIMER_REAL, 0)
            dropped = [frame.f_code for frame in called[:-1]]
            assert not [code for code in dropped if code.co_filename.startswith(ROOMS)]
            check(client, out, verb.__name__)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert {f.result(0) for f in kept} == {(3, 1)}
    assert signal.getsignal(SIGNAL) is not None


TERMINATED = """
import os, random, signal, sys, threading, time
import gmpd

how = sys.argv[1]
executor = gmpd.Executor(2)
client = executor._client
futures = []

def stop(*_):
    if how == "shutdown":
        executor.shutdown(wait=False, cancel_futures=True)
    elif how == "cancel":
        for f in futures[-20:]: f.cancel()
    elif how == "wait":
        executor.shutdown(wait=True, cancel_futures=True)
    elif how == "close":
        client.close(wait=False)
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
timer = threading.Timer(random.Random(int(sys.argv[2])).uniform(0, 0.1), os.kill,
                        (os.getpid(), signal.SIGTERM))
timer.start()
while True:
    futures.append(executor.submit(abs, -1))
    if len(futures) % 50 == 0:
        futures[-1].result()
"""


@pytest.mark.parametrize("how", ["shutdown", "cancel", "wait", "close"])
def test_a_program_that_ends_in_its_handler_ends(how: str) -> None:
    for seed in range(2):
        ran = subprocess.run(
            [sys.executable, "-c", TERMINATED, how, str(seed)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 7, ran.stderr


FORKS = """
import multiprocessing, os, sys, threading, time
import gmpd

def child(client, future):
    for use in (lambda: client.submit(abs, 1), future.result, future.cancel, client.drain,
                lambda: client.call("ping"), lambda: list(client.map(abs, [1]))):
        try:
            use()
        except RuntimeError as error:
            assert "fork" in str(error), error
        else:
            os._exit(3)
    client.close()

def main():
    client = gmpd.Client()
    future = client.submit(time.sleep, 60)
    over = threading.Event()
    def busy():
        while not over.is_set():
            client.submit(abs, -1).result()
    threads = [threading.Thread(target=busy) for _ in range(2)]
    for t in threads: t.start()
    context = multiprocessing.get_context("fork")
    codes = []
    def fork():
        for _ in range(8):
            process = context.Process(target=child, args=(client, future))
            process.start()
            process.join(20)
            codes.append(process.exitcode)
            if process.exitcode is None: process.kill()
            pid = os.fork()
            if pid == 0:
                sys.exit(0)  # the ordinary way out, with all that runs at exit
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if "thread" in sys.argv:
        t = threading.Thread(target=fork); t.start(); t.join()
    else:
        fork()
    over.set()
    for t in threads: t.join()
    assert client.submit(abs, -2).result(20) == 2
    client.close(wait=False)
    print(set(codes))

main()
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_forks_at_any_moment_are_told_and_end(where: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, where],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert ran.stdout.strip() == "{0}", ran.stderr
