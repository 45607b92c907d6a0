"""Messages of a client on another machine: everything that no rule names is refused."""

from __future__ import annotations

import contextlib
from typing import Any, get_args

import pytest

from gmpd import codec, protocol
from gmpd.codec import pickles
from gmpd.daemon import rights
from gmpd.errors import NotAllowed, ProtocolError
from gmpd.job import DECLARED
from gmpd.keys import AllowedClient, Role

NAME = "pkg.jobs:work"
PLAIN = codec.encode_call(NAME, (1, "a"), {}, plain=True).data
PICKLE = codec.encode_call(NAME, ((1, 2),), {}).data
MSGPACK = codec.encode_call(NAME, (1,), {}).data
LARGE = codec.encode_call(NAME, (b"x" * (4 << 20),), {})


def client(role: Role = Role.SUBMIT, *, pickle: bool = False) -> AllowedClient:
    return AllowedClient("alice", b"\0" * 32, role, pickle)


def submit(payload: bytes, **options: Any) -> protocol.Submit:
    wanted = protocol.options({"plain": True, **options})
    return protocol.Submit(1, 1, wanted, [PLAIN, payload], None)


def enqueue(payload: bytes, **options: Any) -> protocol.Enqueue:
    wanted = protocol.options({"plain": True, **options})
    return protocol.Enqueue(1, 1, [b"i" * 16], wanted, [payload], None, None, None, 1, False)


def test_every_message_of_a_client_has_its_place() -> None:
    """A new message is refused over a network until a rule says which roles may send it."""
    every = set(get_args(protocol.FromClient))
    assert rights.MESSAGES[Role.ADMIN] == every
    assert rights.MESSAGES[Role.SUBMIT] | {protocol.Hello} == every
    assert rights.MESSAGES[Role.READ] == {
        protocol.Hello, protocol.Bye, protocol.Call, protocol.AskJobs,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("role", "method", "may"),
    [
        (Role.READ, "status", True), (Role.SUBMIT, "status", True), (Role.ADMIN, "status", True),
        (Role.READ, "stop", False), (Role.SUBMIT, "stop", False), (Role.ADMIN, "stop", True),
        (Role.SUBMIT, "stacks", False), (Role.SUBMIT, "history", False),
        (Role.SUBMIT, "procs", False), (Role.SUBMIT, "drain", False),
        (Role.SUBMIT, "what a later version adds", False),
    ],
)  # fmt: skip
def test_calls_by_role(role: Role, method: str, may: bool) -> None:
    calls: list[protocol.FromClient] = [protocol.Call(1, method, {})]
    if role is not Role.READ:
        calls.append(protocol.CallAfter(1, method, {}, []))
    for call in calls:
        if may:
            assert rights.screen(client(role), call, []) is call
        else:
            with pytest.raises(NotAllowed, match=f"role {role}, which does not allow `{method}`"):
                rights.screen(client(role), call, [])


def test_a_reader_changes_nothing() -> None:
    reader = client(Role.READ)
    for message in (submit(PLAIN), enqueue(PLAIN), protocol.Cancel([1]), protocol.Define(
        1, "name", NAME, b""
    )):  # fmt: skip
        with pytest.raises(NotAllowed, match="role read"):
            rights.screen(reader, message, [])
    for what in ("cancel", "retry", "remove"):
        with pytest.raises(NotAllowed, match=f"to {what} jobs"):
            rights.screen(reader, protocol.AskJobs(1, what, [b"i" * 16]), [])
    rights.screen(reader, protocol.AskJobs(1, "result", [b"i" * 16]), [])


@pytest.mark.parametrize("kind", ["main", "pickle", "part", "registered"])
@pytest.mark.parametrize("role", [Role.SUBMIT, Role.ADMIN])
def test_no_function_comes_by_value(kind: str, role: Role) -> None:
    """Also with a key that may do everything else."""
    with pytest.raises(NotAllowed, match=r"functions go by name only.*@gmpd.job"):
        rights.screen(client(role, pickle=True), protocol.Define(1, kind, "ab:1", b"p"), [])


