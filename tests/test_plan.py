"""The plan: what a run would record, before anything is trained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_suite import ROWS, tiny_suite

from bench import plan, run
from bench.config import Suite
from bench.data import load
from bench.plan import RowPlan, make_plan, plan_rows
from bench.prepare import training_flops
from bench.run import run_suite
from models.flops import COMPONENTS

ALL: dict[str, dict[str, Any]] = {**ROWS, "routed": {"patcher": "hnet"}}


@pytest.fixture(autouse=True)
def _no_long_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PROBE_SECONDS", 0.0)


def test_the_plan_is_what_the_run_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {})
    suite = tiny_suite(tmp_path, "rows.bpe.train.bytes=8000")
    rows = plan_rows(suite, tmp_path / "cache")
    assert [r.label for r in rows] == [row.label for row in suite.rows]
    for planned, record in zip(rows, run_suite(suite, tmp_path / "results").records, strict=True):
        assert record["status"] == "ok", record["error"]
        assert planned.parameters == record["parameters"]
        assert planned.flops_per_byte == record["flops"]["per_byte"]
        assert set(planned.flops_per_byte) == {*COMPONENTS, "patcher", "total"}
        assert planned.train_bytes == record["config"]["train"]["bytes"]
        assert planned.train_flops == training_flops(planned.flops_per_byte, planned.train_bytes)
        assert planned.train_flops == pytest.approx(record["flops"]["train"], rel=0.2)
        sizes = record["patcher"].get("bytes_per_patch")
        assert planned.bytes_per_patch == (sizes["train"] if sizes else None)
        assert planned.seconds > 0


def test_time_is_that_of_a_step_that_is_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on 0.1 ms a byte, and a minute in the first step, which prepares kernels."""
    now, steps = [0.0], [0]

    def train_step(*others: Any) -> float:
        now[0] += 1e-4 * len(others[3].data) + (60.0 if steps[0] == 0 else 0.0)
        steps[0] += 1
        return 8.0

    monkeypatch.setattr(plan, "train_step", train_step)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    (planned,) = plan_rows(tiny_suite(tmp_path, rows={"bytes": ROWS["bytes"]}), tmp_path / "cache")
    assert planned.seconds == pytest.approx(1e-4 * planned.train_bytes)
    assert steps == [2]


def test_a_cut_that_is_yet_to_be_learnt_is_counted_as_it_is_wanted(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, rows={label: ALL[label] for label in ("stride", "routed")})
    stride, routed = plan_rows(suite, tmp_path / "cache")
    assert routed.bytes_per_patch == 3.5
    assert stride.bytes_per_patch is not None
    ratio = routed.flops_per_byte["latent"] / stride.flops_per_byte["latent"]
    # `pool: last` is widened to the latent width, which cross-attention with two slots is by itself
    assert 1 < ratio < 1.2


def row(label: str, seconds: float, size: float | None = 4.0) -> RowPlan:
    parts = {"latent": 1.5e6, "local_encoder": 2e5, "local_decoder": 3e5, "cross_attention": 0.0, "head": 32_768.0}
    per_byte = {**parts, "patcher": 0.0, "total": sum(parts.values())}
    counts = {"total": 1_234_567, "non_embedding": 765_432, "active": 800_000}
    return RowPlan(label, size, counts, per_byte, 3_276_800, 2e13, seconds)


def text_of(suite: Suite) -> list[str]:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(make_plan(suite))
    return console.export_text().splitlines()


def test_the_plan_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "plan_rows", lambda suite, cache: [row("stride", 90), row("bytes", 5400, None)])
    text = text_of(tiny_suite(tmp_path, "seeds=[0,1]"))
    assert "tiny: 2 rows x 2 seeds, about 3.0 h of training here" in text[0]
    heading = next(line for line in text if "parameters" in line)
    for column in (
        *("row", "bytes/patch", "parameters", "non-emb.", "active", "latent FLOPs/B", "local encoder FLOPs/B"),
        *("local decoder FLOPs/B", "cross attention FLOPs/B", "head FLOPs/B", "patcher FLOPs/B", "total FLOPs/B"),
        *("train bytes", "train FLOPs", "time"),
    ):
        assert column in heading
    stride = next(line for line in text if "stride" in line)
    for cell in ("4.00", "1.23M", "765k", "800k", "1.5M", "200k", "32.8k", "2.03M", "3.28M", "2.00e+13", "90 s"):
        assert f" {cell} " in stride
    assert " 1.5 h " in next(line for line in text if " bytes " in line and "1.23M" in line)


def test_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[Path] = []

    def remembers(suite: Suite, cache: Path) -> list[RowPlan]:
        caches.append(cache)
        assert load(suite.data)
        return [row("stride", 1)]

    monkeypatch.setattr(plan, "plan_rows", remembers)
    make_plan(tiny_suite(tmp_path))
    assert not caches[0].exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["texts.jsonl", "tiny.yaml"]
