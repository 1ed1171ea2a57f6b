"""How much of a device's product rate training reaches: python -m bench.perf.gpu [--suite gpu] [--row stride]
[--turns 10] [--side 8192] [--set train.batch_bytes=262144], or all that a first visit to a GPU should find out:
python -m bench.perf.gpu --all [--minutes 10] [-o FILE.json]

products: square products in the dtype of training, the rate that the others are measured against
latent: the latent transformer forward and backward, on the patches of one part of a real batch
step: whole training steps, with the time in which their windows are gathered

--all writes one JSON: the tests for CUDA; of each row of the suite the FLOPs a second, and their share of the products'
(`mfu`), with our own operator for attention, with torch's variable-length attention, compiled, and as CUDA graphs (of
the first row also with `train.deterministic`); and whether a training that is stopped twice ends with the same bits.
What there is no time for is named. --dry-run goes the same way on the CPU with models made small, and runs each row at
its full size on meta tensors, which have no values, so that time on a GPU is not spent on typing errors.

FLOPs are those that a record counts: padding, softmax and pointwise work are none. The device is the GPU where there is
one. Medians over turns, after a turn that is not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from bench.data.config import load
from bench.data.cut_corpus import batches, training_spans
from bench.execution.run import best_device, engine_of
from bench.suites.config import Compile, Row, Suite, load_suite
from bench.training import prepare as prepare_module
from bench.training.loop import DTYPES, Progress, deterministic, train
from bench.training.parallel import shares
from bench.training.prepare import Prepared, flops, make_model, prepare
from models import attention
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

    batch = corpus.windows(shares(picked, 1, suite.launch.micro_bytes)[0][0])
    cut = model.plan(batch).cut
    assert cut is not None
    patches, count = cut.latent.segments.cu.diff(), len(cut.bos)
    pairs = seen_keys(patches.numpy())
    sequences = cut.latent.to(device)
    x = torch.randn(count, c.latent_width, device=device, dtype=dtype, requires_grad=True)

    def latent() -> None:
        model.latent(x, sequences).sum().backward()
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
    took["step"] = seconds(lambda: engine.step(engine.make(corpus, picked), 1e-4).item(), turns, device)
    rate = {name: work[name] / took[name] for name in work}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": row.train.dtype,
        **{f"{name}_tflops_per_second": rate[name] / 1e12 for name in rate},
        "latent_over_products": rate["latent"] / rate["products"],
        "step_over_products": rate["step"] / rate["products"],
        "latent_share_of_flops": per_byte["latent"] / (per_byte["total"] - per_byte["patcher"]),
    }


# --- all at once


@dataclass(frozen=True)
class Mode:
    """A way to train."""

    varlen: bool = True
    """Whether attention is torch's."""

    compile: Compile = False
    deterministic: bool = False


MODES = {
    "own operator": Mode(varlen=False),
    "varlen": Mode(),
    "compiled": Mode(compile=True),
    "CUDA graphs": Mode(compile="cuda_graphs"),
}
OF_FIRST = {"varlen, deterministic": Mode(deterministic=True)}
"""What is asked of the first row alone."""

SMALL = {
    "harness": {"local_width": 32, "latent_width": 64, "latent_heads": 2, "latent_layers": 2, "local_heads": 2},
    "token_lm": {"width": 32, "heads": 2, "layers": 1},
    "byte_lm": {"width": 32, "heads": 2, "layers": 1},
}
"""Sizes of a dry run."""


def made_small(row: Row) -> Row:
    """A row with the sizes of a dry run, in batches of two windows."""
    sizes: Any = row.sizes  # what fields they have goes with the kind of model
    train = dataclasses.replace(row.train, batch_bytes=min(row.train.batch_bytes, 2 * row.train.window))
    return dataclasses.replace(row, sizes=dataclasses.replace(sizes, **SMALL[row.model]), train=train)


ENOUGH_BYTES = 8_000_000
"""Of a corpus whose suite sets no limit: speed wants a few batches, not what a hundred megabytes take to be cut."""


