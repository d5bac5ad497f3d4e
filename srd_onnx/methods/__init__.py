"""Methods of attribution other than SRD, on the same engine: what others use, to compare with; and controls.

Each is a function that gives a `Method`; its keyword parameters are the method's own, with the usual values.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from srd_onnx.errors import OptionError
from srd_onnx.methods.activation_maps import gradcam, gradcam_plus_plus, hirescam, layercam, xgradcam
from srd_onnx.methods.attention import attention_rollout
from srd_onnx.methods.averaged import integrated_gradients, smoothgrad
from srd_onnx.methods.black_box import occlusion, rise
from srd_onnx.methods.controls import centre, random, sobel
from srd_onnx.methods.fullgrad import fullgrad
from srd_onnx.methods.gradients import gradient_times_input, saliency
from srd_onnx.methods.guided import guided_backprop
from srd_onnx.methods.lrp import lrp_composite, lrp_epsilon, lrp_epsilon_plus, lrp_gamma, lrp_zplus
from srd_onnx.methods.method import LAYERED, SRD, Attribute, Attributed, Method
from srd_onnx.methods.perturbed_maps import ablationcam, reciprocam, scorecam
from srd_onnx.named import made_by_name
from srd_onnx.subject import Settings

__all__ = [
    "LAYERED",
    "METHODS",
    "SRD",
    "Attribute",
    "Attributed",
    "Method",
    "method_named",
    "peer_settings",
    "require_its_own",
]

METHODS: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {
        make().name: make
        for make in (
            saliency,
            gradient_times_input,
            integrated_gradients,
            smoothgrad,
            guided_backprop,
            fullgrad,
            lrp_epsilon,
            lrp_zplus,
            lrp_gamma,
            lrp_epsilon_plus,
            lrp_composite,
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
        OptionError: an option was given that means nothing here.
    """
    require_its_own(method, settings)
    return {**settings, "preset": "paper"}


def require_its_own(method: Method, settings: Mapping[str, object]) -> None:
    """Refuse options that are given and mean nothing to a method other than SRD.

    Raises:
        OptionError: there is one.
    """
    own = ("preset", "sign", "bias", "focus", "smooth", "max_memory")
    given = [name for name in own if settings.get(name) is not None]
    if given:
        raise OptionError(
            f"{' and '.join(given)}: an option of SRD, which the method '{method.name}' does not have"
        )
    if settings.get("boundary") is not None and method.family != LAYERED:
        raise OptionError(
            f"boundary: of SRD and of activation maps, which are made at a layer; the method '{method.name}' has none"
        )


def method_named(text: str) -> Method | None:
    """A method by its name, or with parameters as `rise:masks=4000,seed=1`; None for "srd".

    Raises:
        OptionError: there is no such method or parameter, or a value means nothing.
    """
    return None if text == SRD else made_by_name(text, METHODS, "method", [SRD])
