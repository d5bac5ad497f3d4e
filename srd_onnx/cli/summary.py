"""What `explain` tells in the terminal: notes that make the result honest, and a table of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from srd_onnx.cli.console import cell, note, stdout, table_of, warning
from srd_onnx.cli.preprocessing import as_options
from srd_onnx.cli.record import FILE, Record
from srd_onnx.text import safe_file_name

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer
    from srd_onnx.explanation import Explanation


def announce(explainer: "Explainer", assumed: Sequence[str]) -> list[str]:
    """Say what the user should know before the first result; what was said."""
    texts = [*warnings_before(explainer, assumed)]
    for text in texts:
        warning(text)
    for text in notes_before(explainer):
        note(text)
        texts.append(text)
    return texts


def warnings_before(explainer: "Explainer", assumed: Sequence[str]) -> Iterator[str]:
    """What may make every explanation of this run wrong, known before the first one."""
    from srd_onnx.inputs.preprocess import Preprocess

    if assumed and isinstance(explainer.preprocess, Preprocess):
        yield (
            f"preprocessing ASSUMED ({', '.join(assumed)}): an ONNX file does not say it, and with the wrong one "
            f"the scores and the explanation are wrong. This run uses\n  {as_options(explainer.preprocess)}\n"
            "Give what the model was trained with by these options, or by --preprocess FILE.toml."
        )


def notes_before(explainer: "Explainer") -> Iterator[str]:
    """What the user should know, known before the first explanation."""
    if explainer.provider_note:
        yield explainer.provider_note
    if explainer.model.precision is not None:
        yield explainer.model.precision
    if explainer.layout_guessed:
        shape = "x".join(map(str, explainer.input_shape))
        yield f"layout {explainer.layout} guessed from the input of {shape}; --layout says another"


def notes_after(explanation: "Explanation", labels: Sequence[str] | None) -> Iterator[str]:
    """What one explanation shows to be worth knowing."""
    scores = len(explanation.logits)
    if labels is not None and len(labels) != scores and isinstance(explanation.target, int):
        yield (
            f"the labels do not fit: {len(labels)} labels for {scores} scores, so the names may be those of other "
            "classes. Give the right file with --labels."
        )
    approximate = explanation.meta["approximate"]
    if approximate:
        by_reason: dict[str, list[str]] = {}
        for name, why in approximate.items():
            by_reason.setdefault(why, []).append(name)
        yield "\n".join(
            f"approximate at {len(names)} nodes, such as {names[0]}: {why}"
            for why, names in by_reason.items()
        )
    method = explanation.meta["method"]
    if method.get("note"):
        yield f"{method['title']}: {method['note']}"
    for text in explanation.warnings:
        yield f"{explanation.name}, {explanation.title}: {text}"


def _adds_up(method: Mapping[str, Any]) -> bool:
    """Whether map and ledger sum to the seed by the method's definition; SRD's do."""
    return bool(method.get("complete", True))


def announce_after(explanations: "Sequence[Explanation]", labels: Sequence[str] | None) -> list[str]:
    """Say what explanations show to be worth knowing, each thing once; what was said."""
    texts = list(dict.fromkeys(text for one in explanations for text in notes_after(one, labels)))
    for text in texts:
        note(text)
    return texts


def show(record: Record) -> None:
    """Print the table, and where the files are."""
    if not record.entries:
        return
    console = stdout()
    console.print(_table(record))
    if len({entry["image"] for entry in record.entries}) == 1:
        top = " · ".join(f"{_class(one)} {one['logit']:.4g}" for one in record.entries[0]["top5"])
        console.print(Text("top 5: ") + cell(top), soft_wrap=True)
    files = sum(len(entry["files"]) for entry in record.entries)
    provider, sha256 = record.run["provider"].removesuffix("ExecutionProvider"), record.run["model"]["sha256"]
    console.print(cell(f"{provider}, {_how(record.run)}, model sha256 {sha256[:12]}"), soft_wrap=True)
    console.print(cell(f"{files} files and {FILE} are in {as_folder(record.folder)}"), soft_wrap=True)


def _how(run: Mapping[str, Any]) -> str:
    """The method, and the options of it that mean something."""
    from srd_onnx.methods.method import title_of

    options, title = run["options"], title_of(run["method"])
    if title:
        return f"{title}, boundary {options['boundary']}, seed {options['seed']}"
    return f"preset {run['preset']} ({', '.join(f'{key} {value}' for key, value in options.items())})"


def _table(record: Record) -> Table:
    logit = record.run["options"]["seed"] == "logit"
    table = table_of("image", "target")
    for name in ("logit", *([] if logit else ["seed"]), "Σ relevance", "ledger", "residual"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("files", no_wrap=True)
    for entry in record.entries:
        seed = [] if logit else [entry["seed_value"]]
        numbers = [entry["logit"], *seed, entry["sum_relevance"], entry["sum_ledger"]]
        table.add_row(
            cell(entry["name"]),
            cell(_class({"index": entry["target"], "label": entry["label"]})),
            *(f"{number:.4f}" for number in numbers),
            f"{entry['residual']:.1e}" if _adds_up(record.run["method"]) else "-",
            cell(f"{entry['files']['png'].removeprefix(safe_file_name(entry['name']))} .npz"),
        )
    return table


def _class(one: dict[str, Any]) -> str:
    if isinstance(one["index"], str):
        return one["label"] or one["index"]
    return f"{one['label']} ({one['index']})" if one["label"] is not None else f"class {one['index']}"


def as_folder(path: Path) -> str:
    """A path that shows that it is a folder."""
    return f"{path}".rstrip("/\\") + "/"
