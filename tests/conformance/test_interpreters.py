"""Sub-interpreters beside a P whose sysmon looks at what its threads run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from gmpd.runtime.frames import frame_of, own_state

PROGRAM = textwrap.dedent("""
    import threading, time
    import gmpd
    try:
        from concurrent import interpreters as door
    except ImportError:  # before 3.14
        try:
            import _interpreters as door
        except ImportError:  # before 3.13
            import _xxsubinterpreters as door

    CODE = "x = sum(range(500_000))\\nf = lambda n: n and f(n - 1)\\nf(200)"

    def interpreters(n):
        for _ in range(n):
            one = door.create()
            if hasattr(one, "exec"):
                one.exec(CODE)
                one.close()
            else:
                (door.exec if hasattr(door, "exec") else door.run_string)(one, CODE)
                door.destroy(one)

    async def main():
        end = time.monotonic() + 2
        threads = [threading.Thread(target=interpreters, args=(12,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        looks = 0
        while any(thread.is_alive() for thread in threads) and time.monotonic() < end + 30:
            until = time.monotonic() + 0.15
            while time.monotonic() < until:  # sysmon names this step
                pass
            gmpd.stacks()
            looks += 1
            await gmpd.go(time.sleep, 0.02)
        print("looked", looks > 0)

    gmpd.run(main())
""")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="until 3.12 they share one GIL")
def test_looking_at_threads_does_not_abort_beside_other_interpreters() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "looked True\n"


def test_a_frame_of_another_thread_is_that_of_its_code() -> None:
    class Other:
        state = 0

    other, ready, over = Other(), threading.Event(), threading.Event()

    def waits_here() -> None:
        other.state = own_state()
        ready.set()
        over.wait()
        other.state = 0

    thread = threading.Thread(target=waits_here)
    assert frame_of(other) is None
    thread.start()
    ready.wait()
    names = []
    frame = frame_of(other)
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    over.set()
    thread.join()
    assert "waits_here" in names
    assert frame_of(other) is None
