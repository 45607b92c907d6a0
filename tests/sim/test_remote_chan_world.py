"""Channels between workers in a seeded world: no value is lost or doubled, whichever G is
cancelled.

Several workers' exchanges live in one event loop; messages between two of them arrive in order,
after seeded turns of the loop. Gs on all of them send, receive and are cancelled at seeded moments;
in some worlds a worker dies. A failure prints its seed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import gmpd
from gmpd.codec import decode, encode
from gmpd.errors import ChanClosed, WorkerLost
from gmpd.runtime.chan import Chan
from gmpd.runtime.loop import Loop
from gmpd.runtime.remote import Address, ChanMessage, ChanRouter, RemoteChan

SEEDS = 60


class World:
    """Workers, the messages between them, and dice."""

    def __init__(self, seed: int, workers: int = 3) -> None:
        self.dice = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.routers: dict[Address, ChanRouter] = {}
        self.messages: dict[tuple[Address, Address], deque[ChanMessage]] = {}
        self.posted = Counter[str]()
        for p in range(workers):
            me = (p, 1)
            self.routers[me] = ChanRouter(me, self.loop, self._poster(me), 1 << 20)
        self.postman = self.loop.create_task(self._deliver())

    def _poster(self, me: Address) -> Callable[[Address, ChanMessage], None]:
        def post(to: Address, message: ChanMessage) -> None:
            self.posted[message.op.name] += 1
            if me in self.routers:
                self.messages.setdefault((me, to), deque()).append(message)

        return post

    async def _deliver(self) -> None:
        while True:
            await asyncio.sleep(0)
            waiting = [way for way, messages in self.messages.items() if messages]
            if waiting and self.dice.random() < 0.7:
                source, to = self.dice.choice(waiting)
                message = self.messages[source, to].popleft()
                if to in self.routers:
                    self.routers[to].received(source, message)
                elif source in self.routers:
                    self.routers[source].lost(to)

    def handle(self, p: int, ch: Chan[Any]) -> Chan[Any]:
        """The channel as worker ``p`` finds it among a child's arguments."""
        blob = encode_with(self.routers[0, 1], ch)
        with self.routers[p, 1].open():
            found: Chan[Any] = decode(*blob)
        return found

    def face(self, p: int, ch: Chan[Any], home: int) -> Chan[Any]:
        """A channel of worker ``home`` as worker ``p`` has it."""
        if p == home:
            return ch
        blob = encode_with(self.routers[home, 1], ch)
        with self.routers[p, 1].open():
            found: Chan[Any] = decode(*blob)
        return found

    def kill(self, p: int) -> None:
        """A worker dies: its last messages may still arrive, and all others are told after."""
        me = (p, 1)
        del self.routers[me]
        for way in list(self.messages):
            if me in way:
                del self.messages[way]
        for other in self.routers.values():
            other.lost(me)

    async def settle(self) -> None:
        """Until no message is under way."""
        quiet = 0
        while quiet < 20:
            await asyncio.sleep(0)
            quiet = 0 if any(self.messages.values()) else quiet + 1

    def end(self) -> None:
        self.postman.cancel()


def encode_with(router: ChanRouter, value: object) -> Any:
    with router.open():
        return encode(value)


def play(story: Callable[[World], Awaitable[Any]], seed: int) -> Any:
    """Run a story in a world of its own."""
    loop = Loop()

    async def main() -> Any:
        world = World(seed)
        try:
            return await asyncio.wait_for(story(world), 30)
        except Exception as exc:
            exc.add_note(f"seed {seed}")
            raise
        finally:
            world.end()

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


