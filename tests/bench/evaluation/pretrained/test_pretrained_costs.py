"""Parameters and FLOPs of pretrained models against counts by hand and torch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pretrained_models as tiny
import pytest
import torch

from bench.evaluation.pretrained import costs
from bench.evaluation.pretrained.config import PretrainedConfig, locate
from bench.evaluation.pretrained.load import load
from bench.evaluation.pretrained.model import PretrainedModel

TEXTS = [(tiny.TEXT * 3).encode(), b"fox"]


def loaded(folder: Path, save: Any, **options: Any) -> PretrainedModel:
    torch.manual_seed(0)
    save(folder)
    return load(locate(PretrainedConfig(str(folder), **options)), 64, torch.device("cpu"))


def test_gpt2_by_hand(tmp_path: Path) -> None:
    """Two layers 32 wide over 320 tokens and 512 positions, tied head."""
    model = loaded(tmp_path, tiny.save_gpt2)
    products = 2 * (4 + 8) * 32 * 32
    others = 2 * (3 + 1 + 4 + 1) * 32 + (2 * 2 + 1) * 2 * 32  # biases and norms
    found = costs.parameters(model)
    assert found["non_embedding"] == products + others + 320 * 32
    assert found["total"] == found["non_embedding"] + 512 * 32
    assert found["active"] == found["non_embedding"] + 32
    per_byte, counted_by = costs.flops(model, TEXTS)
    assert counted_by == "formula"
    windows = costs._windows(model, TEXTS)
    assert sum(size for _, size in windows) == sum(map(len, TEXTS))
    lengths = [len(ids) for ids, _ in windows]
    assert sum(lengths) == sum(len(units.ids) for units in model.vocabulary.encode(TEXTS))
    attention = sum(4 * 2 * 32 * n * (n + 1) / 2 for n in lengths)
    size = sum(map(len, TEXTS))
    assert per_byte["latent"] == pytest.approx((2 * products * sum(lengths) + attention) / size)
    assert per_byte["head"] == pytest.approx(2 * 320 * 32 * sum(lengths) / size)
    assert per_byte["total"] == pytest.approx(per_byte["latent"] + per_byte["head"])


def test_over_bytes_the_blocks_run_at_each_byte(tmp_path: Path) -> None:
    model = loaded(tmp_path, tiny.save_byte_llama)
    per_byte, counted_by = costs.flops(model, TEXTS)
    assert counted_by == "formula"
    assert per_byte["latent"] == 0 < per_byte["local_decoder"]
    assert per_byte["head"] == 2 * 384 * 32


def test_what_the_formula_does_not_describe_torch_counts(tmp_path: Path) -> None:
    model = loaded(tmp_path, tiny.save_blt, byte_offset=4)
    per_byte, counted_by = costs.flops(model, TEXTS)
    assert counted_by == "torch"
    by_hand = sum(costs._counted(model, ids) for ids, _ in costs._windows(model, TEXTS))
    assert per_byte == {"total": by_hand / sum(map(len, TEXTS))}


def test_experts_of_which_some_are_used_are_not_counted_as_all(tmp_path: Path) -> None:
    """Eight experts, two of them a token: the formula would count all of them."""

    def save(folder: Path) -> None:
        from transformers import MixtralConfig, MixtralForCausalLM

        tiny.save_tokenizer(folder, tiny.bpe(), bos_token=tiny.END)
        config = MixtralConfig(
            vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=512,
        )  # fmt: skip
        MixtralForCausalLM(config).save_pretrained(folder)

    model = loaded(tmp_path, save)
    per_byte, counted_by = costs.flops(model, TEXTS)
    assert counted_by == "torch"
    all_of_them = costs._by_formula(model, np.array([len(ids) for ids, _ in costs._windows(model, TEXTS)]), masked=True)
    assert all_of_them is not None
    assert 0 < per_byte["total"] < 0.6 * sum(all_of_them.values()) / sum(map(len, TEXTS))
