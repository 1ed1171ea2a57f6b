"""A suite small enough to be trained in a test: a few short documents, models of a few thousand parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.suites.config import Suite, load_suite

WORDS = [
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog;", "naïve", "été", "東京", "привет,"),
    *("cut", "here", "and", "there", "into", "units", "of", "text."),
]
MODEL = {
    "local_width": 16, "local_heads": 1, "encoder_layers": 1, "decoder_layers": 1, "local_window": 16,
    "latent_width": 32, "latent_heads": 1, "latent_layers": 1, "ngrams": [3], "ngram_rows": 64, "patch_rows": 64,
    "boundary_inputs": "prefix",
}  # fmt: skip
TRAIN = {"bytes": 20_000, "batch_bytes": 2000, "window": 120, "dtype": "float32", "log_every": 1}
ROWS: dict[str, dict[str, Any]] = {
    "stride": {"patcher": "stride"},
    "bpe": {"patcher": {"name": "bpe"}},
    "tokens": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
    "bytes": {"model": "byte_lm"},
}


def write_texts(folder: Path, documents: int = 60, seed: int = 0) -> Path:
    """Documents of 1 to 60 words, many of them longer than the tiny window."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, int(rng.integers(1, 61)))) for _ in range(documents)]
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return path


def write_suite(folder: Path, rows: dict[str, dict[str, Any]] | None = None, **others: Any) -> Path:
    """`tiny.yaml` beside its texts; YAML reads JSON."""
    texts = write_texts(folder)
    tree = {
        "data": {"files": [str(texts)], "field": "text", "calibration": 0.2, "test": 0.2},
        "model": MODEL,
        "token_lm": {"width": 16, "layers": 1, "heads": 1},
        "byte_lm": {"width": 16, "layers": 1, "heads": 1, "window": 16},
        "train": TRAIN,
        "bytes_per_patch": 3.5,
        "rows": ROWS if rows is None else rows,
        **others,
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(tree, indent=1), encoding="utf-8")
    return path


def tiny_suite(folder: Path, *overrides: str, rows: dict[str, dict[str, Any]] | None = None, **others: Any) -> Suite:
    return load_suite(str(write_suite(folder, rows, **others)), overrides)

EVERY_KIND: dict[str, dict[str, Any]] = {
    "causal": {"patcher": "whitespace", "options": {"ngrams": [2, 3]}},
    "end": {"patcher": "bpe", "price": "end"},
    "start": {"patcher": "bpe", "price": "start"},
    "leaky": {"patcher": "bpe", "leaky": True},
    "entropy": {"patcher": {"name": "entropy", "model": "ngram"}},
    "routed": {"patcher": "hnet"},
    "tokens": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
    "bytes": {"model": "byte_lm"},
}
