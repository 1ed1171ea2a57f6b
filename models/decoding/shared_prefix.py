"""Scores texts that share a prefix: the prefix is computed once, and each text continues from its cache.

The shared beginning of a group of texts, a trunk, is one forward pass like any other, of which the keys and values
are remembered. Each text's own positions are then advanced all at once, side by side, and see what they would see
in a pass over the whole text: so the outcome is that pass's, up to float32's rounding.

Everything is float32, as scoring is.

Legend: J texts, G trunks, T positions of all texts in one flat vector, U positions of all trunks, N positions that
are a text's own, B texts that have some, M of them in the longest, S remembered positions, P patches, D width, H
heads, E head width, V outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import Patches, Windows
from models.byte_lm import ByteLM
from models.decoding.caches import RotaryTable, recorded
from models.decoding.modules import Layer, Reader, rms
from models.decoding.prefill import layers_of
from models.harness import Decoded, Harness, flagged
from models.layers import Transformer, wide
from models.plan import Members, Sequences
from models.pooling import PatchReader, pool
from models.router import smooth
from models.token_lm import AT_ONCE, TokenLM

BRANCHING = (Harness, ByteLM, TokenLM)
"""The models that `score` knows."""


@dataclass(frozen=True)
class Branches:
    """Texts and what they share: the first `shared[g]` positions of every text of group g have the same inputs."""

    texts: Windows
    """On the CPU."""

    group: np.ndarray
    """(J,): groups count from 0, and the texts of one stand together."""

    shared: np.ndarray
    """(G,): at least 1, at most the length of the group's shortest text."""

    def __post_init__(self) -> None:
        assert (np.diff(self.group, prepend=0) >= 0).all()
        assert len(self.shared) == self.group[-1] + 1
        assert (self.shared >= 1).all()
        assert (self.shared[self.group] <= self.lengths).all()

    @property
    def lengths(self) -> np.ndarray:
        """(J,)."""
        return self.texts.lengths.numpy()

    @property
    def first(self) -> np.ndarray:
        """(G,): the first text of each group, whose beginning is the trunk."""
        return np.unique(self.group, return_index=True)[1]

    def trunk(self) -> Windows:
        """The shared beginnings."""
        offsets = self.texts.offsets.numpy()[:-1]
        index = torch.from_numpy(ranges(offsets[self.first], self.shared))
        t = self.texts
        return Windows(t.data[index], flat(self.shared), t.starts[index], t.ends[index])

    def own(self) -> np.ndarray:
        """(N,): places in the texts' flat vector of the positions that are a text's own."""
        shared = self.shared[self.group]
        return ranges(self.texts.offsets.numpy()[:-1] + shared, self.lengths - shared)

    def row(self) -> np.ndarray:
        """(T,): where each position of the texts is computed, in the trunks' positions followed by the own ones."""
        shared, lengths = self.shared[self.group], self.lengths
        place = np.arange(lengths.sum()) - np.repeat(self.texts.offsets.numpy()[:-1], lengths)
        trunk = np.repeat((self.shared.cumsum() - self.shared)[self.group], lengths) + place
        own = lengths - shared
        after = self.shared.sum() + np.repeat(own.cumsum() - own, lengths) + place - np.repeat(shared, lengths)
        return np.where(place < np.repeat(shared, lengths), trunk, after)


def ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """begins[0], begins[0] + 1, ... (counts[0] of them), then those of begins[1], and so on."""
    ends = counts.cumsum()
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - counts), counts)


def flat(counts: np.ndarray) -> Tensor:
    """Offsets of parts of these sizes in a flat vector."""
    return torch.from_numpy(np.concatenate(([0], counts.cumsum())))


@dataclass(frozen=True)
class Scored:
    """What a model says of each position of the texts."""

    nats: Tensor
    """(T,) float64: -ln p of each byte as `Prediction` has it."""

    best: Tensor | None
    """(T,) bool: whether no other byte is more probable; None where a position is more, or less, than a byte."""


