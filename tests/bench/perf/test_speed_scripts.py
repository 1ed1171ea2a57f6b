"""The scripts that measure speed run, on next to nothing, and say what they promise to say. What they say of a large
model on an idle machine is not for a test."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SMALL, TEXT, harness
from tiny_suite import write_suite

import bench.perf
from bench.evaluation.byte_model import CutModel
from bench.perf import bootstrap, decode, gpu, large, lm_eval, segment, step
from bench.suites.config import Row, Suite
from bench.training.prepare import Prepared, prepare
from patchers import create
from patchers.errors import BenchError

SCRIPTS = {"bootstrap", "decode", "gpu", "large", "lm_eval", "segment", "step"}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_script_is_run_here() -> None:
    folder = Path(next(iter(bench.perf.__path__)))
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == SCRIPTS


def test_scripts_that_are_mentioned_are_there() -> None:
    root = Path(__file__).resolve().parents[3]
    texts = [root / "README.md", *(p for name in ("bench", "models", "patchers") for p in (root / name).rglob("*.py"))]
    for path in texts:
        assert set(re.findall(r"bench[/.]perf[/.](\w+)", path.read_text(encoding="utf-8"))) <= SCRIPTS, path


def test_a_training_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, workload in step.WORKLOADS.items():
        monkeypatch.setitem(step.WORKLOADS, name, dataclasses.replace(workload, window=512, batch_bytes=1024))
    monkeypatch.setattr(step, "documents", lambda workload, size: [TEXT * 12] * 8)
    monkeypatch.setattr(step.measure, "__defaults__", (dataclasses.replace(SMALL, latent_layers=1), 20_000))
    monkeypatch.setattr(sys, "argv", ["step", "--turns", "1"])
    step.main()
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(step.WORKLOADS)
    for of in found.values():
        assert set(of) == {"products", "dense_gpt", "rows", "loader", "bytes_per_second"}
        assert all(math.isfinite(value) and value > 0 for value in of.values())
        assert of["products"] > 1
        assert of["rows"] <= 1


def test_the_rows_of_the_step_have_equal_patches() -> None:
    for workload in step.WORKLOADS.values():
        rows = step.rows_of([TEXT * 3, TEXT * 8], workload)
        ends = (0, 3 * len(TEXT), 11 * len(TEXT))
        counts = {
            name: [int(corpus.cuts.starts[a:b].sum()) for a, b in itertools.pairwise(ends)]
            for name, corpus in rows.items()
        }
        assert counts["own"] == counts["at random"] == counts["in clusters"]
        assert len({corpus.cuts.starts[:].tobytes() for corpus in rows.values()}) == 3


def test_a_visit_to_a_gpu_has_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: dict[str, dict[str, object]] = {
        "stride": {"patcher": "stride"},
        "token_lm": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
        "byte_lm": {"model": "byte_lm"},
        "none": {"patcher": "none"},
        "hnet": {"patcher": "hnet"},
    }
    small = {"local_width": 16, "latent_width": 32, "latent_heads": 2, "latent_layers": 1, "local_heads": 2}
    plain = {"width": 16, "heads": 2, "layers": 1}
    monkeypatch.setattr(gpu, "SMALL", {"harness": small, "token_lm": plain, "byte_lm": plain})
    suite = write_suite(tmp_path, rows, launch={"micro_bytes": 500})
    written = tmp_path / "found.json"
    arguments = ["--suite", str(suite), "--turns", "1", "--side", "64", "--minutes", "60"]
    monkeypatch.setattr(sys, "argv", ["gpu", "--all", "--dry-run", *arguments, "-o", str(written)])
    gpu.main()
    found = json.loads(written.read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert not found["left out"]
    assert not [name for name, what in found.items() if isinstance(what, dict) and "failed" in what]
    for row in rows:
        assert found[f"{row}: on meta tensors"]["gradients"] > 5
        for mode in gpu.MODES:
            assert found[f"{row}: {mode}"]["mfu"] > 0
    assert found["stride: varlen, deterministic"]["mfu"] > 0
    assert found["stopped twice"]["same bits"]
    monkeypatch.setattr(sys, "argv", ["gpu", "--all", "--dry-run", *arguments[:-1], "0"])
    gpu.main()
    left = json.loads(capsys.readouterr().out)["left out"]
    assert {"stopped twice", "stride: compiled"} <= set(left), "what there is no time for is named"


def test_a_row_that_cannot_be_fitted_costs_a_visit_its_own_numbers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def breaks(suite: Suite, row: Row, *others: Any) -> Prepared:
        if row.label == "stride":
            raise BenchError("no room")
        return prepare(suite, row, *others)

    monkeypatch.setattr(gpu, "prepare", breaks)
    monkeypatch.setattr(gpu, "SMALL", {"byte_lm": {"width": 16, "heads": 2, "layers": 1}})
    rows: dict[str, dict[str, object]] = {"stride": {"patcher": "stride"}, "bytes": {"model": "byte_lm"}}
    suite = write_suite(tmp_path, rows, launch={"micro_bytes": 500})
    arguments = ["--suite", str(suite), "--turns", "1", "--side", "64", "-o", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["gpu", "--all", "--dry-run", *arguments])
    gpu.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["stride: fitted and cut"]["failed"] == "BenchError: no room"
    assert found["left out"] == [*(f"stride: {mode}" for mode in gpu.MODES | gpu.OF_FIRST), "stopped twice"]
    assert all(found[f"bytes: {mode}"]["mfu"] > 0 for mode in gpu.MODES)
    assert "bytes: compiled\n" in capsys.readouterr().err, "one sees how far it is"


def test_the_rate_of_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: dict[str, dict[str, object]] = {"stride": {"patcher": "stride"}, "bytes": {"model": "byte_lm"}}
    suite = write_suite(tmp_path, rows, launch={"micro_bytes": 500})
    arguments = ["gpu", "--suite", str(suite), "--turns", "1", "--side", "64"]
    monkeypatch.setattr(sys, "argv", arguments)
    gpu.main()
    found = json.loads(capsys.readouterr().out)
    assert found["latent_over_products"] == pytest.approx(
        found["latent_tflops_per_second"] / found["products_tflops_per_second"]
    )
    assert 0 < found["latent_share_of_flops"] < 1
    assert found["step_tflops_per_second"] > 0
    monkeypatch.setattr(sys, "argv", [*arguments, "--row", "bytes"])
    with pytest.raises(BenchError, match="no latent model"):
        gpu.main()


def test_a_large_corpus_that_is_kept_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was once, beside what was timed, and the ratio came out at 1.4 for 1.7."""
    made: list[Path] = []

    def write(folder: Path, size: int) -> None:
        (folder / "0000.jsonl").touch()
        made.append(folder)

    monkeypatch.setattr(large, "write_corpus", write)
    monkeypatch.setattr(large, "ratios", lambda folder: {})
    for _ in range(2):
        assert large.main(["--folder", str(tmp_path / "new"), "--keep", "--ratio"]) == 0
    assert made == [tmp_path / "new"]


