"""Jobs on other machines: engines that know hosts and move batches, and both ends of those.

    coordinator ── bridge (a worker process) ── engine ── agent (on the host) ── its own daemon

The coordinator sees a P with many cores; the host's daemon sees a client. Only an engine's own
module imports its library.
"""
