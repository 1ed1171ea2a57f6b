"""Speed of a training step, as ratios measured in one run: python -m bench.perf.step [--turns 15]

Three workloads that stand here, so that no suite's config changes what is measured: documents of 485 bytes, full
windows of 8 kB, and documents as they come under the entropy patcher's cut at 4.5 bytes a patch. Of each

products:  seconds of a step over seconds of its matrix products alone, run again at the same sizes;
dense_gpt: FLOPs a second of the step over those of a dense GPT of the latent model's blocks on as many positions, which
           has the faster of our attention and torch's;
rows:      the fastest over the slowest of three cuts with the same number of patches (even, at random, in clusters);
loader:    seconds of training over seconds of the same steps on batches that are there already.

The contenders take turns, a step each, so that a busy machine slows all of them; medians over the turns are compared.
Seconds are CPU time for the first three, since they are one thread's work, and those of the clock for the loader.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import patchers
from bench.data.config import DataConfig, load
from bench.data.cut_corpus import CutDocuments, Cuts, batches, training_spans
from bench.suites.config import TrainConfig
from bench.system.memory import keep_memory
from bench.training.loop import DTYPES, Alone, train
from models.flops import Shapes, block_flops, harness_flops, seen_keys
from models.harness import Harness, HarnessConfig
from models.initialization import initialise
from models.layers import Attention, Linear, Transformer
from models.plan import Sequences

SIZES = HarnessConfig(
    local_width=64, local_heads=2, encoder_layers=1, decoder_layers=2, local_window=64, latent_width=192,
    latent_heads=4, latent_layers=8, ngrams=(3, 4, 5, 6), ngram_rows=32768, patch_rows=32768, boundary_inputs="none",
)  # fmt: skip
CPU = torch.device("cpu")
PATCH = 4.5


@dataclass(frozen=True)
class Workload:
    length: int | None
    """Bytes of each document; None for documents as they are."""

    window: int
    batch_bytes: int
    entropy: bool = False

    @property
    def config(self) -> TrainConfig:
        return TrainConfig(bytes=1 << 40, batch_bytes=self.batch_bytes, window=self.window, compile=False)


WORKLOADS = {
    "documents of 485 bytes": Workload(485, 1024, 4096),
    "windows of 8 kB": Workload(8192, 8192, 8192),
    "entropy at 4.5": Workload(None, 2048, 4096, entropy=True),
}


def documents(workload: Workload, size: int) -> list[bytes]:
    """About `size` bytes of wiki-en."""
    texts = list(load(DataConfig(corpus="wiki-en")).train.texts)
    whole = b"\n".join(texts)[:size]
    if workload.length is not None:
        return [whole[at : at + workload.length] for at in range(0, len(whole) - workload.length + 1, workload.length)]
    return [line for line in whole.split(b"\n") if line]


def even(length: int, count: int) -> np.ndarray:
    starts = np.zeros(length, bool)
    starts[(np.arange(count) * length / count).astype(int)] = True
    return starts


def rows_of(docs: Sequence[bytes], workload: Workload) -> dict[str, CutDocuments]:
    """The same documents under cuts with the same number of patches in each; the workload's own is the first."""
    if workload.entropy:
        patcher = patchers.create("entropy", model="ngram").fit(docs).calibrate(docs, PATCH)
        first = patcher.segment_many(docs)
    else:
        first = [even(len(doc), max(1, round(len(doc) / PATCH))) for doc in docs]
    counts = [int(starts.sum()) for starts in first]
    rng = np.random.default_rng(0)

    def of(make: Callable[[int, int], np.ndarray]) -> list[np.ndarray]:
        return [make(len(doc), count) for doc, count in zip(docs, counts, strict=True)]

    def at_random(length: int, count: int) -> np.ndarray:
        starts = np.zeros(length, bool)
        starts[[0, *(1 + rng.permutation(length - 1)[: count - 1])]] = True
        return starts

    def clustered(length: int, count: int) -> np.ndarray:
        """Every other stretch of 64 bytes has three quarters of the patches."""
        weight = np.where(np.arange(length) // 64 % 2, 3.0, 1.0)
        weight[0] = 1e9
        starts = np.zeros(length, bool)
        starts[rng.choice(length, count, replace=False, p=weight / weight.sum())] = True
        return starts

    cuts = {"own": first, "at random": of(at_random), "in clusters": of(clustered)}
    return {name: CutDocuments.of(docs, Cuts(np.concatenate(starts))) for name, starts in cuts.items()}


class Products:
    """The matrix products of some work, by their sizes, to be run again."""

    NAMES = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::baddbmm_")

    def __init__(self, work: Callable[[], object], dtype: torch.dtype) -> None:
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            work()
        self.pairs: list[tuple[Tensor, Tensor]] = []
        made: dict[tuple[int, ...], Tensor] = {}
        for event in seen.events():
            if event.name in self.NAMES:
                shapes = [tuple(shape) for shape in event.input_shapes if len(shape) > 1][-2:]
                a, b = (made.setdefault(shape, torch.randn(shape, dtype=dtype)) for shape in shapes)
                self.pairs.append((a, b))

    def run(self) -> None:
        for a, b in self.pairs:
            torch.matmul(a, b)


class TorchAttention(nn.Module):
    """`Attention` by torch's `scaled_dot_product_attention`, over sequences of one length."""

    def __init__(self, own: Attention, length: int) -> None:
        super().__init__()
        self.own, self.length = own, length

    def forward(self, x: Tensor, rope: Any, seen: Any, window: Any) -> Tensor:
        h, width = self.own.heads, x.shape[1]
        heads = self.own.qkv(x).view(len(x), 3 * h, -1).transpose(0, 1)
        q, k, v = heads.split(h)
        q, k, v = (
            y.reshape(h, -1, self.length, width // h).transpose(0, 1) for y in (rope.rotate(q), rope.rotate(k), v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.own.out(mixed.transpose(1, 2).reshape(len(x), width))


class DenseGPT(nn.Module):
    """The latent transformer alone, over every position of its input."""

    def __init__(self, sizes: HarnessConfig, sequences: Sequences, length: int, torchs: bool) -> None:
        super().__init__()
        self.sequences = sequences
        self.byte = nn.Parameter(torch.empty(257, sizes.latent_width))
        self.lookup_std = {"byte": 0.5}
        self.latent = Transformer(sizes.latent_width, sizes.latent_layers, sizes.latent_heads)
        self.head = Linear(sizes.latent_width, 256)
        initialise(self, 0)
        if torchs:
            for block in self.latent.blocks:
                own = block.attention
                assert isinstance(own, Attention)
                block.attention = TorchAttention(own, length)

    def forward(self, data: Tensor, dtype: torch.dtype) -> Any:
        x = F.embedding(data, self.byte).to(dtype)
        nats = F.cross_entropy(self.head(self.latent(x, self.sequences)).float(), data, reduction="none")
        return argparse.Namespace(nats=nats, loss=None)


def turns(contenders: dict[str, Callable[[], object]], count: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each contender, after one unmeasured turn."""
    out: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(count + 1):
        for name, step in contenders.items():
            began = clock()
            step()
            if turn:
                out[name].append(clock() - began)
    return {name: float(np.median(seconds)) for name, seconds in out.items()}


def measure(workload: Workload, count: int, sizes: HarnessConfig = SIZES, size: int = 400_000) -> dict[str, float]:
    torch.set_num_threads(1)
    docs, config = documents(workload, size), workload.config
    rows, dtype = rows_of(docs, workload), DTYPES[config.dtype]

    def engine(model: nn.Module) -> Alone:
        return Alone(model.train(), config, CPU)

    def fresh() -> Harness:
        model = Harness(sizes)
        initialise(model, 0)
        return model

    spans = training_spans(rows["own"].offsets, config.window)
    picked = next(batches(spans, config.batch_bytes, 1 << 60, 0))
    contenders: dict[str, Callable[[], object]] = {}
    for name, corpus in rows.items():
        own = engine(fresh())
        made = own.make(corpus, picked)
        contenders[name] = lambda own=own, made=made: own.step(made, 1e-4)  # type: ignore[misc]
    products = Products(contenders["own"], dtype)
    length = min(256, int((picked[:, 1] - picked[:, 0]).min()))
    total = int((picked[:, 1] - picked[:, 0]).sum()) // length * length
    data = rows["own"].windows(picked).data[:total]
    lengths = torch.full((total // length,), length)
    for name, torchs in (("gpt", False), ("gpt of torch", True)):
        other = engine(DenseGPT(sizes, Sequences.of(lengths, total), length, torchs))
        contenders[name] = lambda other=other: other.step(data, 1e-4)  # type: ignore[misc]
    took = turns(contenders | {"products": products.run}, count, time.process_time)

    batch = rows["own"].windows(picked)
    patches = np.bincount(batch.window_of().numpy(), batch.starts.numpy()).astype(int)
    ours = 3 * sum(harness_flops(sizes, 256, Shapes(batch.lengths.numpy(), patches)).values())
    gpt = 3 * block_flops(sizes.latent_width, sizes.latent_layers, total, seen_keys(lengths.numpy()))
    gpt += 3 * 2.0 * total * sizes.latent_width * 256
    each = [took[name] for name in rows]
    return {
        "products": took["own"] / took["products"],
        "dense_gpt": (ours / took["own"]) / (gpt / min(took["gpt"], took["gpt of torch"])),
        "rows": min(each) / max(each),
        "loader": loader(rows["own"], workload, fresh, min(12, count)),
        "bytes_per_second": len(batch.data) / took["own"],
    }


def loader(corpus: CutDocuments, workload: Workload, fresh: Callable[[], Harness], steps: int) -> float:
    """Seconds of a training over those of its steps with batches that are there already."""
    config = TrainConfig(
        bytes=steps * workload.batch_bytes, batch_bytes=workload.batch_bytes, window=workload.window, compile=False
    )
    spans = training_spans(corpus.offsets, config.window)
    model = Alone(fresh().train(), config, CPU)
    made = [model.make(corpus, picked) for picked in batches(spans, config.batch_bytes, config.bytes, 0)]

    def prebuilt() -> None:
        for each in made:
            model.step(each, 1e-4).item()

    took = turns({"train": lambda: train(fresh(), corpus, config, 0, CPU), "prebuilt": prebuilt}, 3, time.perf_counter)
    return took["train"] / took["prebuilt"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    keep_memory()
    found = {name: measure(workload, arguments.turns) for name, workload in WORKLOADS.items()}
    print(json.dumps({k: {n: round(v, 4) for n, v in of.items()} for k, of in found.items()}, indent=1))


if __name__ == "__main__":
    main()
