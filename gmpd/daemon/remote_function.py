"""A function that the coordinator has told a worker about."""

from __future__ import annotations

from gmpd.codec import FunctionRef

#: A function whose calls take less than this is quick: outcomes may gather while it runs.
QUICK_NS = 200_000


class RemoteFunction:
    """It is resolved by its first job."""

    __slots__ = ("fid", "here", "is_async", "quick_ns", "ref")

    def __init__(self, fid: int, ref: FunctionRef) -> None:
        self.fid = fid
        self.ref = ref
        #: It was found here before: its module is imported.
        self.here = ref.kind != "name"
        #: Running average of its time; None while unknown.
        self.quick_ns: int | None = None
        #: A call of it only makes a coroutine, or an async generator. Its first call tells.
        self.is_async = False

    @property
    def quick(self) -> bool:
        return self.quick_ns is not None and self.quick_ns < QUICK_NS

    def learn(self, ran_ns: int) -> None:
        self.quick_ns = ran_ns if self.quick_ns is None else (self.quick_ns * 7 + ran_ns) >> 3
