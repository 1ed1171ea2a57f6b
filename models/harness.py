"""The BLT-style model that all segmenters feed: local byte encoder, latent transformer, local byte decoder.

Legend: T byte positions of all windows in one flat vector and some of padding, n bytes of windows, P patches and some
of padding, D local width, K slots a patch, L latent width, V head width.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import Patches, Windows
from models.hash_embeddings import NgramEmbedding, PatchStateEmbedding
from models.layers import Block, Linear, RMSNorm, Rope, Transformer, wide
from models.plan import Cut, HarnessPlan, Told, byte_plan
from models.pooling import PatchQueries, PatchReader, pool
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
    """The local encoder's outcome."""

    x: Tensor
    """(T, D)."""

    starts: Tensor
    """(n,) bool, true at the beginning of every window."""

    routing: Routing | None
    rope: Rope
    plan: HarnessPlan


@dataclass(frozen=True)
class Decoded:
    """What the model has before its head."""

    x: Tensor
    """(T, D): decoder states."""

    latent: Tensor
    """(P, L): latent outputs, smoothed where a router asks for it."""

    read: Tensor
    """(T,): the patch whose output each position reads."""

    gate: Tensor | None
    """(T, 1): what a router multiplies it by, 1 with a gradient."""

    routing: Routing | None
    starts: Tensor
    """(n,) bool, as `Encoded` has it."""


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
        self.latent = Transformer(c.latent_width, c.latent_layers, c.latent_heads, c.latent_hidden)
        read_width = d if c.inject == "add" else c.n_slots * d
        self.from_latent = nn.Identity() if read_width == c.latent_width else Linear(c.latent_width, read_width)
        if c.inject == "cross_attention":
            self.readers = nn.ModuleList(PatchReader(d, c.local_heads) for _ in range(c.decoder_layers))
        self.decoder = nn.ModuleList(Block(d, c.local_heads, c.local_hidden) for _ in range(c.decoder_layers))
        self.norm = RMSNorm(d)
        self.head = Linear(d, 512 if price else 256)
        self.latent_head = Linear(c.latent_width, 512 if price else 256) if c.latent_logits else None

    def plan(self, batch: Windows) -> HarnessPlan:
        """All that follows from documents and cuts; what a router's cut will tell is left open (`_after`)."""
        batch = batch.to("cpu")
        parts = byte_plan(batch, self.ngrams)
        starts, flag = batch.starts.index_fill(0, batch.offsets[:-1], True), None
        if self.price is not None:
            flag = batch.ends.long() if self.price == "end" else starts.long()
        plan = HarnessPlan(**parts, starts=starts, flag=flag, told=None, cut=None)
        return plan if self.router is not None else self._after(plan, starts)

    def _after(self, plan: HarnessPlan, starts: Tensor) -> HarnessPlan:
        """With what follows from starts (n,), a plan on the CPU."""
        c, told, room = self.config, None, len(plan.previous)
        if self.patch_state is not None:
            positions = plan.windows.position[: len(starts)]
            told = self.patch_state.told(plan.data, starts, positions, room)
        placed = self.placed(starts, plan.offsets)
        return replace(plan, told=told, cut=Cut.of(placed, plan.offsets, room, c.n_slots, late=self.price == "start"))

    def _routed(self, plan: HarnessPlan, starts: Tensor) -> HarnessPlan:
        """`_after` where the cut is known in the midst of the model: the host must wait for it."""
        return self._after(plan.to(torch.device("cpu")), starts.cpu()).to(starts.device)

    @classmethod
    @functools.cache  # once: what is disabled already would be wrapped again
    def leave_host_out_of_graphs(cls) -> None:
        """Let `torch.compile` break its graph where a router's cut is read; for all models of this process."""
        cls._routed = torch.compiler.disable(cls._routed)  # type: ignore[method-assign]  # no decorator: it takes 1.5 s

    def embed(self, plan: HarnessPlan, dtype: torch.dtype) -> Tensor:
        """(T, D): the byte before each position, the grams that end there, and what is known of the cut, if it is."""
        x = F.embedding(plan.previous, self.byte).to(dtype)
        if self.ngrams is not None and plan.grams is not None:
            x = x + self.ngrams(plan.grams, dtype)
        return self.tell(x, plan.told, dtype)

    def tell(self, x: Tensor, told: Told | None, dtype: torch.dtype) -> Tensor:
        """x (T, D) with what the local model is told of the cut, if anything."""
        return x if told is None or self.patch_state is None else x + self.patch_state(told, dtype)

    def placed(self, starts: Tensor, offsets: Tensor) -> Tensor:
        """(n,) bool: the starts that latent steps follow, of a cut starts (n,) that is true where windows begin."""
        if self.config.latent_patches == "cut":
            return starts
        return torch.zeros_like(starts).index_fill(0, offsets[:-1], True)

    def encode(self, batch: Windows | HarnessPlan, dtype: torch.dtype) -> Encoded:
        """The local encoder, and the cut: the given one, or the router's."""
        plan = batch if isinstance(batch, HarnessPlan) else self.plan(batch).to(self.byte.device)
        c = self.config
        x = self.embed(plan, dtype)
        rope = Rope(c.local_width // c.local_heads, plan.windows.position, dtype)
        for block in self.encoder:
            x = block(x, rope, plan.windows.segments, (c.local_window - 1, 0))
        if self.router is None:
            return Encoded(x, plan.starts, None, rope, plan)
        routing = self.router(x[: len(plan.data)], plan.windows.position[: len(plan.data)] == 0)
        # the cut is known only now, so what it tells is added here instead of to the encoder's input
        plan = self._routed(plan, routing.starts)
        return Encoded(self.tell(x, plan.told, dtype), routing.starts, routing, rope, plan)

    def cut(self, batch: Windows | HarnessPlan, dtype: torch.dtype) -> Tensor:
        """(n,) bool: where patches start; the router's answer where there is one."""
        return self.encode(batch, dtype).starts

    def states(self, batch: Windows | HarnessPlan, dtype: torch.dtype, mute_latent: bool = False) -> Decoded:
        """The whole model but its head.

        `mute_latent` puts BOS's latent output in the place of every other.
        """
        c = self.config
        encoded = self.encode(batch, dtype)
        x, routing, plan = encoded.x, encoded.routing, encoded.plan
        cut = plan.cut
        assert cut is not None
        if c.pool == "cross_attention":
            pooled = self.queries(x, cut.members).view(len(cut.bos), -1)
        else:
            pooled = pool(x, cut.members, c.pool)
        latent = self.latent(self.to_latent(pooled), cut.latent)
        if mute_latent:
            latent = latent.index_select(0, cut.bos)
        gate = None
        if routing is not None:
            latent = smooth(latent, routing.probability.index_select(0, cut.members.last))
            gate = F.pad(routing.gate, (0, len(x) - len(plan.data))).to(dtype)[:, None]
        given = self.from_latent(latent)
        if c.inject == "add":
            x = x + _gated(given.index_select(0, cut.read), gate)
        for layer, block in enumerate(self.decoder):
            if c.inject == "cross_attention":
                slots = given.view(-1, c.n_slots, c.local_width)
                x = x + _gated(self.readers[layer](x, slots, cut), gate)
            x = block(x, encoded.rope, plan.windows.segments, (c.local_window - 1, 0))
        return Decoded(x, latent, cut.read, gate, routing, encoded.starts)

    def logits(
        self, batch: Windows | HarnessPlan, dtype: torch.dtype = torch.float32, mute_latent: bool = False
    ) -> Tensor:
        """(n, V) in `dtype`: V = 256 bytes, or 512 = 256 bytes without the boundary flag, then 256 with it."""
        return self.read_out(self.states(batch, dtype, mute_latent))

    def read_out(self, decoded: Decoded) -> Tensor:
        logits = self.head(self.norm(decoded.x))
        if self.latent_head is not None:
            logits = logits + _gated(self.latent_head(decoded.latent).index_select(0, decoded.read), decoded.gate)
        return logits[: len(decoded.starts)]

    def hidden(self, batch: Windows, dtype: torch.dtype = torch.float32) -> States:
        decoded = self.states(batch, dtype)
        starts, offsets = decoded.starts, batch.offsets.to(decoded.starts.device)
        ended = Patches.of(self.placed(starts, offsets), offsets).read[starts]
        return States(starts, self.norm(decoded.x)[: len(starts)], decoded.latent.index_select(0, ended))

    def forward(
        self,
        batch: Windows | HarnessPlan,
        dtype: torch.dtype = torch.float32,
        mute_latent: bool = False,
        share: Tensor | None = None,
    ) -> Prediction:
        """`share` is what `CosineRouter.ratio_loss` needs where windows are a part of a batch."""
        plan = batch if isinstance(batch, HarnessPlan) else self.plan(batch).to(self.byte.device)
        decoded = self.states(plan, dtype, mute_latent)
        logits = self.read_out(decoded)
        if plan.flag is not None:
            return priced(logits, plan.data, plan.flag)
        nats = F.cross_entropy(wide(logits), plan.data, reduction="none")
        if self.router is None or decoded.routing is None:
            return Prediction(nats)
        return Prediction(nats, loss=self.router.ratio_loss(decoded.routing, share))


def priced(logits: Tensor, data: Tensor, flag: Tensor) -> Prediction:
    """Cost of byte and boundary together under logits (n, 512), bytes and flags (n,).

    `price: end` predicts byte p with "its patch ends here"; at the end of a document nothing tells whether it does,
    so the flag there is summed out, which is still a bound. `price: start` predicts byte p with "it starts a patch";
    at the beginning of a window it always does.
    """
    log_p = F.log_softmax(wide(logits), -1)
    without = log_p.gather(1, data[:, None])[:, 0]
    with_flag = log_p.gather(1, data[:, None] + 256)[:, 0]
    joint, either = flagged(without, with_flag, flag)
    return Prediction(-joint, either - joint)


def flagged(without: Tensor, with_flag: Tensor, flag: Tensor) -> tuple[Tensor, Tensor]:
    """ln p (n,) of each byte with the flag that it has, and of the byte alone, from those without and with a flag."""
    either = torch.logaddexp(without, with_flag)
    return torch.where(flag == 1, with_flag, torch.where(flag == 0, without, either)), either


def _gated(x: Tensor, gate: Tensor | None) -> Tensor:
    return x if gate is None else x * gate
