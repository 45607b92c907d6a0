"""Proxies for objects of ``multiprocessing`` that only forks inherit, in a private daemon's
workers.

A process pool may give its initializer a lock, a queue or a shared value: its workers are forks of
the program, or spawned with such objects as arguments. gmpd's workers are neither. So the program
keeps the object, and a worker gets a ``Proxy``: each call goes through a socket to a thread of the
program, which makes it. Each thread of a worker has one thread there, as reentrant locks require.

Locks with a name (of a spawn or forkserver context) are not lent: workers open them by their name.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import AuthenticationError, connection, context
from typing import Any

_LOCK = ("acquire", "release")
_QUEUE = ("put", "get", "empty", "qsize", "full", "put_nowait", "get_nowait")
_VALUE = ("acquire", "release", "get_lock", "get_obj", "value", "raw")

#: The lent classes, by module and class, and the methods that may be called. Named: lent only where
#: it cannot be opened by name.
_NAMED: dict[tuple[str, str], tuple[str, ...]] = {
    ("multiprocessing.synchronize", "Lock"): _LOCK,
    ("multiprocessing.synchronize", "RLock"): _LOCK,
    ("multiprocessing.synchronize", "Semaphore"): (*_LOCK, "get_value"),
    ("multiprocessing.synchronize", "BoundedSemaphore"): (*_LOCK, "get_value"),
    ("multiprocessing.synchronize", "Event"): ("is_set", "set", "clear", "wait"),
    ("multiprocessing.synchronize", "Condition"): (*_LOCK, "wait", "notify", "notify_all"),
}
_UNNAMED: dict[tuple[str, str], tuple[str, ...]] = {
    ("multiprocessing.synchronize", "Barrier"): ("wait", "reset", "abort"),
    ("multiprocessing.queues", "Queue"): _QUEUE,
    ("multiprocessing.queues", "JoinableQueue"): (*_QUEUE, "task_done", "join"),
    ("multiprocessing.queues", "SimpleQueue"): ("put", "get", "empty"),
    ("multiprocessing.sharedctypes", "Synchronized"): _VALUE,
    ("multiprocessing.sharedctypes", "SynchronizedString"): _VALUE,
    ("multiprocessing.sharedctypes", "SynchronizedArray"): _VALUE,
    ("multiprocessing.connection", "Connection"): (
        "send", "recv", "send_bytes", "recv_bytes", "poll",
    ),
}  # fmt: skip
#: A worker closes what is its own, which is nothing: the object is the program's.
_CLOSES = ("close", "join_thread", "cancel_join_thread")
_SPECIAL = ("__len__", "__getitem__", "__setitem__", "__get__", "__set__")


class ProxyServer:
    """The program's side: ``take`` an object, serve calls until ``close``."""

    def __init__(self) -> None:
        self._things: list[Any] = []
        self._methods: list[tuple[str, ...]] = []
        self._key = secrets.token_bytes(32)
        #: An abstract address: it leaves no file.
        self._address = f"\0gmpd-proxy-{os.getpid()}-{secrets.token_hex(8)}"
        self._listener: connection.Listener | None = None
        self._ended = False

    @property
    def lends(self) -> str:
        """The name of the class of the first object that was taken; empty: there is none."""
        return type(self._things[0]).__name__ if self._things else ""

    def take(self, thing: Any, methods: tuple[str, ...]) -> Proxy:
        """The object that a worker gets in place of ``thing``."""
        if self._listener is None:
            self._listener = connection.Listener(self._address, authkey=self._key)
            threading.Thread(target=self._accept, name="gmpd-proxy", daemon=True).start()
        self._things.append(thing)
        self._methods.append((*methods, *_SPECIAL))
        return Proxy(self._address, self._key, len(self._things) - 1, methods)

    def close(self) -> None:
        """No more calls are taken; those that run end by themselves."""
        listener, self._listener, self._ended = self._listener, None, True
        if listener is None:
            return
        try:  # the thread that accepts wakes by a connection alone
            connection.Client(self._address, authkey=self._key).close()
        except (OSError, EOFError):
            pass  # it has ended
        listener.close()

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None:
            try:
                peer = listener.accept()
            except (OSError, EOFError, AuthenticationError):
                if self._ended:
                    return
                continue  # a worker that died in the middle of it
            if self._ended:
                peer.close()
                return
            threading.Thread(
                target=self._serve, args=(peer,), name="gmpd-proxy-call", daemon=True
            ).start()

    def _serve(self, peer: Any) -> None:
        with peer:
            while True:
                try:
                    number, method, args, kwargs = peer.recv()
                except (EOFError, OSError):
                    return
                thing = self._things[number]
                answer = _outcome(thing, method, self._methods[number], args, kwargs)
                try:
                    _send(peer, answer)
                except OSError:  # it died meanwhile: what it waited for is not its own
                    if method == "acquire" and answer == (True, True):
                        thing.release()
                    return


