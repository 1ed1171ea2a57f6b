"""Checkpoints that ranks write: what the disk refuses is one line, and what was there before stays."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from bench.system.files import CannotWrite
from bench.training.sharded_checkpoint import Progress, found_beside, load_shards, save_shards


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    ("problem", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), CannotWrite), (RuntimeError("broken"), RuntimeError)],
)
def test_a_full_disk_is_said_in_a_line_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception, raised: type[Exception]
) -> None:
    model, optimizer = trained()
    path = tmp_path / "training"
    save_shards(path, model, optimizer, Progress(step=1))
    before = found_beside(path)

    def refuse(*arguments: Any) -> None:
        raise problem

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", refuse)
    with pytest.raises(raised, match=r"No space left on device; make room|^broken$") as caught:
        save_shards(path, model, optimizer, Progress(step=2))
    assert "\n" not in str(caught.value)
    assert found_beside(path) == before
    again, other = trained()
    found = load_shards(path, again, other)
    assert found is not None
    assert found.step == 1
    assert torch.equal(next(again.parameters()), next(model.parameters()))
