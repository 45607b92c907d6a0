"""The ids of leases: packed by the coordinator, unpacked by the worker that logs."""

from __future__ import annotations

import pytest

from gmpd import protocol
from gmpd.daemon.leased import Leased, volatile_ids
from gmpd.errors import ProtocolError

KEY = "00112233445566778899aabb"


def assign(rows: int, **more: object) -> protocol.Assign:
    """As it arrives."""
    sent = protocol.Assign(1, 7, None, [b"x"] * rows, None, 0)
    for name, value in more.items():
        setattr(sent, name, value)
    got = protocol.unpack(protocol.pack(sent), protocol.TO_WORKER)
    assert isinstance(got, protocol.Assign)
    return got


def ids(rows: int, **more: object) -> list[tuple[str, int]]:
    leased = Leased(assign(rows, **more))
    found = [leased.identity(token) for token in range(7, 7 + rows)]
    return [(id_.hex(), attempt) for id_, attempt in found]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 16])
def test_jobs_of_a_client_share_the_beginning_of_their_ids(rows: int) -> None:
    seqs = [5, 1 << 32, *range(9, 9 + rows)][:rows]
    found = ids(rows, ids=volatile_ids(KEY, seqs))
    assert found == [(f"{KEY}{seq & 0xFFFFFFFF:08x}", 1) for seq in seqs]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 16])
def test_durable_jobs_have_whole_ids(rows: int) -> None:
    own = [bytes([row + 1]) * 16 for row in range(rows)]
    attempts = list(range(1, rows + 1))
    found = ids(rows, ids=b"".join(own), attempts=attempts)
    assert found == list(zip([each.hex() for each in own], attempts, strict=True))


def test_a_job_may_have_no_id() -> None:
    assert ids(2) == [("", 1)] * 2
    assert ids(2, ids=bytes(32), attempts=[1, 4]) == [("", 1), ("", 4)]
    assert volatile_ids("ab", [1]) is volatile_ids("", [1]) is None


def test_a_child_has_the_id_of_the_job_that_it_belongs_to() -> None:
    root = (b"r" * 16, 3)
    child = protocol.Options(child=(0, 1), root=root)
    assert ids(2, options=child) == [(root[0].hex(), 3)] * 2
    stranger = protocol.Options(root=root)  # a client's job cannot say that it is another one's
    assert ids(1, options=stranger, ids=volatile_ids(KEY, [1])) == [(KEY + "00000001", 1)]


@pytest.mark.parametrize("wrong", [{"ids": b"x" * 21}, {"attempts": [1]}])
def test_columns_of_another_length_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="another length"):
        assign(2, **wrong)
