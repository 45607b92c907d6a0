"""Type parameters, aliases and forward references by value: the parts that annotations have.

Since Python 3.12 bounds, constraints, defaults and aliases are evaluated when they are first read,
since 3.14 all annotations are. A script names things in them that exist for type checkers only: an
expression that raises at home raises the same in a job, and the function that has it can be sent.

Both sides are here; the names that begin with ``make`` and ``set`` are part of what travels.
"""

from __future__ import annotations

import builtins
import sys
import types
import typing
from typing import Any, NamedTuple

from gmpd.codec import interrupts

#: Since Python 3.14 a reference holds the globals in which it is looked up.
FORWARD_REF: Any = typing.ForwardRef if sys.version_info >= (3, 14) else None
OF_PARAM_SPEC: frozenset[Any] = frozenset({typing.ParamSpecArgs, typing.ParamSpecKwargs})
#: All classes of which there is something to reduce here.
KINDS: frozenset[Any] = OF_PARAM_SPEC | {
    typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple, FORWARD_REF,
}  # fmt: skip
#: The cell that holds all that a class has, for annotations that look up names of their class.
CLASS_NAMES = "__classdict__"
#: Attributes of a reference that the other side makes itself.
_NOT_OF_REFS = frozenset({"__weakref__", "__globals__", "__code__", "__ast_node__", "__cell__"})


class Lazy:
    """The result of reading an attribute: a value, or the error that it raises."""

    __slots__ = ("error", "value")

    def __init__(self, thing: Any, name: str) -> None:
        self.value: Any = None
        self.error: tuple[str, str] | None = None
        try:
            self.value = getattr(thing, name)
        except Exception as error:  # noqa: BLE001 - whatever the user's expression raises
            interrupts.pass_on(error)
            self.error = type(error).__name__, str(error)

    def is_given(self) -> bool:
        """Whether the attribute was given at all."""
        no_default = getattr(typing, "NoDefault", None)  # since Python 3.13
        return self.error is not None or self.value not in (None, (), no_default)

    def __call__(self) -> Any:
        if self.error is None:
            return self.value
        kind = getattr(builtins, self.error[0], NameError)
        raise kind(self.error[1])


# -- type parameters -------------------------------------------------------------------------------


class Declared(NamedTuple):
    """A type parameter as it stands in brackets. By ``tracker`` it is found where it is known."""

    tracker: str
    stars: str
    name: str
    bound: bool
    choices: int
    default: bool

    def text(self, lazy: str) -> str:
        """Its declaration, which evaluates nothing before ``lazy`` is read."""
        text = self.stars + self.name
        if self.bound:
            text += f": {lazy}['bound']()"
        elif self.choices:
            each = [f"{lazy}['constraints']()[{n}]" for n in range(self.choices)]
            text += f": ({', '.join(each)})"
        return f"{text} = {lazy}['default']()" if self.default else text


def _given(parameter: Any) -> dict[str, Lazy]:
    """Bound, constraints and default, as far as they were given."""
    has = dir(parameter)
    names = [name for name in ("bound", "constraints", "default") if f"__{name}__" in has]
    read = {name: Lazy(parameter, f"__{name}__") for name in names}
    return {name: lazy for name, lazy in read.items() if lazy.is_given()}


def _declared(parameter: Any, tracker: str, given: dict[str, Lazy]) -> Declared:
    stars = {typing.TypeVarTuple: "*", typing.ParamSpec: "**"}.get(type(parameter), "")
    choices = len(given["constraints"].value or "..") if "constraints" in given else 0
    name = parameter.__name__
    return Declared(tracker, stars, name, "bound" in given, choices, "default" in given)


def reduce_parameter(parameter: Any, tracker: str) -> Any:
    """A type variable, or a parameter for parameters or for several types."""
    given = _given(parameter)
    if sys.version_info >= (3, 12) and getattr(parameter, "__infer_variance__", True):
        args = tuple(_declared(parameter, tracker, given))
        return make_parameter, args, given, None, None, set_parameter
    options = {
        option: True
        for option in ("covariant", "contravariant")
        if getattr(parameter, f"__{option}__", False)
    }
    name = parameter.__name__, parameter.__module__
    return make_old_parameter, (tracker, type(parameter), *name, options, given)


def make_parameter(*declared: Any) -> Any:
    """As the brackets of a function, class or alias make one."""
    one = Declared(*declared)
    space: dict[str, Any] = {"lazy": {}}
    exec(f"def made[{one.text('lazy')}](): ...", space)  # noqa: S102 - only this makes a lazy one
    (made,) = space["made"].__type_params__
    return _waiting_for(one.tracker, made, space["lazy"])


