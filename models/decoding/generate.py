"""The generation loop: asks a decoder for logits, samples the next unit, and asks the patcher's stream for the cut.

A unit is what a model writes at once: a byte, or a token. Documents are written side by side, and each gets what it
would get alone.

Legend: B rows (documents), U units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from models.byte_lm import ByteLM
from models.decoding.baselines import ByteLMDecoder, TokenLMDecoder
from models.decoding.sampling import Sampling, Stopper, Utf8
from models.decoding.step import HarnessDecoder
from models.harness import Harness
from models.token_lm import TokenLM

BYTES = tuple(bytes([b]) for b in range(256))


class Cut(Protocol):
    """Cuts one document while it is being written."""

    def push(self, byte: int) -> bool:
        """Take the next byte; say whether the byte after it starts a patch."""
        ...

    def prime(self, data: bytes) -> np.ndarray:
        """Take the beginning at once, as so many pushes: bool (len(data) + 1,), the starts of all these bytes and what
        the last push would say."""
        ...


class Writer(Protocol):
    """B documents that are being written."""

    units: Sequence[bytes]
    """(U,): the bytes of each unit."""

    @property
    def logits(self) -> Tensor:
        """(B, U): what comes next in each."""
        ...

    def write(self, units: np.ndarray, uniform: np.ndarray) -> None:
        """Append a unit (B,) to each; what else is left to chance takes `uniform` (B,)."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        ...


class ByteWriter:
    """Writes with a byte transformer."""

    units: Sequence[bytes] = BYTES

    def __init__(self, model: ByteLM, prompts: Sequence[bytes]) -> None:
        self.decoder = ByteLMDecoder(model, prompts)

    @property
    def logits(self) -> Tensor:
        return self.decoder.logits

    def write(self, units: np.ndarray, uniform: np.ndarray) -> None:
        self.decoder.step(units)

    def keep(self, rows: Sequence[int]) -> None:
        self.decoder.keep(rows)


class TokenWriter:
    """Writes with a transformer over tokens; a prompt's last token stays as it is, whatever follows."""

    def __init__(self, model: TokenLM, prompts: Sequence[np.ndarray], units: Sequence[bytes]) -> None:
        """`prompts`: token ids of each; `units`: the bytes of each id, b"" for an id that is no token."""
        assert len(units) == model.vocab_size, (len(units), model.vocab_size)
        self.units = units
        self.decoder = TokenLMDecoder(model, prompts)
        none = torch.tensor([len(u) == 0 for u in units], device=self.decoder.logits.device)
        self._none = none if bool(none.any()) else None

    @property
    def logits(self) -> Tensor:
        logits = self.decoder.logits
        return logits if self._none is None else logits.masked_fill(self._none, -torch.inf)

    def write(self, units: np.ndarray, uniform: np.ndarray) -> None:
        self.decoder.step(units)

    def keep(self, rows: Sequence[int]) -> None:
        self.decoder.keep(rows)


class PatchWriter:
    """Writes with the harness, cut by a stream of a causal patcher, or by the model's own router."""

    units: Sequence[bytes] = BYTES

    def __init__(self, model: Harness, prompts: Sequence[bytes], cuts: Sequence[Cut] | None) -> None:
        """`cuts`: one that has been told nothing yet for each prompt, None where the model has a router."""
        assert model.price is None, "a model that predicts its boundaries is written with PricedWriter"
        self.cuts = list(cuts) if cuts is not None else None
        starts = None
        if self.cuts is not None:
            starts = [cut.prime(prompt) for cut, prompt in zip(self.cuts, prompts, strict=True)]
        self.decoder = HarnessDecoder(model, prompts, starts)

    @property
    def logits(self) -> Tensor:
        return self.decoder.logits

    def write(self, units: np.ndarray, uniform: np.ndarray) -> None:
        flags = None
        if self.cuts is not None:
            flags = np.array([cut.push(int(byte)) for cut, byte in zip(self.cuts, units, strict=True)])
        self.decoder.step(units, flags)

    def keep(self, rows: Sequence[int]) -> None:
        self.cuts = None if self.cuts is None else [self.cuts[row] for row in rows]
        self.decoder.keep(rows)


