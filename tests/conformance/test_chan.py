"""Channels: Go's rules (rows 51 and 17 of the table), after the stories of Go's own chan_test.go;
and what Go cannot do: cancel.

Every test of the async face runs on a plain asyncio loop and on a P.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import pytest

import gmpd
from gmpd.errors import ChanClosed, Panic
from gmpd.runtime.chan import CLOSE_MAX, Chan, Receiver
from gmpd.runtime.loop import Loop
from gmpd.runtime.m import current_m
from gmpd.runtime.select import recv, select, send
from gmpd.runtime.sudog import SWEEP_MIN
from tests.on_loops import Run, parked, run_p, spawn


def in_sync_g(fn: Callable[[], Any]) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop.call_sync(fn)


# ---- Go's TestChan, capacity by capacity


@pytest.mark.parametrize("cap", [0, 1, 10, 100])
def test_receive_from_an_empty_channel_blocks(run: Run, cap: int) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(cap)
        plain, with_ok = spawn(ch.recv()), spawn(ch.recv_ok())
        await parked(plain, with_ok)
        assert not plain.done()
        assert not with_ok.done()
        assert await select(recv(ch), default=True) == (-1, None, False)
        await ch.send(0)
        await ch.send(0)
        assert await plain == 0
        assert await with_ok == (0, True)

    run(main())


@pytest.mark.parametrize("cap", [0, 1, 10, 100])
def test_send_to_a_full_channel_blocks(run: Run, cap: int) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(cap)
        for value in range(cap):
            await ch.send(value)
        assert len(ch) == cap
        blocked = spawn(ch.send(cap))
        await parked(blocked)
        assert not blocked.done()
        assert await select(send(ch, 0), default=True) == (-1, None, False)
        assert await ch.recv() == 0
        await blocked
        assert [await ch.recv() for _ in range(cap)] == list(range(1, cap + 1))

    run(main())


@pytest.mark.parametrize("cap", [0, 1, 10, 100])
def test_values_survive_close_then_comes_the_end_for_ever(run: Run, cap: int) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(cap)
        for value in range(cap):
            await ch.send(value)
        ch.close()
        assert [await ch.recv() for _ in range(cap)] == list(range(cap))
        for _ in range(3):
            assert await ch.recv_ok() == (None, False)
            with pytest.raises(ChanClosed, match="closed and drained"):
                await ch.recv()
            assert await select(recv(ch), default=True) == (0, None, False)

    run(main())


@pytest.mark.parametrize("cap", [0, 1, 10])
def test_close_wakes_every_receiver_with_the_end(run: Run, cap: int) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(cap)
        oks = [spawn(ch.recv_ok()) for _ in range(3)]
        plain = spawn(ch.recv())
        await parked(*oks, plain)
        ch.close()
        assert await asyncio.gather(*oks) == [(None, False)] * 3
        with pytest.raises(ChanClosed):
            await plain

    run(main())


def test_a_close_that_wakes_very_many_lets_others_run_between(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        loop = asyncio.get_running_loop()
        receivers = [spawn(ch.recv_ok()) for _ in range(3 * CLOSE_MAX)]
        await parked(*receivers)
        rounds: list[int] = []

        def look() -> None:
            rounds.append(sum(receiver.done() for receiver in receivers))
            if rounds[-1] < len(receivers):
                loop.call_soon(look)

        ch.close()
        receivers[-2].cancel()  # not woken yet, and may still be cancelled
        assert await ch.recv_ok() == (None, False), "who comes after does not wait for them"
        look()
        got = await asyncio.gather(*receivers, return_exceptions=True)
        assert got.count((None, False)) == len(receivers) - 1
        assert isinstance(got[-2], asyncio.CancelledError)
        assert len(set(rounds)) >= 3

    run(main())


@pytest.mark.parametrize("cap", [0, 1, 10])
def test_close_panics_every_waiting_sender_and_keeps_what_was_buffered(run: Run, cap: int) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(cap)
        for value in range(cap):
            await ch.send(value)
        senders = [spawn(ch.send(99)) for _ in range(3)]
        await parked(*senders)
        ch.close()
        for sender in senders:
            with pytest.raises(Panic, match="send on closed channel"):
                await sender
        assert [value async for value in ch] == list(range(cap))

    run(main())


@pytest.mark.parametrize("cap", [0, 1, 10, 100])
def test_a_hundred_values_arrive_in_order(run: Run, cap: int) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(cap)

        async def producer() -> None:
            for value in range(100):
                await ch.send(value)

        task = spawn(producer())
        assert [await ch.recv() for _ in range(100)] == list(range(100))
        await task

    run(main())


@pytest.mark.parametrize("cap", [0, 1, 10])
def test_many_senders_and_receivers_lose_and_repeat_nothing(run: Run, cap: int) -> None:
    """Go: 4 senders and 4 receivers of 1,000 values each; every value arrives four times in all."""

    async def main() -> None:
        ch: Chan[int] = Chan(cap)
        per_task, pairs = 250, 4

        async def producer() -> None:
            for value in range(per_task):
                await ch.send(value)

        async def consumer() -> list[int]:
            return [await ch.recv() for _ in range(per_task)]

        producers = [spawn(producer()) for _ in range(pairs)]
        got = await asyncio.gather(*(consumer() for _ in range(pairs)))
        await asyncio.gather(*producers)
        assert sorted(chain.from_iterable(got)) == sorted(list(range(per_task)) * pairs)

    run(main())


def test_len_and_cap_are_the_buffers(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(5)
        assert (len(ch), ch.cap) == (0, 5)
        for value in range(5):
            await ch.send(value)
        waiting = spawn(ch.send(5))
        await parked(waiting)
        assert (len(ch), ch.cap) == (5, 5)
        await ch.recv()
        await waiting
        assert len(ch) == 5
        unbuffered: Chan[int] = Chan()
        assert (len(unbuffered), unbuffered.cap) == (0, 0)
        assert unbuffered, "an empty channel is no reason for `if ch:` to fail"

    run(main())


# ---- closing rules, misuse


def test_send_on_a_closed_channel_panics(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(1)
        ch.close()
        with pytest.raises(Panic, match="send on closed channel"):
            await ch.send(1)
        with pytest.raises(Panic, match="send on closed channel"):
            await select(send(ch, 1), default=True)

    run(main())


def test_closing_twice_panics(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        ch.close()
        with pytest.raises(Panic, match="close of closed channel"):
            ch.close()

    run(main())


def test_a_negative_capacity_panics() -> None:
    with pytest.raises(Panic, match="makechan: size out of range"):
        Chan(-1)


# ---- hand-over, FIFO


def test_a_waiting_receiver_is_handed_the_value_past_the_buffer(run: Run) -> None:
    """No later sender can take it away, though it would have fitted into the buffer."""

    async def main() -> None:
        ch: Chan[str] = Chan(8)
        first = spawn(ch.recv())
        await parked(first)
        await ch.send("for the first")
        assert len(ch) == 0
        late = spawn(ch.recv())
        assert await first == "for the first"
        await ch.send("for the late one")
        assert await late == "for the late one"

    run(main())


def test_waiting_receivers_are_served_in_the_order_in_which_they_came(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        receivers = [spawn(ch.recv()) for _ in range(50)]
        await parked(*receivers)
        for value in range(50):
            await ch.send(value)
        assert await asyncio.gather(*receivers) == list(range(50))

    run(main())


@pytest.mark.parametrize("cap", [0, 3])
def test_waiting_senders_are_served_in_the_order_in_which_they_came(run: Run, cap: int) -> None:
    """With a buffer, the receiver takes its head and the longest waiting sender's value goes to
    its tail.
    """

    async def main() -> None:
        ch: Chan[int] = Chan(cap)
        senders = [spawn(ch.send(value)) for value in range(20)]
        await parked(*senders)
        assert len(ch) == cap
        assert [await ch.recv() for _ in range(20)] == list(range(20))
        await asyncio.gather(*senders)

    run(main())


def test_a_waker_does_not_wait_for_the_one_it_woke(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        woken = []

        async def receiver() -> None:
            woken.append(await ch.recv())

        task = spawn(receiver())
        await parked(task)
        await ch.send(1)
        assert woken == [], "send with a waiting receiver returns without giving the P away"
        await task
        assert woken == [1]

    run(main())


def test_iteration_ends_with_the_channel(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(2)

        async def producer() -> None:
            for value in range(5):
                await ch.send(value)
            ch.close()

        task = spawn(producer())
        assert [value async for value in ch] == [0, 1, 2, 3, 4]
        await task

    run(main())


def test_a_chain_of_channels_sieves_primes(run: Run) -> None:
    """Go's sieve: one G and one channel per prime."""

    async def count(out: Chan[int]) -> None:
        number = 2
        while True:
            await out.send(number)
            number += 1

    async def sieve(source: Chan[int], out: Chan[int], prime: int) -> None:
        async for number in source:
            if number % prime:
                await out.send(number)

    async def main() -> list[int]:
        source: Chan[int] = Chan()
        tasks = [spawn(count(source))]
        primes = []
        for _ in range(15):
            primes.append(await source.recv())
            out: Chan[int] = Chan()
            tasks.append(spawn(sieve(source, out, primes[-1])))
            source = out
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return primes

    assert run(main()) == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]


