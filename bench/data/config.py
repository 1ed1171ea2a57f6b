"""The `data:` section of a suite: reads texts as documents and splits them into training, calibration and test.

A document is `bytes` from here on: nothing is decoded, stripped or normalised, so that a bit per byte is
a bit of the source's own bytes.

Where a document goes depends on nothing but its content: the first eight bytes of its SHA-256 are its place
in [0, 1), test below `test`, calibration above that, training the rest. So the splits are disjoint, stay the
same when documents are added or shuffled, and copies of a text cannot be on two sides (one of them is kept).
The next bytes give the order within a split, and `max_bytes` and `max_test_bytes` take the first documents of
that order: a smaller limit is a subset of a larger one.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from bench.data.sources import (
    CORPORA,
    DatasetConfig,
    Text,
    dataset_texts,
    file_state,
    file_texts,
    find_files,
    has_fields,
    text_pieces,
)
from bench.system.files import located
from patchers.errors import BenchError
from patchers.grouping import grouped
from patchers.named import unknown


def _known_corpus(name: str) -> str:
    if name not in CORPORA:
        raise unknown("corpus", name, CORPORA)
    return name


CorpusName = Annotated[str, AfterValidator(_known_corpus)]
SPLITS = ("train", "calibration", "test")
Share = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class DataConfig:
    """Where the documents come from (exactly one of corpus, files, dataset) and how they are split."""

    corpus: CorpusName | None = None  # one that comes with the installation; `patchbench list corpora`
    files: tuple[str, ...] = ()  # globs; relative ones begin in the suite's folder
    field: str | None = None  # which value of a .jsonl line, or column of a table, is the text
    dataset: DatasetConfig | None = None  # read by the `datasets` library
    piece_bytes: PositiveInt | None = None  # longer documents are cut into pieces, at line ends
    calibration: Share = 0.05  # of the documents, for setting knobs
    test: Share = 0.05  # of the documents, to be scored
    max_bytes: PositiveInt | None = None  # of documents in all; the same first ones each time
    max_test_bytes: PositiveInt | None = None  # of documents that are scored
    # Whether lines and rows that hold no text are counted and passed over; otherwise the first one is an error.
    skip_invalid: bool = dataclasses.field(default=False, metadata={"identity": "when set"})
    # Not of the YAML: where relative paths begin (None: the working directory), and whether `piece_bytes` was not given
    # but chosen, because documents were too few.
    folder: str | None = dataclasses.field(default=None, metadata={"identity": False, "key": False})
    few: bool = dataclasses.field(default=False, metadata={"identity": False, "key": False})

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

    def split_of(self, place: float) -> str:
        """Where a document goes whose hash has this place in [0, 1)."""
        return "test" if place < self.test else "calibration" if place < self.test + self.calibration else "train"

    def within(self, part: str, sizes: Sequence[int] | np.ndarray) -> int:
        """How many of the first documents of `all` or of the `test` split fit into its limit of bytes.

        Raises BenchError when not even the first one does.
        """
        option, limit = ("max_test_bytes", self.max_test_bytes) if part == "test" else ("max_bytes", self.max_bytes)
        if limit is None:
            return len(sizes)
        count = int(np.searchsorted(np.cumsum(sizes), limit, side="right"))
        if count == 0:
            label = f"{self.label}, test split" if part == "test" else self.label
            raise BenchError(
                f"{label}: {option} is {limit:,}, and the first document alone has {sizes[0]:,} bytes; "
                f"raise {option} or set data.piece_bytes"
            )
        return count

    def check_splits(self, documents: int, sizes: Mapping[str, int]) -> None:
        """Raises BenchError where a split has no document."""
        for name in ("test", "calibration", "train"):
            if not sizes[name]:
                split = {"train": "training"}.get(name, name)
                raise BenchError(
                    f"{self.label} is too small: of its documents ({documents}) none fell to the {split} "
                    "split; give more documents, a larger share, or cut long documents with data.piece_bytes"
                )

    def no_text(self) -> BenchError:
        return BenchError(f"{self.label} holds no text; wanted at least one document that is not empty")

    @property
    def label(self) -> str:
        """What records and messages call this source."""
        if self.dataset is not None:
            name = f":{self.dataset.name}" if self.dataset.name else ""
            return f"{self.dataset.path}{name}[{self.dataset.split}]"
        pieces = f" (in pieces of at most {self.piece_bytes:,} bytes)" if self.few else ""
        return self.corpus or " ".join(self.files) + pieces


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

    documents: Sequence[Document]

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    @property
    def texts(self) -> Sequence[bytes]:
        return [document.data for document in self.documents]

    @property
    def ids(self) -> Iterator[str]:
        """Of all documents, without looking at their texts."""
        return (document.id for document in self.documents)

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

    skipped: int = 0
    """Lines and rows that held no text and were passed over, as `skip_invalid` has it."""

    @cached_property
    def fingerprint(self) -> str:
        splits = (self.train, self.calibration, self.test)
        return hashlib.sha256("".join(split.fingerprint for split in splits).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What a record says about its data."""
        splits = {"train": self.train, "calibration": self.calibration, "test": self.test}
        summary: dict[str, Any] = {"name": self.name, "fingerprint": self.fingerprint, "splits": _described(splits)}
        if self.skipped:
            summary["skipped"] = self.skipped
        if self.domains:
            summary["eval"] = _described(self.domains)
        return summary


def _described(splits: Mapping[str, Corpus]) -> dict[str, Any]:
    return {
        name: {"documents": len(split), "bytes": split.bytes, "fingerprint": split.fingerprint}
        for name, split in splits.items()
    }


