"""The engine of ``gmpd[ray]``: each node of a Ray cluster is a host, with its CPUs for cores.

A bridge has one actor on its node, and an exchange is a call of it. The actor takes none of the
node's CPUs and is not detached: it ends with the bridge, on whichever machine that dies. Addresses,
runtime environments, TLS and tokens are Ray's own and used as they are configured there.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from textwrap import shorten
from typing import Any, NamedTuple, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gmpd.cluster import agent
from gmpd.cluster.batches import EXCHANGES_MAX
from gmpd.cluster.port import Answered, ClusterError, Host
from gmpd.config import split_address
from gmpd.errors import GmpdError
from gmpd.timeouts import wait_s

T = TypeVar("T")

#: Through Ray Client: for a driver on a machine that is no node of the cluster.
CLIENT = "ray://"
#: The cluster that RAY_ADDRESS names, or the one that has a node on this machine.
AUTO = "auto"
#: Ray starts a driver once something answers at the address: within this (seconds). It gives up
#: by itself after 30 s or a little more.
DRIVER_S = 60.0
#: The farewell to the cluster (seconds).
CLOSE_S = 2.0
#: Calls that an actor has at once: exchanges, the one that ends a life, and a repeated one.
CALLS_MAX = EXCHANGES_MAX + 2
#: Through Ray Client, draining nodes are asked for this often (seconds): it takes a task.
DRAINING_S = 1.0
#: Characters of an error of Ray; and how the line in it begins that says what has happened.
BRIEF_MAX = 300
REASONS = ("The actor is dead because", "The actor died because")
#: Names of actors and the like are looked up in here, so none of a program's own is met.
NAMESPACE = "gmpd"


class Node(NamedTuple):
    """A node of the cluster that has CPUs."""

    node_id: str
    cores: int


class RayThread:
    """Calls of Ray, one after the other: a process has one connection to one cluster."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        # A daemon: a process must be able to end while Ray waits for a head that is gone.
        threading.Thread(target=self._run, name="ray", daemon=True).start()

    def _run(self) -> None:
        while True:
            call, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller's, also an exit that Ray asks
                future.set_exception(error)

    def call(self, call: Callable[[], T]) -> Future[T]:
        """Have it called; it is not waited for."""
        future: Future[T] = Future()
        self._calls.put((call, future))
        return future


_thread: RayThread | None = None


def ray_thread() -> RayThread:
    """The one of this process."""
    global _thread
    if _thread is None:
        _thread = RayThread()
    return _thread