async def bustle(world: World, *, die: bool = False) -> None:
    """Senders and receivers on all workers, cancels at any moment; then the accounts are made."""
    dice = world.dice
    ch: Chan[tuple[int, int]] = Chan(dice.choice((0, 0, 1, 3)))
    faces = [world.handle(p, ch) for p in range(3)]
    assert faces[0] is ch
    assert isinstance(faces[1], RemoteChan)
    got: list[tuple[int, int]] = []
    #: Received by Gs of the worker that dies.
    buried: list[tuple[int, int]] = []
    victim = 2
    sent: set[tuple[int, int]] = set()
    unsure: set[tuple[int, int]] = set()

    async def send(sender: int, face: Chan[tuple[int, int]]) -> None:
        for n in range(15):
            value = (sender, n)
            unsure.add(value)
            await face.send(value)
            unsure.discard(value)
            sent.add(value)

    async def receive(at: int) -> None:
        there = die and at == victim and (victim, 1) in world.routers
        async for value in faces[at]:
            (buried if there else got).append(value)

    senders = [asyncio.ensure_future(send(i, faces[i % 3])) for i in range(6)]
    receivers = [asyncio.ensure_future(receive(i % 3)) for i in range(5)]
    for _ in range(60):
        for _ in range(dice.randint(0, 6)):
            await asyncio.sleep(0)
        at = dice.randrange(len(receivers))
        if dice.random() < 0.5:
            receivers[at].cancel()
            receivers[at] = asyncio.ensure_future(receive(at % 3))
        elif dice.random() < 0.1:
            dice.choice(senders).cancel()
        if die and dice.random() < 0.05 and (victim, 1) in world.routers:
            world.kill(victim)
            for task in (*senders[victim::3], *receivers[victim::3]):
                task.cancel()  # they died with it
            faces[victim] = ch
    await asyncio.wait(senders, timeout=20)
    for receiver in receivers:
        receiver.cancel()
    await asyncio.wait(receivers)
    await world.settle()
    ch.close()
    got += [value async for value in ch]
    counted = Counter(got)
    assert max(counted.values(), default=0) <= 1, "a value came twice"
    received = counted.keys() | set(buried)
    assert sent <= received, f"lost: {sorted(sent - received)}"
    assert received <= sent | unsure
    assert not world.routers[0, 1]._served
    assert not world.routers[1, 1]._requests


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_no_value_is_lost_or_doubled(first: int) -> None:
    for seed in range(first, first + 20):
        play(bustle, seed)


def test_what_a_dead_receiver_had_not_confirmed_is_received_by_another() -> None:
    """Values that were under way to a worker that died go back to the channel."""

    async def story(world: World) -> bool:
        ch: Chan[int] = Chan(1)
        far = world.handle(1, ch)
        task = asyncio.ensure_future(far.recv())
        await world.settle()
        await ch.send(7)
        await asyncio.sleep(0)  # the answer is posted, and may be on its way
        await asyncio.sleep(0)
        if task.done():  # it has arrived before the death
            return False
        world.kill(1)
        assert await ch.recv() == 7
        task.cancel()
        return True

    assert sum(play(story, seed) for seed in range(20)) > 5


def test_order_of_a_sender_is_kept_without_cancels() -> None:
    async def story(world: World) -> None:
        ch: Chan[int] = Chan(world.dice.choice((0, 2)))
        near, far = world.handle(1, ch), world.handle(2, ch)

        async def send() -> None:
            for n in range(50):
                await near.send(n)
            near.close()

        task = asyncio.ensure_future(send())
        assert [n async for n in far] == list(range(50))
        await task
        with pytest.raises(ChanClosed):
            await far.recv()
        assert await far.recv_ok() == (None, False)

    for seed in range(10):
        play(story, seed)


def test_order_survives_cancels_of_one_receiver() -> None:
    """Values that came back are received before those that were sent later."""

    async def story(world: World) -> None:
        ch: Chan[int] = Chan(2)
        far = world.handle(1, ch)
        got: list[int] = []

        async def receive() -> None:
            async for n in far:
                got.append(n)

        async def send() -> None:
            for n in range(40):
                await ch.send(n)
            ch.close()

        sending = asyncio.ensure_future(send())
        while len(got) < 40:
            receiving = asyncio.ensure_future(receive())
            for _ in range(world.dice.randint(1, 40)):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
        await sending
        assert got == list(range(40))

    for seed in range(30):
        play(story, seed)


def test_those_who_wait_for_a_dead_home_are_told() -> None:
    async def story(world: World) -> None:
        # The home is worker 1 here: worker 0 holds the handle.
        router = world.routers[1, 1]
        ch: Chan[int] = Chan()
        blob = encode_with(router, ch)
        with world.routers[0, 1].open():
            far: Chan[int] = decode(*blob)
        receiving = asyncio.ensure_future(far.recv())
        sending = asyncio.ensure_future(far.send(1))
        await asyncio.sleep(0)
        world.kill(1)
        for task in (receiving, sending):
            with pytest.raises(WorkerLost, match=r"home, the worker of P1 \(epoch 1\), died"):
                await task
        with pytest.raises(WorkerLost):
            await far.recv()
        with pytest.raises(WorkerLost):
            far.close()

    play(story, 1)


