"""Options that several commands share are fields of a dataclass, which is one parameter of each command."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter
from typing import Any, get_type_hints


def ungrouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command as typer knows it: each field of a dataclass that it takes is an option, in the place of the dataclass.

    Args:
        command: takes keywords alone.
    """
    own = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation for name, one in own.parameters.items() if is_dataclass(one.annotation)
    }

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    flat: list[Parameter] = []
    for name, parameter in own.parameters.items():
        flat += _options(groups[name]) if name in groups else [parameter]
    run.__signature__ = own.replace(parameters=flat)  # type: ignore[attr-defined]
    return run


def _options(group: Any) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]
