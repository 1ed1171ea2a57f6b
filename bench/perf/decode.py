"""Speed of decoding, as ratios measured in one run: python -m bench.perf.decode [--turns 7]

(a) a byte with caches against the full forward for each byte, at 1,024 bytes; and the whole of writing 1,024 bytes;
(b) the cost of a byte at position 4,000 against that at 250, with a local window of 256;
(c) self-speculation against plain greedy decoding, with identical output.

Contenders take turns, so that whatever else the machine does hits both; ratios are medians over turns. Weights are
random: no contender's work depends on them, except for what self-speculation accepts, for which a trained model is
given with --checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from models.batch import Windows
from models.decoding import HarnessDecoder
from models.harness import Harness, HarnessConfig
from models.initialise import initialise

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


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


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


def quartiles(ratios: list[float], name: str) -> dict[str, float]:
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {name: float(middle), f"{name}_quartiles": [float(low), float(high)]}  # type: ignore[dict-item]


def measure(turns: int) -> dict[str, float]:
    model, wide = model_of(64), model_of(256)
    cached = decoder_at(model, 960)
    full_step(model, 1024)
    steps(cached, 64)
    at_1024, whole, flat = [], [], []
    byte_ms, full_ms = [], []
    for _ in range(turns):
        one = seconds(lambda: steps(cached, 64)) / 64  # noqa: B023  (called at once)
        full = np.median([seconds(lambda: full_step(model, 1024)) for _ in range(5)])
        byte_ms.append(one * 1e3)
        full_ms.append(float(full) * 1e3)
        at_1024.append(float(full) / one)
        cached = decoder_at(model, 992)
    for _ in range(max(1, turns // 3)):
        fresh = decoder_at(model, 0)
        quick = seconds(lambda: steps(fresh, 1024))  # noqa: B023  (called at once)
        # every 16th position stands for its neighbours
        slow = 16 * sum(seconds(lambda: full_step(model, size)) for size in range(8, 1024, 16))  # noqa: B023
        whole.append(slow / quick)
    for _ in range(turns):
        near, far = decoder_at(wide, 250 - 32), decoder_at(wide, 4000 - 32)
        a, b = [], []
        for _ in range(8):
            a.append(seconds(lambda: steps(near, 8)))  # noqa: B023
            b.append(seconds(lambda: steps(far, 8)))  # noqa: B023
        flat.append(float(np.median(b) / np.median(a)))
    return {
        **quartiles(at_1024, "a_full_over_cached_at_1024"),
        **quartiles(whole, "a_full_over_cached_writing_1024"),
        "a_cached_ms_per_byte": float(np.median(byte_ms)),
        "a_full_ms_per_byte": float(np.median(full_ms)),
        **quartiles(flat, "b_byte_4000_over_byte_250"),
        "threads": float(torch.get_num_threads()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    print(json.dumps(measure(parser.parse_args().turns), indent=1))


if __name__ == "__main__":
    main()
