"""What arrives at the boundary, uncollapsed: the session behind gradients, class activation maps and LRP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
from onnx import ModelProto

from srd_onnx.engine.assemble import combined, pruned
from srd_onnx.engine.backward import DERIVATIVE, Policy, build_cotangents, real_kind
from srd_onnx.engine.compiling import Case, plan_for
from srd_onnx.engine.half import account_type
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.rule import RuleTable
from srd_onnx.engine.seed import DIRECTION, TARGET
from srd_onnx.errors import NonFiniteError
from srd_onnx.graph.expand import ExpansionTable
from srd_onnx.graph.ir import Array, Value
from srd_onnx.ort.runtime import make_session, run

_SEED, _SCORES, _VALUE, _ARRIVED, _BIAS = (
    "srd.seed",
    "srd.scores",
    "srd.value/",
    "srd.cotangent/",
    "srd.bias/",
)


@dataclass(frozen=True, eq=False)
class Arrived:
    """One run, for N inputs.

    Shapes: values and cotangents (real, also of integers) as their tensors; biases as the outputs of their nodes;
    seed [N], scores [N, K].
    """

    values: Mapping[str, Array]
    cotangents: Mapping[str, Array]
    biases: Sequence[Array]
    seed: Array
    scores: Array


@dataclass(frozen=True, eq=False)
class CotangentSession:
    """A compiled pass down to the boundary of its plan.

    Attributes:
        plan: its boundary is where values and cotangents are read.
        forward: the simplified model.
        biases: (original name of the node, its output) of each of `Arrived.biases`; none unless asked for.
    """

    plan: Plan
    forward: ModelProto
    session: onnxruntime.InferenceSession
    biases: tuple[tuple[str, Value], ...]

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Arrived:
        """Run it.

        Args:
            feeds: the graph's inputs.
            seed: targets, int64 [N], -1 for the top class; or directions [N, K], if it was compiled for these.

        Raises:
            NonFiniteError: if what arrives is not finite.
        """
        names = [one.name for one in self.session.get_outputs()]
        takes = {
            one.name for one in [*self.session.get_inputs(), *self.session.get_overridable_initializers()]
        }
        wanted = TARGET if TARGET in takes else DIRECTION
        found = dict(zip(names, run(self.session, names, {**feeds, wanted: seed}), strict=True))
        boundary = self.plan.boundary
        cotangents = {name: found[_ARRIVED + name] for name in boundary}
        for name, array in cotangents.items():
            if not np.isfinite(array).all():
                raise NonFiniteError(
                    f"what arrives at '{name}' is not finite; check the preprocessing (a wrong scale overflows) and "
                    "the weights"
                )
        return Arrived(
            {name: found[_VALUE + name] for name in boundary},
            cotangents,
            [found[f"{_BIAS}{i}"] for i in range(len(self.biases))],
            found[_SEED],
            found[_SCORES],
        )


def compile_cotangents(
    model: ModelProto,
    case: Case,
    rules: RuleTable,
    expansions: ExpansionTable,
    providers: Sequence[str],
    threads: int | None,
    *,
    policy: Policy | Callable[[Plan], Policy] = DERIVATIVE,
    biases: bool = False,
) -> CotangentSession:
    """Compile what travels from the target to `case.options.boundary` under a policy.

    Args:
        model: as loaded.
        case: with `tangent` the true derivative; else with the activation pattern held fixed.
        rules: the rule table.
        expansions: see `plan_for`.
        providers: see `make_session`.
        threads: see `make_session`.
        policy: what travels; or what decides it of the plan.
        biases: give what each bias contributes, too.

    Raises:
        SrdOnnxError: whatever keeps the model from being explained, before any of it runs.
    """
    forward, plan = plan_for(model, case, rules, expansions)
    plan.require_complete()
    decided = policy if isinstance(policy, Policy) else policy(plan)
    made = build_cotangents(plan, decided, free=case.free)
    seeded, dtype = made.seeded, made.seeded.dtype
    outputs = {
        _SEED: (made.seed, Value("", seeded.shape[:1], account_type(plan.target))),
        _SCORES: (seeded.scores, Value("", seeded.shape, dtype)),
    }
    for name, tensor in made.at.items():
        value = plan.graph.values[name]
        real = replace(value, dtype=real_kind(plan, value).dtype)
        outputs |= {_VALUE + name: (name, value), _ARRIVED + name: (tensor, real)}
    kept = made.biases if biases else ()
    outputs |= {f"{_BIAS}{i}": (tensor, value) for i, (_, value, tensor) in enumerate(kept)}
    session = make_session(pruned(combined(forward, made, outputs)).SerializeToString(), providers, threads)
    return CotangentSession(
        plan, forward, session, tuple((step.node.origins[0], value) for step, value, _ in kept)
    )
