"""gmpd: Go's scheduler for Python, as a daemon.

Public names, nothing else. They are looked up on first use (PEP 562), so that ``import gmpd``, and
with it ``gmpd --help`` and the start of every worker, pays only for what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmpd import errors

__version__ = "0.1.0"

__all__ = ["__version__", "errors"]

#: Where each public name lives; its module is imported when the name is first asked for.
_HOMES = {
    "errors": "gmpd.errors",
}

if not TYPE_CHECKING:  # so that a type checker sees the names above, and refuses any other

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'gmpd' has no attribute {name!r}")
        module = import_module(home)
        value = module if home == f"gmpd.{name}" else getattr(module, name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)
