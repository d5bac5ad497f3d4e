"""`srd-onnx check MODEL`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from srd_onnx.cli.console import cell, lines, note, stdout, table_of, write_json
from srd_onnx.cli.options import JsonOption, LayoutOption, MapOptions, ModelArgument, explainer_for, layout_of

if TYPE_CHECKING:
    from srd_onnx.check import CheckReport, Tensor
    from srd_onnx.cost import Cost

CostOption = Annotated[
    bool,
    typer.Option("--cost", help="Count what explaining each node costs: multiply-adds, and numbers written."),
]
_MILLION = 1e6
_STYLES = {"exact": "green", "approximate": "yellow", "no rule": "bold red"}


def check(
    *,
    model: ModelArgument,
    engine: MapOptions,
    layout: LayoutOption = None,
    cost: CostOption = False,
    json: JsonOption = False,
) -> None:
    """Say whether MODEL can be explained, and how exactly: every node that relevance would cross.

    Exit code 0 if it can, 1 if a node has no rule, 2 if the model cannot be used at all.
    """
    from srd_onnx.check import check_model
    from srd_onnx.files import to_json

    explainer = explainer_for(model, **vars(engine), layout=layout_of(layout), providers="cpu")
    report = check_model(explainer, cost=cost)
    if json:
        write_json(to_json(report.to_dict(), indent=2))
    else:
        _show(report)
    if not report.explainable:
        raise typer.Exit(1)


def _show(report: "CheckReport") -> None:
    console = stdout()
    console.print(_facts(report))
    reasons = list(dict.fromkeys(node.why for node in report.nodes if node.why))
    if report.nodes:
        console.print(_table(report, reasons))
    for number, why in enumerate(reasons, start=1):
        if why != report.problem:
            console.print(cell(f"({number}) {why}"), soft_wrap=True)
    exact, near, none = (report.count(status) for status in ("exact", "approximate", "no rule"))
    console.print(f"{len(report.nodes)} nodes: {exact} exact, {near} approximate, {none} without a rule")
    if report.cost is not None:
        ahead, back, written = (n / _MILLION for n in _numbers(report.cost))
        console.print(
            f"multiply-adds: {ahead:,.0f} M forward, {back:,.0f} M backward ({back / max(ahead, 1e-9):.2f} ×); "
            f"{written:,.1f} M numbers written backward"
        )
    if report.problem is None:
        console.print(Text("It can be explained.", "bold green"))
    else:
        console.print(
            Text("It cannot be explained: ", "bold red") + Text(lines(report.problem)), soft_wrap=True
        )
    if report.precision is not None:
        note(report.precision)
    if report.layout_guessed:
        note(f"layout {report.layout} is guessed; --layout says another")


def _facts(report: "CheckReport") -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    layout = report.layout + (" (guessed)" if report.layout_guessed else "")
    size = "x".join(map(str, report.input_shape))
    rows = (
        ("model", report.path or "-"),
        ("sha256", report.sha256),
        (
            "producer",
            f"{report.producer or 'unknown'}, opset {report.opset}, {report.parameters:,} parameters",
        ),
        ("inputs", _signature(report.inputs)),
        ("outputs", _signature(report.outputs)),
        ("layout", f"{layout}, checked for {size}"),
        ("target", report.target_tensor or "-"),
        ("boundary", ", ".join(report.boundary) or "-"),
        ("focus", ", ".join(report.focus) or "-"),
        ("options", f"preset {report.preset}: " + ", ".join(f"{k} {v}" for k, v in report.options.items())),
    )
    for name, value in rows:
        facts.add_row(name, cell(value))
    return facts


def _signature(tensors: "tuple[Tensor, ...]") -> str:
    return ", ".join(f"{t.name} {t.dtype}[{', '.join(map(str, t.shape))}]" for t in tensors)


def _numbers(cost: "Cost") -> tuple[int, int, int]:
    return cost.forward, cost.backward, cost.written


def _table(report: "CheckReport", reasons: list[str]) -> Table:
    table = table_of("node")
    for name in ("operator", "rule", "form", "status"):
        table.add_column(name, overflow="fold", no_wrap=True)
    if report.cost is not None:
        for name in ("forward M", "backward M", "written M"):
            table.add_column(name, justify="right", no_wrap=True)
    for node in report.nodes:
        status = Text(node.status, _STYLES[node.status])
        if node.why and node.why != report.problem:
            status += Text(f" ({reasons.index(node.why) + 1})")
        names = cell(" + ".join(node.names))
        operator = cell(node.operator.removeprefix("ai.onnx::"))
        counted = [f"{n / _MILLION:.2f}" for n in _numbers(node.cost)] if node.cost is not None else []
        table.add_row(names, operator, cell(node.rule or "-"), node.form, status, *counted)
    return table
