"""Go's scheduler trace: the lines are Go's, and their numbers those of P."""

from __future__ import annotations

import re
from typing import Any

import gmpd
from gmpd.daemon.schedtrace import counts_of as counts_of_daemon
from gmpd.runtime.run import new_event_loop
from gmpd.runtime.schedtrace import Counts, counts_of, details, header, line
from gmpd.status import PStatus, Queue, Status

#: Of Go 1.27 (runtime/proc.go); what reads its lines reads ours.
LINE = re.compile(
    r"^SCHED \d+ms: gomaxprocs=(\d+) idleprocs=\d+ threads=\d+ spinningthreads=\d+"
    r" needspinning=[01] idlethreads=\d+ runqueue=\d+ \[ (\d+ )+\] schedticks=\[ (\d+ )+\]$"
)
HEADER = re.compile(
    r"^SCHED \d+ms: gomaxprocs=\d+ idleprocs=\d+ threads=\d+ spinningthreads=\d+"
    r" needspinning=[01] idlethreads=\d+ runqueue=\d+ gcwaiting=(true|false) nmidlelocked=\d+"
    r" stopwait=\d+ sysmonwait=(true|false)$"
)
P = re.compile(
    r"^  P\d+: status=[0-4] schedtick=\d+ syscalltick=\d+ m=(\d+|nil) runqsize=\d+ gfreecnt=\d+"
    r" timerslen=\d+$"
)
M = re.compile(
    r"^  M\d+: p=(\d+|nil) curg=(\d+|nil) mallocing=\d+ throwing=\d+ preemptoff=\S* locks=\d+"
    r" dying=\d+ spinning=(true|false) blocked=(true|false) lockedg=(\d+|nil)$"
)
G = re.compile(r"^  G\d+: status=(\d+)\((.*)\) m=(\d+|nil) lockedm=(\d+|nil)$")

SOME = Counts(1, 5, 1, 1, 0, [2, 0, 0, 3], [2, 0, 2, 4])


def test_the_line_is_go_s() -> None:
    assert line(0, SOME) == (
        "SCHED 0ms: gomaxprocs=4 idleprocs=1 threads=5 spinningthreads=1 needspinning=0"
        " idlethreads=1 runqueue=0 [ 2 0 0 3 ] schedticks=[ 2 0 2 4 ]"
    )
    assert LINE.match(line(12_345, SOME))
    assert HEADER.match(header(12_345, SOME))


def test_a_daemon_is_counted_over_its_ps() -> None:
    ps = [
        PStatus(p=0, up=1, state="running", ms=3, idle_ms=1, runq=7, schedtick=100),
        PStatus(p=1, up=1, state="idle", ms=1, runq=0, schedtick=9),
        PStatus(p=2, up=1, state="searching", ms=1, schedtick=1),
        PStatus(p=3, up=0, state="dead"),
        PStatus(p=4, up=1, state="draining", ms=1, runq=5),  # `gmpd procs 4` took it away
    ]
    status = Status(procs=4, queue=Queue(in_queue=11), ps=ps)
    assert counts_of_daemon(status) == Counts(1, 8, 1, 1, 11, [7, 0, 0, 0], [100, 9, 1, 0])


def test_details_name_p_its_ms_and_gs() -> None:
    seen: dict[str, Any] = {}

    async def parked(ch: gmpd.Chan[int]) -> None:
        await ch.recv_ok()

    async def main() -> None:
        ch = gmpd.Chan[int](0)
        waiting = [gmpd.go(parked, ch) for _ in range(3)]
        sleeping = gmpd.go(gmpd.sleep, 60.0)
        await gmpd.gosched()
        gmpd.go(parked, ch)  # still runnable
        seen["dump"] = details(loop.p, 7, 100, 1 << 20)
        seen["few"] = details(loop.p, 7, 2, 1 << 20)
        seen["short"] = details(loop.p, 7, 100, 400)
        seen["line"] = line(5, counts_of(loop.p))
        ch.close()
        sleeping.cancel()
        for g in waiting:
            await g

    loop = new_event_loop()
    loop.run_until_complete(loop.create_task(main()))
    loop.close()
    first, *rest = seen["dump"].text.splitlines()
    assert P.match(first)
    assert first.startswith("  P7: status=1 ")
    assert " timerslen=1" in first
    assert " runqsize=0 " in first  # Go leaves runnext out
    ms = [text for text in rest if M.match(text)]
    gs = [found for text in rest if (found := G.match(text))]
    assert len(ms) + len(gs) == len(rest)
    assert sum(" p=7 " in text for text in ms) == 1
    states = [(int(found[1]), found[2]) for found in gs]
    assert states.count((4, "chan receive")) == 3
    assert states.count((4, "sleep")) == 1
    assert states.count((2, "")) == 1  # main, which looks
    assert states.count((1, "")) == 1
    assert LINE.match(seen["line"])
    assert seen["few"].shown == 2
    assert seen["few"].gs == seen["dump"].gs == 6
    assert seen["short"].shown < 6
