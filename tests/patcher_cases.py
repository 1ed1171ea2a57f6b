"""Every built-in patcher with the options that the tests use, fitted on a little real text."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from tiny import SMALL, shaken
from tokenizer_files import options_for

import patchers
from bench.data.config import DataConfig, load
from models.harness import Harness

TINY = {"model": "transformer", "width": 16, "layers": 2, "heads": 2, "window": 8, "train_bytes": 30_000}
MORE: list[tuple[str, dict[str, Any]]] = [
    ("stride", {"stride": 4.3}),
    ("words", {"every": 3}),
    ("bpe", {"encoding": "cl100k_base"}),
    ("bpe", {"encoding": "o200k_base"}),
    ("entropy", {"reset": "newline", "max_patch": 5, "threshold": 2.0}),
    ("entropy_spike", {"previous": 2.5}),
    ("entropy", {**TINY, "threshold": 2.9}),
    ("entropy_both", {**TINY, "dtype": "bfloat16", "reset": "newline"}),
    ("bpe_predicted", {**TINY, "vocab": 512}),
]


def built_in() -> list[str]:
    """Names of the registry, without what plug-ins of other tests have added."""
    return [name for name in patchers.names() if patchers.get(name).__module__.startswith("patchers.")]


CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in built_in()] + MORE
LABELS = [
    f"{name}({', '.join(f'{k}={v}' for k, v in options.items() if k not in TINY or k == 'model')})"
    for name, options in CASES
]


@functools.cache
def texts() -> tuple[list[bytes], list[bytes]]:
    """Real text to learn from, and other text to calibrate on and cut."""
    data = load(DataConfig(corpus="wiki-en", calibration=0.3, test=0.2, max_bytes=400_000))
    return list(data.train.texts), list(data.calibration.texts)


@functools.cache
def fitted(case: int) -> patchers.Patcher:
    name, options = CASES[case]
    patcher = patchers.create(name, **{**options_for(name), **options}).fit(texts()[0])
    if patcher.kind == "in-model":
        sizes = dataclasses.replace(SMALL, pool="last")
        return patcher.learned(shaken(Harness(sizes, router=patcher.router(sizes.local_width))))
    return patcher
