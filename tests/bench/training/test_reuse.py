"""A model is trained once for the suites that ask for the same training, and never taken for another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import tiny_suite

from bench.data.config import load
from bench.evaluation.audit import Audit
from bench.evaluation.byte_model import CutModel
from bench.execution import run
from bench.execution.run import run_suite
from bench.records.record import Record
from bench.suites.config import Suite
from bench.training.checkpoint import load_weights
from bench.training.prepare import make_model
from bench.training.reuse import find_trained, training_id
from patchers.errors import BenchError

ROWS: dict[str, dict[str, Any]] = {
    "stride": {"patcher": "stride"},
    "routed": {"patcher": "hnet", "calibrate": False},  # trained too shortly to come near a wanted size
    "tokens": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
}


@pytest.fixture(autouse=True)
def audited(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An audit that says how many went before it; what it has said."""
    said: list[str] = []

    def audit(model: CutModel, texts: Sequence[bytes]) -> dict[str, Audit]:
        said.append(f"audit {len(said)}")
        return {"told": Audit(True, said[-1], {})}

    monkeypatch.setattr(run, "audit", audit)
    return said


def suite_named(folder: Path, name: str, *overrides: str) -> Suite:
    return tiny_suite(folder, f"name={name}", "train.bytes=6000", *overrides, rows=ROWS)


def by_row(records: list[Record]) -> dict[str, Record]:
    return {record["row"]: record for record in records}


def test_another_suite_scores_the_model_that_is_there(tmp_path: Path, audited: list[str]) -> None:
    results = tmp_path / "results"
    first = by_row(run_suite(suite_named(tmp_path, "one"), results).records)
    other = suite_named(tmp_path, "two", "tasks=[bpb,speed]", "data.max_test_bytes=900")
    second = by_row(run_suite(other, results).records)
    assert len(audited) == len(ROWS), "the same model is audited once"
    for label in ROWS:
        a, b = first[label], second[label]
        assert b["status"] == "ok", (label, b["error"]["traceback"])
        assert a["cost"]["trained_by"] == b["cost"]["trained_by"] == f"one/{a['run_id']}"
        assert a["loss_curve"] == b["loss_curve"]
        of_model = [{name: found for name, found in one["audits"].items() if name != "cuts"} for one in (a, b)]
        assert of_model[0] == of_model[1]
        assert a["cost"]["train_seconds"] == b["cost"]["train_seconds"]
        scored = {d[0]: d[1] for d in a["tasks"]["bpb"]["metrics"]["bpb"]["documents"]}
        again = {d[0]: d[1] for d in b["tasks"]["bpb"]["metrics"]["bpb"]["documents"]}
        assert again.keys() < scored.keys()
        assert all(scored[i] == pytest.approx(again[i], abs=1e-3) for i in again)


def test_what_moves_the_weights_moves_the_training_id(tmp_path: Path) -> None:
    suite = suite_named(tmp_path, "one")
    data = load(suite.data)
    row = suite.row("stride")
    same = training_id(suite, row, data, 0)
    assert training_id(suite_named(tmp_path, "two", "tasks=[speed]"), row, data, 0) == same
    assert training_id(suite, row, data, 1) != same
    assert training_id(suite, suite.row("tokens"), data, 0) != same
    for override in ("train.lr=1e-3", "model.latent_layers=2", "bytes_per_patch=5", "train.bytes=7000", "data.seed=1"):
        other = suite_named(tmp_path, "one", override) if "seed" not in override else suite
        of_data = load(tiny_suite(tmp_path, "data.test=0.3", rows=ROWS).data) if "seed" in override else data
        assert training_id(other, other.row("stride"), of_data, 0) != same, override


def test_a_model_counts_beside_its_record_alone(tmp_path: Path) -> None:
    results = tmp_path / "results"
    suite = tiny_suite(tmp_path, "train.bytes=6000", rows={"stride": ROWS["stride"]})
    (record,) = run_suite(suite, results).records
    wanted = training_id(suite, suite.row("stride"), load(suite.data), 0)
    folder = results / "tiny" / "checkpoints" / record["run_id"]
    assert find_trained(results, wanted) == folder
    assert find_trained(results, "0" * 16) is None
    (results / "tiny" / "runs" / f"{record['run_id']}.json").unlink()
    assert find_trained(results, wanted) is None


def test_a_damaged_model_is_named_and_another_one_trained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = tmp_path / "results"
    suite = tiny_suite(tmp_path, "train.bytes=6000", rows={"stride": ROWS["stride"]})
    (record,) = run_suite(suite, results).records
    weights = results / "tiny/checkpoints" / record["run_id"] / "model.safetensors"
    held = bytearray(weights.read_bytes())
    held[-1] ^= 1
    weights.write_bytes(held)
    assert find_trained(results, training_id(suite, suite.row("stride"), load(suite.data), 0)) is None
    assert f"{weights} is damaged" in caplog.text


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    results = tmp_path / "results"
    suite = tiny_suite(tmp_path, "train.bytes=6000", rows={"stride": ROWS["stride"]})
    (record,) = run_suite(suite, results).records
    folder = results / "tiny" / "checkpoints" / record["run_id"]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    row = suite.row("stride")
    with pytest.raises(BenchError, match="is damaged"):
        load_weights(folder, make_model(row, row.patcher, 0))
