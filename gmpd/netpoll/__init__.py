"""ZeroMQ, and the only package that imports it: links, their authentication, and waiting for them.

Frames go in and out as ``bytes`` and ``memoryview``; their meaning is ``protocol``'s, and this
package does not know which role a peer has in scheduling.

Three facts of libzmq shape it. A ROUTER drops messages that it cannot deliver unless
``ROUTER_MANDATORY`` is set. A NULL-security socket accepts ZMTP 1 and 2 greetings, and so a
browser's POST, unless a ZAP domain is set. And the readiness of ``Socket.FD`` is edge-triggered
and consumed by *any* call on the socket, sends included: after each call the owner has to look at
``readable`` again before it sleeps on the descriptor.
"""

from __future__ import annotations

from gmpd.netpoll.curve import CurveKeys, new_secret, public_of
from gmpd.netpoll.lane import LANE_BYTES, Lane, LentLane
from gmpd.netpoll.links import Dealer, Router, probe
from gmpd.netpoll.monitor import Connection
from gmpd.netpoll.poller import Poller, Source
from gmpd.netpoll.sockets import Frame, Frames, Network
from gmpd.netpoll.tcp import NetworkPeer, NetworkRouter
from gmpd.netpoll.zap import ZapHandler

__all__ = [
    "LANE_BYTES",
    "Connection",
    "CurveKeys",
    "Dealer",
    "Frame",
    "Frames",
    "Lane",
    "LentLane",
    "Network",
    "NetworkPeer",
    "NetworkRouter",
    "Poller",
    "Router",
    "Source",
    "ZapHandler",
    "new_secret",
    "probe",
    "public_of",
]
