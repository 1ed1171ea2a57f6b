"""Training on several ranks (DDP or FSDP), or in micro-batches on one: the same steps as `Alone`.

A batch is what the YAML says, whatever the number of ranks: its windows are dealt out, each rank goes through its own
in parts of at most `micro_bytes`, and the sum of all costs is divided by the bytes of the whole batch. Every rank knows
every batch, so all know how many parts the others have: who has fewer runs a window for nothing, and no collective
waits for somebody who does not come.
"""

from __future__ import annotations

import copy
import functools
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as recompute

from bench.data.cut_corpus import CutDocuments
from bench.suites.config import TrainConfig
from bench.system import distributed
from bench.training.ahead import planned
from bench.training.loop import (
    DTYPES,
    Engine,
    Recorded,
    Trainable,
    compiled,
    load_checkpoint,
    make_optimizer,
    of_all_sizes,
    save_alone,
)
from bench.training.sharded_checkpoint import Progress, load_shards, save_shards
from models.harness import Harness
from models.hash_embeddings import NgramEmbedding, PatchStateEmbedding
from models.layers import Block
from models.pooling import PatchQueries, PatchReader

Way = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Parallel:
    """How a model is spread over the ranks."""

    way: Way = "ddp"
    micro_bytes: int | None = None
    """Bytes that a rank looks at together; None for its whole share."""

    recompute: bool = False
    """Whether activations of blocks are computed again on the way back instead of kept."""

    def __call__(self, model: nn.Module, config: TrainConfig, device: torch.device) -> Engine:
        return RankEngine(model, config, device, self)


@dataclass(frozen=True)
class _Part:
    """What a rank does of a batch."""

    plans: list[Any]
    own: int
    """The first so many count; the others are there because another rank has as many."""

    bytes: int
    """Of the whole batch."""

    sizes: list[int]
    """Bytes of each plan."""


