"""A virtual environment for each peer, and a Redis for those that need one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Missing(Exception):
    """Something that a peer needs is not to be had."""


def python_of(name: str, packages: Sequence[str], cache: Path) -> str:
    """The interpreter of a peer's environment, made if it is not in the cache."""
    wanted = [str(ROOT) if each == "gmpd" else each for each in packages]
    digest = hashlib.sha256(json.dumps([sys.version, *packages]).encode())
    if str(ROOT) in wanted:  # as this tree is now
        for path in _sources():
            digest.update(path.read_bytes())
    home = cache / f"{name}-{digest.hexdigest()[:12]}"
    for old in cache.glob(f"{name}-*"):
        if old != home:
            shutil.rmtree(old, ignore_errors=True)
    python = str(home / "bin" / "python")
    if (home / "made").exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv")
    if uv is not None:
        _run([uv, "venv", "-q", "-p", sys.executable, str(home)], name)
        # As pip does it; or cold starts compile, where Python may not write what it has compiled.
        install = [uv, "pip", "install", "-q", "--compile-bytecode", "-p", python]
    else:
        _run([sys.executable, "-m", "venv", str(home)], name)
        install = [python, "-m", "pip", "install", "-q"]
    if wanted:
        _run([*install, *wanted], name)
    (home / "made").touch()
    return python


def _sources() -> list[Path]:
    """The files that gmpd is built of."""
    of_gmpd = [path for path in (ROOT / "gmpd").rglob("*") if path.suffix in (".py", ".pxd")]
    return sorted([*of_gmpd, *ROOT.glob(".build/*.py"), ROOT / "pyproject.toml"])


def _run(words: list[str], name: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise Missing(f"its environment cannot be made: {last[:200]}")


def variant(python: str) -> str:
    """Whether gmpd is compiled there."""
    code = "from gmpd.compiled import variant; print(variant())"
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)}
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=env)
    return told.stdout.strip()


def versions(python: str) -> dict[str, str]:
    """Of everything that is installed there."""
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    )
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(told.stdout)
    return found


@contextlib.contextmanager
def redis(place: Path, env: Mapping[str, str]) -> Iterator[str]:
    """A server of its own on a free port, in memory only: its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = place / "redis"
    home.mkdir(exist_ok=True)
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", "",
         "--appendonly", "no"],
        stdout=subprocess.DEVNULL, env=dict(env),
    )  # fmt: skip
    try:
        _await_port(server, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def _await_port(server: subprocess.Popen[bytes], port: int) -> None:
    ends = time.monotonic() + 20
    while True:
        with socket.socket() as tried:
            tried.settimeout(1.0)
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None or time.monotonic() > ends:
            raise Missing("redis-server does not answer")
        time.sleep(0.02)


def redis_version() -> str:
    """As it says itself."""
    program = shutil.which("redis-server")
    if program is None:
        return "none"
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.partition("v=")[2].partition(" ")[0]
