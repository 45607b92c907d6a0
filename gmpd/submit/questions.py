"""The questions of a session that have no answer yet. Sans-IO.

An administrative question ends with its link. One about durable jobs outlives it where the client
finds a new one (``keeps``): the daemon that answers there is asked again for what is not known. The
same id names the same job, so to store a job twice stores it once. A change that was sent, and is
none when it is asked for twice, is not asked again: the caller is told that its end is unknown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, assert_never

from gmpd import protocol
from gmpd.errors import another
from gmpd.submit.batch import Options
from gmpd.submit.events import CallReply, Event
from gmpd.submit.functions import FunctionTable

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import Blob, FunctionRef

#: Questions that have the same answer, and the same effect, when they are asked twice.
_REPEATABLE = frozenset({"find", "result", "story", "log", "call", "cancel"})


#: As many values of a client's jobs may be on their way beside the coordinator.
TOLD_MAX = 8


class ToStore(NamedTuple):
    """Have durable jobs of one function stored: pairs of id and arguments. ``stored``: the fields
    of Enqueue that are for the store."""

    ref: FunctionRef
    jobs: list[tuple[bytes, Blob]]
    options: Options | None
    stored: dict[str, Any]


class AboutJobs(NamedTuple):
    """See ``protocol.AskJobs``."""

    what: Any
    ids: list[bytes]
    n: int | None = None
    after: int = 0


AboutDurable: TypeAlias = ToStore | AboutJobs


class Questions:
    """``say`` sends a message with its frames; ``add`` takes the news for a sink."""

    def __init__(
        self, say: Callable[[protocol.Message, list[Any] | None], None], add: Callable[[Event], Any]
    ) -> None:
        self._say = say
        self._add = add
        #: Whether those about durable jobs wait for a new link when theirs is lost.
        self.keeps = False
        #: Jobs of which the last values came from workers: the coordinator may not know it yet.
        self.told: deque[int] = deque(maxlen=TOLD_MAX)
        self._next = 1
        self._sinks: dict[int, Any] = {}
        self._durable: dict[int, AboutDurable] = {}
        #: Questions that no daemon was told.
        self._unsaid: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._sinks)

    # -- they are asked ----------------------------------------------------------------------------

    def call(self, method: str, params: dict[str, protocol.Scalar], sink: Any) -> None:
        """An administrative question; ``sink`` gets its Reply."""
        if self.told:
            told = list(self.told)
            self._say(protocol.CallAfter(self._next, method, params, told), None)
        else:
            self._say(protocol.Call(self._next, method, params), None)
        self._take(sink)

    def ask(self, question: AboutDurable, sink: Any, functions: FunctionTable | None) -> None:
        """A question about durable jobs. ``functions``: of the link; None: there is none."""
        if functions is None:
            self._unsaid.add(self._next)
        else:
            self._say_one(self._next, question, functions)
        self._durable[self._next] = question
        self._take(sink)

    def _take(self, sink: Any) -> None:
        """Last: of a message that cannot be packed nothing is kept."""
        self._sinks[self._next] = sink
        self._next += 1

    def _say_one(self, request: int, question: AboutDurable, functions: FunctionTable) -> None:
        match question:
            case ToStore(ref, jobs, options, stored):
                counts, frames = protocol.join_buffers([blob.buffers for _, blob in jobs])
                number = functions.number(ref)
                enqueue = protocol.Enqueue(
                    request, number, [id_ for id_, _ in jobs], protocol.options(options),
                    [blob.data for _, blob in jobs], counts, **stored,
                )  # fmt: skip
                self._say(enqueue, frames)
            case AboutJobs():
                self._say(protocol.AskJobs(request, *question), None)
            case _:
                assert_never(question)

    # -- they end ----------------------------------------------------------------------------------

    def answered(self, request: int, ok: bool, value: Any) -> None:
        """The daemon's answer to one of them."""
        sink = self._sinks.pop(request, None)
        self._durable.pop(request, None)
        if sink is not None:
            self._add((sink, CallReply(ok, value)))

    def forget(self, sink: Any) -> None:
        """The caller waits for its answer no more."""
        for request in [request for request, other in self._sinks.items() if other is sink]:
            self._drop(request)

    def _drop(self, request: int) -> Any:
        self._durable.pop(request, None)
        self._unsaid.discard(request)
        return self._sinks.pop(request)

    def disconnected(self, error: Exception) -> None:
        """The link is lost: those end that cannot be asked again."""
        for request in [each for each in self._sinks if not self._is_kept(each)]:
            self._fail(request, error)

    def _is_kept(self, request: int) -> bool:
        question = self._durable.get(request)
        if not self.keeps or question is None:
            return False
        return (
            isinstance(question, ToStore) or question.what in _REPEATABLE or request in self._unsaid
        )

    def ask_again(self, functions: FunctionTable) -> None:
        """There is a new link: the daemon there is asked all that is not known."""
        self._unsaid.clear()
        for request, question in list(self._durable.items()):
            try:
                self._say_one(request, question, functions)
            except Exception as error:  # noqa: BLE001 - of a value that had to be pickled again
                self._fail(request, error)

    def fail(self, error: Exception) -> None:
        """No answer will come to any of them."""
        for request in list(self._sinks):
            self._fail(request, error)

    def _fail(self, request: int, error: Exception) -> None:
        question, said = self._durable.get(request), request not in self._unsaid
        sink = self._drop(request)
        if question is not None and (words := _unknown(question, said=said)):
            error = another(error)
            error.args = (f"{error} {words}", *error.args[1:])
        self._add((sink, CallReply(False, error)))


def _unknown(question: AboutDurable, *, said: bool) -> str:
    """Words on the job that a question without an answer was about."""
    match question:
        case ToStore(_, [(id_, _)], _, _) if said:
            return (
                f"Whether job {id_.hex()} is stored is not known: `gmpd jobs show {id_.hex()}`"
                " tells, once a daemon runs"
            )
        case ToStore():
            return "Nothing was stored" if not said else ""
        case AboutJobs("result" | "find" | "story", [id_]):
            return (
                f"Job {id_.hex()} is on disk and continues: client.job({id_.hex()!r}).result(), or"
                f" `gmpd jobs show {id_.hex()}`, has its end once a daemon runs"
            )
        case AboutJobs(what) if said and what in ("cancel", "retry", "remove"):
            return f"Whether the {what} was done is not known: ask for the state"
        case AboutJobs():
            return ""
        case _:
            assert_never(question)
