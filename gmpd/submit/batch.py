"""Consecutive calls, alike in function and options: one Submit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from gmpd import protocol

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import Blob, FunctionRef

Options = dict[str, Any]
#: A job that was taken and has no number yet, and its sink.
Request: TypeAlias = tuple["FunctionRef", Options | None, "Blob", Any]


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

    def take(self, requests: deque[Request], sinks: dict[int, Any], most: int) -> int:
        """Add the first of ``requests``, as far as they are alike; how many. Their sinks get their
        numbers, and are put into ``sinks``. One by one, calls would cost more than this."""
        ref, options, payloads = self.ref, self.options, self.payloads
        seq = first = self.first_seq + len(payloads)
        end = self.first_seq + most
        while requests and seq < end and self.nbytes <= protocol.GATHER_BYTES:
            own_ref, own_options, (data, buffers), sink = requests[0]
            if own_ref is not ref or own_options is not options or buffers:
                break
            del requests[0]
            payloads.append(data)
            sinks[seq] = sink
            sink._seq = seq
            self.nbytes += len(data)
            seq += 1
        return seq - first

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


def unsent_of(waiting: Iterable[Batch], next_seq: int) -> tuple[int, set[int]]:
    """The number from which on jobs of a session were never sent, and those that were refused and
    are to be sent again."""
    held: set[int] = set()
    for batch in waiting:
        if not batch.again:
            return batch.first_seq + batch.at, held
        held.update(range(batch.first_seq + batch.at, batch.first_seq + len(batch.payloads)))
    return next_seq, held
