"""Checks a patcher in processes that have called it never before, where it remembers nothing.

What a patcher keeps between calls can hide what it reads: one that looks ahead, and gives the beginning that two texts
share the cut that it gave first, moves no start when its future is changed. In another process it has not seen the
first of the two.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cloudpickle
import numpy as np

from patchers.base import Patcher, Starts
from patchers.finding import Finding, differing, leaking
from patchers.identity import is_live
from patchers.registry import loaded_plugins

NAME = "fresh process"
PIECES, PIECE = 100, 200
"""Short texts that are cut, and the bytes of each."""
LONG, LONG_PIECE = 8, 2500
"""And longer ones."""
PATIENCE = 600.0
"""Seconds after which a process that cuts them is given up: a hundred bytes a second take less."""

FRESH = """
import base64, json, sys
import cloudpickle
import numpy as np
from patchers import load, load_plugin
told = json.load(open(sys.argv[1]))
for path in told["plugins"]:
    load_plugin(path)
patcher = cloudpickle.loads(base64.b64decode(told["live"])) if told["live"] else load(told["folder"])
docs = [bytes.fromhex(text) for text in told["docs"]]
json.dump([np.flatnonzero(patcher.segment(doc)).tolist() for doc in docs[::-1]][::-1], open(sys.argv[2], "w"))
"""


class NoOtherProcess(Exception):
    """The class is nowhere where another process could find it."""


class FailedApart(Exception):
    """What was said in another process, and the whole of it."""


def check_fresh_process(patcher: Patcher, docs: Sequence[bytes], rng: np.random.Generator) -> Finding:
    """A saved patcher cuts alike in a process that has called it never before; and where it is causal, texts that it
    sees in one process are cut as far as others in another that go on otherwise."""
    texts = _pieces(docs, rng)
    places = [int(rng.integers(1, len(text))) for text in texts]
    others = [text[:t] + _future(text[t:], texts, rng) for text, t in zip(texts, places, strict=True)]
    try:  # before any of them is cut here, as what a notebook's class has seen goes with it
        first = cut_apart(patcher, texts)
        second = cut_apart(patcher, others) if patcher.causal else []
    except NoOtherProcess as error:
        return Finding(NAME, True, f"not looked at: {error}")
    except FailedApart as error:
        said, trace = error.args
        return Finding(NAME, False, f"it cannot be used in another process: {said}", trace)
    for text, apart in zip(texts, first, strict=True):
        here = patcher.segment(text)
        if not np.array_equal(here, apart):
            return differing(NAME, "in a process of its own it cut", text, apart, here)
    if not patcher.causal:
        return Finding(NAME, True, f"the same cuts of {len(texts)} texts in a process of its own")
    for text, other, t, one, two in zip(texts, others, places, first, second, strict=True):
        moved = np.flatnonzero(one[: t + 1] != two[: t + 1])
        if len(moved):
            at = int(moved[0])
            said = (
                "a later byte moves a start, where the patcher has not seen both texts: two that share their first "
                f"{t} bytes, each cut in a process of its own, are cut differently at {at}"
            )
            return leaking(NAME, said, (text, other), (one, two), at, near=at)
    said = f"the same cuts of {len(texts)} texts in a process of its own, and of others that begin like them in a third"
    return Finding(NAME, True, said)


def cut_apart(patcher: Patcher, docs: Sequence[bytes]) -> list[Starts]:
    """The starts of each document, from a process that does nothing else.

    Raises NoOtherProcess where the class cannot be found there, FailedApart for what goes wrong there.
    """
    live = is_live(type(patcher))  # of a notebook: the other process gets the class itself
    file = getattr(sys.modules.get(type(patcher).__module__), "__file__", None) or ""
    with tempfile.TemporaryDirectory() as folder:
        told, out = Path(folder) / "told.json", Path(folder) / "out.json"
        patcher.save(Path(folder) / "patcher")
        plugins = [path for path in loaded_plugins() if Path(path).resolve() == Path(file).resolve()]
        sent = base64.b64encode(cloudpickle.dumps(patcher)).decode() if live else None
        what = {"folder": f"{folder}/patcher", "live": sent, "plugins": plugins, "docs": [doc.hex() for doc in docs]}
        told.write_text(json.dumps(what))
        roots = [str(Path(__file__).resolve().parents[1]), *sys.path]
        code = f"import sys; sys.path[:0] = {roots!r}\n{FRESH}"
        command = [sys.executable, "-c", code, str(told), str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            size = sum(map(len, docs))
            raise FailedApart(f"it had not cut {size:,} bytes after {PATIENCE:g} seconds", "") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            if "unknown patcher" in last:  # of a module that was imported and not loaded as a plug-in
                raise NoOtherProcess("no plug-in file registers it in another process")
            raise FailedApart(last, done.stderr)
        found = json.loads(out.read_text())
    cuts = []
    for doc, places in zip(docs, found, strict=True):
        starts = np.zeros(len(doc), bool)
        starts[places] = True
        cuts.append(starts)
    return cuts


def _pieces(docs: Sequence[bytes], rng: np.random.Generator) -> list[bytes]:
    """Short and longer texts out of the documents, each of which begins at another place."""
    whole = b"\n".join(doc for doc in docs[:200] if doc)[:1_000_000]
    sizes = [PIECE] * PIECES + [LONG_PIECE] * LONG
    begins = rng.integers(0, max(1, len(whole) - PIECE), len(sizes))
    found = (whole[at : at + size] for at, size in zip(begins.tolist(), sizes, strict=True))
    return [text for text in dict.fromkeys(found) if len(text) > 1]


def _future(real: bytes, texts: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Something else that could follow: another first byte before what followed, or the text of another document."""
    foreign = texts[int(rng.integers(len(texts)))]
    if rng.random() < 0.5:
        return bytes([(real[0] + int(rng.integers(1, 256))) % 256]) + real[1:]
    return foreign[int(rng.integers(len(foreign))) :]
