"""A client of plain values unpickles nothing, whatever a daemon sends."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd import codec, protocol
from gmpd.client.core import ClientCore
from gmpd.client.futures import JobFuture
from gmpd.codec import FunctionRef, pickles
from gmpd.errors import GmpdError, NotAllowed, NotRegistered, RemoteError, Unserializable
from gmpd.protocol import Outcome
from gmpd.submit.events import apply

REF = FunctionRef("name", "pkg:fn")


class OwnError(Exception):
    """Travels as a pickle."""


def core(role: str = "submit", *, plain: bool = True) -> ClientCore:
    made = ClientCore(b"s" * 16, {"name": "c"})
    info = protocol.DaemonInfo(role=role, plain=plain)
    made.receive([protocol.pack(protocol.Welcome(3, 1, 100, 100, 1 << 20, info))])
    return made


@pytest.fixture(autouse=True)
def no_pickle_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> object:
        raise AssertionError("it was unpickled")

    monkeypatch.setattr(pickles, "load", load)


def ended(outcome: Outcome, payload: bytes, frames: list[bytes] | None = None) -> JobFuture:
    """The future of a job that ends so."""
    session, future = core(), JobFuture()
    session.submit(REF, codec.encode_call("fn", (), {}, plain=True), {"plain": True}, future)
    session.take_outgoing()
    counts = None if frames is None else [len(frames)]
    special: Any = None if outcome is Outcome.OK else {0: (outcome, None)}
    done = protocol.Done([1], [payload], [1], special, counts)
    session.receive([protocol.pack(done), *(frames or [])])
    for event in session.events:
        apply(event)
    return future


def test_plain_results_come_as_they_are() -> None:
    assert ended(Outcome.OK, codec.encode_result([1, {"a": b"x"}], plain=True).data).result(0) == [
        1, {"a": b"x"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "frames"),
    [
        (b"\x80\x05\x95", None),
        (b"\xc1\x91\x00", [b"\x80\x05."]),
        (b"\xc0", [b"a frame that nothing names"]),
    ],
)
def test_any_other_result_is_an_error(payload: bytes, frames: list[bytes] | None) -> None:
    with pytest.raises(Unserializable, match="the result is a Python object"):
        ended(Outcome.OK, payload, frames).result(0)


def test_of_an_exception_its_texts_remain() -> None:
    inner = OwnError("mine")
    for error in (inner, ExceptionGroup("many", [inner, ExceptionGroup("deep", [inner])])):
        error.add_note("noted")
        got = ended(Outcome.ERROR, codec.encode_error(error)).exception(0)
        leaf = got.exceptions[1].exceptions[0] if isinstance(got, ExceptionGroup) else got
        assert isinstance(leaf, RemoteError)
        assert "OwnError: mine" in str(leaf)
    builtin = ended(Outcome.ERROR, codec.encode_error(KeyError("k"))).exception(0)
    assert isinstance(builtin, KeyError)


def test_an_exception_that_is_garbage_ends_its_job_alone() -> None:
    for payload in (b"", b"\xc1", b"\x05", b"\x81\xa5parts\x91\x05"):
        assert isinstance(ended(Outcome.ERROR, payload).exception(0), GmpdError)


def test_the_end_of_a_durable_job_is_plain_too() -> None:
    from gmpd.submit.plain import only_plain_reply

    error = codec.encode_error(OwnError("mine"))
    told = {"value": error, "outcome": "error", "buffers": [], "state": 4}
    assert b"pickled" not in only_plain_reply(told)["value"]
    with pytest.raises(GmpdError, match="the result is a Python object"):
        only_plain_reply({"value": b"\x80\x05.", "outcome": "ok", "buffers": [], "state": 3})
    assert only_plain_reply([1, 2]) == [1, 2]


def test_a_stream_of_pickles_ends_the_session() -> None:
    session = core()
    future = JobFuture()
    session.begin_stream(REF, codec.encode_call("fn", (), {}, plain=True), {"plain": True}, future)
    session.take_outgoing()
    with pytest.raises(GmpdError, match="sent a Python object"):
        session.receive([protocol.pack(protocol.Items(1, [b"\x80\x05."], None))])


def test_a_call_that_would_be_refused_is_not_sent() -> None:
    plain = codec.encode_call("fn", (1,), {}, plain=True)
    session = core()
    session.check(REF, plain, {"plain": True})
    with pytest.raises(Unserializable, match="not plain data"):
        session.check(REF, codec.encode_call("fn", (1,), {}), None)
    with pytest.raises(NotRegistered, match="where functions go by name"):
        session.check(FunctionRef("pickle", "pkg:fn", b"p"), plain, None)
    with pytest.raises(NotAllowed, match="the role read"):
        core("read").check(REF, plain, None)
    core(plain=False).check(REF, codec.encode_call("fn", ((1,),), {}), None)
