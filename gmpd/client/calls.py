"""Turns a user's call into its wire form, or refuses options that this version does not support."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

# Not when the first function goes by value: a signal handler that submits would find it half
# imported, and one that raises would break it.
import gmpd.codec.cloud  # noqa: F401
from gmpd import spans
from gmpd.codec import Blob, FunctionRef, carrying, describe_function, encode_call
from gmpd.errors import GmpdError, NoAnswer, NotAllowed, NotRegistered, Unserializable
from gmpd.job import ATTRIBUTE, TEXT_MAX, JobOptions, options_of
from gmpd.submit.batch import Options
from gmpd.timeouts import checked

T = TypeVar("T")


def check_client(name: Any, pending_max: Any = 1, reconnect: Any = None) -> None:
    """Check the arguments of a client, before a daemon is searched for or started."""
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: must be a text")
    if len(name) > TEXT_MAX or not name.isprintable():
        raise ValueError(f"name={name!a:.80}: must be at most {TEXT_MAX} printable characters")
    if isinstance(pending_max, bool) or not isinstance(pending_max, int):
        raise TypeError(f"pending_max={pending_max!r}: must be a whole number of jobs")
    if pending_max < 1:
        raise ValueError(f"pending_max={pending_max}: must be at least 1, or no job would go out")
    if reconnect is not None:
        checked(reconnect, "reconnect")
        if reconnect < 0:
            raise ValueError(f"reconnect={reconnect}: must be seconds, 0 or more")


def insist(make: Callable[[], T]) -> T:
    """The result of ``make``. If that reports an unserializable value it is called once more, so
    that an exception that a signal handler raised inside the value's own code is raised as it was.
    """
    try:
        return make()
    except Unserializable as error:
        raise _blamed(error, make) from error.__cause__


def _blamed(error: Unserializable, make: Callable[[], object]) -> BaseException:
    """``error`` if it comes again, else the exception of a signal handler that led to it."""
    cause = error.__cause__
    if cause is None:
        return error
    make()
    return cause


def prepare(
    fn: Callable[..., Any],
    overrides: dict[str, Any] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[FunctionRef, Options | None, Blob]:
    """A call, ready for the wire. Raises Unserializable naming what cannot be sent."""
    try:
        if overrides or hasattr(fn, ATTRIBUTE) or hasattr(fn, "func"):
            return _prepare(fn, overrides, args, kwargs)
        # As ``encode``, whose call each job would pay for.
        ref = describe_function(fn)
        blob = encode_call(ref.name, args, kwargs, fn=fn)
        if spans.LOADED in sys.modules and (header := spans.submitted(ref.name)):
            blob = carrying(header, blob)
        if blob.__class__ is not Blob and (needs := blob.needs):
            ref = ref.needing(needs)
        return ref, None, blob
    except Unserializable as error:  # as ``insist``, whose closure would cost every call
        again = functools.partial(_prepare, fn, overrides, args, kwargs)
        raise _blamed(error, again) from error.__cause__


def _prepare(
    fn: Callable[..., Any],
    overrides: dict[str, Any] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[FunctionRef, Options | None, Blob]:
    options, plain = None, False
    more: tuple[Any, ...] = ()
    if overrides or hasattr(fn, ATTRIBUTE) or hasattr(fn, "func"):
        options, plain, more = wire_options(fn, overrides)
    ref, blob = encode(fn, plain, args, kwargs)
    return ref.needing(more) if more else ref, options, blob


def encode(
    fn: Callable[..., Any],
    plain: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    header: bytes | None = None,
) -> tuple[FunctionRef, Blob]:
    """A function and its arguments, ready for the wire. To be called by ``insist``. ``header``: of
    a job that is submitted together with others."""
    ref = describe_function(fn)
    blob = encode_call(ref.name, args, kwargs, fn=fn, plain=plain)
    if header is None:
        header = spans.of_submit(ref.name)
    if header:
        blob = carrying(header, blob)
    needs = blob.needs
    return ref.needing(needs) if needs else ref, blob


class Answer:
    """The answer to an administrative call: a sink of the core. ``told`` is called when it has
    come, or the daemon is lost."""

    def __init__(self, method: str, told: Callable[[], object]) -> None:
        self.over = False
        self._method = method
        self._told = told
        self._ok = False
        self._value: Any = None

    def answered(self, ok: bool, value: Any) -> None:
        """The reply has come; or the error by which the daemon was lost."""
        self._ok, self._value, self.over = ok, value, True
        self._told()

    def take(self, endpoint: str, waited_s: float | None, late: type[Exception] = NoAnswer) -> Any:
        """The answer; raises the daemon's refusal, or ``late`` if none has come in time."""
        if not self.over:
            raise late(
                f"the daemon at {endpoint} did not answer {self._method!r} within {waited_s:g} s"
            )
        if self._ok:
            return self._value
        raise _as_error(self._value)


#: Refusals of a daemon on another machine that have an error of their own.
_REFUSALS = {"not_allowed": NotAllowed, "not_registered": NotRegistered}


def _as_error(value: Any) -> Exception:
    """The reason of a refused question: a text, a text with its kind, or what ended the session."""
    if isinstance(value, Exception):
        return value
    for name, kind in _REFUSALS.items():
        if isinstance(value, dict) and name in value:
            return kind(str(value[name]))
    return GmpdError(str(value))


def wire_options(
    fn: Callable[..., Any], overrides: dict[str, Any] | None, *, of_chunks: bool = False
) -> tuple[Options | None, bool, tuple[Any, ...]]:
    """The job options for the wire, whether arguments must be plain, and the parts that a function
    among the options needs.

    Raises ValueError for an option that only durable jobs keep: a promise that is taken and not
    kept would be worse.
    """
    options = options_of(fn).merged(**(overrides or {}))
    if not options.durable and (name := options.for_the_store()):
        raise ValueError(f"{name}={getattr(options, name)!r} needs durable=True, or enqueue()")
    declared = not of_chunks and "backoff" not in (overrides or {})
    wire, needs = packed_options(options, declared=declared)
    if not options.durable and (options.at is not None or options.expires is not None):
        wire = {**(wire or {}), **options.times_on_wire(time.time())} or None
    return wire, options.plain, needs


def packed_options(
    options: JobOptions, *, declared: bool
) -> tuple[Options | None, tuple[Any, ...]]:
    """Options for the wire, and what their function for the wait needs. That one goes as a
    reference, or is ``declared``: it comes with the job's function."""
    wire = options.to_wire()
    if declared or not callable(options.backoff):
        return wire, ()
    ref = describe_function(options.backoff)
    if options.plain and ref.kind != "name":
        raise ValueError(f"backoff={ref.name}: with plain=True it must be a function of a module")
    assert wire is not None
    wire["backoff_fn"] = (ref.kind, ref.name, ref.payload)
    return wire, ref.needs


def refuse_durable(options: Options | None, verb: str) -> None:
    """Raises ValueError: durable jobs, and those with a unique key, are submitted one by one."""
    if options is None:
        return
    if options.get("durable"):
        raise ValueError(f"durable=True has no {verb}(): enqueue() or submit() each job")
    if key := options.get("unique"):
        raise ValueError(f"unique={key!r} has no {verb}(): submit() the job, as there is only one")
