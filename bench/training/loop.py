"""The training loop, the same for every kind of model, exactly resumable."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic_sizes

from bench.data.cut_corpus import CutDocuments, batches, training_spans
from bench.suites.config import Compile, TrainConfig
from bench.system import signals
from bench.system.files import Damaged, remove, warn
from bench.system.tensors import load_tensors, save_tensors
from bench.training.ahead import Even, ahead, planned
from bench.training.sharded_checkpoint import Progress as Progress
from bench.training.sharded_checkpoint import found_beside, load_shards
from models.harness import Harness, Prediction
from models.hash_embeddings import KeptGradients

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DIVERGED_BITS = 16.0
"""A loss above this, twice what knowing nothing costs, has diverged."""

BASE_WIDTH = 64
"""`lr` is the learning rate of a matrix with so many inputs."""


class Trainable(Protocol):
    def __call__(self, batch: Any, dtype: torch.dtype) -> Prediction: ...


class TrainingFailed(RuntimeError):
    """The loss was not a number or diverged."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


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


class Engine(Protocol):
    """Takes the steps of a training: in this process alone, or as one of several (`bench.training.parallel`)."""

    def make(self, corpus: CutDocuments, picked: np.ndarray) -> Any:
        """What `step` takes of these windows (W, 2); called by a worker while another step is taken."""
        ...

    def step(self, made: Any, rate: float) -> Tensor:
        """One update: the mean nats per byte of the batch before it, still on the device, where it may be awaited."""
        ...

    def agree(self, *flags: bool) -> list[bool]:
        """Of each flag, whether any process that takes part says so."""
        ...

    def save(self, path: Path, progress: Progress) -> None: ...

    def load(self, path: Path) -> Progress | None:
        """None where there is no checkpoint. Raises Damaged where it is not as it was written."""
        ...

    def finish(self) -> None:
        """Put the weights into the model that the training began with."""
        ...


def of_all_sizes() -> dict[str, Any]:
    """Options of `torch.compile` for one graph that is used for batches of all sizes."""
    # else sizes that are equal in the first batch must be equal in every other, or there is another graph
    symbolic_sizes.use_duck_shape = False
    return {"dynamic": True}


def compiled(model: nn.Module, how: Compile = True, backend: str = "inductor") -> Trainable:
    """One graph; two around the place where a router's cut is read, whose sizes no CUDA graph can be recorded for."""
    routed = isinstance(model, Harness) and model.router is not None
    if routed:
        Harness.leave_host_out_of_graphs()
    recorded = how == "cuda_graphs" and not routed
    mode = "reduce-overhead" if recorded and backend == "inductor" else None  # torch's name for CUDA graphs
    forward: Trainable = torch.compile(model, fullgraph=not routed, backend=backend, mode=mode, **of_all_sizes())
    return Recorded(forward) if recorded else forward


class Recorded:
    """A compiled model that takes `Even` plans: for each of the few sizes that they have, one CUDA graph is recorded
    and then replayed, without launching kernels one by one."""

    def __init__(self, forward: Trainable) -> None:
        self.forward = forward

    def __call__(self, batch: Even, dtype: torch.dtype) -> Prediction:
        torch.compiler.cudagraph_mark_step_begin()  # the memory of the last step's graphs may be used again
        prediction = self.forward(batch.plan, dtype)
        return replace(prediction, nats=prediction.nats[: batch.size])


class Alone:
    """All of a training in this process."""

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device) -> None:
        self.model, self.config, self.device = model, config, device
        self.optimizer = make_optimizer(model, config)
        self.forward: Trainable = compiled(model, config.compile) if config.compile else model
        self.kept = None if config.compile or device.type != "cpu" else KeptGradients(model)

    def make(self, corpus: CutDocuments, picked: np.ndarray) -> Any:
        return planned(self.model, corpus, picked, self.device, even=isinstance(self.forward, Recorded))

    def step(self, made: Any, rate: float) -> Tensor:
        return train_step(self.forward, self.model, self.optimizer, made.to(self.device), rate, self.config, self.kept)

    def agree(self, *flags: bool) -> list[bool]:
        return list(flags)

    def save(self, path: Path, progress: Progress) -> None:
        save_alone(path, self.model, self.optimizer, progress)

    def load(self, path: Path) -> Progress | None:
        if path.exists():
            return load_checkpoint(path, self.model, self.optimizer)
        return load_shards(path, self.model, self.optimizer)  # of several processes

    def finish(self) -> None:
        if self.kept is not None:
            self.kept.let_go()


MakeEngine = Callable[[nn.Module, TrainConfig, torch.device], Engine]


def train(
    model: nn.Module,
    corpus: CutDocuments,
    config: TrainConfig,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    report: Report | None = None,
    make_engine: MakeEngine = Alone,
) -> Progress:
    """Train in place until `config.bytes` are read, from the checkpoint if there is one that is whole.

    Raises TrainingFailed with the step where the loss was not finite or diverged; and when the checkpoint is written,
    after a step during which the process was told to stop, or its time was over, Stopped or TimeLimit.
    """
    model.train().to(device)
    engine = make_engine(model, config, device)
    progress = Progress()
    if checkpoint is not None:
        try:
            progress = engine.load(checkpoint) or progress
        except Damaged as error:
            warn(f"{error}; training from the beginning")
    with signals.put_off(), deterministic(device, config.deterministic):
        finished = _steps(engine, corpus, config, seed, progress, checkpoint, report)
    if not finished:  # one of the others was told to stop
        raise signals.Stopped
    engine.finish()
    if not all(bool(p.isfinite().all()) for p in model.parameters()):  # by the last step, which no loss follows
        last = progress.step - 1
        raise TrainingFailed(last, f"weights are not numbers after step {last}; lower train.lr (it is {config.lr:g})")
    if checkpoint is not None:
        engine.save(checkpoint, progress)
    model.eval()
    return progress


