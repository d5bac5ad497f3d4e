"""The options of an explanation, and presets: named sets of them (DESIGN.md, section 2)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from srd_onnx.errors import OptionError

Seed = Literal["logit", "logprob", "contrast", "logodds"]
Sign = Literal["signed", "positive"]
Bias = Literal["distribute", "ledger"]
ENCODER = "encoder"
SCALES = "scales"
NO_FOCUS = "none"
_SMOOTHEST = 64  # pixels; more is no explanation of a position


@dataclass(frozen=True)
class Options:
    """How relevance starts, where sharing ratios take over, and where the bias goes.

    Attributes:
        boundary: "encoder" (the last tensor before the target on more than one position of which the target
            depends), or the name of a tensor: up to there the true cotangent, below it sharing ratios.
        seed: what is explained: the "logit" z_t; "logprob", the direction onehot(t) - softmax(z); "contrast",
            z_t minus the strongest other logit (ours); "logodds", z_t minus the mean of the other logits, weighted
            by the softmax over these: the direction of logprob, without its underflow where the model is sure (ours).
        sign: "signed", or "positive": only the positive part enters at the boundary, the rest is booked.
        bias: "distribute": spread equally over the in-bounds positions of the layer's receptive field; or
            "ledger": booked against the node.
        focus: "none"; or the boundaries of more passes, nearer to the input, that sharpen the map of the first
            (ours): "scales", one for each finer scale (see `srd_onnx.engine.boundary.scales`), or the name of a
            tensor. See `srd_onnx.engine.focus`.
        smooth: the standard deviation, in pixels, of the Gaussian that spreads the relevance of each position of a
            picture over its neighbours in the end (ours); 0 for none.
    """

    boundary: str = ENCODER
    seed: Seed = "logit"
    sign: Sign = "signed"
    bias: Bias = "distribute"
    focus: str = NO_FOCUS
    smooth: float = 0.0

    def __post_init__(self) -> None:
        for name, kind in (("seed", Seed), ("sign", Sign), ("bias", Bias)):
            given, allowed = getattr(self, name), get_args(kind)
            if given not in allowed:
                raise OptionError(f"{name}='{given}' is not one of {', '.join(allowed)}")
        if not 0 <= self.smooth <= _SMOOTHEST:
            raise OptionError(f"smooth={self.smooth} must be between 0 and {_SMOOTHEST} pixels")

    def to_dict(self) -> dict[str, str | float]:
        """As plain data for a report."""
        return asdict(self)


PRESETS: Mapping[str, Options] = MappingProxyType(
    {"paper": Options(), "joint": Options(seed="logodds", focus=SCALES, smooth=2.0)}
)
DEFAULT_PRESET = "joint"


def options_of(preset: str, **changes: Any) -> Options:
    """The preset's options with those that are not None replaced.

    Raises:
        OptionError: if there is no such preset or a value means nothing.
    """
    if preset not in PRESETS:
        raise OptionError(f"there is no preset '{preset}'; there is: {', '.join(PRESETS)}")
    given = {k: v for k, v in changes.items() if v is not None}
    # The focus of a preset belongs to its boundary: from another one a single pass goes, unless a focus is given, too.
    single = {"focus": NO_FOCUS} if "boundary" in given else {}
    return replace(PRESETS[preset], **single | given)
