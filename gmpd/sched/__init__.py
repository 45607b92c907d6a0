"""The policy: decides the next actions and executes none: no IO, no clock, no dice, no log.

Events and ``now`` go in, answers and instructions come out. ``schedt`` is the coordinator's side,
``runq``, ``g`` and ``sysmon`` are a worker's.
"""

from gmpd import compiled

compiled.use()
