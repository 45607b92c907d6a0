"""The base of every message, and the checks that several have."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

from gmpd.errors import ProtocolError


def check_counts(message: Any, rows: int) -> None:
    counts = message.buffer_counts
    if counts is not None and len(counts) != rows:
        raise ProtocolError("buffer_counts has another length than payloads")


def check_specials(specials: dict[int, Any] | None, rows: int) -> None:
    if specials and max(specials) >= rows:
        raise ProtocolError("specials names a row that is not there")


class Envelope(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The base of every message: an array of its kind and fields."""

    #: The version of the protocol that brought it.
    since: ClassVar[int] = 1
    #: Frames may follow the envelope: out-of-band buffers of its values.
    carries: ClassVar[bool] = False

    def check(self) -> None:
        """Checks that types cannot express. Raises ProtocolError."""
