"""From a worker's messages to a client's and back (gmpd.cluster.relay)."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.msgpack import decode

from gmpd import codec, protocol
from gmpd.cluster.relay import Relay, at_host
from gmpd.errors import Unserializable
from gmpd.protocol import Options, Outcome
from gmpd.runtime.timeline import Timeline

HOST = "there:1"


class Ends:
    """A relay, and what it has said to either side."""

    def __init__(self, cores: int = 2, frame_bytes: int = 1000) -> None:
        self.revoked: set[int] = set()
        self.claimed: list[int] = []
        self.relay = Relay(HOST, cores, self._claim, frame_bytes)
        self.relay.heard([protocol.pack(protocol.Welcome(3, 1, 100, 100, 1 << 20, _info()))])

    def _claim(self, token: int) -> bool:
        if token in self.revoked:
            return False
        self.claimed.append(token)
        return True

    def assign(self, first: int, n: int, fid: int = 1, **options: Any) -> None:
        payloads = [b"%d" % (first + i) for i in range(n)]
        wire = Options(**options) if options else None
        self.relay.told(protocol.Assign(fid, first, wire, payloads, None, 0), [])

    def to_host(self) -> list[Any]:
        """Messages to the daemon there, as it reads them."""
        said = [
            protocol.unpack(frames[0], protocol.FROM_CLIENT, len(frames) - 1)
            for frames in self.relay.to_host
        ]
        self.relay.to_host.clear()
        return said

    def to_coordinator(self) -> list[Any]:
        """Messages to the coordinator, as it reads them."""
        said = [
            protocol.unpack(protocol.pack(message), protocol.FROM_WORKER, len(frames))
            for message, frames in self.relay.to_coordinator
        ]
        self.relay.to_coordinator.clear()
        return said

    def done(
        self, tokens: list[int], specials: Any = None, ran_us: int = 5, now_ns: int = 0
    ) -> None:
        n = len(tokens)
        message = protocol.Done(tokens, [b"v"] * n, [ran_us] * n, specials, None)
        self.relay.heard([protocol.pack(message)], now_ns)


def _info() -> protocol.DaemonInfo:
    return protocol.DaemonInfo()


def test_a_lease_is_claimed_when_it_is_sent() -> None:
    ends = Ends(cores=2)
    ends.assign(1, 5)
    ends.relay.pump()
    assert ends.claimed == [1, 2], "one of an unknown function for each core"
    (submit,) = ends.to_host()
    assert (submit.fid, submit.first_seq, submit.payloads) == (1, 1, [b"1", b"2"])
    assert ends.relay.waits


def test_nothing_is_claimed_before_the_daemon_there_has_answered() -> None:
    ends = Ends()
    ends.relay.welcome = None
    ends.assign(1, 2)
    ends.relay.pump()
    assert not ends.claimed


def test_a_revoked_lease_is_left_out() -> None:
    ends = Ends(cores=8)
    ends.revoked = {2}
    ends.assign(1, 4)
    ends.relay.pump()
    assert [(m.first_seq, len(m.payloads)) for m in ends.to_host()] == [(1, 1), (3, 2)]
    assert ends.to_coordinator() == [protocol.Started([1, 3, 4])]


def test_outcomes_come_back_as_those_of_a_worker() -> None:
    ends = Ends()
    ends.assign(1, 2)
    ends.relay.pump()
    ends.to_coordinator()
    ends.done([1, 2])
    told = protocol.Finished([1, 2], [b"v", b"v"], [5, 5], [5, 5], None, None)
    assert ends.to_coordinator() == [told]
    assert ends.relay.is_idle
    ends.to_host()
    ends.relay.confirm(now=False)
    assert not ends.to_host(), "alone it is worth no exchange"
    ends.relay.confirm(now=True)
    ends.relay.confirm(now=True)
    assert ends.to_host() == [protocol.Ack(2)]


def test_outcomes_that_came_in_many_messages_leave_in_one() -> None:
    ends = Ends(cores=6)
    ends.assign(1, 6)
    ends.relay.pump()
    ends.to_coordinator()
    ends.done([2, 1])
    ends.done([3, 4], {1: (Outcome.ERROR, None)})
    message = protocol.Done([5], [b"v"], [7], None, [2])
    ends.relay.heard([protocol.pack(message), b"one", b"two"])
    ends.done([6])
    (finished,) = ends.to_coordinator()
    assert finished.tokens == [2, 1, 3, 4, 5, 6]
    assert finished.payloads == [b"v"] * 6
    assert finished.ran_us == finished.occupied_us == [5, 5, 5, 5, 7, 5]
    assert finished.buffer_counts == [0, 0, 0, 0, 2, 0]
    assert list(finished.specials) == [3]
    assert finished.specials[3][1]["host"] == HOST


def test_gathered_outcomes_are_bounded_and_stay_in_order() -> None:
    ends = Ends(cores=5)
    ends.assign(1, 5)
    ends.relay.pump()
    ends.to_coordinator()
    ends.done([1])
    ends.relay.heard([protocol.pack(protocol.Running([3]))])
    ends.done([3])
    large = protocol.Done([4], [bytes(protocol.GATHER_BYTES)], [5], None, None)
    ends.relay.heard([protocol.pack(large)])
    ends.done([5])
    said = ends.to_coordinator()
    tokens = [(type(each).__name__, each.tokens) for each in said]
    assert tokens == [
        ("Finished", [1]), ("Started", [3]), ("Finished", [3]), ("Finished", [4]),
        ("Finished", [5]),
    ]  # fmt: skip


def test_the_task_stream_is_told_how_much_of_the_cores_was_taken() -> None:
    ends, ms = Ends(cores=2), 1_000_000
    ends.relay.told(protocol.Define(1, "name", "m:f", b""), [])

    def timeline(since_ms: int, until_ms: int) -> Timeline:
        params = {"since_ns": since_ms * ms, "until_ns": until_ms * ms}
        ends.relay.told(protocol.Ask(0, "timeline", params), [])
        (answer,) = ends.to_coordinator()
        return decode(answer.value, type=Timeline)

    assert not timeline(0, 100).rows
    ends.assign(1, 2)
    ends.relay.pump()
    ends.to_coordinator()
    ends.relay.heard([protocol.pack(protocol.Running([1]))], 100 * ms)
    ends.done([2], ran_us=50_000, now_ns=160 * ms)
    ends.to_coordinator()
    found = timeline(100, 200)
    ((_, began, ended, function, jobs, busy_us, _),) = found.rows
    assert (began, ended, jobs, busy_us) == (100 * ms, 200 * ms, 1, 75_000)
    assert found.names == {function: "m:f"}
    ends.done([1], ran_us=150_000, now_ns=250 * ms)
    ends.to_coordinator()
    assert [row.busy_us for row in timeline(200, 300).rows] == [25_000]


def test_an_error_names_its_host_and_keeps_its_advice() -> None:
    ends = Ends()
    ends.assign(1, 1, retries=2, retry_on=("builtins.ValueError",))
    ends.relay.pump()
    (submit,) = ends.to_host()
    assert submit.options == Options(retry_on=("builtins.ValueError",)), "attempts are decided here"
    ends.to_coordinator()
    ends.done([1], {0: (Outcome.ERROR, {"final": True, "attempt": 1, "p": 0, "pid": 9})})
    (finished,) = ends.to_coordinator()
    assert finished.specials == {0: (Outcome.ERROR, {"final": True, "pid": 9, "host": HOST})}


def test_a_worker_that_died_there_loses_the_job() -> None:
    ends = Ends()
    ends.assign(1, 1)
    ends.relay.pump()
    ends.to_coordinator()
    lost = {"signal": "SIGKILL", "pid": 7, "text": "was killed by SIGKILL", "unstarted": False}
    ends.done([1], {0: (Outcome.LOST, lost)})
    (finished,) = ends.to_coordinator()
    outcome, report = finished.specials[0]
    assert outcome is Outcome.LOST
    assert report["text"] == f"was killed by SIGKILL (on host {HOST})"
    assert (report["signal"], report["pid"]) == ("SIGKILL", 7)


def test_a_function_that_runs_on_there_has_expired() -> None:
    ends = Ends()
    ends.assign(1, 2, timeout=1.0)
    ends.relay.pump()
    ends.to_coordinator()
    ends.done([1, 2], {1: (Outcome.TIMEOUT, {"runs_on": True})})
    expired, finished = ends.to_coordinator()
    assert expired == protocol.Expired([2])
    assert finished.tokens == [1]


def test_a_refused_job_is_lost_with_the_reason() -> None:
    ends = Ends()
    ends.assign(1, 1)
    ends.relay.pump()
    ends.to_coordinator()
    ends.done([1], {0: (Outcome.REJECTED, {"reason": "queue_bytes", "text": "no room"})})
    (finished,) = ends.to_coordinator()
    assert finished.specials[0][0] is Outcome.LOST
    assert "no room" in finished.specials[0][1]["text"]


def test_a_job_that_is_too_large_for_the_engine_says_so() -> None:
    ends = Ends(cores=4, frame_bytes=3)
    ends.relay.told(protocol.Assign(1, 1, None, [b"a", b"too large", b"b"], None, 0), [])
    for _ in range(3):
        ends.relay.pump()
    assert [m.first_seq for m in ends.to_host()] == [1, 3]
    (finished,) = [m for m in ends.to_coordinator() if isinstance(m, protocol.Finished)]
    assert finished.tokens == [2]
    error = codec.decode_error(finished.payloads[0])
    assert isinstance(error, Unserializable)
    assert HOST in str(error)
    assert "9 bytes" in str(error)


def test_a_large_job_that_was_revoked_is_none_of_ours() -> None:
    ends = Ends(frame_bytes=3)
    ends.revoked = {1}
    ends.relay.told(protocol.Assign(1, 1, None, [b"too large"], None, 0), [])
    ends.relay.pump()
    assert ends.to_coordinator() == [protocol.Started([])]


def test_credit_is_given_back_when_more_could_be_sent() -> None:
    ends = Ends(cores=4)
    ends.assign(1, 2)
    ends.relay.pump()
    assert ends.to_coordinator() == [protocol.Started([1, 2])]
    ends.assign(3, 3)
    ends.relay.pump()
    assert ends.to_coordinator() == [], "leases wait here: more would be of no use"


def test_a_job_that_has_begun_makes_room_for_another() -> None:
    ends = Ends(cores=1)
    ends.assign(1, 3)
    ends.relay.pump()
    ends.relay.pump()
    assert ends.claimed == [1]
    ends.relay.heard([protocol.pack(protocol.Running([1]))])
    assert ends.to_coordinator() == [protocol.Started([1])]
    ends.relay.pump()
    assert ends.claimed == [1, 2]


def test_cancels_and_pulls_of_jobs_that_are_there_are_passed_on() -> None:
    ends = Ends()
    ends.assign(1, 3, stream=4)
    ends.relay.pump()
    ends.to_host()
    ends.to_coordinator()
    ends.relay.told(protocol.Cancel([2, 3]), [])
    ends.relay.told(protocol.Pull(1, 8), [])
    ends.relay.told(protocol.Pull(3, 8), [])
    assert ends.to_host() == [protocol.Cancel([2]), protocol.Pull(1, 8)]
    ends.relay.heard([protocol.pack(protocol.Kept([2])), *()])
    ends.relay.heard([protocol.pack(protocol.Items(1, [b"x"], [1])), b"buffer"])
    assert ends.to_coordinator() == [protocol.Kept([2]), protocol.Items(1, [b"x"], [1])]


@pytest.mark.parametrize("what", ["stacks", "sched", "gs", "g", "trace", "timeline"])
def test_questions_about_gs_have_an_answer(what: Any) -> None:
    ends = Ends()
    ends.relay.told(protocol.Ask(7, what, {"limit": 1}), [])
    (answer,) = ends.to_coordinator()
    assert answer.request == 7


def test_all_that_is_decided_here_is_left_out_of_the_options() -> None:
    decided: dict[str, Any] = {
        "retries": 3,
        "delay": 2.0,
        "unique": "k",
        "durable": True,
        "limit": ("k", 1, 0, 0.0),
    }
    assert at_host(Options(**decided)) is None
    assert at_host(Options(timeout=2.0, priority=1, **decided)) == Options(timeout=2.0, priority=1)


def test_a_daemon_that_stops_or_refuses_is_a_failure() -> None:
    ends = Ends()
    ends.relay.heard([protocol.pack(protocol.Gone("asked to stop"))])
    assert "asked to stop" in ends.relay.failure


def test_a_host_that_leaves_gives_back_what_has_not_begun() -> None:
    ends = Ends(cores=4)
    ends.assign(1, 4)
    ends.relay.pump()
    ends.to_host()
    ends.relay.heard([protocol.pack(protocol.Running([2]))])
    ends.to_coordinator()
    ends.relay.recall()
    assert ends.to_host() == [protocol.Recall([1, 3, 4])]
    back = Outcome.CANCELLED, {"recalled": True}
    ends.done([1, 2, 3], {0: back, 2: back})
    returned, finished = ends.to_coordinator()
    assert returned == protocol.Returned([1, 3])
    assert (finished.tokens, finished.specials) == ([2], None)
    assert list(ends.relay.sent) == [4], "it began meanwhile"
    ends.done([4])
    assert ends.relay.is_idle
    ends.to_coordinator()
    ends.relay.recall()
    assert not ends.to_host()
