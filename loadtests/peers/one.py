"""One peer in its own virtual environment: `python one.py PEER CELL…`, started by run.py.

Prints a line of JSON when a cell begins and one when it has ended, so that a peer that hangs or is
killed loses that cell alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

sys.path[0] = str(Path(__file__).parents[2])

from loadtests.peers import processes, tasks  # noqa: E402 - found from the line above
from loadtests.peers.peer import Peer, adapter  # noqa: E402
from loadtests.peers.workloads import ALL, Bench  # noqa: E402

#: The longest a peer may take to start (seconds).
START_S = 45.0


class TooLong(Exception):
    """A cell has passed its limit."""


def late(_: int, __: FrameType | None) -> None:
    raise TooLong


def tell(**what: Any) -> None:
    print(json.dumps(what), file=TOLD, flush=True)


class Starts:
    """The peer, started with the settings of the mode that a cell needs."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.mode = ""

    def need(self, mode: str) -> None:
        mode = mode if mode in self.peer.modes else "cpu"
        if mode != self.mode:
            self.end()
            self.peer.start(mode)
            self.mode = mode
            self.peer.run_all(tasks.noop, [1], 60.0)

    def end(self) -> None:
        if self.mode:
            self.mode = ""
            self.peer.stop()


def measure(bench: Bench, starts: Starts, key: str, limit_s: float) -> None:
    """One cell; after a failure the peer is started anew."""
    try:
        signal.setitimer(signal.ITIMER_REAL, START_S)
        starts.need(ALL[key].mode)
        tell(begin=key)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        cell = ALL[key].run(bench)
    except TooLong:
        cell = {"no": f"no end within {limit_s:.0f} s"}
    except Exception as error:
        words = str(error).strip().partition("\n")[0][:120]
        cell = {"no": f"{type(error).__name__}: {words}"}
    signal.setitimer(signal.ITIMER_REAL, 0)
    tell(end=key, cell=cell)
    if "no" in cell and starts.mode:
        signal.setitimer(signal.ITIMER_REAL, 10)
        try:
            starts.end()
        except Exception as error:
            tell(failed=f"stop: {type(error).__name__}: {error}")
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peer")
    parser.add_argument("cells", nargs="*")
    parser.add_argument("--procs", type=int, required=True)
    parser.add_argument("--burn", type=float, required=True)
    parser.add_argument("--began", type=float, required=True)
    parser.add_argument("--scale", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, late)
    peer = adapter(args.peer)(args.procs)
    starts = Starts(peer)
    mode = ALL[args.cells[0]].mode if args.cells else "cpu"
    tell(begin="cold")
    signal.setitimer(signal.ITIMER_REAL, 60)
    starts.need(mode)
    signal.setitimer(signal.ITIMER_REAL, 0)
    tell(end="cold", cell={"value": time.monotonic() - args.began, "n": 1})
    mark = os.environ[processes.MARK]
    bench = Bench(peer, mark, args.burn, args.limit * 0.9, args.scale, args.seed)
    for key in args.cells:
        measure(bench, starts, key, 2 * args.limit if key == "backlog" else args.limit)
    tell(begin="stop")
    if not (args.cells and ALL[args.cells[-1]].alone):
        signal.setitimer(signal.ITIMER_REAL, 20)
        starts.end()
    tell(end="stop", cell={})
    TOLD.flush()
    os._exit(0)  # a broken pool may wait for its processes for ever; run.py ends those


if __name__ == "__main__":
    # Libraries print; the lines of this script must be alone.
    TOLD = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main()
