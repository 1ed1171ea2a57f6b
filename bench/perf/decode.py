"""Speed of decoding, as ratios measured in one run:
    python -m bench.perf.decode [--turns 7] [--blt]

(a) a byte with caches against the full forward for each byte, at 1,024 bytes; and the whole of writing 1,024 bytes;
(b) the cost of a byte at position 4,000 against that at 250, with a local window of 256;
(c) with --blt, against `BltForCausalLM.generate(use_cache=False)` of transformers, random weights, equal sizes: local
    and latent widths, layers and heads, the window, slots a patch, n-grams. Patchbench does not depend on transformers
    (5.23 was measured); where it is not installed, (c) is skipped and says so.

Contenders take turns, so that whatever else the machine does hits both; ratios are medians over turns. Weights are
random: no contender's work depends on them. Seconds are those of the wall; "cpu" ratios count this process's own
seconds, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from models.batch import Windows
from models.decoding.step import HarnessDecoder
from models.harness import Harness, HarnessConfig
from models.initialization import initialise
from models.layers import swiglu_hidden

P = ParamSpec("P")
T = TypeVar("T")
Found = dict[str, float | list[float] | str]

STRIDE = 4
"""A start every so many bytes: about the patch size that suites are calibrated to."""


def model_of(window: int) -> Harness:
    model = Harness(HarnessConfig(local_window=window))
    initialise(model, 0)
    return model.eval()


def starts_of(size: int) -> np.ndarray:
    return np.arange(size) % STRIDE == 0


def text_of(size: int) -> bytes:
    return bytes(np.random.default_rng(0).integers(97, 123, size, dtype=np.uint8))


def timed(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[float, float, T]:
    """Seconds of the wall, this process's own, and what came out."""
    began, own = time.perf_counter(), time.process_time()
    out = work(*args, **kwargs)
    return time.perf_counter() - began, time.process_time() - own, out


