"""Samples the next unit (byte or token) from logits: greedy, temperature, top-k, top-p, valid UTF-8; stop strings.

Legend: B rows, U units (256 bytes, or a vocabulary).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next unit is drawn. A temperature of 0 is greedy; k and p narrow what is left after it."""

    temperature: float = 0.0
    top_k: int | None = None
    """Only the k most probable units."""

    top_p: float | None = None
    """Only the most probable units that together have this probability (the one that passes it included)."""

    def draw(self, logits: Tensor, uniform: np.ndarray, allowed: Tensor | None = None) -> np.ndarray:
        """logits (B, U), uniform (B,) numbers in [0, 1), allowed (B, U) bool -> units (B,) int64.

        A row's unit is a function of its own logits and its own number: neighbours do not change it.
        """
        scores = logits.double().cpu()
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        if self.temperature == 0 or self.top_k == 1:
            return scores.argmax(1).numpy()
        p = torch.softmax(scores / self.temperature, 1)
        if self.top_k is not None and self.top_k < p.shape[1]:
            best = p.topk(self.top_k, 1)
            p = torch.zeros_like(p).scatter_(1, best.indices, best.values)
        if self.top_p is not None:
            ranked, order = torch.sort(p / p.sum(1, keepdim=True), dim=1, descending=True, stable=True)
            p = p.masked_fill((ranked.cumsum(1) - ranked >= self.top_p).gather(1, order.argsort(1)), 0)
        # Summed in the units' own order, not by rank: two units that are nearly as probable may change ranks by the
        # rounding that neighbours in a batch bring, and with ranks what is drawn would change with them.
        sums = p.cumsum(1)
        place = (sums <= torch.from_numpy(uniform)[:, None] * sums[:, -1:]).sum(1)
        last = torch.where(p > 0, torch.arange(p.shape[1]), 0).amax(1)  # rounding must not lead past what is possible
        return torch.minimum(place, last).numpy()


# --- valid UTF-8

_NEEDED = np.array([0, 1, 2, 3, 2, 2, 3, 3])
"""Bytes that are missing in each state: 0 between characters, 1-3 any continuation bytes, 4-7 after E0, ED, F0, F4,
whose first continuation byte is restricted (RFC 3629, section 4)."""


@functools.cache
def transitions() -> np.ndarray:
    """(8, 256) int8: the state after each byte, -1 where the byte is not allowed."""
    table = np.full((8, 256), -1, np.int8)
    table[0, :0x80] = 0
    for state, leads in ((1, range(0xC2, 0xE0)), (2, range(0xE1, 0xF0)), (3, range(0xF1, 0xF4))):
        table[0, leads] = state
        table[state, 0x80:0xC0] = state - 1
    for state, lead, low, high in (
        (4, 0xE0, 0xA0, 0xC0),
        (5, 0xED, 0x80, 0xA0),
        (6, 0xF0, 0x90, 0xC0),
        (7, 0xF4, 0x80, 0x90),
    ):
        table[0, lead] = state
        table[state, low:high] = _NEEDED[state] - 1
    return table


class Utf8:
    """Which units keep a text valid UTF-8, and whole when its bytes run out."""

    def __init__(self, units: Sequence[bytes]) -> None:
        """`units`: the bytes of each unit."""
        self._lengths = np.array([len(u) for u in units])
        state = np.repeat(np.arange(8, dtype=np.int8)[:, None], len(units), 1)
        for place in range(int(self._lengths.max())):
            byte = np.array([u[place] if place < len(u) else 0 for u in units])
            after = np.where(state < 0, np.int8(-1), transitions()[state, byte])
            state = np.where(place < self._lengths, after, state)
        state[:, self._lengths == 0] = -1
        self._after = state

    @staticmethod
    def state_of(text: bytes) -> int:
        """Where a text ends; what is not valid in it is passed over."""
        state = 0
        for byte in text[-3:]:
            after = int(transitions()[state, byte])
            state = after if after >= 0 else max(0, int(transitions()[0, byte]))
        return state

    def allowed(self, states: np.ndarray, left: np.ndarray) -> Tensor:
        """states (B,) and bytes that may still be written (B,) -> (B, U) bool."""
        after = self._after[states]
        valid = after >= 0
        whole = valid & (self._lengths + _NEEDED[after] <= left[:, None])
        # a prompt may end in a character that the bytes left do not suffice for: then it stays cut off
        return torch.from_numpy(np.where(whole.any(1, keepdims=True), whole, valid & (self._lengths <= left[:, None])))

    def after(self, states: np.ndarray, units: np.ndarray) -> np.ndarray:
        return self._after[states, units]


# --- where to stop


class Stopper:
    """Lets text through up to the first of some strings.

    What could become such a string is held back, so that nothing of it is ever shown.
    """

    def __init__(self, until: Sequence[bytes]) -> None:
        self._until = [u for u in until if u]
        self._held = b""
        self.found = False

    def push(self, data: bytes) -> bytes:
        """More text -> what is safe to show."""
        text = self._held + data
        places = [at for u in self._until if (at := text.find(u)) >= 0]
        if places:
            self.found, self._held = True, b""
            return text[: min(places)]
        held = max(
            (n for u in self._until for n in range(min(len(u) - 1, len(text)), 0, -1) if text.endswith(u[:n])),
            default=0,
        )
        shown, self._held = text[: len(text) - held], text[len(text) - held :]
        return shown

    def end(self) -> bytes:
        """What was held back, once it is known that nothing comes any more."""
        held, self._held = self._held, b""
        return held
