"""Records for tests of what reads them: realistic sums, made up and seeded, of a suite that was never run."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.records.record import Record, run_id

DOCUMENTS = 120


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_record(
    row: str = "stride",
    seed: int = 0,
    *,
    bpb: float = 2.30,
    documents: int = DOCUMENTS,
    characters_per_byte: float | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Record:
    """An `ok` record. `changes` are by dotted path; `bpb` is what the row tends to, but for chance.

    Difficulty of documents is shared by all rows, luck by all rows of a seed; each row adds its own noise.
    """
    shared = np.random.default_rng(documents)
    sizes = (np.round(np.exp(shared.normal(6.5, 0.8, documents))) + 20).astype(int)
    hard = shared.normal(0, 0.3, documents)
    luck = np.random.default_rng([1, seed]).normal(0, 0.004)
    own = np.random.default_rng([seed, *row.encode()]).normal(0, 0.02, documents)
    bits = (bpb + hard + luck + own) * sizes
    ids = [fingerprint(f"document {number}")[:16] for number in range(documents)]
    metrics: dict[str, Any] = {
        "bpb": {
            "unit": "bits/byte",
            "documents": [[i, float(b), int(n)] for i, b, n in zip(ids, bits, sizes, strict=True)],
            "lower_is_better": True,
        }
    }
    if characters_per_byte is not None:
        characters = np.maximum(1, np.round(sizes * characters_per_byte)).astype(int)
        metrics["bpc"] = {
            "unit": "bits/character",
            "documents": [[i, float(b), int(n)] for i, b, n in zip(ids, bits, characters, strict=True)],
            "lower_is_better": True,
        }
    total = int(sizes.sum())
    splits = {
        "train": {"documents": 2000, "bytes": 1_600_000, "fingerprint": fingerprint("train")},
        "calibration": {"documents": 100, "bytes": 90_000, "fingerprint": fingerprint("calibration")},
        "test": {"documents": documents, "bytes": total, "fingerprint": fingerprint(f"test {documents}")},
    }
    config: dict[str, Any] = {
        "data": {"corpus": "wiki-en", "calibration": 0.05, "test": 0.05},
        "model": {"kind": "harness", "local_width": 64, "latent_width": 192, "boundary_inputs": "none"},
        "train": {"bytes": 1_638_400, "batch_bytes": 16_384, "window": 1024, "lr": 3e-3},
        "patcher": {"name": row, "options": {}},
        "price": None,
        "leaky": False,
        "calibrate": True,
        "match": "placement",
        "bytes_per_patch": 4.5,
    }
    record: Record = {
        "suite": "quick",
        "row": row,
        "seed": seed,
        "status": "ok",
        "error": None,
        "config": config,
        "data": {"name": "wiki-en", "fingerprint": fingerprint(f"data {documents}"), "splits": splits},
        "patcher": {
            "name": row,
            "causal": True,
            "priced": None,
            "leaky": False,
            "fingerprint": fingerprint(row),
            "options": {},
            "bytes_per_patch": {"train": 4.5, "calibration": 4.5, "test": 4.48 + 0.01 * seed},
        },
        "matched": {
            "quantity": "bytes_per_patch",
            "reference": 4.5,
            "row": None,
            "value": 4.5,
            "deviation": 0.0,
            "tolerance": 0.01,
            "elsewhere": {"train": 0.004},
            "set": {},
        },
        "parameters": {"total": 1_523_456, "non_embedding": 923_456, "active": 950_000},
        "flops": {
            "per_byte": {
                "latent": 6.1e5,
                "local_encoder": 3e5,
                "head": 3.3e4,
                "patcher": 0.0,
                "total": 1.2e6,
            },
            "paper_per_byte": 1.3e6,
            "train": 5.9e12,
            "patcher_training": 0.0,
        },
        "cost": {
            "train_bytes": 1_638_400,
            "train_seconds": 41.0,
            "train_bytes_per_second": 39_961.0 + seed,
            "score_seconds": 2.0,
            "peak_memory_bytes": 700_000_000,
        },
        "loss_curve": [[10, 163_840, 4.1, 3e-3], [100, 1_638_400, 2.4, 3e-4]],
        "tasks": {
            "bpb": {
                "version": 1,
                "metrics": metrics,
                "values": {"flag_bits_share": None, "latent_gain": 0.41},
            }
        },
        "audits": {"logits": {"passed": True, "detail": "0 of 64 moved"}},
        "environment": {"python": "3.11.0", "device": "A CPU", "threads": 2, "commit": "abc"},
    }
    for path, value in (changes or {}).items():
        put(record, path, value)
    versions = {task: outcome["version"] for task, outcome in record["tasks"].items()}
    record["run_id"] = run_id(row, seed, record["config"], record["data"]["fingerprint"], versions)
    return record


def make_failed(row: str = "stride", seed: int = 0, message: str = "the loss is NaN") -> Record:
    """A record of a run that diverged."""
    whole = make_record(row, seed)
    record = {key: whole[key] for key in ("run_id", "suite", "row", "seed", "config", "environment")}
    return {
        **record,
        "status": "failed",
        "error": {"kind": "Divergence", "message": message, "step": 17},
    }


def put(record: Record, path: str, value: Any) -> None:
    """Set what is at a dotted path."""
    *folders, name = path.split(".")
    for folder in folders:
        record = record[folder]
    record[name] = value
