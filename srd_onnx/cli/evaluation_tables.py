"""An evaluation in the terminal: tables of means, and one of mean ranks by family of metrics."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from srd_onnx.cli.console import cell, stdout, table_of
from srd_onnx.cli.listings import ARROWS

if TYPE_CHECKING:
    from srd_onnx.evaluation.numbers import Evaluation, Row
    from srd_onnx.evaluation.ranking import Interval

_WITH_INTERVALS, _ALONE = 3, 4  # columns that fit beside each other


def show(evaluation: "Evaluation", rows: "Sequence[Row]") -> None:
    """Print the tables, and how many numbers there are not."""
    from srd_onnx.evaluation.report import aggregated

    means, ranks = aggregated(evaluation, rows)
    methods = list(dict.fromkeys(row.method for row in rows))
    console, names = stdout(), list(evaluation.metrics)
    spread = any(found.low is not None for found in means.values())
    width = _WITH_INTERVALS if spread else _ALONE
    for start in range(0, len(names), width):
        console.print(_means(evaluation, names[start : start + width], methods, means))
    if len(methods) > 1:
        console.print(_ranks(methods, ranks))
    images = len(dict.fromkeys(row.image for row in rows))
    console.print(
        f"means over {images} image{'s' if images > 1 else ''}"
        + (" with 95 % bootstrap intervals" if images > 1 else "; an interval takes two")
        + "; bold: the best of the column"
    )


def _means(
    evaluation: "Evaluation",
    metrics: Sequence[str],
    methods: Sequence[str],
    means: "dict[tuple[str, str], Interval]",
) -> Table:
    table = table_of("")
    best = {}
    for name in metrics:
        better = evaluation.metrics[name].better
        table.add_column(f"{name} {ARROWS[better]}", justify="right", overflow="fold")
        values = [means[method, name].mean for method in methods if (method, name) in means]
        best[name] = (max if better == "higher" else min)(values, default=None)
    for method in methods:
        cells = [cell(method)]
        for name in metrics:
            found = means.get((method, name))
            leads = found is not None and found.mean == best[name] and len(methods) > 1
            cells.append(Text("-" if found is None else _number(found), "bold" if leads else ""))
        table.add_row(*cells)
    return table


def _ranks(methods: Sequence[str], ranks: "dict[str, dict[str, Interval]]") -> Table:
    from srd_onnx.evaluation.ranking import ALL

    table = table_of(f"mean rank of {len(methods)}")
    families = list(dict.fromkeys(family for by_family in ranks.values() for family in by_family))
    for family in families:
        table.add_column("all families" if family == ALL else family, justify="right", overflow="fold")
    for method in sorted(
        methods, key=lambda one: ranks[one][ALL].mean if ALL in ranks[one] else len(methods)
    ):
        row = {family: ranks[method].get(family) for family in families}
        table.add_row(
            cell(method),
            # Intervals of every family would not fit; the JSON has them.
            *("-" if one is None else _number(one, 2, spread=family == ALL) for family, one in row.items()),
        )
    return table


def _number(found: "Interval", digits: int = 3, *, spread: bool = True) -> str:
    """The mean, and the interval if wanted; large and small numbers with as many digits as matter."""

    def text(value: float) -> str:
        plain = value == 0 or 10**-digits <= abs(value) < 10**4
        return f"{value:.{digits}f}" if plain else f"{value:.{digits}g}"

    if found.low is None or found.high is None or not spread:
        return text(found.mean)
    return f"{text(found.mean)} [{text(found.low)}, {text(found.high)}]"