def test_a_home_forgets_what_nobody_holds() -> None:
    """It keeps a channel as long as another worker has a handle, and no longer."""

    async def story(world: World) -> None:
        home = world.routers[0, 1]
        ch: Chan[int] | None = Chan(3)
        assert ch is not None
        far: Chan[int] | None = world.handle(1, ch)
        assert far is world.handle(1, ch), "one handle for one channel"
        await world.settle()
        ch = None
        assert far is not None
        await far.send(5)
        assert await far.recv() == 5
        assert len(home._held) == len(home._exported) == 1
        far = None
        await world.settle()
        assert len(home._held) == len(home._exported) == len(home._numbers) == 0

    play(story, 3)


def test_channels_travel_through_channels() -> None:
    """A reply channel inside a request; home again it is the very channel."""

    async def story(world: World) -> None:
        ch: Chan[Any] = Chan()
        far = world.handle(1, ch)
        reply: Chan[Any] = Chan(1)

        async def serve() -> None:
            question, answer = await far.recv()
            assert isinstance(answer, RemoteChan)
            await answer.send((question * 2, answer))

        task = asyncio.ensure_future(serve())
        await ch.send((21, reply))
        value, back = await reply.recv()
        assert value == 42
        assert back is reply
        await task

    for seed in range(10):
        play(story, seed)


@pytest.mark.parametrize("fate", ["wanted", "unwanted", "receiver dies", "sender dies"])
def test_channels_in_a_childs_result_arrive_or_are_forgotten(fate: str) -> None:
    """Only the pin holds them while the result is on its way; its receiver does afterwards."""

    async def story(world: World) -> None:
        home, thief = world.routers[0, 1], world.routers[1, 1]
        given: Chan[int] = Chan(1)
        blob, pinned = await _result(world, thief, given)
        await world.settle()
        if fate == "receiver dies":
            world.kill(0)
            assert not thief._pinned
            return
        if fate == "sender dies":
            world.kill(1)
        if fate != "unwanted":
            with home.open():
                own, back = decode(*blob)
            assert back is given, "home again it is the very channel"
            if fate == "sender dies":
                with pytest.raises(WorkerLost):
                    await own.recv()
            else:
                assert await own.recv() == 7
            del own
        home.unpin(pinned)
        await world.settle()
        assert not home._held
        left = thief._pinned, thief._exported, thief._held
        assert fate == "sender dies" or not any(left)

    for seed in range(10):
        play(story, seed)


async def _result(world: World, thief: ChanRouter, given: Chan[int]) -> tuple[Any, list[int]]:
    """A child's result: a channel of its own, with a value in it, and one that it was given."""
    own: Chan[int] = Chan(3)
    await own.send(7)
    with thief.open() as packed:
        blob = encode((own, world.handle(1, given)))
    return blob, thief.pin((0, 1), packed)


async def selecting(world: World, *, die: bool = False) -> None:
    """Gs on all workers select over channels of several, with and without default, among them ones
    that are cancelled; others send, and receive alone. Then the accounts are made.
    """
    dice = world.dice
    chans = [Chan[tuple[int, int]](dice.choice((0, 0, 1, 3))) for _ in range(3)]
    # Of worker 0 the first, of worker 1 the others: a select there has homes of two kinds.
    faces = {p: [world.face(p, ch, 0 if at == 0 else 1) for at, ch in enumerate(chans)]
             for p in range(3)}  # fmt: skip
    got: list[tuple[int, int]] = []
    buried: list[tuple[int, int]] = []
    victim = 2
    sent: set[tuple[int, int]] = set()
    unsure: set[tuple[int, int]] = set()

    async def send(sender: int) -> None:
        for n in range(12):
            value = (sender, n)
            unsure.add(value)
            await faces[sender % 3][sender % len(chans)].send(value)
            unsure.discard(value)
            sent.add(value)

    async def receive(at: int) -> None:
        there = die and at == victim and (victim, 1) in world.routers
        while True:
            cases = [gmpd.recv(face) for face in faces[at]]
            dice.shuffle(cases)
            default = dice.random() < 0.3
            _, value, ok = await gmpd.select(*cases, default=default)
            if ok:
                (buried if there else got).append(value)
            elif default:
                await asyncio.sleep(0)

    senders = [asyncio.ensure_future(send(i)) for i in range(9)]
    receivers = [asyncio.ensure_future(receive(i % 3)) for i in range(5)]
    for _ in range(60):
        for _ in range(dice.randint(0, 8)):
            await asyncio.sleep(0)
        at = dice.randrange(len(receivers))
        if dice.random() < 0.5:
            receivers[at].cancel()
            receivers[at] = asyncio.ensure_future(receive(at % 3))
        if die and dice.random() < 0.05 and (victim, 1) in world.routers:
            world.kill(victim)
            for task in (*senders[victim::3], *receivers[victim::3]):
                task.cancel()
            faces[victim] = faces[0]
    await asyncio.wait(senders, timeout=20)
    for receiver in receivers:
        receiver.cancel()
    await asyncio.wait(receivers)
    await world.settle()
    for ch in chans:
        ch.close()
        got += [value async for value in ch]
    counted = Counter(got)
    assert max(counted.values(), default=0) <= 1, "a value came twice"
    received = counted.keys() | set(buried)
    assert sent <= received, f"lost: {sorted(sent - received)}"
    assert received <= sent | unsure
    for router in world.routers.values():
        assert not router._served
        assert not router._requests


