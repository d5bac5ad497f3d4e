"""The model of a report: what file it is, what is in it, and what becomes of each node."""

from pathlib import Path

import onnx

from srd_onnx.check import CheckedNode, CheckReport, check_model
from srd_onnx.explainer import Explainer
from srd_onnx.files import sha256_of
from srd_onnx.graph.external_data import nodes, tensors
from srd_onnx.report.content import Section, Table

_OWN = ("ai.onnx", "")


def model_section(base: Explainer, *, id: str = "model", title: str = "The model") -> Section:
    """Identity, signature, operators, what was folded and fused, and every node with its rule.

    Args:
        base: of the model.
        id: of the section.
        title: likewise.
    """
    report = check_model(base)
    tables = (_files(base), _signature(report), _census(base, report), _rules(report))
    exact, near, none = (report.count(status) for status in ("exact", "approximate", "no rule"))
    said = (
        f"Relevance crosses {len(report.nodes)} nodes of the simplified graph: {exact} exactly, {near} approximately, "
        f"{none} without a rule."
    )
    problem = (f"Sharing ratios cannot explain it: {report.problem}",) if report.problem else ()
    return Section(id, title, (said, *problem), _facts(base, report), tables)


def named_in(base: Explainer) -> str:
    """The file's name, for a sentence."""
    return base.model.path.name if base.model.path else "the model"


def _facts(base: Explainer, report: CheckReport) -> tuple[tuple[str, str], ...]:
    layout = report.layout + (" (guessed)" if report.layout_guessed else "")
    return (
        ("file", named_in(base)),
        ("sha256", report.sha256),
        ("producer", report.producer or "not said"),
        ("opset", str(report.opset)),
        ("parameters", f"{report.parameters:,}"),
        *((("precision", report.precision),) if report.precision else ()),
        ("layout of the input", layout),
        ("explained tensor", report.target_tensor or "–"),
        ("boundary", ", ".join(report.boundary) or "–"),
        ("passes that sharpen", ", ".join(report.focus) or "none"),
    )


def _files(base: Explainer) -> Table:
    path = base.model.path
    found = [] if path is None else [path, *external_files(path)]
    rows = tuple((one.name, one.stat().st_size, sha256_of(one)) for one in found)
    note = (
        "The sha256 of the model above is that of its file followed by its external data."
        if len(rows) > 1
        else ""
    )
    return Table("Files of the model", ("file", "bytes", "sha256"), rows, note)


def external_files(path: Path) -> list[Path]:
    """Where a model that was loaded before keeps its external data, in order of the names it gives them."""
    proto = onnx.load(path, load_external_data=False)
    outside = (one for one in tensors(proto) if one.data_location == onnx.TensorProto.EXTERNAL)
    names = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    return [path.parent / name for name in sorted(names)]


def _signature(report: CheckReport) -> Table:
    rows = tuple(
        (kind, one.name, one.dtype, " × ".join(map(str, one.shape)))
        for kind, some in (("input", report.inputs), ("output", report.outputs))
        for one in some
    )
    return Table("Inputs and outputs", ("", "name", "type", "shape"), rows)


def _census(base: Explainer, report: CheckReport) -> Table:
    """Operators of the file, and what the simplification made of them."""
    kept, fused = _fates(base)
    rows = []
    for operator, names in sorted(_by_operator(base.model.proto.graph).items()):
        stay = sum(name in kept for name in names)
        into = sum(name in fused for name in names)
        rows.append((operator, len(names), stay, into, len(names) - stay - into))
    note = (
        "Fused: computed by another node, such as a BatchNormalization by the convolution before it. Folded: computed "
        "once, since it depends on constants and shapes alone, or dropped, since it changes nothing."
    )
    return Table(
        "Operators", ("operator", "in the file", "kept", "fused", "folded"), tuple(rows), note, folded=True
    )


def _by_operator(graph: onnx.GraphProto) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in nodes(graph):
        domain = "" if node.domain in _OWN else f"{node.domain}::"
        found.setdefault(f"{domain}{node.op_type}", []).append(node.name)
    return found


def _fates(base: Explainer) -> tuple[set[str], set[str]]:
    """Names of the original nodes that lead a node of the simplified graph, and that are merged into one."""
    leading, merged = set(), set()
    for node in base.plan.graph.nodes:
        first, *others = node.origins
        leading.add(first)
        merged.update(others)
    return leading, merged - leading


def _rules(report: CheckReport) -> Table:
    rows = tuple(_rule(one) for one in report.nodes)
    return Table(
        "Every node that relevance crosses, from the target to the input",
        ("node", "operator", "rule", "form", "status", "why"),
        rows,
        "Several names: one node stands for these of the file.",
        folded=True,
    )


def _rule(one: CheckedNode) -> tuple[str | None, ...]:
    operator = one.operator.removeprefix("ai.onnx::")
    return " + ".join(one.names), operator, one.rule, one.form, one.status, one.why
