"""The client's core: batches, window, acknowledgements, cancels, loss; and its future."""

from __future__ import annotations

import gc
import operator
import threading
import weakref
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from itertools import islice
from typing import Any

import pytest

from gmpd import codec, protocol
from gmpd.client.calls import Answer
from gmpd.client.chunks import run_chunk
from gmpd.client.core import ClientCore, JobDone, JobNotice, apply
from gmpd.client.futures import JobFuture
from gmpd.client.mapping import CHUNK_ITEMS_MAX, CHUNK_US, PROBES, WINDOW_ITEMS_MAX, Plan, Sizer
from gmpd.codec import FunctionRef
from gmpd.errors import (
    DaemonUnreachable,
    GmpdError,
    JobPoisoned,
    JobTimeout,
    LimitPassed,
    ProtocolError,
    QueueFull,
    WorkerLost,
)
from gmpd.protocol import Outcome

F = FunctionRef("name", "m:f")
G = FunctionRef("name", "m:g")


def core(window: int = 100, batch_jobs: int = 10) -> ClientCore:
    made = ClientCore(b"s" * 16, {})
    receive(made, protocol.Welcome(1, 1, window, batch_jobs, 1 << 20, protocol.DaemonInfo()))
    return made


def receive(client: ClientCore, message: protocol.Message) -> None:
    client.receive([protocol.pack(message)])


def sent(client: ClientCore) -> list[Any]:
    return [protocol.unpack(m[0], protocol.FROM_CLIENT) for m in client.take_outgoing()]


def submit(client: ClientCore, n: int = 1, ref: FunctionRef = F, options: Any = None) -> list[int]:
    return [client.submit(ref, codec.Blob(b"x"), options, object()) for _ in range(n)]


def done(seqs: list[int]) -> protocol.Done:
    return protocol.Done(seqs, [b"\xc0"] * len(seqs), [1] * len(seqs), None, None)


def test_like_jobs_go_together_and_a_function_is_defined_once() -> None:
    client = core()
    submit(client, 12)
    submit(client, 1, G)
    submit(client, 1, G, {"retries": 1})
    messages = sent(client)
    assert [type(m).__name__ for m in messages] == [
        "Define", "Submit", "Submit", "Define", "Submit", "Submit",
    ]  # fmt: skip
    assert [len(m.payloads) for m in messages if isinstance(m, protocol.Submit)] == [10, 2, 1, 1]
    submit(client)
    assert [type(m).__name__ for m in sent(client)] == ["Submit"]


def test_the_window_holds_back_and_an_ack_opens_it() -> None:
    client = core(window=4)
    seqs = submit(client, 10)
    assert [len(m.payloads) for m in sent(client)[1:]] == [4]
    assert sent(client) == []
    receive(client, done(seqs[:3]))
    messages = sent(client)
    assert protocol.Ack(3) in messages
    assert sum(len(m.payloads) for m in messages if isinstance(m, protocol.Submit)) == 3
    assert client.unsent == 3


def test_cancelled_before_it_was_sent_it_never_is() -> None:
    client = core(window=2)
    seqs = submit(client, 6)
    sent(client)
    assert client.cancel([seqs[3], seqs[0]]) == 1  # the first is out: the daemon is asked
    assert sent(client) == [protocol.Cancel([seqs[0]])]
    receive(client, done(seqs[:2]))
    receive_all = [m for m in sent(client) if isinstance(m, protocol.Submit)]
    assert [(m.first_seq, len(m.payloads)) for m in receive_all] == [(seqs[2], 1), (seqs[4], 1)]


def test_every_job_has_one_end() -> None:
    client = core()
    seqs = submit(client, 3)
    sent(client)
    receive(client, done(seqs[:1]))
    receive(client, done(seqs[:1]))  # repeated: dropped
    client.lose(DaemonUnreachable("gone"))
    client.lose(DaemonUnreachable("again"))
    ends = [news for _, news in client.events if isinstance(news, JobDone)]
    assert [end.outcome for end in ends] == [Outcome.OK, Outcome.LOST, Outcome.LOST]
    assert client.busy == 0
    with pytest.raises(DaemonUnreachable, match="gone"):
        submit(client)


