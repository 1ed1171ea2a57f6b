"""Small trainings that one process and several ranks must do alike.

`python -m torch.distributed.run tests/rank_cases.py FOLDER CASE...` does them on ranks and leaves `found.json`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tiny import SMALL, TEXT, random_starts
from torch import nn

from bench.data import cut_corpus, segment
from bench.data.cut_corpus import CutDocuments, Cuts
from bench.data.documents import FlatTexts
from bench.evaluation.byte_model import CutModel
from bench.suites.config import TrainConfig
from bench.system import distributed, signals
from bench.system.signals import Stopped, heed_sigterm
from bench.training.loop import Engine, MakeEngine, Progress, train
from bench.training.parallel import Parallel
from models.batch import Windows
from models.byte_lm import ByteLM, ByteLMConfig
from models.harness import Harness
from models.initialization import initialise
from models.router import CosineRouter
from models.token_lm import TokenLM, TokenLMConfig
from patchers import create

CPU = torch.device("cpu")
VOCAB = 50
STOPS_AT = 8
"""The step after which a training is stopped that is to go on with another number of ranks."""

MODELS: dict[str, Callable[[], nn.Module]] = {
    "harness": lambda: Harness(SMALL),
    "priced": lambda: Harness(SMALL, "start"),
    "hnet": lambda: Harness(dataclasses.replace(SMALL, pool="last"), router=CosineRouter(32, 4.0)),
    "token_lm": lambda: TokenLM(TokenLMConfig(width=32, layers=1, heads=2), VOCAB),
    "byte_lm": lambda: ByteLM(ByteLMConfig(width=32, layers=1, heads=2, window=8)),
}


def corpus(whole: int = 0) -> CutDocuments:
    """Documents of 1 to 149 bytes, cut at random into patches of three bytes; that many of each four left whole."""
    rng = np.random.default_rng(0)
    docs = [(TEXT + TEXT)[a : a + int(rng.integers(1, 150))] for a in rng.integers(0, len(TEXT), 30)]
    starts = np.concatenate([random_starts(len(d), rng, 1e9 if i % 4 < whole else 3.0) for i, d in enumerate(docs)])
    return CutDocuments.of(docs, Cuts(starts, rng.integers(0, VOCAB, int(starts.sum())).astype(np.int32)))


@dataclasses.dataclass(frozen=True)
class Case:
    """One training of 20 steps or more."""

    kind: str
    how: Parallel
    batch_bytes: int = 300
    whole: int = 0
    dtype: Any = "float32"

    @property
    def config(self) -> TrainConfig:
        return TrainConfig(
            bytes=20 * self.batch_bytes, batch_bytes=self.batch_bytes, window=60, lr=3e-3, dtype=self.dtype,
            log_every=1, checkpoint_seconds=1e9,
        )  # fmt: skip


WAYS: tuple[Literal["ddp", "fsdp"], ...] = ("ddp", "fsdp")
CASES = {f"{kind} {way}": Case(kind, Parallel(way)) for kind in MODELS for way in WAYS}
CASES |= {
    f"{kind} in parts {way}": Case(kind, Parallel(way, micro_bytes=100)) for kind in ("harness", "hnet") for way in WAYS
}
for each in WAYS:
    # one window a batch, so that one of the two ranks has none; and documents of one token, whose later windows begin
    # none (not all documents: a lone token's scores have no gradient but rounding, of which Adam makes full steps)
    CASES[f"harness alone {each}"] = Case("harness", Parallel(each), batch_bytes=60)
    CASES[f"token_lm without tokens {each}"] = Case("token_lm", Parallel(each), batch_bytes=120, whole=3)
    CASES[f"harness recomputed {each}"] = Case("harness", Parallel(each, recompute=True))
    CASES[f"harness bfloat16 {each}"] = Case("harness", Parallel(each), dtype="bfloat16")


def resumable(folder: Path, by: str, name: str) -> Path:
    """Where the checkpoint is of a training that was stopped, `by` one process or two."""
    return folder / f"{name.replace(' ', '-')}-of-{by}"


def trained(
    case: Case, make: MakeEngine, checkpoint: Path | None = None, stop: int | None = None
) -> tuple[nn.Module, list[float]]:
    """The model and the loss at each step; raises Stopped after step `stop`, which only the last rank is told."""
    model = MODELS[case.kind]()
    initialise(model, 0)
    losses: list[float] = []

    def recording(model: nn.Module, config: TrainConfig, device: torch.device) -> Engine:
        engine = make(model, config, device)
        step = engine.step

        def recorded(*arguments: Any) -> torch.Tensor:
            nats = step(*arguments)
            losses.append(nats.item() / math.log(2))
            return nats

        engine.step = recorded  # type: ignore[method-assign, assignment]
        return engine

    def report(progress: Progress, total: int) -> None:
        if progress.step == stop and distributed.rank() == distributed.count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(model, corpus(case.whole), case.config, 0, CPU, checkpoint, report, make_engine=recording)
    finally:
        signals._asked = False
    return model, losses


def as_read(model: nn.Module) -> float:
    """What a trained model makes of all documents: every weight has a say."""
    docs = corpus()
    batch: Windows = docs.windows(np.stack((docs.offsets[:-1], docs.offsets[1:]), 1))
    with torch.no_grad():
        return float(model(batch).nats.sum())


def scored() -> dict[str, list[float]]:
    """Nats of each document under models of every kind."""
    docs = list(FlatTexts(corpus().data, corpus().offsets))
    bpe = create("bpe", vocab=280).fit([TEXT] * 3)
    out = {}
    for kind in MODELS:
        model = TokenLM(TokenLMConfig(width=32, layers=1, heads=2), 280) if kind == "token_lm" else MODELS[kind]()
        initialise(model, 0)
        patcher = bpe if kind in ("token_lm", "priced") else create("whitespace") if kind == "harness" else None
        seen = CutModel(model.eval(), patcher, 60, CPU, batch_bytes=200, with_ids=kind == "token_lm")
        out[kind] = [float(nats.sum()) for nats in seen.nats(docs)]
    return out


def cut_alike(folder: Path) -> list[list[int]]:
    """Starts and ids, by way of the cache and without it."""
    docs = [TEXT[: 5 + 7 * i] for i in range(12)] * 3
    bpe = create("bpe", vocab=280).fit([TEXT] * 3)
    cached, together = segment.cut_cached(bpe, docs, "x", folder, True), cut_corpus.cut_together(bpe, docs, True)
    assert cached.ids is not None
    assert together.ids is not None
    values = (cached.starts, cached.ids, together.starts, together.ids)
    return [each[:].astype(int).tolist() for each in values]


def failures() -> dict[str, Any]:
    """What each rank hears when one of them, or all, fail; the last spoils the group that it is found out with."""
    found: dict[str, Any] = {"all": distributed.all_failed()}
    try:
        with distributed.failing_alike():
            if distributed.rank() == 1:
                raise ValueError("of the second")
    except (ValueError, distributed.RankFailed) as error:
        found["alike"] = f"{type(error).__name__}: {error}"
    found["one"] = distributed.all_failed() if distributed.is_first() else None
    return found


def main(folder: Path, names: list[str]) -> None:
    """On one rank; the cases whose checkpoints of one process are there are gone on with, and stopped on two."""
    torch.set_num_threads(1)
    distributed.FAILS_WITHIN = timedelta(seconds=3)
    cut_corpus.PIECE = 150
    FlatTexts.runs.__defaults__ = (150,)
    heed_sigterm()
    distributed.begin()
    found: dict[str, Any] = {"cases": {}, "resumed": {}}
    for name in names:
        case = CASES[name]
        model, losses = trained(case, case.how)
        found["cases"][name] = [*losses, as_read(model)]
        if not resumable(folder, "one", name).exists():
            continue
        model, losses = trained(case, case.how, resumable(folder, "one", name))
        found["resumed"][name] = [*losses, as_read(model)]
        with suppress(Stopped):
            trained(case, case.how, resumable(folder, "two", name), STOPS_AT)
    found["scores"] = scored()
    found["cuts"] = cut_alike(folder / "cache")
    found["failures"] = distributed.gathered(failures())
    if distributed.is_first():
        (folder / "found.json").write_text(json.dumps(found))
    distributed.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
