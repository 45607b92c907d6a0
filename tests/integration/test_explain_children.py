"""A job that waits for its children is explained by them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import gmpd
from gmpd.explain import Explanation, Reason
from tests.shell import Shell, shell_daemon
from tests.support import wait_until

JOBS = """
import os
import gmpd

async def part(path):
    while not os.path.exists(path):
        await gmpd.sleep(0.01)

async def family(path):
    group = gmpd.Group()
    for _ in range(3):
        group.go(part, path)
    await group.wait()
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_daemon(tmp_path, JOBS, procs=1) as shell:
        yield shell


def test_the_children_are_counted_and_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMPD_RUNTIME_DIR", shell.env["GMPD_RUNTIME_DIR"])
    gate = str(shell.directory / "gate")

    async def by_asyncio(id_: str) -> Explanation:
        async with gmpd.AsyncClient() as client:
            return await client.job(id_).explain()

    monkeypatch.syspath_prepend(str(shell.directory))
    with gmpd.Client() as client:
        id_ = client.enqueue(import_module("load").family, gate)
        job = client.job(id_)

        def waits() -> Explanation | None:
            told = job.explain()
            return told if told.reason is Reason.CHILDREN else None

        told = wait_until(waits, "it waits for its children", timeout=40)
        assert told is not None
        assert "for 3 children: 3 part (" in told.text
        assert asyncio.run(by_asyncio(id_)).reason is Reason.CHILDREN
        by_shell = json.loads(shell("explain", id_, "--json").stdout)
        assert by_shell["reason"] == "children"
        os.mknod(gate)
        wait_until(lambda: job.explain().reason is Reason.DONE, "it ends", timeout=40)