def test_a_loss_is_raised_anew_each_time() -> None:
    """One exception that is raised again and again grows, and keeps the frames on its way."""
    client = core()
    lost = DaemonUnreachable("gone")
    lost.code = "stopped"
    lost.add_note("a note")
    client.lose(lost)
    told: list[DaemonUnreachable] = []
    for _ in range(3):
        for ask in (lambda: submit(client), lambda: client.call("status", {}, object())):
            with pytest.raises(DaemonUnreachable, match="gone") as raised:
                ask()
            told.append(raised.value)
    assert len({id(error) for error in told}) == 6
    assert {(error.code, *error.__notes__) for error in told} == {("stopped", "a note")}
    assert lost.__traceback__ is None


def test_nonsense_changes_nothing() -> None:
    client = core()
    submit(client)
    for frames in (
        [b"\xff"],
        [protocol.pack(protocol.Ack(1))],
        [protocol.pack(done([1])), b"stray"],
    ):
        with pytest.raises(ProtocolError):
            client.receive(frames)
    assert client.busy == 1
    assert not client.events


def test_another_version_is_told_with_both() -> None:
    client = ClientCore(b"s" * 16, {})
    with pytest.raises(ProtocolError, match="versions 7 to 9"):
        receive(client, protocol.Refused(7, 9, "too old"))


def test_the_daemon_forgets_the_function_that_was_unused_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gmpd.client.core.FUNCTIONS_MAX", 2)
    client = core()
    names: dict[int, str] = {}
    ran = []
    for ref in (F, G, F, FunctionRef("name", "m:h"), F, G):
        submit(client, 1, ref)
        for message in sent(client):
            match message:
                case protocol.Define(fid, _, name, _):
                    names[fid] = name
                case protocol.Undefine(fids):
                    assert [names.pop(fid) for fid in fids] != ["m:f"], "it was used just now"
                case protocol.Submit(fid):
                    ran.append(names[fid])
                case _:
                    raise AssertionError(f"an unexpected {message}")
    assert ran == ["m:f", "m:g", "m:f", "m:h", "m:f", "m:g"]
    assert len(names) == 2


def refuse(
    client: ClientCore,
    seqs: list[int],
    room: int = 0,
    reason: str = "queue_jobs",
    *,
    told: bool = False,
) -> None:
    details: Any = {"reason": reason, "text": "full", "room": room, "retry_after": 0.1}
    if told:
        details["told"] = True
    specials: Any = dict.fromkeys(range(len(seqs)), (Outcome.REJECTED, details))
    receive(client, protocol.Done(seqs, [b""] * len(seqs), [0] * len(seqs), specials, None))


def test_who_is_told_of_room_sends_as_much_and_waives_the_rest() -> None:
    client = core(batch_jobs=2)
    seqs = submit(client, 4)
    submits(client)
    refuse(client, seqs, told=True)
    more = submit(client, 1)
    assert submits(client) == []
    assert client.retry_s == 2.0, "only should the daemon forget"
    receive(client, protocol.Room(1))
    stirred, went, after = client.outgoing, submits(client), client.outgoing
    assert (stirred, went) == (True, [seqs[:1]])
    assert not after, "what is to come is waited for, and not in a circle"
    client.cancel(seqs[3:])
    receive(client, protocol.Room(5))
    messages = sent(client)
    assert messages[-1] == protocol.Waive(), "it needs no more than three"
    assert [len(m.payloads) for m in messages if isinstance(m, protocol.Submit)] == [1, 1, 1]
    assert client.retry_s == 0.0
    client.retry()
    receive(client, protocol.Room(2))
    assert sent(client) == [protocol.Waive()], "there is nothing to send"
    receive(client, done([*seqs[:3], *more]))
    assert client.busy == client.unsent == 0


def test_what_is_refused_again_waits_again() -> None:
    client = core()
    seqs = submit(client, 3)
    submits(client)
    refuse(client, seqs, told=True)
    receive(client, protocol.Room(2))
    assert submits(client) == [seqs[:2]]
    refuse(client, seqs[:2], told=True)
    assert submits(client) == []
    receive(client, protocol.Room(3))
    assert submits(client) == [seqs[:2], seqs[2:]]
    refuse(client, seqs[2:], told=True)
    client.retry()
    assert submits(client) == [seqs[2:]], "one is tried when nothing was said for long"


def submits(client: ClientCore) -> list[list[int]]:
    return [
        list(range(m.first_seq, m.first_seq + len(m.payloads)))
        for m in sent(client)
        if isinstance(m, protocol.Submit)
    ]