def test_a_name_is_looked_for_among_the_registered_ones() -> None:
    """The client's other words about it, its module's place for example, are left out."""
    define = protocol.Define(1, "name", NAME, b"where it lies", [7])
    screened = rights.screen(client(), define, [])
    assert screened == protocol.Define(1, "registered", NAME, b"", [])


@pytest.mark.parametrize("made", [submit, enqueue])
@pytest.mark.parametrize("payload", [PICKLE, MSGPACK, LARGE.data, b"", b"\xc1"])
def test_only_plain_arguments_pass(made: Any, payload: bytes) -> None:
    rights.screen(client(), made(PLAIN), [])
    with pytest.raises(NotAllowed, match="plain values only"):
        rights.screen(client(), made(payload), [])
    rights.screen(client(pickle=True), made(payload), [b"frame"])


@pytest.mark.parametrize("made", [submit, enqueue])
def test_a_header_hides_nothing(made: Any) -> None:
    def carrying(payload: bytes) -> bytes:
        return codec.carrying(b"\x93" * 7, codec.Blob(payload)).data

    rights.screen(client(), made(carrying(PLAIN)), [])
    for payload in (carrying(PICKLE), carrying(carrying(PLAIN)), carrying(PLAIN)[:5], b"\x94"):
        with pytest.raises(NotAllowed, match="plain values only"):
            rights.screen(client(), made(payload), [])


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\u202e", "\x9b"])
def test_texts_of_a_client_are_printable(text: str) -> None:
    for message in (
        protocol.Define(1, "name", f"pkg:{text}", b""),
        submit(PLAIN, unique=text),
        submit(PLAIN, limit=(text, 1, 0, 0.0)),
        enqueue(PLAIN, name=text),
    ):
        with pytest.raises(NotAllowed, match="is no") as caught:
            rights.screen(client(Role.ADMIN, pickle=True), message, [])
        assert str(caught.value).isprintable()


def test_a_limit_is_of_one_clients_jobs() -> None:
    screened: Any = rights.screen(client(), submit(PLAIN, limit=("k", 1, 0, 0.0)), [])
    assert screened.options.limit == ("alice:k", 1, 0, 0.0)


@pytest.mark.parametrize("made", [submit, enqueue])
def test_results_are_plain_and_no_frames_come_beside(made: Any) -> None:
    with pytest.raises(NotAllowed, match="plain values only"):
        rights.screen(client(), made(PLAIN, plain=False), [])
    with pytest.raises(NotAllowed, match="plain values only"):
        rights.screen(client(), made(PLAIN, child=(0, 1)), [])
    with pytest.raises(NotAllowed, match="plain values only"):
        rights.screen(client(), made(PLAIN), [b"frame"])


@pytest.mark.parametrize(
    "payload", [PLAIN, PLAIN[:1] + PICKLE, b"\x93\x80\x80\xc3", b"\x93\x90\x80" + PICKLE]
)
def test_what_passes_is_never_unpickled(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> object:
        raise AssertionError("it was unpickled")

    monkeypatch.setattr(pickles, "load", load)
    rights.screen(client(), submit(payload), [])
    with contextlib.suppress(ProtocolError, ValueError, TypeError):
        codec.decode_call(payload)


@pytest.mark.parametrize("role", [Role.SUBMIT, Role.ADMIN])
def test_a_function_for_the_wait_is_the_declared_one(role: Role) -> None:
    declared = submit(PLAIN, backoff_fn=DECLARED)
    assert rights.screen(client(role), declared, []) is declared
    for kind in ("name", "main", "pickle", "registered"):
        with pytest.raises(NotAllowed, match="backoff=pkg:wait is a function"):
            rights.screen(
                client(role, pickle=True), submit(PLAIN, backoff_fn=(kind, "pkg:wait", b"")), []
            )
