"""Functions as references: by name where the other side finds the same thing, else by value.

``describe_function`` and ``resolve_function`` are each other's counterpart. Whether a name may be
resolved at all (allow-lists for remote clients) is decided elsewhere.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import pkgutil
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from gmpd.codec import (
    diagnose,
    drafts,
    finding,
    hosted_programs,
    interrupts,
    origins,
    pickles,
    program_names,
    sent_program,
    stability,
)
from gmpd.codec.codes import names_in
from gmpd.codec.stability import Watch, find
from gmpd.errors import NotRegistered, ProtocolError, Unserializable

_Fn = Callable[..., Any]

#: Functions by value that a worker keeps unpickled, and the largest that it keeps (bytes).
_KEPT_MAX = 128
_KEPT_BYTES_MAX = 256 * 1024


class FunctionRef(NamedTuple):
    """A function on its way.

    ``kind`` is "name", "main" or "pickle"; ``name`` is "module:qualname" in all (for people, when
    it is a pickle). A "name" is found by an import: ``payload`` says where (``origins``).
    A "main" is found among what the parts of its program define: ``payload`` is the number of the
    part. ``needs``: the parts of a program that the function or its arguments need first. In a
    worker, "registered" is a name that none of its modules has declared.
    """

    kind: str
    name: str
    payload: bytes = b""
    needs: tuple[Any, ...] = ()

    def needing(self, needs: pickles.Needs) -> FunctionRef:
        """With the parts that its arguments need, too."""
        return _needing(self, needs) if needs else self


@functools.lru_cache(maxsize=128)
def _needing(ref: FunctionRef, needs: pickles.Needs) -> FunctionRef:
    if set(needs) <= set(ref.needs):
        return ref
    both = {*ref.needs, *needs}
    return ref._replace(needs=tuple(sorted(both, key=lambda part: part.number)))


class _Known(NamedTuple):
    fn: weakref.ref[Any]
    ref: FunctionRef
    module: str
    qualname: str
    watch: Watch | None
    #: Of what a program defines: its names, and what may be exchanged in the function.
    names: sent_program.Watch | None = None
    state: tuple[Any, ...] | None = None


class _Kept(NamedTuple):
    fn: _Fn
    watch: Watch


#: By id, with a weak reference beside it: the entry goes when the function goes. Of this process:
#: a fork is another program, with parts of its own.
_known: dict[int, _Known] = {}
#: Modules that were found to be imported from their first line to their last.
_whole: dict[str, types.ModuleType] = {}
os.register_at_fork(after_in_child=_known.clear)
_kept: dict[bytes, _Kept] = {}


def describe_function(fn: _Fn) -> FunctionRef:
    """How to name or send ``fn``; a FunctionRef (of a caller that has only a name) is itself.

    Raises Unserializable when it is no callable, or cannot be sent (with the path inside).
    """
    known = _known.get(id(fn))
    if known is not None and known[0]() is fn:
        _, ref, name, qualname, watch, names, state = known
        if names is not None:
            same = state is None or program_names.state_of(fn) == state
            if same and sent_program.still_holds(names) and (names or not _is_back(known, fn)):
                return ref
        elif watch is None:
            module = sys.modules.get(name)
            if module is not None and module.__dict__.get(qualname) is fn:
                return ref
        elif stability.still_holds(watch) and not _is_back(known, fn):
            return ref
    return _describe(fn)


def resolve_function(ref: FunctionRef) -> _Fn:
    """The function that ``ref`` stands for.

    A function by value is rebuilt for each call, unless it has no state of its own that one call
    could leave behind for the next. Raises NotRegistered naming module and attribute, or what the
    import raised; ProtocolError for a reference that ``describe_function`` cannot have made.
    """
    kind, name, payload, needs = ref
    if needs:
        if isinstance(needs[0], drafts.Part):
            ref = ref._replace(needs=())  # the program itself, which has them
        else:
            _enter(ref)
    if kind == "name":
        module_name, qualname = _cut(name)
        module = sys.modules.get(module_name)
        if payload:
            origins.compare(payload, before=module is None)
        if module is not None and (_whole.get(module_name) is module or _is_whole(module_name)):
            fn = module.__dict__.get(qualname)
            if callable(fn):
                return fn  # type: ignore[no-any-return]
        fn = _import_function(name, module_name, qualname)
        if payload:
            origins.compare(payload, before=False)
        return fn
    if ref.kind == "pickle":
        return _load_function(ref)
    if ref.kind == "main":
        return _defined_function(ref)
    raise _not_resolved(ref)


@functools.lru_cache(1024)
def _cut(name: str) -> tuple[str, str]:
    """The parts of a reference by name. The texts are kept, and with them their hashes: two new
    ones for each job take longer to look up than to make."""
    module_name, _, qualname = name.partition(":")
    return sys.intern(module_name), sys.intern(qualname)


def _not_resolved(ref: FunctionRef) -> Exception:
    if ref.kind == "registered":
        return NotRegistered(
            f"no function {ref.name} is registered here: @gmpd.job marks those that other machines"
            " may call, in the modules that the daemon imports"
        )
    return ProtocolError(
        f"a function reference of kind {ref.kind!r}; known are 'name', 'main' and 'pickle'"
    )


def _describe(fn: _Fn | FunctionRef) -> FunctionRef:
    if isinstance(fn, FunctionRef):
        return fn
    if not callable(fn):
        raise Unserializable(_not_callable(fn))
    module, qualname = _address(fn)
    name = f"{module}:{qualname}"
    if (hosted := _hosted_program_of(fn)) is not None:
        return _describe_hosted(fn, hosted, name)
    if (ref := _describe_named(fn)) is not None:
        return ref
    if module != "__main__" and _is_same(find(module, qualname), fn) and _by_reference(module):
        ref = FunctionRef("name", name, origins.said_of(module))
        _remember(fn, ref, module, qualname, None)
        return ref
    return _describe_value(fn, module, qualname)


def _describe_value(fn: _Fn, module: str, qualname: str) -> FunctionRef:
    # Before it is pickled: what is exchanged meanwhile is found to be another.
    state = program_names.state_of(fn) if isinstance(fn, types.FunctionType) else None
    shared = isinstance(fn, types.FunctionType) and program_names.module_of(fn) is not None
    watch = None if shared else stability.watch(fn)
    try:
        payload, needs, names = pickles.dump_function(fn)
    except Exception as exc:
        interrupts.pass_on(exc)
        raise _unsendable(fn, qualname, exc) from exc
    ref = FunctionRef("pickle", f"{module}:{qualname}", payload, needs)
    uses = any(not part.only_compares for part in needs)
    if isinstance(fn, types.FunctionType) and (
        shared or (hosted_programs.imported_as(fn) and not uses)
    ):
        # Its globals are where it goes, or are watched by name.
        if stability.is_steady(fn):
            _remember(fn, ref, module, qualname, None, names, state)
        return ref
    if watch is not None and not uses:
        _remember(fn, ref, module, qualname, watch)
    return ref


def _describe_named(fn: Any) -> FunctionRef | None:
    """The names that the script, or another module that goes by value, defines itself."""
    found = program_names.named(fn)
    if found is None:
        return None
    module, qualname = found
    key = module, qualname.partition(".")[0]
    state = program_names.state_of(fn) if type(fn) is types.FunctionType else None
    try:
        required = sent_program.THIS_PROGRAM.require([key])
    except drafts.Undefinable as exc:
        raise _unsendable(fn, qualname, exc) from exc
    number = str(required.defining_part(key)).encode()
    ref = FunctionRef("main", f"{module}:{qualname}", number, required.needs)
    _remember(fn, ref, module, qualname, None, required.watch(), state)
    return ref


def _hosted_program_of(fn: Any) -> hosted_programs.HostedProgram | None:
    """The program that defined ``fn``, in a worker."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = getattr(fn, "__func__", getattr(fn, "__wrapped__", fn))
    space = getattr(fn, "__globals__", None)
    if space is not None:
        return hosted_programs.owner_of(space)
    return (
        hosted_programs.current()
        if getattr(fn, "__module__", None) == hosted_programs.MAIN
        else None
    )


