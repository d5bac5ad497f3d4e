"""docs/quality.md and the table in README.md, from the figures of `quality`: code writes every number in them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.halves import PASTED, REPORTING
from benchmarks.quality_figures import (
    AXIOMATIC,
    FAITHFUL,
    FIVE,
    POINTING,
    RANDOMISED,
    Figures,
    aims_of,
    figures_of,
    is_peer,
    kind_of,
    spread,
)
from benchmarks.quality_inputs import FINER, OURS, PAPER, PER_POSITION
from benchmarks.quality_parts import CHEAP, FEW, MANY_MAPS, Part, metrics_of
from srd_onnx.evaluation.ranking import ALL, CONFIDENCE, RESAMPLES, Interval
from srd_onnx.files import atomic_write_all
from srd_onnx.metrics.metric import Family

BEGIN, END = "<!-- quality -->", "<!-- /quality -->"
PEERS_SHOWN = 5  # in README
SPREAD = (
    "relevance-mass-accuracy", POINTING, "sparseness", FAITHFUL, "max-sensitivity", "manipulation", RANDOMISED,
    "completeness",
)  # fmt: skip
_ARROWS = {"higher": "↑", "lower": "↓"}
_DASH = "–"


def around_table(root: Path) -> tuple[str, str]:
    """What stands in README before and after the place for the table.

    Raises:
        ValueError: there is no README, or no place in it.
    """
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} is not there, or has no {BEGIN} ... {END}")
    return before + begin, end + after


def written(
    parts: Sequence[Part], models: Sequence[str], contenders: Sequence[str], root: Path
) -> list[Path]:
    """Write the page and README's table; their paths.

    Raises:
        ValueError: nothing has been measured, or README has no place for the table.
    """
    if not parts:
        raise ValueError("nothing has been measured")
    seed = parts[0].seed
    every = [found for model in models if (found := figures_of(model, parts, contenders, seed))]
    before, after = around_table(root)
    readme, page = root / "README.md", root / "docs" / "quality.md"
    text = f"{before}\n{short_table(every)}\n{after}"
    atomic_write_all({page: page_of(parts, every, models).encode(), readme: text.encode()})
    return [page, readme]


def page_of(parts: Sequence[Part], every: Sequence[Figures], models: Sequence[str]) -> str:
    """The whole page."""
    absent = [model for model in models if model not in [one.model for one in every]]
    blocks = [
        "# Which method explains best?",
        "Written by `python -m benchmarks.quality` (`make quality`); whatever is changed here by hand is lost.",
        _introduction(parts, every, absent),
        "## The aims",
        _aims(every),
        "## Mean ranks over models",
        _over_models(every),
        *(block for one in every for block in _model(one, parts)),
        "## What the metrics are",
        _metrics_table(parts, every),
    ]
    return "\n\n".join(blocks) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Three digits after the point, or a power of ten where that says nothing."""
    if math.isfinite(value) and (0 < abs(value) < 0.001 or abs(value) >= 10000):
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def title_of(contender: str) -> str:
    """How a row of a table begins."""
    kind = {"srd": "ours", "control": "control"}.get(kind_of(contender))
    return f"`{contender}`" + (f" ({kind})" if kind else "")


# What was measured


def _introduction(parts: Sequence[Part], every: Sequence[Figures], absent: Sequence[str]) -> str:
    found = [
        f"{len({row.method for one in every for row in one.rows})} methods, "
        f"{len({name for one in every for name in one.metrics})} metrics, {len(every)} models. "
        f"`{OURS}` and `{PAPER}` are ours; all other methods have their default parameters, but for those in their "
        f"names. `gradcam{FINER}` and `layercam{FINER}` are the same methods at a layer of 1/{PER_POSITION} of the "
        "input's positions, where the model has one that is finer than the usual one. Controls know nothing of the "
        "model; they are ranked as any method.",
        "Presets were chosen on other photos (the tuning half, `benchmarks/halves.py`): of the ImageNet photos those "
        "of even index. Here are the others, and three free photos; the pasted pictures are new draws that the "
        "network knows, with exact masks. Nothing was tuned on the models of the reporting half.",
        table(
            ("model", "half", "pictures", "with many-map metrics"),
            [
                (one.model, half(one.model), str(len(one.images)), str(min(FEW, len(one.images))))
                for one in every
            ],
        ),
        f"{', '.join(MANY_MAPS)}: these need many maps of each picture and had the first {FEW} pictures of "
        "each model, the same ones for every method; they are the less certain for it. In brackets: "
        f"{CONFIDENCE:.0%} percentile bootstrap intervals over pictures ({RESAMPLES} draws).",
        *([f"Not measured yet: {', '.join(absent)}."] if absent else []),
        "Measured on:\n\n" + "\n\n".join(f"```\n{machine}\n```" for machine in _machines(parts)),
    ]
    return "\n\n".join(found)


