"""Models, records and half-done trainings that were made before there was one compute path (in `before/`)."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny_suite import EVERY_KIND, tiny_suite

from bench.data.config import Data, load
from bench.records.record import read
from bench.suites.config import Suite
from bench.training.checkpoint import load_model
from bench.training.loop import train
from bench.training.prepare import make_model, prepare
from bench.training.reuse import TRAINING_VERSION

BEFORE = Path(__file__).parent / "before"
ROWS = {label: EVERY_KIND[label] for label in ("causal", "end", "routed", "tokens", "bytes")}
SIZES = ["model.local_width=8", "model.latent_width=16", "model.ngram_rows=32", "model.patch_rows=32"]
SIZES += ["token_lm.width=8", "byte_lm.width=8", "train.bytes=8000"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return tiny_suite(tmp_path_factory.mktemp("before"), *SIZES, rows=ROWS)


@pytest.fixture(scope="module")
def data(suite: Suite) -> Data:
    return load(suite.data)


@pytest.mark.parametrize("label", ROWS)
def test_a_model_scores_what_its_record_says(label: str, data: Data) -> None:
    """Document by document, to 1e-4 nats a byte."""
    (path,) = (BEFORE / "results/tiny/runs").glob(f"{label}-*.json")
    record = read(path)
    assert record["environment"].get("training_version", 2) < TRAINING_VERSION, "tables tell it from those of now"
    model = load_model(BEFORE / "results/tiny/checkpoints" / path.stem, torch.device("cpu"))
    sums = record["tasks"]["bpb"]["metrics"]["bpb"]["documents"]
    held = {document: (bits, count) for document, bits, count in sums}
    texts = list(data.test.texts)
    assert len(held) == len(texts) > 5
    for document, text, nats in zip(data.test.ids, texts, model.nats(texts), strict=True):
        bits, count = held[document]
        assert count == len(text)
        assert nats.sum() / len(text) == pytest.approx(bits * math.log(2) / len(text), abs=1e-4)


@pytest.mark.parametrize("label", [label for label in ROWS if label != "end"])
def test_a_training_goes_on_as_it_would_have(label: str, suite: Suite, data: Data, tmp_path: Path) -> None:
    row, path = suite.row(label), tmp_path / "training.safetensors"
    shutil.copy(BEFORE / f"{label}.training.safetensors", path)
    prepared = prepare(suite, row, data, tmp_path, lambda message: None)
    model = make_model(row, prepared.patcher, 1)  # another seed: its weights must come from the checkpoint
    curve = train(model, prepared.train, row.train, 0, torch.device("cpu"), path).curve
    want = json.loads((BEFORE / "curves.json").read_text())[label]
    assert [step[:2] for step in curve] == [step[:2] for step in want]
    assert curve[:2] == want[:2], "what was read from the checkpoint"
    assert [step[2] for step in curve] == pytest.approx([step[2] for step in want], abs=2e-3)
