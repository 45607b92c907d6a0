"""Definitions and jobs of a client reach workers only as messages that they can read."""

from __future__ import annotations

import pytest

from gmpd import protocol
from gmpd.errors import ProtocolError
from gmpd.protocol import Define, Submit
from tests.desk import Desk


@pytest.mark.parametrize("name", ["status", "xyz:1", "abc:1", "00:", "00:x", ":1", "00:1\n"])
def test_a_part_of_no_program_is_refused_at_the_door(name: str) -> None:
    """Its worker would end for it, with the jobs of all others."""
    frame = protocol.pack(Define(1, "part", name, b"p"))
    with pytest.raises(ProtocolError, match=r"Define\.name"):
        protocol.unpack(frame, protocol.FROM_CLIENT)


def test_a_part_is_read_and_is_no_function(desk: Desk) -> None:
    frame = protocol.pack(Define(1, "part", "00ff:12", b"p"))
    client = desk.client()
    desk.defined(client, protocol.unpack(frame, protocol.FROM_CLIENT), b"d")
    with pytest.raises(ProtocolError, match="names function 1"):
        desk.submitted(client, Submit(1, 1, None, [b""], None))
