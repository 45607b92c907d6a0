"""The cost of a G on each Python: runs runtime_figures.py and collector_figures.py on each.

    python loadtests/pythons.py /opt/v3.11/bin/python /opt/v3.15/bin/python …

Each interpreter has gmpd installed. Its rows replace those of its version in the report, so that
versions that live on different systems can be measured one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def measure(python: str, rounds: int) -> dict[str, Any]:
    """Both reports of one interpreter."""
    with tempfile.TemporaryDirectory() as place:
        runtime, collector = Path(place, "runtime.json"), Path(place, "collector.json")
        words = ["--rounds", str(rounds), "--scale", "0.5", "--only", "gmpd", "asyncio"]
        for script, output, more in (
            ("runtime_figures.py", runtime, words),
            ("collector_figures.py", collector, []),
        ):
            command = [python, str(HERE / script), *more, "--output", str(output)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {**json.loads(runtime.read_text()), "collector": json.loads(collector.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("python", nargs="+", help="an interpreter with gmpd installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "pythons.json")
    args = parser.parse_args()
    known = json.loads(args.output.read_text()) if args.output.exists() else {}
    for python in args.python:
        report = measure(python, args.rounds)
        known[report["machine"]["python"]] = report
        print(f"{report['machine']['python']}: done", file=sys.stderr)
    by_version = sorted(known, key=lambda version: [int(part) for part in version.split(".")])
    args.output.write_text(json.dumps({v: known[v] for v in by_version}, indent=1) + "\n")


if __name__ == "__main__":
    main()
