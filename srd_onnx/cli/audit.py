"""`srd-onnx audit MODEL IMAGES_DIR`."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from srd_onnx.cli.console import cell, lines, note, stderr, stdout, write_json, write_text
from srd_onnx.cli.opening import opened
from srd_onnx.cli.options import JsonOption, MaxMemoryOption, TargetOption, size_of, targets_of
from srd_onnx.cli.photos import LabelsOption, PhotoOptions
from srd_onnx.errors import OptionError

if TYPE_CHECKING:
    from srd_onnx.audit.config import Config
    from srd_onnx.audit.findings import Finding
    from srd_onnx.audit.run import Outcome, Watch
    from srd_onnx.explainer import Explainer

OUT = Path("srd-onnx-audit")
JunitOption = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Also write the findings as JUnit XML.", show_default=False),
]
SarifOption = Annotated[
    Path | None,
    typer.Option("--sarif", metavar="FILE", help="Also write the findings as SARIF.", show_default=False),
]
CONFIG = Path("audit.toml")


def audit(
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="An .onnx file, or a name from `srd-onnx models`.", show_default=False
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGES_DIR", help="A folder of images.", show_default=False),
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help=f"Write a commented configuration, {CONFIG} or --config FILE.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE.toml",
            help="What is done; options here go before it.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Of the report; a rerun goes on from there.")
    ] = OUT,
    target: TargetOption = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods", metavar="NAMES", help="As for `evaluate`; srd if left out.", show_default=False
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="NAMES",
            help="As for `evaluate`; quick ones if left out.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", metavar="FILE.csv", help="True classes: columns file, class.", show_default=False
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", metavar="DIR", help="Where the objects are, as for `evaluate`.", show_default=False
        ),
    ] = None,
    mask_classes: Annotated[
        Path | None,
        typer.Option("--mask-classes", metavar="FILE", help="As for `evaluate`.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Of everything random.", show_default=False),
    ] = None,
    shown: Annotated[
        int | None,
        typer.Option(
            "--shown", metavar="N", min=0, help="So many images are in the report.", show_default=False
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Print a block for a model card, in Markdown, and nothing else.")
    ] = False,
    junit: JunitOption = None,
    sarif: SarifOption = None,
    photo: PhotoOptions,
    labels: LabelsOption = None,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider", metavar="auto|cuda|cpu", help="auto: CUDA where it works.", show_default=False
        ),
    ] = None,
    max_memory: MaxMemoryOption = None,
    json: JsonOption = False,
) -> None:
    """Audit MODEL on all images of IMAGES_DIR: predictions, explanations, metrics, sanity checks, a report.

    Kill it whenever you like: the same command goes on where it was. Exit code 1 if an image could not be explained;
    the others are, and the report says why.
    """
    if init:
        _init(config or CONFIG)
        return
    if model is None or images is None:
        raise OptionError(
            "audit takes a model and a folder of images; `srd-onnx audit --init` writes a configuration"
        )
    wanted = _config(
        config,
        {
            "explain": {
                "targets": targets_of(target), "methods": _several(methods), "metrics": _several(metrics), "seed": seed,
            },
            "data": {"truth": truth, "masks": masks, "mask_classes": mask_classes},
            "model": {"layout": photo.layout, "labels": labels, "provider": provider, "max_memory": max_memory},
            "report": {"images": shown},
        },
    )  # fmt: skip
    outside(out, junit, sarif)
    explainer = _opened(model, images, out, wanted, photo)
    outcome = _run(explainer, images, wanted, out)
    passed = [f"{one.method}: {one.asked}" for one in outcome.checks if one.verdict == "passed"]
    for_systems(
        junit, sarif, outcome.title, outcome.names, outcome.findings, model=Path(model).name, passed=passed
    )
    if card:
        from srd_onnx.audit.card import to_card

        write_text(to_card(outcome, explainer.model.sha256))
    elif json:
        from srd_onnx.files import to_json

        findings = [vars(one) for one in outcome.findings]
        write_json(to_json({"folder": out, "answer": outcome.answer, "findings": findings}))
    else:
        _show(outcome)
    if outcome.usable < outcome.images:
        raise typer.Exit(1)


def outside(out: Path, *files: Path | None) -> None:
    """Refuse files in the folder of the report.

    Raises: OptionError, since `verify` would find them to be added.
    """
    for file in files:
        if file is not None and file.resolve().is_relative_to(out.resolve()):
            raise OptionError(
                f"{file} lies in the report, of whose files none may be added: choose another folder"
            )


def for_systems(
    junit: Path | None,
    sarif: Path | None,
    title: str,
    names: Sequence[str],
    findings: "Sequence[Finding]",
    *,
    model: str,
    passed: Sequence[str] = (),
) -> None:
    """Write the findings for systems of continuous integration, where that is asked for."""
    from srd_onnx.audit.continuous import to_junit, to_sarif
    from srd_onnx.files import atomic_write

    if junit is not None:
        atomic_write(junit, to_junit(title, names, findings, passed))
    if sarif is not None:
        atomic_write(sarif, to_sarif(findings, model))


def _init(path: Path) -> None:
    from srd_onnx.audit.config import config_text
    from srd_onnx.files import atomic_write

    if path.exists():
        raise OptionError(f"{path} is there already: remove it, or name another with --config FILE")
    atomic_write(path, config_text().encode())
    note(f"{path} is written; `srd-onnx audit MODEL IMAGES_DIR --config {path}` uses it")


def _several(given: list[str] | None) -> list[str] | None:
    from srd_onnx.cli.evaluate import several

    return several(given) or None


def _config(path: Path | None, given: Mapping[str, Mapping[str, Any]]) -> "Config":
    """What the file says, with the options that were given in place."""
    from srd_onnx.audit.config import Config, read_config

    config = read_config(path) if path is not None else Config()
    for part, options in given.items():
        known = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in options.items()
            if value is not None
        }
        config = replace(config, **{part: replace(getattr(config, part), **known)})
    return config


def _opened(model: str, images: Path, out: Path, config: "Config", photo: PhotoOptions) -> "Explainer":
    """The model, with the preprocessing of the options, the file, the zoo or a guess, in this order."""
    settings = config.model
    explainer, _ = opened(
        model,
        [],
        out,
        replace(photo, layout=settings.layout),
        photos=True,
        known=config.preprocess,
        labels=settings.labels,
        providers=settings.provider,
        max_memory=size_of(settings.max_memory),
    )
    return explainer


def _run(explainer: "Explainer", images: Path, config: "Config", out: Path) -> "Outcome":
    from srd_onnx.audit.run import run_audit

    with watched() as watch:
        return run_audit(explainer, images, config, out, command=("srd-onnx", *sys.argv[1:]), watch=watch)


@contextlib.contextmanager
def watched() -> "Iterator[Watch]":
    """Who shows how far the work is: a bar on a terminal, else nobody; Ctrl-C says that it can be gone on with."""
    from srd_onnx.audit.run import Watch
    from srd_onnx.cli.audit_progress import Bar

    console = stderr()
    try:
        if console.is_terminal:
            with Bar(console) as bar:
                yield bar
        else:
            yield Watch()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from there") from None


def _show(outcome: "Outcome") -> None:
    console = stdout()
    for sentence in outcome.answer:
        console.print(Text(lines(sentence)), soft_wrap=True)
    console.print(cell(report_files(outcome.folder)), soft_wrap=True)


def report_files(folder: Path) -> str:
    """Which files are in a report, and what checks them."""
    from srd_onnx.audit.output import CSV, HTML, JSON, PDF

    names = [name for name in (HTML, PDF, CSV, JSON) if (folder / name).exists()]
    place = f"{folder}".rstrip("/\\")
    return f"{', '.join(names)} are in {place}/; `srd-onnx verify {place}` checks them"