class PricedWriter:
    """Writes with a harness that predicts its boundaries: first the byte, then whether it has the flag.

    The byte is drawn from its own probability, flag or no flag, and then the flag given the byte; at temperature 1
    that is the pair's probability. So "the most probable byte" means the same as for every other model.
    """

    units: Sequence[bytes] = BYTES

    def __init__(
        self,
        model: Harness,
        prompts: Sequence[bytes],
        starts: Sequence[np.ndarray],
        temperature: float,
        uniform: np.ndarray,
    ) -> None:
        """`starts`: as the patcher cuts each prompt, one entry a byte.

        With `price: end` nothing has told yet whether a prompt's last byte ends its patch; the model is asked, by
        `uniform` (B,).
        """
        self._temperature = temperature
        if model.price == "start":
            self.decoder = HarnessDecoder(model, prompts, starts)
        elif all(prompts):
            self.decoder = HarnessDecoder(model, [prompt[:-1] for prompt in prompts], starts)
            self.write(np.array([prompt[-1] for prompt in prompts]), uniform)
        else:  # an empty prompt has no last byte, which a step could write in every row
            self.decoder = HarnessDecoder(model, prompts, ends_of(model, prompts, starts, temperature, uniform))

    @property
    def logits(self) -> Tensor:
        return byte_logits(self.decoder)

    def _flags(self, units: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        return flags(self.decoder.logits, units, self._temperature, uniform) | first_bytes(self.decoder)

    def write(self, units: np.ndarray, uniform: np.ndarray) -> None:
        self.decoder.step(units, self._flags(units, uniform))

    def keep(self, rows: Sequence[int]) -> None:
        self.decoder.keep(rows)


def byte_logits(decoder: HarnessDecoder) -> Tensor:
    """(B, 256): of the next byte, flag or no flag where the model predicts one."""
    if decoder.model.price is None:
        return decoder.logits
    without, with_flag = decoder.logits.double().split(256, 1)
    either, first = torch.logaddexp(without, with_flag), first_bytes(decoder)
    return torch.where(torch.from_numpy(first)[:, None].to(either.device), with_flag, either) if first.any() else either


def first_bytes(decoder: HarnessDecoder) -> np.ndarray:
    """(B,): whether the byte that comes next is predicted with a flag that is certain, as a document's first byte
    always starts a patch."""
    first: np.ndarray = (decoder.positions == 0) & decoder.late
    return first


def flags(logits: Tensor, units: np.ndarray, temperature: float, uniform: np.ndarray) -> np.ndarray:
    """logits (B, 512), the bytes that were drawn (B,), chance (B,) -> their flags (B,) bool."""
    rows = np.arange(len(units))
    both = logits.double().cpu().numpy()
    odds = both[rows, units + 256] - both[rows, units]
    out: np.ndarray = odds > 0 if temperature == 0 else uniform < 0.5 * (1 + np.tanh(odds / temperature / 2))
    return out


def ends_of(
    model: Harness, prompts: Sequence[bytes], starts: Sequence[np.ndarray], temperature: float, uniform: np.ndarray
) -> list[np.ndarray]:
    """The starts of each prompt with one more: whether its last byte ends its patch, asked of a pass of its own."""
    some = [row for row, prompt in enumerate(prompts) if prompt]
    out = [np.append(s, True) for s in starts]  # the first byte of a document starts a patch anyhow
    if some:
        before = HarnessDecoder(model, [prompts[row][:-1] for row in some], [starts[row] for row in some])
        last = np.array([prompts[row][-1] for row in some])
        for row, flag in zip(some, flags(before.logits, last, temperature, uniform[some]), strict=True):
            out[row][-1] = flag
    return out


@dataclass(frozen=True)
class Piece:
    """What a step shows of one document."""

    row: int
    data: bytes
    done: Literal["until", "max_bytes"] | None
    """Why it is the last one of its document."""


@dataclass(frozen=True)
class Limits:
    """Where a text ends, and what it may hold."""

    max_bytes: int = 256
    until: tuple[bytes, ...] = ()
    """The text ends before the first of these."""

    utf8: bool = False
    """Only bytes that keep the text valid UTF-8, and whole characters when the bytes run out."""


def write(
    writer: Writer, prompts: Sequence[bytes], limits: Limits, sampling: Sampling, chance: Sequence[np.random.Generator]
) -> Iterator[list[Piece]]:
    """Continue the documents that `writer` has begun, a unit each at a time, until every one of them is done.

    Row i draws from `chance[i]` alone.
    """
    rows = list(range(len(prompts)))
    stoppers = [Stopper(limits.until) for _ in rows]
    left = np.full(len(rows), limits.max_bytes)
    utf8 = Utf8(writer.units) if limits.utf8 else None
    states = np.array([Utf8.state_of(p) for p in prompts])
    if limits.max_bytes <= 0:
        yield [Piece(row, b"", "max_bytes") for row in rows]
        return
    while rows:
        uniform = np.array([chance[row].random(2) for row in rows])
        allowed = utf8.allowed(states, left) if utf8 is not None else None
        units = sampling.draw(writer.logits, uniform[:, 0], allowed)
        if utf8 is not None:
            states = utf8.after(states, units)
        pieces, going = [], []
        for place, (row, unit) in enumerate(zip(rows, units.tolist(), strict=True)):
            data = writer.units[unit][: left[place]]
            left[place] -= len(data)
            stopper = stoppers[row]
            shown, done = stopper.push(data), None
            if stopper.found:
                done = "until"
            elif left[place] == 0:
                shown, done = shown + stopper.end(), "max_bytes"
            else:
                going.append(place)
            pieces.append(Piece(row, shown, done))  # type: ignore[arg-type]
        yield pieces
        if len(going) < len(rows):
            rows, left, states = [rows[g] for g in going], left[going], states[going]
            if not rows:
                return
            writer.keep(going)
            units, uniform = units[going], uniform[going]
        writer.write(units, uniform[:, 1])
