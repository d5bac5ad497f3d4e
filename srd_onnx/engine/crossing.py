"""Which nodes lie between target and input, and which of them have no rule."""

from collections.abc import Iterable
from dataclasses import dataclass

from srd_onnx.engine.rule import Rule, RuleTable
from srd_onnx.graph.ir import Graph, Node, Value
from srd_onnx.graph.roles import Axes, living

# Node, its rule, and the inputs that receive relevance; from the target back.
Crossed = list[tuple[Node, Rule, tuple[int, ...]]]


@dataclass(frozen=True)
class Gap:
    """A node that relevance can reach and that has no rule."""

    node: Node
    covered: tuple[int, ...]  # versions of the operator that do have a rule

    @property
    def reason(self) -> str:
        """Which versions of the operator do have a rule."""
        versions = ", ".join(map(str, self.covered))
        return f"only versions {versions} have a rule" if versions else "no version is covered"

    def __str__(self) -> str:
        named = "" if self.node.name in self.node.origins else f" (made from {', '.join(self.node.origins)})"
        return f"{self.node.key}  node '{self.node.name}'{named}  ({self.reason})"


def before_link(graph: Graph, rules: RuleTable, output: Value) -> Value:
    """The value before a softmax, log-softmax or sigmoid at the end: what those only rescale (DESIGN.md).

    Where that is an input of the model, so that there is nothing else to explain, the output itself.
    """
    producers, value = graph.producers, output
    while (node := producers.get(value.name)) is not None:
        rule = rules.get(node.key)
        if rule is None or rule.head is None:
            return output
        value = node.input(0)
        if rule.head == "link":
            return value if value.name in producers else output
    return output


def cross(
    graph: Graph,
    rules: RuleTable,
    roles: dict[str, Axes],
    sources: Iterable[str],
    target: Value,
    *,
    tangent: bool = False,
) -> tuple[Crossed, list[Gap], set[str]]:
    """Nodes between target and input that relevance crosses, last first; nodes without a rule; tensors reached.

    With `tangent` all that the true derivative crosses: gates and statistics too.
    """
    dependent = living(graph, roles, sources) | {target.name}
    reached, crossed, gaps = {target.name}, Crossed(), []
    for node in reversed(graph.nodes):
        if not any(value is not None and value.name in reached for value in node.outputs):
            continue
        inputs = [v.name if v is not None else "" for v in node.inputs]
        if not dependent.intersection(inputs):
            continue
        rule = rules.get(node.key)
        if rule is not None and any(name in roles for name in inputs):
            carriers = tuple(i for i in rule.carriers(node, roles) if inputs[i] in dependent)
            if tangent and carriers:
                carriers = _real(node, carriers, dependent)
            # Behind a node without a rule axes are unknown: relevance may reach it, so that the gap must show.
            carriers += tuple(
                i
                for i, v in enumerate(node.inputs)
                if v is not None and v.is_float and v.name in dependent and v.name not in roles
            )
        else:
            carriers = tuple(i for i, name in enumerate(inputs) if name in dependent)
        reached.update(inputs[i] for i in carriers)
        if rule is None:
            gaps.append(Gap(node, _covered(node, rules)))
        elif carriers:
            crossed.append((node, rule, carriers))
    return crossed, gaps, reached


def _real(node: Node, carriers: tuple[int, ...], dependent: set[str]) -> tuple[int, ...]:
    """These inputs and all others through which real numbers come."""
    return tuple(
        i
        for i, v in enumerate(node.inputs)
        if i in carriers or (v is not None and v.is_float and v.name in dependent)
    )


def _covered(node: Node, rules: RuleTable) -> tuple[int, ...]:
    same = [k for k in rules if (k.domain, k.op_type) == (node.key.domain, node.key.op_type)]
    return tuple(sorted(key.since for key in same))
