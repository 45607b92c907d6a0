"""Consecutive calls, alike in function and options: one Submit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gmpd import protocol

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import FunctionRef

Options = dict[str, Any]


class Batch:
    """Consecutive jobs, alike in function and options: one Submit if the window allows."""

    __slots__ = ("again", "at", "buffers", "first_seq", "nbytes", "options", "payloads", "ref")

    def __init__(self, ref: FunctionRef, first_seq: int, options: Options | None) -> None:
        self.ref = ref
        self.first_seq = first_seq
        self.options = options
        self.payloads: list[bytes] = []
        self.buffers: list[protocol.Buffers] | None = None
        self.nbytes = 0
        #: Jobs before this index have been sent.
        self.at = 0
        #: The daemon had no room for them before.
        self.again = False
