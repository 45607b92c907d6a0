"""`gmpd map` over millions of lines: how fast, and whether a process grows.

    python loadtests/map_lines.py                         # five million lines through builtins:len
    python loadtests/map_lines.py --lines 100000 --json - # shorter, as JSON on stdout

Starts a daemon of its own with two Ps, pipes lines of "y" through the command, counts what comes
out, and looks at the resident memory of client, coordinator and workers once a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gmpd.client.sync import Client
from loadtests import machine

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "map_lines.json"

#: Seconds between two looks at memory.
LOOK_EVERY_S = 1.0
#: Looks before this share of the run are start-up: windows fill, modules load.
WARM = 0.2


def rss_mb(pid: int) -> float:
    """Resident memory of a process, MB; 0 of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Looks:
    """Memory of processes by name, over time."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self.seen: dict[str, list[float]] = {name: [] for name in pids}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            for name, pid in self._pids.items():
                self.seen[name].append(round(rss_mb(pid), 1))

    def end(self) -> dict[str, dict[str, float]]:
        """For each: after the start, at most, and in the end, MB."""
        self._over.set()
        self._thread.join()
        found = {}
        for name, looks in self.seen.items():
            if looks:
                warm = looks[int(len(looks) * WARM) :]
                found[name] = {"warm_mb": warm[0], "max_mb": max(warm), "end_mb": warm[-1]}
        return found


def run(lines: int, function: str, directory: str) -> dict[str, Any]:
    """One run against the daemon of ``directory``."""
    env = {**os.environ, "GMPD_RUNTIME_DIR": directory}
    with Client(directory) as client:
        status = client.call("status")
    source = subprocess.Popen(
        ["sh", "-c", f"yes | head -n {lines}"], stdout=subprocess.PIPE, env=env
    )
    began = time.monotonic()
    command = subprocess.Popen(
        [sys.executable, "-m", "gmpd.cli", "map", function],
        stdin=source.stdout, stdout=subprocess.PIPE, env=env, cwd=ROOT,
    )  # fmt: skip
    assert source.stdout is not None
    assert command.stdout is not None
    source.stdout.close()
    pids = {"client": command.pid, "coordinator": status["pid"]}
    looks = Looks({**pids, **{f"worker {p['p']}": p["pid"] for p in status["ps"]}})
    got = 0
    while block := command.stdout.read(1 << 16):
        got += block.count(b"\n")
    took = time.monotonic() - began
    memory = looks.end()
    if command.wait() != 0 or source.wait() != 0 or got != lines:
        raise SystemExit(f"{got} of {lines} lines came out, exit status {command.returncode}")
    return {"lines": lines, "seconds": round(took, 1), "per_s": round(lines / took), "rss": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--function", default="builtins:len")
    parser.add_argument("--json", default=str(RESULTS), help="where to write; - for stdout")
    args = parser.parse_args()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="gl-", dir="/tmp") as directory:
        env = {**os.environ, "GMPD_RUNTIME_DIR": directory, "GMPD_HTTP__ENABLED": "false"}
        daemon = subprocess.Popen(
            [sys.executable, "-m", "gmpd.cli", "serve", "--procs", "2"],
            env=env, cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(Path(directory) / "gmpd.json", daemon)
            figures = run(args.lines, args.function, directory)
        finally:
            daemon.terminate()
            daemon.wait()
    text = json.dumps({"machine": about, "function": args.function, **figures}, indent=1)
    if args.json == "-":
        print(text)
    else:
        Path(args.json).write_text(text + "\n")


def wait_for(path: Path, daemon: subprocess.Popen[bytes]) -> None:
    """Until the daemon says where it is."""
    end = time.monotonic() + 30
    while not path.exists():
        if daemon.poll() is not None or time.monotonic() > end:
            raise SystemExit("the daemon did not start")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
