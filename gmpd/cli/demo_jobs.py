"""The jobs of `gmpd demo`: ordinary functions, as a user would write them."""

from __future__ import annotations

import re
import time
from pathlib import Path

#: Seconds that a blocking call of the demo blocks.
NAP_S = 0.5


_WORD = re.compile(rb"[A-Za-z_]\w*")
_DEF = re.compile(rb"^[ \t]*(?:async[ \t]+)?def[ \t]", re.MULTILINE)


def count(path: str) -> tuple[int, int, int]:
    """Read a Python file: its lines, its words, and the lines that begin a function.

    By patterns, since ``ast.parse`` does not stand two threads at once in Python 3.11 (SystemError:
    recursion depth mismatch), and a long job shares its process with the next one.
    """
    text = Path(path).read_bytes()
    return text.count(b"\n"), len(_WORD.findall(text)), len(_DEF.findall(text))


async def fetch(url: str) -> int:
    """Get a page with aiohttp; its length."""
    import aiohttp  # here, so that the demo's own process does without: it takes 0.3 s

    async with aiohttp.ClientSession() as session, session.get(url) as response:
        response.raise_for_status()
        return len(await response.read())


def nap() -> float:
    """Block the thread, as an old database driver does."""
    time.sleep(NAP_S)
    return NAP_S


def parse_port(text: str) -> int:
    """Fails, in a function below, as programs do."""
    return _checked(int(text))


def _checked(port: int) -> int:
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not in 1..65535")
    return port


async def crowd(gs: int, turns: int, rounds: int) -> tuple[int, int, int]:
    """Compute by this many child Gs at once: rounds done, Gs alive at once, G switches of this
    P."""
    from gmpd.runtime.go import go, this_loop

    runq = this_loop("the demo").p.runq
    before = runq.schedtick + runq.inherited
    children = [go(crunch, turns, rounds) for _ in range(gs)]
    alive = sum(not g.done() for g in children)
    done = sum([await g for g in children])
    return done, alive, runq.schedtick + runq.inherited - before


async def crunch(turns: int, rounds: int) -> int:
    """Compute ``rounds`` rounds in each turn, and let the other Gs of this P run in between."""
    from gmpd.runtime.go import gosched

    done = 0
    for _ in range(turns):
        done += spin(rounds)
        await gosched()
    return done


def spin(rounds: int) -> int:
    """Do this many rounds of arithmetic; returns how many were done."""
    x = 0
    for n in range(rounds):
        x = (x + n) & 0xFFFF
    return rounds


def calibrate() -> float:
    """Seconds that a round of `spin` takes on this core: the quickest of several tries."""
    rounds = 20_000
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        spin(rounds)
        best = min(best, time.perf_counter() - began)
    return best / rounds