@pytest.mark.parametrize("die", [False, True])
@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_a_select_over_several_homes_loses_and_doubles_nothing(first: int, *, die: bool) -> None:
    """One winner: what the others had already given goes back."""

    async def story(world: World) -> None:
        await selecting(world, die=die)

    for seed in range(first, first + 20):
        play(story, seed)


def test_a_select_keeps_the_order_of_each_channel() -> None:
    """Also when it was cancelled, or another case had won, with a value under way."""

    async def story(world: World) -> None:
        dice = world.dice
        chans = [Chan[int](dice.choice((0, 2))) for _ in range(3)]
        faces = [world.face(2, ch, home) for ch, home in zip(chans, (0, 1, 2), strict=True)]
        got: list[list[int]] = [[], [], []]

        async def send(ch: Chan[int]) -> None:
            for n in range(20):
                await ch.send(n)
            ch.close()

        async def receive() -> None:
            while True:
                open_ = [at for at in range(3) if not ended[at]]
                if not open_:
                    return
                cases = [gmpd.recv(faces[at]) for at in open_]
                index, value, ok = await gmpd.select(*cases)
                if ok:
                    got[open_[index]].append(value)
                else:
                    ended[open_[index]] = True

        ended = [False] * 3
        sending = [asyncio.ensure_future(send(ch)) for ch in chans]
        while not all(ended):
            receiving = asyncio.ensure_future(receive())
            for _ in range(dice.randint(1, 60)):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
        await asyncio.wait(sending)
        assert got == [list(range(20))] * 3

    for seed in range(40):
        play(story, seed)


def test_a_channel_that_is_always_ready_here_hides_no_far_one() -> None:
    """Go's fairness: a far `quit` is heard although there is always work."""

    async def story(world: World) -> None:
        work: Chan[int] = Chan(1000)
        quit_: Chan[str] = Chan(1)
        far = world.face(1, quit_, 0)
        for n in range(1000):
            await work.send(n)
        await quit_.send("enough")
        done = 0
        while True:
            index, _, _ = await gmpd.select(gmpd.recv(work), gmpd.recv(far))
            if index == 1:
                break
            done += 1
        assert done < 100

    for seed in range(10):
        play(story, seed)


def test_a_select_says_what_it_cannot_do_and_what_was_lost() -> None:
    async def story(world: World) -> None:
        ch: Chan[int] = Chan(1)
        far = world.face(1, ch, 0)
        with pytest.raises(RuntimeError, match="cannot be taken back if another case is"):
            await gmpd.select(gmpd.send(far, 1))
        assert await gmpd.select(gmpd.recv(far), default=True) == (-1, None, False)
        await ch.send(5)
        assert await gmpd.select(gmpd.recv(far), default=True) == (0, 5, True)
        near: Chan[int] = Chan()
        waiting = asyncio.ensure_future(gmpd.select(gmpd.recv(near), gmpd.recv(far)))
        await world.settle()
        world.kill(0)
        with pytest.raises(WorkerLost):
            await waiting
        with pytest.raises(WorkerLost):
            await gmpd.select(gmpd.recv(near), gmpd.recv(far))
        sending = asyncio.ensure_future(near.send(1))
        await asyncio.sleep(0)
        assert await near.recv() == 1, "the other case was left"
        await sending

    play(story, 1)


def test_a_seed_repeats_its_world() -> None:
    def posted(seed: int) -> Counter[str]:
        async def story(world: World) -> Counter[str]:
            await bustle(world, die=True)
            return world.posted

        counts = Counter(play(story, seed))
        del counts["DECREF"]  # its moment is the garbage collector's, at the world's end too
        return counts

    assert posted(11) == posted(11)


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_a_death_loses_no_value_that_was_sent(first: int) -> None:
    """Received and not confirmed is not received: it goes to another receiver."""

    async def story(world: World) -> None:
        await bustle(world, die=True)

    for seed in range(first, first + 20):
        play(story, seed)
