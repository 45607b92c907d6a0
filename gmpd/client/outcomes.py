"""Why a job has no value: the exception that stands for how it ended, in words for people."""

from __future__ import annotations

from typing import Any

from gmpd import codec
from gmpd.errors import (
    GmpdError,
    JobCancelled,
    JobExpired,
    JobPoisoned,
    JobTimeout,
    NotRegistered,
    QueueFull,
    UniqueHeld,
    another,
)
from gmpd.protocol import Outcome
from gmpd.submit.events import JobDone
from gmpd.submit.losses import death_of, worker_lost


def error_of(event: JobDone, job_id: str, name: str) -> BaseException:
    """The exception that stands for how a job ended."""
    details = event.details
    error = details.get("error")
    if isinstance(error, Exception):
        return another(error)  # each future its own
    where = describe(event, job_id, name)
    text = str(details.get("text") or "")
    match event.outcome:
        case Outcome.ERROR:
            try:
                own = codec.decode_error(event.payload)
            except Exception as broken:  # noqa: BLE001 - whatever the error's own code does
                return broken
            codec.add_job_note(own, where)
            return own
        case Outcome.TIMEOUT if details.get("expired"):
            return JobExpired(f"{where}: {text}")
        case Outcome.TIMEOUT:
            return JobTimeout(f"{where}: ended by its timeout{_colon(text)}")
        case Outcome.LOST:
            return _lost(details, where, text, job_id)
        case Outcome.REJECTED if details.get("reason") == "not_registered":
            return NotRegistered(f"{where}: {text}")
        case Outcome.REJECTED if details.get("holder"):
            return UniqueHeld(f"{where}: not accepted{_colon(text)}", str(details["holder"]))
        case Outcome.REJECTED:
            room, wait = int(details.get("room") or 0), float(details.get("retry_after") or 0.1)
            return QueueFull(f"{where}: not accepted{_colon(text)}", room, wait)
        case _:
            return JobCancelled(f"{where}: cancelled{_colon(text)}")


def _lost(details: dict[str, Any], where: str, text: str, job_id: str) -> GmpdError:
    if details.get("poisoned"):
        return JobPoisoned(f"{where}: it was running when several workers died{_colon(text)}")
    if details.get("unstarted"):
        told = {name: details.get(name) for name in ("signal", "exitcode")}
        return worker_lost(f"{where}: not begun{_colon(text)}", job_id, told)
    pid = int(details.get("pid") or 0)
    message = f"{where}: the worker (pid {pid}) {text or death_of(details)}"
    return worker_lost(message, job_id, details)


def describe(event: JobDone, job_id: str, name: str) -> str:
    """One line on a job's way, for notes and messages."""
    details = event.details
    parts = [f"job {job_id} {name!r}" if name else f"job {job_id}"]
    pid = f" (pid {details['pid']})" if details.get("pid") else ""
    if "p" in details:
        parts[0] += f" on P{details['p']}{pid}"
    elif details.get("isolated"):
        parts[0] += f" in a worker of its own{pid}"
    if host := details.get("host"):
        parts[0] += f" on host {host}"
    if "attempt" in details:
        parts.append(f"attempt {details['attempt']}")
    if "waited_us" in details:
        parts.append(f"waited {_for_people(details['waited_us'])}")
    if event.ran_us:
        parts.append(f"ran {_for_people(event.ran_us)}")
    return ", ".join(parts)


def _colon(text: str) -> str:
    return f": {text}" if text else ""


def _for_people(us: int) -> str:
    """Microseconds with the unit that reads best."""
    return f"{us / 1000:.3g} ms" if us < 1_000_000 else f"{us / 1e6:.2f} s"
