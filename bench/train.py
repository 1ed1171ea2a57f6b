"""Training one model on one cut corpus: the same for every kind of model, exact to the last bit after a kill."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.config import TrainConfig
from bench.cuts import CutDocuments, batches, training_spans
from models.batch import Windows
from models.harness import Prediction

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DIVERGED_BITS = 16.0
"""A loss above this, twice what knowing nothing costs, has diverged."""

BASE_WIDTH = 64
"""`lr` is the learning rate of a matrix with so many inputs."""


class Trainable(Protocol):
    def __call__(self, batch: Windows, dtype: torch.dtype) -> Prediction: ...


class TrainingFailed(RuntimeError):
    """The loss was not a number or diverged."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


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


Report = Callable[[Progress, int], None]
"""Called after each step with the progress and the number of bytes in all."""


def learning_rate(config: TrainConfig, read: int) -> float:
    """Linear warm-up, then half a cosine down to `min_lr_ratio`, in bytes read, so that it does not depend on the
    batch count."""
    share = min(1.0, read / config.bytes)
    if share < config.warmup:
        return config.lr * (share / config.warmup)
    fall = (share - config.warmup) / max(1e-9, 1 - config.warmup)
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * fall)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW in groups: matrices of products, which alone decay; norms and routers; lookups, with their own rate.

    `scale` of a group is what the schedule's learning rate is multiplied by. A matrix of n inputs gets `BASE_WIDTH / n`
    (Yang et al. 2022, "Tensor Programs V", table 3: hidden weights under Adam), so that one learning rate suits the
    narrow local model, the wide latent one, and sizes that a comparison lets grow.
    """
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    tables = {id(getattr(m, name)) for m in model.modules() for name in getattr(m, "lookup_std", ())}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}  # by weight decay and scale
    for p in model.parameters():
        if id(p) in matrices:
            kind = (config.weight_decay, BASE_WIDTH / p.shape[1])
        else:
            kind = (0.0, config.lookup_lr if id(p) in tables else 1.0)
        groups.setdefault(kind, []).append(p)
    options: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "scale": scale} for (decay, scale), parameters in groups.items()
    ]
    return torch.optim.AdamW(options, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def train(
    model: nn.Module,
    corpus: CutDocuments,
    config: TrainConfig,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> Progress:
    """Train in place until `config.bytes` are read, from the checkpoint if there is one.

    Raises TrainingFailed with the step where the loss was not finite or diverged.
    """
    model.train().to(device)
    optimizer = make_optimizer(model, config)
    progress = Progress()
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, optimizer)
    forward: Trainable = torch.compile(model, dynamic=True) if config.compile else model
    spans = training_spans(corpus.offsets, config.window)
    saved = time.perf_counter()
    for number, picked in enumerate(batches(spans, config.batch_bytes, config.bytes, seed)):
        if number < progress.step:
            continue
        began = time.perf_counter()
        batch = corpus.windows(picked)
        rate = learning_rate(config, progress.bytes + len(batch.data) // 2)
        busy = time.perf_counter()
        bits = train_step(forward, model, optimizer, batch.to(device), rate, config)
        progress.busy_seconds += time.perf_counter() - busy
        if not math.isfinite(bits) or bits > DIVERGED_BITS:
            raise TrainingFailed(
                number, f"loss {bits:.4g} bits per byte at step {number}; lower train.lr (it is {config.lr:g})"
            )
        progress.step = number + 1
        progress.bytes += len(batch.data)
        if number % config.log_every == 0 or progress.bytes >= config.bytes:
            progress.curve.append([number, progress.bytes, round(bits, 5), rate])
        progress.seconds += time.perf_counter() - began
        if report is not None:
            report(progress, config.bytes)
        if checkpoint is not None and time.perf_counter() - saved > config.checkpoint_seconds:
            save_checkpoint(checkpoint, model, optimizer, progress)
            saved = time.perf_counter()
    if not all(bool(p.isfinite().all()) for p in model.parameters()):  # by the last step, which no loss follows
        last = progress.step - 1
        raise TrainingFailed(last, f"weights are not numbers after step {last}; lower train.lr (it is {config.lr:g})")
    if checkpoint is not None:
        save_checkpoint(checkpoint, model, optimizer, progress)
    model.eval()
    return progress


def train_step(
    forward: Trainable,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Windows,
    rate: float,
    config: TrainConfig,
) -> float:
    """One update; the mean bits per byte of the batch before it."""
    prediction = forward(batch, DTYPES[config.dtype])
    loss = prediction.nats.mean()
    value = loss.item() / math.log(2)
    if math.isfinite(value):
        (loss if prediction.loss is None else loss + prediction.loss).backward()
        _clip(model, config.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.step()
        optimizer.zero_grad()
    return value


def _clip(model: nn.Module, limit: float) -> None:
    """Scale gradients down to a norm of `limit`; smaller ones are left as they are, not read and written once more."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    if norm > limit:
        nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm, foreach=True)


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Everything that a checkpoint holds, by name; the optimizer's state under its parameter's."""
    for name, parameter in model.named_parameters():
        yield f"model.{name}", parameter.data
        for key, value in optimizer.state[parameter].items() if parameter in optimizer.state else ():
            yield f"optimizer.{key}.{name}", value
    for name, buffer in model.named_buffers():
        yield f"buffer.{name}", buffer
    yield "rng", torch.get_rng_state()


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Weights, optimizer, RNG and place in the data, in one file that is either the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(model, optimizer)}
    save_file(tensors, part, metadata={"progress": json.dumps(vars(progress))})
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Progress:
    """Put a checkpoint's tensors into a model (and its optimizer); the place in the data that it was taken at."""
    with safe_open(path, framework="pt") as held, torch.no_grad():
        names = set(held.keys())
        for name, parameter in model.named_parameters():
            parameter.copy_(held.get_tensor(f"model.{name}"))
            if optimizer is not None:
                kept = {k: f"optimizer.{k}.{name}" for k in ("step", "exp_avg", "exp_avg_sq")}
                if kept["step"] in names:
                    optimizer.state[parameter] = {k: held.get_tensor(v).to(parameter.device) for k, v in kept.items()}
        for name, buffer in model.named_buffers():
            buffer.copy_(held.get_tensor(f"buffer.{name}"))
        if optimizer is not None:
            torch.set_rng_state(held.get_tensor("rng"))
        return Progress(**json.loads(held.metadata()["progress"]))
