"""`srd-onnx methods` and `srd-onnx metrics`."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from srd_onnx.cli.console import cell, lines, stdout, table_of, write_json
from srd_onnx.cli.options import JsonOption
from srd_onnx.engine.options import DEFAULT_PRESET, Options

if TYPE_CHECKING:
    from srd_onnx.metrics import Metric

ARROWS = {"higher": "↑", "lower": "↓"}


def methods(*, json: JsonOption = False) -> None:
    """List the methods that explain and evaluate know; each is written as NAME[:PARAMETER=VALUE,...].

    The options of srd are given so to evaluate; explain has them as options of its own.
    """
    from srd_onnx.files import to_json
    from srd_onnx.methods import METHODS, SRD

    made = [make() for make in METHODS.values()]
    if json:
        srd = {
            "name": SRD,
            "title": "Sharing Ratio Decomposition",
            "family": "sharing ratios",
            "complete": True,
        }
        rows = [{**method.to_dict(), "family": method.family} for method in made]
        write_json(to_json({"methods": [srd, *rows]}, indent=2))
        return
    table = table_of("method", "title", "family", "parameters")
    options = ",".join((f"preset={DEFAULT_PRESET}", *Options.__dataclass_fields__))
    table.add_row(SRD, "Sharing Ratio Decomposition", "sharing ratios", options)
    for method in made:
        parameters = _defaults(METHODS[method.name])
        table.add_row(*map(cell, (method.name, method.title, method.family, parameters)))
    stdout().print(table)
    for said in dict.fromkeys(method.note for method in made if method.note):
        about = ", ".join(method.title for method in made if method.note == said)
        stdout().print(Text(lines(f"{about}: {said}")), soft_wrap=True)


def metrics(*, json: JsonOption = False) -> None:
    """List the metrics that evaluate knows, as NAME[:PARAMETER=VALUE,...]: what each means, and which way is better."""
    from srd_onnx.evaluation.report import about_metric
    from srd_onnx.files import to_json
    from srd_onnx.metrics import METRICS

    made = [make() for make in METRICS.values()]
    if json:
        rows = [{"name": metric.name, **about_metric(metric)} for metric in made]
        write_json(to_json({"metrics": rows}, indent=2))
        return
    for family in dict.fromkeys(metric.family for metric in made):
        stdout().print(_family(family, [metric for metric in made if metric.family == family], METRICS))


def _family(family: str, made: "list[Metric]", makers: Mapping[str, Callable[..., Any]]) -> Table:
    table = table_of(family, "", "range", "meaning", "parameters")
    for metric in made:
        needs = "".join(f" [{one}]" for one in sorted(metric.needs))
        low, high = (f"{bound:g}".replace("inf", "∞") for bound in metric.bounds)
        table.add_row(
            cell(metric.name),
            ARROWS[metric.better],
            f"{low}..{high}",
            cell(metric.meaning + needs),
            cell(_defaults(makers[metric.name])),
        )
    return table


def _defaults(make: Callable[..., Any]) -> str:
    return ",".join(f"{name}={one.default}" for name, one in inspect.signature(make).parameters.items())
