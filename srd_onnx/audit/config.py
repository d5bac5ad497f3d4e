"""What an audit is asked to do: a TOML file, read into plain data."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from srd_onnx.errors import OptionError
from srd_onnx.inputs.preprocess import Preprocess, preprocess_from_dict

USUAL_METRICS = ("insertion-minus-deletion", "sparseness")


def _about(kind: str, said: str) -> dict[str, str]:
    """Of a field: `kind` is one of `_KINDS`, `said` its comment in the file that `--init` writes."""
    return {"kind": kind, "said": said}


@dataclass(frozen=True)
class Asked:
    """`[explain]`: what is explained, how, and how it is measured.

    Attributes:
        metrics: None for the usual ones, of which those are left out that are not for the model.
    """

    targets: tuple[str, ...] = field(
        default=("top1",),
        metadata=_about("texts", "classes by index, label or topN, or elements as 'output[3, 4]'"),
    )
    contrasts: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_about("pairs", "what speaks for one class rather than another: [['tabby', 'tiger cat']]"),
    )
    methods: tuple[str, ...] = field(
        default=("srd",),
        metadata=_about("texts", "as `srd-onnx methods` lists them, the first is shown first"),
    )
    metrics: tuple[str, ...] | None = field(
        default=None,
        metadata=_about("texts", f"as `srd-onnx metrics` lists them; left out: {', '.join(USUAL_METRICS)}"),
    )
    sanity_images: int = field(
        default=8,
        metadata=_about(
            "count",
            "so many images, drawn by the seed, are also asked about redrawn weights and other classes",
        ),
    )
    seed: int = field(default=0, metadata=_about("count", "of everything random"))


@dataclass(frozen=True)
class Data:
    """`[data]`: the images, and what is known about them; paths are relative to the file."""

    truth: Path | None = field(
        default=None,
        metadata=_about("path", "true classes, a CSV of two columns: file (relative to the folder), class"),
    )
    masks: Path | None = field(
        default=None,
        metadata=_about(
            "path", "a folder of masks: NAME.png for NAME.jpg, white on black or as in ImageNet-S"
        ),
    )
    mask_classes: Path | None = field(
        default=None, metadata=_about("path", "line n names the class of id n in ImageNet-S masks")
    )


@dataclass(frozen=True)
class Model:
    """`[model]`: how the model is read."""

    labels: Path | None = field(default=None, metadata=_about("path", "class names, one per line or JSON"))
    layout: str | None = field(
        default=None, metadata=_about("text", "axes of the input, such as 'NCHW'; guessed if left out")
    )
    provider: str = field(default="auto", metadata=_about("text", "auto, cuda or cpu"))
    max_memory: str | None = field(
        default=None,
        metadata=_about(
            "text",
            "about what an explanation by SRD may take, such as '2GB'; then none can be looked into layer by layer",
        ),
    )


@dataclass(frozen=True)
class Shown:
    """`[report]`: what of it the report shows; changing this computes nothing again."""

    title: str | None = field(default=None, metadata=_about("text", "of the report"))
    images: int = field(
        default=100, metadata=_about("count", "so many are shown: what stands out first, then the first ones")
    )
    explored: int = field(
        default=12,
        metadata=_about(
            "count", "the first of these can be looked into: relevance by layer, receptive fields"
        ),
    )
    pdf: bool = field(default=True, metadata=_about("flag", "also write report.pdf"))


@dataclass(frozen=True)
class Config:
    """All of it. `preprocess` is None where the file has no table of that name."""

    explain: Asked = Asked()
    data: Data = Data()
    model: Model = Model()
    report: Shown = Shown()
    preprocess: Preprocess | None = None


def read_config(path: str | Path) -> Config:
    """Read a file as `config_text` writes it.

    Raises:
        OptionError: it cannot be read, is no TOML, has a key that is not known, or a value of the wrong type.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: cannot read the configuration: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{path}: not a TOML file: {error}") from error
    return config_of(tables, path)


def config_of(tables: Mapping[str, Any], path: Path) -> Config:
    """A configuration from plain data; raises as `read_config` does, naming `path`."""
    parts: dict[str, Any] = {}
    _require_known(tables, [one.name for one in fields(Config)], str(path))
    for name, table in tables.items():
        where = f"{path}: [{name}]"
        if not isinstance(table, dict):
            raise OptionError(f"{where}: must be a table of keys, not {table!r}")
        parts[name] = (
            preprocess_from_dict(table, where)
            if name == "preprocess"
            else _part(_PARTS[name], table, where, path.parent)
        )
    return Config(**parts)


_PARTS: Mapping[str, type[Any]] = {"explain": Asked, "data": Data, "model": Model, "report": Shown}


def _part(kind: type[Any], table: Mapping[str, Any], where: str, folder: Path) -> Any:
    known: dict[str, Field[Any]] = {one.name: one for one in fields(kind)}
    _require_known(table, list(known), where)
    return kind(
        **{
            name: _value(value, known[name].metadata["kind"], f"{where} {name}", folder)
            for name, value in table.items()
        }
    )


def _require_known(table: Mapping[str, Any], known: list[str], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise OptionError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}")


def _value(value: Any, kind: str, where: str, folder: Path) -> Any:
    """The value as the field has it.

    Raises: OptionError if it is of another type.
    """
    if kind == "text" and isinstance(value, str) and value:
        return value
    if kind == "path" and isinstance(value, str) and value:
        return folder / value
    if kind == "flag" and isinstance(value, bool):
        return value
    if kind == "count" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind == "texts" and _are_texts(value) and value:
        return tuple(value)
    if (
        kind == "pairs"
        and isinstance(value, list)
        and all(_are_texts(one) and len(one) == 2 for one in value)
    ):
        return tuple((first, second) for first, second in value)
    raise OptionError(f"{where}: must be {_KINDS[kind]}, not {value!r}")


_KINDS = {
    "text": "a text",
    "path": "a path",
    "flag": "true or false",
    "count": "a whole number from 0 on",
    "texts": "a list of texts, at least one",
    "pairs": "a list of pairs of classes, such as [['tabby', 'tiger cat']]",
}


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def config_text() -> str:
    """A commented file that says the defaults; what has none is commented out."""
    lines = ["# What `srd-onnx audit --config FILE` does. Options of the command line go before it.", ""]
    for name, kind in _PARTS.items():
        lines.append(f"[{name}]")
        for one in fields(kind):
            assert one.default is not MISSING
            said, default = one.metadata["said"], one.default
            if default is None:
                lines.append(f"# {one.name} = {_example(one.metadata['kind'])}  # {said}")
            else:
                lines.append(f"{one.name} = {_as_toml(default)}  # {said}")
        lines.append("")
    lines += [
        "# How a photo becomes the model's input: x = (pixel * scale - mean) / std. Without this table: what the zoo",
        "# knows of the model, else the usual values of ImageNet models, and the report says that they are assumed.",
        "# [preprocess]",
        "# resize = 256                      # short side; [H, W] for exact",
        "# crop = [224, 224]",
        "# scale = 0.00392156862745098",
        "# mean = [0.485, 0.456, 0.406]",
        "# std = [0.229, 0.224, 0.225]",
        '# channel_order = "RGB"             # or BGR, GRAY',
    ]
    return "\n".join(lines) + "\n"


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'


def _example(kind: str) -> str:
    return '["NAME"]' if kind == "texts" else '"..."'


def as_plain(config: Config) -> dict[str, Any]:
    """As plain data for a report."""
    return asdict(config)
