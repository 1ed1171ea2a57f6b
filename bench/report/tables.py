"""Which tables a suite has in the page: what matters first, then what it cost, how it was cut, and each task."""

from __future__ import annotations

from bench.render import Table
from bench.table import NUMBERS, Comparison

# title -> columns; those without a number in any row are left out.
COLUMNS = {
    "Results": ("row", "bytes_per_patch", "bpb", "difference", "verdict", "flops_per_byte", "seeds", "flags"),
    "Compute": (
        *("row", "parameters", "non_embedding", "active", "flops_per_byte", "flops.per_byte.latent"),
        *("flops.per_byte.local_encoder", "flops.per_byte.local_decoder", "flops.per_byte.cross_attention"),
        *("flops.per_byte.head", "flops.per_byte.patcher", "train_flops", "patcher_flops", "train_bytes"),
    ),
    "Speed and memory": (
        *("row", "train_bytes_per_second", "train_seconds", "score_seconds", "peak_memory", "prefill_rate"),
        *("decode_rate", "step_ms_p50", "step_ms_p99"),
    ),
    "The cut": ("row", "bytes_per_patch", "variation", "on_spaces", "flag_bits_share", "latent_gain", "kraft"),
}
OWN = ("bpb", "speed")
"""Tasks whose numbers are in the tables above."""


def tables(compared: Comparison) -> dict[str, Table]:
    """By title."""
    wanted = {title: [name for name in names if _has(compared, name)] for title, names in COLUMNS.items()}
    tasks = dict.fromkeys(metric.partition(".")[0] for metric in compared.metrics)
    for task in tasks:
        if task not in OWN:
            wanted[task] = ["row", *(metric for metric in compared.metrics if metric.startswith(f"{task}."))]
    if "bpb.bpc" in compared.metrics:
        wanted["Results"].insert(wanted["Results"].index("bpb") + 1, "bpc")
    return {title: compared.table(names) for title, names in wanted.items() if len(names) > 1}


def _has(compared: Comparison, name: str) -> bool:
    """Whether any row has something in this column."""
    if name in ("bpb", "difference", "verdict"):
        return "bpb.bpb" in compared.metrics
    path = NUMBERS[name][2] if name in NUMBERS else name
    return "." not in path or any(compared.runs[label].values(path) for label in compared.shown)