def test_what_the_daemon_has_no_room_for_is_sent_again_in_order() -> None:
    client = core(batch_jobs=2)
    seqs = submit(client, 7)
    assert submits(client) == [seqs[:2], seqs[2:4], seqs[4:6], seqs[6:]]
    receive(client, done(seqs[:2]))
    refuse(client, seqs[2:4])
    refuse(client, seqs[4:6], room=1)
    more = submit(client, 2)
    assert submits(client) == [], "nothing goes out before the time"
    assert (client.retry_s, client.unsent, client.busy) == (0.1, 6, 7)
    client.retry()
    assert submits(client) == [seqs[2:3]], "as many as there was room for"
    client.retry()
    assert submits(client) == [seqs[3:4], seqs[4:5]], "that was accepted: twice as many"
    refuse(client, seqs[3:4], room=50)
    client.retry()
    assert submits(client) == [seqs[3:4], seqs[5:6], more]
    client.retry()
    assert client.retry_s == 0.0, "nothing waits"
    receive(client, done([seqs[i] for i in (2, 4, 3, 5, 6)] + more))
    assert client.busy == client.unsent == 0
    ends = [(id(sink), news) for sink, news in client.events if isinstance(news, JobDone)]
    assert [end.outcome for _, end in ends] == [Outcome.OK] * 9
    assert len({sink for sink, _ in ends}) == 9


def test_what_was_refused_keeps_its_buffers_and_its_function() -> None:
    client = core()
    sink = object()
    client.submit(F, codec.Blob(b"x", (b"buffer",)), {"retries": 1}, sink)
    first = client.take_outgoing()[-1]
    refuse(client, [1])
    submit(client, 1, G)
    client.retry()
    assert first in client.take_outgoing()


def test_a_refused_job_can_be_cancelled_while_it_waits() -> None:
    client = core()
    seqs = submit(client, 4)
    sent(client)
    late = submit(client, 1, G)
    sent(client)
    refuse(client, seqs, room=9)
    assert client.cancel([seqs[1], *late]) == 1
    assert protocol.Cancel(late) in sent(client), "that one is out"
    client.retry()
    assert submits(client) == [seqs[:1], seqs[2:]]
    assert client.busy == 4


@pytest.mark.parametrize("reason", ["draining", "too_large"])
def test_where_no_waiting_helps_the_job_ends(reason: str) -> None:
    client = core()
    (seq,) = submit(client)
    sent(client)
    refuse(client, [seq], reason=reason)
    assert (client.busy, client.retry_s) == (0, 0.0)


def test_refused_jobs_end_when_nobody_asked_to_send_them_again() -> None:
    client = ClientCore(b"s" * 16, {}, resend=False)
    receive(client, protocol.Welcome(1, 1, 100, 10, 1 << 20, protocol.DaemonInfo()))
    (seq,) = submit(client)
    sent(client)
    refuse(client, [seq], room=3)
    ((_, end),) = client.events
    assert isinstance(end, JobDone)
    assert (end.outcome, end.details["room"]) == (Outcome.REJECTED, 3)


def test_what_was_sent_is_kept_no_longer_than_until_there_is_news() -> None:
    client = core(window=100, batch_jobs=5)
    seqs = submit(client, 100)
    sent(client)
    assert client._resend_buffer is not None
    assert len(client._resend_buffer._sent) == 20
    receive(client, protocol.Running([seqs[0]]))
    receive(client, done([seqs[62]]))  # of the 13th batch: the first job goes on for an hour
    assert len(client._resend_buffer._sent) == 7


def test_running_and_kept_reach_the_job() -> None:
    client = core()
    (seq,) = submit(client)
    receive(client, protocol.Running([seq, 999]))
    receive(client, protocol.Kept([seq]))
    assert [news.what for _, news in client.events if isinstance(news, JobNotice)] == [
        "running",
        "kept",
    ]


class Box:
    """A sink of whose end a weak reference tells."""

    streams = False
    news: JobDone | None = None

    def ended(self, news: JobDone) -> None:
        self.news = news