class Visit:
    """What is found out, part by part, while there is time; written after each, so that nothing is lost."""

    def __init__(self, minutes: float, output: Path | None) -> None:
        self.until = time.perf_counter() + 60 * minutes
        self.output = output
        self.found: dict[str, Any] = {"left out": []}

    def part(self, name: str, seconds: float, work: Callable[[], Any]) -> bool:
        """Do a part that takes about so long -> whether it was done; a failure is written down, and others go on."""
        if time.perf_counter() + seconds > self.until:
            self.found["left out"].append(name)
            return False
        say(name)
        began = time.perf_counter()
        try:
            self.found[name] = work()
        except Exception as error:  # noqa: BLE001 - whatever a device that nobody has tried comes up with
            self.found[name] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        self.found.setdefault("seconds", {})[name] = round(time.perf_counter() - began, 1)
        if self.output is not None:
            self.output.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        return not (isinstance(self.found[name], dict) and "failed" in self.found[name])


def say(message: str) -> None:
    """To the terminal, beside what is written."""
    print(message, file=sys.stderr, flush=True)


def with_mfu(rate: Callable[[], float], peak: Any) -> float | dict[str, float]:
    """A rate of a part and its share of the products', where those have been measured."""
    found = rate()
    return {"flops_per_second": found, "mfu": found / peak} if isinstance(peak, float) else found


def cuda_tests() -> dict[str, Any]:
    """The project's own tests that want a GPU, where the repository is the folder that the command runs in."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", "tests/bench/execution/test_gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    return {"exit code": done.returncode, "said": done.stdout[-1500:]}


def rate_of(suite: Suite, row: Row, prepared: Prepared, mode: Mode, turns: int, small: bool) -> float:
    """Training FLOPs a second."""
    device = best_device()
    config = dataclasses.replace(row.train, compile=False if small else mode.compile)
    corpus = prepared.train
    picked = next(batches(training_spans(corpus.offsets, config.window), config.batch_bytes, 1 << 60, seed=0))
    model = make_model(row, prepared.patcher, 0).train().to(device)
    engine = engine_of(suite)(model, config, device)
    made = engine.make(corpus, picked)
    half = attention.HALF if mode.varlen else ()
    with patch.object(attention, "HALF", half), deterministic(device, mode.deterministic):
        took = seconds(lambda: engine.step(made, 1e-4).item(), turns, device)
    per_byte = flops(prepared)
    return 3 * (per_byte["total"] - per_byte["patcher"]) * float((picked[:, 1] - picked[:, 0]).sum()) / took


def on_meta(row: Row, prepared: Prepared, suite: Suite) -> dict[str, Any]:
    """A step of a row at its full size as a GPU would take it, on tensors without values."""
    with torch.device("meta"), patch.object(prepare_module, "initialise", lambda model, seed: None):
        model = make_model(row, prepared.patcher, 0).train()
    spans = training_spans(prepared.train.offsets, row.train.window)
    picked = next(batches(spans, row.train.batch_bytes, 1 << 60, seed=0))
    part = shares(picked, 1, suite.launch.micro_bytes)[0][0]
    plan: Any = model.plan(prepared.train.windows(part))  # type: ignore[operator]
    with patch.object(Harness, "_routed", _evenly_cut(plan)):
        prediction = model(plan.to(torch.device("meta")), torch.bfloat16)
    prediction.nats.sum().backward()
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gradients": sum(p.grad is not None for p in model.parameters()),
        "bytes": len(prediction.nats),
    }


def _evenly_cut(plan: Any) -> Callable[..., Any]:
    """What stands in for a router's cut, which has no values either: a start every fourth byte."""

    def routed(model: Harness, plan_on_meta: Any, starts_on_meta: Any) -> Any:
        starts = plan.starts | (torch.arange(len(plan.starts)) % 4 == 0)
        return model._after(plan, starts).to(starts_on_meta.device)

    return routed


