"""The command as a process: its streams, Ctrl-C, closed pipes, terminals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from srd_onnx.cli.interrupt import uninterrupted
from srd_onnx.zoo import sample_photo
from tests.cli_tools import command, photo, process, run, small


def test_json_is_all_that_is_on_stdout(tmp_path: Path) -> None:
    photos = [photo(tmp_path / f"{name}.png") for name in "ab"]
    done = process("explain", small(tmp_path), *photos, "-o", tmp_path / "o", "--json", FORCE_COLOR="1")
    assert done.returncode == 0
    assert [one["name"] for one in json.loads(done.stdout)["explanations"]] == ["a", "b"]
    assert b"preprocessing ASSUMED" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["models"], 0),
        (["check", "squeezenet11"], 0),
        (["check", "nowhere.onnx"], 2),
        (["check"], 2),
        (["--help"], 0),
    ],
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    done = process(*arguments)
    assert done.returncode == code
    assert (done.stdout == b"") == (code == 2)
    assert (done.stderr == b"") == (code == 0)


def test_a_terminal_without_unicode_gets_a_result_all_the_same(tmp_path: Path) -> None:
    done = process(
        "explain", "squeezenet11", sample_photo(), "-o", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Egyptian cat" in done.stdout


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    image = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.png"))
    photo(image)
    done = process("explain", small(tmp_path), image, "-o", tmp_path / "o", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["explanations"][0]["image"] == str(image)
    assert json.loads((tmp_path / "o" / "explanations.json").read_text())["explanations"][0]["image"] == str(
        image
    )


def test_ctrl_c_stops_with_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    photos = [photo(tmp_path / f"{number}.png", number) for number in range(300)]
    out = tmp_path / "out"
    arguments = (
        "explain",
        small(tmp_path),
        *photos,
        "-o",
        out,
        "--preprocess",
        table(tmp_path),
        "--layout",
        "NCHW",
    )
    running = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: out.is_dir() and len(list(out.glob("*.npz"))) >= 3)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout) == (130, b"")
    found = json.loads((out / "explanations.json").read_text())
    count = len(found["explanations"])
    assert stderr.decode() == f"interrupted: {count} explanations are done, see {out}/explanations.json\n"
    assert found["complete"] is False
    assert 3 <= count < 300
    listed = {name for one in found["explanations"] for name in one["files"].values()}
    assert {path.name for path in out.iterdir()} == {*listed, "explanations.json"}


def test_ctrl_c_before_the_first_result_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("srd_onnx.explainer.Explainer.explain_numbered", stop)
    result = run("explain", "squeezenet11", sample_photo(), "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    script = (
        "from srd_onnx import cli\nfrom srd_onnx.ort import cuda, runtime\n"
        "state = cuda.CudaState(driver=True, problem='libcudnn.so.9 not found', remedy='install it')\n"
        "runtime.cuda_state = lambda: state\n"
        "cli.main()"
    )
    arguments = ("explain", "squeezenet11", str(sample_photo()), "-o", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr == "CUDA is not usable (libcudnn.so.9 not found): running on the CPU; install it\n"
    assert done.stdout.count("CUDA") == 0


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    steps = []

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("went on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    running = subprocess.Popen(
        command("check", "efficientnet_lite0", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    stderr = running.stderr.read()
    running.stderr.close()
    assert running.wait(timeout=60) == 1
    assert stderr == b""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
@pytest.mark.parametrize(("count", "shown"), [(1, False), (3, True)])
def test_a_bar_is_shown_on_a_terminal_for_several_images(tmp_path: Path, count: int, shown: bool) -> None:
    photos = [photo(tmp_path / f"{number}.png", number) for number in range(count)]
    ours, theirs = os.openpty()
    arguments = ("explain", small(tmp_path), *photos, "-o", tmp_path / "out", "--json")
    running = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    said = read_all(ours)
    stdout, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert len(json.loads(stdout)["explanations"]) == count
    assert (b"explaining" in said) == shown


def read_all(descriptor: int) -> bytes:
    said = b""
    try:
        while part := os.read(descriptor, 4096):
            said += part
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(descriptor)
    return said


def table(folder: Path) -> Path:
    path = folder / "p.toml"
    path.write_text("resize = [32, 32]\n")
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