@pytest.mark.parametrize("outcome", [None, *Outcome])
@pytest.mark.parametrize("make", [JobFuture, Box])
def test_a_sink_that_keeps_its_news_ends_with_its_last_reference(
    make: type[Any], outcome: Outcome | None
) -> None:
    """It does not wait for the collector, nor do a large value and an unclosed client with it."""
    client, sink = core(), make()
    gone = weakref.ref(sink)
    client.submit(F, codec.Blob(b"x", ()), None, sink)
    sent(client)
    details: protocol.Details | None = {"reason": "too_large"}
    specials = None if outcome is None else {0: (outcome, details)}
    gc.disable()
    try:
        receive(client, protocol.Done([1], [b"a value"], [1], specials, None))
        apply(client.events.popleft())
        del sink
        assert gone() is None
    finally:
        gc.enable()


def end(future: JobFuture, outcome: Outcome, payload: bytes = b"", **details: Any) -> None:
    future.ended(JobDone(outcome, payload, (), 1500, details))


@pytest.mark.parametrize(
    ("outcome", "details", "kind", "text"),
    [
        (Outcome.TIMEOUT, {}, JobTimeout, "timeout"),
        (Outcome.LOST, {"pid": 42, "signal": "SIGKILL"}, WorkerLost, r"pid 42\) died by SIGKILL"),
        (
            Outcome.LOST,
            {"pid": 42, "signal": "SIGSEGV", "text": "was killed by SIGSEGV while it ran f"},
            WorkerLost,
            r"the worker \(pid 42\) was killed by SIGSEGV while it ran f$",
        ),
        (
            Outcome.LOST,
            {"pid": 42, "exitcode": 3, "text": "ended with exit status 3"},
            WorkerLost,
            r"the worker \(pid 42\) ended with exit status 3$",
        ),
        (Outcome.LOST, {"poisoned": True}, JobPoisoned, "several workers"),
        (Outcome.REJECTED, {"text": "full", "room": 3}, QueueFull, "not accepted: full"),
    ],
)
def test_an_end_without_an_exception_of_its_own_says_what_happened(
    outcome: Outcome, details: dict[str, Any], kind: type[Exception], text: str
) -> None:
    future = JobFuture()
    end(future, outcome, **details)
    with pytest.raises(kind, match=text):
        future.result(0)


def test_an_error_comes_as_itself_with_a_note() -> None:
    future = JobFuture()
    end(future, Outcome.ERROR, codec.encode_error(KeyError("k")), p=1, pid=42, attempt=2)
    with pytest.raises(KeyError) as caught:
        future.result(0)
    assert "on P1 (pid 42), attempt 2, ran 1.5 ms" in caught.value.__notes__[0]


def test_a_value_that_cannot_be_rebuilt_fails_that_job() -> None:
    future = JobFuture()
    end(future, Outcome.OK, b"\x80\x05garbage")
    assert isinstance(future.exception(0), Exception)


def test_a_future_is_the_standard_one_to_wait_and_callbacks() -> None:
    first, second = JobFuture(), JobFuture()
    called: list[Any] = []
    first.add_done_callback(called.append)
    end(first, Outcome.OK, b"\x01")
    assert called == [first]
    assert wait([first, second], 0, FIRST_COMPLETED).done == {first}
    end(second, Outcome.CANCELLED)
    assert set(as_completed([first, second])) == {first, second}
    assert second.cancelled()
    assert first.result() == 1


def test_a_waiter_and_the_finisher_never_miss_each_other() -> None:
    def finish(futures: list[JobFuture]) -> None:
        for future in futures:
            end(future, Outcome.OK, b"\x01")

    for _ in range(300):
        futures = [JobFuture() for _ in range(8)]
        thread = threading.Thread(target=finish, args=(futures,))
        thread.start()
        assert len(list(as_completed(futures, timeout=10))) == 8
        thread.join()


def test_automatic_chunks_grow_to_some_milliseconds() -> None:
    sizer = Sizer("auto", None, False)
    assert sizer.size == 1
    for _ in range(8):
        sizer.learn(sizer.size, sizer.size * 10)
    assert sizer.size == 300
    for _ in range(20):
        sizer.learn(sizer.size, 0)
    assert sizer.size == CHUNK_ITEMS_MAX
    assert Sizer("auto", 64, False)._most == 2
    with pytest.raises(ValueError, match="chunksize=0"):
        Sizer(0, None, False)


