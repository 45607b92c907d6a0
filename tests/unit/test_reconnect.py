"""A client's session over the loss of its daemon: what ends, what is asked again, and for how
long it looks for the next one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gmpd import codec, protocol
from gmpd.client.calls import check_client
from gmpd.client.core import CallReply, ClientCore, JobDone
from gmpd.client.discovery import Target
from gmpd.client.outage import FULL_S, RELINK_S, Outage, Step
from gmpd.codec import FunctionRef
from gmpd.errors import DaemonUnreachable, GmpdError
from gmpd.protocol import Outcome
from gmpd.timeouts import FOREVER_S

F = FunctionRef("name", "m:f")
ID = b"i" * 16
GONE = DaemonUnreachable("it went away.")
STORED: dict[str, Any] = {"run_at": None, "expires": None, "keep": 1, "once": False}


def welcomed(client: ClientCore, version: int = protocol.VERSION) -> None:
    welcome = protocol.Welcome(version, 1, 100, 10, 1 << 20, protocol.DaemonInfo())
    client.receive([protocol.pack(welcome)])


def core(*, reconnects: bool = True) -> ClientCore:
    client = ClientCore(b"s" * 16, {})
    client.questions.keeps = reconnects
    welcomed(client)
    return client


def sent(client: ClientCore) -> list[Any]:
    return [protocol.unpack(m[0], protocol.FROM_CLIENT) for m in client.take_outgoing()]


def store(client: ClientCore, sink: object = "store") -> None:
    client.enqueue(F, [(ID, codec.Blob(b"x"))], None, STORED, sink)


def errors(client: ClientCore) -> dict[Any, str]:
    told = {
        sink: str(news.value)
        for sink, news in client.events
        if isinstance(news, CallReply) and not news.ok
    }
    client.events.clear()
    return told


def test_jobs_end_with_the_daemon_and_questions_about_durable_ones_are_asked_again() -> None:
    client = core()
    client.submit(F, codec.Blob(b"x"), None, "job")
    client.call("status", {}, "call")
    store(client)
    client.ask_jobs("result", [ID], "result")
    sent(client)
    client.disconnected(GONE)
    ends = dict(client.events)
    assert set(ends) == {"job", "call"}
    assert isinstance(ends["job"], JobDone)
    assert ends["job"].outcome is Outcome.LOST
    assert client.wants_link
    with pytest.raises(DaemonUnreachable):
        client.submit(F, codec.Blob(b"x"), None, "late")
    client.ask_jobs("find", [ID], "find")  # nothing of it is sent yet
    assert sent(client) == []
    client.events.clear()
    assert isinstance(protocol.unpack(client.reopen()[0], protocol.FROM_CLIENT), protocol.Hello)
    welcomed(client)
    define, enqueue, result, find = sent(client)
    assert (define.fid, enqueue.fid, enqueue.ids) == (1, 1, [ID])
    assert (result.what, find.what) == ("result", "find")
    client.receive([protocol.pack(protocol.Reply(result.request, True, False))])
    assert client.events.pop() == ("result", CallReply(True, False))
    # And the session serves: its functions are defined anew, its numbers rise.
    seq = client.submit(F, codec.Blob(b"x"), None, "next")
    (submit,) = sent(client)
    assert (submit.first_seq, submit.fid, seq) == (2, 1, 2)


def test_a_change_that_may_have_been_made_is_not_asked_for_twice() -> None:
    client = core()
    for what in ("retry", "remove", "cancel"):
        client.ask_jobs(what, [ID], what)
    sent(client)
    client.disconnected(GONE)
    told = errors(client)
    assert set(told) == {"retry", "remove"}
    assert told["retry"].endswith("Whether the retry was done is not known: ask for the state")
    client.ask_jobs("retry", [ID], "late")
    client.reopen()
    welcomed(client)
    assert [message.what for message in sent(client)] == ["cancel", "retry"]


def test_when_no_daemon_comes_the_error_tells_about_each_job() -> None:
    client = core()
    store(client, "sent")
    client.ask_jobs("result", [ID], "result")
    client.ask_jobs("find", [ID, ID], "two")
    sent(client)
    client.disconnected(GONE)
    store(client, "unsent")
    client.lose(DaemonUnreachable("none came."))
    told = errors(client)
    assert f"Whether job {ID.hex()} is stored is not known" in told["sent"]
    assert told["unsent"] == "none came. Nothing was stored"
    assert f"Job {ID.hex()} is on disk and continues: client.job({ID.hex()!r})" in told["result"]
    assert told["two"] == "none came."
    assert not client.wants_link
    client.ask_jobs("result", [ID], "later")  # looks for a daemon once more
    assert client.wants_link


def test_without_reconnecting_all_end_at_once() -> None:
    client = core(reconnects=False)
    store(client)
    client.disconnected(GONE)
    assert set(errors(client)) == {"store"}
    with pytest.raises(DaemonUnreachable):
        store(client)


def test_a_question_that_its_caller_gave_up_is_not_asked_again() -> None:
    client = core()
    client.ask_jobs("result", [ID], "result")
    client.disconnected(GONE)
    client.forget_call("result")
    assert not client.wants_link
    client.reopen()
    welcomed(client)
    assert sent(client) == []


def test_the_next_daemon_may_be_too_old_for_durable_jobs() -> None:
    client = core()
    store(client)
    client.disconnected(GONE)
    client.reopen()
    welcomed(client, 2)
    assert "keeps no durable jobs" in errors(client)["store"]
    with pytest.raises(GmpdError, match="keeps no durable jobs"):
        store(client)


def test_a_question_that_cannot_be_made_again_fails_alone() -> None:
    class Part:
        name, superseded = "00:1", False

        def data(self) -> bytes:
            raise ValueError("its value is gone")

    client = core()
    store(client)
    client.disconnected(GONE)
    client.enqueue(
        FunctionRef("main", "g", b"", (Part(),)),
        [(ID, codec.Blob(b"x"))], None, STORED, "broken",
    )  # fmt: skip
    client.reopen()
    welcomed(client)
    assert "its value is gone" in errors(client)["broken"]
    assert [type(m).__name__ for m in sent(client)] == ["Define", "Enqueue"]


def test_an_outage_opens_one_link_and_another_when_that_was_turned_away() -> None:
    outage = Outage(100.0, 60.0)
    assert outage.step(100.0) is Step.LINK
    assert outage.step(130.0) is Step.NOTHING
    assert outage.next_s(130.0) == 30.0
    outage.link_failed(130.0)
    assert outage.next_s(130.0) == pytest.approx(RELINK_S)
    assert outage.step(130.0 + RELINK_S) is Step.LINK
    outage.link_failed(140.0, FULL_S)
    outage.link_failed(140.0)  # the sooner one
    assert outage.next_s(140.0) == pytest.approx(RELINK_S)
    assert outage.step(160.0) is Step.GIVE_UP


def test_an_outage_may_be_endless() -> None:
    outage = Outage(0.0, Target("ipc://x", 5.0).reconnecting(math.inf).reconnect)
    assert outage.step(0.0) is Step.LINK
    assert outage.step(FOREVER_S / 2) is Step.NOTHING


def test_a_wrong_reconnect_is_refused_by_name() -> None:
    for bad, kind in ((-1, ValueError), (math.nan, ValueError), ("5", TypeError)):
        with pytest.raises(kind, match="reconnect="):
            check_client("", reconnect=bad)
    assert Target("ipc://x", 5.0, reconnect=7.0).reconnecting(None).reconnect == 7.0
