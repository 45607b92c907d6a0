"""Messages that no peer of ours sends: each costs a counter, at most its sender's connection."""

from __future__ import annotations

import os
from typing import Any

import msgpack
import pytest

from gmpd import codec, protocol
from gmpd.netpoll import Dealer
from gmpd.protocol import Outcome, kind_of
from tests.rawclient import Boot, RawClient

HELLO, DEFINE, SUBMIT, CANCEL, ACK, CALL, FINISHED, ANSWER, ASSIGN = map(
    kind_of,
    (
        protocol.Hello, protocol.Define, protocol.Submit, protocol.Cancel, protocol.Ack,
        protocol.Call, protocol.Finished, protocol.Answer, protocol.Assign,
    ),
)  # fmt: skip
CALL_DATA = codec.encode_call("math:sqrt", (4.0,), {}).data


def deep(n: int) -> Any:
    value: Any = []
    for _ in range(n):
        value = [value]
    return value


def hello(role: str, **info: Any) -> list[Any]:
    return [HELLO, "gmpd", 1, 1, role, b"s" * 16, info]


def submit(seq: Any = 1, options: Any = None, payloads: Any = (CALL_DATA,)) -> list[Any]:
    return [SUBMIT, 1, seq, options, list(payloads), None]


FROM_CLIENT: dict[str, Any] = {
    "seq at the end": submit((1 << 64) - 1, None, [CALL_DATA] * 2),
    "seq beyond": submit(1 << 63),
    "a seq of the last": submit((1 << 64) - 2),
    "deep hello": hello("client", name=deep(1000)),
    "deep call": [CALL, 1, "status", {"x": deep(1000)}],
    "deep delay": submit(options={"delay": deep(1000)}),
    "deep priority": submit(options={"priority": deep(1000)}),
    "deep in all": deep(1000),
    "nan delay": submit(options={"delay": float("nan")}),
    "far delay": submit(options={"delay": 1e300}),
    "text timeout": submit(options={"timeout": "5"}),
    "list timeout": submit(options={"timeout": [5]}),
    "negative timeout": submit(options={"timeout": -1}),
    "true priority": submit(options={"priority": True}),
    "isolate of a text": submit(options={"isolate": "yes"}),
    "stream of a text": submit(options={"stream": "x"}),
    "stream below zero": submit(options={"stream": -1}),
    "child of nobody": submit(options={"child": [0, 0, "x"]}),
    "unknown option": submit(options={"speed": 9}),
    "options keyed by numbers": submit(options={1: 2}),
    "no payloads": submit(payloads=[]),
    "payload of a text": submit(payloads=["x"]),
    "unknown function": [SUBMIT, 77, 1, None, [CALL_DATA], None],
    "negative seqs": [CANCEL, [-1]],
    "seqs of texts": [CANCEL, ["x"]],
    "ack of a list": [ACK, [1]],
    "define twice as long": [DEFINE, 1, "name", "m:f", b"", b""],
    "define of an unknown kind": [DEFINE, 1, "magic", "m:f", b""],
    "method of a list": [CALL, 1, ["status"], {}],
    "surrogates": b"\x94\x0a\x01\xa3\xed\xa0\x80\x80",
    "a map": {"kind": 1},
    "nothing": [],
    "no kind": [[1]],
    "huge kind": [1 << 63],
}


def packed(message: Any) -> bytes:
    if isinstance(message, bytes):
        return message
    data: bytes = msgpack.packb(message)
    return data


def rejected(client: RawClient) -> int:
    dropped = client.call("status")["dropped"]
    assert "failed_handler" not in dropped, "it was found by a handler, not by the check"
    return int(dropped.get("bad_client_message", 0) + dropped.get("bad_worker_message", 0))