def _waiting_for(tracker: str, made: Any, lazy: dict[str, Lazy]) -> Any:
    found = tracked(tracker, made)
    if found is made:
        _lazy[id(made)] = lazy
    return found


def set_parameter(parameter: Any, given: dict[str, Lazy]) -> None:
    """Bound, constraints and default of a new parameter; one that was known here has its own."""
    waiting = _lazy.pop(id(parameter), None)
    if waiting is not None:
        waiting.update(given)


#: Of parameters in the making.
_lazy: dict[int, dict[str, Lazy]] = {}


def make_old_parameter(
    tracker: str,
    kind: Any,
    name: str,
    module: str,
    options: dict[str, bool],
    given: dict[str, Lazy],
) -> Any:
    """As a call of ``typing.TypeVar`` and its kin makes one."""
    values = {key: lazy() for key, lazy in given.items()}
    made = kind(name, *values.pop("constraints", ()), **options, **values)
    made.__module__ = module
    return tracked(tracker, made)


def tracked(tracker: str, made: Any) -> Any:
    """The one that this process knows already, or ``made``."""
    from cloudpickle import cloudpickle

    return cloudpickle._lookup_class_or_track(tracker, made)


# -- references ------------------------------------------------------------------------------------


def reduce_forward_ref(ref: Any) -> Any:
    """A reference stands for a name that had no value yet when a dataclass, named tuple or typed
    dictionary was made. Its globals are sent as those of a function that reads the name."""
    state = {name: getattr(ref, name, None) for name in ref.__slots__ if name not in _NOT_OF_REFS}
    state["__arg__"] = ref.__forward_arg__
    cells = ref.__cell__
    if type(cells) is dict:  # the one that is left out holds what the owner has, a class
        cells = {name: cell for name, cell in cells.items() if name != CLASS_NAMES}
    state["__cell__"] = cells
    reader = None
    if ref.__globals__ is not None:
        try:
            code = compile(ref.__forward_arg__, "<annotation>", "eval")
        except SyntaxError:  # as in ``*Ts``
            code = compile("None", "<annotation>", "eval")
        reader = types.FunctionType(code, ref.__globals__)
    return make_forward_ref, (), (state, reader), None, None, set_forward_ref


def make_forward_ref() -> Any:
    """A ``typing.ForwardRef`` of Python 3.14 or later, which refers to nothing yet."""
    return FORWARD_REF.__new__(FORWARD_REF)


def set_forward_ref(ref: Any, whole: Any) -> None:
    """The name, and the globals that it is looked up in: those of ``reader``."""
    state, reader = whole
    for name in ("__code__", "__ast_node__"):
        setattr(ref, name, None)
    for name, value in state.items():
        setattr(ref, name, value)
    ref.__globals__ = None if reader is None else reader.__globals__


# -- aliases ---------------------------------------------------------------------------------------


def reduce_alias(alias: Any, trackers: tuple[str, ...]) -> Any:
    """The alias of a ``type`` statement, with its parameters."""
    parameters = alias.__type_params__
    declared = tuple(
        tuple(_declared(each, tracker, _given(each)))
        for each, tracker in zip(parameters, trackers, strict=True)
    )
    args = alias.__name__, alias.__module__, declared
    return make_alias, args, (Lazy(alias, "__value__"), parameters), None, None, set_alias


def make_alias(name: str, module: str, declared: tuple[tuple[Any, ...], ...]) -> Any:
    """An alias that evaluates nothing yet; it may refer to itself, so its value comes later."""
    lazies: list[dict[str, Lazy]] = [{} for _ in declared]
    space: dict[str, Any] = {"__name__": module, "value": [], "lazies": lazies}
    parameters = [Declared(*each) for each in declared]
    texts = ", ".join(each.text(f"lazies[{n}]") for n, each in enumerate(parameters))
    brackets = f"[{texts}]" if texts else ""
    exec(f"type {name}{brackets} = value[0]()", space)  # noqa: S102 - only this makes one that is lazy
    alias = space[name]
    for each, made, lazy in zip(parameters, alias.__type_params__, lazies, strict=True):
        _waiting_for(each.tracker, made, lazy)
    _values[id(alias)] = space["value"]
    return alias


def set_alias(alias: Any, state: Any) -> None:
    """The value of the alias. Its parameters are complete by having been unpickled."""
    value, _parameters = state
    _values.pop(id(alias)).append(value)


#: Of aliases in the making.
_values: dict[int, list[Lazy]] = {}
