"""A byte transformer as a score model; scores are rounded so that no cut depends on floating-point noise.

The score of byte t is defined as what the model gives in float64 for the bytes in its reach, taken alone: the
last `reach` bytes, or all bytes from where the context begins. Whatever is faster (long pieces, float32,
bfloat16, a cache) is near that by a tolerance that tests measure; only where a decision is nearer still is
the definition worked out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.batch import BOS
from models.byte_lm import ByteLM, ByteLMConfig
from models.decoding import kernels
from models.flops import Shapes, byte_lm_flops
from models.initialization import initialise
from patchers.base import Starts, as_array
from patchers.grouping import grouped
from patchers.scores.byte_models import ModelOptions, Scores
from patchers.scores.stepping import EPSILON, Blocks, Steps, array

PIECE = 1024  # bytes that are scored or trained on in one run
BATCH = 16384  # bytes that are scored together
STEP = 2048  # bytes of a training step; 16384 ended at 3.57 bits a byte where this came to 2.64 (1 MB of training)
MEMORY = 128  # positions back that a stream can give exact scores for
TOLERANCE = {"bfloat16": 0.25, "float32": 2.5e-4}  # nats, or probability; five times what was ever measured


class TransformerModel:
    """A trained byte transformer: the entropy of its 256 outputs, or the probability of the second of two."""

    grid = 0.0

    def __init__(self, learnt: Mapping[str, NDArray[Any]], options: ModelOptions) -> None:
        outputs = len(learnt["head.weight"])
        self._model = ByteLM(config(options), outputs).eval()
        self._model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in learnt.items()})
        self._by_line = options.reset == "newline"
        self._dtypes = [torch.bfloat16, torch.float32] if options.dtype == "bfloat16" else [torch.float32]
        self.tolerances = tuple(TOLERANCE[str(dtype).partition(".")[2]] for dtype in self._dtypes)
        self.reach = options.layers * (options.window - 1) + 1
        self.flops_per_byte = flops(options, outputs)
        self.training_flops = 3 * self.flops_per_byte * options.train_bytes

    @staticmethod
    def fit(
        docs: Sequence[bytes], options: ModelOptions, seed: int, starts: Sequence[Starts] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Weights after `train_bytes` bytes of next-byte prediction, or of predicting `starts`."""
        model = train(docs, options, seed, starts)
        return {key: value.numpy() for key, value in model.state_dict().items()}

    def scores(self, docs: Sequence[bytes]) -> list[Scores]:
        return self._scores(docs, self._dtypes[0])

    def refine(self, doc: bytes, scores: Scores, wanted: NDArray[np.bool_], round_: int) -> Scores:
        if round_ + 1 < len(self._dtypes):
            return self._scores([doc], self._dtypes[round_ + 1])[0]
        better = scores.copy()
        begins = np.array(self._begins(doc))
        places = np.flatnonzero(wanted)
        lefts = np.maximum(begins[np.searchsorted(begins, places, side="right") - 1], places - self.reach)
        spans = zip(lefts.tolist(), places.tolist(), strict=True)
        contexts = [doc[left:place] for left, place in spans]
        exact: dict[bytes, float] = {}
        for some in grouped(dict.fromkeys(contexts), len, BATCH):
            exact |= zip(some, self.exact(some).tolist(), strict=True)
        better[places] = [exact[context] for context in contexts]
        return better

    def exact(self, contexts: Sequence[bytes]) -> Scores:
        """The score of the byte after each context, by the definition above."""
        flat = self._run([context + b"\0" for context in contexts], torch.float64)
        return flat[np.cumsum([len(context) + 1 for context in contexts]) - 1]

    @functools.cached_property
    def _weights(self) -> Weights:
        return Weights(self._model)

    def stream(self) -> TransformerStream:
        return TransformerStream(self, self._weights, self._by_line)

    def steps(self, context: bytes) -> Steps:
        """To go on after these last bytes, from one parallel pass over them."""
        data = torch.tensor([*context, 0], dtype=torch.uint8)
        with torch.inference_mode(), self._weights.blocks.recording() as seen:
            self._model.logits(data, torch.tensor([0, len(data)]))
        return seen.steps(len(data))

    def _begins(self, doc: bytes) -> list[int]:
        """Where a context begins: byte 0, and after each newline with `reset: newline`."""
        if not self._by_line:
            return [0]
        return [0, *(np.flatnonzero(as_array(doc[:-1]) == 10) + 1).tolist()]

    def _scores(self, docs: Sequence[bytes], dtype: torch.dtype) -> list[Scores]:
        out = [np.empty(len(doc)) for doc in docs]
        wanted: dict[bytes, list[tuple[int, int, int]]] = {}  # a piece -> document, scored from, to: once for all
        for d, doc in enumerate(docs):
            begins = self._begins(doc)
            for begin, end in zip(begins, [*begins[1:], len(doc)], strict=True):
                for at in range(begin, end, PIECE):
                    stop = min(at + PIECE, end)
                    wanted.setdefault(doc[max(begin, at - self.reach) : stop], []).append((d, at, stop))
        for pieces in grouped(wanted, len, BATCH):
            ends = np.cumsum([len(piece) for piece in pieces])
            flat = self._run(pieces, dtype)
            for piece, end in zip(pieces, ends.tolist(), strict=True):
                for d, at, stop in wanted[piece]:
                    out[d][at:stop] = flat[end - (stop - at) : end]
        return out

    def _run(self, pieces: Sequence[bytes], dtype: torch.dtype) -> Scores:
        """The score of each byte of each piece, one after another; pieces know nothing of one another."""
        assert torch.get_float32_matmul_precision() == "highest", "tolerances hold for full float32 products"
        data = torch.from_numpy(np.frombuffer(b"".join(pieces), dtype=np.uint8).copy())
        offsets = torch.tensor([0, *map(len, pieces)]).cumsum(0)
        with torch.inference_mode():
            return score(self._model.logits(data, offsets, dtype)).numpy().astype(np.float64)


