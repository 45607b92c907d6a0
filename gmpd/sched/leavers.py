"""The numbers of hosts, and of workers beside their P: leaving ones, successors that start.

Everything that the coordinator knows of a worker is filed under the number of its P. While two
workers of one P live, the one that does not serve has a number below 0, made of P and epoch: none
is ever used twice, and the worker of any address (P, epoch) is found without a table.
"""

from __future__ import annotations

#: More than there can be Ps.
_PS = 1 << 16

#: Hosts are Ps from this number on, below HOSTS_FROM + HOSTS_MAX; a machine has fewer Ps.
HOSTS_FROM = 1 << 15
HOSTS_MAX = 1 << 14


def number_beside(p: int, epoch: int) -> int:
    """The number of the worker of this epoch of P ``p`` while another one serves."""
    return -(epoch * _PS + p)


def p_of(number: int) -> int:
    """The P of a worker; the number itself for one that serves, or is isolated."""
    return number if number >= 0 else -number % _PS
