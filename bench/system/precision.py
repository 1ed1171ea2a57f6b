"""Chooses the training dtype of a machine."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import torch

Dtype = Literal["bfloat16", "float32"]

CPU_FLAGS = Path("/proc/cpuinfo")
MULTIPLIES_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls it: on x86 the first two, on Arm the last."""


def has_gpu() -> bool:
    return torch.cuda.is_available()


@functools.cache
def fast_dtype() -> Dtype:
    """Bfloat16 where the hardware multiplies it, else float32: a CPU that must emulate it takes up to ninety times as
    long, one that has it a third of float32's time.

    A CPU that does not say what it has (on other systems than Linux) gets float32.
    """
    if has_gpu():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return _of_cpu(CPU_FLAGS.read_text(encoding="utf-8") if CPU_FLAGS.exists() else "")


def _of_cpu(told: str) -> Dtype:
    """From the text of /proc/cpuinfo."""
    for line in told.splitlines():
        name, _, flags = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return "bfloat16" if MULTIPLIES_BFLOAT16 & set(flags.split()) else "float32"
    return "float32"