def seconds(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    return timed(work, *args, **kwargs)[0]


def decoder_at(model: Harness, position: int) -> HarnessDecoder:
    return HarnessDecoder(model, [text_of(position)], [starts_of(position + 1)])


def steps(decoder: HarnessDecoder, count: int) -> None:
    """`count` greedy bytes."""
    for _ in range(count):
        byte = decoder.logits.argmax(1).numpy()
        decoder.step(byte, (decoder.positions + 1) % STRIDE == 0)


def full_step(model: Harness, size: int) -> None:
    """A byte without caches: the forward pass over all bytes so far."""
    starts = torch.from_numpy(starts_of(size))
    data = torch.frombuffer(bytearray(text_of(size)), dtype=torch.uint8).long()
    batch = Windows(data, torch.tensor([0, size]), starts, starts)
    with torch.inference_mode():
        model.logits(batch)[-1].argmax()


def quartiles(ratios: list[float], name: str) -> Found:
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {name: float(middle), f"{name}_quartiles": [float(low), float(high)]}


class Strides(torch.nn.Module):
    """Stands in for the patcher of transformers: the cuts that ours gets, at no cost."""

    def forward(self, ids: torch.Tensor, **_: object) -> tuple[None, torch.Tensor, None]:
        size = ids.shape[1]
        lengths = [1, *[STRIDE] * (size // STRIDE), *([size % STRIDE] if size % STRIDE else [])]
        return None, torch.tensor([lengths]), None


def transformers_blt(turns: int, prompt: int = 1024, size: int = 4) -> Found:
    """(d): a byte after a prompt; theirs is timed without what the first call of `generate` prepares."""
    try:
        blt = importlib.import_module("transformers")
    except ModuleNotFoundError:
        return {"d_transformers_blt": "skipped: transformers is not installed"}
    c = HarnessConfig(local_window=64)
    local = {"hidden_size": c.local_width, "num_attention_heads": c.local_heads, "cross_attn_k": c.n_slots}
    local |= {"hidden_size_global": c.latent_width, "intermediate_size": swiglu_hidden(c.local_width)}
    config = blt.BltConfig(
        cross_attn_k=c.n_slots,
        local_attention_window_len=c.local_window,
        encoder_hash_byte_group_size=list(c.ngrams),
        encoder_hash_byte_group_vocab=c.ngram_rows,
        patcher_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64},
        encoder_config={**local, "num_hidden_layers": c.encoder_layers},
        decoder_config={**local, "num_hidden_layers": c.decoder_layers},
        global_config={
            "hidden_size": c.latent_width,
            "num_hidden_layers": c.latent_layers,
            "num_attention_heads": c.latent_heads,
            "intermediate_size": swiglu_hidden(c.latent_width),
        },
    )
    theirs, ours = blt.BltForCausalLM(config).eval(), model_of(64)
    theirs.model.patcher = Strides()
    ids = torch.frombuffer(bytearray(text_of(prompt)), dtype=torch.uint8).long()[None] + 4

    def write(count: int) -> None:
        theirs.generate(
            ids, max_new_tokens=count, min_new_tokens=count, use_cache=False, do_sample=False, pad_token_id=0
        )

    write(1)
    each, own = [], []
    for _ in range(turns):
        quick = np.array(timed(steps, decoder_at(ours, prompt), 64)[:2]) / 64
        slow = (np.array(timed(write, 1 + size)[:2]) - timed(write, 1)[:2]) / size
        each.append(slow)
        own.append(quick)
    ratios = np.array(each) / np.array(own)
    sizes = {"d_parameters_theirs": sum(p.numel() for p in theirs.parameters())}
    sizes["d_parameters_ours"] = sum(p.numel() for p in ours.parameters())
    return {
        **quartiles(ratios[:, 0].tolist(), "d_transformers_blt_over_ours"),
        **quartiles(ratios[:, 1].tolist(), "d_transformers_blt_over_ours_cpu"),
        "d_theirs_ms_per_byte": float(np.median(each, 0)[0]) * 1e3,
        "d_ours_ms_per_byte": float(np.median(own, 0)[0]) * 1e3,
        "d_transformers": blt.__version__,
        **sizes,
    }


def measure(turns: int) -> Found:
    model, wide = model_of(64), model_of(256)
    cached = decoder_at(model, 960)
    full_step(model, 1024)
    steps(cached, 64)
    at_1024, cpu_1024, whole, flat = [], [], [], []
    byte_ms, full_ms = [], []
    for _ in range(turns):
        one = seconds(steps, cached, 64) / 64
        full = np.median([seconds(full_step, model, 1024) for _ in range(5)])
        byte_ms.append(one * 1e3)
        full_ms.append(float(full) * 1e3)
        at_1024.append(float(full) / one)
        cpu_1024.append(timed(full_step, model, 1024)[1] / (timed(steps, cached, 32)[1] / 32))
        cached = decoder_at(model, 992)
    for _ in range(max(1, turns // 3)):
        fresh = decoder_at(model, 0)
        quick = seconds(steps, fresh, 1024)
        # every 16th position stands for its neighbours
        slow = 16 * sum(seconds(full_step, model, size) for size in range(8, 1024, 16))
        whole.append(slow / quick)
    for _ in range(turns):
        near, far = decoder_at(wide, 250 - 32), decoder_at(wide, 4000 - 32)
        both = [(timed(steps, near, 8)[:2], timed(steps, far, 8)[:2]) for _ in range(8)]
        a, b = np.median(both, 0)
        flat.append(b / a)
    return {
        **quartiles(at_1024, "a_full_over_cached_at_1024"),
        **quartiles(cpu_1024, "a_full_over_cached_at_1024_cpu"),
        **quartiles(whole, "a_full_over_cached_writing_1024"),
        "a_cached_ms_per_byte": float(np.median(byte_ms)),
        "a_full_ms_per_byte": float(np.median(full_ms)),
        **quartiles([float(wall) for wall, _ in flat], "b_byte_4000_over_byte_250"),
        **quartiles([float(own) for _, own in flat], "b_byte_4000_over_byte_250_cpu"),
        "threads": float(torch.get_num_threads()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--blt", action="store_true", help="measure (d) as well")
    arguments = parser.parse_args()
    found = measure(arguments.turns)
    if arguments.blt:
        found |= transformers_blt(arguments.turns)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