def stopped_twice(suite: Suite, row: Row, prepared: Prepared) -> dict[str, Any]:
    """Whether a training of ten steps that is stopped at the third and the seventh ends with the same bits."""
    device = best_device()
    config = dataclasses.replace(
        row.train, bytes=10 * row.train.batch_bytes, deterministic=True, compile=False, checkpoint_seconds=1e-9
    )

    def trained(folder: Path, stops: Sequence[int]) -> tuple[str, float]:
        for stop in (*stops, 0):
            model = make_model(row, prepared.patcher, 0)

            def report(progress: Progress, total: int, stop: int = stop) -> None:
                if progress.step == stop:
                    raise InterruptedError

            began = time.perf_counter()
            with suppress(InterruptedError):
                train(model, prepared.train, config, 0, device, folder / "training", report, engine_of(suite))
        digest = hashlib.sha256()
        for tensor in model.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16], time.perf_counter() - began

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, stopped = trained(Path(one), ()), trained(Path(other), (3, 7))
    return {"same bits": whole[0] == stopped[0], "undisturbed": whole[0], "stopped": stopped[0]}


def everything(
    suite_name: str,
    overrides: Sequence[str],
    minutes: float,
    turns: int,
    side: int,
    dry: bool,
    output: Path | None = None,
) -> Any:
    visit, device = Visit(minutes, output), best_device()
    suite = load_suite(suite_name, overrides)
    if suite.data.max_bytes is None:
        suite = load_suite(suite_name, [*overrides, f"data.max_bytes={ENOUGH_BYTES}"])
    visit.found |= {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "dry run": dry}
    data = load(suite.data)

    def products() -> float:
        square = torch.randn(side, side, device=device, dtype=torch.bfloat16)
        out = torch.empty_like(square)
        return 2.0 * side**3 / seconds(lambda: torch.mm(square, square, out=out), turns, device)

    visit.part("tests for CUDA", 240, lambda: "skipped: a dry run" if dry else cuda_tests())
    visit.part("products_flops_per_second", 5, products)
    with tempfile.TemporaryDirectory() as cache:
        for number, row in enumerate(suite.rows):
            made: list[Prepared] = []
            asked = MODES | OF_FIRST if number == 0 else MODES

            def ready(row: Row = row, made: list[Prepared] = made) -> str:
                made.append(prepare(suite, row, data, Path(cache), say))
                return "done"

            if not visit.part(f"{row.label}: fitted and cut", 60, ready):
                missing = [f"{row.label}: {mode}" for mode in asked]
                visit.found["left out"] += [*missing, "stopped twice"] if number == 0 else missing
                continue
            (prepared,) = made
            if dry:
                visit.part(f"{row.label}: on meta tensors", 20, functools.partial(on_meta, row, prepared, suite))
                row = made_small(row)
                prepared = dataclasses.replace(prepared, row=row)
            peak = visit.found.get("products_flops_per_second")
            for mode, how in asked.items():
                rate = functools.partial(rate_of, suite, row, prepared, how, turns, dry)
                visit.part(f"{row.label}: {mode}", 40, functools.partial(with_mfu, rate, peak))
            if number == 0:
                visit.part("stopped twice", 60, functools.partial(stopped_twice, suite, row, prepared))
    return visit.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="gpu")
    parser.add_argument("--row", default="stride")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--side", type=int, default=8192, help="of the square products")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, as of patchbench run"
    )
    parser.add_argument("--all", action="store_true", help="everything that a first visit should find out")
    parser.add_argument("--dry-run", action="store_true", help="--all on the CPU, models made small")
    parser.add_argument("--minutes", type=float, default=10.0, help="that --all may take")
    parser.add_argument("-o", "--output", type=Path, help="where --all writes its JSON; by default to the terminal")
    arguments = parser.parse_args()
    if arguments.all:
        given = arguments.suite, arguments.set, arguments.minutes, arguments.turns, arguments.side, arguments.dry_run
        print(json.dumps(everything(*given, arguments.output), indent=1))
        return
    print(json.dumps(measure(arguments.suite, arguments.row, arguments.turns, arguments.side, arguments.set), indent=1))


if __name__ == "__main__":
    main()