class RankEngine:
    """One rank's part of the training."""

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device, how: Parallel) -> None:
        self.whole, self.config, self.device, self.how = model, config, device, how
        self.model = copy.deepcopy(model)  # wrapped in place; the one that is scored later stays as it is
        self.whole.cpu()  # where it takes no room from the training
        blocks = [block for block in self.model.modules() if isinstance(block, Block)]
        if how.recompute:
            for block in blocks:
                block.forward = functools.partial(recompute, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        self.forward: nn.Module = self.model
        if distributed.are_there() and how.way == "fsdp":
            self._shard(blocks)
        elif distributed.are_there():
            self.forward = DistributedDataParallel(self.model)
        self.run: Trainable = self.forward
        if config.compile and distributed.are_there():
            for block in blocks:  # a graph cannot hold the exchange of gradients
                block.compile(fullgraph=True, **of_all_sizes())
        elif config.compile:
            self.run = compiled(self.model, config.compile)
        self.optimizer = make_optimizer(self.model, config)

    def _shard(self, blocks: list[Block]) -> None:
        """Units that are gathered whole: what is products in the dtype of training, at half the traffic; large tables,
        of which a step reads a few rows, alone; and the rest."""
        low = DTYPES[self.config.dtype]
        policy = MixedPrecisionPolicy(
            param_dtype=None if low == torch.float32 else low, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        attending = [m for m in self.model.modules() if isinstance(m, PatchQueries | PatchReader)]
        for products in (*blocks, *attending):
            fully_shard(products, mp_policy=policy)
        for tables in [m for m in self.model.modules() if isinstance(m, NgramEmbedding | PatchStateEmbedding)]:
            fully_shard(tables)
        fully_shard(self.model)
        if isinstance(self.model, Harness):
            register_fsdp_forward_method(self.model, "cut")

    # --- a step

    def make(self, corpus: CutDocuments, picked: np.ndarray) -> _Part:
        """The parts of this rank; where others have more, windows whose outcome counts nothing."""
        total = int((picked[:, 1] - picked[:, 0]).sum())
        parts = shares(picked, distributed.count(), self.how.micro_bytes)
        own, most = parts[distributed.rank()], max(len(part) for part in parts)
        filled = [*own, *[picked[:1]] * (most - len(own))]
        even = isinstance(self.run, Recorded)
        plans = [planned(self.model, corpus, spans, self.device, even) for spans in filled]
        return _Part(plans, len(own), total, [int((spans[:, 1] - spans[:, 0]).sum()) for spans in filled])

    def step(self, made: _Part, rate: float) -> Tensor:
        plans = [plan.to(self.device) for plan in made.plans]
        given = self._share(plans, made)
        cost = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, plan in enumerate(plans):
            with self._sync(number == len(plans) - 1):
                # ranks' gradients are averaged
                weight = (number < made.own) * distributed.count() / made.bytes
                prediction = self.run(plan, DTYPES[self.config.dtype], **given)
                loss = prediction.nats.sum() * weight
                if prediction.loss is not None:
                    loss = loss + prediction.loss * (made.sizes[number] * weight)
                loss.backward()
            if number < made.own:
                cost += prediction.nats.detach().double().sum()
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return distributed.total(cost) / made.bytes

    def _share(self, plans: list[Any], made: _Part) -> dict[str, Tensor]:
        """What a model that cuts by itself must know of the whole batch before it sees a part: the share of starts.

        Its ratio loss is no sum over parts; so its encoder looks at all of them once without a gradient.
        """
        model = self.model
        if not isinstance(model, Harness) or model.router is None or distributed.count() == len(plans) == 1:
            return {}
        starts = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.no_grad():
            for number, plan in enumerate(plans):
                found = model.cut(plan, DTYPES[self.config.dtype]).sum()
                starts += found if number < made.own else 0
        return {"share": (distributed.total(starts) / made.bytes).float()}

    def _sync(self, last: bool) -> Any:
        """Gradients are exchanged once a step, after the last part."""
        if isinstance(self.forward, FSDPModule):
            self.forward.set_requires_gradient_sync(last)
            return nullcontext()
        if isinstance(self.forward, DistributedDataParallel) and not last:
            return self.forward.no_sync()
        return nullcontext()

    def _clip(self) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.clip, whole)  # whatever it is: unread

    def agree(self, *flags: bool) -> list[bool]:
        """In one exchange, of the CPUs."""
        said = distributed.total(torch.tensor(flags, dtype=torch.int64))
        return [bool(count) for count in said.tolist()]

    def save(self, path: Path, progress: Progress) -> None:
        if distributed.are_there():
            save_shards(path, self.model, self.optimizer, progress)
        else:
            save_alone(path, self.model, self.optimizer, progress)

    def load(self, path: Path) -> Progress | None:
        found = load_shards(path, self.model, self.optimizer)
        return found or (self._of_one_process(path) if path.exists() else None)

    def _of_one_process(self, path: Path) -> Progress:
        """From the checkpoint of a training in one process, which every rank reads and takes its part of."""
        optimizer = make_optimizer(self.whole, self.config)
        progress = load_checkpoint(path, self.whole, optimizer)
        for (_, own), (_, other) in zip(self.model.named_parameters(), self.whole.named_parameters(), strict=True):
            own.data.copy_(_spread(other.data, own))
            self.optimizer.state[own] = {key: _spread(value, own) for key, value in optimizer.state[other].items()}
        return progress

    def finish(self) -> None:
        """The whole weights, on every rank."""
        self.whole.to(self.device)
        with torch.no_grad():
            for own, other in zip(self.model.parameters(), self.whole.parameters(), strict=True):
                other.copy_(own.full_tensor() if isinstance(own, DTensor) else own)
            for mine, theirs in zip(self.model.buffers(), self.whole.buffers(), strict=True):
                theirs.copy_(mine)


def _spread(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that every rank has, spread over them as a parameter is; a scalar is on all of them."""
    if isinstance(like, DTensor) and whole.ndim:
        return distribute_tensor(whole, like.device_mesh, like.placements)
    return whole.to(like.device)


def shares(picked: np.ndarray, count: int, micro_bytes: int | None) -> list[list[np.ndarray]]:
    """The windows (W, 2) of a batch dealt out to ranks, each share in parts of at most `micro_bytes` (a longer window
    goes alone)."""
    out = []
    for rank in range(count):
        own = picked[rank::count]
        lengths = own[:, 1] - own[:, 0]
        limit = micro_bytes or max(1, int(lengths.sum()))
        parts: list[list[int]] = []
        held = limit
        for number, length in enumerate(lengths.tolist()):
            if held + length > limit:
                parts.append([])
                held = 0
            parts[-1].append(number)
            held += length
        out.append([own[part] for part in parts])
    return out
