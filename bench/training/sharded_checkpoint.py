"""Sharded checkpoints of training on several ranks, readable by any number of ranks.

Written and read by torch.distributed.checkpoint, with its storage of safetensors: nothing is pickled.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.system import distributed
from bench.system.files import Damaged, check_sealed, read_header, seal, write_header, writing


@dataclass
class Progress:
    """Where a training is; also what its checkpoint remembers besides tensors."""

    step: int = 0
    bytes: int = 0
    seconds: float = 0.0
    curve: list[list[float]] = field(default_factory=list)
    """[step, bytes, bits per byte of the batch, learning rate] at each logged step."""

    busy_seconds: float = 0.0
    """Of `seconds`, those inside forward, backward and optimizer."""


def save_shards(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Put the ranks' tensors beside `path`, and remove what was there before when that is done."""
    folder = path.with_name(f"{path.name}.step-{progress.step:09d}")
    part = folder.with_name(f"{folder.name}.part")
    if distributed.is_first():
        with writing(part):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
    distributed.wait_for_all()
    with writing(part):
        _save(tensors(model, optimizer), part)
    distributed.wait_for_all()
    if distributed.is_first():
        with writing(folder):
            write_header(part / "progress.json", vars(progress))
            seal(part, folder)
            for old in found_beside(path):
                if old != folder:
                    shutil.rmtree(old, ignore_errors=True)
            path.unlink(missing_ok=True)  # of a training in one process, which this one went on with
    distributed.wait_for_all()


def _save(state: dict[str, Any], folder: Path) -> None:
    """Raises on every rank what one of them could not do, which torch wraps into something that is no Exception."""
    from torch.distributed.checkpoint.api import CheckpointException  # a second that only its users wait
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise next(problem for problem, _ in error.failures.values()) from error


def load_shards(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Read the newest whole checkpoint beside `path` into a model and its optimizer, as they are spread now.

    None where there is none at all. Raises Damaged where there are some and none is whole.
    """
    folder = distributed.told(newest_whole(path) if distributed.is_first() else None)
    if isinstance(folder, Damaged):
        raise folder
    if folder is None:
        return None
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    learnt = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for _, parameter in learnt:
        moments = {key: torch.zeros_like(parameter.data) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
    held = tensors(model, optimizer)
    with distributed.at_least_one():
        load(held, storage_reader=HuggingFaceStorageReader(str(folder)))
    for name, parameter in learnt:
        optimizer.state[parameter]["step"] = held[f"optimizer.step.{name}"].reshape(())
    return Progress(**read_header(folder / "progress.json"))


def found_beside(path: Path) -> list[Path]:
    """Folders of checkpoints, oldest first."""
    return sorted(p for p in path.parent.glob(f"{path.name}.step-*") if p.suffix != ".part")


def newest_whole(path: Path) -> Path | Damaged | None:
    """The newest folder that is as it was written; what is wrong with the newest where none is."""
    wrong: Damaged | None = None
    for folder in reversed(found_beside(path)):
        try:
            check_sealed(folder)
            return folder
        except Damaged as error:
            wrong = wrong or error
    return wrong


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and moments by name; scalars as vectors of one, which every storage knows."""
    held: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        held[f"model.{name}"] = parameter.data
        for key, value in optimizer.state[parameter].items() if parameter in optimizer.state else ():
            held[f"optimizer.{key}.{name}"] = value.reshape(1) if value.ndim == 0 else value
    return held | {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
