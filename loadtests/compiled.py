"""The same source pure, compiled by Cython and by mypyc, in turn: runtime, policy and codec.

    pip install cython mypy
    python loadtests/compiled.py --record

Each variant is a copy of the revision that the patches in ``compiled/`` belong to, so this needs a
clone of the repository and a C compiler. ``as is``: Cython on unchanged modules; ``typed``: with
the changes and ``.pxd`` files of ``compiled/cython.patch``; ``mypyc``: with that of its own,
without which mypyc refuses them. Every measurement is a fresh process on one core, in CPU time; a
ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "loadtests" / "results" / "compiled.json"
PATCHES = Path(__file__).with_suffix("")
REVISION = "6ffdeb3617c95c5b200d481c486061e60db10e88"

RUNTIME = ["sched/runq", "runtime/p", "runtime/coro", "runtime/g", "runtime/batch"]
POLICY = [
    f"sched/{name}"
    for name in ("ledger", "leasing", "lease_events", "schedt", "admission", "globq")
]
CODEC = ["codec/values"]

#: Variant -> its patch, the tool, and what is compiled.
VARIANTS: dict[str, tuple[str, str, list[list[str]]]] = {
    "pure": ("", "", []),
    "as is": ("", "cython", [RUNTIME, POLICY, CODEC]),
    "typed": ("cython", "cython", [[*RUNTIME, "runtime/step", "runtime/spawn"]]),
    "mypyc": (
        "mypyc",
        "mypyc",
        [["sched/runq", "runtime/allgs", "runtime/coro", "runtime/g"], POLICY, CODEC],
    ),
}
#: Figure -> what one of it is.
FIGURES = {
    "switch": "ns for a G that yields (gosched)",
    "spawn": "ns to start and finish a G",
    "channel": "ns to pass a value to a G that waits",
    "task": "ns for an asyncio task that yields (sleep(0))",
    "policy": "ns of the coordinator's policy for a job, in batches of 64",
    "codec": "ns to pack and unpack the arguments and the result of a job",
}


# ---- one variant, in a process of its own --------------------------------------------------------


def measure_one() -> dict[str, float]:
    """With the gmpd that ``PYTHONPATH`` names."""
    sys.path.append(str(ROOT))
    import gmpd

    assert str(gmpd.__file__).startswith(os.environ["PYTHONPATH"]), gmpd.__file__
    logging.disable(logging.WARNING)
    found = runtime(gmpd.new_event_loop)
    gc.disable()
    return found | {"policy": policy(), "codec": codec()}


def runtime(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> dict[str, float]:
    from loadtests import runtime_figures as figures

    async def run() -> dict[str, float]:
        tools, tasks = figures.Tools("gmpd"), figures.Tools("asyncio")
        await figures.switch(tools, 2_000)
        return {
            "switch": await figures.switch(tools, figures.TURNS),
            "spawn": await figures.spawn(tools, figures.BATCHES),
            "channel": await figures.channel(tools, figures.TRIPS),
            "task": await figures.switch(tasks, figures.TURNS),
        }

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(run())


def policy(batch: int = 64, rounds: int = 300) -> float:
    """Jobs that a client submits, one P runs and the client hears of."""
    from gmpd.sched.events import TurnEnded
    from tests.desk import Desk

    desk = Desk(recorded=False)
    p, client = desk.ready(0), desk.client()

    def turn() -> None:
        desk.now += 100_000
        desk.sched.handle(TurnEnded(), desk.now)

    def one() -> None:
        desk.submit(client, batch)
        turn()
        while p.started or p.fresh:
            desk.finish(p)
            turn()

    for _ in range(20):
        one()
    began = time.process_time()
    for _ in range(rounds):
        one()
    return (time.process_time() - began) / rounds / batch * 1e9


def codec(n: int = 20_000) -> float:
    from gmpd.codec import values

    began = time.process_time()
    for number in range(n):
        values.decode_call(values.encode_call("f", (number,), {}).data)
        values.decode(values.encode_result(4.0).data)
    return (time.process_time() - began) / n * 1e9


# ---- all of them ---------------------------------------------------------------------------------


def make(name: str, tree: Path, revision: str) -> None:
    """The files of a variant, compiled."""
    patch, tool, groups = VARIANTS[name]
    archive = subprocess.run(
        ["git", "archive", revision, "gmpd", "tests/desk.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    tree.mkdir()
    subprocess.run(["tar", "xf", "-"], cwd=tree, input=archive.stdout, check=True)
    if patch == "mypyc":  # a native class cannot be a base of an asyncio.Task beside it
        shutil.copy(tree / "gmpd/runtime/coro.py", tree / "gmpd/runtime/coropure.py")
    if patch:
        subprocess.run(
            ["git", "apply", "--unidiff-zero", str(PATCHES / f"{patch}.patch")],
            cwd=tree,
            check=True,
        )
    for group in groups:
        files = [f"gmpd/{module}.py" for module in group]
        if tool == "mypyc":
            command = [sys.executable, "-m", "mypyc", "--ignore-missing-imports", *files]
            run(command, tree)
        else:
            for file in files:
                by_cython(tree / file, tree)


def by_cython(source: Path, tree: Path) -> None:
    made = source.with_suffix(".c")
    # Annotations are for readers and mypy; the types of C are in the .pxd.
    run(
        [
            sys.executable,
            "-m",
            "cython",
            "-3",
            "-X",
            "annotation_typing=False",
            str(source),
            "-o",
            str(made),
        ],
        tree,
    )
    run(
        [
            os.environ.get("CC", "cc"), "-O2", "-fno-strict-aliasing", "-fwrapv", "-DNDEBUG",
            "-shared", "-fPIC", "-w", f"-I{sysconfig.get_path('include')}", str(made),
            "-o", str(source.with_suffix(str(sysconfig.get_config_var("EXT_SUFFIX")))),
        ],
        tree,
    )  # fmt: skip


def run(command: list[str], cwd: Path) -> None:
    env = {**os.environ, "MYPYC_OPT_LEVEL": "2"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def measure(names: list[str], trees: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """One variant after the other, every second round backwards."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for name in names if number % 2 else reversed(names):
            env = {**os.environ, "PYTHONPATH": str(trees / name)}
            command = [sys.executable, "-P", __file__, "--one"]
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True)
            seen[name].append(json.loads(done.stdout))
    return seen


