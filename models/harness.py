"""The BLT-style model that all segmenters feed: local byte encoder, latent transformer, local byte decoder.

Legend: T byte positions of all windows in one flat vector, P patches, D local width, K slots a patch, L latent
width, V head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import Patches, Windows, bucket
from models.hash_embeddings import NgramEmbedding, PatchStateEmbedding
from models.layers import Block, Linear, LocalMask, RMSNorm, Rope, wide
from models.packing import PackedTransformer
from models.pooling import PatchQueries, PatchReader, last_of, pool
from models.router import CosineRouter, Routing, smooth
from models.states import Place, States

Price = Literal["end", "start"]
BoundaryInputs = Literal["none", "flag", "prefix"]


@dataclass(frozen=True)
class HarnessConfig:
    """Sizes of the harness (BLT, section 3); the defaults are those that the tuning sweep chose for small models."""

    local_width: int = 64
    local_heads: int = 2
    encoder_layers: int = 1
    decoder_layers: int = 2
    local_window: int = 16
    latent_width: int = 192
    latent_heads: int = 4
    latent_layers: int = 3
    ngrams: tuple[int, ...] = (3, 4, 5, 6)
    ngram_rows: int = 32768
    patch_rows: int = 32768
    pool: Literal["cross_attention", "max", "mean", "last"] = "cross_attention"
    inject: Literal["cross_attention", "add"] = "cross_attention"
    slots: int | None = None
    """Slots a patch; by default latent_width / local_width where that is whole, else 1."""

    boundary_inputs: BoundaryInputs | None = None
    """What the local model is told of the cut beside what it pools and reads: nothing; the flags and the place in the
    patch; or these and a hash of the open patch. By default nothing where boundaries are free, as in BLT, and the
    flags where they are priced: what has been paid for must be usable (`boundary_inputs_of`)."""

    latent_logits: bool = True
    """Whether the latent output that a position reads adds to its logits directly, through a product of its own (once a
    patch), beside what the local decoder makes of it. Without it all that the latent model knows must go through
    `local_width` numbers."""

    latent_patches: Literal["cut", "document"] = "cut"
    """Where latent steps go: after each patch of the cut, or after BOS alone, so that the cut acts by what it tells."""

    byte_std: float = 0.5
    """Standard deviation of the initial byte embeddings."""

    ngram_std: float = 0.1
    latent_hidden: int | None = field(default=None, metadata={"identity": "when set"})
    """Width inside the latent blocks' SwiGLU, by default that of `swiglu_hidden`; what matching FLOPs fine-tunes."""

    local_hidden: int | None = field(default=None, metadata={"identity": "when set"})
    """The same of the local blocks."""

    @property
    def n_slots(self) -> int:
        whole = self.latent_width % self.local_width == 0
        return self.slots or (self.latent_width // self.local_width if whole else 1)


def boundary_inputs_of(config: HarnessConfig, price: Price | None) -> BoundaryInputs:
    """`boundary_inputs`, with its default filled in."""
    return config.boundary_inputs or ("none" if price is None else "flag")


@dataclass
class Prediction:
    """What a model says of the bytes that it was given."""

    nats: Tensor
    """(T,) float32: -ln p of each byte, boundary cost included where boundaries are priced."""

    flag_nats: Tensor | None = None
    """(T,): the part of `nats` that is spent on boundaries."""

    loss: Tensor | None = None
    """Scalar to add to the mean of `nats` in training (a router's regulariser)."""


@dataclass(frozen=True)
class Encoded:
    """The local encoder's outcome, with a few rows of padding at the end (`bucket`)."""

    x: Tensor
    """(T or more, D)."""

    starts: Tensor
    """(T,) bool, true at the beginning of every window."""

    routing: Routing | None
    rope: Rope
    mask: LocalMask


@dataclass(frozen=True)
class Decoded:
    """What the model has before its head."""

    x: Tensor
    """(T or more, D): decoder states."""

    latent: Tensor
    """(P or more, L): latent outputs, smoothed where a router asks for it."""

    read: Tensor
    """(T or more,): the patch whose output each position reads."""

    gate: Tensor | None
    """(T or more, 1): what a router multiplies it by, 1 with a gradient."""

    routing: Routing | None


class Harness(nn.Module):
    """Sizes from a `HarnessConfig`; `price` says whether and how boundaries are predicted and paid for (DESIGN
    section 4)."""

    state_places: ClassVar[tuple[Place, ...]] = ("patch", "byte")

    def __init__(self, config: HarnessConfig, price: Price | None = None, router: CosineRouter | None = None) -> None:
        """With a `router` the model cuts by itself; it then pools the last position of a patch (`pool: last`)."""
        super().__init__()
        assert router is None or (config.pool == "last" and price is None), "a router fires where a patch ends"
        c, d = config, config.local_width
        self.config, self.price, self.router = config, price, router
        self.lookup_std = {"byte": c.byte_std}
        self.byte = nn.Parameter(torch.empty(257, d))
        self.ngrams = NgramEmbedding(c.ngrams, c.ngram_rows, d, c.ngram_std) if c.ngrams else None
        self.patch_state: PatchStateEmbedding | None = None
        told = boundary_inputs_of(c, price)
        if told != "none":
            rows = c.patch_rows if told == "prefix" else None
            self.patch_state = PatchStateEmbedding(rows, d, knows_flag=price != "start")
        self.encoder = nn.ModuleList(Block(d, c.local_heads, c.local_hidden) for _ in range(c.encoder_layers))
        width = d
        if c.pool == "cross_attention":
            self.queries = PatchQueries(d, c.n_slots, c.local_heads)
            width = c.n_slots * d
        self.to_latent = nn.Identity() if width == c.latent_width else Linear(width, c.latent_width)
        self.latent = PackedTransformer(c.latent_width, c.latent_layers, c.latent_heads, c.latent_hidden)
        read_width = d if c.inject == "add" else c.n_slots * d
        self.from_latent = nn.Identity() if read_width == c.latent_width else Linear(c.latent_width, read_width)
        if c.inject == "cross_attention":
            self.readers = nn.ModuleList(PatchReader(d, c.local_heads) for _ in range(c.decoder_layers))
        self.decoder = nn.ModuleList(Block(d, c.local_heads, c.local_hidden) for _ in range(c.decoder_layers))
        self.norm = RMSNorm(d)
        self.head = Linear(d, 512 if price else 256)
        self.latent_head = Linear(c.latent_width, 512 if price else 256) if c.latent_logits else None

    def embed(self, batch: Windows, starts: Tensor | None, dtype: torch.dtype) -> Tensor:
        """(T, D): the byte before each position, the grams that end there, and what is known of the cut, if it is."""
        positions = batch.positions()
        x = F.embedding(batch.previous(), self.byte).to(dtype)
        if self.ngrams is not None:
            x = x + self.ngrams(batch.data, positions, dtype)
        return x if starts is None else self.tell(x, batch, starts, dtype)

    def tell(self, x: Tensor, batch: Windows, starts: Tensor, dtype: torch.dtype) -> Tensor:
        """x (T or more, D) with what the local model is told of the cut starts (T,), if anything."""
        if self.patch_state is None:
            return x
        known = self.patch_state(batch.data, starts, batch.positions(), dtype)
        return x + F.pad(known, (0, 0, 0, len(x) - len(known)))

    def placed(self, starts: Tensor, offsets: Tensor) -> Tensor:
        """(T,) bool: the starts that latent steps follow, of a cut starts (T,) that is true where windows begin."""
        if self.config.latent_patches == "cut":
            return starts
        return torch.zeros_like(starts).index_fill(0, offsets[:-1], True)

    def encode(self, batch: Windows, dtype: torch.dtype) -> Encoded:
        """The local encoder, and the cut: the given one, or the router's."""
        begins = torch.zeros(len(batch.data), dtype=torch.bool, device=batch.data.device)
        begins[batch.offsets[:-1]] = True
        starts = batch.starts | begins
        c = self.config
        x = self.embed(batch, starts if self.router is None else None, dtype)
        x, spare = _pad(x, bucket(len(batch.data), c.local_window))
        rope = Rope(c.local_width // c.local_heads, F.pad(batch.positions(), (0, spare)), dtype)
        mask = LocalMask(F.pad(batch.window_of(), (0, spare), value=-1), c.local_window, dtype)
        for block in self.encoder:
            x = block(x, rope, mask)
        routing = None
        if self.router is not None:
            routing = self.router(x[: len(begins)], begins)
            starts = routing.starts
            # the cut is known only now, so what it tells is added here instead of to the encoder's input
            x = self.tell(x, batch, starts, dtype)
        return Encoded(x, starts, routing, rope, mask)

    def cut(self, batch: Windows, dtype: torch.dtype) -> Tensor:
        """(T,) bool: where patches start; the router's answer where there is one."""
        return self.encode(batch, dtype).starts

    def states(self, batch: Windows, dtype: torch.dtype, mute_latent: bool = False) -> Decoded:
        """The whole model but its head.

        `mute_latent` puts BOS's latent output in the place of every other.
        """
        c = self.config
        encoded = self.encode(batch, dtype)
        x, routing = encoded.x, encoded.routing
        spare = len(x) - len(batch.data)
        patches = Patches.of(self.placed(encoded.starts, batch.offsets), batch.offsets, late=self.price == "start")
        member = F.pad(patches.member, (0, spare), value=patches.count)
        read = F.pad(patches.read, (0, spare))
        if c.pool == "cross_attention":
            pooled = self.queries(x, member, patches.count).flatten(1)
        else:
            pooled = pool(x, member, patches.count, c.pool)
        latent = self.latent(self.to_latent(pooled), patches.first.diff())
        if mute_latent:
            bos = patches.first[:-1].repeat_interleave(patches.first.diff())
            latent = latent.index_select(0, F.pad(bos, (0, patches.count - len(bos))))
        gate = None
        if routing is not None:
            latent = smooth(latent, routing.probability.index_select(0, last_of(patches.member, patches.count)))
            gate = F.pad(routing.gate, (0, spare)).to(dtype)[:, None]
        given = self.from_latent(latent)
        if c.inject == "add":
            x = x + _gated(given.index_select(0, read), gate)
        slots = given.view(patches.count, c.n_slots, c.local_width) if c.inject == "cross_attention" else None
        for layer, block in enumerate(self.decoder):
            if slots is not None:
                x = x + _gated(self.readers[layer](x, slots, read), gate)
            x = block(x, encoded.rope, encoded.mask)
        return Decoded(x, latent, read, gate, routing)

    def logits(self, batch: Windows, dtype: torch.dtype = torch.float32, mute_latent: bool = False) -> Tensor:
        """(T, V) in `dtype`: V = 256 bytes, or 512 = 256 bytes without the boundary flag, then 256 with it."""
        return self.read_out(self.states(batch, dtype, mute_latent), batch)

    def read_out(self, decoded: Decoded, batch: Windows) -> Tensor:
        logits = self.head(self.norm(decoded.x))
        if self.latent_head is not None:
            logits = logits + _gated(self.latent_head(decoded.latent).index_select(0, decoded.read), decoded.gate)
        return logits[: len(batch.data)]

    def hidden(self, batch: Windows, dtype: torch.dtype = torch.float32) -> States:
        decoded = self.states(batch, dtype)
        if decoded.routing is not None:
            starts = decoded.routing.starts
        else:
            starts = batch.starts.index_fill(0, batch.offsets[:-1], True)
        ended = Patches.of(self.placed(starts, batch.offsets), batch.offsets).read[starts]
        return States(starts, self.norm(decoded.x)[: len(starts)], decoded.latent.index_select(0, ended))

    def forward(
        self,
        batch: Windows,
        dtype: torch.dtype = torch.float32,
        mute_latent: bool = False,
        share: Tensor | None = None,
    ) -> Prediction:
        """`share` is what `CosineRouter.ratio_loss` needs where windows are a part of a batch."""
        decoded = self.states(batch, dtype, mute_latent)
        logits = self.read_out(decoded, batch)
        if self.price is not None:
            return priced(logits, batch, self.price)
        nats = F.cross_entropy(wide(logits), batch.data, reduction="none")
        if self.router is None or decoded.routing is None:
            return Prediction(nats)
        return Prediction(nats, loss=self.router.ratio_loss(decoded.routing, share))


def priced(logits: Tensor, batch: Windows, price: Price) -> Prediction:
    """Cost of byte and boundary together under logits (T, 512).

    `price: end` predicts byte p with "its patch ends here"; at the end of a document nothing tells whether it does,
    so the flag there is summed out, which is still a bound. `price: start` predicts byte p with "it starts a patch";
    at the beginning of a window it always does.
    """
    log_p = F.log_softmax(wide(logits), -1)
    without = log_p.gather(1, batch.data[:, None])[:, 0]
    with_flag = log_p.gather(1, batch.data[:, None] + 256)[:, 0]
    joint, either = flagged(without, with_flag, batch, price)
    return Prediction(-joint, either - joint)


def flagged(without: Tensor, with_flag: Tensor, batch: Windows, price: Price) -> tuple[Tensor, Tensor]:
    """ln p (T,) of each byte with the flag that it has, and of the byte alone, from those without and with a flag."""
    flag = batch.ends.long() if price == "end" else batch.starts.long()
    if price == "start":
        flag = flag.clone()
        flag[batch.offsets[:-1]] = 1
    either = torch.logaddexp(without, with_flag)
    return torch.where(flag == 1, with_flag, torch.where(flag == 0, without, either)), either


def _gated(x: Tensor, gate: Tensor | None) -> Tensor:
    return x if gate is None else x * gate


def _pad(x: Tensor, size: int) -> tuple[Tensor, int]:
    """x (T, D) with zero rows up to `size`, and how many."""
    spare = size - len(x)
    return F.pad(x, (0, 0, 0, spare)), spare
