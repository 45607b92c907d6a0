"""``all goroutines are asleep``: told when nothing can come any more, and only then.

Each case is a program of its own, as its user would run it: what this process has (threads,
handlers, timers of the test runner) would be seen too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FATAL = "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 "

BEGIN = """
import asyncio, ctypes, faulthandler, math, os, select, signal, socket, subprocess, sys, threading
import time, _thread
import gmpd

def later(seconds=0.3):
    '''Another process sends the signal: this one has no thread and no timer for it.'''
    subprocess.Popen(
        [sys.executable, "-c",
         f"import os, time; time.sleep({seconds}); os.kill({os.getpid()}, 10)"])

"""

ALIVE = {
    "add_signal_handler": """
        async def main():
            came = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_signal_handler(10, came.set_result, "came")
            later()
            print(await came)
        """,
    "signal.signal with call_soon_threadsafe": """
        async def main():
            loop = asyncio.get_running_loop()
            came = loop.create_future()
            signal.signal(10, lambda *_: loop.call_soon_threadsafe(came.set_result, "came"))
            later()
            print(await came)
        """,
    "signal.signal with a Chan": """
        async def main():
            ch = gmpd.Chan(1)
            signal.signal(10, lambda *_: ch.sync.send("came"))
            later()
            print(await ch.recv())
        """,
    "signal.signal with a Chan, P on another thread": """
        async def main():
            ch = gmpd.Chan()
            signal.signal(10, lambda *_: ch.sync.send("came"))
            await gmpd.go(len, "")
            later()
            print(await ch.recv())
        """,
    "signal.signal with a Chan, a plain function waits": """
        async def main():
            ch = gmpd.Chan()
            signal.signal(10, lambda *_: ch.sync.send("came"))
            later()
            print(await gmpd.go(lambda: ch.sync.recv()))
        """,
    "a handler set before": """
        ch = None
        signal.signal(10, lambda *_: ch.sync.send("came"))

        async def main():
            global ch
            ch = gmpd.Chan(1)
            later()
            print((await gmpd.select(gmpd.recv(ch)))[1])
        """,
    "a thread in sigwait": """
        async def main():
            signal.pthread_sigmask(signal.SIG_BLOCK, [10])
            ch = gmpd.Chan()
            threading.Thread(target=lambda: (signal.sigwait([10]), ch.sync.send("came"))).start()
            later()
            print(await ch.recv())
        """,
    "a handler, children of plain functions hear signals": """
        async def main():
            # sysmon, which hears none, starts the thread that takes P while the first one sleeps.
            gmpd.go(time.sleep, 1)
            await gmpd.sleep(0.1)
            status = "import signal; print(signal.pthread_sigmask(0, []))"
            ask = lambda: subprocess.check_output([sys.executable, "-c", status], text=True)
            print("came" if await gmpd.go(ask) == "set()\\n" else "blocked")
        """,
    "setitimer": """
        async def main():
            loop = asyncio.get_running_loop()
            came = asyncio.Event()
            signal.signal(signal.SIGALRM, lambda *_: loop.call_soon_threadsafe(came.set))
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            await came.wait()
            print("came")
        """,
    "a thread that Python does not know": """
        async def main():
            ch = gmpd.Chan()
            _thread.start_new_thread(lambda: (time.sleep(0.3), ch.sync.send("came")), ())
            print(await ch.recv())
        """,
    "such a thread from before": """
        asked, answers = os.pipe(), []

        def runtime():
            while os.read(asked[0], 1):
                time.sleep(0.3)
                answers.pop().sync.send("came")

        _thread.start_new_thread(runtime, ())
        time.sleep(0.05)

        async def main():
            answers.append(gmpd.Chan())
            ch = answers[0]
            os.write(asked[1], b"x")
            print(await ch.recv())
        """,
    "a thread": """
        async def main():
            ch = gmpd.Chan()
            threading.Thread(target=lambda: (time.sleep(0.3), ch.sync.send("came"))).start()
            print(await ch.recv())
        """,
    "the main thread, when the loop runs on another": """
        ready = threading.Event()

        async def wait():
            global ch
            ch = gmpd.Chan()
            ready.set()
            print(await ch.recv())

        thread = threading.Thread(target=lambda: gmpd.run(wait()), name="gmpd-like")
        thread.start()
        ready.wait()
        time.sleep(0.3)
        ch.sync.send("came")
        thread.join()
        async def main(): pass
        """,
    "an executor": """
        async def main():
            print(await asyncio.get_running_loop().run_in_executor(
                None, lambda: (time.sleep(0.3), "came")[1]))
        """,
    "a client": """
        async def main():
            with gmpd.Executor(1) as executor:
                slow = executor.submit(lambda: (time.sleep(0.3), "came")[1])
                print(await asyncio.wrap_future(slow))
        """,
    "a child process": """
        async def main():
            process = await asyncio.create_subprocess_exec("sleep", "0.3")
            await process.wait()
            print("came")
        """,
    "a reader": """
        async def main():
            here, there = socket.socketpair()
            came = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(here, came.set_result, "came")
            subprocess.Popen(["sh", "-c", "sleep 0.3; echo >&3"], pass_fds=(), stdin=there,
                             preexec_fn=lambda: os.dup2(there.fileno(), 3), close_fds=False)
            print(await came)
        """,
    "after_func": """
        async def main():
            from gmpd.runtime.timers import after_func
            ch = gmpd.Chan(1)
            after_func(0.3, ch.sync.send, "came")
            print(await ch.recv())
        """,
    "a plain function in a call": """
        async def main():
            ch = gmpd.Chan()
            gmpd.go(lambda: (select.select([], [], [], 0.3), ch.sync.send("came")))
            print(await ch.recv())
        """,
}

DEAD = {
    "chan receive": "async def main(): await gmpd.Chan().recv()",
    "select (no cases)": "async def main(): await gmpd.select()",
    "IO wait": "async def main(): await asyncio.get_running_loop().create_future()",
    "sync.Mutex.Lock": """
        async def main():
            mutex = gmpd.Mutex()
            await mutex.lock()
            await mutex.lock()
        """,
    "sync.WaitGroup.Wait": """
        async def main():
            group = gmpd.WaitGroup()
            group.go(gmpd.Chan().recv)
            await group.wait()
        """,
    "G wait": "async def main(): await gmpd.go(lambda: gmpd.Chan().sync.recv())",
    "chan send": """
        # A watchdog thread in C that has nothing to do with it, and an ignored signal.
        faulthandler.dump_traceback_later(1000)
        signal.signal(10, signal.SIG_IGN)
        time.sleep(0.05)

        async def main():
            await gmpd.Chan().send(1)
        """,
}


def start(text: str, end: str = "gmpd.run(main())") -> subprocess.Popen[str]:
    program = BEGIN + textwrap.dedent(text) + f"\n\n{end}\n"
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("text", ALIVE.values(), ids=list(ALIVE))
def test_what_may_still_come_is_waited_for(text: str) -> None:
    program = start(text)
    said, complained = program.communicate(timeout=50)
    assert (said, program.returncode) == ("came\n", 0), complained


@pytest.mark.parametrize(("reason", "text"), DEAD.items(), ids=list(DEAD))
def test_TestSimpleDeadlock(reason: str, text: str) -> None:
    program = start(text)
    _, complained = program.communicate(timeout=50)
    assert program.returncode == 2, complained
    assert complained.startswith(FATAL + f"[{reason}")


#: What may stand between a task and the Event.
WAITS = """
import contextlib, types

