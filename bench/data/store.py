"""Corpora on disk: read from their source once, split, and mapped from then on.

`CACHE/corpora/LABEL-KEY/` has the documents of all splits end to end in `data`, where each ends in `ends`, their
SHA-256 in `digests` and their titles in `titles`; `store.json` has the checksums of these files. What is in a split,
and in which order, is exactly what `bench.data.config.load` says.

Building takes two passes. The first reads the source, one unit (a file) after another, into a spool; units that are
whole stay when the process is killed, and the next one goes on with the rest. The second copies the documents that are
wanted into their order. Processes that want the same store wait for the one that builds it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from bench.data import config as data
from bench.data.config import SPLITS, Corpus, Data, DataConfig, Document
from bench.data.documents import FlatTexts, Part
from bench.data.spool import Spool
from bench.system.files import (
    CannotWrite,
    Damaged,
    MappedFile,
    SummedFile,
    Sums,
    locked,
    read_header,
    remove,
    sync_folder,
    warn,
    write_header,
    writing,
)
from patchers.errors import BenchError

FORMAT = 1
FILES = ("data", "ends", "digests", "titles", "title_ends")
CHECKED_AT_ONCE = 2**26
"""Stores up to this size are checked when they are opened, so that a damaged one is built again by itself."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class StoredDocuments(Sequence[Document]):
    """The documents of one split, each read when it is asked for."""

    texts: FlatTexts
    digests: Part
    titles: FlatTexts

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        title, topic = json.loads(self.titles[number])
        return Document(self.digests[32 * number : 32 * number + 8].tobytes().hex(), self.texts[number], title, topic)

    def __iter__(self) -> Iterator[Document]:
        for first, last in self.texts.runs():
            digests = self.digests[32 * first : 32 * last].reshape(-1, 32)
            titles = self.titles.run(first, last)
            for text, digest, title in zip(self.texts.run(first, last), digests, titles, strict=True):
                yield Document(digest[:8].tobytes().hex(), text, *json.loads(title))


class StoredCorpus(Corpus):
    """A split on disk."""

    documents: StoredDocuments

    @property
    def texts(self) -> FlatTexts:
        return self.documents.texts

    @property
    def ids(self) -> Iterator[str]:
        for first, last in self.texts.runs():
            for digest in self.documents.digests[32 * first : 32 * last].reshape(-1, 32):
                yield digest[:8].tobytes().hex()

    @cached_property
    def bytes(self) -> int:
        return len(self.texts.flat)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for first, last in self.texts.runs():
            digest.update(self.documents.digests[32 * first : 32 * last].tobytes())
        return digest.hexdigest()


def load(config: DataConfig, cache: Path, say: Say) -> Data:
    """`bench.data.config.load` from the store in `cache`, which is built where there is none yet, or a damaged one.

    Raises BenchError as that does, CannotWrite where there is no room, and Damaged later on, from whoever looks into a
    large file that was damaged after it was written.
    """
    config = data.in_pieces(config)
    folder = folder_of(config, cache)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            try:
                return opened(config, folder)
            except Damaged as error:
                warn(f"{error}; building it again")
                with writing(folder):
                    shutil.rmtree(folder)
        try:
            build(config, folder, say)
        except (CannotWrite, Damaged):  # what has been read is there for the next time
            raise
        except BenchError:  # of a source that is no text, to which nobody will come back
            remove(folder.with_name(f"{folder.name}.part"))
            raise
    return opened(config, folder)


def folder_of(config: DataConfig, cache: Path) -> Path:
    """Named by the source as it is now, so that another text is another store."""
    values = dataclasses.asdict(config)
    for name in ("folder", "few", *(() if config.skip_invalid else ("skip_invalid",))):  # which change no text, or none
        del values[name]
    what = [FORMAT, values, [unit.state for unit in data.units(config)]]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
    label = re.sub(r"[^A-Za-z0-9._-]+", "_", config.label)[-40:]
    return cache / "corpora" / f"{label}-{key}"


def opened(config: DataConfig, folder: Path) -> Data:
    """Raises Damaged when it is not what `build` left."""
    header = read_header(folder / "store.json")
    if header.get("format") != FORMAT:
        raise Damaged(f"{folder} has format {header.get('format')}, wanted {FORMAT}")
    remedy = f"delete the folder {folder} and run the same command, which builds it again"
    files = {name: MappedFile(folder / name, Sums.of_json(header["files"][name]), remedy) for name in FILES}
    for name, file in files.items():
        if name in ("ends", "title_ends") or len(file) <= CHECKED_AT_ONCE:
            file.check_all()
    ends, title_ends = (np.asarray(files[name][:]).view(np.int64) for name in ("ends", "title_ends"))
    corpora, first = {}, 0
    for name in SPLITS:
        last = first + header["splits"][name]["documents"]
        corpora[name] = StoredCorpus(
            StoredDocuments(
                _texts(files["data"], ends, first, last),
                Part(files["digests"], 32 * first, 32 * last),
                _texts(files["titles"], title_ends, first, last),
            )
        )
        first = last
    skipped = header.get("skipped", 0)
    return Data(config.label, corpora["train"], corpora["calibration"], corpora["test"], skipped=skipped)


def _texts(file: MappedFile, ends: np.ndarray, first: int, last: int) -> FlatTexts:
    """Documents first..last - 1 of a file, given where each document ends in it."""
    begin = int(ends[first - 1]) if first else 0
    part = Part(file, begin, int(ends[last - 1]) if last else 0)
    return FlatTexts(part, np.concatenate(([0], ends[first:last] - begin)))


def build(config: DataConfig, folder: Path, say: Say) -> None:
    """Read the source into `folder`; what a killed process has read already is not read again."""
    with writing(folder):
        part = folder.with_name(f"{folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        for left in part.glob("*.tmp"):
            left.unlink()
    spool = Spool(part / "spool", config)
    spool.fill(say)
    splits = spool.splits()
    if config.few:
        warn(
            f"{' '.join(config.files)}: too few documents for the splits, so texts are cut at paragraphs into pieces "
            f"of at most {config.piece_bytes:,} bytes (data.piece_bytes sets another size)"
        )
    with ExitStack() as stack:
        stack.callback(spool.close)
        files = {name: stack.enter_context(SummedFile(part / name)) for name in FILES}
        at = title_at = 0
        for name in SPLITS:
            say(f"putting {config.label} in order: {name}")
            for entries in np.array_split(splits[name], 1 + len(splits[name]) // 4096):
                for text, title in spool.documents(entries):
                    files["data"].write(text)
                    files["titles"].write(title)
                files["digests"].write(np.ascontiguousarray(entries["digest"]).view(np.uint8).data)
                files["ends"].write((at + entries["size"].cumsum()).astype("<i8").view(np.uint8).data)
                files["title_ends"].write((title_at + entries["title_size"].cumsum()).astype("<i8").view(np.uint8).data)
                at, title_at = at + int(entries["size"].sum()), title_at + int(entries["title_size"].sum())
    header = {
        "format": FORMAT,
        "label": config.label,
        "files": {name: file.sums.as_json() for name, file in files.items()},
        "splits": {name: {"documents": len(splits[name])} for name in SPLITS},
        **({"skipped": spool.skipped} if spool.skipped else {}),
    }
    if spool.skipped:
        warn(f"{config.label}: {spool.skipped:,} invalid documents were passed over; the first: {spool.first_skipped}")
    write_header(part / "store.json", header)
    with writing(folder):
        shutil.rmtree(part / "spool")
        part.rename(folder)
        sync_folder(folder.parent)
