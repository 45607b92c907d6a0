"""``go`` finds its P by what asyncio shows as the running loop, whatever it remembers of that."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

import gmpd
from gmpd.runtime.internals import running_loop, set_running_loop
from gmpd.runtime.loop import Loop


async def nothing() -> None: ...


def test_a_closed_loop_is_not_kept() -> None:
    async def main() -> Any:
        await gmpd.go(nothing)
        return weakref.ref(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.run(main())
    del runner
    gc.collect()
    assert loop() is None


def test_children_belong_to_the_loop_that_runs() -> None:
    async def main() -> asyncio.AbstractEventLoop:
        g = gmpd.go(nothing)
        await g
        assert g.get_loop() is asyncio.get_running_loop()
        return g.get_loop()

    with asyncio.Runner(loop_factory=Loop) as one, asyncio.Runner(loop_factory=Loop) as other:
        assert len({one.run(main()), other.run(main())}) == 2
        assert one.run(main()) is one.get_loop()


def test_there_are_none_where_another_loop_is_shown() -> None:
    async def main() -> None:
        await gmpd.go(nothing)
        loop, other = running_loop(), asyncio.SelectorEventLoop()
        set_running_loop(other)
        try:
            with pytest.raises(RuntimeError, match="needs a P of gmpd"):
                gmpd.go(nothing)
        finally:
            set_running_loop(loop)
            other.close()
        await gmpd.go(nothing)

    gmpd.run(main())