@contextmanager
def deterministic(device: torch.device, wanted: bool | None) -> Iterator[None]:
    """Sums on a GPU always in the same order, where that is wanted, so that a training that is killed ends with the
    same bits. On a CPU they are."""
    if device.type != "cuda" or not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it begins
    settings: Any = torch.utils.deterministic  # whose setting is a property of the module's class
    filled = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        settings.fill_uninitialized_memory = filled


@dataclass(frozen=True)
class _Taken:
    """A step that has been taken, whose loss has not been read."""

    number: int
    bytes: int
    rate: float
    nats: Tensor

    def settle(self, config: TrainConfig, progress: Progress) -> _Taken | None:
        """Read the loss, which waits for the device: the only thing in a step that does."""
        bits = self.nats.item() / math.log(2)
        if not math.isfinite(bits) or bits > DIVERGED_BITS:
            raise TrainingFailed(
                self.number,
                f"loss {bits:.4g} bits per byte at step {self.number}; lower train.lr (it is {config.lr:g})",
            )
        if self.number % config.log_every == 0 or self.bytes >= config.bytes:
            progress.curve.append([self.number, self.bytes, round(bits, 5), self.rate])
        return None


def _steps(
    engine: Engine,
    corpus: CutDocuments,
    config: TrainConfig,
    seed: int,
    progress: Progress,
    checkpoint: Path | None,
    report: Report | None,
) -> bool:
    """All steps that are left; False where the process was told to stop before the last.

    A loss is read when the step after it has been begun, so that the device need not wait for the host.
    """
    saved = began = time.perf_counter()
    spans = training_spans(corpus.offsets, config.window)
    every = enumerate(batches(spans, config.batch_bytes, config.bytes, seed))
    left = itertools.islice(every, progress.step, None)
    taken: _Taken | None = None
    for (number, picked), made in ahead(lambda item: engine.make(corpus, item[1]), left):
        size = int((picked[:, 1] - picked[:, 0]).sum())
        rate = learning_rate(config, progress.bytes + size // 2)
        busy = time.perf_counter()
        nats = engine.step(made, rate)
        if taken is not None:
            taken.settle(config, progress)
        progress.step = number + 1
        progress.bytes += size
        taken = _Taken(number, progress.bytes, rate, nats)
        if progress.bytes >= config.bytes:
            taken = taken.settle(config, progress)
        now = time.perf_counter()
        progress.busy_seconds += now - busy
        progress.seconds += now - began
        began = now
        if report is not None:
            report(progress, config.bytes)
        due = time.perf_counter() - saved > config.checkpoint_seconds
        stop, over, due = engine.agree(signals.asked(), signals.out_of_time(), due)
        if taken is not None and (stop or over or due):
            taken = taken.settle(config, progress)
        if checkpoint is not None and (due or stop or over):
            engine.save(checkpoint, progress)
            saved = time.perf_counter()
        if stop:
            return False
        if over:
            raise signals.TimeLimit.now()
    return True


def train_step(
    forward: Trainable,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    rate: float,
    config: TrainConfig,
    kept: KeptGradients | None = None,
) -> Tensor:
    """One update on a plan, or on windows; the mean nats per byte of the batch before it."""
    prediction = forward(batch, DTYPES[config.dtype])
    loss = prediction.nats.mean()
    (loss if prediction.loss is None else loss + prediction.loss).backward()
    if kept is not None:
        kept.show()
    # the fused optimizer divides gradients by `grad_scale`: no pass over them, and nobody reads their norm
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    optimizer.grad_scale = (norm / config.clip).clamp_(min=1)  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    optimizer.step()
    optimizer.zero_grad()
    if kept is not None:
        kept.clear()
    return loss.detach()


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
    save_tensors(path, dict(_tensors(model, optimizer)), vars(progress))


def save_alone(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """The checkpoint of a training in one process, which may have gone on with that of several."""
    save_checkpoint(path, model, optimizer, progress)
    for folder in found_beside(path):
        remove(folder)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Progress:
    """Put a checkpoint's tensors into a model (and its optimizer); the place in the data that it was taken at.

    Raises Damaged when the file is not as it was written; the model is as it was then.
    """
    held, progress = load_tensors(path)
    own = {f"model.{name}": p.data for name, p in model.named_parameters()}
    own |= {f"buffer.{name}": b for name, b in model.named_buffers()}
    if any(name not in held or held[name].shape != tensor.shape for name, tensor in own.items()):
        raise Damaged(f"{path} is of another model")
    for name, tensor in own.items():
        tensor.copy_(held[name])
    if optimizer is not None:
        for name, parameter in model.named_parameters():
            kept = {k: f"optimizer.{k}.{name}" for k in ("step", "exp_avg", "exp_avg_sq")}
            if kept["step"] in held:
                optimizer.state[parameter] = {k: held[v].to(parameter.device) for k, v in kept.items()}
        torch.set_rng_state(held["rng"])
    return Progress(**progress)
