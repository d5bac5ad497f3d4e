"""The methods that take part in an evaluation, by names with parameters and options."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from srd_onnx.engine.options import Options
from srd_onnx.errors import OptionError
from srd_onnx.explainer import Explainer
from srd_onnx.files import to_json
from srd_onnx.methods import METHODS, SRD, Method, method_named

_OPTIONS = ("preset", *Options.__dataclass_fields__)
_BOUNDARY = "boundary="


@dataclass(frozen=True, eq=False)
class Contender:
    """A method that takes part.

    Attributes:
        name: as the user writes it; names its rows.
        method: None for SRD.
        options: where they differ from the explainer's: of SRD `preset` and fields of `Options`, of an activation map
            `boundary`, its layer.
        required: if it cannot explain this model, that is an error; else it is left out.
    """

    name: str
    method: Method | None
    options: Mapping[str, Any] = field(default_factory=dict)
    required: bool = True

    def explainer(self, base: Explainer) -> Explainer:
        """The model explained by this method.

        Raises:
            OptionError: an option means nothing.
        """
        if self.method is None and not self.options and base.method is None:
            return base
        return base.with_method(self.method, **self.options)

    def to_dict(self, base: Explainer) -> dict[str, Any]:
        """Everything that decides its maps, and where it is from, as plain data."""
        explainer = self.explainer(base)
        options = explainer.options.to_dict()
        if self.method is None:
            return {"name": SRD, "preset": explainer.preset, "options": options}
        return self.method.to_dict() | {"options": {key: options[key] for key in ("boundary", "seed")}}

    def identity(self, base: Explainer) -> str:
        """Everything that decides its maps, and nothing else."""
        about = self.to_dict(base)
        return to_json(
            {key: about[key] for key in ("name", "preset", "parameters", "options") if key in about}
        )


def contender_named(text: str, *, seed: int = 0, required: bool = True) -> Contender:
    """A contender by its name: `rise:masks=4000`, `layercam:boundary=relu5` or `srd:preset=paper,sign=positive`.

    Args:
        text: what `method_named` takes, with `boundary` for the layer of an activation map; or SRD with options.
        seed: what a method's own seed is, if it has one and the text does not say it.
        required: see `Contender`.

    Raises:
        OptionError: there is no such method, parameter or option.
    """
    name, _, rest = text.partition(":")
    if name == SRD:
        return Contender(text, None, dict(map(_option, filter(None, rest.split(",")))), required)
    parts = list(filter(None, rest.split(",")))
    given = [one for one in parts if not one.startswith(_BOUNDARY)]
    layers = [one.removeprefix(_BOUNDARY) for one in parts if one.startswith(_BOUNDARY)]
    takes_seed = name in METHODS and "seed" in inspect.signature(METHODS[name]).parameters
    if takes_seed and not any(part.startswith("seed=") for part in given):
        given.append(f"seed={seed}")
    method = method_named(f"{name}:{','.join(given)}")
    return Contender(text, method, {"boundary": layers[-1]} if layers else {}, required)


def _option(text: str) -> tuple[str, Any]:
    """`sign=positive`, as the option's own type."""
    key, equals, value = text.partition("=")
    if key not in _OPTIONS or not equals:
        raise OptionError(f"method '{SRD}' has no option '{key}'; it takes {', '.join(_OPTIONS)}")
    if key == "preset" or not isinstance(getattr(Options, key), float):
        return key, value
    try:
        return key, float(value)
    except ValueError as error:
        raise OptionError(f"method '{SRD}': {key}={value!r} is not a number") from error