class Beyond:
    """Where new positions attend: to what their group's trunk has remembered, and to those of their own text.

    A group is one row, so that what is remembered is there once, and a mask keeps its texts apart.
    """

    def __init__(
        self, before: np.ndarray, own: np.ndarray, group: np.ndarray, window: int | None, device: torch.device
    ) -> None:
        """before (G,): remembered positions of each trunk; own (J,): new ones of each text, group (J,)."""
        s = int(before.max())
        s = s if window is None else min(s, window - 1)
        self._s, self._device = s, device
        kept = np.minimum(before, s)
        self.remembered = ranges(before - kept, kept)
        """Of each trunk the last positions, one trunk after another."""
        self._kept = kept
        size = np.bincount(group, own, len(before)).astype(np.int64)  # (G,): new positions of each group
        m = self._m = int(size.max())
        self.positions = ranges(before[group], own)
        row = np.repeat(group, own)
        column = ranges(np.zeros(len(size), np.int64), size)
        text, at = np.full((len(size), m), -1), np.full((len(size), m), -1)
        text[row, column], at[row, column] = np.repeat(np.arange(len(own)), own), self.positions
        trunk_at = before[:, None] - s + np.arange(s)  # (G, S)
        key, query = np.concatenate((trunk_at, at), 1)[:, None], at[:, :, None]
        seen = (key >= 0) & (key <= query)
        seen[:, :, s:] &= text[:, :, None] == text[:, None]
        if window is not None:
            seen &= key > query - window
        seen[:, :, 0] |= query[:, :, 0] < 0  # what pads a row sees something, for the sake of its softmax
        bias = torch.zeros(seen.shape).masked_fill_(torch.from_numpy(~seen), -torch.inf)[:, None]
        self._bias = bias.to(device)
        self._rows = len(size)
        self._place = torch.from_numpy(row * m + column).to(device)
        self._key_place = torch.from_numpy(row * (s + m) + s + column).to(device)
        last = np.arange(len(size)) * (s + m) + s
        self._trunk_place = torch.from_numpy(ranges(last - kept, kept)).to(device)
        self._kv: list[Tensor] = []

    def remember(self, qkv: Tensor, first: np.ndarray, layer: Layer, table: RotaryTable) -> None:
        """The next layer's projections of the trunks' positions, qkv (U, 3 D); trunk g begins at first (G,)."""
        h = layer.heads
        e = qkv.shape[1] // (3 * h)
        kv = qkv.new_zeros(self._rows * (self._s + self._m), 2 * h, e)
        if len(self.remembered):
            index = np.repeat(first, self._kept) + self.remembered
            own = qkv.index_select(0, torch.from_numpy(index).to(self._device)).view(-1, 3 * h, e)[:, h:]
            own[:, :h] = table.at(self.remembered)(own[:, :h])
            kv.index_copy_(0, self._trunk_place, own)
        self._kv.append(kv)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (N, H, E) of the new positions -> (N, H * E)."""
        g, m, (_, h, e) = self._rows, self._m, q.shape
        kv = self._kv[layer].index_copy_(0, self._key_place, torch.cat((k, v), 1))
        kv = kv.view(g, self._s + m, 2 * h, e).transpose(1, 2)
        query = q.new_zeros(g * m, h, e).index_copy_(0, self._place, q).view(g, m, h, e).transpose(1, 2)
        out = F.scaled_dot_product_attention(query, kv[:, :h], kv[:, h:], attn_mask=self._bias)
        return out.transpose(1, 2).reshape(g * m, h * e).index_select(0, self._place)


def score(model: nn.Module, branches: Branches) -> Scored:
    """The nats of all texts of a batch."""
    with torch.inference_mode():
        if isinstance(model, TokenLM):
            return _token_lm(model, branches)
        if isinstance(model, ByteLM):
            return _of_bytes(_byte_lm(model, branches), branches, model.byte.device)
        assert isinstance(model, Harness), type(model)
        logits = HarnessBranches(model, branches).logits()
        if model.price is None:
            return _of_bytes(logits, branches, model.byte.device)
        row = torch.from_numpy(branches.row()).to(logits.device)
        texts = branches.texts.to(logits.device)
        log_p = F.log_softmax(wide(logits), -1)
        flag = model.plan(branches.texts).flag
        assert flag is not None
        return Scored(-flagged(log_p[row, texts.data], log_p[row, texts.data + 256], flag.to(logits.device))[0], None)


def _of_bytes(logits: Tensor, branches: Branches, device: torch.device) -> Scored:
    """From logits (U + N, 256)."""
    row = torch.from_numpy(branches.row()).to(device)
    data = branches.texts.data.to(device)
    log_p = F.log_softmax(wide(logits), -1)
    return Scored(-log_p[row, data], log_p.argmax(1)[row] == data)


def _byte_lm(model: ByteLM, branches: Branches) -> Tensor:
    """(U + N, V)."""
    c, device = model.config, model.byte.device
    layers = layers_of(model.blocks)
    trunk, own = branches.trunk().to(device), branches.own()
    with recorded({f"{i}": layer.projection for i, layer in enumerate(layers)}) as seen:
        logits = model.logits(trunk.data, trunk.offsets)
    if len(own) == 0:
        return logits
    texts = branches.texts.to(device)
    x = F.embedding(texts.previous(), model.byte)
    if model.ngrams is not None:
        x = x + model.ngrams(model.ngrams.rows_of(texts.data, texts.positions()), torch.float32)
    x = x.index_select(0, torch.from_numpy(own).to(device))
    table = RotaryTable(c.width // c.heads, device)
    beyond = _beyond(branches, c.window, device)
    for i, layer in enumerate(layers):
        beyond.remember(seen[f"{i}"][1], trunk.offsets[:-1].cpu().numpy(), layer, table)
    turn = table.at(beyond.positions)
    for i, layer in enumerate(layers):
        x = layer.advance(i, x, turn, beyond)
    return torch.cat((logits, model.head(rms(model.norm, x))))


def _beyond(branches: Branches, window: int | None, device: torch.device) -> Beyond:
    own = branches.lengths - branches.shared[branches.group]
    return Beyond(branches.shared, own, branches.group, window, device)


def advanced(
    model: Transformer, x: Tensor, seen: dict[str, tuple[object, Tensor]], counts: np.ndarray, beyond: Beyond
) -> Tensor:
    """A `Transformer` for the new positions x (N, D) of sequences whose trunks it has been `recorded` for.

    `counts` (G,): how long these are.
    """
    layers = layers_of(model.blocks)
    table = RotaryTable(layers[0].width[0] // model.heads, x.device)
    first = counts.cumsum() - counts
    for i, layer in enumerate(layers):
        beyond.remember(seen[f"{i}"][1], first, layer, table)
    turn = table.at(beyond.positions)
    for i, layer in enumerate(layers):
        x = layer.advance(i, x, turn, beyond)
    return rms(model.norm, x)


def parts(model: Transformer) -> dict[str, nn.Module]:
    """What to record of it."""
    return {f"{i}": layer.projection for i, layer in enumerate(layers_of(model.blocks))}


def _token_lm(model: TokenLM, branches: Branches) -> Scored:
    """A token's nats stand at its first byte, as in `TokenLM.forward`."""
    device, texts = model.token.device, branches.texts
    assert texts.ids is not None, "a model over tokens needs token ids"
    nats = torch.zeros(len(texts.data), dtype=torch.float64, device=device)
    if len(texts.ids) == 0:  # windows in the midst of one long token
        return Scored(nats, None)
    over_tokens = _tokens(branches, texts.ids)
    trunk, own = over_tokens.trunk(), torch.from_numpy(over_tokens.own())

    def embedded(tokens: Windows) -> Tensor:
        before = tokens.previous()
        before[tokens.offsets[:-1]] = model.vocab_size
        return F.embedding(before.to(device), model.token)

    with recorded(parts(model.latent)) as seen:
        tokens = Sequences.of(trunk.lengths, len(trunk.data)).to(device)
        states = model.latent(embedded(trunk), tokens)
    if len(own):
        x = embedded(over_tokens.texts)[own.to(device)]
        beyond = _beyond(over_tokens, None, device)
        states = torch.cat((states, advanced(model.latent, x, seen, over_tokens.shared, beyond)))
    row, ids = torch.from_numpy(over_tokens.row()).to(device), texts.ids.to(device)
    of_tokens = nats.new_empty(len(ids))
    # in batches of states, not of tokens: what texts share has many tokens to a state
    for first, some in zip(range(0, len(states), AT_ONCE), states.split(AT_ONCE), strict=True):
        log_p = F.log_softmax(wide(model.head(some)), -1)
        here = ((row >= first) & (row < first + len(some))).nonzero()[:, 0]
        of_tokens[here] = -log_p[row[here] - first, ids[here]]
    return Scored(nats.index_copy_(0, texts.starts.nonzero()[:, 0].to(device), of_tokens), None)


