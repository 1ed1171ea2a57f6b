"""Windows, batches and scoring spans against plain loops; the cut cache; patchers that answer nonsense."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.cut_corpus import CutDocuments, Cuts, batches, cut, scoring_spans, training_spans
from models.batch import Windows
from patchers import Patcher, create
from patchers.errors import BenchError

# --- windows


@dataclass
class Cut:
    """Documents, their starts, and spans of them, none across a document's end."""

    docs: list[bytes]
    starts: list[list[bool]]
    spans: list[tuple[int, int]]

    def corpus(self, with_ids: bool) -> CutDocuments:
        flat = np.array([s for starts in self.starts for s in starts], dtype=bool)
        ids = np.arange(100, 100 + flat.sum(), dtype=np.int32) if with_ids else None
        return CutDocuments.of(self.docs, Cuts(flat, ids))


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    docs = draw(st.lists(st.binary(max_size=12), min_size=1, max_size=5).filter(any))
    starts = [[i == 0 or draw(st.booleans()) for i in range(len(d))] for d in docs]
    spans, begin = [], 0
    for d in docs:
        for _ in range(draw(st.integers(0, 3)) if d else 0):
            a = draw(st.integers(0, len(d) - 1))
            spans.append((begin + a, begin + draw(st.integers(a + 1, len(d)))))
        begin += len(d)
    return Cut(docs, starts, spans or [_whole_first(docs)])


def _whole_first(docs: list[bytes]) -> tuple[int, int]:
    begin = 0
    for d in docs:
        if d:
            return begin, begin + len(d)
    raise AssertionError


def plain_windows(cut: Cut) -> dict[str, list[int]]:
    """What the fields of Windows mean, byte by byte."""
    data = [b for d in cut.docs for b in d]
    starts = [s for document in cut.starts for s in document]
    last = [i == len(d) - 1 for d in cut.docs for i in range(len(d))]
    token = [sum(starts[: t + 1]) - 1 + 100 for t in range(len(data))]
    out: dict[str, list[int]] = {"data": [], "offsets": [0], "starts": [], "ends": [], "ids": []}
    for a, b in cut.spans:
        for t in range(a, b):
            out["data"].append(data[t])
            out["starts"].append(starts[t])
            out["ends"].append(-1 if last[t] else int(starts[t + 1]))
            if starts[t]:
                out["ids"].append(token[t])
        out["offsets"].append(len(out["data"]))
    return out


def as_lists(windows: Windows) -> dict[str, list[int]]:
    return {name: value.tolist() for name, value in vars(windows).items() if value is not None}


@given(cuts())
def test_windows_are_those_of_a_plain_loop(cut: Cut) -> None:
    want = plain_windows(cut)
    assert as_lists(cut.corpus(with_ids=True).windows(np.array(cut.spans))) == want
    del want["ids"]
    assert as_lists(cut.corpus(with_ids=False).windows(np.array(cut.spans))) == want


def test_ends_at_the_edges() -> None:
    """The end of a document tells no flag, a window's end does: the next byte is known to start a patch or not."""
    corpus = CutDocuments.of([b"abcd", b"", b"ef"], Cuts(np.array([1, 0, 1, 0, 1, 0], dtype=bool)))
    ends = corpus.windows(np.array([[0, 2], [0, 3], [2, 4], [4, 6], [4, 5]])).ends.tolist()
    assert ends == [0, 1, 0, 1, 0, 0, -1, 0, -1, 0]


def test_uncut_documents_are_one_patch_each() -> None:
    corpus = CutDocuments.uncut([b"", b"abc", b"", b"d", b""])
    assert corpus.cuts.starts[:].tolist() == [True, False, False, True]
    assert corpus.offsets.tolist() == [0, 0, 3, 3, 4, 4]
    assert corpus.bytes_per_patch == 2.0


# --- cutting


@dataclass(frozen=True)
class Answers(Patcher):
    """Gives what it is told to give."""

    name: ClassVar[str] = "answers"
    causal: ClassVar[bool] = False  # it knows no text but those, and is shown no other future of them
    answers: Any = None

    def fingerprint(self) -> str:
        return "told"

    def segment(self, data: bytes) -> Any:
        return self.answers[data]

    def encode(self, data: bytes) -> Any:
        return self.answers[data]


@dataclass(frozen=True)
class Miscounts(Answers):
    def segment_many(self, docs: Sequence[bytes]) -> list[Any]:
        return [self.segment(d) for d in docs[1:]]


def yes(n: int) -> np.ndarray:
    return np.ones(n, dtype=bool)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (yes(2), "gave bool of shape (2,) for a document of 3 bytes; wanted a bool array of shape (3,)"),
        (yes(4), "gave bool of shape (4,)"),
        (yes(3)[:, None], "gave bool of shape (3, 1)"),
        (np.ones(3), "gave float64 of shape (3,)"),
        (np.ones(3, np.uint8), "gave uint8 of shape (3,)"),
        ([True, True, True], "gave list of shape ?"),
        (None, "gave NoneType of shape ?"),
        (np.array([False, True, True]), "first byte starts no patch"),
    ],
)
def test_a_wrong_answer_is_one_clear_error(answer: Any, told: str) -> None:
    with pytest.raises(BenchError, match="patcher 'answers' gave") as error:
        cut(Answers({b"ab": yes(2), b"abc": answer}), [b"ab", b"abc"])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_as_many_answers_as_documents() -> None:
    with pytest.raises(BenchError, match="patcher 'answers' gave the starts of 1 documents, wanted those of 2"):
        cut(Miscounts({b"a": yes(1), b"b": yes(1)}), [b"a", b"b"])


