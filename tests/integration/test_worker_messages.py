"""A worker whose link carries nonsense is replaced: its jobs are lost, and not waited for."""

from __future__ import annotations

import msgpack
import pytest

from gmpd.protocol import Assign, Outcome, kind_of
from tests.rawclient import Boot

UNKNOWN_FUNCTION: bytes = msgpack.packb([kind_of(Assign), 99, 2, None, [b""], None, 0])


@pytest.mark.parametrize("frame", [b"\xc1", UNKNOWN_FUNCTION], ids=["garbage", "assign"])
def test_a_worker_ends_for_a_message_that_it_cannot_read(frame: bytes, boot: Boot) -> None:
    """As if the coordinator had sent it; the next worker serves on."""
    _, client = boot(**{"daemon.procs": 1})
    lost = client.submit("jobs_hostile:hear_and_sleep", (frame,))
    assert client.outcomes(lost)[0][0] is Outcome.LOST
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][:2] == (Outcome.OK, 2.0)
    assert client.call("status")["state"] == "running"


def test_a_worker_that_says_what_cannot_be_read_is_replaced(boot: Boot) -> None:
    _, client = boot(**{"daemon.procs": 1})
    lost = client.submit("jobs_hostile:say_and_sleep", (b"\xc1",))
    assert client.outcomes(lost)[0][0] is Outcome.LOST
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][:2] == (Outcome.OK, 2.0)
    assert client.call("status")["dropped"]["bad_worker_message"] == 1
