"""`patchbench intrinsics`: numbers of patchers without training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import write_suite
from tokenizer_files import by_hand_tokenizer

import patchers
from bench.cli.main import main
from bench.reporting.intrinsics import read

NTREX = Path(__file__).resolve().parents[4] / "shared" / "data" / "benchmarks" / "ntrex-24.tar.xz"
Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Run `patchbench intrinsics` in an empty folder; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        code = main(["intrinsics", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_patchers_of_a_suite_on_its_text(call: Called, tmp_path: Path) -> None:
    rows: dict[str, dict[str, Any]] = {
        "stride": {"patcher": "stride"},
        "tokens": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
        "same": {"patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
        "routed": {"patcher": "hnet"},
        "bytes": {"model": "byte_lm"},
        "mine": {"patcher": {"name": "tokenizer", "file": str(by_hand_tokenizer())}},
    }
    suite = str(write_suite(tmp_path, rows=rows))
    code, out, err = call(suite, "--format", "json", "-o", "heat.svg")
    assert code == 0
    assert "wrote heat.svg" in err
    assert Path("heat.svg").read_text().startswith("<?xml")
    numbers, agreement = json.loads(out)
    assert [row["label"] for row in numbers["rows"]] == ["stride", "tokens", "mine"]
    assert numbers["rows"][0]["cells"]["bytes_per_patch"] == pytest.approx(3.5, rel=0.1)
    assert numbers["rows"][1]["cells"]["fit_seconds"] > 0
    assert any("Cut alike: same as tokens." in note for note in numbers["notes"])
    assert any("alone: routed." in note for note in numbers["notes"])
    assert agreement["rows"][0]["cells"]["stride"] == 1.0
    assert len(read(tmp_path / "results" / "tiny" / "intrinsics.json")) == 2
    again = json.loads(call(suite, "--format", "json", "--columns", "fertility,fit_seconds")[1])[0]
    assert again["rows"][1]["cells"]["fit_seconds"] is None, "it was in the cache"
    assert again["rows"][1]["cells"]["fertility"] == numbers["rows"][1]["cells"]["fertility"]


def test_some_patchers_with_morphemes_and_languages(call: Called) -> None:
    Path("eng.txt").write_text("The tower.\nA cat.\n")
    Path("deu.txt").write_text("Der Turm.\nEine Katze.\n")
    Path("morphemes").write_text("towers\ttower s\nplayed\tplay ed\nfounded\tfound ed\n")
    asked = ("-p", "whitespace", "-p", "stride:stride=2", "--max-bytes", "50000")
    code, out, _ = call(*asked, "--aligned", ".", "--morphemes", "morphemes", "--format", "md")
    assert code == 0
    assert "| stride:stride=2 |" in out
    assert "| deu " in out
    assert "Words with given morphemes: " in out
    found = json.loads(call(*asked, "--aligned", ".", "--sentences", "1", "--format", "json")[1])
    assert found[2]["rows"][0]["cells"]["stride:stride=2"] == 1.0, "The tower. and Der Turm. have 5 patches each"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--columns", "x"), "unknown column 'x'"),
        (("-p", "nothing"), "unknown patcher 'nothing'"),
        (("-p", "hnet"), "patcher 'hnet' is trained inside a model"),
        (("-p", "tokenizer"), "patcher 'tokenizer' needs 'file'"),
        (("--aligned", "nowhere"), "cannot read nowhere"),
        (("--morphemes", "nowhere"), "cannot read the morphemes in nowhere"),
        (("nosuite",), "nosuite"),
        (("quick", "--bytes-per-patch", "4"), "write bytes_per_patch=4"),
        (("bytes.yaml",), "suite bytes.yaml has no row with a patcher"),
    ],
)
def test_bad_calls_say_what_is_wrong(call: Called, args: tuple[str, ...], said: str) -> None:
    suite = write_suite(Path(), rows={"bytes": {"model": "byte_lm"}})
    suite.rename("bytes.yaml")
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_all_patchers_on_wiki_en_in_thirty_seconds(call: Called) -> None:
    begin = time.process_time()
    code, out, _ = call("--format", "json")
    assert time.process_time() - begin < 30  # measured: 20 on a busy core
    assert code == 0
    labels = [row["label"] for row in json.loads(out)[0]["rows"]]
    assert labels == [name for name in patchers.without_file() if patchers.get(name).kind != "in-model"]


@pytest.mark.skipif(not NTREX.is_file(), reason="needs shared/data/benchmarks/ntrex-24.tar.xz beside the repository")
def test_parity_of_24_languages(call: Called) -> None:
    asked = ("-p", "bytes", "-p", "codepoint", "-p", "bpe:encoding=cl100k_base", "--sentences", "50")
    code, out, _ = call("--aligned", str(NTREX), *asked, "--format", "json")
    assert code == 0
    numbers, _, languages = json.loads(out)
    premiums = {row["label"]: row["cells"] for row in languages["rows"]}
    assert len(premiums) == 23 + 2
    assert premiums["tam"]["bytes"] > 2.5, "three bytes a letter"
    assert premiums["tam"]["codepoint"] < 1.5
    assert premiums["tam"]["bpe:encoding=cl100k_base"] > premiums["deu"]["bpe:encoding=cl100k_base"] > 1
    assert numbers["rows"][0]["cells"]["parity_worst"] == max(
        cells["bytes"] for name, cells in premiums.items() if name not in ("mean", "Gini")
    )
