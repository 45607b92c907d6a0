"""Consecutive calls, alike in function and options: one Submit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gmpd import protocol

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import Blob, FunctionRef

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

    def add(self, blob: Blob) -> None:
        """One more call."""
        data, buffers = blob
        if buffers or self.buffers is not None:
            self.add_buffers(buffers)
        self.payloads.append(data)
        self.nbytes += len(data)

    def add_buffers(self, buffers: protocol.Buffers) -> None:
        """The buffers of the next call; its payload follows."""
        if self.buffers is None:
            self.buffers = [()] * len(self.payloads)
        del self.buffers[len(self.payloads) :]  # of a call whose submit was interrupted
        # Copied: the caller may change its array as soon as submit has returned.
        own = tuple(bytes(buffer) for buffer in buffers)
        self.buffers.append(own)
        self.nbytes += sum(map(len, own))


def cancel_message(
    seqs: list[int], force: bool, welcome: protocol.Welcome | None
) -> protocol.Cancel | protocol.ForceCancel:
    """A Cancel; by force where the daemon knows that."""
    known = welcome is None or welcome.version >= protocol.ForceCancel.since
    return protocol.ForceCancel(seqs) if force and known else protocol.Cancel(seqs)
