"""One program with what people write today, on every Python: under gmpd.run, and as a job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

for name in ("aiohttp", "anyio", "sqlalchemy", "aiosqlite"):
    pytest.importorskip(name, reason=f"{name} is in the extra dev")

PROGRAM = """
import asyncio, threading, time
import aiohttp, anyio, gmpd
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


async def groups():
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.01, n)) for n in range(3)]
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        timed_out = True
    seen = []
    async with anyio.create_task_group() as group:
        for n in range(3):
            group.start_soon(collect, seen, n)
    assert asyncio.current_task() in asyncio.all_tasks()
    return [task.result() for task in tasks], timed_out, sorted(seen)


async def collect(seen, n):
    await anyio.sleep(0.01)
    seen.append(n)


async def pages():
    async def page(request):
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/") as response:
            body = await response.text()
    await runner.cleanup()
    return body


async def rows():
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        value = (await connection.execute(text("select 41 + 1"))).scalar_one()
    await engine.dispose()
    return value


async def smoke():
    thread = threading.get_ident()
    blocking = [gmpd.go(time.sleep, 0.02) for _ in range(3)]
    told = await groups(), await pages(), await rows()
    for each in blocking:
        await each
    assert threading.get_ident() == thread
    return told


if __name__ == "__main__":
    here = gmpd.run(smoke())
    with gmpd.Client() as client:
        assert client.submit(smoke).result() == here
    print(here)
"""


def test_what_people_write_today_runs_here_and_in_a_job(short_tmp: Path) -> None:
    script = short_tmp / "program.py"
    script.write_text(PROGRAM)
    env = {
        **os.environ,
        "GMPD_RUNTIME_DIR": str(short_tmp / "none"),
        "GMPD_CLIENT__ANNOUNCE": "false",
        "GMPD_DAEMON__PROCS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)],
        env=env, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    told = "(([0, 1, 2], True, [0, 1, 2]), 'hello', 42)\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