def _tokens(branches: Branches, ids: Tensor) -> Branches:
    """The same over tokens: position i holds token i - 1, so texts share one more than they have tokens alike."""
    texts = branches.texts
    at = texts.starts.nonzero()[:, 0].numpy()
    each = np.split(ids.numpy(), np.searchsorted(at, texts.offsets.numpy()[1:-1]))
    some = np.array([len(own) > 0 for own in each])  # a window in the midst of a long token has none
    each = [own for own in each if len(own)]
    group = np.unique(branches.group[some], return_inverse=True)[1]
    first = np.unique(group, return_index=True)[1]
    alike = [min(len(own), common_prefix(each[first[g]], own) + 1) for own, g in zip(each, group, strict=True)]
    none = torch.zeros(len(ids), dtype=torch.int8)
    windows = Windows(ids, flat(np.array([len(own) for own in each])), none.bool(), none)
    return Branches(windows, group, np.minimum.reduceat(alike, first))


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many entries two vectors begin with alike."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


class HarnessBranches:
    """The harness over texts that share their beginnings."""

    def __init__(self, model: Harness, branches: Branches) -> None:
        self.model, self.branches, self.device = model, branches, model.byte.device
        self.encoder, self.decoder = layers_of(model.encoder), layers_of(model.decoder)

    def logits(self) -> Tensor:
        """(U + N, V)."""
        model, branches, device = self.model, self.branches, self.device
        self.trunk, own = branches.trunk().to(device), branches.own()
        local = {f"local {i}": layer.projection for i, layer in enumerate((*self.encoder, *self.decoder))}
        with recorded({**local, **parts(model.latent), "encoded": model.encoder[-1]}) as self.seen:
            decoded = model.states(self.trunk, torch.float32)
        logits = model.read_out(decoded)
        if len(own) == 0:
            return logits
        self.own = torch.from_numpy(own).to(device)
        self.texts = branches.texts.to(device)
        self.table = RotaryTable(model.config.local_width // model.config.local_heads, device)
        self.local = _beyond(branches, model.config.local_window, device)
        for i, layer in enumerate((*self.encoder, *self.decoder)):
            self.local.remember(self.seen[f"local {i}"][1], self.trunk.offsets[:-1].cpu().numpy(), layer, self.table)
        x, starts, probability = self._encode(decoded)
        latent, read = self._latent(decoded, x, starts, probability)
        own_logits = model.head(rms(model.norm, self._decode(x, latent, read)))
        if model.latent_head is not None:
            own_logits = own_logits + model.latent_head(latent).index_select(0, read)
        return torch.cat((logits, own_logits))

    def _begins(self, texts: Windows) -> Tensor:
        return texts.starts.index_fill(0, texts.offsets[:-1], True)

    def _encode(self, decoded: Decoded) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encoder states of the own positions (N, D), the starts of all texts (T,), and how probable a router finds
        those of own positions (N,)."""
        model, texts = self.model, self.texts
        starts = self._begins(texts)
        plan = model.plan(texts).to(self.device)
        x = model.embed(plan, torch.float32).index_select(0, self.own)
        turn = self.table.at(self.local.positions)
        for i, layer in enumerate(self.encoder):
            x = layer.advance(i, x, turn, self.local)
        if model.router is None:
            return x, starts, None
        starts, probability = self._route(decoded, x)
        if model.patch_state is not None:
            told = model.patch_state.told(texts.data, starts, texts.positions(), len(starts))
            x = x + model.patch_state(told, torch.float32).index_select(0, self.own)
        return x, starts, probability

    def _route(self, decoded: Decoded, x: Tensor) -> tuple[Tensor, Tensor]:
        """The router's starts of all texts (T,), and its probabilities at own positions (N,)."""
        assert self.model.router is not None
        assert decoded.routing is not None
        branches = self.branches
        own = branches.lengths - branches.shared[branches.group]
        # each text's own states after the last one of its trunk
        last = self.trunk.offsets[1:].cpu().numpy()[branches.group] - 1
        encoded = self.seen["encoded"][1]
        both = torch.cat((encoded, x))
        counts = own + 1
        index = ranges(len(encoded) + own.cumsum() - own - 1, counts)
        heads = counts.cumsum() - counts
        index[heads] = last
        routing = self.model.router(
            both.index_select(0, torch.from_numpy(index).to(self.device)),
            torch.zeros(len(index), dtype=torch.bool, device=self.device),
        )
        kept = torch.from_numpy(np.delete(np.arange(len(index)), heads)).to(self.device)
        rows = torch.cat((decoded.routing.starts, routing.starts[kept]))
        return rows[torch.from_numpy(branches.row()).to(self.device)], routing.probability[kept]

    def _latent(self, decoded: Decoded, x: Tensor, starts: Tensor, probability: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latent outputs of the trunks' patches and then of the texts' own (P, L), and which of them each own
        position reads (N,)."""
        model, branches, how = self.model, self.branches, self.model.config.pool
        placed = model.placed(starts, self.texts.offsets)
        patches = Patches.of(placed, self.texts.offsets, late=model.price == "start")
        of_trunk = Patches.of(model.placed(decoded.starts, self.trunk.offsets), self.trunk.offsets)
        first, trunk_first = patches.first.cpu().numpy(), of_trunk.first.cpu().numpy()
        made = np.diff(trunk_first)  # (G,)
        own = np.diff(first) - made[branches.group]  # (J,): patches that are complete in the text's own part
        new_first = own.cumsum() - own
        latent = decoded.latent[: trunk_first[-1]]
        text = torch.from_numpy(np.repeat(np.arange(len(own)), branches.lengths)).to(self.device)  # (T,)
        # from the ids of all texts' patches to places among the own ones, negative for those of the trunk
        shift = torch.from_numpy(first[:-1] + made[branches.group] - new_first).to(self.device)[text]
        begin = torch.from_numpy(new_first).to(self.device)[text]
        if own.sum():
            # members of own patches; of a patch that was open at the trunk's end some are in the trunk
            member = torch.where(patches.member < patches.count, patches.member - shift, -1)
            inside = ((member >= begin) & (patches.member < patches.count)).nonzero()[:, 0]
            states = torch.cat((self.seen["encoded"][1][: len(self.trunk.data)], x))
            row = torch.from_numpy(branches.row()).to(self.device)
            states, member = states.index_select(0, row[inside]), member[inside]
            members = Members.of(member.cpu(), int(own.sum()), model.config.n_slots).to(self.device)
            if how == "cross_attention":
                pooled = model.queries(states, members).view(len(members.last), -1)
            else:
                pooled = pool(states, members, how)
            beyond = Beyond(made, own, branches.group, None, self.device)
            new = advanced(model.latent, model.to_latent(pooled), self.seen, made, beyond)
            if probability is not None:
                trunk_rows = len(self.trunk.data)
                at_end = row[inside][members.last] - trunk_rows
                new = self._smoothed(latent, new, probability[at_end], trunk_first, own)
            latent = torch.cat((latent, new))
        read = patches.read[self.own]
        mine = text[self.own]
        own_place = read - shift[self.own]
        group = torch.from_numpy(branches.group).to(self.device)[mine]
        in_trunk = torch.from_numpy(trunk_first[:-1]).to(self.device)[group] + read - patches.first[:-1][mine]
        return latent, torch.where(own_place >= begin[self.own], int(trunk_first[-1]) + own_place, in_trunk)

    def _smoothed(
        self, trunk: Tensor, new: Tensor, probability: Tensor, trunk_first: np.ndarray, own: np.ndarray
    ) -> Tensor:
        """What `router.smooth` makes of new patches (P, L), each text's after the last one of its trunk."""
        counts = own + 1
        index = ranges(len(trunk) + own.cumsum() - own - 1, counts)
        heads = counts.cumsum() - counts
        index[heads] = trunk_first[1:][self.branches.group] - 1
        x = torch.cat((trunk, new))[torch.from_numpy(index).to(self.device)]
        kept = torch.from_numpy(np.delete(np.arange(len(index)), heads)).to(self.device)
        p = probability.new_ones(len(index)).index_copy_(0, kept, probability)
        return smooth(x, p).index_select(0, kept)

    def _decode(self, x: Tensor, latent: Tensor, read: Tensor) -> Tensor:
        """Decoder states of the own positions (N, D)."""
        model, c = self.model, self.model.config
        given = model.from_latent(latent)
        if c.inject == "add":
            x = x + given.index_select(0, read)
        turn = self.table.at(self.local.positions)
        for i, layer in enumerate(self.decoder):
            if c.inject == "cross_attention":
                module = model.readers[i]
                assert isinstance(module, PatchReader)
                reader = Reader(module)
                slots = reader.project(given.view(len(given), c.n_slots, c.local_width))
                x = reader.read(x, slots.index_select(0, read))
            x = layer.advance(len(self.encoder) + i, x, turn, self.local)
        return x