def test_no_message_of_a_client_changes_anything(boot: Boot) -> None:
    """All of them on one connection, whose jobs go on."""
    daemon, watcher = boot(**{"daemon.procs": 1})
    client = RawClient(daemon.endpoint)
    client.send(protocol.Define(1, "name", "math:sqrt", b""))
    for message in FROM_CLIENT.values():
        client.link.send([packed(message)])
    client.link.send([packed([ACK, 0]), b"a frame that belongs to nothing"])
    client.send(protocol.Call(99, "ping", {}))
    client.until(lambda: 99 in client.replies)
    assert rejected(watcher) == len(FROM_CLIENT) + 1
    assert client.outcomes(client.submit("math:sqrt", (9.0,)))[0][:2] == (Outcome.OK, 3.0)
    assert watcher.outcomes(watcher.submit("math:sqrt", (4.0,)))[0][:2] == (Outcome.OK, 2.0)
    client.close()


FROM_STRANGERS: dict[str, Any] = {
    "p of a list": hello("worker", p=[1], epoch=1, pid=1, secret=b"x" * 32),
    "p of a text": hello("worker", p="0", epoch=1, pid=1, secret=b"x" * 32),
    "no secret": hello("worker", p=0, epoch=1, pid=1),
    "a text for a secret": hello("worker", p=0, epoch=1, pid=1, secret="x" * 32),
    "deep": hello("worker", p=deep(1000), epoch=1, pid=1, secret=b"x" * 32),
    "garbage": b"\xc1",
}


def test_no_stranger_on_the_workers_socket_changes_anything(boot: Boot) -> None:
    daemon, client = boot(**{"daemon.procs": 1})
    link = Dealer(client.network, f"ipc://{daemon.directory}/worker.sock")
    for message in FROM_STRANGERS.values():
        link.send([packed(message)])
    client.until(lambda: rejected(client) >= len(FROM_STRANGERS))
    assert rejected(client) == len(FROM_STRANGERS)
    link.close()
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][:2] == (Outcome.OK, 2.0)
    assert [each["epoch"] for each in client.call("status")["ps"]] == [1]


FROM_WORKER: dict[str, Any] = {
    "special without an outcome": [FINISHED, [1], [b""], [1], [1], {0: [[], None]}, None],
    "gift of a text": [FINISHED, [1], [b""], [1], [1], {0: [0, {"gift": "x"}]}, None],
    "time below zero": [FINISHED, [1], [b""], [-1], [1], None, None],
    "deep answer": [ANSWER, 1, {"text": deep(1000)}],
    "garbage": b"\xc1",
}


@pytest.mark.parametrize("what", FROM_WORKER)
def test_a_worker_that_says_such_a_thing_is_replaced(what: str, boot: Boot) -> None:
    """Its reports about jobs may be lost: the jobs are, too, and are not waited for.

    Plain calls run one at a time, so that none of those that wait has begun when it is replaced.
    """
    _, client = boot(**{"daemon.procs": 1, "limits.plain_calls": 1})
    lost = client.submit("jobs_hostile:say_and_sleep", (packed(FROM_WORKER[what]),))
    waiting = client.submit("math:sqrt", *[(4.0,)] * 20)
    assert client.outcomes(lost)[0][0] is Outcome.LOST
    assert {outcome for outcome, _, _ in client.outcomes(waiting)} == {Outcome.OK}
    assert rejected(client) == 1
    assert client.call("status")["ps"][0]["epoch"] == 2


@pytest.mark.parametrize("frame", [b"\xc1", packed([ASSIGN, 1, 2, {"timeout": "x"}, [b""]])])
def test_a_worker_ends_for_a_message_that_it_cannot_read(frame: bytes, boot: Boot) -> None:
    """As if the coordinator had sent it; what had ended before is told."""
    _, client = boot(**{"daemon.procs": 1})
    lost = client.submit("jobs_hostile:hear_and_sleep", (frame,))
    assert client.outcomes(lost)[0][0] is Outcome.LOST
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][:2] == (Outcome.OK, 2.0)
    assert client.call("status")["state"] == "running"
    assert os.getpid() not in {each["pid"] for each in client.call("status")["ps"]}
