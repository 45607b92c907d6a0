"""For which children a G waits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import gmpd
from gmpd.runtime.go import this_loop
from gmpd.runtime.joins import awaited


async def part() -> None:
    await gmpd.sleep(3600)


async def of_one() -> None:
    await gmpd.go(part)


async def of_group() -> None:
    group = gmpd.Group()
    for _ in range(3):
        group.go(part)
    await group.wait()


async def of_wait_group() -> None:
    group, other = gmpd.WaitGroup(), gmpd.WaitGroup()
    group.go(part)
    other.go(part)
    group.go(part)
    group.add(1)
    await group.wait()


async def of_none() -> None:
    gmpd.go(part)
    await gmpd.sleep(3600)


Parent = Callable[[], Coroutine[Any, Any, None]]


def looked_at(parent: Parent) -> tuple[int, list[str]]:
    async def main() -> tuple[int, list[str]]:
        g = gmpd.go(parent)
        for _ in range(3):
            await gmpd.gosched()
        n, children = awaited(this_loop("main").p, g)
        return n, [child.fn_name for child in children]

    return gmpd.run(main())


def test_the_children_of_each_kind_of_wait_are_found() -> None:
    assert looked_at(of_one) == (1, ["part"])
    assert looked_at(of_group) == (3, ["part"] * 3)
    assert looked_at(of_wait_group) == (3, ["part"] * 2)
    assert looked_at(of_none) == (0, [])
