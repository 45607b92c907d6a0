"""One worker's insides: the event loop that is P, its Ms and their hand-off, timers, channels.

``loop`` is the P, ``m`` the threads, ``sysmon`` takes P from a G that keeps it. This floor
knows nothing of sockets to a daemon, jobs or wire formats: a worker gives it Gs (``FreshG``) and
reads its counters.
"""

from gmpd import compiled

compiled.use()