def _machines(parts: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(part.machine for part in parts))


def half(model: str) -> str:
    """Which half a model is of."""
    return "reporting" if model in REPORTING else "tuning"


def _aims(every: Sequence[Figures]) -> str:
    words = {True: "met", False: "**not met**", None: "not known"}
    found = [(one, aims_of(one)) for one in every]
    rows = [
        (aim.title, f"{one.model} ({half(one.model)})", words[aim.met], aim.said)
        for number_of in range(len(found[0][1]) if found else 0)
        for one, aims in found
        for aim in [aims[number_of]]
    ]
    count = sum(aim.met is True for _, aims in found for aim in aims)
    lead = f"Of `{OURS}`. {count} of {len(rows)} are met."
    return f"{lead}\n\n{table(('aim', 'model', '', 'numbers'), rows)}"


def _over_models(every: Sequence[Figures]) -> str:
    """A column for each model; the means are of methods that are ranked on all of them."""
    methods = sorted(
        {method for one in every for method in one.ranks},
        key=lambda method: (_mean_rank(method, every) or math.inf, method),
    )
    reporting = [one for one in every if one.model in REPORTING]

    def cells(method: str) -> list[str]:
        own = [f"{one.ranks[method][ALL].mean:.2f}" if method in one.ranks else _DASH for one in every]
        means = (_mean_rank(method, some) for some in (reporting, every))
        return [*own, *(_DASH if mean is None else f"{mean:.2f}" for mean in means)]

    text = "Over the five families; 1 is best. Models differ in how many methods can explain them."
    header = ["method", *(one.model for one in every), "mean, reporting half", "mean, all"]
    return f"{text}\n\n{table(header, [[title_of(method), *cells(method)] for method in methods])}"


def _mean_rank(method: str, some: Sequence[Figures]) -> float | None:
    known = [one.ranks[method][ALL].mean for one in some if method in one.ranks]
    return float(np.mean(known)) if known and len(known) == len(some) else None


# One model


def _model(one: Figures, parts: Sequence[Part]) -> list[str]:
    found = [f"## {one.model} ({half(one.model)})"]
    layers = {
        part.contender: part.about["options"]["boundary"]
        for part in parts
        if part.model == one.model and part.contender.endswith(FINER) and part.about
    }
    if layers:
        found.append("; ".join(f"`{name}` is at `{layer}`" for name, layer in layers.items()) + ".")
    if one.left_out:
        found.append("Left out:\n\n" + "\n".join(f"- `{n}`: {_line(why)}" for n, why in one.left_out.items()))
    if one.missing:
        missing = ", ".join(f"`{name}`" for name in one.missing)
        found.append(f"Not ranked, since not measured on everything (yet): {missing}.")
    if one.undefined:
        lines = [f"- `{name}`: {said}" for name, said in one.undefined.items()]
        found.append("No value where another method has one, ranked last there:\n\n" + "\n".join(lines))
    if one.ranks:
        found += [f"Mean ranks of {len(one.ranks)} methods:", _ranks_table(one)]
    for family in get_args(Family):
        there = {metric for _, metric in one.means}
        names = [n for n, metric in one.metrics.items() if metric.family == family and n in there]
        if names:
            found += [f"### {one.model}: {family}", _means_table(one, names)]
    return found


def _line(text: str) -> str:
    return " ".join(text.split())


