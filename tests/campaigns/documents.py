"""Thousands of random documents for every patcher of the registry:
    PYTHONPATH=tests python -m campaigns.documents [--documents 10000] [--seed 0] [--patchers a,b]

What learns is fitted on a little of wiki-en first; what is trained inside a model gets one of random weights. Of every
document: the shape and type of its starts, that it begins a patch, that the answer comes again, and is the same alone,
in a batch and in another batch, that the document itself is as it was, and, of causal patchers, that other later bytes
move nothing before them and that a stream cuts alike. Where each byte of a stream costs a model's step, every
STREAMED_EVERY-th document is streamed. Exits 1 when any rule was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence

import numpy as np

import patchers
from bench.data.config import DataConfig, load
from models.harness import Harness, HarnessConfig
from models.initialization import initialise
from patchers import Patcher, Starts

BATCH = 250
STREAMED_EVERY = 25

FRAGMENTS = (
    *(b" ", b"\n", b"\r\n", b"\t", b"\x00", b"\xff", b"\x80", b"\xe2\x82", b"\xf0\x9f\x98\x80", b"\xc3\xa9"),
    *(b"the ", b" of", b"123456", b"a" * 40, b" " * 20, b", ", "東京".encode(), "привет".encode(), "e\u0301".encode()),
    *(b"\xc0\xaf", b"<|endoftext|>", b"don't", b"'s", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"http://a.b/c?d=e", b"x_y"),
)


def document(rng: random.Random, texts: Sequence[bytes]) -> bytes:
    """A random document, of 0 to about 200 bytes: noise, text, text with noise in it, and what stands at edges."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 2, 3, 8, 64)))
    if kind == 1:
        return b"".join(rng.choices(FRAGMENTS, k=rng.randrange(1, 9)))
    if kind == 2:
        return bytes([rng.randrange(256)]) * rng.randrange(1, 100)
    text = rng.choice(texts)
    at = rng.randrange(max(1, len(text)))
    piece = bytearray(text[at : at + rng.randrange(1, 80)])  # wherever that is in a character
    for _ in range(rng.randrange(4) if kind == 3 else 0):
        piece[rng.randrange(len(piece)) : rng.randrange(len(piece) + 1)] = rng.choice(FRAGMENTS)
        piece = piece or bytearray(b"x")
    return bytes(piece)


def broken(patcher: Patcher, docs: Sequence[bytes], rng: random.Random) -> list[str]:
    """The rules that a patcher breaks on these documents, each with a document it breaks it on."""
    copies = [bytes(bytearray(doc)) for doc in docs]
    found: dict[str, bytes] = {}

    def differs(a: Starts, b: Starts) -> bool:
        return not np.array_equal(a, b)

    starts = patcher.segment_many(docs)
    order = rng.sample(range(len(docs)), len(docs))
    again = dict(zip(order, patcher.segment_many([docs[i] for i in order]), strict=True))
    for i, doc in enumerate(docs):
        own = starts[i]
        if own.dtype != np.bool_ or own.shape != (len(doc),):
            found.setdefault("shape", doc)
        elif len(doc) and not own[0]:
            found.setdefault("first byte", doc)
        if differs(own, patcher.segment(doc)):
            found.setdefault("alone as in a batch", doc)
        if differs(own, again[i]):
            found.setdefault("any batch alike", doc)
    if patcher.causal:
        cuts = [rng.randrange(len(doc) + 1) for doc in docs]
        others = [doc[:t] + rng.choice(docs) for doc, t in zip(docs, cuts, strict=True)]
        for doc, t, own, other in zip(docs, cuts, starts, patcher.segment_many(others), strict=True):
            shared = min(t + 1, len(own), len(other))
            if differs(own[:shared], other[:shared]):
                found.setdefault("causality", doc)
        costly = patcher.flops_per_byte() > 0 or patcher.kind == "in-model"
        for i in range(0, len(docs), STREAMED_EVERY if costly else 1):
            stream = patcher.stream()
            pushed = np.array([True, *(stream.push(byte) for byte in docs[i])])[: len(docs[i])]
            if differs(starts[i], pushed):
                found.setdefault("stream", docs[i])
    for doc, copy in zip(docs, copies, strict=True):
        if doc != copy:
            found.setdefault("input", copy)
    return [f"{rule}: {doc!r}" for rule, doc in found.items()]


def campaign(patcher: Patcher, texts: Sequence[bytes], count: int, seed: int) -> list[str]:
    """The rules that a fitted patcher breaks on `count` documents, up to the first batch with a broken one."""
    rng = random.Random(f"{seed}-{patcher.name}")
    for begin in range(0, count, BATCH):
        docs = [document(rng, texts) for _ in range(min(BATCH, count - begin))]
        if found := broken(patcher, docs, rng):
            return found
    return []


def ready(name: str, texts: Sequence[bytes]) -> Patcher:
    """A patcher of the registry with its default options, fitted."""
    patcher = patchers.create(name).fit(texts)
    if patcher.kind == "in-model":
        sizes = HarnessConfig(local_width=32, latent_layers=1, ngram_rows=97, patch_rows=101, pool="last")
        model = Harness(sizes, router=patcher.router(sizes.local_width))
        initialise(model, 0)
        patcher = patcher.learned(model.eval())
    return patcher


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patchers", default=",".join(patchers.without_file()), metavar="A,B")
    asked = parser.parse_args()
    data = load(DataConfig(corpus="wiki-en", calibration=0.3, test=0.2, max_bytes=400_000))
    bad = 0
    for name in asked.patchers.split(","):
        patcher = ready(name, list(data.train.texts))
        began = time.process_time()
        found = campaign(patcher, list(data.calibration.texts), asked.documents, asked.seed)
        bad += len(found)
        said = "; ".join(found) if found else "all rules hold"
        print(f"{name:16} {asked.documents:,} documents in {time.process_time() - began:5.1f} s: {said}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
