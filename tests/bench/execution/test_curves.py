"""Curves for TensorBoard, which change no number."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_run import numbers
from tiny_suite import tiny_suite

from bench.execution import curves, run
from bench.execution.run import run_suite
from patchers.errors import BenchError
from patchers.grouping import beginning

ROWS: dict[str, dict[str, Any]] = {
    "stride": {"patcher": "stride"},
    "hnet": {"patcher": "hnet", "calibrate": False},
    "bytes": {"model": "byte_lm"},
}


def test_curves_are_written_and_change_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {})
    with_log = run_suite(tiny_suite(tmp_path, "log=tensorboard", rows=ROWS), tmp_path / "with").records
    without = run_suite(tiny_suite(tmp_path, rows=ROWS), tmp_path / "without").records
    for record, other in zip(with_log, without, strict=True):
        assert record["status"] == "ok", record["error"]
        assert (record["run_id"], numbers(record)) == (other["run_id"], numbers(other))
        assert not list((tmp_path / "without").rglob("events.*"))
        folder = tmp_path / "with" / "tiny" / "tensorboard" / record["run_id"]
        events = EventAccumulator(str(folder))
        events.Reload()
        assert set(events.Tags()["scalars"]) == {"loss", "calibration", "learning_rate", "bytes_per_second"}
        kept = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        curve = record["loss_curve"]
        assert kept["loss"] == [(read, pytest.approx(bits, rel=1e-6)) for _, read, bits, _ in curve]
        assert kept["learning_rate"] == [(read, pytest.approx(rate, rel=1e-6)) for _, read, _, rate in curve]
        assert kept["calibration"][-1][0] == record["cost"]["train_bytes"]
        assert 3 <= len(kept["calibration"]) <= curves.POINTS + 1
        assert kept["calibration"][-1][1] < kept["calibration"][0][1] < 9
        assert all(rate > 0 for _, rate in kept["bytes_per_second"])


def test_bits_of_a_model_that_knows_nothing_are_eight() -> None:
    class Uniform:
        def nats(self, docs: list[bytes]) -> list[np.ndarray]:
            return [np.full(len(doc), np.log(256)) for doc in docs]

    assert curves.bits_per_byte(Uniform(), [b"abc", b"d"]) == pytest.approx(8.0)  # type: ignore[arg-type]
    texts = [b"a" * 20_000, b"b" * 20_000, b"c"]
    some = beginning(texts, curves.SCORED_BYTES, whole=False)
    assert [len(text) for text in some] == [20_000, curves.SCORED_BYTES - 20_000]


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"pip install 'patchbench\[tensorboard\]'"):
        run_suite(tiny_suite(tmp_path, "log=tensorboard", rows=ROWS), tmp_path)