def test_few_chunks_are_out_until_it_is_known_how_long_an_item_takes() -> None:
    sizer = Sizer("auto", None, False)
    assert sizer.chunks == PROBES
    sizer.learn(1, 600)
    assert (sizer.size, sizer.chunks) == (5, PROBES), "it may have been interrupted"
    long = Sizer("auto", None, False)
    long.learn(1, 600)
    long.learn(5, CHUNK_US)
    assert long.chunks is None, "it was not interrupted"
    quick = Sizer("auto", None, False)
    quick.learn(1, 1)
    assert (quick.size, quick.chunks) == (16, 4), "the next ones will be larger"
    long = Sizer("auto", None, False)
    long.learn(1, CHUNK_US)
    assert long.chunks is None, "no chunk needs to be larger, and others may be idle"


def test_the_time_of_an_item_is_that_of_large_chunks() -> None:
    """Of few items most is the time around them."""
    sizer = Sizer("auto", None, False)
    sizer.learn(1, 300)
    sizer.learn(10, 20)
    assert sizer.size == 160
    sizer.learn(160, 160)
    assert sizer.size == 2560


def test_a_map_of_quick_items_takes_no_more_of_its_source_than_it_did() -> None:
    plan = Plan({}, len, [iter(())], chunksize=10_000)
    items = 0
    while size := plan.room():
        plan.sent(object(), size)
        items += size
    assert 250_000 < items <= WINDOW_ITEMS_MAX + 10_000


@pytest.mark.parametrize(
    "numbers", [range(10), range(9, -4, -3), range(0), range(1 << 70, 1 << 71)]
)
def test_a_chunk_of_a_range_is_a_range(numbers: range) -> None:
    plan = Plan({}, operator.neg, [numbers])
    source, items = plan.rows_sync([numbers]), list(numbers[:25])
    taken = plan.take(source, 3)
    _, _, blob = plan.call(taken or [0])
    assert blob.nbytes < 100
    assert [*taken, *plan.take(source, 1), *islice(source, 21)] == items


def test_where_only_plain_values_travel_a_chunk_of_a_range_is_a_list() -> None:
    plan = Plan({"plain": True}, operator.neg, [range(10)], chunksize=3)
    assert plan.take(plan.rows_sync([range(10)]), 3) == [0, 1, 2]


@pytest.mark.parametrize("own", [{"timeout": 1}, {"retries": 2}, {"isolate": True}])
def test_what_is_promised_to_an_attempt_is_promised_to_an_item(own: dict[str, Any]) -> None:
    """A chunk would share one limit, and an item that fails is no chunk that fails."""
    plan = Plan(own, len, [["a"] * 1000])
    for _ in range(5):
        plan._sizer.learn(plan.room(), 1)
        assert plan.room() == 1
    assert Plan(own, len, [["a"] * 1000], chunksize=7).fixed == 7


def test_the_limit_of_a_chunk_ends_the_chunk() -> None:
    """It is no error of the item at which it is raised, after which the others would go on."""
    seen = []

    def item(x: int) -> None:
        seen.append(x)
        raise LimitPassed if x == 1 else ValueError

    with pytest.raises(LimitPassed):
        run_chunk(item, [0, 1, 2])
    assert seen == [0, 1]


async def napping(_: int) -> None: ...


def filled(plan: Plan) -> int:
    """How many items it sends while nothing comes back."""
    items = 0
    while (size := plan.room()) and items < 100_000:
        plan.sent(object(), size)
        items += size
    return items


@pytest.mark.parametrize("fn", [len, napping])
@pytest.mark.parametrize("chunksize", ["auto", 1, 3, 50])
def test_a_map_sends_as_much_as_its_buffersize_allows(fn: Any, chunksize: int | str) -> None:
    for bound in (1, 2, 10, 3000):
        plan = Plan({}, fn, [iter(())], chunksize=chunksize, buffersize=bound)
        for _ in range(PROBES):
            plan._sizer.learn(plan._sizer.size, plan._sizer.size)
        sent = filled(plan)
        assert sent <= bound
        assert sent + plan._sizer.size > bound


def test_more_coroutines_than_plain_calls_are_out_by_default() -> None:
    assert filled(Plan({}, napping, [iter(())])) == 16_384
    assert filled(Plan({}, len, [iter(())], chunksize=1)) == 1024
    plan = Plan({}, napping, [iter(())])
    plan._sizer.weigh(1, 1 << 14)  # large ones
    assert filled(plan) == 1024