# ---- cancel: what Go cannot do


def test_a_cancelled_receiver_leaves_the_queue(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        first, second = spawn(ch.recv()), spawn(ch.recv())
        await parked(first, second)
        first.cancel()
        await ch.send(1)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == 1

    run(main())


def test_a_value_handed_to_a_receiver_that_is_cancelled_goes_to_the_next_one(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        first, second = spawn(ch.recv()), spawn(ch.recv())
        await parked(first, second)
        await ch.send(1)  # handed to the first, which has not run yet
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == 1

    run(main())


def test_a_value_handed_to_the_only_receiver_which_is_cancelled_stays_in_the_channel(
    run: Run,
) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        receiver = spawn(ch.recv())
        await parked(receiver)
        await ch.send(1)
        receiver.cancel()
        assert len(ch) == 1, "a cancelled receive has received nothing, already when cancel returns"
        ch.close()
        with pytest.raises(asyncio.CancelledError):
            await receiver
        assert await ch.recv_ok() == (1, True)
        assert await ch.recv_ok() == (None, False)

    run(main())


def test_several_values_given_back_keep_their_order(run: Run) -> None:
    """In any order of the cancels, and with senders waiting behind."""

    async def main() -> None:
        ch: Chan[int] = Chan(2)
        receivers = [spawn(ch.recv()) for _ in range(4)]
        await parked(*receivers)
        for value in range(4):
            await ch.send(value)
        for index in (2, 0, 3, 1):
            receivers[index].cancel()
        await asyncio.gather(*receivers, return_exceptions=True)
        more = [spawn(ch.send(value)) for value in (4, 5)]
        await parked(*more)
        assert len(ch) == 4
        assert await ch.recv() == 0
        late = spawn(ch.recv())
        assert await late == 1
        assert [await ch.recv() for _ in range(4)] == [2, 3, 4, 5]
        await asyncio.gather(*more)

    run(main())


def test_values_given_back_one_by_one_between_receives_keep_their_order(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        receivers = [spawn(ch.recv()) for _ in range(3)]
        await parked(*receivers)
        for value in range(3):
            await ch.send(value)
        receivers[0].cancel()
        assert await ch.recv() == 0
        receivers[2].cancel()
        receivers[1].cancel()
        assert [await ch.recv(), await ch.recv()] == [1, 2]
        await asyncio.gather(*receivers, return_exceptions=True)

    run(main())


def test_a_cancelled_sender_that_waits_has_not_sent(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        first, second = spawn(ch.send(1)), spawn(ch.send(2))
        await parked(first, second)
        first.cancel()
        assert await ch.recv() == 2
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await select(recv(ch), default=True) == (-1, None, False)

    run(main())


def test_a_sender_cancelled_after_its_value_was_taken_has_sent_it_once(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        sender = spawn(ch.send(1))
        await parked(sender)
        assert await ch.recv() == 1
        sender.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sender
        assert await select(recv(ch), default=True) == (-1, None, False)

    run(main())


def test_the_cancel_message_and_count_arrive(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        seen: list[Any] = []

        async def receiver() -> None:
            try:
                await ch.recv()
            except asyncio.CancelledError as exc:
                task = asyncio.current_task()
                assert task is not None
                seen.append((exc.args, task.cancelling(), task.uncancel()))
            seen.append(await ch.recv())

        task = spawn(receiver())
        await parked(task)
        task.cancel("because")
        await parked(task)
        await ch.send(7)
        await task
        assert seen == [(("because",), 1, 0), 7]

    run(main())


def test_a_cancel_that_comes_before_the_wait_begins_ends_it(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()

        async def suicidal() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await ch.recv()

        with pytest.raises(asyncio.CancelledError):
            await spawn(suicidal())
        assert await select(send(ch, 1), default=True) == (-1, None, False), "no G waits any more"

    run(main())


def test_timeouts_leave_the_value_in_the_channel(run: Run) -> None:
    """Both clocks of the race: the value comes, then the timeout, before the receiver runs."""

    async def main() -> None:
        ch: Chan[int] = Chan()
        loop = asyncio.get_running_loop()

        async def impatient() -> int:
            async with asyncio.timeout(3600) as limit:
                loop.call_soon(race, limit)
                return await ch.recv()

        def race(limit: asyncio.Timeout) -> None:
            ch.sync.send(1)  # hands the value over ...
            limit.reschedule(loop.time())  # ... and the timeout is due before the receiver runs
            limit._on_timeout()  # type: ignore[attr-defined]

        with pytest.raises(TimeoutError):
            await impatient()
        assert await ch.recv() == 1

    run(main())


def test_wait_for_with_a_timeout_leaves_no_waiter_behind(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.recv(), 0.001)
        assert not ch._recv_ready()
        assert not ch._send_ready(), "no G waits any more"

    run(main())


def test_many_cancelled_waiters_do_not_pile_up_in_a_queue(run: Run) -> None:
    """As when a select in a loop waits on a quiet channel again and again."""

    async def main() -> None:
        quiet: Chan[int] = Chan()
        head = spawn(quiet.recv())
        tasks = [spawn(quiet.recv()) for _ in range(1000)]
        tail = spawn(quiet.recv())
        await parked(head, tail, *tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(quiet._recvq) <= SWEEP_MIN + 2
        await quiet.send(1)
        await quiet.send(2)
        assert (await head, await tail) == (1, 2)

    run(main())


def test_a_dropped_channel_and_the_tasks_parked_on_it_are_collected() -> None:
    """Closing the coroutine of a G that will never run again must not wake it."""

    async def main() -> None:
        ch: Chan[int] = Chan()
        coro = ch.recv()
        sg = coro.send(None)
        assert isinstance(sg, Receiver)
        sg.add_done_callback(lambda _: pytest.fail("a closed coroutine was woken"))
        coro.close()
        assert not ch._send_ready()
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()


def test_a_channel_of_another_loop_is_refused(run: Run) -> None:
    async def make() -> Chan[int]:
        return Chan()

    ch = run(make())

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"different (event )?loop"):
            await ch.recv()

    run(main())


def test_a_channel_of_another_loop_says_what_to_use_instead(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        for wait in (ch.recv, partial(ch.send, 1), partial(select, recv(ch))):
            with pytest.raises(RuntimeError, match=r"different loop") as refused:
                await asyncio.to_thread(asyncio.run, wait())
            assert "use .sync" in str(refused.value)

    run(main())


def test_who_is_served_from_another_loop_wakes(run: Run) -> None:
    """By one of another thread that need not wait: this loop sleeps meanwhile."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ch: Chan[int] = Chan()

        def once_asleep(operation: Callable[[], Any]) -> None:
            while not (ch._recvq or ch._sendq) or (isinstance(loop, Loop) and not loop.p.is_idle):
                time.sleep(0.001)
            asyncio.run(operation())

        for theirs, ours in ((partial(ch.send, 7), ch.recv), (ch.recv, partial(ch.send, 8))):
            other = threading.Thread(target=once_asleep, args=[theirs])
            other.start()
            async with asyncio.timeout(20):
                assert await ours() in (7, None)
            other.join()

    run(main())


def test_a_receive_that_was_resumed_by_hand_can_be_dropped(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        byhand = ch.recv()
        byhand.send(None)  # no G parks on what it yields
        sender = spawn(ch.send(3))
        await parked(sender)
        byhand.close()
        assert await ch.recv() == 3
        await sender

    run(main())


def test_its_operations_tell_what_they_give() -> None:
    returns = [inspect.signature(fn).return_annotation for fn in (Chan.recv, Chan.send, gmpd.sleep)]
    assert returns == ["T", "None", "None"]


def test_what_a_parked_task_waits_for_is_said_in_gos_words(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        receiver = spawn(ch.recv())
        await parked(receiver)
        assert "[chan receive] waiting" in repr(receiver)
        await ch.send(1)
        sender = spawn(ch.send(1))
        chooser = spawn(select(recv(Chan())))
        await parked(sender, chooser)
        assert "[chan send]" in repr(sender)
        assert "[select]" in repr(chooser)
        for task in (sender, chooser):
            task.cancel()
        await asyncio.gather(receiver, sender, chooser, return_exceptions=True)

    run(main())


# ---- what send, recv and sleep are to asyncio


def test_an_operation_is_a_coroutine_like_any_other(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(1)
        for operation in (ch.recv, ch.send, select, gmpd.sleep):
            assert inspect.iscoroutinefunction(operation)
        task = asyncio.create_task(ch.recv())
        both = asyncio.gather(ch.recv(), asyncio.wait_for(ch.recv(), 10))
        await asyncio.ensure_future(ch.send(1))
        for n in (2, 3):
            await ch.send(n)
        assert [await task, *await both] == [1, 2, 3]

    run(main())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_an_operation_that_is_not_awaited_is_warned_about_and_did_nothing(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(1)
        calls: dict[str, Callable[[], Any]] = {
            "Chan.send": partial(ch.send, 1), "sleep": partial(gmpd.sleep, 1),
        }  # fmt: skip
        for name, call in calls.items():
            with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
                call()
        assert len(ch) == 0

    run(main())


@pytest.mark.parametrize("operation", ["recv", "send", "select", "sleep"])
def test_a_wait_that_two_await_is_an_error_for_both_and_leaves_no_waiter(
    run: Run, operation: str
) -> None:
    """CPython looks at what a coroutine awaits; this one awaits nothing, it yields."""

    async def main() -> None:
        ch: Chan[int] = Chan()
        operations: dict[str, Callable[[], Any]] = {
            "recv": ch.recv, "send": partial(ch.send, 1), "select": partial(select, recv(ch)),
            "sleep": partial(gmpd.sleep, 60),
        }  # fmt: skip
        wait = operations[operation]()

        async def waiter() -> None:
            await wait

        first = spawn(waiter())
        await parked(first)
        if operation == "sleep" and not isinstance(asyncio.get_running_loop(), Loop):
            first.cancel()  # it is asyncio's own sleep there
            return
        errors = await asyncio.gather(spawn(waiter()), first, return_exceptions=True)
        assert [type(error) for error in errors] == [RuntimeError, RuntimeError]
        assert "await" in str(errors[0])
        assert not ch._recv_ready()
        assert not ch._send_ready()

    run(main())


def test_closing_a_parked_operation_takes_its_waiter_out(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        receiving = ch.recv()
        receiving.send(None)
        receiving.close()
        sent = spawn(ch.send(1))
        await parked(sent)
        assert await ch.recv() == 1

    run(main())


# ---- sync Gs


def test_sync_gs_and_async_gs_share_a_channel() -> None:
    """A sync G that waits gives its P away at once: here there is only one P, and all go on."""

    async def main() -> None:
        ch: Chan[int] = Chan()
        back: Chan[int] = Chan()

        def doubler() -> int:
            n = 0
            for value in ch.sync:
                back.sync.send(2 * value)
                n += 1
            back.sync.close()
            return n

        ended = in_sync_g(doubler)
        got = []
        for value in range(50):
            await ch.send(value)
            got.append(await back.recv())
        ch.close()
        assert await back.recv_ok() == (None, False)
        assert await ended == 50
        assert got == [2 * value for value in range(50)]

    run_p(main())


def test_sync_gs_alone_pass_values_on_in_order() -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(3)

        def producer() -> None:
            for value in range(200):
                ch.sync.send(value)
            ch.close()

        got = in_sync_g(lambda: list(ch.sync))
        await in_sync_g(producer)
        assert await got == list(range(200))

    run_p(main())


def test_a_known_blocking_receive_hands_p_off_without_waiting_for_sysmon() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        ch: Chan[int] = Chan()
        waiting = in_sync_g(ch.sync.recv)
        while not ch._send_ready():
            await asyncio.sleep(0)
        assert [m.wait_reason for m in loop.p.detached] == ["chan receive"]
        await ch.send(1)
        assert await waiting == 1
        assert loop.p.stats.handoff_known == 1

    run_p(main())


def test_a_sync_operation_that_need_not_wait_keeps_its_p() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        ch: Chan[int] = Chan(1)

        def use() -> tuple[Any, bool]:
            ch.sync.send(1)
            return ch.sync.recv_ok(), loop.p.owner is current_m()

        assert await in_sync_g(use) == ((1, True), True)
        assert loop.p.stats.handoff_known == 0

    run_p(main())


def test_a_sync_receiver_sees_the_end_and_a_sync_sender_the_panic() -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        receiver, with_ok = in_sync_g(ch.sync.recv), in_sync_g(ch.sync.recv_ok)
        while len(ch._recvq) < 2:
            await asyncio.sleep(0)
        ch.close()
        with pytest.raises(ChanClosed):
            await receiver
        assert await with_ok == (None, False)
        full: Chan[int] = Chan()
        sender = in_sync_g(lambda: full.sync.send(1))
        while not full._recv_ready():
            await asyncio.sleep(0)
        full.close()
        with pytest.raises(Panic, match="send on closed channel"):
            await sender
        with pytest.raises(Panic, match="close of closed channel"):
            await in_sync_g(full.sync.close)

    run_p(main())


def test_many_sync_and_async_gs_on_one_channel_lose_nothing() -> None:
    """Ms without P beside the P holder: their operations go home, so no lock is needed, and
    nothing is lost.
    """

    async def main() -> None:
        ch: Chan[int] = Chan(2)
        each, kinds = 60, 4

        def sync_producer() -> None:
            for value in range(each):
                ch.sync.send(value)

        async def async_producer() -> None:
            for value in range(each):
                await ch.send(value)

        producers: list[Any] = [in_sync_g(sync_producer) for _ in range(kinds)]
        producers += [spawn(async_producer()) for _ in range(kinds)]

        async def async_consumer() -> list[int]:
            return [value async for value in ch]

        consumers: list[Any] = [in_sync_g(lambda: list(ch.sync)) for _ in range(kinds)]
        consumers += [spawn(async_consumer()) for _ in range(kinds)]
        await asyncio.gather(*producers)
        ch.close()
        got = await asyncio.gather(*consumers)
        assert sorted(chain.from_iterable(got)) == sorted(list(range(each)) * 2 * kinds)

    run_p(main())


def test_a_plain_thread_talks_to_a_plain_loop() -> None:
    async def main() -> None:
        ch: Chan[int] = Chan()
        back: Chan[int] = Chan()

        def echo() -> None:
            for value in ch.sync:
                back.sync.send(value)
            back.close()

        thread = threading.Thread(target=echo)
        thread.start()
        for value in range(20):
            await ch.send(value)
            assert await back.recv() == value
        ch.close()
        assert await back.recv_ok() == (None, False)
        await asyncio.to_thread(thread.join)

    asyncio.run(main())


def test_waiting_by_the_sync_face_in_async_code_is_refused_and_leaves_nothing(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(1)
        with pytest.raises(RuntimeError, match=r"\[chan receive\] would block the event loop"):
            ch.sync.recv()
        ch.sync.send(1)  # need not wait: fine
        with pytest.raises(RuntimeError, match=r"\[chan send\] would block the event loop"):
            ch.sync.send(2)
        assert len(ch) == 1
        assert ch.sync.recv() == 1
        assert not ch._recv_ready()

    run(main())


def test_a_channel_made_where_no_loop_runs_is_at_home_where_it_is_first_waited_on(
    run: Run,
) -> None:
    ch: Chan[int] = Chan(1)
    ch.sync.send(1)
    with pytest.raises(RuntimeError, match="no event loop is running"):
        ch.sync.send(2)

    async def main() -> None:
        assert await ch.recv() == 1
        receiver = spawn(ch.recv())
        await parked(receiver)
        await ch.send(2)
        assert await receiver == 2

    run(main())
