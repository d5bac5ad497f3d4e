"""An evaluation that is stopped, killed, and run again."""

import csv
import io
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cli_tools import run
from tests.evaluation_nets import photos
from tests.test_cli_evaluate import PLACE, QUICK, model, table

STOPS = """
import os, signal, sys
from srd_onnx.evaluation.store import Store
add, count = Store.add, 0
def stopping(self, place, metric, number):
    global count
    count += 1
    if (count, "before") == WHEN:
        os.kill(os.getpid(), SIGNAL)
    add(self, place, metric, number)
    if (count, "after") == WHEN:
        os.kill(os.getpid(), SIGNAL)
Store.add = stopping
from srd_onnx.cli import main
try:
    main()
finally:
    sys.stderr.write(f"added {count}")
"""


def stopped(arguments: Sequence[object], when: tuple[int, str], how: str) -> subprocess.CompletedProcess[str]:
    script = STOPS.replace("WHEN", repr(when)).replace("SIGNAL", f"signal.{how}")
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_killed_at_any_moment_it_goes_on_with_nothing_lost_or_done_twice(tmp_path: Path) -> None:
    photos(tmp_path / "p", "red", "green")
    arguments = ["evaluate", model(tmp_path), tmp_path / "p", *PLACE, *QUICK, "-o"]
    whole = stopped([*arguments, tmp_path / "whole"], (0, "never"), "SIGKILL")
    assert (whole.returncode, whole.stderr) == (0, "added 18")
    done = 0
    for count, moment in ((1, "before"), (1, "after"), (4, "before"), (6, "after")):
        killed = stopped([*arguments, tmp_path / "killed"], (count, moment), "SIGKILL")
        assert killed.returncode == -signal.SIGKILL
        done += count - (moment == "before")
    last = stopped([*arguments, tmp_path / "killed"], (0, "never"), "SIGKILL")
    assert (last.returncode, last.stderr) == (0, f"added {18 - done}")
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    plain = [without_seconds(tmp_path / name / "evaluation.csv") for name in ("killed", "whole")]
    assert plain[0] == plain[1]
    pictures = [(tmp_path / name / "evaluation.png").read_bytes() for name in ("killed", "whole")]
    assert pictures[0] == pictures[1]


def without_seconds(path: Path) -> bytes:
    """The bytes of the file but for two columns."""
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode())))
    at = [rows[0].index(name) for name in ("seconds", "map_seconds")]
    return "\n".join(repr([x for i, x in enumerate(row) if i not in at]) for row in rows).encode()


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    photos(tmp_path / "p", "red", "green")
    out = tmp_path / "out"
    result = stopped(
        ["evaluate", model(tmp_path), tmp_path / "p", *PLACE, *QUICK, "-o", out], (5, "after"), "SIGINT"
    )
    assert result.returncode == 130
    kept = (
        f"interrupted: 5 of 18 numbers are in {out}/evaluation.sqlite; the same command goes on from there\n"
    )
    assert result.stderr == f"{kept}added 5"
    assert {path.name for path in out.iterdir()} == {"evaluation.sqlite"}


def test_a_second_run_beside_the_first_is_refused(tmp_path: Path) -> None:
    from srd_onnx.evaluation.store import open_store

    photos(tmp_path / "p", "red")
    with open_store(tmp_path / "out" / "evaluation.sqlite"):
        result = run("evaluate", model(tmp_path), tmp_path / "p", *PLACE, *QUICK, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "is in use: another `srd-onnx evaluate` writes there" in result.stderr
