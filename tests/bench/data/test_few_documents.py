"""Data as people have it: one text file, lines that are broken."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from bench.data import config as data
from bench.data import store
from bench.data.config import SPLITS, Data, DataConfig, load
from patchers.errors import BenchError

PARAGRAPHS = [f"Paragraph {number} has {'many ' * (number % 9)}words: naïve café, 東京.\n" for number in range(3000)]


def texts_of(read: Data) -> list[bytes]:
    return [text for name in SPLITS for text in getattr(read, name).texts]


def silent(message: str) -> None:
    pass


@pytest.mark.parametrize(("paragraphs", "size"), [(3000, 256), (100, 256), (None, 4096)])
def test_one_text_file_is_a_corpus(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, paragraphs: int | None, size: int
) -> None:
    text = "\n".join(PARAGRAPHS[:paragraphs] if paragraphs else PARAGRAPHS * 16)
    (tmp_path / "book.txt").write_text(text)
    asked = DataConfig(files=("book.txt",), folder=str(tmp_path))
    read = store.load(asked, tmp_path / "cache", silent)
    said = "book.txt: too few documents for the splits, so texts are cut at paragraphs into pieces of at most"
    assert f"{said} {size:,} bytes" in caplog.text
    assert read.name == f"book.txt (in pieces of at most {size:,} bytes)"
    found = texts_of(read)
    assert max(map(len, found)) <= size
    assert set(found) == {piece.data for unit in data.units(data.in_pieces(asked)) for piece in unit.texts()}
    whole = b"".join(piece.data for unit in data.units(data.in_pieces(asked)) for piece in unit.texts())
    assert whole == text.encode()
    assert sum(piece.endswith(b"\n\n") for piece in found) > 0.9 * len(found) - 1
    assert read.fingerprint == load(asked).fingerprint
    caplog.clear()
    assert store.load(asked, tmp_path / "cache", silent).fingerprint == read.fingerprint
    assert not caplog.text, "it is said once"


def test_a_few_files_are_cut_and_many_stay_whole(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"a{number}.txt").write_text("\n".join(PARAGRAPHS[number::40]))
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress("\n".join(PARAGRAPHS).encode()))
    shares: dict[str, Any] = {"test": 0.2, "calibration": 0.2}
    many = load(DataConfig(files=(str(tmp_path / "a*.txt"),), **shares))
    assert {len(text) for text in texts_of(many)} == {path.stat().st_size for path in tmp_path.glob("a*.txt")}
    few = load(DataConfig(files=(str(tmp_path / "a1.txt"), str(tmp_path / "b.txt.xz")), **shares))
    assert min(len(few.test), len(few.calibration)) > 5
    limited = DataConfig(files=(str(tmp_path / "a*.txt"),), max_bytes=8000, **shares)
    assert load(limited).train.bytes < 8000, "one file alone has more"


def test_what_somebody_chose_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("".join(PARAGRAPHS))
    given = DataConfig(files=(str(tmp_path / "book.txt"),), piece_bytes=777)
    assert data.in_pieces(given) == given
    lines = tmp_path / "one.jsonl"
    lines.write_text(json.dumps({"text": "".join(PARAGRAPHS)}))
    with pytest.raises(BenchError, match="is too small"):
        load(DataConfig(files=(str(lines),), field="text"))
    (tmp_path / "short.txt").write_text("a few words")
    with pytest.raises(BenchError, match="is too small: of its documents \\(1\\) none fell to the"):
        load(DataConfig(files=(str(tmp_path / "short.txt"),)))


BROKEN = {
    "a lone surrogate": '{"text": "\\ud800"}',
    "null": '{"text": null}',
    "a number": '{"text": 3}',
    "no field": '{"txet": "a"}',
    "no JSON": "text",
    "the last line, cut off": '{"text": "it ends he',
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_invalid_lines_are_errors_or_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str) -> None:
    good = [json.dumps({"text": text}) for text in PARAGRAPHS[:200]]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join([good[0], line, *good[1:], line]))
    asked: dict[str, Any] = {"files": (str(path),), "field": "text", "test": 0.2, "calibration": 0.2}
    with pytest.raises(BenchError, match=r"texts\.jsonl:2.*data\.skip_invalid: true"):
        load(DataConfig(**asked))
    (tmp_path / "good.jsonl").write_text("\n".join(good))
    expected = load(DataConfig(**asked | {"files": (str(tmp_path / "good.jsonl"),)}))
    skipping = DataConfig(**asked, skip_invalid=True)
    for read in (load(skipping), store.load(skipping, tmp_path / "cache", silent)):
        assert (read.fingerprint, read.skipped) == (expected.fingerprint, 2)
        assert read.summary()["skipped"] == 2
    assert "2 invalid documents were passed over; the first: texts.jsonl:2" in caplog.text
    assert "skipped" not in expected.summary()


def test_what_was_skipped_is_remembered_with_the_units_that_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "UNIT_BYTES", 1)  # each file by itself
    for name in ("a", "b", "c"):
        good = [json.dumps({"text": f"{name} {text}"}) for text in PARAGRAPHS[:100]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*good, "{"]))
    config = DataConfig(files=(str(tmp_path / "*.jsonl"),), field="text", skip_invalid=True)
    with monkeypatch.context() as patch:
        patch.setattr("bench.data.spool.Spool.splits", lambda spool: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.load(config, tmp_path / "cache", silent)
    with monkeypatch.context() as patch:
        patch.setattr("bench.data.spool.Spool._read", lambda *arguments: 1 / 0)  # all are whole already
        assert store.load(config, tmp_path / "cache", silent).skipped == 3


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and more"])
def test_what_holds_no_text_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    """Nothing is said of pieces where there is nothing to cut into them."""
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(BenchError, match=r"holds no text|is an SQLite database"):
        store.load(DataConfig(files=("empty.txt",), folder=str(tmp_path)), tmp_path / "cache", silent)
    assert caplog.text == ""
