"""gmpd: Go's scheduler for Python, as a daemon.

Submit jobs to a daemon: ``Client`` (blocking), ``AsyncClient`` (asyncio), ``Executor`` (a pool as
in ``concurrent.futures``), ``Pool`` (as in ``multiprocessing``); ``@job`` declares options of a
function, ``@cron`` and ``@every`` when it runs by itself; ``errors`` has every error.
Go's tools, in jobs and under ``run``: ``go``, ``Chan``, ``select``, ``Group``, ``WaitGroup``,
``Mutex``, ``Timer`` and others. Times are seconds. The names in ``__all__`` are public; all modules
below this package are internal.
"""

import sys
from importlib import import_module
from types import ModuleType

#: For type checkers, as in ``typing``; that module takes longer to import than all else here.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from gmpd import errors
    from gmpd.bykey import Limit, Unique
    from gmpd.client.aio import AsyncClient
    from gmpd.client.executor import Executor
    from gmpd.client.hints import PerformanceHint
    from gmpd.client.pool import Pool
    from gmpd.client.sync import Client
    from gmpd.errors import ChanClosed
    from gmpd.job import Backoff, job
    from gmpd.periodic import cron, every
    from gmpd.runtime.chan import Chan
    from gmpd.runtime.go import (
        blocking,
        cancelled,
        go,
        gomaxprocs,
        gosched,
        num_g,
        sleep,
        stacks,
    )
    from gmpd.runtime.group import Group
    from gmpd.runtime.log_records import LogFilter
    from gmpd.runtime.progress import progress
    from gmpd.runtime.run import new_event_loop, run
    from gmpd.runtime.select import recv, select, select_sync, send
    from gmpd.runtime.sync import (
        Cond,
        Mutex,
        Once,
        RWMutex,
        Semaphore,
        SingleFlight,
        WaitGroup,
    )
    from gmpd.runtime.synctest import synctest_wait
    from gmpd.runtime.timers import Ticker, Timer, after, after_func

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Backoff",
    "Chan",
    "ChanClosed",
    "Client",
    "Cond",
    "Executor",
    "Group",
    "Limit",
    "LogFilter",
    "Mutex",
    "Once",
    "PerformanceHint",
    "Pool",
    "RWMutex",
    "Semaphore",
    "SingleFlight",
    "Ticker",
    "Timer",
    "Unique",
    "WaitGroup",
    "__version__",
    "after",
    "after_func",
    "blocking",
    "cancelled",
    "cron",
    "errors",
    "every",
    "go",
    "gomaxprocs",
    "gosched",
    "job",
    "new_event_loop",
    "num_g",
    "progress",
    "recv",
    "run",
    "select",
    "select_sync",
    "send",
    "sleep",
    "stacks",
    "synctest_wait",
]

#: Where each public name lives. Its module is imported on first use (PEP 562), so that ``import
#: gmpd``, and with it ``gmpd --help`` and the start of every worker, pays only for what it uses.
_HOMES = {
    "AsyncClient": "gmpd.client.aio",
    "Backoff": "gmpd.job",
    "Chan": "gmpd.runtime.chan",
    "ChanClosed": "gmpd.errors",
    "Client": "gmpd.client.sync",
    "Cond": "gmpd.runtime.sync",
    "Executor": "gmpd.client.executor",
    "Group": "gmpd.runtime.group",
    "Limit": "gmpd.bykey",
    "LogFilter": "gmpd.runtime.log_records",
    "Mutex": "gmpd.runtime.sync",
    "Once": "gmpd.runtime.sync",
    "PerformanceHint": "gmpd.client.hints",
    "Pool": "gmpd.client.pool",
    "RWMutex": "gmpd.runtime.sync",
    "Semaphore": "gmpd.runtime.sync",
    "SingleFlight": "gmpd.runtime.sync",
    "Ticker": "gmpd.runtime.timers",
    "Timer": "gmpd.runtime.timers",
    "Unique": "gmpd.bykey",
    "WaitGroup": "gmpd.runtime.sync",
    "after": "gmpd.runtime.timers",
    "after_func": "gmpd.runtime.timers",
    "blocking": "gmpd.runtime.go",
    "cancelled": "gmpd.runtime.go",
    "cron": "gmpd.periodic",
    "every": "gmpd.periodic",
    "errors": "gmpd.errors",
    "go": "gmpd.runtime.go",
    "gomaxprocs": "gmpd.runtime.go",
    "gosched": "gmpd.runtime.go",
    "job": "gmpd.job",
    "new_event_loop": "gmpd.runtime.run",
    "num_g": "gmpd.runtime.go",
    "progress": "gmpd.runtime.progress",
    "recv": "gmpd.runtime.select",
    "run": "gmpd.runtime.run",
    "select": "gmpd.runtime.select",
    "select_sync": "gmpd.runtime.select",
    "send": "gmpd.runtime.select",
    "sleep": "gmpd.runtime.go",
    "stacks": "gmpd.runtime.go",
    "synctest_wait": "gmpd.runtime.synctest",
}

if not TYPE_CHECKING:  # so that a type checker sees the names above, and refuses any other

    class _Package(ModuleType):
        """The import system sets ``gmpd.job`` to the module: the public name is the decorator.

        A plain attribute is all that importing a submodule ever sets, in whatever order; so the
        one name that means something else is kept from it here.
        """

        def __setattr__(self, name, value):
            if name == "job" and isinstance(value, ModuleType):
                # Half imported still, when an import within it failed: then there is no decorator.
                value = getattr(value, "job", value)
            super().__setattr__(name, value)

        def __reduce__(self):
            """As plain modules travel with functions by value, which this one is not by class."""
            return import_module, (__name__,)

    sys.modules[__name__].__class__ = _Package

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'gmpd' has no attribute {name!r}")
        module = import_module(home)
        value = module if home == f"gmpd.{name}" and name != "job" else getattr(module, name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)
