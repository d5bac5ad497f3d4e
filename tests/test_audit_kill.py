"""An audit that is killed, again and again, ends as one that was not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from srd_onnx.audit.manifest import MANIFEST, OWN, files_in
from srd_onnx.audit.output import STATE
from srd_onnx.audit.verify import verify
from tests.audit_tools import folder, rows

KILLS, IMAGES = 50, 24

# One process imports everything, and forks the audits that are killed: so each costs a fraction of a second.
_SERVER = """
import datetime, os, random, signal, sys, time
from pathlib import Path
from srd_onnx.audit import run
from srd_onnx.audit.config import Config, Shown
from srd_onnx.report import html, pdf
from tests.audit_tools import QUICK, colours
import zarr

class Then(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, tzinfo=tz)

run.datetime = Then
config = Config(QUICK, report=Shown(images=6, explored=1))

place, kills = Path(sys.argv[1]), int(sys.argv[2])

def audit(out):
    run.run_audit(colours(place / "model.onnx"), place / "images", config, out, command=("same",))

def child(out):
    pid = os.fork()
    if pid == 0:
        audit(out)
        os._exit(0)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

began = time.perf_counter()
assert ended(child(place / "whole")) == 0
whole = time.perf_counter() - began
drawn, killed, tried = random.Random(0), 0, 0
while killed < kills and tried < 4 * kills:
    tried += 1
    pid = child(place / "killed")
    # The longest ones end while the report is written.
    time.sleep(drawn.uniform(0, whole * (0.25 if killed < 0.8 * kills else 1.2)))
    os.kill(pid, signal.SIGKILL)
    killed += ended(pid) == -signal.SIGKILL
assert ended(child(place / "killed")) == 0
print(killed)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `whole` is an audit that nobody killed, and `killed` one that was killed fifty times."""
    place = tmp_path_factory.mktemp("audits")
    folder(place / "images", IMAGES)
    done = subprocess.run(
        [sys.executable, "-c", _SERVER, str(place), str(KILLS)],
        capture_output=True, text=True, check=False, timeout=600, env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == KILLS
    return place


def test_the_files_are_the_same_byte_for_byte(place: Path) -> None:
    whole, killed = (files_in(place / name) for name in ("whole", "killed"))
    assert set(whole) == set(killed)
    assert {"report.html", "report.pdf", "report.csv", "report.json"} < set(whole)
    assert sum(name.startswith("state/maps.zarr/") for name in whole) > IMAGES
    for name, path in whole.items():
        if name not in (MANIFEST, OWN, str(STATE)):  # sqlite's own pages tell what was written when
            assert path.read_bytes() == killed[name].read_bytes(), name


def test_the_rows_are_the_same(place: Path) -> None:
    for table in ("images", "work", "explanations", "numbers"):
        found = rows(place / "whole", table)
        assert len(found) >= IMAGES
        assert found == rows(place / "killed", table)


def test_both_verify(place: Path) -> None:
    for name in ("whole", "killed"):
        checked = verify(place / name, sample=3)
        assert checked.problems == ()
        assert checked.maps == 3
