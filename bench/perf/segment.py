"""Speed of segmentation, MB/s a core: python -m bench.perf.segment [--megabytes 20] [--patchers a,b] [--json]

Every patcher of the registry that needs no file, over real text (the embedded Wikipedia, repeated), beside tiktoken,
tokenizers and a loop over bytes in Python; and the ratios that we promise (LIMITS). Exits 1 where one of them is
missed.

Time is processor time of one thread, so that another process on the machine counts for little; of several turns, in
which the contenders of a ratio follow one another, the quickest counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tiktoken
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models

import patchers
from bench.data.config import DataConfig, load
from patchers.bpe import BPE
from patchers.scores.scored import ScorePatcher
from patchers.scores.transformer import BATCH, PIECE, TransformerModel
from patchers.vocabularies.encodings import CL100K_PATTERN
from patchers.vocabularies.tokens import byte_letters, words_of_bytes

TURNS = 5
LEARN = 1_000_000  # bytes of training text: rates hardly depend on what was learnt
PART = {"transformer": 0.02, "python loop": 0.1}  # share of the text for what is slow
LIMITS = {
    "whitespace MB/s": (300, "at least"),
    "stride MB/s": (300, "at least"),
    "whitespace / python loop": (100, "at least"),
    "stride / python loop": (100, "at least"),
    "bpe time / tiktoken time": (1.3, "at most"),
    "lz MB/s": (5, "at least"),
    "entropy (ngram) MB/s": (10, "at least"),
    "entropy (transformer) / bare forward": (0.6, "at least"),
}


def whitespace_loop(data: bytes) -> list[bool]:
    """`whitespace` as one would first write it."""
    starts, before, earlier = [], False, False
    for byte in data:
        starts.append(before and not earlier)
        letter = 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x5A or 0x61 <= byte <= 0x7A or 0x80 <= byte <= 0xBF
        before, earlier = not letter, before
    starts[0] = True
    return starts


def stride_loop(data: bytes) -> list[bool]:
    """`stride: 4` as one would first write it."""
    starts = []
    for t in range(len(data)):
        starts.append(t % 4 == 0)
    return starts


LOOPS: dict[str, Callable[[bytes], list[bool]]] = {"whitespace": whitespace_loop, "stride": stride_loop}


def rates(runs: dict[str, Callable[[bytes], object]], text: bytes, turns: int = TURNS) -> dict[str, float]:
    """MB/s of each, the quickest of some turns; all get the same text."""
    best = dict.fromkeys(runs, 0.0)
    for _ in range(turns):
        for name, run in runs.items():
            begin = time.process_time()
            run(text)
            best[name] = max(best[name], len(text) / 1e6 / max(time.process_time() - begin, 1e-9))
    return best


def in_documents(patcher: patchers.Patcher, size: int = 1_000_000) -> Callable[[bytes], object]:
    return lambda text: [patcher.segment(text[at : at + size]) for at in range(0, len(text), size)]


def peers(bpe: BPE) -> dict[str, Callable[[bytes], object]]:
    """The two libraries with the very merges of `bpe`."""
    ranks = {token: rank for rank, token in enumerate(bpe.tokens()[: bpe.vocab])}
    core = tiktoken.Encoding("peer", pat_str=CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={})
    letters = {byte: letter for letter, byte in byte_letters().items()}
    spelled = {"".join(letters[b] for b in token): rank for token, rank in ranks.items()}
    merges = []
    for token in list(ranks)[256:]:
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:  # the two tokens that this one was made of: what merging by rank leaves
            i = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], len(ranks)))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        first, second = ("".join(letters[b] for b in part) for part in parts)
        merges.append((first, second))
    library = Tokenizer(models.BPE(vocab=spelled, merges=merges))
    library.pre_tokenizer = words_of_bytes()

    def tokenizers(text: bytes) -> None:
        for at in range(0, len(text), 10_000):  # as documents: it slows down on long ones
            library.encode(text[at : at + 10_000].decode(errors="replace"))

    return {
        "tiktoken": lambda text: core.encode_ordinary(text.decode(errors="replace")),
        "tokenizers": tokenizers,
    }


def bare_forward(model: TransformerModel) -> Callable[[bytes], object]:
    """The transformer's logits of the text in pieces that know nothing of one another."""

    def run(text: bytes) -> None:
        with torch.inference_mode():
            for at in range(0, len(text), BATCH):
                data = torch.from_numpy(np.frombuffer(text[at : at + BATCH], dtype=np.uint8).copy())
                offsets = torch.tensor([*range(0, len(data), PIECE), len(data)])
                model._model.logits(data, offsets)

    return run