def load(config: DataConfig) -> Data:
    """Read a source and split it, in memory (`bench.data.store.load` is the same on disk).

    Raises BenchError when the source is missing, empty, undecodable, or too small to fill the three splits.
    """
    config = in_pieces(config)
    documents, skipped = _read(config)
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in documents:
        splits[config.split_of(_fraction(_digest(document.data)[:8]))].append(document)
    if config.max_test_bytes is not None and splits["test"]:
        count = config.within("test", [len(document.data) for document in splits["test"]])
        splits["test"] = splits["test"][:count]
    config.check_splits(len(documents), {name: len(split) for name, split in splits.items()})
    train, calibration, test = (Corpus(tuple(splits[name])) for name in SPLITS)
    return Data(config.label, train, calibration, test, skipped=skipped)


PIECES = (8192, 4096, 2048, 1024, 512, 256)
"""Bytes of the pieces that a text may be cut into, where there are too few documents for the splits."""
WANTED = 32
"""Pieces that the smaller of the test and calibration splits should get."""
MANY = 1000
"""So many files fill the splits, and are not looked at for that."""


def in_pieces(config: DataConfig) -> DataConfig:
    """The config with `piece_bytes` where that was left out and its plain files are too few for the splits.

    Pieces are the largest of PIECES of which there are enough, and end after paragraphs where they can. So one .txt
    file is a corpus; files that fill the splits stay whole. Raises BenchError for files that are not there.
    """
    if config.piece_bytes is not None or not config.files:
        return config
    paths = find_files(config.files, config.field, config.folder)
    if any(map(has_fields, paths)) or _fill_splits(config, paths):
        return config
    size = sum(map(os.path.getsize, paths))
    enough = min(size, config.max_bytes or size) * min(config.test, config.calibration) / WANTED
    size = next((size for size in PIECES if size <= enough), PIECES[-1])
    return dataclasses.replace(config, piece_bytes=size, few=True)


def _fill_splits(config: DataConfig, paths: Sequence[str]) -> bool:
    """Whether whole files as documents leave no split empty, within the limits; of many files that is supposed."""
    if len(paths) < len(SPLITS) or len(paths) >= MANY:
        return len(paths) >= MANY
    sizes: dict[bytes, int] = {}
    for path in paths:
        sizes.update({_digest(text.data): len(text.data) for text in file_texts(path, None, None) if text.data})
    if not sizes:
        return True  # there is nothing to cut either
    try:
        ordered = sorted(sizes, key=lambda digest: (digest[8:], digest))
        ordered = ordered[: config.within("all", [sizes[digest] for digest in ordered])]
        split = {name: [d for d in ordered if config.split_of(_fraction(d[:8])) == name] for name in SPLITS}
        config.check_splits(len(ordered), {name: len(digests) for name, digests in split.items()})
        config.within("test", [sizes[digest] for digest in split["test"]])
    except BenchError:
        return False
    return True


def read(config: DataConfig) -> list[Document]:
    """All documents of a source, without copies and empty ones, in the order of their hashes."""
    return _read(config)[0]


def _read(config: DataConfig) -> tuple[list[Document], int]:
    """The documents, and how many texts were passed over as invalid."""
    kept: dict[bytes, Text] = {}
    size = skipped = 0
    for text in (text for unit in units(config) for text in unit.texts()):
        skipped += text.invalid is not None
        digest = _digest(text.data)
        if text.data and digest not in kept:
            kept[digest] = text
            size += len(text.data)
        # What is read may be far more than what is wanted: forget what cannot be in the result.
        if config.max_bytes is not None and size > 4 * config.max_bytes + 2**20:
            kept = dict(next(grouped(_in_order(kept), lambda item: len(item[1].data), config.max_bytes + 1)))
            size = sum(len(piece.data) for piece in kept.values())
    if not kept:
        raise config.no_text()
    documents = [Document(digest.hex()[:16], piece.data, piece.title, piece.topic) for digest, piece in _in_order(kept)]
    return documents[: config.within("all", [len(document.data) for document in documents])], skipped


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _fraction(eight: bytes) -> float:
    return int.from_bytes(eight) / 2**64


def _in_order(texts: dict[bytes, Text]) -> list[tuple[bytes, Text]]:
    # Not by the digest's first bytes: those choose the split, and a limit would take test documents only.
    return sorted(texts.items(), key=lambda item: (item[0][8:], item[0]))


@dataclass(frozen=True)
class Unit:
    """A part of a source that is read at one go."""

    state: str
    """Changes with what is read, as far as that can be told without reading."""

    texts: Callable[[], Iterable[Text]]


UNIT_BYTES = 2**26
"""Files that are smaller are read together."""


def _files_unit(paths: list[str], config: DataConfig) -> Unit:
    each = [partial(file_texts, path, config.field, config.piece_bytes, config.skip_invalid) for path in paths]
    return Unit("\n".join(map(file_state, paths)), lambda: (text for texts in each for text in texts()))


def units(config: DataConfig) -> list[Unit]:
    """All texts of a source, in their order, no longer than the config wants them."""
    whole: Callable[[], Iterable[Text]]
    if config.dataset is not None:
        dataset = dataclasses.replace(config.dataset, path=located(config.dataset.path, config.folder))
        if not os.path.exists(dataset.path):  # then it is a name of the hub's
            dataset = config.dataset
        whole = partial(dataset_texts, dataset, config.max_bytes, config.skip_invalid)
        state = file_state(os.path.expanduser(dataset.path))
    elif config.corpus is not None:
        whole, state = CORPORA[config.corpus].read, CORPORA[config.corpus].state()
    else:
        paths = find_files(config.files, config.field, config.folder)
        return [_files_unit(group, config) for group in grouped(paths, os.path.getsize, UNIT_BYTES)]
    return [Unit(state, lambda: (piece for text in whole() for piece in text_pieces(text, config.piece_bytes)))]
