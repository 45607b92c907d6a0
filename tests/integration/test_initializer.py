"""An initializer and the calls after it share globals, thread and context, as in a process pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_by_value import run

SETUP = """
import contextvars, decimal, os, signal, sqlite3, threading, time

state, connection = None, None
local = threading.local()
var = contextvars.ContextVar("var", default="unset")

def init(value, queue=None):
    global state, connection
    state = value
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (n)")
    local.value = value
    var.set(value)
    decimal.getcontext().prec = 5
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if queue is not None:
        queue.put(os.getpid())

def look(n):
    connection.execute("insert into t values (?)", (n,))
    count = connection.execute("select count(*) from t").fetchone()[0]
    seen = state, local.value, var.get(), str(decimal.Decimal(1) / 3), count
    var.set("changed")
    decimal.getcontext().prec = 2
    return seen

async def look_async():
    return state, var.get(), str(decimal.Decimal(1) / 3)

def slow():
    time.sleep(0.3)
    return threading.current_thread() is threading.main_thread()
"""

USE = """
import gmpd
{imports}

if __name__ == "__main__":
    with gmpd.Executor(1, initializer=init, initargs=("here",)) as pool:
        for n in range(3):
            print(pool.submit(look, n).result())
        print(pool.submit(look_async).result())
        print([future.result() for future in [pool.submit(slow) for _ in range(3)]])
        print(pool.submit(look, 9).result(), state)
"""

EXPECTED = [
    "('here', 'here', 'here', '0.33333', 1)",
    "('here', 'here', 'here', '0.33333', 2)",
    "('here', 'here', 'here', '0.33333', 3)",
    "('here', 'here', '0.33333')",
    "[True, True, True]",
    "('here', 'here', 'here', '0.33333', 4) None",
]


@pytest.mark.parametrize("where", ["script", "module"])
def test_what_it_sets_is_what_calls_find(tmp_path: Path, where: str) -> None:
    (tmp_path / "setup_of.py").write_text(SETUP)
    imports = SETUP if where == "script" else "from setup_of import *\nfrom setup_of import state"
    assert run(tmp_path, USE.replace("{imports}", imports)) == EXPECTED


def test_a_time_limit_interrupts_a_call_on_the_main_thread(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
        import gmpd, time

        @gmpd.job(timeout=0.3)
        def spin():
            while True:
                time.sleep(0.01)

        def init():
            pass

        with gmpd.Executor(1, initializer=init) as pool:
            for _ in range(2):
                try:
                    pool.submit(spin).result()
                except gmpd.errors.JobTimeout:
                    print("ended")
            print(pool.submit(abs, -1).result())
        """,
    )
    assert lines == ["ended", "ended", "1"]


def test_proxies_of_a_manager_work_as_arguments(tmp_path: Path) -> None:
    """The key of multiprocessing goes along: to a private daemon, and to initializers."""
    lines = run(
        tmp_path,
        """
        import gmpd, multiprocessing, os

        def init(queue):
            queue.put("ready")

        shared = None

        def share(n):
            shared.put(n)

        def work(n, queue, event, lock):
            event.wait(10)
            with lock:
                queue.put(n)
            return queue.qsize() > 0

        if __name__ == "__main__":
            with multiprocessing.Manager() as manager:
                queue, event, lock = manager.Queue(), manager.Event(), manager.Lock()
                with gmpd.Executor(1, initializer=init, initargs=(queue,)) as pool:
                    futures = [pool.submit(work, n, queue, event, lock) for n in range(2)]
                    print(queue.get(timeout=20))
                    event.set()
                    print([future.result(20) for future in futures])
                    print(sorted(queue.get(timeout=20) for _ in range(2)))
                    print(pool.submit(queue.put, 7).result(20), queue.get(timeout=20))
                    shared = queue
                    print(pool.submit(share, 8).result(20), queue.get(timeout=20))
        """,
    )
    assert lines == ["ready", "[True, True]", "[0, 1]", "None 7", "None 8"]