def _describe_hosted(fn: Any, hosted: hosted_programs.HostedProgram, name: str) -> FunctionRef:
    """A function of a program whose job runs here, for another worker or another daemon."""
    found = hosted_programs.HostedNames(hosted).refer(fn)
    if found is not None:
        number = hosted.defined_by(found[0], found[1].partition(".")[0])
        if number is not None:
            needs = tuple(hosted.parts.values())
            return FunctionRef("main", ":".join(found), str(number).encode(), needs)
    try:
        with hosted_programs.entering(hosted):
            payload, needs, _ = pickles.dump_function(fn)
    except Exception as exc:
        interrupts.pass_on(exc)
        raise _unsendable(fn, name.partition(":")[2], exc) from exc
    return FunctionRef("pickle", name, payload, needs)


def _unsendable(fn: Any, qualname: str, exc: Exception) -> Unserializable:
    if isinstance(exc, drafts.Undefinable):
        text = diagnose.explain_global(fn, exc.name, exc.value, exc.user, exc)
    else:
        text = diagnose.explain(fn, qualname, exc)
    return Unserializable(f"the function {qualname}() cannot be sent: {text}")


def _is_back(known: _Known, fn: _Fn) -> bool:
    """Whether a function that went by value has (again) a name that finds it."""
    return known.module != "__main__" and find(known.module, known.qualname) is fn


