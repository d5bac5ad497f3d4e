"""The configuration of an audit: what --init writes loads to the defaults, and every mistake is said."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from srd_onnx.audit.config import Asked, Config, config_of, config_text, read_config
from srd_onnx.errors import OptionError
from srd_onnx.inputs.preprocess import Preprocess
from tests.cli_tools import run


def test_what_init_writes_loads_to_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    assert run("audit", "--init", "--config", path).exit_code == 0
    assert read_config(path) == Config()
    refused = run("audit", "--init", "--config", path)
    assert refused.exit_code == 2
    assert "is there already" in refused.stderr


def test_what_it_comments_out_is_a_field_too() -> None:
    opened = re.sub(r"^# (\w+ = )", r"\1", config_text(), flags=re.MULTILINE).replace(
        "# [preprocess]", "[preprocess]"
    )
    config = config_of(tomllib.loads(opened), Path("a.toml"))
    for part in ("explain", "data", "model", "report"):
        names = {one.name for one in dataclasses.fields(getattr(config, part))}
        assert names == set(tomllib.loads(opened)[part])
    assert config.explain.metrics == ("NAME",)
    assert config.preprocess == Preprocess(
        256, (224, 224), 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )


def test_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        '[explain]\ntargets = ["top3", "281"]\ncontrasts = [["cat", "dog"]]\nseed = 7\n[data]\ntruth = "t.csv"\n'
        "[report]\npdf = false\n"
    )
    config = read_config(path)
    assert config.explain == Asked(targets=("top3", "281"), contrasts=(("cat", "dog"),), seed=7)
    assert config.data.truth == tmp_path / "t.csv"
    assert not config.report.pdf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[explain]\ntarget = ['top1']", r"\[explain\]: unknown key 'target'; known: targets, contrasts"),
        ("[nothing]", "unknown key 'nothing'; known: explain, data, model, report, preprocess"),
        ("explain = 3", r"\[explain\]: must be a table"),
        (
            "[explain]\ntargets = 'top1'",
            r"\[explain\] targets: must be a list of texts, at least one, not 'top1'",
        ),
        ("[explain]\ntargets = []", "at least one, not"),
        ("[explain]\ntargets = [1]", "must be a list of texts"),
        ("[explain]\nseed = -1", "seed: must be a whole number from 0 on, not -1"),
        ("[explain]\nseed = true", "seed: must be a whole number"),
        ("[explain]\nseed = 1.5", "seed: must be a whole number"),
        ("[explain]\ncontrasts = [['a']]", "must be a list of pairs"),
        ("[report]\npdf = 'yes'", "pdf: must be true or false"),
        ("[data]\ntruth = ''", "truth: must be a path"),
        ("[model]\nlayout = 3", "layout: must be a text"),
        ("[preprocess]\nresize = 'big'", r"\[preprocess\]: resize must be"),
        ("[preprocess]\nsize = 3", r"\[preprocess\]: unknown key 'size'"),
        ("[explain", "not a TOML file"),
    ],
)
def test_a_mistake_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=said):
        read_config(path)
    assert str(path) in run("audit", "squeezenet11", tmp_path, "--config", path).stderr


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read the configuration: No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="not a TOML file"):
        read_config(tmp_path / "b.toml")
