"""How much of a device's product rate training reaches: python -m bench.perf.gpu [--suite gpu] [--row stride]
[--turns 10] [--side 8192] [--set train.batch_bytes=262144]

products: square products in the dtype of training, the rate that the others are measured against
latent: the latent transformer forward and backward, on the patches of one part of a real batch
step: whole training steps, with the time in which their windows are gathered

FLOPs are those that a record counts: padding, softmax and pointwise work are none. The device is the GPU where there is
one. Medians over turns, after a turn that is not counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from bench.data.config import load
from bench.data.cut_corpus import batches, training_spans
from bench.execution.run import best_device, engine_of
from bench.suites.config import load_suite
from bench.training.loop import DTYPES
from bench.training.parallel import shares
from bench.training.prepare import flops, make_model, prepare
from models.batch import Patches
from models.flops import block_flops, seen_keys
from models.harness import Harness
from patchers.errors import BenchError


def seconds(work: Callable[[], object], turns: int, device: torch.device) -> float:
    """The median of some turns, each until the device has finished."""
    taken = []
    for _ in range(turns + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:]))


def measure(
    suite_name: str, label: str, turns: int, side: int, overrides: Sequence[str] = ()
) -> dict[str, float | str]:
    suite = load_suite(suite_name, overrides)
    row, device = suite.row(label), best_device()
    if row.model != "harness" or (row.patcher is not None and row.patcher.kind == "in-model"):
        raise BenchError(f"row {label!r} has no latent model over given patches; choose one such as stride")
    with tempfile.TemporaryDirectory() as cache:
        prepared = prepare(suite, row, load(suite.data), Path(cache), lambda message: None)
    corpus, config, dtype = prepared.train, row.train, DTYPES[row.train.dtype]
    picked = next(batches(training_spans(corpus.offsets, config.window), config.batch_bytes, 1 << 60, seed=0))
    model = make_model(row, prepared.patcher, 0).train().to(device)
    assert isinstance(model, Harness)
    c = model.config

    batch = corpus.windows(shares(picked, 1, suite.launch.micro_bytes)[0][0]).to(device)
    starts = batch.starts.index_fill(0, batch.offsets[:-1], True)
    patches = Patches.of(starts, batch.offsets).first.diff()
    count, pairs = int(patches.sum()), seen_keys(patches.cpu().numpy())
    x = torch.randn(count, c.latent_width, device=device, dtype=dtype, requires_grad=True)

    def latent() -> None:
        model.latent(x, patches).sum().backward()
        model.zero_grad()
        x.grad = None

    square = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(square)
    per_byte = flops(prepared)
    work = {
        "products": 2.0 * side**3,
        "latent": 3 * block_flops(c.latent_width, c.latent_layers, count, pairs, c.latent_hidden),
        "step": 3 * (per_byte["total"] - per_byte["patcher"]) * float((picked[:, 1] - picked[:, 0]).sum()),
    }
    took = {
        "products": seconds(lambda: torch.mm(square, square, out=out), turns, device),
        "latent": seconds(latent, turns, device),
    }
    engine = engine_of(suite)(model, config, device)
    took["step"] = seconds(lambda: engine.step(corpus, picked, 1e-4), turns, device)
    rate = {name: work[name] / took[name] for name in work}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": row.train.dtype,
        **{f"{name}_tflops_per_second": rate[name] / 1e12 for name in rate},
        "latent_over_products": rate["latent"] / rate["products"],
        "step_over_products": rate["step"] / rate["products"],
        "latent_share_of_flops": per_byte["latent"] / (per_byte["total"] - per_byte["patcher"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="gpu")
    parser.add_argument("--row", default="stride")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--side", type=int, default=8192, help="of the square products")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as of patchbench run"
    )
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.suite, arguments.row, arguments.turns, arguments.side, arguments.set), indent=1))


if __name__ == "__main__":
    main()