class TransformerStream:
    """The same scores byte by byte, in float32, with the keys and values still in a window."""

    def __init__(self, owner: TransformerModel, weights: Weights, by_line: bool) -> None:
        self._owner, self._weights, self._by_line = owner, weights, by_line
        self._tail = b""
        self._steps = Steps(weights.blocks)
        self.first = self._step(BOS)

    def push(self, byte: int) -> float:
        self._tail = (self._tail + bytes([byte]))[-self._owner.reach - MEMORY :]
        if self._by_line and byte == 10:
            self._steps = Steps(self._weights.blocks)
            return self._step(BOS)
        return self._step(byte)

    def prime(self, data: bytes, count: int) -> Scores:
        self._tail = data[-self._owner.reach - MEMORY :]
        self._steps = self._owner.steps(self._context(len(self._tail)))
        return self.exact(min(count, len(data) + 1))

    def exact(self, count: int) -> Scores:
        end = len(self._tail)
        return self._owner.exact([self._context(end - back) for back in range(count - 1, -1, -1)])

    def _context(self, end: int) -> bytes:
        """What the score of the byte after `end` bytes of the tail is made of."""
        context = self._tail[max(0, end - self._owner.reach) : end]
        return context[context.rfind(b"\n") + 1 :] if self._by_line else context

    def _step(self, symbol: int) -> float:
        w = self._weights
        x = self._steps.step(w.byte[symbol : symbol + 1])
        logits = kernels.product(kernels.normed(x, w.norm, EPSILON), w.head)
        return float(score(torch.from_numpy(logits))[0])


class Weights:
    """A ByteLM's parameters as arrays."""

    def __init__(self, model: ByteLM) -> None:
        sizes = model.config
        self.blocks = Blocks(model.blocks, sizes.window)
        self.byte, self.norm = model.byte.detach().numpy(), array(model.norm.weight)
        self.head = array(model.head.weight)


def config(options: ModelOptions) -> ByteLMConfig:
    return ByteLMConfig(options.width, options.layers, options.heads, options.window)


def flops(options: ModelOptions, outputs: int) -> float:
    """Forward FLOPs per byte in a long document."""
    shapes = Shapes(np.array([1 << 20]), np.array([1]))
    return sum(byte_lm_flops(config(options), outputs, shapes).values()) / shapes.bytes


def score(logits: Tensor) -> Tensor:
    """Entropy in nats of each row of 256 logits, or the probability of the second of two."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    if wide.shape[-1] == 2:
        return torch.sigmoid(wide[:, 1] - wide[:, 0])
    log_p = F.log_softmax(wide, -1)
    return -torch.linalg.vecdot(log_p.exp(), log_p)


def train(docs: Sequence[bytes], options: ModelOptions, seed: int, starts: Sequence[Starts] | None) -> ByteLM:
    """AdamW with warm-up and cosine over pieces of PIECE bytes in a seeded order, in float32."""
    text = torch.from_numpy(np.frombuffer(b"".join(docs), dtype=np.uint8).copy())
    goal = text.long() if starts is None else torch.from_numpy(np.concatenate(starts)).long()
    model = ByteLM(config(options), 256 if starts is None else 2)
    initialise(model, seed)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95))
    steps, size = max(1, options.train_bytes // STEP), min(STEP, options.train_bytes)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
    batches = batched(spans_of(docs, options.reset == "newline"), size, np.random.default_rng(seed))
    for _, spans in zip(range(steps), batches, strict=False):
        index = torch.cat([torch.arange(begin, end) for begin, end in spans])
        offsets = torch.tensor([0, *(end - begin for begin, end in spans)]).cumsum(0)
        loss = F.cross_entropy(model.logits(text[index], offsets), goal[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    return model


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up over the first tenth, then a cosine down to a tenth."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.55 + 0.45 * math.cos(math.pi * (step - warm) / max(1, steps - warm))


def spans_of(docs: Sequence[bytes], by_line: bool) -> NDArray[np.int64]:
    """(begin, end) in the joined text of pieces of at most PIECE bytes that cross no document, or no line."""
    lengths = [len(line) for doc in docs for line in (doc.splitlines(keepends=True) if by_line else [doc])]
    ends = np.cumsum(lengths)
    return np.array(
        [(at, min(at + PIECE, end)) for end, n in zip(ends, lengths, strict=True) for at in range(end - n, end, PIECE)]
    )


def batched(spans: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[list[tuple[int, int]]]:
    """Spans of exactly `size` bytes together, all of them in a new order each time round, without end."""
    batch: list[tuple[int, int]] = []
    room = size
    while True:
        for begin, end in spans[rng.permutation(len(spans))].tolist():
            batch.append((begin, min(end, begin + room)))
            room -= batch[-1][1] - begin
            if room == 0:
                yield batch
                batch, room = [], size
