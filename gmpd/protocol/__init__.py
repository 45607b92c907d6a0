"""The wire: the messages of each sender, their form, and their limits.

This package is the specification; coordinator, workers, clients and gateway import it and nothing
describes a message anywhere else. It must never know a socket, a clock, or how to unpack a user's
value: arguments and results pass as opaque bytes.

**Transport.** A message is a list of frames. Frame 0 is a msgpack array ``[kind, field, ...]``: the
``tag`` of the message's class and its fields, in order. Further frames are the out-of-band
buffers of the values in it (large NumPy arrays, for example): ``buffer_counts`` says how many
belong to each value, ``None`` that there are none at all.

**Said once.** A class in ``messages`` is its message: from its fields' types come the encoding and
the check of what arrives (types, ranges, lengths; no field holds anything that nests without a
bound, except ``Reply.value``, which only a coordinator sends). The unions ``FromClient``,
``ToClient``, ``FromWorker`` and ``ToWorker`` give the senders; the drawing shows them.

**Handshake.** A peer's first message is ``Hello``. Its form never changes, in any version, nor does
that of a ``Refused`` for another version. The coordinator answers ``Welcome`` with the version that
both speak, or ``Refused`` naming the versions of both sides; until then anything else is dropped
and counted.

**Batches.** Jobs, outcomes and tokens travel in columns, many in a message. A sender sends at once
when nothing is under way and gathers when something is.

**Credit.** No socket limit ever applies: a client has at most ``Welcome.window`` jobs without an
acknowledged outcome, a worker holds what the coordinator's policy gave it.

**Identity.** A job is ``(session, seq)`` to its client and to the coordinator, ``token`` to its
worker. A token names *one* lease of one job to one worker; it is never used again, so a message
about an older lease is recognised, dropped and counted. A rejected or malformed message
changes nothing.

    client ───▶ coordinator
      Hello Define Undefine Submit Cancel ForceCancel Recall Ack Pull Call CallAfter Enqueue
      AskJobs Waive Bye
    client ◀─── coordinator
      Welcome Refused Done Value Items Running Progress Kept Room Reply Gone
    worker ───▶ coordinator
      Hello Finished Started Aside Returned Leaves Unfit Imported Expired Progress Output Kept
      Items Fault Bye Withheld Children Define Undefine Submit Cancel Answer RingTail Route
    worker ◀─── coordinator
      Welcome Refused Define Undefine Assign Cancel Pull Stop StealChildren Withhold Lend Unlend
      Done Progress Output Ask Route Lost

A worker is the client of those children of its Gs that run in another worker: its Define, Undefine,
Submit and Cancel, and the Done that it gets, are about them. Route is a message from one worker to
another about a channel, passed on unread. Value, of a worker, takes the place of a Done: over the
lane of a client that the coordinator has lent to it.
"""

from __future__ import annotations

from gmpd.protocol.envelope import (
    FROM_CLIENT,
    FROM_WORKER,
    TO_CLIENT,
    TO_WORKER,
    Direction,
    agree,
    drawing,
    hello,
    join_buffers,
    kind_of,
    options,
    pack,
    pack_refusal,
    split_buffers,
    unpack,
)
from gmpd.protocol.fields import (
    ADMIN,
    ADMIN_VERSION_MIN,
    BATCH_JOBS_MAX,
    ENVELOPE_SLACK,
    GATHER_BYTES,
    MAGIC,
    NUMBER_MAX,
    ROWS_MAX,
    STREAM_BYTES,
    VERSION,
    VERSION_MIN,
    BatchValues,
    Buffers,
    ChanOp,
    Counts,
    DaemonInfo,
    Declaration,
    DeclaredSchedule,
    Details,
    Ending,
    FunctionKind,
    GEvent,
    GRow,
    GStory,
    Info,
    JobQuestion,
    Number,
    Numbers,
    Options,
    Outcome,
    Reason,
    Refusal,
    Report,
    Reports,
    Scalar,
    Specials,
    StackDump,
    Stage,
    Values,
    Wear,
)
from gmpd.protocol.message import Envelope
from gmpd.protocol.messages import (
    RETIRED,
    Ack,
    AskJobs,
    Bye,
    Call,
    CallAfter,
    Cancel,
    Define,
    Done,
    Enqueue,
    ForceCancel,
    FromClient,
    FromWorker,
    Gone,
    Hello,
    Items,
    Kept,
    Message,
    Output,
    Progress,
    Pull,
    Recall,
    Refused,
    Reply,
    Room,
    Running,
    Submit,
    ToClient,
    ToWorker,
    Undefine,
    Value,
    Waive,
    Welcome,
)
from gmpd.protocol.worker_messages import (
    Answer,
    Aside,
    Ask,
    Assign,
    Children,
    Expired,
    Fault,
    Finished,
    Imported,
    Leaves,
    Lend,
    Lost,
    Returned,
    RingTail,
    Route,
    Started,
    StealChildren,
    Stop,
    Unfit,
    Unlend,
    Withheld,
    Withhold,
)

__all__ = [
    "ADMIN",
    "ADMIN_VERSION_MIN",
    "BATCH_JOBS_MAX",
    "ENVELOPE_SLACK",
    "FROM_CLIENT",
    "FROM_WORKER",
    "GATHER_BYTES",
    "MAGIC",
    "NUMBER_MAX",
    "RETIRED",
    "ROWS_MAX",
    "STREAM_BYTES",
    "TO_CLIENT",
    "TO_WORKER",
    "VERSION",
    "VERSION_MIN",
    "Ack",
    "Answer",
    "Aside",
    "Ask",
    "AskJobs",
    "Assign",
    "BatchValues",
    "Buffers",
    "Bye",
    "Call",
    "CallAfter",
    "Cancel",
    "ChanOp",
    "Children",
    "Counts",
    "DaemonInfo",
    "Declaration",
    "DeclaredSchedule",
    "Define",
    "Details",
    "Direction",
    "Done",
    "Ending",
    "Enqueue",
    "Envelope",
    "Expired",
    "Fault",
    "Finished",
    "ForceCancel",
    "FromClient",
    "FromWorker",
    "FunctionKind",
    "GEvent",
    "GRow",
    "GStory",
    "Gone",
    "Hello",
    "Imported",
    "Info",
    "Items",
    "JobQuestion",
    "Kept",
    "Leaves",
    "Lend",
    "Lost",
    "Message",
    "Number",
    "Numbers",
    "Options",
    "Outcome",
    "Output",
    "Progress",
    "Pull",
    "Reason",
    "Recall",
    "Refusal",
    "Refused",
    "Reply",
    "Report",
    "Reports",
    "Returned",
    "RingTail",
    "Room",
    "Route",
    "Running",
    "Scalar",
    "Specials",
    "StackDump",
    "Stage",
    "Started",
    "StealChildren",
    "Stop",
    "Submit",
    "ToClient",
    "ToWorker",
    "Undefine",
    "Unfit",
    "Unlend",
    "Value",
    "Values",
    "Waive",
    "Wear",
    "Welcome",
    "Withheld",
    "Withhold",
    "agree",
    "drawing",
    "hello",
    "join_buffers",
    "kind_of",
    "options",
    "pack",
    "pack_refusal",
    "split_buffers",
    "unpack",
]
