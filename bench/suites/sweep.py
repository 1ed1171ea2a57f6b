"""The `sweep:` section of a suite: every row at every value of one or more keys.

    sweep: {train.bytes: [204_800, 655_360]}     # rows stride@204800, stride@655360, ...

A key is one of `train`, of a model's section (`model.latent_width`, `token_lm.width`: rows of that model), or
`bytes_per_patch` (rows that are calibrated) or `train_flops`. A row to which none applies stays as it is.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Value = int | float
SECTIONS = {"model": "harness", "token_lm": "token_lm", "byte_lm": "byte_lm"}
"""Of a suite, the sections with a model's sizes, and the rows that they are for."""
BUDGETS = ("train.bytes", "train_flops")


def applies(key: str, model: str, calibrated: bool) -> bool:
    """Whether a row of this model is another one at another value of the key."""
    if key == "bytes_per_patch":
        return calibrated
    return SECTIONS.get(key.partition(".")[0], model) == model


def combinations(sweep: Mapping[str, Sequence[Value]]) -> Iterator[dict[str, Value]]:
    """Every value of every key with every value of the others; of no keys, the one empty choice."""
    for values in itertools.product(*sweep.values()):
        yield dict(zip(sweep, values, strict=True))


def swept_label(label: str, settings: Mapping[str, Value]) -> str:
    """`stride` at 204800 is `stride@204800`."""
    return "@".join([label, *(str(v) if isinstance(v, int) else f"{v:g}" for v in settings.values())])


def apply(row: Mapping[str, Any], settings: Mapping[str, Value]) -> dict[str, Any]:
    """A row as it would stand in the YAML at these values; `train_flops` is no part of it."""
    out = copy.deepcopy(dict(row))
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if key == "bytes_per_patch":
            out[key] = value
        elif name:
            out.setdefault("train" if section == "train" else "options", {})[name] = value
    return out


def description(label: str, settings: Mapping[str, Value]) -> dict[str, Any] | None:
    """What a run's config says of its place in the sweep: its row, a key and its value (a budget before all), and the
    others."""
    if not settings:
        return None
    (key, value), *others = sorted(settings.items(), key=lambda item: item[0] not in BUDGETS)
    return {"row": label, "key": key, "value": value} | ({"others": dict(others)} if others else {})
