"""The session of a client: the submitting core with a client's role and limits."""

from __future__ import annotations

from typing import Any

from gmpd.submit.core import SubmitCore
from gmpd.submit.events import CallReply, Event, ItemsReceived, JobDone, JobNotice, apply

__all__ = ["CallReply", "ClientCore", "Event", "ItemsReceived", "JobDone", "JobNotice", "apply"]

#: Functions that the daemon is told to remember; beyond, it forgets the one unused for longest.
FUNCTIONS_MAX = 1024


class ClientCore(SubmitCore):
    """One session of a client with a coordinator."""

    def __init__(
        self,
        session: bytes,
        info: dict[str, Any],
        *,
        resend: bool = True,
        role: str = "client",
    ) -> None:
        super().__init__(session, info, role=role, functions_max=FUNCTIONS_MAX, resend=resend)
