"""The commands, and what becomes of their errors."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from srd_onnx.cli.apop import apop
from srd_onnx.cli.audit import audit
from srd_onnx.cli.cache import cache
from srd_onnx.cli.check import check
from srd_onnx.cli.compare import compare
from srd_onnx.cli.compile import compile_command
from srd_onnx.cli.console import error, note
from srd_onnx.cli.erf import erf
from srd_onnx.cli.evaluate import evaluate
from srd_onnx.cli.explain import explain
from srd_onnx.cli.groups import ungrouped
from srd_onnx.cli.layers import layers
from srd_onnx.cli.listings import methods, metrics
from srd_onnx.cli.models import models
from srd_onnx.cli.options import Contrasting
from srd_onnx.cli.preactivations import preactivations
from srd_onnx.cli.verify import verify
from srd_onnx.errors import SrdOnnxError


class _Commands(TyperGroup):
    """Turns what may go wrong into one message and an exit code; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command: 2 for an error that is the user's to mend, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except SrdOnnxError as problem:
            error(str(problem))
            raise typer.Exit(2) from problem
        except KeyboardInterrupt as stop:
            note("interrupted" + "".join(f": {said}" for said in stop.args))
            raise typer.Exit(130) from stop


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=Contrasting)(ungrouped(explain))
app.command(cls=Contrasting)(ungrouped(erf))
app.command(cls=Contrasting)(ungrouped(layers))
app.command()(ungrouped(preactivations))
app.command()(ungrouped(check))
app.command("compile")(ungrouped(compile_command))
app.command()(ungrouped(apop))
app.command()(ungrouped(evaluate))
app.command()(ungrouped(audit))
app.command()(ungrouped(compare))
app.command()(verify)
app.command()(methods)
app.command()(metrics)
app.command()(models)
app.command()(cache)


def _show_version(asked: bool) -> None:  # noqa: FBT001 - a callback of typer
    if asked:
        from importlib.metadata import version

        typer.echo(f"srd-onnx {version('srd-onnx')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Explain the decisions of an exported ONNX model, from the .onnx file alone."""