class RayEngine:
    """A driver of the cluster. Raises ClusterError when none answers.

    ``address``: ``ray://head:10001``, or ``auto`` or ``head:6379`` on a machine that is a node.
    """

    frame_bytes = 64 << 20

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._timeout_s: float = settings["timeout_s"]
        self._address: str = settings["address"]
        if not self._address:
            raise ClusterError(
                "cluster.address names no Ray cluster: set it to ray://head:10001, or to auto on a"
                " machine that is a node of the cluster"
            )
        self._is_remote = self._address.startswith(CLIENT)
        self._thread = ray_thread()
        #: The node that this driver is on: its cores are used by the daemon itself.
        self._own = ""
        self._actors: dict[str, Any] = {}
        #: Ids of nodes that are about to leave; the question for them, through Ray Client.
        self._draining: set[str] = set()
        self._asked: Future[list[str]] | None = None
        self._ask_at = 0.0
        self._knock()
        self._wait(self._open, max(self._timeout_s, DRIVER_S))

    def _knock(self) -> None:
        """Ray waits much longer than cluster.timeout for an address where nothing answers."""
        if self._address == AUTO:
            return
        try:
            where = split_address(self._address.removeprefix(CLIENT))
            socket.create_connection(where, wait_s(self._timeout_s)).close()
        except OSError as error:
            raise self._silent(f"({error})") from None
        except ValueError as error:
            raise ClusterError(f"cluster.address: {error}") from None

    def _silent(self, why: str) -> ClusterError:
        return ClusterError(
            f"no Ray cluster answers at {self._address} {why}: is `ray start --head` running there?"
        )

    def _wait(self, call: Callable[[], T], timeout_s: float) -> T:
        future = self._thread.call(call)
        try:
            return future.result(timeout_s)
        except (WaitedTooLong, TimeoutError):
            future.cancel()
            raise self._silent(f"within {timeout_s:g} s") from None
        except OSError as error:
            raise self._silent(f"({brief(error)})") from None
        except ImportError as error:
            raise ClusterError(f"{brief(error)}: pip install 'gmpd[ray]'") from None
        except (RuntimeError, ValueError, RayError) as error:
            raise ClusterError(
                f"the Ray cluster at {self._address} cannot be used: {brief(error)}"
            ) from None

    def _open(self) -> None:
        # It is told to those who send many tasks; here few messages are to carry much.
        warnings.filterwarnings("ignore", "More than 10MB of messages")
        ray.init(self._address, namespace=NAMESPACE, log_to_driver=False, logging_level="error")
        if not self._is_remote:
            self._own = ray.get_runtime_context().get_node_id()

    # -- the hosts ------------------------------------------------------------------------------

    def hosts(self) -> list[Host]:
        """The nodes of the cluster that have CPUs, without the one that this driver is on."""

        def look() -> dict[str, Node]:
            nodes = self._look()
            self._look_for_draining(nodes)
            return nodes

        nodes = self._wait(look, self._timeout_s)
        return [
            Host(name, node.cores, node.node_id in self._draining) for name, node in nodes.items()
        ]

    def _look(self) -> dict[str, Node]:
        nodes = {}
        for row in ray.nodes():
            cores = int(row["Resources"].get("CPU", 0))
            if row["Alive"] and cores and row["NodeID"] != self._own:
                nodes[name_of(row)] = Node(row["NodeID"], cores)
        return nodes

    def _look_for_draining(self, nodes: Mapping[str, Node]) -> None:
        if not self._is_remote:
            self._draining = set(draining())
            return
        # Ray Client has no such question: a task asks it inside, and a later look has the answer.
        if self._asked is not None:
            if not self._asked.done() or time.monotonic() < self._ask_at:
                return
            if self._asked.exception() is None:
                self._draining = set(self._asked.result())
        self._ask_at = time.monotonic() + DRAINING_S
        for node in list(nodes.values())[:1]:
            task = ray.remote(draining).options(
                num_cpus=0, max_retries=0, scheduling_strategy=on_node(node, soft=True)
            )
            self._asked = task.remote().future()

    # -- exchanges ---------------------------------------------------------------------------------

    def send(self, host: str, batch: bytes, answered: Answered) -> None:
        """As one call of the actor on that node."""
        self._thread.call(lambda: self._send(host, batch, answered))

    def _send(self, host: str, batch: bytes, answered: Answered) -> None:
        def ended(future: Future[bytes]) -> None:
            try:
                answer = future.result()
            except BaseException as error:  # noqa: BLE001 - whatever Ray makes of it
                answered(Undelivered(brief(error)))
            else:
                answered(answer)

        try:
            self._actor(host).exchange.remote(batch).future().add_done_callback(ended)
        except BaseException as error:  # noqa: BLE001 - whatever Ray makes of it
            answered(Undelivered(brief(error)))

    def _actor(self, host: str) -> Any:
        actor = self._actors.get(host)
        if actor is None:
            node = self._look().get(host)
            if node is None:
                raise Undelivered("the cluster has no such node now")
            options = {
                "num_cpus": 0,
                "max_concurrency": CALLS_MAX,
                "max_restarts": 0,
                "max_task_retries": 0,
                "scheduling_strategy": on_node(node, soft=False),
            }
            actor = self._actors[host] = ray.remote(**options)(HostActor).remote()
        return actor

    def close(self) -> None:
        """Actors of this driver end with it."""
        self._actors.clear()
        try:
            self._thread.call(ray.shutdown).result(CLOSE_S)
        except (WaitedTooLong, TimeoutError, OSError, RuntimeError, RayError):
            pass  # the connection is lost, and Ray ends what is left of it


class Undelivered(GmpdError):
    """An exchange did not get there, or its answer did not come back."""


class HostActor:
    """On a host: the process that the daemon there ends with."""

    def exchange(self, batch: bytes) -> bytes:
        """In a thread of its own."""
        return agent.exchange(batch)


def on_node(node: Node, *, soft: bool) -> Any:
    """Where Ray runs it; ``soft``: elsewhere, if that node is gone."""
    return NodeAffinitySchedulingStrategy(node.node_id, soft=soft)


def name_of(row: Mapping[str, Any]) -> str:
    """The name of a node: as its operator called it, or its address; and as much of its id as
    ``ray status`` shows, because several nodes may have one address."""
    return f"{row.get('NodeName') or row['NodeManagerAddress']}-{row['NodeID'][:8]}"


def draining() -> list[str]:
    """Ids of the nodes that Ray is about to end. Runs on a node."""
    from ray._private.state import state  # there is no public way

    ask: Callable[[], dict[str, int]] = getattr(state, "get_draining_nodes", dict)
    return list(ask())


def brief(error: BaseException) -> str:
    """An error of Ray in a line: some of its texts are a page."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if not isinstance(error, RayError):
        told = f"{type(error).__name__}: {' '.join(lines)}"
    elif "creation task" in lines[0]:  # then comes a traceback
        told = f"the actor of gmpd could not start there: {lines[-1]}"
    else:
        told = next((line for line in lines if line.startswith(REASONS)), lines[0])
    return shorten(told, BRIEF_MAX, placeholder=" ...")
