"""What tests give to tasks: a model that says what it is told, and texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.config import Document
from bench.evaluation.byte_model import Scores
from bench.evaluation.features import Features
from bench.evaluation.tasks import Material
from models.states import Place
from patchers import Starts


@dataclass
class Told:
    """A byte model that says what it is told, byte by byte; muting its latent model costs `gain` nats a byte."""

    per_byte: float = math.log(2)
    flag: float | None = None
    gain: float | None = None
    muted_bytes: int = 0
    every: int | None = None
    """Where it cuts; None for a model without a cut."""

    def cuts(self, docs: Sequence[bytes]) -> list[Starts] | None:
        return None if self.every is None else [np.arange(len(d)) % self.every == 0 for d in docs]

    @property
    def has_latent(self) -> bool:
        return self.gain is not None

    @property
    def has_features(self) -> tuple[Place, ...]:
        return ()

    def features(self, docs: Sequence[bytes], places: Sequence[Place]) -> dict[Place, list[Features]]:
        raise AssertionError("nothing that is scored is probed")

    @property
    def can_write(self) -> bool:
        return False

    def generate(
        self, prompts: Sequence[bytes], max_bytes: int, until: Sequence[bytes] = (), temperature: float = 0.0
    ) -> list[bytes]:
        raise AssertionError("nothing that is scored is written")

    def stream(self, prompt: bytes, max_bytes: int) -> Iterator[bytes]:
        raise AssertionError("nothing that is scored is written")

    def nats(self, docs: Sequence[bytes], alike: Sequence[int] | None = None) -> list[np.ndarray]:
        assert alike is None or sum(alike) == len(docs)
        return self.score(docs).nats

    def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
        more = 0.0
        if mute_latent:
            assert self.gain is not None
            more = self.gain
            self.muted_bytes += sum(map(len, docs))
        flags = None if self.flag is None else [np.full(len(d), self.flag) for d in docs]
        return Scores([np.full(len(d), self.per_byte + more) for d in docs], flags)


def material(
    test: Sequence[Document] = (), domains: Mapping[str, Sequence[Document]] | None = None, **others: Any
) -> Material:
    """Material with these texts; a task that asks for a model of its own gets an AssertionError."""

    def none(*_: Any) -> Any:
        raise AssertionError("this test has no other model")

    given: dict[str, Any] = {
        "train": (), "calibration": (), "seed": 0, "cache": Path("no-cache"), "untrained": none, "tuned": none,
    }  # fmt: skip
    return Material(test=test, domains=domains or {}, **(given | others))