def _ranks_table(one: Figures) -> str:
    families = [name for name in (*FIVE, AXIOMATIC) if any(name in ranks for ranks in one.ranks.values())]
    best = {
        name: min(ranks[name].mean for ranks in one.ranks.values() if name in ranks)
        for name in (*families, ALL)
    }

    def cell(found: Interval | None, name: str) -> str:
        if found is None:
            return _DASH
        text = spread(found, 2) if name == ALL else f"{found.mean:.2f}"
        return f"**{text}**" if found.mean == best[name] else text

    rows = [
        [
            title_of(method),
            cell(one.ranks[method].get(ALL), ALL),
            *(cell(one.ranks[method].get(f), f) for f in families),
        ]
        for method in one.ranked
    ]
    return table(["method", "the five families", *families], rows)


def _means_table(one: Figures, names: Sequence[str]) -> str:
    methods = [*one.ranked, *dict.fromkeys(row.method for row in one.rows if row.method not in one.ranks)]
    best = {name: one.best(name, methods) for name in names}

    def cell(method: str, name: str) -> str:
        found = one.means.get((method, name))
        if found is None:
            return _DASH
        text = _interval(found) if name in SPREAD else number(found.mean)
        first = best[name]
        return f"**{text}**" if first and found.mean == one.means[first, name].mean else text

    header = ["method", *(f"{name} {_ARROWS[one.metrics[name].better]}" for name in names)]
    rows = [
        [title_of(m), *(cell(m, n) for n in names)]
        for m in methods
        if any((m, n) in one.means for n in names)
    ]
    return table(header, rows)


def _interval(found: Interval) -> str:
    if found.low is None or found.high is None:
        return number(found.mean)
    return f"{number(found.mean)} ({number(found.low)} to {number(found.high)})"


# The metrics


def _metrics_table(parts: Sequence[Part], every: Sequence[Figures]) -> str:
    metrics = {name: metric for one in every for name, metric in one.metrics.items()}
    parameters: dict[str, Mapping[str, object]] = {}
    for part in parts:
        parameters |= part.metrics
    cheap = metrics_of(CHEAP, masked=True)
    lines = [
        (
            f"`{name}`",
            metric.family,
            metric.meaning,
            metric.better,
            ", ".join(f"{key} {value}" for key, value in parameters.get(name, {}).items()),
            "all" if name in cheap else f"first {FEW}",
            f"{PASTED}…" if "mask" in metric.needs else "all",
        )
        for name, metric in metrics.items()
    ]
    return table(("metric", "family", "meaning", "better", "parameters", "pictures", "models"), lines)


# README


def short_table(every: Sequence[Figures]) -> str:
    """Ours and the best peers on the reporting half: means over its models."""
    some = [one for one in every if one.model in REPORTING and one.ranks]
    ranked = {method: _mean_rank(method, some) for one in some for method in one.ranks}
    order = sorted((m for m, rank in ranked.items() if rank is not None), key=lambda m: ranked[m] or 0.0)
    if not order:
        return "Not measured yet: `make quality`."
    peers = [method for method in order if is_peer(method)][:PEERS_SHOWN]
    rows = []
    for method in [m for m in order if m in (OURS, PAPER) or m in peers]:
        means = [_mean(method, metric, some) for metric in (FAITHFUL, POINTING, RANDOMISED)]
        rows.append([title_of(method), f"{ranked[method]:.1f}", *means])
    header = ("method", "mean rank ↓", f"{FAITHFUL} ↑", f"{POINTING} ↑", f"{RANDOMISED} ↓")
    names = ", ".join(one.model for one in some)
    left = dict.fromkeys(name for one in some for name in one.missing)
    unranked = (
        f" Not ranked, since not measured on everything: {', '.join(f'`{n}`' for n in left)}." if left else ""
    )
    return (
        f"Means over the models of the reporting half ({names}), on photos of which no preset was chosen: ours and the "
        f"{len(peers)} best peers. Written by `make quality`.{unranked}\n\n{table(header, rows)}"
    )


def _mean(method: str, metric: str, some: Sequence[Figures]) -> str:
    known = [one.means[method, metric].mean for one in some if (method, metric) in one.means]
    return f"{np.mean(known):.3f}" if len(known) == len(some) else _DASH
