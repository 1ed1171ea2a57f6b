"""Tables as people have them, and files that are no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet as parquet
import pytest

from bench.data.config import DataConfig, load
from bench.data.sources import DatasetConfig
from patchers import BenchError

TEXTS = [f"document {number}: naïve café, 東京, {'x' * (number % 7)}" for number in range(200)]


def write(path: Path) -> Path:
    table = pyarrow.table({"title": [f"t{i}" for i in range(len(TEXTS))], "text": TEXTS})
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=64)
    else:
        kind = pyarrow.ipc.new_file if path.stem == "file" else pyarrow.ipc.new_stream
        with pyarrow.OSFile(str(path), "wb") as sink, kind(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=64)
    return path


@pytest.mark.parametrize("name", ["rows.parquet", "file.arrow", "stream.arrow"])
def test_a_table_is_read_by_its_kind(tmp_path: Path, name: str) -> None:
    """A .parquet file was once read as text, trained on, and got a number."""
    path = write(tmp_path / name)
    data = load(DataConfig(files=(str(path),), field="text", test=0.2, calibration=0.2))
    found = {text for split in (data.train, data.calibration, data.test) for text in split.texts}
    assert found == {text.encode() for text in TEXTS}


def test_what_a_table_lacks_is_said(tmp_path: Path) -> None:
    path = str(write(tmp_path / "rows.parquet"))
    with pytest.raises(BenchError, match=r"has no column 'txt', did you mean 'text'\?; there are: title, text"):
        load(DataConfig(files=(path,), field="txt"))
    with pytest.raises(BenchError, match="is a table: say which column is the text, as in `field: text`"):
        load(DataConfig(files=(path,)))
    (tmp_path / "cut.parquet").write_bytes(Path(path).read_bytes()[:500])
    with pytest.raises(BenchError, match=r"cannot read .*cut\.parquet: .*is it whole"):
        load(DataConfig(files=(str(tmp_path / "cut.parquet"),), field="text"))


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        (b"PAR1\x15\x04", "is a Parquet file, not text"),
        (b"PK\x03\x04\x14\x00", "is a ZIP archive"),
        (b"%PDF-1.7\n", "is a PDF, not text"),
        (b"\x1f\x8b\x08\x00", "is gzip data without .gz in its name"),
        (b"SQLite format 3\x00", "is an SQLite database"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, begins: bytes, said: str) -> None:
    (tmp_path / "texts.txt").write_bytes(begins + b"some text\n\n" * 100)
    with pytest.raises(BenchError, match=said):
        load(DataConfig(files=(str(tmp_path / "texts.txt"),), piece_bytes=200))


def test_bytes_that_begin_like_nothing_known_are_text_whatever_they_are(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(b"".join(b"\x00\xff\xfe any %d\n\n" % i for i in range(400)))
    data = load(DataConfig(files=(str(tmp_path / "texts.txt"),), piece_bytes=100, test=0.2, calibration=0.2))
    assert sum(map(len, data.train.texts)) > 0


@pytest.mark.parametrize("shards", [1, 3])
def test_a_saved_dataset_is_read_by_files_and_by_dataset(tmp_path: Path, shards: int) -> None:
    rows = {"text": TEXTS, "number": list(range(len(TEXTS)))}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved", num_shards=shards)
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "dict")
    shares: dict[str, Any] = {"test": 0.2, "calibration": 0.2}
    by_files = load(DataConfig(files=("saved",), field="text", folder=str(tmp_path), **shares))
    assert {text for split in (by_files.train, by_files.calibration, by_files.test) for text in split.texts} == {
        text.encode() for text in TEXTS
    }
    for path in ("saved", "dict"):
        one = load(DataConfig(dataset=DatasetConfig(path=path), folder=str(tmp_path), **shares))
        assert one.fingerprint == by_files.fingerprint
    with pytest.raises(BenchError, match=r"no such split, did you mean 'train'\?; there are: train"):
        load(DataConfig(dataset=DatasetConfig(path=str(tmp_path / "dict"), split="trian"), **shares))
    with pytest.raises(BenchError, match="one split was saved, without a name; leave `split` out"):
        load(DataConfig(dataset=DatasetConfig(path=str(tmp_path / "saved"), split="test"), **shares))
    with pytest.raises(BenchError, match="holds the splits train of a data set: name one"):
        load(DataConfig(files=(str(tmp_path / "dict"),), field="text", **shares))
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(BenchError, match=r"state\.json is not what `datasets` writes"):
        load(DataConfig(files=(str(tmp_path / "saved"),), field="text", **shares))