def test_a_large_corpus_is_made_and_a_command_is_weighed(tmp_path: Path) -> None:
    large.write_corpus(tmp_path, 200_000)
    texts = [json.loads(line)["text"] for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert 200_000 <= sum(len(text.encode()) for text in texts) < 300_000
    assert len(set(texts)) == len(texts)
    held = "x = bytearray(100_000_000); import time; time.sleep(1)"
    found = large.measured([sys.executable, "-c", held], 1)
    assert 100e6 < found["resident bytes"] < 300e6
    assert found["processes"] == 1


@pytest.mark.slow
def test_memory_on_a_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(large, "STEPS", 2)
    assert large.main(["--megabytes", "2", "--folder", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"data build", "data build --cut", "run"} <= set(found)
    assert not found["missed"]


def test_segmentation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(segment, "TURNS", 1)
    monkeypatch.setattr(segment, "LEARN", 50_000)
    code = segment.main(["--megabytes", "0.1", "--patchers", "whitespace,stride", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == int(bool(found["missed"]))
    for name in ("whitespace", "stride", "tiktoken", "whitespace, python loop"):
        assert found["MB/s"][name] > 0
    assert {"whitespace / python loop", "stride / python loop", "bpe time / tiktoken time"} <= set(found["ratios"])


def test_the_statistics_of_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bootstrap, "ROWS", 2)
    monkeypatch.setattr(bootstrap, "DOCUMENTS", 50)
    assert bootstrap.main() == 0
    monkeypatch.setattr(bootstrap, "LIMIT", 0.0)
    assert bootstrap.main() == 1, "the limit is looked at"
    assert capsys.readouterr().out.count("x 2 rows x 50 documents, seeds") == 4


def test_decoding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        decode, "HarnessConfig", lambda local_window: dataclasses.replace(SMALL, local_window=8, latent_layers=1)
    )
    monkeypatch.setattr(sys, "argv", ["decode", "--turns", "1"])
    decode.main()
    found = json.loads(capsys.readouterr().out)
    for ratio in ("a_full_over_cached_at_1024", "a_full_over_cached_writing_1024", "b_byte_4000_over_byte_250"):
        assert found[ratio] > 0


def test_what_is_not_installed_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert decode.transformers_blt(1) == {"d_transformers_blt": "skipped: transformers is not installed"}


def test_multiple_choice(tmp_path: Path) -> None:
    items = [{"query": f"Question: {i}?", "choices": ["one", "two", "three"], "gold": 0} for i in range(6)]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    requests = lm_eval.requests_of(tmp_path / "items.jsonl")
    assert requests[-1] == (b"Question: 5?\nAnswer:", b" three")
    found = lm_eval.measure(CutModel(harness(), create("stride"), 256), requests, 4)
    assert found["requests"] == 18
    assert found["c_largest_difference_nats"] < 1e-4
    assert all(value > 0 for name, value in found.items() if name[0] in "abr")
