"""Saves and loads trained models: weights, sizes and the fitted patcher; no pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from bench.evaluation.byte_model import CutModel
from bench.suites.config import Row, Suite
from bench.system.files import SEAL, Damaged, check_sealed, whole_folder
from bench.system.tensors import save_tensors
from models.byte_lm import ByteLM, ByteLMConfig
from models.harness import Harness, HarnessConfig
from models.token_lm import TokenLM, TokenLMConfig
from patchers import Patcher, load
from patchers.errors import BenchError

FORMAT = 1


def save_model(
    folder: Path,
    suite: Suite,
    row: Row,
    patcher: Patcher | None,
    model: nn.Module,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write `model.json`, `model.safetensors` and the patcher into `folder`, whole or not at all.

    `training` says how the weights came about (`bench.training.reuse`), so that another suite can take them over.
    """
    header = {
        "format": FORMAT,
        "suite": suite.name,
        "row": row.label,
        "kind": row.model,
        "sizes": dataclasses.asdict(row.sizes),
        "price": row.price,
        "leaky": row.leaky,
        "window": row.train.window,
        "vocab_size": model.vocab_size if isinstance(model, TokenLM) else None,
        "patcher": patcher is not None,
        "training": dict(training or {}),
        "sealed": True,
    }
    with whole_folder(folder) as part:
        (part / "model.json").write_text(json.dumps(header, indent=1) + "\n")
        save_tensors(part / "model.safetensors", model.state_dict(), {})
        if patcher is not None:
            patcher.save(part / "patcher")


def read_header(folder: Path) -> dict[str, Any]:
    """What `model.json` says. Raises BenchError when there is none, or one of another version; Damaged for no JSON."""
    path = folder / "model.json"
    try:
        header = json.loads(path.read_bytes())
    except OSError as error:
        raise BenchError(
            f"{folder} holds no trained model ({error}); give a folder results/SUITE/checkpoints/RUN_ID"
        ) from error
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({error})") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise BenchError(f"{folder} has format {found}, this patchbench reads format {FORMAT}; train it again")
    return dict(header)


def check_model(folder: Path) -> None:
    """Raises Damaged, naming the file, for a model that is not as `save_model` left it; BenchError for a folder that
    the system does not let us look into."""
    try:
        if (folder / SEAL).exists() or read_header(folder).get("sealed", False):
            check_sealed(folder)
    except Damaged as error:
        raise Damaged(f"{error}: delete {folder} and run its suite again, which trains it anew") from error
    except OSError as error:
        raise BenchError(
            f"cannot look into {str(folder)[:200]} ({error.strerror}); give a folder results/SUITE/checkpoints/RUN_ID"
        ) from error


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put the weights into a model of the same sizes. Raises BenchError where they are damaged or of others."""
    check_model(folder)
    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise BenchError(
            f"{folder} holds no trained model ({error}); give a folder results/SUITE/checkpoints/RUN_ID"
        ) from error
    try:
        model.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        raise BenchError(
            f"{folder} does not hold what its header says ({what}); train it again with this version of patchbench"
        ) from error


def load_model(folder: str | Path, device: torch.device | None = None) -> CutModel:
    """The model that a run left in `results/SUITE/checkpoints/RUN_ID`.

    Raises BenchError when the folder holds no such model.
    """
    folder = Path(folder)
    check_model(folder)  # first, so that what is damaged is named, whatever it would say
    header = read_header(folder)
    patcher = load(folder / "patcher") if header["patcher"] else None
    try:
        model = _module(header, patcher)
    except (KeyError, TypeError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        raise BenchError(
            f"{folder} does not hold what its header says ({what}); train it again with this version of patchbench"
        ) from error
    load_weights(folder, model)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if patcher is not None and patcher.kind == "in-model":
        patcher = None  # the model cuts by itself
    return CutModel(model.eval().to(device), patcher, header["window"], device, with_ids=header["kind"] == "token_lm")


def _module(header: dict[str, Any], patcher: Patcher | None) -> nn.Module:
    """The model that a header describes, its weights still to be loaded."""
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header["sizes"].items()}
    if header["kind"] == "harness":
        before: dict[str, Any] = {"boundary_inputs": "prefix", "latent_logits": False}  # when there was no choice
        sizes = before | sizes
        router = patcher.router(sizes["local_width"]) if patcher is not None and patcher.kind == "in-model" else None
        return Harness(HarnessConfig(**sizes), header["price"], router)
    if header["kind"] == "token_lm":
        return TokenLM(TokenLMConfig(**sizes), header["vocab_size"])
    return ByteLM(ByteLMConfig(**sizes))