def summarize(seen: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Figure -> variant -> median, and its share of the pure one."""
    rows: dict[str, Any] = {}
    for figure in FIGURES:
        pure = [each[figure] for each in seen["pure"]]
        rows[figure] = {}
        for name, rounds in seen.items():
            values = [each[figure] for each in rounds]
            ratios = [value / base for value, base in zip(values, pure, strict=True)]
            rows[figure][name] = {
                "median": round(statistics.median(values)),
                "by_pure": round(statistics.median(ratios), 3),
            }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--revision", default=REVISION, help="default: that of the patches")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument(
        "--trees", type=Path, help="keep the variants here, and use those of before"
    )
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one()))
        return
    from loadtests import machine

    report = {
        "machine": machine.describe(),
        "revision": options.revision,
        "rounds": options.rounds,
        "units": FIGURES,
    }
    with tempfile.TemporaryDirectory() as directory:
        trees = options.trees or Path(directory)
        for name in options.only:
            if not (trees / name).exists():
                print(f"making: {name}", file=sys.stderr)
                make(name, trees / name, options.revision)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # children inherit it
        report["figures"] = summarize(measure(options.only, trees, options.rounds))
    text = json.dumps(report, indent=1) + "\n"
    if options.record:
        RESULTS.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    if "--one" not in sys.argv:  # else gmpd is that of the variant, not of this directory
        sys.path.insert(0, str(ROOT))
    main()
