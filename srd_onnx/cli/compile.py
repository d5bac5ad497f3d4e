"""`srd-onnx compile MODEL -o OUT.onnx`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from srd_onnx.cli.console import cell, note, stdout
from srd_onnx.cli.options import LayoutOption, MapOptions, ModelArgument, explainer_for, layout_of
from srd_onnx.errors import OutputError

if TYPE_CHECKING:
    import onnx


def compile_command(
    *,
    model: ModelArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT.onnx", help="The file to write.", show_default=False)
    ],
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Inputs per run.")] = 1,
    engine: MapOptions,
    layout: LayoutOption = None,
) -> None:
    """Write MODEL with its explanation as one ordinary ONNX file, which runs without srd-onnx.

    It has the outputs of MODEL and `relevance`; the extra input `target` may be left out (the top class).
    """
    from srd_onnx.cli.record import usable

    usable(out.parent)
    explainer = explainer_for(model, **vars(engine), layout=layout_of(layout), providers="cpu")
    source = explainer.model.path
    if source is not None and out.exists() and out.samefile(source):
        raise OutputError(f"{out} is the model itself. Choose another name with -o.")
    made = explainer.compile(out, batch=batch)
    if explainer.layout_guessed:
        note(f"layout {explainer.layout} is guessed; --layout says another")
    console = stdout()
    console.print(Text("wrote ") + cell(out) + Text(f" ({out.stat().st_size / 1e6:.1f} MB)"), soft_wrap=True)
    for kind, values in (("input", made.graph.input), ("output", made.graph.output)):
        for value in values:
            console.print(Text(f"  {kind:6}  ") + cell(_described(value)), soft_wrap=True)
    console.print("\nRun it with plain onnxruntime:\n")
    console.print(Text(_snippet(made, out)), soft_wrap=True)


def _described(value: "onnx.ValueInfoProto") -> str:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    shape = ", ".join(
        str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
    )
    tail = " (optional; -1, the default, is the top class)" if value.name == "target" else ""
    return f"{value.name} {TensorProto.DataType.Name(tensor.elem_type).lower()}[{shape}]{tail}"


def _snippet(made: "onnx.ModelProto", path: Path) -> str:
    from onnx import helper

    source = made.graph.input[0]
    tensor = source.type.tensor_type
    shape = [d.dim_value for d in tensor.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    names = [value.name for value in made.graph.output]
    first = ascii(names[0])
    return (
        "import numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(path)!a})\n"
        f"x = numpy.zeros({tuple(shape)}, numpy.{dtype})  # put the preprocessed photos here\n"
        f'scores, relevance = session.run([{first}, "relevance"], {{{source.name!a}: x}})\n'
    )
