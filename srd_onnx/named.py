"""Things made by name from a table of functions: `occlusion:patch=16,stride=8`."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from srd_onnx.errors import OptionError

T = TypeVar("T")


def made_by_name(
    text: str, makers: Mapping[str, Callable[..., T]], what: str, others: Sequence[str] = ()
) -> T:
    """What the function of this name gives, with the parameters behind the colon; the rest as by default.

    Args:
        text: `NAME` or `NAME:PARAMETER=VALUE,...`; a value is read as the type of the parameter's default.
        makers: functions whose parameters all have a default, by name.
        what: the word for what they make, for messages.
        others: names that exist besides, for messages.

    Raises:
        OptionError: there is no such name or parameter, or a value means nothing.
    """
    name, _, rest = text.partition(":")
    if name not in makers:
        there = [*others, *makers]
        close = difflib.get_close_matches(name, there, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
        raise OptionError(f"there is no {what} '{name}'{hint} There is: {', '.join(there)}")
    make = makers[name]
    known = inspect.signature(make).parameters
    given = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no parameters"
            raise OptionError(f"{what} '{name}' has no parameter '{key}'; it {takes}")
        given[key] = _read(value, type(known[key].default), f"{what} '{name}': {key}")
    return make(**given)


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """The value.

    Raises:
        OptionError: it is none of those allowed.
    """
    if value not in allowed:
        raise OptionError(f"{name}='{value}' is not one of {', '.join(allowed)}")
    return value


def _read(value: str, kind: type, where: str) -> Any:
    if kind is bool:
        if value not in ("true", "false"):
            raise OptionError(f"{where}={value!r} is neither true nor false")
        return value == "true"
    try:
        return kind(value)
    except ValueError as error:
        raise OptionError(f"{where}={value!r} is not {kind.__name__}") from error
