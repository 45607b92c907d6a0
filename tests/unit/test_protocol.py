"""What a message may hold: columns of one row are checked as those of many (gmpd.protocol)."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from gmpd import protocol
from gmpd.errors import ProtocolError

ROWS = (1, 2, 100)
NO_INT = (True, -1, 1.0, "x", b"y", None, [1])
NO_BYTES = ("x", 1, None, [b"x"])


def finished(rows: int, **columns: Any) -> bytes:
    """A worker's message of ``rows`` outcomes, with the last row of a column replaced."""
    names = ("tokens", "payloads", "ran_us", "occupied_us")
    whole: dict[str, list[Any]] = {name: [1] * rows for name in names}
    whole["payloads"] = [b"r"] * rows
    for name, value in columns.items():
        whole[name][-1] = value
    kind = int(protocol.Kind.FINISHED)
    packed: bytes = msgpack.packb([kind, *whole.values(), None, None])
    return packed


@pytest.mark.parametrize("rows", ROWS)
def test_a_whole_message_is_read(rows: int) -> None:
    message = protocol.unpack(finished(rows, tokens=(1 << 64) - 1), protocol.FROM_WORKER)
    assert message.tokens == [1] * (rows - 1) + [(1 << 64) - 1]
    assert message.payloads == [b"r"] * rows


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("column", ["tokens", "ran_us", "occupied_us"])
@pytest.mark.parametrize("value", NO_INT)
def test_a_column_of_integers_holds_nothing_else(rows: int, column: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=rf"Finished\.{column} holds a list"):
        protocol.unpack(finished(rows, **{column: value}), protocol.FROM_WORKER)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("value", NO_BYTES)
def test_a_column_of_payloads_holds_nothing_else(rows: int, value: Any) -> None:
    with pytest.raises(ProtocolError, match=r"Finished\.payloads holds a list"):
        protocol.unpack(finished(rows, payloads=value), protocol.FROM_WORKER)


@pytest.mark.parametrize("short", [1, 2, 3, 4])
def test_columns_of_one_message_have_one_length(short: int) -> None:
    columns: list[list[Any]] = [[1, 2], [b"", b""], [1, 2], [1, 2]]
    fields = [int(protocol.Kind.FINISHED), *columns, None, None]
    del columns[short - 1][0]
    with pytest.raises(ProtocolError, match="columns of different length"):
        protocol.unpack(msgpack.packb(fields), protocol.FROM_WORKER)


@pytest.mark.parametrize("rows", [0, 5])
def test_a_message_with_another_number_of_fields_is_refused(rows: int) -> None:
    with pytest.raises(ProtocolError, match=f"Finished has 6 fields, not {rows}"):
        protocol.unpack(
            msgpack.packb([int(protocol.Kind.FINISHED), *[[1]] * rows]), protocol.FROM_WORKER
        )