def test_as_many_ids_as_starts() -> None:
    both = {b"ab": (np.array([7], np.int32), yes(2)), b"c": (np.array([7, 7], np.int32), yes(1))}
    with pytest.raises(BenchError, match="patcher 'answers' gave 1 token ids for 2 starts"):
        cut(Answers(both), [b"ab", b"c"], with_ids=True)
    cuts = cut(Answers({b"a": (np.array([7], np.int32), yes(1))}), [b"a"], with_ids=True)
    assert cuts.ids is not None
    assert cuts.ids[:].tolist() == [7]


def test_ids_need_a_vocabulary() -> None:
    with pytest.raises(BenchError, match="patcher 'stride' has no vocabulary; a token_lm row needs one"):
        cut(create("stride"), [b"abc"], with_ids=True)


def test_no_documents_and_empty_ones() -> None:
    assert len(cut(create("stride"), []).starts) == 0
    assert cut(create("stride"), [b"", b"abc", b""]).starts[:].tolist() == [True, False, False]


# --- the cache


class Counting:
    """Counts how often its patchers segment."""

    def __init__(self) -> None:
        self.calls = 0

    def patcher(self, size: int = 2) -> Patcher:
        counting = self

        @dataclass(frozen=True)
        class Counted(Patcher):
            name: ClassVar[str] = "counted"
            every: int = 2

            def segment_many(self, docs: Sequence[bytes]) -> list[np.ndarray]:
                counting.calls += 1
                return super().segment_many(docs)

            def segment(self, data: bytes) -> np.ndarray:
                return np.arange(len(data)) % self.every == 0

            def encode(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
                counting.calls += 1
                starts = self.segment(data)
                return np.frombuffer(data, np.uint8)[starts].astype(np.int32), starts

        return Counted(size)


DOCS = [b"alpha", b"", b"be", b"gamma delta"]


# --- batches

lengths = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any)


def offsets_of(sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


@given(lengths, st.integers(1, 12))
def test_training_spans_cover_every_document_in_pieces(sizes: list[int], window: int) -> None:
    offsets = offsets_of(sizes)
    want = [(at, min(at + window, b)) for a, b in itertools.pairwise(offsets.tolist()) for at in range(a, b, window)]
    assert [tuple(s) for s in training_spans(offsets, window).tolist()] == want


@given(lengths, st.integers(1, 12), st.integers(1, 40), st.integers(1, 300), st.integers(0, 3))
def test_batches_read_every_byte_of_an_epoch_once(
    sizes: list[int], window: int, batch_bytes: int, total: int, seed: int
) -> None:
    spans = training_spans(offsets_of(sizes), window)
    made = list(batches(spans, batch_bytes, total, seed))
    read = [int((b[:, 1] - b[:, 0]).sum()) for b in made]
    assert all(n <= batch_bytes or len(b) == 1 for n, b in zip(read, made, strict=True))
    assert sum(read[:-1]) < total <= sum(read)
    in_order = [tuple(s) for b in made for s in b.tolist()]
    for epoch in range(0, len(in_order) - len(spans) + 1, len(spans)):
        assert sorted(in_order[epoch : epoch + len(spans)]) == [tuple(s) for s in spans.tolist()]
    again = [tuple(s) for b in batches(spans, batch_bytes, total, seed) for s in b.tolist()]
    assert again == in_order


def test_epochs_and_seeds_differ_in_order() -> None:
    spans = training_spans(offsets_of([1000]), 10)
    orders = [[tuple(s) for b in batches(spans, 100, 2000, seed) for s in b.tolist()] for seed in (0, 1)]
    assert len(orders[0]) == 200
    assert orders[0][:100] != orders[0][100:]
    assert orders[0] != orders[1]


def test_batches_are_nearly_full() -> None:
    spans = training_spans(offsets_of([90, 40, 100, 7] * 50), 30)
    sizes = [int((b[:, 1] - b[:, 0]).sum()) for b in batches(spans, 300, 20_000, 0)]
    assert all(270 < n <= 300 for n in sizes[:-1])


def test_every_patcher_reads_the_same_windows() -> None:
    docs = [b"one two three " * 9, b"four", b"five six " * 20]
    read = []
    for name in ("stride", "whitespace", "bytes"):
        corpus = CutDocuments.of(docs, cut(create(name), docs))
        spans = training_spans(corpus.offsets, 50)
        read.append([corpus.windows(b).data.tolist() for b in batches(spans, 200, 1000, seed=3)])
    assert read[0] == read[1] == read[2]


# --- scoring


@given(lengths, st.integers(2, 12))
def test_every_byte_is_scored_once_with_half_a_window_of_context(sizes: list[int], window: int) -> None:
    offsets = offsets_of(sizes).tolist()
    scored = [0] * offsets[-1]
    for s in scoring_spans(np.array(offsets), window):
        begin, end = offsets[s.document : s.document + 2]
        assert begin <= s.begin <= s.score < s.end <= end
        assert s.end - s.begin <= window
        assert s.begin == s.score == begin or s.score - s.begin == window // 2
        for t in range(s.score, s.end):
            scored[t] += 1
    assert scored == [1] * offsets[-1]


def test_a_document_as_long_as_a_window_is_scored_in_one() -> None:
    (whole,) = scoring_spans(np.array([0, 8]), 8)
    assert (whole.begin, whole.score, whole.end) == (0, 0, 8)
    assert [(s.begin, s.score, s.end) for s in scoring_spans(np.array([0, 17]), 8)] == [
        (0, 0, 8), (4, 8, 12), (8, 12, 16), (12, 16, 17),
    ]  # fmt: skip
