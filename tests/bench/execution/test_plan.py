"""The plan: what a run would record, before anything is trained."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_suite import ROWS, tiny_suite, write_suite

from bench.cli.main import main
from bench.data.config import load
from bench.execution import plan, run
from bench.execution.plan import RowPlan, plan_rows, tables
from bench.execution.run import run_suite
from bench.suites.config import Suite
from bench.training import loop as training
from bench.training.prepare import training_flops
from models.flops import COMPONENTS
from patchers.errors import BenchError

ALL: dict[str, dict[str, Any]] = {**ROWS, "routed": {"patcher": "hnet"}}


@pytest.fixture(autouse=True)
def _no_long_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CALIBRATION_SECONDS", 0.0)


def test_the_plan_is_what_the_run_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {})
    suite = tiny_suite(tmp_path, "rows.bpe.train.bytes=8000")
    rows = plan_rows(suite, tmp_path / "cache")
    assert [r.label for r in rows] == [row.label for row in suite.rows]
    for planned, record in zip(rows, run_suite(suite, tmp_path / "results").records, strict=True):
        assert record["status"] == "ok", record["error"]
        assert planned.parameters == record["parameters"]
        assert planned.flops_per_byte == record["flops"]["per_byte"]
        # its windows are all full, and it takes half of a sliding window for seen
        assert 0.5 < planned.paper_flops_per_byte / planned.flops_per_byte["total"] < 2
        assert planned.paper_flops_per_byte == record["flops"]["paper_per_byte"]
        assert set(planned.flops_per_byte) == {*COMPONENTS, "patcher", "total"}
        assert planned.train_bytes == record["config"]["train"]["bytes"]
        assert planned.train_flops == training_flops(planned.flops_per_byte, planned.train_bytes)
        assert planned.train_flops == pytest.approx(record["flops"]["train"], rel=0.2)
        sizes = record["patcher"].get("bytes_per_patch")
        assert planned.bytes_per_patch == (sizes["train"] if sizes else None)
        assert planned.seconds > 0
        assert planned.matched["reference"] == record["matched"]["reference"]
        assert planned.matched["value"] == record["matched"]["value"]
        # both are the whole process at its peak, which here is mostly not the model
        assert planned.memory == pytest.approx(record["cost"]["peak_memory_bytes"], rel=0.5)
        steps = sizes and planned.train_bytes / sizes["train"]
        assert planned.patches == (pytest.approx(steps, rel=0.1) if sizes else None)


def test_time_is_that_of_a_step_that_is_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on 0.1 ms a byte, and a minute in the first step, which prepares kernels."""
    now, steps = [0.0], [0]

    def train_step(*others: Any) -> torch.Tensor:
        now[0] += 1e-4 * len(others[3].data) + (60.0 if steps[0] == 0 else 0.0)
        steps[0] += 1
        return torch.tensor(8.0)

    monkeypatch.setattr(training, "train_step", train_step)
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


def test_the_budgets_of_a_sweep_are_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def pace(suite: Any, model: Any, prepared: Any, budget: float) -> plan.Pace:
        timed.append(prepared.row.label)
        return plan.Pace(1e-3, 5)

    monkeypatch.setattr(plan, "_pace", pace)
    rows = {label: ROWS[label] for label in ("stride", "bytes")}
    found = plan_rows(tiny_suite(tmp_path, rows=rows, sweep={"train.bytes": [1000, 3000]}), tmp_path / "cache")
    assert timed == ["stride@1000", "bytes@1000"]
    assert [r.seconds for r in found] == [1, 3, 1, 3]


def row(label: str, seconds: float, size: float | None = 4.0, **changes: Any) -> RowPlan:
    parts = {"latent": 1.5e6, "local_encoder": 2e5, "local_decoder": 3e5, "cross_attention": 0.0, "head": 32_768.0}
    per_byte = {**parts, "patcher": 0.0, "total": sum(parts.values())}
    matched = {"quantity": "train_flops", "reference": 2e13, "value": 2e13, "deviation": 0.0, "elsewhere": {}}
    matched |= {"set": {"bytes": 5}}
    return RowPlan(
        label=label,
        bytes_per_patch=size,
        parameters={"total": 1_234_567, "non_embedding": 765_432, "active": 800_000},
        flops_per_byte=per_byte,
        paper_flops_per_byte=2.5e6,
        train_bytes=3_276_800,
        patches=None if size is None else 819_200,
        train_flops=2e13,
        matched={**matched, **changes},
        memory=1_500_000_000,
        seconds=seconds,
    )


def lines_of(suite: Suite, rows: list[RowPlan]) -> list[str]:
    console = Console(width=300, record=True, file=io.StringIO())
    for table in tables(suite, rows):
        console.print(table)
    return console.export_text().splitlines()


def test_the_plan_as_tables(tmp_path: Path) -> None:
    rows = [
        row("stride", 90),
        row("long", 5400, None, deviation=0.004, set={"latent_width": 96}),
        row("free", 1, deviation=None),
    ]
    text = lines_of(tiny_suite(tmp_path, "seeds=[0,1]"), rows)
    assert any("tiny: 3 rows x 2 seeds, about 3.1 h of training here" in line for line in text)
    heading, parts = (next(line for line in text if words in line) for words in ("parameters", "local encoder"))
    for column in (
        *("row", "bytes/patch", "parameters", "non-emb.", "active", "train bytes", "patches", "train FLOPs"),
        *("matched: train flops", "memory", "time"),
    ):
        assert column in heading
    for column in (
        "latent",
        "local encoder",
        "local decoder",
        "cross attention",
        "head",
        "patcher",
        "total",
        "by the paper's formula",
    ):
        assert column in parts
    stride, costs = (line for line in text if "stride" in line)
    for cell in ("4.00", "1.23M", "765k", "800k", "3.28M", "819k", "2.00e+13", "+0.0%", "1.5GB", "90 s"):
        assert f" {cell} " in stride
    for cell in ("1.5M", "200k", "300k", "32.8k", "2.03M", "2.5M"):
        assert f" {cell} " in costs
    long = next(line for line in text if " long " in line)
    assert " +0.4% (latent_width 96) " in long
    assert " 1.5 h " in long
    assert " free " in next(line for line in text if line.split()[1:2] == ["free"])


def test_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    caches: list[Path] = []

    def remembers(suite: Suite, cache: Path, results: Path) -> list[RowPlan]:
        caches.append(cache)
        assert load(suite.data)
        return [row("stride", 1)]

    monkeypatch.setattr(plan, "plan_rows", remembers)
    monkeypatch.chdir(tmp_path)  # where whoever runs this has results, there is a cache
    path = write_suite(tmp_path)
    assert main(["plan", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] == "stride"
    assert main(["plan", str(path)]) == 0
    assert "stride" in capsys.readouterr().out
    assert not caches[0].exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["texts.jsonl", "tiny.yaml"]


def test_a_model_that_does_not_fit_is_said_before_anything_is_made(tmp_path: Path) -> None:
    """A latent model of half a terabyte."""
    huge: dict[str, Any] = {"latent_width": 65536, "latent_layers": 8}
    rows: dict[str, dict[str, Any]] = {"huge": {"patcher": "stride", "options": huge}}
    suite = tiny_suite(tmp_path, rows=rows)
    with pytest.raises(BenchError, match=r"row 'huge' has [\d,]+ M parameters, which take [\d,.]+ GiB to train, and"):
        plan.plan_rows(suite, tmp_path / "cache")
    (record,) = run.run_suite(suite, tmp_path / "results").records
    assert record["status"] == "failed"
    assert "GiB are free here: choose smaller sizes" in record["error"]["message"]
