"""The options of an explanation, and presets: named sets of them (DESIGN.md, section 2)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from srd_onnx.errors import OptionError

Seed = Literal["logit", "logprob", "contrast"]
Sign = Literal["signed", "positive"]
Bias = Literal["distribute", "ledger"]


@dataclass(frozen=True)
class Options:
    """How relevance starts, where sharing ratios take over, and where the bias goes.

    Attributes:
        boundary: "encoder" (the last tensor before the target on more than one position of which the target
            depends), or the name of a tensor: up to there the true cotangent, below it sharing ratios.
        seed: what is explained: the "logit" z_t; "logprob", the direction onehot(t) - softmax(z); "contrast",
            z_t minus the strongest other logit (ours).
        sign: "signed", or "positive": only the positive part enters at the boundary, the rest is booked.
        bias: "distribute": spread equally over the in-bounds positions of the layer's receptive field; or
            "ledger": booked against the node.
    """

    boundary: str = "encoder"
    seed: Seed = "logit"
    sign: Sign = "signed"
    bias: Bias = "distribute"

    def __post_init__(self) -> None:
        for name, kind in (("seed", Seed), ("sign", Sign), ("bias", Bias)):
            given, allowed = getattr(self, name), get_args(kind)
            if given not in allowed:
                raise OptionError(f"{name}='{given}' is not one of {', '.join(allowed)}")

    def to_dict(self) -> dict[str, str]:
        """As plain data for a report."""
        return asdict(self)


PRESETS: Mapping[str, Options] = MappingProxyType({"paper": Options()})
DEFAULT_PRESET = "paper"


def options_of(preset: str, **changes: Any) -> Options:
    """The preset's options with those that are not None replaced.

    Raises:
        OptionError: if there is no such preset or a value means nothing.
    """
    if preset not in PRESETS:
        raise OptionError(f"there is no preset '{preset}'; there is: {', '.join(PRESETS)}")
    return replace(PRESETS[preset], **{k: v for k, v in changes.items() if v is not None})
