"""``call_later`` and ``call_at`` of a P: asyncio's, with one refusal more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import nan
from typing import Any
from unittest.mock import Mock

import pytest

import gmpd
from gmpd.runtime.loop import Loop

SET: dict[str, Callable[[Loop, Any], Any]] = {
    "call_later": lambda loop, when: loop.call_later(when, print),
    "call_at": lambda loop, when: loop.call_at(when, print),
}


@pytest.mark.parametrize("put", SET.values(), ids=list(SET))
def test_no_timer_is_set_for_what_is_no_time(put: Callable[[Loop, Any], Any]) -> None:
    loop = gmpd.new_event_loop()
    try:
        for wrong, error in ((nan, ValueError), (None, TypeError)):
            with pytest.raises(error):
                put(loop, wrong)
        assert loop._scheduled == []
    finally:
        loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        put(loop, 1)


@pytest.mark.parametrize("put", SET.values(), ids=list(SET))
def test_timers_come_in_the_order_of_their_times(put: Callable[[Loop, Any], Any]) -> None:
    loop = gmpd.new_event_loop()
    try:
        handles = [put(loop, seconds) for seconds in (1e9 + 3, 1e9 + 1, 1e9 + 2)]
        assert loop._scheduled[0] is handles[1]
        handles[1].cancel()
        assert handles[1].cancelled()
        assert loop._timer_cancelled_count == 1
    finally:
        loop.close()


@pytest.mark.parametrize("name", [*SET, "call_soon"])
def test_in_debug_mode_a_handle_comes_from_the_line_that_made_it(
    name: str,
) -> None:
    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        handle = loop.call_soon(print) if name == "call_soon" else SET[name](loop, 1e9)
        handle.cancel()
        return handle._source_traceback[-1].filename

    assert gmpd.run(main(), debug=True) == __file__


def test_a_slow_callback_is_told_to_the_logger_that_stands_in_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Mock()
    monkeypatch.setattr("asyncio.base_events.logger", told)

    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.0
        await asyncio.sleep(0)

    gmpd.run(main(), debug=True)
    assert told.warning.call_args[0][0].startswith("Executing %s took")
