"""Reads and writes tensors with safetensors and a SHA-256; no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.system.files import CannotWrite, Damaged, remove, sync_folder, writing


def save_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Put tensors, and notes as JSON beside them, into `path`, which is either the old file or the new one.

    One process at a time. Raises CannotWrite where there is no room.
    """
    part = path.with_name(f"{path.name}.part")  # a folder: safetensors writes a file of a random name, then renames it
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(notes)
    try:
        with writing(path):
            remove(part)  # what a killed process left
            part.mkdir(parents=True)
            save_file(held, part / path.name, metadata={"notes": text, "sha256": _digest(held, text)})
            with (part / path.name).open("rb+") as file:
                os.fsync(file.fileno())
            (part / path.name).replace(path)
            sync_folder(path.parent)
    except SafetensorError as error:  # its way to say that the disk is full
        raise CannotWrite(
            f"cannot write {path}: {error}; make room or choose another folder with --results; what was finished "
            "before is kept"
        ) from error
    finally:
        remove(part)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors and notes. Raises Damaged, naming the file, when they are not what `save_tensors` put there."""
    try:
        with safe_open(path, framework="pt") as held:
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - no mapping
            metadata = held.metadata() or {}
        intact = metadata["sha256"] == _digest(tensors, metadata["notes"])
        notes = json.loads(metadata["notes"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise Damaged(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if not intact:
        raise Damaged(f"{path} is damaged (its content does not have its checksum)")
    return tensors, notes


def _digest(tensors: Mapping[str, Tensor], notes: str) -> str:
    digest = hashlib.sha256(notes.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
