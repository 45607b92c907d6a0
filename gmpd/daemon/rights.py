"""The rights of clients of other machines, by the roles of their keys. No IO.

A message passes as it is, or changed, or is refused; what no rule names is refused. Functions go by
name, and worker processes call only what their modules have declared; values are plain data unless
the operator allows pickles for the key.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from gmpd import protocol
from gmpd.codec import tag_of
from gmpd.errors import NotAllowed
from gmpd.job import DECLARED, TEXT_MAX
from gmpd.keys import AllowedClient, Role
from gmpd.sched.functions import REGISTERED

#: How plain arguments begin (``codec.values``); they bring no frames of their own.
_PLAIN_CALL = b"\x93"

_ANY = frozenset({protocol.Hello, protocol.Bye, protocol.Call, protocol.AskJobs})
#: The messages of each role.
MESSAGES: dict[Role, frozenset[type[Any]]] = {
    Role.READ: _ANY,
    Role.SUBMIT: _ANY
    | {
        protocol.Define,
        protocol.Undefine,
        protocol.Submit,
        protocol.Cancel,
        protocol.ForceCancel,
        protocol.Recall,
        protocol.Ack,
        protocol.Pull,
        protocol.CallAfter,
        protocol.Enqueue,
        protocol.Waive,
    },
    Role.ADMIN: frozenset(protocol.FROM_CLIENT.classes.values()),
}
#: Calls that look, at what every client may know.
LOOKING = frozenset({"ping", "status", "snapshot", "jobs", "volatile_jobs", "job_counts"})
#: Questions about durable jobs that change none.
_LOOKING_AT_JOBS = frozenset({"find", "result", "story", "log", "call"})


def screen(
    client: AllowedClient, message: protocol.FromClient, frames: list[Any]
) -> protocol.FromClient:
    """The message as it counts. Raises NotAllowed."""
    role = client.role
    if type(message) not in MESSAGES[role]:
        raise _forbidden(client, f"a message {type(message).__name__}")
    match message:
        case protocol.Call(_, method) | protocol.CallAfter(_, method):
            if role is not Role.ADMIN and method not in LOOKING:
                raise _forbidden(client, f"`{method}`")
        case protocol.AskJobs(_, what):
            if role is Role.READ and what not in _LOOKING_AT_JOBS:
                raise _forbidden(client, f"to {what} jobs")
        case protocol.Define():
            return _registered(message)
        case protocol.Submit() | protocol.Enqueue():
            if not client.pickle:
                _check_plain(client, message, frames)
            _check_wait(message.options)
            return _with_own_options(client, message)
        case _:
            pass
    return message


def _registered(define: protocol.Define) -> protocol.Define:
    """A function by its name, and no more than that."""
    name = define.name
    if define.kind != "name":
        raise NotAllowed(
            f"{name[:80]!a} comes by value, and over a network functions go by name only: put it"
            " into a module that the daemon imports, and mark it with @gmpd.job"
        )
    if len(name) > TEXT_MAX or not name.isprintable():
        raise NotAllowed(f"{name[:80]!a} is no name of a function")
    return protocol.Define(define.fid, REGISTERED, name, b"", [])


def _forbidden(client: AllowedClient, what: str) -> NotAllowed:
    return NotAllowed(
        f"the key {client.name!r} has the role {client.role}, which does not allow {what}"
    )


def _with_own_options(
    client: AllowedClient, message: protocol.Submit | protocol.Enqueue
) -> protocol.Submit | protocol.Enqueue:
    """The texts of options are shown in tables and logs; limits are of one client's jobs."""
    options = message.options
    if options is None:
        return message
    for text in (options.name, options.unique, options.limit and options.limit[0]):
        if text is not None and not text.isprintable():
            raise NotAllowed(f"an option of a job is no printable text: {text[:80]!a}")
    if options.limit is None:
        return message
    key = f"{client.name}:{options.limit[0]}"[:TEXT_MAX]
    own = structs.replace(options, limit=(key, *options.limit[1:]))
    return structs.replace(message, options=own)


def _check_plain(
    client: AllowedClient, message: protocol.Submit | protocol.Enqueue, frames: list[Any]
) -> None:
    """Nothing in it is ever unpickled, and its results are made plain, too."""
    options = message.options
    plain = options is not None and options.plain and options.child is None and not frames
    if not plain or not all(tag_of(payload) == _PLAIN_CALL for payload in message.payloads):
        raise NotAllowed(
            f"the key {client.name!r} may send plain values only, and this is none: `gmpd keys add"
            " --pickle` allows others"
        )


def _check_wait(options: protocol.Options | None) -> None:
    """A function for the wait is the one that the job's function declares."""
    fn = None if options is None else options.backoff_fn
    if fn is not None and fn != DECLARED:
        raise NotAllowed(
            f"backoff={fn[1]} is a function, and over a network only numbers go: declare it"
            " with the job's function, @gmpd.job(backoff=...)"
        )
