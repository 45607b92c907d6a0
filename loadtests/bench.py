"""`gmpd bench`, recorded with the machine that it ran on; or two revisions beside each other.

    python loadtests/bench.py --record
    python loadtests/bench.py --against REV

The first only calls and keeps: the measuring is the command's own. The second installs revision REV
and the files as they are now into virtual environments of their own, measures both in turn
(``against.py``), prints what every operation costs each process, and ends with 1 if one takes
longer than in REV by more than ``--margin``: it says which and by how much.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from loadtests import against, machine, revisions

RESULTS = Path(__file__).parent / "results"

#: Of ``--against``: by how much an operation may take longer before that counts as a loss. A
#: revision against itself, 7 boots of each on two cores at a load of 12 to 19: medians of CPU time
#: from x0.92 to x1.09, of wall time from x0.92 to x1.14; rows of a P alone from x0.98 to x1.00.
MARGIN = 0.1


def measure(rounds: int, scale: float) -> dict[str, Any]:
    """Its rows as the command gives them, and where they are from."""
    described = machine.describe()
    command = [sys.executable, "-m", "gmpd.cli", "bench", "--json"]
    command += ["--rounds", str(rounds), "--scale", str(scale)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {"machine": described, "rounds": rounds, "rows": json.loads(done.stdout)}


def compare(revision: str, boots: int, rows: list[str], keep: Path | None) -> dict[str, Any]:
    """The report about a revision and this tree."""
    with tempfile.TemporaryDirectory(prefix="gmpd-bench-") as directory:
        home = keep or Path(directory)
        pythons = revisions.python_of(revision, home), revisions.python_of(None, home)
        return against.measure(pythons, boots, rows)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="with --against: boots of each")
    parser.add_argument("--scale", type=float, default=1.0, help="of what `gmpd bench` measures")
    parser.add_argument("--record", action="store_true", help="write the result to results/")
    parser.add_argument("--against", metavar="REV", help="compare this tree with a revision")
    parser.add_argument(
        "--margin", type=float, default=MARGIN,
        help="CPU time may rise by this share (default: %(default)s), wall time by thrice that",
    )  # fmt: skip
    parser.add_argument(
        "--rows", nargs="+", choices=against.ROWS, default=list(against.ROWS), metavar="ROW",
        help=f"what to compare: {', '.join(map(repr, against.ROWS))}",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, metavar="DIR",
        help="keep the environments there, and use that of REV again",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the whole report")
    return parser.parse_args()


def main() -> int:
    args = options()
    if args.against is None:
        report, name = measure(args.rounds, args.scale), "bench"
    else:
        report, name = compare(args.against, args.rounds, args.rows, args.keep), "against"
    text = json.dumps(report, indent=1) + "\n"
    if args.record:
        (RESULTS / f"{name}.json").write_text(text)
    if args.against is None or args.json:
        print(text, end="")
    if args.against is None:
        return 0
    if not args.json:
        print(against.table(report))
    losses = against.slower(report["rows"], args.margin)
    for loss in losses:
        print(f"slower than {args.against}: {loss}", file=sys.stderr)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
