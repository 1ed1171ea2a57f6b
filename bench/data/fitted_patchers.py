"""Fits and calibrates patchers once and caches them on disk.

Free of torch, so that cutting with a rule starts at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.config import Data
from bench.system.files import Damaged, check_sealed, locked, warn, whole_folder, writing
from bench.system.yaml import parse
from patchers import Patcher, create, load
from patchers.errors import BenchError
from patchers.grouping import beginning

FITTED_ON = "wiki-en"
"""The corpus that patchers learn from where no suite names another."""

PATCHER_SEED = 0
"""Patchers are fitted once for all seeds of a suite: seeds vary the model, and rows stay paired."""

FIT_BYTES = 2**24
"""How much text a patcher learns from at most: the first documents of the training split, whose order is that of their
hashes, so that they are a random sample of it."""
CALIBRATION_BYTES = 2**22

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """A patcher as it was asked for on the command line."""

    label: str
    patcher: Patcher
    learns: bool
    """Whether it has to be fitted: it learns, and was not loaded."""
    calibrates: bool
    """Whether it has a knob that was left open."""


def fit_cached(patcher: Patcher, data: Data, size: float | None, cache: Path, say: Say) -> Patcher:
    """Fitted on the training split and, given a size, calibrated on the calibration split; once for each cache."""
    what = [patcher.fingerprint(), data.train.fingerprint, data.calibration.fingerprint, size, PATCHER_SEED]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
    folder = cache / "patchers" / f"{patcher.name}-{key}"
    with locked(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            try:
                check_sealed(folder)
                return load(folder)
            except Damaged as error:
                warn(f"{error}; fitting again")
                with writing(folder):
                    shutil.rmtree(folder)
        say(f"fitting {patcher.name}")
        patcher = patcher.fit(beginning(data.train.texts, FIT_BYTES), PATCHER_SEED)
        if size is not None:
            patcher = patcher.calibrate(beginning(data.calibration.texts, CALIBRATION_BYTES), size)
        with whole_folder(folder) as part:
            patcher.save(part)
    return patcher


def asked(text: str, settings: Sequence[str] = ()) -> Asked:
    """`NAME`, `NAME:key=value,...`, or a folder: a saved patcher, or what a run left of its model.

    `settings` are further `key=value`. Values are read as YAML. Raises BenchError for what is none of these.
    """
    folder = next((f for f in (Path(text), Path(text, "patcher")) if os.path.isfile(f / "patcher.json")), None)
    if folder is not None:
        if settings:
            raise BenchError(f"the patcher in {text} is as it was saved; leave {settings[0]!r} out")
        return Asked(text, load(folder), learns=False, calibrates=False)
    if os.sep in text.partition(":")[0]:
        raise BenchError(f"no saved patcher in {text}; give a name, or a folder results/SUITE/checkpoints/RUN_ID")
    name, _, inside = text.partition(":")
    options = _options([*re.split(r",(?=\w+=)", inside), *settings] if inside else settings)
    return wanted(text, create(name, **options), patcher_options=options)


def wanted(label: str, patcher: Patcher, patcher_options: Container[str]) -> Asked:
    """A patcher that was made with these options. Raises BenchError for one that only a model can be trained for."""
    if patcher.kind == "in-model":
        raise BenchError(
            f"patcher '{patcher.name}' is trained inside a model: run a suite that has it, then give the folder that "
            "the run left, results/SUITE/checkpoints/RUN_ID"
        )
    state = [field.name for field in dataclasses.fields(patcher) if field.name.startswith("_")]
    learns = type(patcher).fit is not Patcher.fit and all(getattr(patcher, name) is None for name in state)
    return Asked(label, patcher, learns, patcher.knob is not None and patcher.knob not in patcher_options)


def _options(settings: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BenchError(f"option {text!r} is not key=value; write it like stride=6")
        if key in options:
            raise BenchError(f"option '{key}' is given twice, as {options[key]!r} and in {text!r}; keep one of them")
        options[key] = parse(value, f"option {text!r}").value
    return options
