"""Audits of pretrained models: sound ones pass, and each fault that they are for is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pretrained_models as tiny
import pytest
import torch
from torch import nn

from bench.evaluation.pretrained.audit import audit
from bench.evaluation.pretrained.config import PretrainedConfig, locate
from bench.evaluation.pretrained.load import load
from bench.evaluation.pretrained.model import PretrainedModel

DOCS = [(tiny.TEXT[at:] * 2).encode() for at in range(0, 60, 12)]


def loaded(folder: Path, **options: Any) -> PretrainedModel:
    return load(locate(PretrainedConfig(str(folder), **options)), 64, torch.device("cpu"))


@pytest.fixture
def model(tmp_path: Path) -> PretrainedModel:
    torch.manual_seed(0)
    tiny.save_gpt2(tmp_path)
    return loaded(tmp_path)


def failed(model: PretrainedModel) -> list[str]:
    return [name for name, found in audit(model, DOCS).items() if not found.passed]


def test_models_over_tokens_pass(model: PretrainedModel) -> None:
    found = audit(model, DOCS)
    assert all(one.passed for one in found.values()), found
    assert found.keys() == {"future", "alone", "kraft_next", "kraft_short"}
    assert found["kraft_next"].values["high"] < 1


@pytest.mark.parametrize("kind", ["bytes", "blt"])
def test_models_over_bytes_pass(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    {"bytes": tiny.save_byte_llama, "blt": tiny.save_blt}[kind](tmp_path)
    found = audit(loaded(tmp_path, **({"byte_offset": 4} if kind == "blt" else {})), DOCS)
    assert all(one.passed for one in found.values()), found
    assert found["kraft_next"].values["low"] == pytest.approx(1, abs=1e-4)


class Altered(nn.Module):
    """A model of the library whose logits are changed on their way out."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module, self.config = module, module.config

    def get_output_embeddings(self) -> Any:
        return self.module.get_output_embeddings()

    def forward(self, input_ids: torch.Tensor, **others: Any) -> Any:
        out = self.module(input_ids=input_ids, **others)
        out.logits = self.changed(out.logits, input_ids)
        return out

    def changed(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Peeks(Altered):
    """Knows half of the next token."""

    def changed(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        ahead = torch.roll(ids, -1, 1)
        return logits.scatter_add(2, ahead[..., None], torch.full_like(logits, 3.0)[..., :1])


class Mixes(Altered):
    """Adds something of its batch."""

    def changed(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return logits * (1 + 0.1 * (len(ids) > 1))


def test_a_model_that_reads_ahead_is_found(model: PretrainedModel) -> None:
    model.module = Peeks(model.module)
    assert "future" in failed(model)


def test_a_model_that_looks_at_its_batch_is_found(model: PretrainedModel) -> None:
    model.module = Mixes(model.module)
    assert "alone" in failed(model)


def test_probabilities_above_one_are_found(model: PretrainedModel) -> None:
    score = model.nats_of_units
    model.nats_of_units = lambda docs, encoded: [nats / 4 for nats in score(docs, encoded)]  # type: ignore[method-assign]
    assert {"kraft_next", "kraft_short"} <= set(failed(model))


def test_no_number_is_no_pass(model: PretrainedModel) -> None:
    nn.init.constant_(model.head.weight, float("nan"))
    assert set(failed(model)) == {"future", "alone", "kraft_next", "kraft_short"}
