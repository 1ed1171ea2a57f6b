"""Where a suite's relative paths lead: from the folder that it lies in."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from tiny_suite import TRAIN, write_texts

from bench.cli.main import main
from bench.data.config import load
from bench.suites.config import Suite, load_suite
from patchers.errors import BenchError

PLUGIN = """\
import numpy as np
from patchers import Patcher, register

@register("{name}")
class Own(Patcher):
    def segment(self, data):
        starts = np.zeros(len(data), bool)
        starts[::4] = True
        return starts
"""


def write(folder: Path, plugin: str) -> Path:
    """A suite with its texts and its plug-in beside it."""
    folder.mkdir(parents=True)
    write_texts(folder)
    (folder / "own.py").write_text(PLUGIN.format(name=plugin))
    suite = {
        "data": {"files": "texts.jsonl", "field": "text", "calibration": 0.2, "test": 0.2},
        "eval": {"more": {"files": "texts.jsonl", "field": "text", "test": 0.5, "calibration": 0.2}},
        "plugins": ["own.py"],
        "train": TRAIN,
        "rows": {"own": {"patcher": plugin}},
    }
    (folder / "mine.yaml").write_text(json.dumps(suite))
    return folder / "mine.yaml"


def fingerprints(suite: Suite) -> list[str]:
    return [load(config).fingerprint for config in (suite.data, *suite.eval.values())]


def test_paths_begin_in_the_folder_of_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "there", "own-of-there")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    near = load_suite("mine.yaml")
    monkeypatch.chdir(tmp_path / "here")
    far = load_suite("../there/mine.yaml")
    absolute = load_suite(str(path))
    assert fingerprints(far) == fingerprints(near) == fingerprints(absolute)
    names = [suite.run_config("own") for suite in (near, far, absolute)]
    assert names[0] == names[1] == names[2], "a run is the same from wherever it is begun"
    assert str(tmp_path) not in json.dumps(names)


def test_a_path_from_the_working_directory_alone_still_leads_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "there", "own-of-old")
    (tmp_path / "suites").mkdir()
    moved = path.rename(tmp_path / "suites" / "mine.yaml")
    monkeypatch.chdir(tmp_path / "there")
    found = fingerprints(load_suite(str(moved)))
    assert len(set(found)) == 2
    for name in ("texts.jsonl", "own.py"):
        said = [r.message for r in caplog.records if r.message.startswith(f"{name} is not in {tmp_path / 'suites'}")]
        assert len(said) == 1
        assert "the one in the working directory is taken" in said[0]


def test_what_was_typed_begins_where_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "there", "own-typed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.txt").write_text("".join(f"some text, {number}\n\n" for number in range(4000)))
    suite = load_suite(str(path), ["data.files=other.txt", "data.field=null", "eval={}"])
    assert load(suite.data).name.startswith("other.txt")
    (tmp_path / "there" / "other.txt").write_text("not this one")
    assert suite.data.folder is None
    with pytest.raises(BenchError, match=rf"no file matches 'gone\*\.txt' \(from {tmp_path}\)"):
        load(load_suite(str(path), ["data.files=gone*.txt", "data.field=null"]).data)
    path.write_text(path.read_text().replace('"texts.jsonl"', '"gone.jsonl"'))
    with pytest.raises(BenchError, match=rf"no file matches 'gone\.jsonl' \(from {tmp_path / 'there'}\)"):
        load(load_suite(str(path)).data)


def test_suites_that_ship_take_files_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.dumps({"text": f"text {number} " * 50}) for number in range(300)]
    (tmp_path / "docs-en.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    suite = load_suite("study")
    with pytest.raises(BenchError, match=rf"no file matches 'docs-en\.jsonl\.xz' \(from {tmp_path}\)"):
        load(suite.data)
    (tmp_path / "docs-en.jsonl.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    assert load(suite.data).train.bytes > 0
    assert not caplog.text


def test_a_run_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "there", "own-run")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    small = ["train.bytes=2000", "model.latent_layers=1", "model.ngram_rows=97", "model.patch_rows=97", "eval={}"]
    assert main(["run", str(path), *small, "--workers", "2"]) == 0
    assert len(list((tmp_path / "here" / "results" / "mine" / "runs").glob("*.json"))) == 1
