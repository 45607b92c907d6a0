"""The children for which a G waits: by ``await g``, in ``Group.wait`` or in ``WaitGroup.wait``.

Reads, and changes nothing. It knows how these three wait, and nothing else does.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from gmpd.runtime.g import G
from gmpd.runtime.group import Group, GroupWaiter
from gmpd.runtime.sync.waitgroup import WaitGroup, WaitGroupWaiter

if TYPE_CHECKING:
    from gmpd.runtime.p import P

#: Children that are looked at, and that are told.
LOOKED_AT: Final = 10_000
TOLD: Final = 100


def awaited(p: P, g: Any) -> tuple[int, list[G]]:
    """How many children ``g`` waits for, and some of them; 0 if it waits for none."""
    waiter = getattr(g, "_fut_waiter", None)
    if isinstance(waiter, G):
        return 1, [waiter]
    group = waiter.c if isinstance(waiter, GroupWaiter | WaitGroupWaiter) else None
    if isinstance(group, Group):
        children = islice(list(group._children), TOLD)
        return group._active, [child for child in children if isinstance(child, G)]
    if isinstance(group, WaitGroup):
        return group._n, [child for child in p.gs.some(LOOKED_AT) if _is_of(child, group)][:TOLD]
    return 0, []


def _is_of(child: G, group: WaitGroup) -> bool:
    """Whether ``group.go`` made it, and it has not ended."""
    callbacks = child._callbacks
    return isinstance(callbacks, list) and any(
        type(each) is tuple and getattr(each[0], "__self__", None) is group for each in callbacks
    )
