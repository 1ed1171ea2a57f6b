"""Incremental decoding: what the harness does for one new byte (DESIGN section 9), for B documents side by side.

A decoder begins with one parallel pass over the prompts, which is the forward pass of training, and from then on
runs each part for the new position alone; the latent model only where a patch ends. Its logits are those of the full
forward, up to float32's rounding. Documents may be at different places in their patches.

Training and scoring see windows of so many bytes. Decoding goes on past that: positions keep counting, local layers
see their last `local_window` positions as always, and the latent model sees all patches of the document, so past the
trained length it meets more patches than it was trained on. The cost of a byte does not depend on the position but
for the latent attention over patches.

Everything is float32, as scoring is. Models without patches are in `plain_decoding`.

Legend: B rows (documents), N rows of which a patch has ended, P patches of all prompts, D local width, K slots a
patch, L latent width, V outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.decoding.caches import CachePlace, KVCache, RotaryTable, Turn, recorded
from models.decoding.modules import BareLinear, Lookup, NormedLinear, Pooler, Reader, members_of
from models.decoding.prefill import LatentCache, layers_of, lengthened
from models.decoding.running_hashes import Grams, OpenPatches
from models.harness import Harness
from models.hash_embeddings import PatchStateEmbedding
from models.pooling import PatchReader, pool


class HarnessDecoder:
    """The harness; what it is told of the cut depends on who cuts.

    A causal patcher: `starts` has one entry more than the prompt, and a step is (byte p - 1, whether byte p starts a
    patch). `price: end`: the same, where the flag was predicted together with the byte ("its patch ends here").
    `price: start`: `starts` is as long as the prompt, and a step is (byte p - 1, whether *it* starts a patch). A
    model with a router cuts by itself and is told nothing.
    """

    def __init__(self, model: Harness, prompts: Sequence[bytes], starts: Sequence[np.ndarray] | None) -> None:
        self.model, self.late = model, model.price == "start"
        assert (starts is None) == (model.router is not None), "a router cuts by itself, other models are told"
        if starts is None:
            starts = [np.zeros(len(p) + 1, bool) for p in prompts]
        elif self.late:
            starts = [np.append(s, False) for s in starts]  # not read: byte n is not known to start a patch
        for own, prompt in zip(starts, prompts, strict=True):
            assert len(own) == len(prompt) + 1, (len(own), len(prompt))
        with torch.inference_mode():
            self._begin(prompts, starts)

    def _begin(self, prompts: Sequence[bytes], starts: Sequence[np.ndarray]) -> None:
        model, c = self.model, self.model.config
        self._device = device = model.byte.device
        self.positions = np.array([len(p) for p in prompts])
        """(B,): how many bytes each document has; the newest position holds the last of them."""
        self._encoder, self._decoder = layers_of(model.encoder), layers_of(model.decoder)
        readers = model.readers if c.inject == "cross_attention" else ()
        self._readers = [Reader(reader) for reader in readers if isinstance(reader, PatchReader)]
        self._pooler = Pooler(model.queries) if c.pool == "cross_attention" else None
        self._head = NormedLinear(model.norm, model.head)
        self._latent_head = None if model.latent_head is None else BareLinear(model.latent_head)
        state = model.patch_state
        self._byte = Lookup(model.byte)
        self._told: list[Lookup | None] = []  # length, open patch, flag
        if state is not None:
            tables = state.length, state.patch, state.flag if state.knows_flag else None
            self._told = [None if table is None else Lookup(table) for table in tables]
        self.latent = LatentCache(model.latent, len(prompts), device)
        batch = lengthened(prompts, starts, device)
        local = {f"{i}": block.projection for i, block in enumerate((*self._encoder, *self._decoder))}
        with recorded({**local, "encoded": model.encoder[-1]}) as seen, self.latent.filling():
            decoded = model.states(batch, torch.float32)
        last = batch.offsets[1:] - 1
        self.logits = model.read_out(decoded)[last]

        width = c.local_width // c.local_heads
        self.table = RotaryTable(width, device)
        self.local = KVCache(len(local), len(prompts), c.local_heads, width, c.local_window, device)
        for i in range(len(local)):
            self.local.fill(i, seen[f"{i}"][1], batch.offsets, self.table)

        cut = decoded.starts
        self.newest = decoded.latent[decoded.read[last]]
        self.slots: list[Tensor] = []
        self.voted: Tensor | None = None
        """(B, V): what the newest patch's output adds to the logits."""
        self.added: Tensor | None = None
        self._give(np.arange(len(prompts)), self.newest)

        encoded = seen["encoded"][1]
        self._last = encoded[last]
        cuts = [row.numpy() for row in cut.cpu().split(batch.lengths.tolist())]
        # what the patch of byte n - 1 has so far; position p holds byte p - 1
        begins = [int(np.flatnonzero(own[: max(1, len(p))])[-1]) for own, p in zip(cuts, prompts, strict=True)]
        self._grams = Grams(model.ngrams, prompts) if model.ngrams is not None else None
        rows = 2 if state is None or state.rows is None else state.rows
        self._open = OpenPatches(rows, prompts, begins)
        self._begun = np.array([own[-1] for own in cuts])
        """(B,): whether the byte that comes next starts a patch (not where that is predicted with it)."""
        self.members: list[list[Tensor]] = []
        """Encoder states of each row's open patch: what has to be pooled when it is complete."""
        for row, (begin, prompt) in enumerate(zip(begins, prompts, strict=True)):
            complete = not prompt or bool(self._begun[row])
            end = int(batch.offsets[row + 1])
            self.members.append([] if complete else [encoded[end - (len(prompt) - begin) : end]])
        self.patches = self.latent.cache.end.copy()
        """(B,): latent steps so far, BOS's included."""

    @torch.inference_mode()
    def step(self, data: np.ndarray, flags: np.ndarray | None = None) -> None:
        """The next byte of each document (B,), and the flag that belongs to it (B,), if the model is told one."""
        if self.late:
            assert flags is not None
            self.finish(np.flatnonzero(flags & (self.positions > 0)))
        x = self.encode(data, flags)
        if not self.late:
            self.finish(np.flatnonzero(self._begun))
        logits = self._head(self.decode(x, *self.here, self.slots, self.added))
        self.logits = logits if self.voted is None else logits + self.voted

    @property
    def starts(self) -> np.ndarray:
        """(B,): whether the byte that comes next starts a patch, as the newest step was told or as the router says."""
        return self._begun

    def encode(self, data: np.ndarray, flags: np.ndarray | None) -> Tensor:
        """Local encoder: (B, D) for the position that holds these bytes."""
        model = self.model
        begins = flags if self.late else self._begun
        assert begins is not None
        self.positions = self.positions + 1
        x = self._byte(data)
        if self._grams is not None:
            x = x + self._grams.push(data, self.positions)
        rows = self._open.push(data, begins)
        if model.router is None:
            assert flags is not None
            x = self._tell(x, rows, flags)
        self.here = self.table.at(self.positions), self.local.enter(np.arange(len(data)))
        for i, block in enumerate(self._encoder):
            x = block.step(i, x, *self.here)
        if model.router is not None:
            both = torch.stack((self._last, x), 1).flatten(0, 1)
            begins_here = torch.arange(len(both), device=self._device) % 2 == 0
            routing = model.router(both, begins_here)
            self._last = x
            flags = routing.starts[1::2].cpu().numpy()
            self.fired = routing.probability[1::2]
            x = self._tell(x, rows, flags)
        if not self.late:
            assert flags is not None
            self._begun = flags
        for row, members in enumerate(self.members):
            if model.config.pool == "last":
                members.clear()
            members.append(x[row : row + 1])
        return x

    def _tell(self, x: Tensor, rows: np.ndarray, flags: np.ndarray) -> Tensor:
        """`Harness.tell` for the newest position."""
        if not self._told:
            return x
        length, patch, flag = self._told
        assert length is not None
        x = x + length(np.minimum(self._open.length, PatchStateEmbedding.max_length))
        if patch is not None:
            x = x + patch(rows)
        return x if flag is None else x + flag(flags.astype(np.int64))

    def finish(self, rows: np.ndarray) -> None:
        """One latent step for each of these rows (N,), whose open patches are complete."""
        if len(rows) == 0:
            return
        if self.model.config.latent_patches == "document":
            return  # nothing follows BOS, whose patch is complete before the first step
        own = [torch.cat(self.members[row]) for row in rows]
        for row in rows:
            self.members[row] = []
        out = self.latent.step(self.pooled(own), rows)
        if self.model.router is not None:
            index = torch.from_numpy(rows).to(self._device)
            out = smoothed(out, self.fired[index], self.newest[index])
        self.patches[rows] += 1
        self._give(rows, out)

    def pooled(self, members: Sequence[Tensor]) -> Tensor:
        """What the latent model gets for complete patches, from each one's encoder states (bytes, D) -> (N, L)."""
        if self._pooler is not None:
            made = self._pooler.pool(members)
        else:
            x = torch.cat(list(members))
            made = pool(x, members_of([len(m) for m in members]).to(x.device), self.model.config.pool)
        out: Tensor = self.model.to_latent(made)
        return out

    def _give(self, rows: np.ndarray, latent: Tensor) -> None:
        """The newest patch of these rows has the latent output (N, L): what the local decoder will read of it."""
        slots, added = self.given(latent)
        voted = None if self._latent_head is None else self._latent_head(latent)
        if len(rows) == len(self.positions):
            self.newest, self.slots, self.added, self.voted = latent, slots, added, voted
            return
        index = torch.from_numpy(rows).to(self._device)
        self.newest = self.newest.index_copy(0, index, latent)
        self.slots = [have.index_copy(0, index, new) for have, new in zip(self.slots, slots, strict=True)]
        if self.added is not None and added is not None:
            self.added = self.added.index_copy(0, index, added)
        if self.voted is not None and voted is not None:
            self.voted = self.voted.index_copy(0, index, voted)

    def given(self, latent: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Latent outputs (N, L) -> keys and values of their slots for each decoder layer, (N, K, 2, H, E); or what is
        added instead, (N, D)."""
        c, given = self.model.config, self.model.from_latent(latent)
        if c.inject == "add":
            return [], given
        slots = given.view(len(latent), c.n_slots, c.local_width)
        return [reader.project(slots) for reader in self._readers], None

    def decode(self, x: Tensor, turn: Turn, place: CachePlace, slots: Sequence[Tensor], added: Tensor | None) -> Tensor:
        """Local decoder for positions x (N, D) that read one patch each."""
        if added is not None:
            x = x + added
        for i, block in enumerate(self._decoder):
            if slots:
                x = self._readers[i].read(x, slots[i])
            x = block.step(len(self._encoder) + i, x, turn, place)
        return x

    def keep(self, rows: Sequence[int]) -> None:
        host, index = np.array(rows), torch.tensor(rows, device=self._device)
        self.positions, self.patches, self._begun = self.positions[host], self.patches[host], self._begun[host]
        self.logits, self.newest, self._last = self.logits[index], self.newest[index], self._last[index]
        self.slots = [slots[index] for slots in self.slots]
        self.added = None if self.added is None else self.added[index]
        self.voted = None if self.voted is None else self.voted[index]
        self.members = [self.members[row] for row in rows]
        self.local.keep(index)
        self.latent.keep(index)
        self._open.keep(host)
        if self._grams is not None:
            self._grams.keep(host)


def smoothed(latent: Tensor, probability: Tensor, before: Tensor) -> Tensor:
    """One patch more of `router.smooth`: latent and before (N, L), probability (N,)."""
    p = probability[:, None].to(latent.dtype)
    return p * latent + (1 - p) * before
