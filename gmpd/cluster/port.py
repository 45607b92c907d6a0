"""The engine's port: what the rest of gmpd asks of a library that knows hosts and moves bytes.

An engine is named in ``cluster.engine``: one of ``KNOWN``, or ``module:class`` of another. It
delivers the bytes of an exchange to ``agent.exchange`` in a process on the host, and brings back
what that returns. It may deliver them twice or late: the two ends number what they say.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from gmpd.errors import ConfigError

#: Engines that come with gmpd: the module and class, and the extra that brings the library.
KNOWN = {
    "dask": ("gmpd.cluster.dask:DaskEngine", "dask"),
    "ray": ("gmpd.cluster.ray:RayEngine", "ray"),
}


class Host(NamedTuple):
    """A machine, or a part of one, that takes work. ``name``: its address, as the engine has it.
    ``leaves``: it ends the work that it has, and takes no more."""

    name: str
    cores: int
    leaves: bool = False


#: Called once with the answer of a host, or with the error that it did not get there or came back.
#: On any thread, and must not wait.
Answered: TypeAlias = Callable[[bytes | BaseException], object]


class Engine(Protocol):
    """A connection to the machines. ``settings``: ``address``, ``scheduler_file`` and
    ``timeout_s``, as configured.

    To be called by one thread at a time; only ``hosts`` waits, for ``timeout_s`` at most. An engine
    whose class has ``forks = True`` may be used in the fork of a process that has imported it: the
    import starts no thread and opens nothing.
    """

    #: The largest arguments of one job that it carries.
    frame_bytes: int

    def hosts(self) -> list[Host]:
        """The hosts that are there now. Raises ClusterError in a sentence when the engine cannot be
        reached."""

    def send(self, host: str, batch: bytes, answered: Answered) -> None:
        """Have ``agent.exchange(batch)`` called on a host."""

    def close(self) -> None:
        """Give the connection up; exchanges on their way may be lost."""


@runtime_checkable
class Tells(Protocol):
    """An engine that knows when a host has come or gone."""

    def await_change(self, timeout_s: float) -> None:
        """Return once ``hosts`` may have another answer, or after this time."""


class ClusterError(ConfigError):
    """The engine cannot be used: it is not installed, or nothing answers at its address."""


def open_engine(name: str, settings: Mapping[str, Any]) -> Engine:
    """Connect. Raises ClusterError saying what to do."""
    engine: Engine = engine_class(name)(settings)
    return engine


def engine_class(name: str) -> Callable[[Mapping[str, Any]], Engine]:
    """The class of the engine of this name, imported. Raises ClusterError saying what
    to do."""
    where, extra = KNOWN.get(name, (name, ""))
    module, _, attribute = where.partition(":")
    try:
        made: Callable[[Mapping[str, Any]], Engine]
        made = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if extra and not str(error.name).startswith("gmpd"):
            raise ClusterError(
                f"cluster.engine = {name!r} needs {error.name}, which is not installed:"
                f" pip install 'gmpd[{extra}]'"
            ) from None
        raise ClusterError(_unknown(name)) from error
    except (ImportError, AttributeError, ValueError) as error:
        raise ClusterError(_unknown(name)) from error
    return made


def _unknown(name: str) -> str:
    known = ", ".join(sorted(KNOWN))
    return f"cluster.engine = {name!r} is no engine: take {known}, or module:class of your own"
