"""Speed of a training step, as ratios measured in one run: python -m bench.perf.step [--suite quick] [--row stride]
[--set train.batch_bytes=16384]

(a) the step against the same model run plainly: float32, and norms, rotations, SwiGLU, attention, pooling, reading
    and lookups as torch composes them, AdamW and clipping as they come; and against that with our optimizer;
(b) its model FLOP/s against those of a dense GPT made of the same blocks at the latent width, on as many positions;
(e) the share of a training's time outside forward, backward and optimizer;
(f) padding of latent positions.

The contenders take turns, a step each, so that a busy machine slows all of them; medians over the turns are compared,
and the quartiles of the paired ratio are given with them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.config import load
from bench.data.cut_corpus import batches, training_spans
from bench.suites.config import load_suite
from bench.system.memory import keep_memory
from bench.training import loop as training
from bench.training.loop import DTYPES, make_optimizer, train, train_step
from bench.training.prepare import flops, make_model, prepare
from models import hash_embeddings, layers, packing, pooling
from models.batch import bucket
from models.flops import Shapes, block_flops, seen_keys
from models.harness import Harness
from models.hash_embeddings import KeptGradients
from models.initialization import initialise
from models.packing import PackedTransformer, pack, spans_of

Dtype = Literal["auto", "bfloat16", "float32"]

ROW_LENGTH = 256
"""Positions of a sequence of the dense GPT: as many as a window has patches of four bytes."""


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Norms, rotations, SwiGLU, attention, pooling, reading and lookups as one would first write them."""

    def norm(self: layers.RMSNorm, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps)

    def swiglu(self: layers.SwiGLU, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)

    def rotate(self: layers.Rope, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat((b, a), -1) * self.sin

    def attend(self: layers.Attention, x: Tensor, rope: layers.Rope, mask: layers.LocalMask | layers.RowMask) -> Tensor:
        qk, v = self.qkv(x).view(len(x), 3 * self.heads, -1).split((2 * self.heads, self.heads), 1)
        q, k = rope.rotate(qk).split(self.heads, 1)
        return self.out(mask.attention(q, k, v))

    def pool(self: pooling.PatchQueries, x: Tensor, member: Tensor, count: int) -> Tensor:
        t, d = x.shape
        e = d // self.heads
        slots = self.expand(pooling.segment_max(x, member, count)).view(count, self.slots, d)
        query = self.query(self.query_norm(slots)).view(count, self.slots * d)
        key, value = self.key_value(self.key_norm(x)).view(t, 2, 1, self.heads, e).unbind(1)
        mine = query.index_select(0, member.clamp(max=count - 1)).view(t, self.slots, self.heads, e)
        flat = ((mine * key).sum(-1).float() * e**-0.5).view(t, -1)
        peak = pooling.segment_max(flat.detach(), member, count).index_select(0, member.clamp(max=count - 1))
        weight = (flat - peak).clamp(max=0).exp()
        sums = pooling.segment_sum(weight, member, count).clamp(min=1e-30)
        mixed = (weight.to(x.dtype).view(t, self.slots, self.heads, 1) * value).view(t, -1)
        mixed = pooling.segment_sum(mixed, member, count).view(count, self.slots, self.heads, e)
        mixed = mixed / sums.to(x.dtype).view(count, self.slots, self.heads, 1)
        return slots + self.out(mixed.reshape(count, self.slots, d))

    def read(self: pooling.PatchReader, x: Tensor, slots: Tensor, index: Tensor) -> Tensor:
        (t, d), (p, k, _) = x.shape, slots.shape
        e = d // self.heads
        query = self.query(self.query_norm(x)).view(t, 1, self.heads, e)
        both = self.key_value(self.slot_norm(slots)).view(p, k * 2 * d).index_select(0, index)
        key, value = both.view(t, k, 2, self.heads, e).unbind(2)
        weight = torch.softmax((query * key).sum(-1) * e**-0.5, 1)
        return self.out((weight.unsqueeze(-1) * value).sum(1).reshape(t, d))

    def look_up(table: Tensor, rows: Tensor, skip: int | None = None) -> Tensor:
        if skip is None:
            return F.embedding(rows[:, 0], table)
        return F.embedding_bag(rows, table, mode="sum", padding_idx=skip)

    with (
        patch.object(layers.RMSNorm, "forward", norm),
        patch.object(layers.SwiGLU, "forward", swiglu),
        patch.object(layers.Rope, "rotate", rotate),
        patch.object(layers.Attention, "forward", attend),
        patch.object(pooling.PatchQueries, "forward", pool),
        patch.object(pooling.PatchReader, "forward", read),
        patch.object(hash_embeddings, "look_up", look_up),
        patch.object(packing, "spans_of", lambda lengths: None),
        patch.object(training, "_clip", lambda model, limit: nn.utils.clip_grad_norm_(model.parameters(), limit)),
    ):
        yield


class DenseGPT(nn.Module):
    """The latent transformer alone, over every position of its input, in the harness's dtype."""

    def __init__(self, width: int, depth: int, heads: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.byte = nn.Parameter(torch.empty(257, width))
        self.lookup_std = {"byte": 0.5}
        self.latent = PackedTransformer(width, depth, heads)
        self.head = layers.Linear(width, 256)

    def loss(self, data: Tensor, lengths: Tensor) -> Tensor:
        x = F.embedding(data, self.byte).to(self.dtype)
        return F.cross_entropy(self.head(self.latent(x, lengths)).float(), data)


def turns(contenders: dict[str, Callable[[], None]], count: int) -> dict[str, np.ndarray]:
    """Seconds of each contender in each turn, after one unmeasured turn."""
    out: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(count + 1):
        for name, step in contenders.items():
            began = time.perf_counter()
            step()
            if turn:
                out[name].append(time.perf_counter() - began)
    return {name: np.array(seconds) for name, seconds in out.items()}


def measure(suite_name: str, label: str, count: int, overrides: Sequence[str] = ()) -> dict[str, float]:
    keep_memory()
    suite = load_suite(suite_name, overrides)
    row = suite.row(label)
    data = load(suite.data)
    with tempfile.TemporaryDirectory() as cache:
        prepared = prepare(suite, row, data, Path(cache), lambda message: None)
    corpus, config = prepared.train, row.train
    batch = corpus.windows(next(batches(training_spans(corpus.offsets, config.window), config.batch_bytes, 1 << 60, 0)))
    cpu = torch.device("cpu")

    def stepper(dtype: Dtype, plain: Literal["all", "model"] | None) -> Callable[[], None]:
        model = make_model(row, prepared.patcher, 0)
        optimizer = make_optimizer(model, config)
        if plain == "all":
            fields = ("params", "lr", "betas", "weight_decay", "scale")
            optimizer = torch.optim.AdamW([{key: group[key] for key in fields} for group in optimizer.param_groups])
        settings = replace(config, dtype=dtype)
        kept = KeptGradients(model) if plain is None else None

        def step() -> None:
            with plainly() if plain else contextlib.nullcontext():
                train_step(model, model, optimizer, batch, 1e-4, settings, kept)

        return step

    model = make_model(row, prepared.patcher, 0)
    assert isinstance(model, Harness)
    sizes = model.config
    gpt = DenseGPT(sizes.latent_width, sizes.latent_layers, sizes.latent_heads, DTYPES[config.dtype])
    initialise(gpt, 0)
    gpt_optimizer = make_optimizer(gpt, config)
    lengths = torch.full((len(batch.data) // ROW_LENGTH,), ROW_LENGTH)
    tokens = batch.data[: int(lengths.sum())]

    def gpt_step() -> None:
        gpt.loss(tokens, lengths).backward()
        nn.utils.clip_grad_norm_(gpt.parameters(), config.clip)
        gpt_optimizer.step()
        gpt_optimizer.zero_grad()

    contenders = {"harness": stepper(config.dtype, None), "plain": stepper("float32", "all")}
    contenders |= {"plain model": stepper("float32", "model"), "gpt": gpt_step}
    seconds = turns(contenders, count)
    shapes = Shapes(lengths.numpy(), lengths.numpy())
    gpt_flops = 3 * (
        block_flops(sizes.latent_width, sizes.latent_layers, shapes.bytes, seen_keys(shapes.patches))
        + 2.0 * shapes.bytes * sizes.latent_width * 256
    )
    harness_flops = 3 * flops(prepared)["total"] * len(batch.data)
    rate = {"harness": harness_flops / seconds["harness"], "gpt": gpt_flops / seconds["gpt"]}
    patches = np.bincount(batch.window_of().numpy(), batch.starts.numpy()).astype(int)
    total = int(patches.sum())
    few = replace(config, bytes=12 * config.batch_bytes)
    progress = train(make_model(row, prepared.patcher, 0), corpus, few, 0, cpu)
    quarter = [float(np.quantile(seconds["plain"] / seconds["harness"], q)) for q in (0.25, 0.75)]
    return {
        "a_speedup_over_plain_float32": float(np.median(seconds["plain"]) / np.median(seconds["harness"])),
        "a_speedup_over_plain_model": float(np.median(seconds["plain model"]) / np.median(seconds["harness"])),
        "a_lower_quartile": quarter[0],
        "a_upper_quartile": quarter[1],
        "b_flop_rate_over_dense_gpt": float(np.median(rate["harness"]) / np.median(rate["gpt"])),
        "b_lower_quartile": float(np.quantile(rate["harness"] / rate["gpt"], 0.25)),
        "b_upper_quartile": float(np.quantile(rate["harness"] / rate["gpt"], 0.75)),
        "harness_gflops_per_second": float(np.median(rate["harness"])) / 1e9,
        "gpt_gflops_per_second": float(np.median(rate["gpt"])) / 1e9,
        "harness_bytes_per_second": len(batch.data) / float(np.median(seconds["harness"])),
        "e_share_outside_the_step": 1 - progress.busy_seconds / progress.seconds,
        "f_latent_padding": pack(patches, cpu).waste if spans_of(patches) is None else 1 - total / bucket(total),
        "threads": float(torch.get_num_threads()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--row", default="stride")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as of patchbench run"
    )
    arguments = parser.parse_args()
    found = measure(arguments.suite, arguments.row, arguments.turns, arguments.set)
    assert all(math.isfinite(v) for v in found.values())
    print(json.dumps({k: round(v, 4) for k, v in found.items()}, indent=1))


if __name__ == "__main__":
    main()
