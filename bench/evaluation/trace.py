"""Traces decoding byte by byte: entropy, cut, which parts of the model ran, and their cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text
from torch import nn

from bench.evaluation.generation import Wish
from models.decoding.generate import BYTES, byte_logits, flags
from models.decoding.sampling import Utf8
from models.decoding.step import HarnessDecoder
from models.flops import Shapes, harness_flops
from models.harness import Harness
from patchers import Patcher, Stream
from patchers.errors import BenchError

PARTS = ("patcher", "local_encoder", "latent", "local_decoder")


@dataclass(frozen=True)
class Step:
    """One byte: how it was predicted, and what ran once it was there."""

    byte: int
    written: bool
    """By the model; the others are the prompt's."""

    start: bool
    """It begins a patch."""

    entropy: float
    """Nats: of the model's prediction of this byte."""

    nats: float
    """-ln p of this byte, without what a flag cost."""

    score: float | None
    """What the patcher went by, where it goes by a score (for the rules over entropies: nats)."""

    parts: tuple[str, ...]
    """What ran for it: each byte's local encoder and decoder, and the latent model where a patch had ended."""

    flops: float
    flops_each_byte: float
    """If the latent model ran at each byte."""

    micros: dict[str, float]
    """Measured, by part."""


@dataclass(frozen=True)
class Trace:
    patcher: str
    threshold: float | None
    """What the patcher's scores are compared with."""

    steps: list[Step]
    score_name: str = "score"
    """What a score is, with its unit."""

    @property
    def text(self) -> bytes:
        return bytes(step.byte for step in self.steps)

    @property
    def latent_steps(self) -> int:
        return sum("latent" in step.parts for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """Every step with the costs so far."""
        sums = np.cumsum([[s.flops, s.flops_each_byte, sum(s.micros.values())] for s in self.steps], 0)
        names = ("flops_so_far", "flops_so_far_each_byte", "micros_so_far")
        steps = [
            asdict(step) | dict(zip(names, row, strict=True))
            for step, row in zip(self.steps, sums.tolist() if self.steps else [], strict=True)
        ]
        return {"patcher": self.patcher, "threshold": self.threshold, "latent_steps": self.latent_steps, "steps": steps}


class Clock:
    """Seconds by part since they were last asked for."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def timed(self, part: str, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        out = work(*arguments, **named)
        self._seconds[part] += time.perf_counter() - began
        return out

    def micros(self) -> dict[str, float]:
        out = {part: round(s * 1e6, 1) for part, s in self._seconds.items()}
        self._seconds = dict.fromkeys(PARTS, 0.0)
        return out


def trace(module: nn.Module, patcher: Patcher | None, prompt: bytes, wish: Wish) -> Trace:
    """Read the prompt byte by byte and go on with as many bytes as are wished (`until` is not looked at).

    Raises BenchError for a model that has no patches to show.
    """
    if not isinstance(module, Harness) or patcher is None:
        raise BenchError(
            "this checkpoint has no patches to show: trace a run of `model: harness`, "
            "or write with `patchbench generate`"
        )
    steps = list(_steps(module, patcher, prompt, wish))
    scores = getattr(patcher, "scores", None)
    if scores is not None:
        of_bytes = scores(bytes(s.byte for s in steps)).tolist()
        steps = [replace(step, score=float(score)) for step, score in zip(steps, of_bytes, strict=True)]
    name = getattr(patcher, "score_name", "score")
    return Trace(patcher.name, patcher.options().get("threshold"), steps, name)


def _steps(module: Harness, patcher: Patcher, prompt: bytes, wish: Wish) -> Iterator[Step]:
    sampling, clock = wish.sampling, Clock()
    chance = np.random.default_rng(wish.seed)
    known = patcher.segment(prompt) if module.price is not None else None
    stream = patcher.stream() if module.price is None and module.router is None else None
    decoder = _begin(module)
    for name, part in (("encode", "local_encoder"), ("finish", "latent"), ("decode", "local_decoder")):
        setattr(decoder, name, partial(clock.timed, part, getattr(decoder, name)))
    utf8 = Utf8(BYTES) if wish.limits.utf8 else None
    state = np.array([0])
    total = len(prompt) + wish.limits.max_bytes
    cost = _Cost(module, patcher)
    for t in range(total):
        logits, first = byte_logits(decoder), decoder.starts[0]
        if t < len(prompt):
            byte = np.array([prompt[t]])
        else:
            if t == len(prompt):
                state = np.array([Utf8.state_of(prompt)])
            allowed = utf8.allowed(state, np.array([total - t])) if utf8 is not None else None
            byte = sampling.draw(logits, chance.random(1), allowed)
        if utf8 is not None and t >= len(prompt):
            state = utf8.after(state, byte)
        flag = _flag(decoder, stream, known, t, byte, sampling.temperature, chance, clock)
        log_p = logits.double().log_softmax(1)[0]
        before = int(decoder.patches[0])
        decoder.step(byte, flag)
        ran = ["local_encoder", "local_decoder"]
        if decoder.patches[0] > before:
            ran.insert(1, "latent")
        finite = log_p[log_p > -np.inf]
        yield Step(
            byte=int(byte[0]),
            written=t >= len(prompt),
            start=bool(flag[0]) if decoder.late and flag is not None else bool(first),
            entropy=float(-(finite.exp() * finite).sum()),
            nats=-float(log_p[int(byte[0])]),
            score=None,
            parts=tuple(ran),
            flops=cost.of(t, int(decoder.patches[0])),
            flops_each_byte=cost.of_each_byte(t),
            micros=clock.micros(),
        )


def _begin(module: Harness) -> HarnessDecoder:
    if module.router is not None:
        return HarnessDecoder(module, [b""], None)
    return HarnessDecoder(module, [b""], [np.ones(0 if module.price == "start" else 1, bool)])


def _flag(
    decoder: HarnessDecoder,
    stream: Stream | None,
    known: np.ndarray | None,
    t: int,
    byte: np.ndarray,
    temperature: float,
    chance: np.random.Generator,
    clock: Clock,
) -> np.ndarray | None:
    """What the model is told of the cut with byte t: by the stream, by how the prompt is cut, or by itself."""
    if stream is not None:
        return np.array([clock.timed("patcher", stream.push, int(byte[0]))])
    if known is None:
        return None
    place = t if decoder.late else t + 1
    if place < len(known):
        return known[place : place + 1]
    return flags(decoder.logits, byte, temperature, chance.random(1)) | (decoder.late and t == 0)


class _Cost:
    """FLOPs of each position, from the same formulas as every other count here."""

    def __init__(self, module: Harness, patcher: Patcher) -> None:
        self._module, self._patcher = module, patcher
        self._so_far, self._so_far_each = 0.0, 0.0

    def _whole(self, size: int, patches: int) -> float:
        shapes = Shapes(np.array([size]), np.array([patches]))
        outputs = 512 if self._module.price else 256
        parts = harness_flops(self._module.config, outputs, shapes, routed=self._module.router is not None)
        return sum(parts.values()) + size * self._patcher.flops_per_byte()

    def of(self, t: int, patches: int) -> float:
        """Byte t, when so many patches are complete."""
        whole = self._whole(t + 1, patches)
        out, self._so_far = whole - self._so_far, whole
        return out

    def of_each_byte(self, t: int) -> float:
        whole = self._whole(t + 1, t + 1)
        out, self._so_far_each = whole - self._so_far_each, whole
        return out


def letter(byte: int) -> str:
    """A byte as one character that can be seen."""
    if byte == 0x20:
        return "␣"
    if byte == 0x0A:
        return "⏎"
    return chr(byte) if 0x21 <= byte < 0x7F else "·"


def as_table(made: Trace) -> Table:
    """For the terminal: a line a byte."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("", "left"), ("byte", "left"), ("nats", "right"), ("entropy", "right"), ("score", "right"), ("", "left"),
        ("ran", "left"), ("kFLOP", "right"), ("µs", "right"), ("FLOPs so far, of latent at each byte", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    done, each = 0.0, 0.0
    for step in made.steps:
        done, each = done + step.flops, each + step.flops_each_byte
        shown = made.threshold is not None and step.score is not None
        level = step.score if shown and step.score is not None else step.entropy
        passed = made.threshold is not None and step.score is not None and step.score > made.threshold
        table.add_row(
            "┃" if step.start else "",
            Text(f"{letter(step.byte)} {step.byte:02x}", style="bold" if step.written else ""),
            f"{step.nats:.2f}",
            f"{step.entropy:.2f}",
            "" if step.score is None else f"{step.score:.2f}",
            Text("▇" * max(0, round(4 * level)), style="yellow" if passed else "dim"),
            Text("latent" if "latent" in step.parts else "", style="cyan"),
            f"{step.flops / 1e3:.0f}",
            f"{sum(step.micros.values()):.0f}",
            f"{done / each:.0%}",
        )
    return table


__all__ = ["Clock", "Step", "Trace", "as_table", "letter", "trace"]
