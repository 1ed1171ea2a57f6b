"""Texts as documents, and their split into training, calibration and test.

A document is `bytes` from here on: nothing is decoded, stripped or normalised, so that a bit per byte is
a bit of the source's own bytes.

Where a document goes depends on nothing but its content: the first eight bytes of its SHA-256 are its place
in [0, 1), test below `test`, calibration above that, training the rest. So the splits are disjoint, stay the
same when documents are added or shuffled, and copies of a text cannot be on two sides (one of them is kept).
The next bytes give the order within a split, and `max_bytes` and `max_test_bytes` take the first documents of
that order: a smaller limit is a subset of a larger one.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bench.sources import CORPORA, DatasetConfig, Text, dataset_texts, file_texts
from patchers.errors import BenchError
from patchers.registry import nearest


def _known_corpus(name: str) -> str:
    if name not in CORPORA:
        near = nearest(name, list(CORPORA))
        raise BenchError(f"unknown corpus {name!r}{near}; there are: {', '.join(CORPORA)}")
    return name


CorpusName = Annotated[str, AfterValidator(_known_corpus)]
Share = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class DataConfig:
    """Where the documents come from (exactly one of corpus, files, dataset) and how they are split."""

    corpus: CorpusName | None = None
    files: tuple[str, ...] = ()
    field: str | None = None  # which value of a .jsonl line is the text
    dataset: DatasetConfig | None = None
    piece_bytes: PositiveInt | None = None  # longer documents are cut into pieces, at line ends
    calibration: Share = 0.05
    test: Share = 0.05
    max_bytes: PositiveInt | None = None
    max_test_bytes: PositiveInt | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("corpus", "files", "dataset") if getattr(self, name)]
        if len(given) != 1:
            raise BenchError(
                f"got {' and '.join(given) or 'no source'}, wanted exactly one of corpus, files and dataset; "
                "try `corpus: wiki-en`"
            )
        if self.field is not None and not self.files:
            raise BenchError("`field` goes with `files` (of .jsonl); a dataset has its own `dataset.field`")
        if self.calibration + self.test >= 1:
            raise BenchError(
                f"calibration {self.calibration} and test {self.test} leave nothing to train on; "
                "their sum must be below 1"
            )
        if self.dataset is not None and self.dataset.streaming and self.max_bytes is None:
            raise BenchError("a streamed dataset needs `max_bytes`, which says where to stop reading")

    @property
    def label(self) -> str:
        """What records and messages call this source."""
        if self.dataset is not None:
            name = f":{self.dataset.name}" if self.dataset.name else ""
            return f"{self.dataset.path}{name}[{self.dataset.split}]"
        return self.corpus or " ".join(self.files)


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `id` is the start of its SHA-256 in hex: the same in every source that holds the text."""

    id: str
    data: bytes
    title: str = ""  # for people: an article's title, or a file's name
    topic: str | None = None  # where the source has one


@dataclass(frozen=True)
class Corpus:
    """The documents of one split, in the order of their hashes."""

    documents: tuple[Document, ...]

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    @property
    def texts(self) -> list[bytes]:
        return [document.data for document in self.documents]

    @cached_property
    def bytes(self) -> int:
        return sum(len(document.data) for document in self.documents)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over the SHA-256 of each document, in order."""
        return hashlib.sha256(b"".join(_digest(document.data) for document in self.documents)).hexdigest()


@dataclass(frozen=True)
class Data:
    """A source, split."""

    name: str
    train: Corpus
    calibration: Corpus
    test: Corpus
    domains: Mapping[str, Corpus] = field(default_factory=dict)
    """Other texts that the models are asked about, by name; no part of the fingerprint."""

    @cached_property
    def fingerprint(self) -> str:
        splits = (self.train, self.calibration, self.test)
        return hashlib.sha256("".join(split.fingerprint for split in splits).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What a record says about its data."""
        splits = {"train": self.train, "calibration": self.calibration, "test": self.test}
        summary = {"name": self.name, "fingerprint": self.fingerprint, "splits": _described(splits)}
        return {**summary, "eval": _described(self.domains)} if self.domains else summary


def _described(splits: Mapping[str, Corpus]) -> dict[str, Any]:
    return {
        name: {"documents": len(split), "bytes": split.bytes, "fingerprint": split.fingerprint}
        for name, split in splits.items()
    }


