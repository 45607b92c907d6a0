"""Load that changes over time: add this file to locust's, and choose with ``--shape``.

    locust -f loadtests/locustfile.py,loadtests/shapes.py --headless --shape spike -u 50 -t 60s

``-u`` is the most users there will be, ``-t`` how long it takes; ``-r`` how fast they come.

    steps   a fifth of the users more in each fifth of the time: where does latency turn up?
    spike   a tenth of the users, all of them in the middle fifth, a tenth again: does it recover?
    soak    all of them, all the time: does anything grow?
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from math import ceil
from typing import Any

from locust import LoadTestShape, events

#: How many steps; also the parts of a spike.
PARTS = 5


def steps(share: float, users: int) -> int:
    """Users after ``share`` (0 to 1) of the time, climbing."""
    return ceil(users * (int(share * PARTS) + 1) / PARTS)


def spike(share: float, users: int) -> int:
    """Users after ``share`` of the time: few, all, few."""
    return users if int(share * PARTS) == PARTS // 2 else max(1, users // 10)


def soak(share: float, users: int) -> int:
    """Users after ``share`` of the time: all of them."""
    return users


SHAPES: dict[str, Callable[[float, int], int]] = {"steps": steps, "spike": spike, "soak": soak}


def _add_options(parser: ArgumentParser, **_: Any) -> None:
    parser.add_argument("--shape", choices=sorted(SHAPES), default="steps", help="load over time")


events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]


class Chosen(LoadTestShape):
    """The shape that ``--shape`` names."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now, and how many more per second; None ends the run."""
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        duration_s = options.run_time or 60
        now_s = float(self.get_run_time())  # type: ignore[no-untyped-call]
        if now_s >= duration_s:
            return None
        most = options.num_users or 10
        return SHAPES[options.shape](now_s / duration_s, most), options.spawn_rate or most