def _remember(
    fn: _Fn,
    ref: FunctionRef,
    module: str,
    qualname: str,
    watch: Watch | None,
    names: sent_program.Watch | None = None,
    state: tuple[Any, ...] | None = None,
) -> None:
    if isinstance(fn, types.MethodType):
        return  # made anew by each access
    key = id(fn)

    # At the interpreter's exit this is called when the module's names are None already.
    def forget(gone: weakref.ref[Any], remembered: dict[int, _Known] = _known) -> None:
        known = remembered.get(key)
        if known is not None and known.fn is gone:
            del remembered[key]

    try:
        _known[key] = _Known(weakref.ref(fn, forget), ref, module, qualname, watch, names, state)
    except TypeError:  # it takes no weak references
        return


def _is_same(found: object, fn: _Fn) -> bool:
    """Identity; a class method is made anew by each access, so equality on the same class."""
    if found is fn:
        return True
    owner = getattr(fn, "__self__", None)
    return (
        isinstance(owner, type)
        and isinstance(found, types.MethodType | types.BuiltinMethodType)
        and found.__self__ is owner
        and found == fn
    )


def _by_reference(module: str) -> bool:
    """Whether workers may import this module, and the user did not ask cloudpickle to send its
    contents by value."""
    if not hosted_programs.is_host() and finding.is_unimportable(module):
        return False
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is None:
        return True
    by_value = cloudpickle.list_registry_pickle_by_value()
    parts = module.split(".")
    return not any(".".join(parts[: n + 1]) in by_value for n in range(len(parts)))


def _address(fn: Any) -> tuple[str, str]:
    if isinstance(fn, functools.partial):
        return _address(fn.func)
    owner = getattr(fn, "__objclass__", None) or getattr(fn, "__self__", None)
    qualname = getattr(fn, "__qualname__", None)
    if not isinstance(qualname, str):
        fn = owner = type(fn)
        qualname = fn.__qualname__
    module = getattr(fn, "__module__", None)
    if not isinstance(module, str):
        kind = owner if isinstance(owner, type) else type(owner)
        module = kind.__module__
    return module, qualname


