"""The peers' table: a peer that hangs or dies loses one cell, and nothing of it is left."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.peers import processes, run

KEYS = ["noop", "round_trip", "metg"]


def runner(only: list[str], peer: str, tmp_path: Path) -> run.Runner:
    """With the interpreter of the tests in the place of an environment."""
    args = argparse.Namespace(
        peers=[peer], only=only, rounds=1, procs=2, quick=True, cache=tmp_path, log=tmp_path / "log"
    )
    made = run.Runner(args)
    made.pythons[peer] = sys.executable
    made.burn = 10e6
    return made


#: In the place of one.py: `told` prints a line, and the process has a child that never ends.
FAKE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
keys = [word for word in sys.argv[2:] if word in {keys}]
def told(**what): print(json.dumps(what), flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], pass_fds=[1])
told(begin="cold"); told(end="cold", cell=dict(value=1.0, n=1))
for key in keys:
    told(begin=key)
    if key == "round_trip":
        {fault}
    told(end=key, cell=dict(value=2.0, n=1))
told(begin="stop"); told(end="stop", cell=dict())
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("time.sleep(1000)", "hung for"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)", "hung for"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its program ended with exit code -9"),
        ("os._exit(0)", "its program ended with exit code 0"),
    ],
)
def test_a_peer_that_hangs_or_dies_loses_one_cell(
    fault: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "fake.py"
    script.write_text(FAKE.format(keys=KEYS, fault=fault))
    monkeypatch.setattr(run, "ONE", script)
    monkeypatch.setattr(run, "GRACE_S", 1.0)
    marks: list[str] = []
    end_marked = processes.end_marked

    def end(mark: str, _: float) -> int:
        marks.append(mark)
        return end_marked(mark, 0.0)

    monkeypatch.setattr(processes, "end_marked", end)
    made = runner(KEYS, "processpool", tmp_path)
    made.limit_s = 1.0
    began = time.monotonic()
    made.round("processpool", 0)
    assert time.monotonic() - began < 60, "it waited for the child, which holds the pipe"
    cells = {key: made.seen["processpool", key] for key in KEYS}
    assert cells["noop"] == [{"value": 2.0, "n": 1}]
    assert reason in cells["round_trip"][0]["no"]
    assert cells["metg"] == [{"value": 2.0, "n": 1}], "a second process goes on behind it"
    assert len(marks) == 2
    assert not [pid for mark in marks for pid in processes.marked(mark)]


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["gmpd", "processpool", "asyncio"])
def test_real_peers_have_figures(peer: str, tmp_path: Path) -> None:
    only = ["cold", "noop", "round_trip", "killed"]
    made = runner(only, peer, tmp_path)
    made.scale, made.limit_s, made.burn = 0.05, 60.0, run.burn_rate(2)
    began = time.monotonic()
    made.round(peer, 0)
    report = run.report(made, made.args)["cells"]
    for key in only[:3]:
        assert report[key][peer]["median"] > 0, (key, report[key][peer])
    killed = report["killed"][peer]
    expected = {"gmpd": 100.0, "processpool": killed.get("median"), "asyncio": None}[peer]
    assert killed.get("median") == expected, killed
    assert ("no" in killed) == (peer == "asyncio")
    assert time.monotonic() - began < 110


def test_the_time_of_threads_that_have_ended_counts() -> None:
    code = (
        "import threading, time\n"
        "def burn():\n"
        "    while time.thread_time() < 0.2: pass\n"
        "for _ in range(2):\n"
        "    thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        "print('over', flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "over\n"
        assert processes.cpu_s([process.pid])[process.pid] >= 0.4
        process.communicate("\n")
    assert processes.cpu_s([process.pid]) == {}
