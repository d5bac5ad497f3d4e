"""Methods of attribution other than SRD, on the same engine: what others use, to compare with; and controls.

Each is a function that gives a `Method`; its keyword parameters are the method's own, with the usual values.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

from srd_onnx.errors import OptionError
from srd_onnx.methods.activation_maps import gradcam, gradcam_plus_plus, hirescam, layercam, xgradcam
from srd_onnx.methods.attention import attention_rollout
from srd_onnx.methods.black_box import occlusion, rise
from srd_onnx.methods.controls import centre, random, sobel
from srd_onnx.methods.gradients import gradient_times_input, saliency
from srd_onnx.methods.method import SRD, Attribute, Attributed, Method
from srd_onnx.methods.perturbed_maps import ablationcam, reciprocam, scorecam
from srd_onnx.subject import Settings

__all__ = ["METHODS", "SRD", "Attribute", "Attributed", "Method", "method_named", "peer_settings"]

METHODS: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {
        make().name: make
        for make in (
            saliency,
            gradient_times_input,
            gradcam,
            gradcam_plus_plus,
            xgradcam,
            layercam,
            hirescam,
            scorecam,
            ablationcam,
            reciprocam,
            attention_rollout,
            occlusion,
            rise,
            random,
            sobel,
            centre,
        )
    }
)


def peer_settings(method: Method, settings: Settings) -> Settings:
    """What `Subject` takes for a method other than SRD: the logit is explained unless something else is asked for.

    Raises:
        OptionError: an option of SRD was given that means nothing here.
    """
    given = [name for name in ("preset", "sign", "bias") if settings.get(name) is not None]
    if given:
        raise OptionError(
            f"{' and '.join(given)}: an option of SRD, which the method '{method.name}' does not have"
        )
    return {**settings, "preset": "paper"}


def method_named(text: str) -> Method | None:
    """A method by its name, or with parameters as `rise:masks=4000,seed=1`; None for "srd".

    Raises:
        OptionError: there is no such method or parameter, or a value means nothing.
    """
    name, _, rest = text.partition(":")
    if name == SRD and not rest:
        return None
    if name not in METHODS:
        close = difflib.get_close_matches(name, [SRD, *METHODS], n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise OptionError(f"there is no method '{name}'{hint} There is: {', '.join([SRD, *METHODS])}")
    make = METHODS[name]
    known = inspect.signature(make).parameters
    given = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no parameters"
            raise OptionError(f"method '{name}' has no parameter '{key}'; it {takes}")
        kind = type(known[key].default)
        try:
            given[key] = kind(value)
        except ValueError as error:
            raise OptionError(f"method '{name}': {key}={value!r} is not {kind.__name__}") from error
    return make(**given)
