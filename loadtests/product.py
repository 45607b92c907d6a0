"""The whole product: all tests, on each Python, with the compiled core and with its sources.

    python loadtests/product.py --record
    python loadtests/product.py --pythons 3.12 --variants pure --parts conformance asyncio

Each Python gets a virtual environment and a copy of this tree. The part ``asyncio`` is CPython's
own tests on gmpd's loop. Tests that fail are tried once more, and named, as CI does.
``--record`` replaces the rows that were run in results/product.json, so that the whole can be run
in pieces. On two cores it takes hours.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from loadtests import machine, revisions

RESULTS = Path(__file__).parent / "results" / "product.json"
PYTHONS = ("3.11", "3.12", "3.13")
#: Variant -> GMPD_PURE for the tests.
VARIANTS = {"compiled": "", "pure": "1"}
PARTS = {
    "unit, sim": ["tests/unit", "tests/sim"],
    "conformance": ["tests/conformance"],
    "integration": ["tests/integration"],
    "asyncio": [],
}
#: The last line of asyncio_suite.py.
TOLD = re.compile(r"(\d+) pass on gmpd's loop, (\d+) on the standard one only, (\d+) excepted")
SECOND_TRY = "passed only at the second try: "

Row = dict[str, Any]


def interpreter(version: str) -> str:
    """The path of a Python of this version. Raises SystemExit if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    path = str(found[-1]) if found else shutil.which(f"python{version}")
    if path is None:
        raise SystemExit(f"Python {version} is not here: --pythons leaves it out")
    return path


def environment(version: str, home: Path) -> tuple[Path, Path]:
    """The interpreter of an environment with gmpd compiled, and the tree that it tests."""
    python, tree = home / version / "venv" / "bin" / "python", home / version / "tree"
    if not (home / version / "installed").exists():
        print(f"{version}: installing", file=sys.stderr)
        shutil.rmtree(home / version, ignore_errors=True)
        tree.mkdir(parents=True)
        revisions.copy_of(None, tree)
        make = [interpreter(version), "-m", "venv", str(python.parents[1])]
        subprocess.run(make, check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", ".[dev,load]"],
            cwd=tree, env=cleared(GMPD_PURE="0"), check=True,
        )  # fmt: skip
        (home / version / "installed").touch()
    return python, tree


def cleared(**env: str) -> dict[str, str]:
    """This process's environment without what would lead tests elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GMPD_", "PYTHON", "PYTEST"))}
    kept.pop("VIRTUAL_ENV", None)
    return kept | env


def rows(options: argparse.Namespace, home: Path) -> Iterator[Row]:
    """One row for each Python, variant and part, when it was run."""
    for version in options.pythons:
        python, tree = environment(version, home)
        for variant in options.variants:
            env = cleared(
                GMPD_PURE=VARIANTS[variant], PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}"
            )
            about = described(python, tree, env)
            if not about["gmpd"].startswith(variant):
                raise SystemExit(f"{version} is to be {variant}, and is: {about['gmpd']}")
            for part in options.parts:
                print(f"{version}, {variant}: {part}", file=sys.stderr)
                began = time.monotonic()
                run = of_asyncio if part == "asyncio" else of_pytest
                found = run(tree, env, PARTS[part])
                yield about | {
                    "variant": variant,
                    "part": part,
                    **found,
                    "seconds": round(time.monotonic() - began),
                    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                }


def described(python: Path, tree: Path, env: dict[str, str]) -> Row:
    program = (
        "import json, sys; from gmpd import compiled; print(json.dumps({"
        "'python': sys.version.split()[0], 'gmpd': str(compiled.variant())}))"
    )
    command = [str(python), "-c", program]
    done = subprocess.run(command, cwd=tree, env=env, check=True, stdout=subprocess.PIPE)
    about: Row = json.loads(done.stdout)
    return about


def of_pytest(tree: Path, env: dict[str, str], directories: Sequence[str]) -> Row:
    """Runs by ``.ci/tests``."""
    with tempfile.TemporaryDirectory(prefix="gmpd-product-") as directory:
        report, again, log = (Path(directory, name) for name in ("report.xml", "again", "log"))
        command = [".ci/tests", "-q", f"--junitxml={report}", *directories]
        with log.open("wb") as output:
            done = subprocess.run(
                command, cwd=tree, env=env | {"SECOND_TRIES": str(again)}, check=False,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        if done.returncode not in (0, 1) or not report.exists():  # interrupted, or died
            raise SystemExit(f"pytest did not end:\n{log.read_text()[-3000:]}")
        second = again.read_text().splitlines() if again.exists() else []
        found = counted(report) | {"second_try": [s.removeprefix(SECOND_TRY) for s in second]}
        if found["failed"]:
            print(log.read_text()[-20_000:], file=sys.stderr)
    if len(second) == len(found["failed"]):  # all of them: .ci/tests names no part of them
        found["passed"], found["failed"] = found["passed"] + len(second), []
    return found


def counted(report: Path) -> Row:
    """Outcomes of the first try."""
    failed, skipped, passed = [], 0, 0
    for case in ET.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "failed": failed, "skipped": skipped}


def of_asyncio(tree: Path, env: dict[str, str], _: Sequence[str]) -> Row:
    """Tests that pass on the standard loop only are the failed ones; excepted ones are skipped."""
    command = ["python", "tests/conformance/asyncio_suite.py"]
    done = subprocess.run(
        command, cwd=tree, env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    told = TOLD.search(done.stdout)
    if told is None:
        raise SystemExit(f"asyncio_suite.py died:\n{done.stdout}")
    lines = done.stdout.splitlines()
    failed = [line.strip() for line in lines if line.startswith("test.test_asyncio.")]
    passed, _failed, excepted = map(int, told.groups())
    return {"passed": passed, "failed": failed, "skipped": excepted, "second_try": []}


def merged(before: list[Row], now: list[Row]) -> list[Row]:
    """Rows of before that were not run now, and those of now, in the order of the table."""

    def key(row: Row) -> tuple[list[int], int, int]:
        version = [int(part) for part in row["python"].split(".")]
        return version, [*VARIANTS].index(row["variant"]), [*PARTS].index(row["part"])

    found = {str(key(row)): row for row in [*before, *now]}
    return sorted(found.values(), key=key)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the environments there")
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    options = parser.parse_args()
    about = machine.describe()
    seen: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gmpd-product-") as directory:
        for row in rows(options, options.keep or Path(directory)):
            seen.append(row)
            print(json.dumps(row), flush=True)
            if options.record:
                known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
                report = {"machine": about, "rows": merged(known, seen)}
                RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(row["failed"] for row in seen) else 0


if __name__ == "__main__":
    sys.exit(main())
