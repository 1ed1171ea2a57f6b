"""Self-speculation: the local decoder drafts bytes beyond a patch's end with the patch output that it still has, and
one parallel pass of the latent model and the decoder says which of them stay.

What is written is what plain greedy decoding writes. Local encoder states do not depend on the latent model, so they
are computed once; a draft that is rejected costs its local steps.

Legend: N positions of a draft, P patches that it completes, D local width, V outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from models.decoding.caches import DRAFT
from models.decoding.generate import Cut
from models.decoding.step import HarnessDecoder, Mark, smoothed
from models.harness import Harness


class Speculator:
    """Writes one document greedily."""

    def __init__(
        self, decoder: HarnessDecoder, cut: Cut | None, fork: Callable[[Cut], Cut] | None = None, draft: int = 8
    ) -> None:
        """`cut` has been told the prompt that `decoder` has read, and `fork` copies it, so that it can be taken back.

        Both are None where the model cuts by itself.
        """
        assert len(decoder.positions) == 1, "one document at a time"
        assert 1 <= draft < DRAFT, draft
        assert (cut is None) == (fork is None)
        self._decoder, self._cut, self._fork, self._draft = decoder, cut, fork, draft
        self._complete: list[Tensor] = []
        """Encoder states of patches that are complete and have had no latent step yet."""
        self._fired: list[Tensor] = []
        self.drafted, self.accepted, self.rounds = 0, 0, 0

    @property
    def acceptance(self) -> float:
        """Share of drafted bytes that stayed."""
        return self.accepted / max(1, self.drafted)

    @torch.inference_mode()
    def bytes(self, count: int) -> Iterator[int]:
        """The next `count` bytes of the document; to be called once."""
        decoder = self._decoder
        while count > 0:
            first = decoder.late and bool(decoder.positions[0] == 0)
            byte, flag = best(decoder.model, decoder.logits, first)
            yield int(byte[0])
            count -= 1
            if count == 0:
                return
            decoder.local.reserve(self._draft + 1)
            x = self._advance(int(byte[0]), flag[0] if flag is not None else None)
            if not self._complete:
                decoder.logits = self._local(x)
                continue
            written = self._speculate(x, min(self._draft, count))[:count]
            yield from written
            count -= len(written)

    def _advance(self, byte: int, flag: bool | None) -> Tensor:
        """The local encoder's step for a byte; a patch that ends is put aside -> (1, D)."""
        decoder = self._decoder
        if self._cut is not None:
            flag = self._cut.push(byte)
        if decoder.late and flag and decoder.positions[0] > 0:
            self._close()
        x = decoder.encode(np.array([byte]), None if flag is None else np.array([flag]))
        if not decoder.late and decoder.starts[0]:
            self._close()
        return x

    def _close(self) -> None:
        decoder = self._decoder
        self._complete.append(torch.cat(decoder.members[0]))
        decoder.members[0] = []
        if decoder.model.router is not None:
            self._fired.append(decoder.fired)

    def _local(self, x: Tensor) -> Tensor:
        """The local decoder's step with the patch output that is there."""
        decoder = self._decoder
        return decoder.read_out(decoder.decode(x, *decoder.here, decoder.slots, decoder.added))

    def _speculate(self, x: Tensor, length: int) -> list[int]:
        """Draft up to `length` bytes from position x (1, D) on, and keep what plain decoding would have written."""
        decoder = self._decoder
        cut = self._fork(self._cut) if self._fork is not None and self._cut is not None else None
        states, marks, reads = [x], [decoder.mark()], [len(self._complete)]
        drafts: list[int] = []
        told: list[bool | None] = []
        for _ in range(length):
            byte, flag = best(decoder.model, self._local(states[-1]), False)
            drafts.append(int(byte[0]))
            told.append(bool(flag[0]) if flag is not None else None)
            states.append(self._advance(drafts[-1], told[-1]))
            marks.append(decoder.mark())
            reads.append(len(self._complete))
        logits, outputs = self._verify(torch.cat(states), marks[0], reads)
        want, flags = best(decoder.model, logits, False)
        kept = 0
        while kept < length and want[kept] == drafts[kept] and (flags is None or flags[kept] == told[kept]):
            kept += 1
        self._settle(marks[kept], reads[kept], outputs, logits[kept : kept + 1])
        if kept < length and cut is not None:
            for byte_kept in drafts[:kept]:
                cut.push(byte_kept)
            self._cut = cut
        self.rounds, self.drafted, self.accepted = self.rounds + 1, self.drafted + length, self.accepted + kept
        return drafts[:kept]

    def _verify(self, x: Tensor, mark: Mark, reads: list[int]) -> tuple[Tensor, Tensor]:
        """Positions x (N, D), the first at `mark`, each with how many of the complete patches it may read -> logits
        (N, V) and the patches' latent outputs (P, L)."""
        decoder = self._decoder
        outputs = decoder.latent.step(decoder.pooled(self._complete), np.zeros(1, np.int64), len(self._complete))
        if decoder.model.router is not None:
            before, smooth = decoder.newest, []
            for one, fired in zip(outputs.split(1), self._fired, strict=True):
                smooth.append(before := smoothed(one, fired, before))
            outputs = torch.cat(smooth)
        slots, added = decoder.given(outputs)
        index = torch.tensor(reads, device=x.device) - 1
        slots = [own[index] for own in slots]
        positions = mark.positions + np.arange(len(x))
        place = decoder.local.place(mark.end - 1, len(x))
        made = decoder.decode(x, decoder.table.at(positions), place, slots, None if added is None else added[index])
        return decoder.read_out(made), outputs

    def _settle(self, mark: Mark, read: int, outputs: Tensor, logits: Tensor) -> None:
        """Stand where `mark` says, with the patches that are complete there."""
        decoder = self._decoder
        decoder.back(mark)
        decoder.latent.cache.counts -= len(outputs) - read
        decoder.patches += read
        decoder.newest = outputs[read - 1 : read]
        decoder.slots, decoder.added = decoder.given(decoder.newest)
        decoder.logits = logits
        self._complete, self._fired = [], []


def best(model: Harness, logits: Tensor, first: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Greedy: the most probable byte of each position (N,), and its flag (N,) where the model predicts one."""
    if model.price is None:
        return logits.argmax(1).cpu().numpy(), None
    without, with_flag = logits.double().cpu().split(256, 1)
    byte = (with_flag if first else torch.logaddexp(without, with_flag)).argmax(1, keepdim=True)
    flag = (with_flag.gather(1, byte) > without.gather(1, byte))[:, 0].numpy()
    return byte[:, 0].numpy(), flag | first
