"""``help``, ``dir`` and completion of a client show the methods for programs, and no others."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Iterable

#: Methods without an underscore that other parts of gmpd call: futures, maps, streams, views, the
#: command line.
FOR_GMPD = frozenset(
    {
        "ask_jobs", "ask_to_store", "busy_poll", "call_back", "cancel_job", "cancel_pending",
        "cancel_seqs", "check_liveness", "end_durable", "enqueue_many_with", "enqueue_with",
        "forget_jobs", "forget_seqs", "job_id", "job_id_of", "lose", "map_with", "new_waiters",
        "pull_items", "refuse_to_wait", "settle_later", "slept", "stream_with",
        "submit_ref", "submit_with", "wake_due", "watch_stream",
    }
)  # fmt: skip


class Documented(ABCMeta):  # as that of the abstract base that the clients share
    """The class of the clients' classes: ``pydoc`` asks it for the names to show."""

    def __dir__(cls) -> list[str]:
        return public(super().__dir__())


def public(names: Iterable[str]) -> list[str]:
    """``names`` without those that are for gmpd itself, sorted."""
    return sorted({*names} - FOR_GMPD)
