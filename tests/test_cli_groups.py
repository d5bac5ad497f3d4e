"""Options that several commands share: fields of a dataclass, in its place."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.testing import CliRunner

from srd_onnx.cli.groups import ungrouped


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option("--width")] = 3
    height: Annotated[int | None, typer.Option("--height")] = None


@dataclass(frozen=True)
class Box(Size):
    depth: Annotated[int, typer.Option("--depth")] = 1


def made(taken: list[Any]) -> Any:
    def command(*, name: str, box: Box, last: bool = False) -> None:
        """What it does."""
        taken.append((name, box, last))

    return command


def test_fields_are_options_where_the_dataclass_stands() -> None:
    flat = ungrouped(made([]))
    assert [*inspect.signature(flat).parameters] == ["name", "width", "height", "depth", "last"]
    assert flat.__doc__ == "What it does."


def test_the_command_is_given_the_dataclass() -> None:
    taken: list[Any] = []
    app = typer.Typer()
    app.command()(ungrouped(made(taken)))
    runner = CliRunner()
    assert runner.invoke(app, ["box", "--height", "5", "--depth", "2", "--last"]).exit_code == 0
    assert runner.invoke(app, ["box"]).exit_code == 0
    assert taken == [("box", Box(3, 5, 2), True), ("box", Box(), False)]
    assert runner.invoke(app, ["box", "--width", "wide"]).exit_code == 2
    assert len(taken) == 2