def measure(text: bytes, learn: Sequence[bytes], chosen: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Rates by name, and the promised ratios."""
    found: dict[str, float] = {}
    ratios: dict[str, float] = {}
    bpe = BPE().fit(learn)
    for name in chosen:
        patcher = patchers.create(name)
        if patcher.kind == "in-model":
            continue  # cuts with the harness's encoder; bench.perf.step times that
        patcher = patcher.fit(learn)
        label = f"{name} (ngram)" if isinstance(patcher, ScorePatcher) else name
        run = in_documents(patcher)
        run(text[:10_000])  # compiles
        found |= rates({label: run}, text)
    part = text[: int(PART["python loop"] * len(text))]
    for name, loop in LOOPS.items():
        if name in found:
            assert loop(part) == patchers.create(name).segment(part).tolist()
            found[f"{name}, python loop"] = rates({"loop": loop}, part)["loop"]
            ratios[f"{name} / python loop"] = found[name] / found[f"{name}, python loop"]
    versus = rates({"bpe": in_documents(bpe), **peers(bpe)}, text)
    found |= {name: versus[name] for name in ("tiktoken", "tokenizers")}
    ratios["bpe time / tiktoken time"] = versus["tiktoken"] / versus["bpe"]
    ratios |= {f"{name} MB/s": found[name] for name in found if f"{name} MB/s" in LIMITS}
    if "entropy" in chosen:
        learnt = patchers.create("entropy", model="transformer", train_bytes=400_000).fit(learn)
        learnt = learnt.calibrate(learn[:100], 4.5)
        assert isinstance(learnt, ScorePatcher)
        assert isinstance(learnt._model, TransformerModel)
        label = "entropy (transformer)"
        both = {label: in_documents(learnt), "bare forward": bare_forward(learnt._model)}
        found |= rates(both, text[: int(PART["transformer"] * len(text))])
        ratios["entropy (transformer) / bare forward"] = found[label] / found["bare forward"]
    return found, ratios


def missed(ratios: dict[str, float]) -> list[str]:
    """Promises that do not hold."""
    return [
        name
        for name, value in ratios.items()
        if (value < LIMITS[name][0] if LIMITS[name][1] == "at least" else value > LIMITS[name][0])
    ]


def show(found: dict[str, float], ratios: dict[str, float]) -> None:
    table = Table("segmentation", "MB/s a core")
    table.columns[1].justify = "right"
    for name, rate in sorted(found.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}")
    promised = Table("promise", "measured", "wanted")
    for name, value in ratios.items():
        limit, way = LIMITS[name]
        promised.add_row(
            name, f"{value:,.3g}", f"{way} {limit:g}", style="red" if name in missed({name: value}) else ""
        )
    console = Console()
    console.print(table)
    console.print(promised)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.perf.segment", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=20.0, help="how much text")
    parser.add_argument("--patchers", help="only these, separated by commas")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = load(DataConfig(corpus="wiki-en"))
    whole = b"\n".join(data.train.texts)
    size = int(given.megabytes * 1e6)
    text = (whole * (size // len(whole) + 1))[:size]
    total = np.cumsum([len(doc) for doc in data.train.texts])
    learn = data.train.texts[: int(np.searchsorted(total, LEARN))]
    chosen = given.patchers.split(",") if given.patchers else patchers.without_file()
    found, ratios = measure(text, learn, chosen)
    if given.json:
        result: dict[str, Any] = {
            "megabytes": given.megabytes,
            "MB/s": found,
            "ratios": ratios,
            "missed": missed(ratios),
        }
        print(json.dumps(result, indent=1))
    else:
        show(found, ratios)
    return 1 if missed(ratios) else 0


if __name__ == "__main__":
    sys.exit(main())