def load(config: DataConfig) -> Data:
    """Read a source and split it.

    Raises BenchError when the source is missing, empty, undecodable, or too small to fill the three splits.
    """
    documents = read(config)
    bounds = (config.test, config.test + config.calibration)
    train: list[Document] = []
    calibration: list[Document] = []
    test: list[Document] = []
    for document in documents:
        place = _fraction(_digest(document.data)[:8])
        (test if place < bounds[0] else calibration if place < bounds[1] else train).append(document)
    if config.max_test_bytes is not None and test:
        test = _first_bytes(test, config.max_test_bytes, f"{config.label}, test split", "max_test_bytes")
    data = Data(config.label, Corpus(tuple(train)), Corpus(tuple(calibration)), Corpus(tuple(test)))
    for name, split in (("test", data.test), ("calibration", data.calibration), ("training", data.train)):
        if not len(split):
            raise BenchError(
                f"{config.label} is too small: of its documents ({len(documents)}) none fell to the {name} "
                "split; give more documents, a larger share, or cut long documents with data.piece_bytes"
            )
    return data


def read(config: DataConfig) -> list[Document]:
    """All documents of a source, without copies and empty ones, in the order of their hashes."""
    kept: dict[bytes, Text] = {}
    size = 0
    for text in _texts(config):
        for piece in _pieces(text, config.piece_bytes):
            digest = _digest(piece.data)
            if piece.data and digest not in kept:
                kept[digest] = piece
                size += len(piece.data)
        # What is read may be far more than what is wanted: forget what cannot be in the result.
        if config.max_bytes is not None and size > 4 * config.max_bytes + 2**20:
            kept = dict(_until(_in_order(kept), config.max_bytes))
            size = sum(len(piece.data) for piece in kept.values())
    if not kept:
        raise BenchError(f"{config.label} holds no text; wanted at least one document that is not empty")
    documents = [Document(digest.hex()[:16], piece.data, piece.title, piece.topic) for digest, piece in _in_order(kept)]
    if config.max_bytes is None:
        return documents
    return _first_bytes(documents, config.max_bytes, config.label, "max_bytes")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _fraction(eight: bytes) -> float:
    return int.from_bytes(eight) / 2**64


def _in_order(texts: dict[bytes, Text]) -> list[tuple[bytes, Text]]:
    # Not by the digest's first bytes: those choose the split, and a limit would take test documents only.
    return sorted(texts.items(), key=lambda item: (item[0][8:], item[0]))


def _until(texts: Sequence[tuple[bytes, Text]], limit: int) -> Iterator[tuple[bytes, Text]]:
    """The first texts until `limit` is passed, the one that passes it included."""
    size = 0
    for item in texts:
        yield item
        size += len(item[1].data)
        if size > limit:
            return


def _first_bytes(documents: list[Document], limit: int, label: str, option: str) -> list[Document]:
    """The first whole documents that together have at most `limit` bytes."""
    size = 0
    for count, document in enumerate(documents):
        size += len(document.data)
        if size > limit:
            if count == 0:
                raise BenchError(
                    f"{label}: {option} is {limit:,}, and the first document alone has {size:,} bytes; "
                    f"raise {option} or set data.piece_bytes"
                )
            return documents[:count]
    return documents


def _pieces(text: Text, limit: int | None) -> Iterator[Text]:
    """Cut a long text after an empty line, a line or a character; pieces have at most `limit` bytes."""
    if limit is None or len(text.data) <= limit:
        yield text
        return
    data, start, number = text.data, 0, 1
    while start < len(data):
        end = start + limit
        if end < len(data):
            half = start + limit // 2
            for mark in (b"\n\n", b"\n"):
                found = data.rfind(mark, half, end)
                if found >= 0:
                    end = found + len(mark)
                    break
            else:
                while end > half + 1 and 0x80 <= data[end] < 0xC0:  # not inside a UTF-8 sequence
                    end -= 1
        yield Text(data[start:end], f"{text.title} ({number})", text.topic)
        start, number = end, number + 1


def _texts(config: DataConfig) -> Iterable[Text]:
    if config.corpus is not None:
        return CORPORA[config.corpus].read()
    if config.dataset is not None:
        return dataset_texts(config.dataset, config.max_bytes)
    return file_texts(config.files, config.field)