def _outcome(
    thing: Any, method: str, allowed: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bool, Any]:
    """(whether it raised nothing, value or exception)."""
    try:
        if method not in allowed:
            raise AttributeError(
                f"{type(thing).__name__!r} object behind a proxy has no {method!r}"
            )
        if method == "__get__":
            return True, getattr(thing, *args)
        if method == "__set__":
            setattr(thing, *args)
            return True, None
        value = getattr(thing, method)(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - it is raised where it was called
        return False, error
    return True, list(value) if method == "__getitem__" and isinstance(args[0], slice) else value


def _send(peer: Any, answer: tuple[bool, Any]) -> None:
    try:
        peer.send(answer)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - the value's own code, or it cannot be pickled
        peer.send((False, TypeError(f"a lent object's answer cannot be sent: {error!r}")))


class Proxy:
    """A worker's side of an object that another process keeps. Has its methods."""

    def __init__(self, address: str, key: bytes, number: int, methods: tuple[str, ...]) -> None:
        self._where = (address, key)
        self._number = number
        self._methods = methods

    def __reduce__(self) -> tuple[Any, ...]:
        return Proxy, (*self._where, self._number, self._methods)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        peer = _connected(*self._where)
        peer.send((self._number, method, args, kwargs))
        ok, value = peer.recv()
        if ok:
            return value
        raise value

    def __getattr__(self, name: str) -> Any:
        if name in _CLOSES:
            return lambda: None
        if name.startswith("_") or name not in self._methods:
            raise AttributeError(f"a lent object has no {name!r}")
        if name in ("get_lock", "get_obj"):
            return lambda: self
        if name in ("value", "raw"):
            return self._call("__get__", name)
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("value", "raw"):
            self._call("__set__", name, value)
        else:
            super().__setattr__(name, value)

    def __enter__(self) -> Any:
        return self._call("acquire")

    def __exit__(self, *_: object) -> None:
        self._call("release")

    def __len__(self) -> int:
        return int(self._call("__len__"))

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, i: Any) -> Any:
        return self._call("__getitem__", i)

    def __setitem__(self, i: Any, value: Any) -> None:
        self._call("__setitem__", i, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call("__getitem__", slice(None)))


class _Peers(threading.local):
    """This thread's connections, by address and process."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], Any] = {}


_peers = _Peers()


def _connected(address: str, key: bytes) -> Any:
    where = (address, os.getpid())
    peer = _peers.open.get(where)
    if peer is None or peer.closed:
        peer = _peers.open[where] = connection.Client(address, authkey=key)
    return peer


class _Spawning:
    """Stands for a process that ``multiprocessing`` is spawning: while there is one, its locks and
    queues may be pickled."""

    def __init__(self, server: ProxyServer) -> None:
        self.server = server
        #: Whether a lock is tried as it is: it may open by its name.
        self.trying = False


@contextmanager
def proxying(server: ProxyServer) -> Iterator[None]:
    """Values pickled here may hold objects of ``multiprocessing``: as arguments of a process that
    is spawned."""
    for module, name in (*_NAMED, *_UNNAMED):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None:
            copyreg.pickle(kind, _reduce)
    before = context.get_spawning_popen()
    context.set_spawning_popen(_Spawning(server))  # type: ignore[arg-type]  # on Unix only asked whether there is one
    try:
        yield
    finally:
        context.set_spawning_popen(before)


def _reduce(thing: Any) -> str | tuple[Any, ...]:
    """How an object of ``multiprocessing`` is pickled. As ever, but in ``proxying``."""
    spawning: Any = context.get_spawning_popen()
    if not isinstance(spawning, _Spawning) or spawning.trying:
        return _reduce_as_usual(thing)
    key = (type(thing).__module__, type(thing).__name__)
    methods = _NAMED.get(key)
    if methods is not None and _opens_by_name(thing, spawning):
        return _reduce_as_usual(thing)
    return spawning.server.take(thing, methods or _UNNAMED[key]).__reduce__()


def _reduce_as_usual(thing: Any) -> str | tuple[Any, ...]:
    reduce: Callable[[int], str | tuple[Any, ...]] = thing.__reduce_ex__
    return reduce(pickle.HIGHEST_PROTOCOL)


def _opens_by_name(thing: Any, spawning: _Spawning) -> bool:
    spawning.trying = True
    try:
        pickle.Pickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(thing)
    except RuntimeError:  # of a fork context: its name is gone as soon as it is made
        return False
    finally:
        spawning.trying = False
    return True
