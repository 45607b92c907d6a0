"""The Gs of a P as rows."""

from __future__ import annotations

from typing import Any

import gmpd
from gmpd.runtime import glist
from gmpd.runtime.go import this_loop


def test_rows_say_state_reason_age_and_function() -> None:
    async def parked(ch: Any) -> None:
        await ch.recv()

    async def main() -> tuple[list[glist.Row], int, int]:
        ch = gmpd.Chan[int]()
        gs = [gmpd.go(parked, ch) for _ in range(5)]
        await gmpd.gosched()
        p = this_loop("a test").p
        found, total = glist.rows(p, 100)
        few, of = glist.rows(p, 2)
        for _ in gs:
            await ch.send(1)
        for g in gs:
            await g
        assert of == total
        return found, total, len(few)

    found, total, few = gmpd.run(main())
    waiting = [row for row in found if row.state == "waiting"]
    assert [row.reason for row in waiting] == ["chan receive"] * 5
    assert all("parked" in row.function and not row.job for row in waiting)
    assert [row.state for row in found if row not in waiting] == ["running"]
    assert (total, few) == (6, 2)
