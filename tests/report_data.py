"""Reports of which every part is known, for the tests of what renders them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from srd_onnx.graph.ir import Array
from srd_onnx.report.content import Figure, Item, Kind, Layer, Report, Section, Shown, Table

SIDE = 60
GRID = 6
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "</script><!-- ]]> -->",
    "{{ 7 * 7 }} {% raw %}",
    "a\u2028b\u2029c",
    "\u202egnp.exe",
    "nul\x00 esc\x1b[31m",
    "lone \ud83d surrogate",
    "猫 ネコ \N{CAT FACE} é",
    "../../etc/passwd",
    "=cmd|'/c calc'!A1",
    "javascript:alert(1)",
)


def blob(row: float, column: float, sign: float = 1.0) -> Array:
    """A map [SIDE, SIDE] with a hill of one sign at a place in 0..1; it adds up to ±1."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    hill = np.exp(-(((y - row) ** 2 + (x - column) ** 2) / 0.005))
    return np.asarray(sign * hill / hill.sum(), np.float32)


def layer(name: str = "/block/Conv") -> Layer:
    """A layer of GRID × GRID PFVs, each of which sees the place where it lies."""
    positions = np.argwhere(np.ones((GRID, GRID), bool))
    fields = np.stack([blob((r + 0.5) / GRID, (c + 0.5) / GRID) for r, c in positions])
    relevance = np.linspace(-1, 1, GRID * GRID).reshape(GRID, GRID)
    return Layer(name, relevance, positions, fields)


def shown(target: str = "top1", method: str = "srd", place: float = 0.25) -> Shown:
    """A map with what speaks for the target at (place, place), and half as much against it opposite."""
    relevance = blob(place, place) - blob(1 - place, 1 - place) / 2
    ledger = tuple((f"/node/{i}", 0.5 - i / 16) for i in range(9))
    return Shown(
        target=target,
        label=f"label of {target}",
        method=method,
        score=float(relevance.sum()) + sum(amount for _, amount in ledger),
        relevance=relevance,
        residual=1e-7,
        ledger=ledger,
        numbers={"insertion": 0.75, "pointing game": None},
        warnings=("the map barely changes with the class",) if target == "top2" else (),
        layers=(layer(), layer("/last/Relu")) if method == "srd" else (),
        complete=method == "srd",
    )


def item(number: int) -> Item:
    """An image of noise, explained for two targets by two methods; every third is flagged."""
    photo = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return Item(
        name=f"photo {number}.png",
        sha256=f"{number:064x}",
        photo=photo,
        predictions=((f"class {number}", 12.5), ("other", 3.25)),
        facts=(("true class", "cat"),),
        keys={"faithfulness": float((number * 7) % 10)},
        flags=("wrong",) if number % 3 == 0 else (),
        shown=tuple(shown(target, method) for target in ("top1", "top2") for method in ("srd", "gradcam")),
    )


def broken() -> Item:
    """An image that could not be read."""
    return Item("broken.png", "", None, error="broken.png: the PNG is cut off", flags=("error",))


def report(items: int = 5, kind: Kind = "audit") -> Report:
    """An audit of so many images, the last of which is broken."""
    table = Table(
        "Census", ("operator", "nodes", "part"), (("Conv", 12, 0.123456), ("Relu", 3, None)), "As told."
    )
    return Report(
        kind=kind,
        title="Audit of a model",
        answer=("The model is right in 3 of 4 images.",),
        before=(
            Section("asked", "What was asked", ("Everything.",)),
            Section(
                "model",
                "The model",
                facts=(("sha256", "ab" * 32),),
                tables=(table, replace(table, folded=True)),
            ),
        ),
        items=(broken() if number == items - 1 else item(number) for number in range(items)),
        after=(
            Section(
                "means", "Where relevance falls", figures=(Figure("Mean", blob(0.5, 0.5), "the mean map"),)
            ),
        ),
        made="2026-11-27T12:00:00+00:00",
    )


def hostile(text: str) -> Report:
    """A report in which every text is this one."""
    seen = replace(
        shown(),
        target=text,
        label=text,
        method=text,
        ledger=((text, 1.0),),
        numbers={text: 1.0},
        warnings=(text,),
        layers=(layer(text),),
    )
    one = replace(
        item(1),
        name=text,
        sha256=text,
        predictions=((text, 1.0),),
        facts=((text, text),),
        keys={text: 1.0},
        flags=(text,),
        shown=(seen,),
    )
    section = Section(
        "hostile",
        text,
        (text,),
        ((text, text),),
        (Table(text, (text,), ((text,),), text), Table(text, (text,), ((text,),), text, folded=True)),
        (Figure(text, blob(0.5, 0.5), text),),
    )
    return Report(
        "audit",
        text,
        (text,),
        (section,),
        iter((one, replace(one, shown=(), error=text))),
        (),
        text,
        {text: 1.0},
    )


def endless(count: int) -> Iterator[Item]:
    """Images without layers, made when they are taken."""
    for number in range(count):
        one = item(number)
        yield replace(one, shown=(replace(one.shown[0], layers=()),))
