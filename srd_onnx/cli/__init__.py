"""The command line: `srd-onnx explain | check | compile | models`."""

import sys
from typing import TextIO


def main() -> None:
    """Run the command that `sys.argv` asks for, and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_a_character(stream)
    try:
        # Here, and not above, so that Ctrl-C ends even the start with one line.
        from srd_onnx.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _never_fail_on_a_character(stream: TextIO | None) -> None:
    """A terminal without Unicode must not turn a result into a UnicodeEncodeError."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