async def items():
    await asyncio.Event().wait()
    yield 1

class Wrapped:
    def __await__(self):
        yield from asyncio.Event().wait().__await__()

class Attribute:
    def __await__(self):
        return asyncio.Event().wait().__await__()

class Steps:
    def __init__(self, inner): self.send = inner.send
    def __iter__(self): return self
    def __next__(self): return self.send(None)

class Delegating:
    def __await__(self):
        return Steps(asyncio.Event().wait())

@contextlib.asynccontextmanager
async def managed():
    async for item in items():
        yield item

def eager(loop, coro, **more):
    more.setdefault("name", None)
    return asyncio.Task(coro, loop=loop, **more)

"""


@pytest.mark.parametrize(
    "main",
    [
        "await asyncio.Event().wait()",
        "await gmpd.go(asyncio.Event().wait)",
        "await asyncio.gather(asyncio.Event().wait(), gmpd.Chan().recv())",
        "await asyncio.wait_for(asyncio.Event().wait(), None)",
        "async for _ in items(): pass",
        "[_ async for _ in items()]",
        "await Wrapped()",
        "await Attribute()",
        "async with managed(): pass",
        "await Delegating()",
        "asyncio.get_running_loop().set_task_factory(eager)\n    await asyncio.create_task("
        "items().__anext__())",
        "gmpd.go(lambda: gmpd.go(asyncio.Event().wait).result())\n    await gmpd.Chan().recv()",
    ],
)
def test_who_waits_for_an_event_waits_until_interrupted(main: str) -> None:
    """As programs do that serve until Ctrl-C, or ask for nothing but their threads and children."""
    program = start(WAITS + f"async def main():\n    print('up', flush=True)\n    {main}")
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    time.sleep(0.2)  # a report would have come meanwhile; on a slow machine it passes too
    assert program.poll() is None
    program.send_signal(signal.SIGINT)
    _, complained = program.communicate(timeout=50)
    assert complained.rstrip().endswith("KeyboardInterrupt")
    assert "fatal error" not in complained


def test_TestGoexitDeadlock_sleeps_without_end_are_dead_under_a_seed_only() -> None:
    sleeps = "async def main(): await gmpd.sleep(math.inf)"
    program = start(sleeps, "gmpd.run(main(), deterministic_seed=1)")
    _, complained = program.communicate(timeout=50)
    assert complained.startswith(FATAL + "[sleep]")
    program = start(sleeps)
    time.sleep(0.5)
    assert program.poll() is None
    program.kill()
    program.communicate()
