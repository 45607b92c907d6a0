"""The error of a job whose worker died, from the details that the daemon tells of its end."""

from __future__ import annotations

from typing import Any

from gmpd.errors import WorkerLost


def death_of(details: dict[str, Any]) -> str:
    """How the worker died: a part of a message."""
    signal = str(details.get("signal") or "")
    return f"died by {signal}" if signal else f"died with exit status {details.get('exitcode')}"


def worker_lost(message: str, job_id: str, details: dict[str, Any]) -> WorkerLost:
    """The error, with process, signal and culprit as attributes."""
    return WorkerLost(
        message,
        job_id,
        int(details.get("pid") or 0),
        str(details.get("signal") or ""),
        details.get("exitcode"),
        str(details.get("culprit") or ""),
        details.get("blamed") is True,
    )
