"""The speed task: what it counts, with a model whose times are known and with real ones."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import material
from model_kinds import KINDS
from tiny import TEXT, harness
from tiny_suite import ROWS, TRAIN, write_suite

import patchers
from bench.cli.main import main
from bench.data.config import Document
from bench.evaluation import tasks
from bench.evaluation.audit import Audit
from bench.evaluation.byte_model import ByteModel, CutModel
from bench.evaluation.tasks import TaskNotPossible
from bench.evaluation.tasks.speed import Speed
from bench.execution import run

DOCUMENTS = [Document(f"d{i}", TEXT[: 20 * i]) for i in range(1, 6)]


class Slow:
    """Writes two bytes at a time, slowly; each call is slower than the ones before but for the first, by far."""

    can_write = True

    def __init__(self) -> None:
        self.prompts: list[bytes] = []

    def stream(self, prompt: bytes, max_bytes: int) -> Iterator[bytes]:
        call = len(self.prompts) % 4
        self.prompts.append(prompt)
        time.sleep((0.05, 0.004, 0.006, 0.02)[call])
        yield b"ab"
        for _ in range(max_bytes // 2 - 1):
            time.sleep((0.05, 0.001, 0.002, 0.01)[call])
            yield b"ab"


def test_medians_of_warm_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    model: Any = Slow()
    out = Speed(documents=2, prompt_bytes=60, written_bytes=8).run(model, material(DOCUMENTS))
    assert model.prompts == [TEXT[:60]] * 8, "the longest documents, cut, one after another"
    assert [d[0] for d in out.metrics["prefill"].documents] == ["d3", "d4"]
    assert out.metrics["prefill"].documents[0][1:] == pytest.approx((6000, 60))
    assert out.metrics["decode"].documents[1][1:] == pytest.approx((3 * 2000, 6))
    assert out.metrics["decode"].lower_is_better
    assert out.values["decode_bytes_per_second"] == pytest.approx(1000)
    assert out.values["prefill_bytes_per_second"] == pytest.approx(10_000)
    assert out.values["step_ms_p50"] == out.values["step_ms_p99"] == pytest.approx(2)


@pytest.mark.parametrize("kind", ["stride", "end", "router", "byte_lm", "token_lm"])
def test_every_kind_of_model_has_a_speed(kind: str) -> None:
    module, patcher = KINDS[kind]()
    model: ByteModel = CutModel(module, patcher, 1024, with_ids=kind == "token_lm")
    out = Speed(documents=2, prompt_bytes=30, written_bytes=10, repeats=1).run(model, material(DOCUMENTS))
    assert set(out.metrics) == {"prefill", "decode"}
    assert all(m.value > 0 for m in out.metrics.values())
    assert out.values["peak_memory_bytes"] > 1e6
    assert out.values["step_ms_p50"] <= out.values["step_ms_p90"] <= out.values["step_ms_p99"]


def test_who_cannot_write_has_no_speed() -> None:
    leaky = CutModel(harness(), patchers.create("bpe", encoding="cl100k_base"), 1024)
    assert not leaky.can_write
    with pytest.raises(TaskNotPossible, match="cannot write: it is told boundaries that it does not pay for"):
        Speed().run(leaky, material(DOCUMENTS))


def test_it_is_a_task() -> None:
    assert tasks.get("speed") is Speed
    assert Speed().name == "speed"


def test_a_model_generates_through_what_tasks_see() -> None:
    module, patcher = KINDS["stride"]()
    model = CutModel(module, patcher, 1024, torch.device("cpu"))
    texts = model.generate([b"", TEXT[:9]], 20)
    assert [len(t) for t in texts] == [20, 20]
    assert texts[1] == b"".join(model.stream(TEXT[:9], 20))
    assert model.generate([TEXT[:9]], 20, [texts[1][5:7]]) == [texts[1][: texts[1].find(texts[1][5:7])]]
    assert model.generate([b""], 20, temperature=5.0) != [texts[0]]


def test_a_suite_of_all_kinds_of_models_has_speeds_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {"told": Audit(True, "not looked at", {})})
    speed = {"name": "speed", "documents": 1, "prompt_bytes": 20, "written_bytes": 10, "repeats": 1}
    tasks = ["bpb", speed]
    suite = write_suite(tmp_path, train={**TRAIN, "bytes": 4000}, tasks=tasks)
    assert main(["run", str(suite), "--results", str(tmp_path / "results")]) == 0
    capsys.readouterr()
    columns = "flops_per_byte,decode_rate,prefill_rate,step_ms_p50,step_ms_p90,step_ms_p99,speed_memory"
    call = ["table", str(suite), "--results", str(tmp_path / "results"), "--columns", columns, "--format", "csv"]
    assert main(call) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == len(ROWS)
    for row in rows:
        assert all(float(row[name]) > 0 for name in columns.split(",")), row
