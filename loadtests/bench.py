"""`gmpd bench`, recorded with the machine that it ran on: `python loadtests/bench.py --record`.

The measuring is the command's own; here it is only called and kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from loadtests import machine

RESULTS = Path(__file__).parent / "results" / "bench.json"


def measure(rounds: int, scale: float) -> dict[str, Any]:
    """Its rows as the command gives them, and where they are from."""
    described = machine.describe()
    command = [sys.executable, "-m", "gmpd.cli", "bench", "--json"]
    command += ["--rounds", str(rounds), "--scale", str(scale)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {"machine": described, "rounds": rounds, "rows": json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args()
    text = json.dumps(measure(args.rounds, args.scale), indent=1) + "\n"
    if args.record:
        RESULTS.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
