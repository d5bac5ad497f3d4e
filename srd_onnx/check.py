"""Can this model be explained, and how exactly? Every node that relevance would cross, as plain data."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import onnx

from srd_onnx.cost import Cost, costs, total
from srd_onnx.engine.crossing import Gap
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.errors import UnsupportedCaseError, UnsupportedOpError

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer

Status = Literal["exact", "approximate", "no rule"]


@dataclass(frozen=True)
class Tensor:
    """An input or output as the file declares it; names stand for open sizes, "?" for unnamed ones."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class CheckedNode:
    """One node that relevance would cross.

    Attributes:
        names: the original nodes it stands for, its own first.
        operator: domain, type and version.
        rule: its name; None where there is none.
        form: "routes" (relevance moves without a ratio), "position", "cotangent", or both; "" where gaps
            elsewhere leave it open.
        why: what makes it approximate, or what is missing.
        cost: of explaining it; None where that was not asked for.
    """

    names: tuple[str, ...]
    operator: str
    rule: str | None
    form: str
    status: Status
    why: str | None
    cost: Cost | None = None


@dataclass(frozen=True)
class CheckReport:
    """What `srd-onnx check` prints; `nodes` run from the target back to the input.

    Attributes:
        input_shape: the shape for which this holds: as declared, open sizes filled in.
        boundary: the tensors at which sharing ratios take over; empty where gaps leave it open.
        focus: those of the passes that sharpen the map, coarse to fine.
        precision: in words, where it is not computed in the precision of the file; else None.
        problem: what keeps the model from being explained, None if nothing does.
        cost: of all nodes together; None where that was not asked for.
    """

    path: str | None
    sha256: str
    opset: int
    producer: str
    parameters: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layout: str
    layout_guessed: bool
    input_shape: tuple[int, ...]
    preset: str
    options: Mapping[str, str | float]
    target_tensor: str | None
    boundary: tuple[str, ...]
    focus: tuple[str, ...]
    nodes: tuple[CheckedNode, ...]
    precision: str | None
    problem: str | None
    cost: Cost | None = None

    @property
    def explainable(self) -> bool:
        """Whether every node has a rule that fits."""
        return self.problem is None

    def count(self, status: Status) -> int:
        """Return how many nodes have that status."""
        return sum(node.status == status for node in self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        statuses: tuple[Status, ...] = ("exact", "approximate", "no rule")
        counts = {status: self.count(status) for status in statuses}
        return {"explainable": self.explainable, "counts": counts} | asdict(self)


def check_model(explainer: "Explainer", *, cost: bool = False) -> CheckReport:
    """Look at everything up to the session: the plan, and whether each rule takes this use of its operator.

    `cost`: count multiply-adds too, where it can be explained.

    Raises:
        LayoutError: the axes cannot be told apart.
        UnknownTensorError: the boundary does not exist.
        UnreachableTargetError: no path leads from the target to the input.
    """
    problem, plan = None, None
    try:
        plan = explainer.plan
        plan.require_complete()
        explainer.compile()
    except (UnsupportedOpError, UnsupportedCaseError) as error:
        problem = str(error)
    loaded = explainer.model
    nodes = _nodes(plan, problem) if plan else ()
    counted = None
    if cost and problem is None:
        counted = costs(explainer.compiled(explainer.case(explainer.shown_shapes())))
    if counted is not None:
        nodes = tuple(replace(node, cost=counted[node.names[0]]) for node in nodes)
    return CheckReport(
        path=str(loaded.path) if loaded.path else None,
        sha256=loaded.sha256,
        opset=loaded.opset,
        producer=loaded.producer,
        parameters=loaded.parameters,
        inputs=_tensors(loaded.proto.graph.input, loaded.half),
        outputs=_tensors(loaded.proto.graph.output, loaded.half),
        layout=explainer.layout,
        layout_guessed=explainer.layout_guessed,
        input_shape=explainer.input_shape,
        preset=explainer.preset,
        options=explainer.options.to_dict(),
        target_tensor=plan.target.name if plan else None,
        boundary=plan.boundary if plan else (),
        focus=tuple(name for one in plan.focus for name in one.boundary) if plan else (),
        nodes=nodes,
        precision=loaded.precision,
        problem=problem,
        cost=total(counted) if counted is not None else None,
    )


def _tensors(values: Iterable[onnx.ValueInfoProto], half: Mapping[str, str]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            value.name,
            half.get(value.name) or onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
            tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param or "?"
                for d in value.type.tensor_type.shape.dim
            ),
        )
        for value in values
    )


def _nodes(plan: Plan, problem: str | None) -> tuple[CheckedNode, ...]:
    """Steps and gaps in one list, from the target back to the input."""
    place = {node.name: index for index, node in enumerate(plan.graph.nodes)}
    found: list[Step | Gap] = [*plan.steps, *plan.gaps]
    found.sort(key=lambda one: -place[one.node.name])
    return tuple(_gap(one) if isinstance(one, Gap) else _step(one, problem) for one in found)


def _gap(gap: Gap) -> CheckedNode:
    node = gap.node
    return CheckedNode(node.origins, str(node.key), None, "", "no rule", gap.reason)


def _step(step: Step, problem: str | None) -> CheckedNode:
    node = step.node
    status: Status = "exact" if step.approximate is None else "approximate"
    why = step.approximate
    if problem is not None and str(node) in problem:
        status, why = "no rule", problem
    return CheckedNode(node.origins, str(node.key), step.rule.name, step.form, status, why)
