"""Why a value cannot be sent, in a sentence: which argument, which item inside, and a hint.

Runs only after pickling failed. It finds the innermost part that fails by itself: among the parts
of a value by halving (one bad item in a million costs twenty trial pickles), then inside that part.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gmpd.codec import drafts, pickles

_signature: Callable[..., inspect.Signature] = inspect.signature
if sys.version_info >= (3, 14):
    from annotationlib import Format

    # Only names of parameters are asked for: annotations may not be evaluated.
    _signature = functools.partial(inspect.signature, annotation_format=Format.STRING)

#: A longer path is not read, and a chain of a thousand objects is found out by its head.
_DEPTH_MAX = 40
#: Texts that user code hands us (a repr, a message) are cut to this many characters.
_TEXT_MAX = 80

_Children = list[tuple[str, object]]


_LOCK = (
    "A lock guards one process only: create it inside the function, or leave it out of the "
    "object's state with __getstate__"
)
_CALL = (
    "Send the async function and its arguments, not the call: submit(fetch, url), "
    "not submit(run, fetch(url))"
)
_STRUCT = "Define its class in a module that the workers can import"
_ITERATOR = "Send list(...) of it, or make the function itself a generator and use stream()"

#: By module and class, the first that fits. Looked up among loaded modules: an object of a class
#: proves its module loaded, and asyncio alone would double the start-up time of the command line.
_HINTS = (
    ("concurrent.futures", "Future", "Send its result: submit(f, future.result())"),
    ("asyncio", "Future", "Send its result: submit(f, await future)"),
    ("gmpd.runtime.g", "G", "Send its result: submit(f, await g)"),
    ("_thread", "LockType", _LOCK),
    ("_thread", "RLock", _LOCK),
    ("threading", "Thread", "Start the thread inside the function"),
    ("io", "IOBase", "Send the path and open the file inside the function"),
    ("gmpd.runtime.chan", "Chan", "Send values to a job, not channels"),
    ("socket", "socket", "Send the address and connect inside the function"),
    ("sqlite3", "Connection", "Connect to the database inside the function"),
    ("sqlite3", "Cursor", "Connect to the database inside the function"),
    ("types", "GeneratorType", _ITERATOR),
    ("types", "AsyncGeneratorType", _ITERATOR),
    ("types", "CoroutineType", _CALL),
    ("builtins", "memoryview", "Send bytes(...) of it"),
    ("collections.abc", "KeysView", "Send list(...) of it"),
    ("collections.abc", "ValuesView", "Send list(...) of it"),
    ("collections.abc", "ItemsView", "Send list(...) of it"),
    ("types", "MappingProxyType", "Send dict(...) of it"),
    ("msgspec", "StructMeta", _STRUCT),
    ("msgspec", "Struct", _STRUCT),
    ("weakref", "ReferenceType", "Send the object itself"),
    ("types", "FrameType", "Send its text: traceback.format_exc()"),
    ("types", "TracebackType", "Send its text: traceback.format_exc()"),
)
#: Attributes of classes that are made anew with the class.
_SLOTS = frozenset({types.MemberDescriptorType, types.GetSetDescriptorType})
#: How many of the first are about futures.
_FUTURES = 3
_HINT_OTHER = (
    "Make it inside the function, send the plain data it is made of, "
    "or give its class __getstate__ or __reduce__"
)


def explain(value: object, root: str, exc: BaseException) -> str:
    """The path to the part that makes ``value`` unsendable, its type, and the mend."""
    if _is_too_deep(exc):
        return (
            f"{root} is nested too deeply for pickle (a long chain of objects that refer to each "
            "other). Send it as a flat list"
        )
    path, culprit, reason = _descend(value, root, exc)
    return f"{_strip(path)} is {name_kind(culprit)}{_because(reason)}. {_hint(culprit)}"


def explain_global(fn: object, name: str, value: object, user: str, exc: Exception) -> str:
    """The same for a global that ``fn`` needs, directly or through other functions."""
    cause = exc.__cause__
    own = cause if isinstance(cause, Exception) else exc
    qualname = getattr(fn, "__qualname__", "")
    if name == qualname.partition(".")[0]:
        return explain(value, name, own)
    return explain(value, f"(global {name!r} used by {user or qualname})", own)


def explain_call(
    fn_name: str,
    fn: Callable[..., Any] | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    exc: BaseException,
) -> str:
    """The same for the arguments of a call, naming function and parameter."""
    names = [name_argument(fn_name, fn, position) for position in range(len(args))]
    names += [(key, f"argument {key!r} of {short_name(fn_name)}()") for key in kwargs]
    values = [*args, *kwargs.values()]
    index = _first_bad(values)
    if index is None:
        return f"the arguments of {short_name(fn_name)}() cannot be sent: {_cut(exc)}"
    root, what = names[index]
    own = _failure(values[index]) or exc
    return f"{what}: {explain(values[index], root, own)}"


def name_argument(fn_name: str, fn: Callable[..., Any] | None, position: int) -> tuple[str, str]:
    """How to call the argument at ``position`` in a path, and in a sentence."""
    parameter = _parameter_at(fn, position)
    function = short_name(fn_name)
    if parameter is None:
        return f"args[{position}]", f"argument {position + 1} of {function}()"
    return parameter, f"argument {parameter!r} of {function}() (position {position + 1})"


def short_name(fn_name: str) -> str:
    """``module:qualname`` without the module."""
    return fn_name.rpartition(":")[2] or fn_name


def _parameter_at(fn: Callable[..., Any] | None, position: int) -> str | None:
    if fn is None:
        return None
    try:
        parameters = list(_signature(fn).parameters.values())
    except (TypeError, ValueError):
        return None
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return f"{parameter.name}[{position - index}]"
        if index == position and parameter.kind is not parameter.KEYWORD_ONLY:
            return parameter.name
    return None


def _descend(value: object, path: str, exc: BaseException) -> tuple[str, object, BaseException]:
    on_path = {id(value)}
    for _ in range(_DEPTH_MAX):
        if _is_future(value):
            break
        children = _children(value, path)
        index = _first_bad([child for _, child in children])
        if index is None or id(children[index][1]) in on_path:
            break
        path, value = children[index]
        on_path.add(id(value))
        exc = _failure(value) or exc
    return path, value, exc


def _is_future(value: object) -> bool:
    """The fault is that one was sent, not its content."""
    kinds = [getattr(sys.modules.get(m), name, None) for m, name, _ in _HINTS[:_FUTURES]]
    return any(isinstance(kind, type) and isinstance(value, kind) for kind in kinds)


def _failure(value: object) -> Exception | None:
    """The exception that sending ``value`` by itself raises, if any."""
    try:
        pickles.dump(value)
    except drafts.Undefinable as exc:
        cause = exc.__cause__
        return cause if isinstance(cause, Exception) else exc
    except Exception as exc:  # noqa: BLE001 - user code; its exception is the answer
        return exc
    return None


def _first_bad(values: list[Any]) -> int | None:
    if not values or _failure(values) is None:
        return None
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if _failure(values[low:middle]) is None:
            low = middle
        else:
            high = middle
    return low if _failure(values[low]) is not None else None


def _children(value: Any, path: str) -> _Children:
    """The parts of ``value`` with the path of each."""
    match value:
        case dict() if type(value) is dict:
            return _items(value, path)
        case tuple() if hasattr(value, "_fields"):
            return [(f"{path}.{name}", getattr(value, name)) for name in value._fields]
        case list() | tuple() | deque() if type(value) in {list, tuple, deque}:
            return [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        case set() | frozenset() if type(value) in {set, frozenset}:
            return [(f"(an item of {path})", item) for item in value]
        case types.FunctionType():
            return list(_function_parts(value, path))
        case types.MethodType():
            return [(f"{path}.__self__", value.__self__), (f"{path}.__func__", value.__func__)]
        case functools.partial():
            inner = [(f"{path}.func", value.func), *_items(value.keywords, f"{path}.keywords")]
            return inner + [(f"{path}.args[{i}]", item) for i, item in enumerate(value.args)]
        case type():
            items = vars(value).items()
            return [(f"{path}.{name}", each) for name, each in items if type(each) not in _SLOTS]
        case _:
            return _reduced_parts(value, path)


def _items(value: Mapping[Any, Any], path: str) -> _Children:
    keys = [(f"(the key {_cut_repr(key)} of {path})", key) for key in value]
    return keys + [(f"{path}[{_cut_repr(key)}]", item) for key, item in value.items()]


def _function_parts(fn: types.FunctionType, path: str) -> Iterator[tuple[str, object]]:
    named = inspect.getclosurevars(fn)
    for name, item in named.nonlocals.items():
        yield f"(closure variable {name!r} of {path})", item
    for name, item in named.globals.items():
        if not isinstance(item, types.ModuleType) and item is not fn:
            yield f"(global {name!r} used by {path})", item
    for item in fn.__defaults__ or ():
        yield f"(a default of {path})", item
    for name, item in (fn.__kwdefaults__ or {}).items():
        yield f"(default of {name!r} of {path})", item
    for name, item in vars(fn).items():
        yield f"{path}.{name}", item


def _reduced_parts(value: Any, path: str) -> _Children:
    """The parts that pickle takes of an object: its state first, then how it is rebuilt."""
    try:
        by_hand = copyreg.dispatch_table.get(type(value))
        reduced = by_hand(value) if by_hand else value.__reduce_ex__(5)
    except Exception:  # noqa: BLE001 - user code; then the object itself is the culprit
        return []
    if not isinstance(reduced, tuple) or len(reduced) < 2:
        return []
    _, args, state, items, pairs = (*reduced, None, None, None)[:5]
    parts = _state_parts(state, path)
    if items is not None:
        parts += [(f"{path}[{index}]", item) for index, item in enumerate(items)]
    if pairs is not None:
        parts += _items(dict(pairs), path)
    if isinstance(args, tuple):
        parts += [(_argument_path(arg, path), arg) for arg in args]
    return parts


def _argument_path(arg: object, path: str) -> str:
    if isinstance(arg, type):
        return f"(class {arg.__qualname__} of {path})"
    return f"(what {path} is rebuilt from)"


def _state_parts(state: object, path: str) -> _Children:
    if isinstance(state, tuple) and len(state) == 2:
        return _state_parts(state[0], path) + _state_parts(state[1], path)
    if isinstance(state, dict):
        return [(f"{path}.{name}", item) for name, item in state.items()]
    return [] if state is None else [(f"(the state of {path})", state)]


def _is_too_deep(exc: BaseException) -> bool:
    return isinstance(exc, RecursionError) or isinstance(exc.__cause__, RecursionError)


def name_kind(value: object) -> str:
    """``value`` named for a sentence: "a generator", "the class Foo"."""
    kind = type(value)
    if isinstance(value, types.FunctionType | type):
        noun = "function" if isinstance(value, types.FunctionType) else "class"
        return f"the {noun} {value.__qualname__}"
    name = kind.__qualname__
    if kind.__module__ not in {"builtins", "__main__"}:
        name = f"{kind.__module__}.{name}"
    article = "an" if name.lstrip("_")[:1].lower() in set("aeiou") else "a"
    return f"{article} {name}"


def _because(exc: BaseException) -> str:
    text = _cut(exc)
    # Pickle's stock sentence repeats the type that was just named.
    if text.startswith("cannot pickle ") and text.endswith(" object"):
        return ", which cannot be pickled"
    return f", which cannot be pickled ({text})"


def _hint(value: object) -> str:
    for module, name, advice in _HINTS:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(value, kind):
            return advice
    return _HINT_OTHER


def _strip(path: str) -> str:
    return path[1:-1] if path.startswith("(") and path.endswith(")") else path


def text_of(exc: BaseException) -> str:
    """``str(exc)``, whatever it does."""
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - user code
        return "(its text cannot be read)"


def _cut(exc: BaseException) -> str:
    text = text_of(exc)
    return shorten(f"{type(exc).__name__}: {text}" if type(exc) is not TypeError else text)


def _cut_repr(key: object) -> str:
    try:
        return shorten(repr(key))
    except Exception:  # noqa: BLE001 - user code
        return f"<{type(key).__name__}>"


def too_large(nbytes: int, limit: int) -> str:
    """Why a result cannot be sent, and what to do."""
    return (
        f"the result has {nbytes} bytes, limits.value_bytes allows {limit}: write it to a file and"
        " return the path"
    )


def shorten(text: str) -> str:
    """``text`` as long as a sentence can bear."""
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
