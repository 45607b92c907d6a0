"""Gain of compiling a group of modules: Cython and mypyc beside the same files as pure Python.

    python loadtests/compiled.py
    python loadtests/compiled.py --groups worker --rounds 9

A variant is a copy of gmpd in which one group is compiled, or ``built``: all that an installation
compiles. Cython takes the ``.pxd`` files that are there, as the build does. Each look is a process
of its own on one core, variants in alternation; the figures are CPU time per job that does nothing,
of the parts that ``client_cost.py`` names, without sockets. A ratio is the median of the rounds'
own. It needs a C compiler, and packages of the extra ``dev``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HOOK = ROOT / ".build" / "hook.py"

#: Modules that are compiled together, by the part of a job's way that it does most of.
GROUPS = {
    "policy": [
        f"sched/{name}"
        for name in (
            "ledger", "leasing", "lease_events", "schedt", "admission", "globq", "outboxes",
            "records", "states", "per_function", "ps",
        )
    ],
    "protocol": ["protocol/envelope", "submit/batch"],
    "codec": ["codec/values", "codec/functions", "codec/finding"],
    "client": [
        "submit/core", "submit/batch", "submit/events", "client/calls", "client/futures",
        "client/session", "client/sync",
    ],
    "worker": [
        f"daemon/{name}" for name in ("lease_run", "shm", "claims", "outcomes", "definitions")
    ],
}  # fmt: skip
TOOLS = ("cython", "mypyc")


def _hook() -> Any:
    spec = importlib.util.spec_from_file_location("build_hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = _hook()


def by_cython(modules: list[str], tree: Path) -> None:
    """As the build does, by its hook."""
    into = tree / hook.PACKAGE
    into.mkdir()
    order = {"modules": modules, "directives": table()["directives"], "into": str(into)}
    run([sys.executable, str(HOOK), json.dumps(order)], tree)
    files = hook.sources(tree, modules)
    (into / "__init__.py").write_text(hook.manifest(by="Cython", modules=modules, files=files))


def by_mypyc(modules: list[str], tree: Path) -> None:
    """As one group, which calls inside it profit from."""
    files = [f"{module.replace('.', '/')}.py" for module in modules]
    run([sys.executable, "-m", "mypyc", "--ignore-missing-imports", *files], tree)


def table() -> dict[str, Any]:
    """The part of pyproject.toml that names the modules that the build compiles."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hooks: dict[str, Any] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    return dict(hooks["custom"])


def run(command: list[str], cwd: Path) -> None:
    """Raises RuntimeError with the first error of the tool."""
    env = {**os.environ, "MYPYC_OPT_LEVEL": "2", "MYPYPATH": str(cwd)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stdout + done.stderr
        found = [line for line in said.splitlines() if "error" in line.lower()]
        raise RuntimeError((found or said.splitlines()[-1:])[0])


def make(tree: Path, tool: str, modules: list[str]) -> None:
    """A copy of gmpd with some modules compiled."""
    shutil.copytree(ROOT / "gmpd", tree / "gmpd", ignore=shutil.ignore_patterns("__pycache__"))
    if modules:
        {"cython": by_cython, "mypyc": by_mypyc}[tool](modules, tree)


def measure_one() -> dict[str, float]:
    """With the gmpd that ``PYTHONPATH`` names: microseconds of each part, the fastest looks."""
    sys.path.append(str(ROOT))
    import gmpd
    from loadtests import client_cost

    assert str(gmpd.__file__).startswith(os.environ["PYTHONPATH"]), gmpd.__file__
    client = client_cost.fastest(lambda: client_cost.client_parts(waits=False))
    coordinator = client_cost.fastest(client_cost.coordinator_parts)
    worker = client_cost.fastest(client_cost.worker_parts)
    return {
        "client": sum(client.values()),
        "coordinator": sum(coordinator.values()),
        "worker": sum(worker.values()),
    }


def measure(trees: dict[str, Path], rounds: int) -> dict[str, list[dict[str, float]]]:
    """One variant after the other, every second round backwards."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for number in range(rounds):
        for name in list(trees) if number % 2 else list(reversed(trees)):
            seen[name].append(look(trees[name]))
    return seen


def look(tree: Path) -> dict[str, float]:
    """``measure_one`` with the gmpd of ``tree``. Raises RuntimeError if that does not run."""
    # A tree without modules of Cython would take those of an installation.
    pure = "" if (tree / hook.PACKAGE).exists() else "1"
    env = {**os.environ, "PYTHONPATH": str(tree), "GMPD_PURE": pure}
    command = [sys.executable, "-P", __file__, "--one"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def summarize(seen: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Variant -> part -> median in microseconds, and by pure Python."""
    rows: dict[str, dict[str, Any]] = {}
    for name, rounds in seen.items():
        rows[name] = {}
        for part in ("client", "coordinator", "worker"):
            values = [each[part] for each in rounds]
            pairs = zip(values, (each[part] for each in seen["pure"]), strict=True)
            rows[name][part] = {
                "median": round(statistics.median(values), 2),
                "by_pure": round(statistics.median(value / pure for value, pure in pairs), 3),
            }
    return rows


def variants(groups: list[str], tools: list[str], *, built: bool) -> dict[str, Any]:
    """Name -> tool and modules."""
    found: dict[str, Any] = {"pure": ("", [])}
    for group in groups:
        modules = ["gmpd." + name.replace("/", ".") for name in GROUPS[group]]
        found.update({f"{group}, {tool}": (tool, modules) for tool in tools})
    if built:
        found["built"] = ("cython", list(table()["modules"]))
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--groups", nargs="*", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--tools", nargs="*", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--no-build", action="store_true", help="leave out what is installed")
    parser.add_argument("--trees", type=Path, help="keep the variants there, and use them")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = options()
    if args.one:
        print(json.dumps(measure_one()))
        return
    from loadtests import machine

    report: dict[str, Any] = {"machine": machine.describe(), "rounds": args.rounds, "refused": {}}
    with tempfile.TemporaryDirectory(prefix="gmpd-compiled-") as directory:
        home, trees = args.trees or Path(directory), {}
        wanted = variants(args.groups, args.tools, built=not args.no_build)
        for name, (tool, modules) in wanted.items():
            tree = home / name.replace(", ", "-")
            try:
                if not tree.exists():
                    print(f"making: {name}", file=sys.stderr)
                    make(tree, tool, modules)
                look(tree)
            except RuntimeError as error:
                shutil.rmtree(tree, ignore_errors=True)
                report["refused"][name] = str(error)
            else:
                trees[name] = tree
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # children inherit it
        report["figures"] = summarize(measure(trees, args.rounds))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    if "--one" not in sys.argv:  # else gmpd is that of the variant, not of this directory
        sys.path.insert(0, str(ROOT))
    main()
