"""P is a record: all that its parts share, complete once its loop is made, and no behaviour."""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path

import gmpd
from gmpd.runtime.loop import Loop
from gmpd.runtime.p import Face, P
from tests.trees import nodes_of

RUNTIME = Path(__file__).parents[2] / "gmpd" / "runtime"
#: They make the loop, or are made for one kind of it.
ABOVE = {"__init__", "loop", "deterministic", "faketime", "synctest", "run", "spawn", "go", "owner"}


def test_a_p_has_no_methods() -> None:
    made_by = {name for name, kind in vars(P).items() if callable(kind)}
    assert [name for name in made_by if not name.startswith(("_init_", "__"))] == []
    assert not [name for name, kind in vars(P).items() if isinstance(kind, property)]


def test_each_slot_of_a_p_is_set_with_its_loop() -> None:
    loop = Loop()
    try:
        assert [name for name in P.__slots__ if not hasattr(loop.p, name)] == []
        assert loop.p.loop is loop
        assert loop.p.ready is loop._ready
    finally:
        loop.close()


def test_the_loop_is_the_face_that_its_parts_know() -> None:
    declared = {name for name, kind in vars(Face).items() if inspect.isfunction(kind)}
    assert declared <= vars(Loop).keys(), "each of them would raise NotImplementedError"

    async def main() -> asyncio.AbstractEventLoop:
        async def child() -> None: ...

        g = gmpd.go(child)
        await g
        return g.get_loop()

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main()) is runner.get_loop()


def test_no_part_of_a_p_imports_the_loop() -> None:
    """For type checking neither: it takes P, and the lower parts that it calls."""
    importers = {
        path.stem
        for path in RUNTIME.rglob("*.py")
        for node in nodes_of(path, ast.ImportFrom)
        if node.module == "gmpd.runtime.loop"
    }
    assert importers <= ABOVE