def _not_callable(fn: object) -> str:
    if inspect.iscoroutine(fn):
        fn.close()
        return (
            f"a function is needed, not the coroutine {fn.__qualname__}(): pass the async function "
            "and its arguments, submit(fetch, url) instead of submit(fetch(url))"
        )
    return (
        f"a function is needed, not {diagnose.name_kind(fn)}: pass the function and its arguments, "
        "submit(f, x) instead of submit(f(x))"
    )


def _import_function(name: str, module_name: str, qualname: str) -> _Fn:
    # With a null byte, importlib finds a second copy of a frozen module.
    if not module_name or not qualname or module_name[0] == "." or "\0" in name:
        raise NotRegistered(f"{name!r} names no function: write it as module:function")
    if module_name == "__main__":
        raise NotRegistered(
            f"{name} cannot be found by name, because every process has its own __main__: "
            "move it into a module"
        )
    try:
        module = _import_whole(module_name)
    except (Exception, SystemExit) as exc:
        raise NotRegistered(_import_failed(name, module_name, exc)) from exc
    fn = find(module_name, qualname)
    if callable(fn):
        return fn  # type: ignore[no-any-return]
    raise NotRegistered(_no_such_attribute(name, module, qualname, fn))


def _is_whole(module_name: str) -> bool:
    if whole := finding.is_imported(module_name):
        _whole[module_name] = sys.modules[module_name]
    return whole


def _import_whole(module_name: str) -> types.ModuleType:
    """Import a module, its packages first.

    Another thread may be importing one of them: it is waited for here. ``import_module`` would hold
    the lock of the module meanwhile, and where the package imports it, one of the two threads gets
    a module without its last names.
    """
    parts = module_name.split(".")
    for at in range(1, len(parts)):
        package = ".".join(parts[:at])
        if module_name not in sys.modules or package in sys.modules:
            importlib.import_module(package)
    return importlib.import_module(module_name)


def _import_failed(name: str, module_name: str, exc: BaseException) -> str:
    if isinstance(exc, ModuleNotFoundError) and exc.name and _is_within(exc.name, module_name):
        hint = _did_you_mean(exc.name, _modules_beside(exc.name))
        mend = hint or "; install it there, or start the daemon where it can be imported"
        return f"no function {name}: there is no module {exc.name!r} where the job was to run{mend}"
    if isinstance(exc, SystemExit):
        return f"no function {name}: importing {module_name!r} called sys.exit({exc.code!r})"
    return (
        f"no function {name}: importing {module_name!r} raised {type(exc).__name__}: "
        f"{diagnose.text_of(exc)}"
    )


def _is_within(missing: str, module_name: str) -> bool:
    return module_name == missing or module_name.startswith(missing + ".")


def _no_such_attribute(name: str, module: types.ModuleType, qualname: str, found: object) -> str:
    if found is not None:
        return f"{name} is not callable: it is {diagnose.name_kind(found)}"
    head, _, last = qualname.rpartition(".")
    owner: Any = find(module.__name__, head) if head else module
    if not isinstance(owner, type | types.ModuleType):
        return f"no function {name}: {module.__name__!r} has no class {head!r}"
    if getattr(owner, last, owner) is None:
        return f"{name} is not callable: it is None"
    candidates = [key for key, item in vars(owner).items() if callable(item)]
    return (
        f"no function {name}: {owner.__name__!r} has no {last!r}{_did_you_mean(last, candidates)}"
    )


def _modules_beside(missing: str) -> list[str]:
    parent, dot, _ = missing.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", ()) if parent else None
    return [parent + dot + info.name for info in pkgutil.iter_modules(path)]