def test_a_bad_buffersize_is_refused() -> None:
    for bad, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("auto", TypeError)):
        with pytest.raises(kind, match="buffersize must be"):
            Plan({}, len, [[1]], buffersize=bad)  # type: ignore[arg-type]


def test_a_call_without_an_answer_is_a_timeout_and_a_lost_daemon() -> None:
    told: list[int] = []
    answer = Answer("ping", lambda: told.append(1))
    with pytest.raises(TimeoutError, match="did not answer 'ping' within") as raised:
        answer.take("ipc://x", 0.5)
    assert isinstance(raised.value, DaemonUnreachable)
    answer.answered(False, "no such question")
    assert told == [1]
    with pytest.raises(GmpdError, match="no such question"):
        answer.take("ipc://x", 0.5)
    answer.answered(False, ConnectionResetError("lost"))
    with pytest.raises(ConnectionResetError):
        answer.take("ipc://x", None)
    answer.answered(True, {"pid": 1})
    assert answer.take("ipc://x", None) == {"pid": 1}


def test_a_question_that_cannot_be_packed_leaves_nothing_to_wait_for() -> None:
    core = ClientCore(b"s" * 16, {})
    for method, params in (("\ud800", {}), ("ping", {"x": object()}), ("ping", {"\ud800": 1})):
        with pytest.raises((TypeError, UnicodeError)):
            core.call(method, params, "sink")
        assert not core.waits
    core.call("ping", {}, "sink")
    assert core.waits


def value(seq: int) -> protocol.Value:
    return protocol.Value(seq, b"\xc0", 1)


def ends(client: ClientCore) -> list[Outcome]:
    return [news.outcome for _, news in client.events if isinstance(news, JobDone)]


def test_a_value_from_a_worker_counts_as_never_sent() -> None:
    client = core(window=4)
    seqs = submit(client, 6)
    sent(client)
    receive(client, value(seqs[1]))
    assert ends(client) == [Outcome.OK]
    assert [len(each.payloads) for each in sent(client)] == [1], "its room is free again"
    receive(client, value(seqs[1]))
    assert ends(client) == [Outcome.OK], "once"
    receive(client, done([seqs[1]]))  # of a coordinator that found it where its worker had died
    assert ends(client) == [Outcome.OK]
    receive(client, done([*seqs[:1], *seqs[2:4]]))
    assert protocol.Ack(4) in sent(client)


def test_a_value_from_a_worker_does_not_say_that_older_jobs_were_accepted() -> None:
    client = core(batch_jobs=1)
    seqs = submit(client, 3)
    sent(client)
    receive(client, value(seqs[2]))
    details: protocol.Details = {"reason": "queue_jobs", "room": 2, "retry_after": 0.1}
    refused: Any = {0: (Outcome.REJECTED, details), 1: (Outcome.REJECTED, details)}
    receive(client, protocol.Done(seqs[:2], [b"", b""], [0, 0], refused, None))
    client.retry()
    client.retry()
    assert client.busy == 2
    assert ends(client) == [Outcome.OK]
    assert [each.first_seq for each in sent(client) if isinstance(each, protocol.Submit)]


def test_no_job_is_kept_for_another_time_that_has_its_value() -> None:
    client = core(batch_jobs=1)
    (slow,) = submit(client)
    for _ in range(50):
        (seq,) = submit(client)
        sent(client)
        receive(client, value(seq))
    assert client._resend_buffer is not None
    assert [each.first_seq for each in client._resend_buffer._sent] == [slow]


def test_a_question_names_the_last_values_from_workers() -> None:
    client = core()
    client.call("status", {}, object())
    assert [type(each) for each in sent(client)] == [protocol.Call]
    seqs = submit(client, 12)
    sent(client)
    for seq in seqs:
        receive(client, value(seq))
    client.call("status", {}, object())
    (call,) = sent(client)
    assert isinstance(call, protocol.CallAfter)
    assert call.jobs == seqs[-8:]
    client.disconnected(DaemonUnreachable("gone"))
    client.reopen()
    receive(client, protocol.Welcome(1, 2, 100, 10, 1 << 20, protocol.DaemonInfo()))
    client.call("status", {}, object())
    assert isinstance(sent(client)[-1], protocol.Call), "another daemon knows none of them"