def _did_you_mean(word: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(word, candidates, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _enter(ref: FunctionRef) -> None:
    """Load the parts that the function and its arguments need, and enter its program's context."""
    try:
        hosted_programs.enter_job(ref.needs)
    except NotRegistered as exc:
        raise NotRegistered(f"no function {ref.name}: {exc}") from exc
    except (Exception, SystemExit) as exc:
        interrupts.pass_on(exc)
        raise NotRegistered(
            f"the function {ref.name} cannot be rebuilt: {pickles.cannot_rebuild(exc)}"
        ) from exc
    hosted = hosted_programs.program_of(ref.needs)
    if hosted.failing and ref.kind == "main":
        module, _, qualname = ref.name.partition(":")
        _refuse_failed(ref, hosted, {(module, qualname.partition(".")[0])})


def _refuse_failed(ref: FunctionRef, hosted: Any, keys: set[tuple[str, str]]) -> None:
    """Raises NotRegistered if the function uses a name whose value cannot be rebuilt."""
    found = hosted.failure(keys)
    if found is None:
        return
    name, error = found
    if isinstance(error, NotRegistered):
        raise NotRegistered(f"no function {ref.name}: {error}") from error
    raise NotRegistered(
        f"the function {ref.name} cannot be rebuilt: {name}: {pickles.cannot_rebuild(error)}"
    ) from error


def _defined_function(ref: FunctionRef) -> _Fn:
    module, _, qualname = ref.name.partition(":")
    head, *rest = qualname.split(".")
    part = next((part for part in ref.needs if b"%d" % part.number == ref.payload), None)
    fn = None if part is None or part.objects is None else part.objects.get((module, head))
    for name in rest:
        fn = getattr(fn, name, None)
    if not callable(fn):
        raise ProtocolError(f"{ref.name} is not among the names that its program defines")
    return fn  # type: ignore[no-any-return]


def _load_function(ref: FunctionRef) -> _Fn:
    # Parts that only compare modules hold nothing.
    shared = any(part.objects or part.failed for part in ref.needs)
    own = ref.needs[0].hosted.made if shared else {}
    fn = own.get(ref.payload)
    if fn is not None:
        return fn  # type: ignore[no-any-return]
    kept = _kept.pop(ref.payload, None)
    if kept is not None and stability.still_holds(kept.watch):
        _kept[ref.payload] = kept
        return kept.fn
    try:
        fn = pickles.load(ref.payload)
    except Unserializable as exc:
        raise NotRegistered(f"the function {ref.name} cannot be rebuilt: {exc}") from exc
    if not callable(fn):
        raise NotRegistered(f"{ref.name} is not callable: it is {diagnose.name_kind(fn)}")
    if shared and (hosted := hosted_programs.program_of(ref.needs)).failing:
        _refuse_failed(ref, hosted, _globals_of(fn))
    if shared:
        if _is_plain_function(fn) and len(own) < _KEPT_MAX:
            fn = own.setdefault(ref.payload, fn)
        return fn  # type: ignore[no-any-return]
    watch = stability.watch(fn)
    if watch is not None and len(ref.payload) <= _KEPT_BYTES_MAX:
        _kept[bytes(ref.payload)] = _Kept(fn, watch)
        for oldest in list(_kept)[:-_KEPT_MAX]:  # another thread may be here too
            _kept.pop(oldest, None)
    return fn  # type: ignore[no-any-return]


def _is_plain_function(fn: Any) -> bool:
    """A function, also one that is called for each item of a chunk; not a method or an object,
    which are arguments as it were: each call has its own."""
    return type(_of_items(fn)) is types.FunctionType


def _of_items(fn: Any) -> Any:
    """The function that is called for each item of a chunk."""
    if isinstance(fn, functools.partial) and str(fn.func.__module__).startswith("gmpd."):
        return fn.args[0] if fn.args else fn.func
    return fn


def _globals_of(fn: Any) -> set[tuple[str, str]]:
    """The names of its program that a function uses, as far as its code tells."""
    fn = _of_items(fn)
    if type(fn) is types.MethodType:
        fn = fn.__func__
    if type(fn) is not types.FunctionType:
        return set()
    return {(fn.__globals__.get("__name__", ""), name) for name in names_in(fn.__code__)[0]}
