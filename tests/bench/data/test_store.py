"""Corpora on disk: the very documents of the source, once read, whatever happens meanwhile."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.data import config as data
from bench.data import spool, store
from bench.data.config import SPLITS, Data, DataConfig
from bench.system import files
from bench.system.files import CannotWrite, Damaged
from patchers.errors import BenchError

SHARES: dict[str, Any] = {"calibration": 0.3, "test": 0.3}


def write_texts(folder: Path, texts: list[str], name: str = "texts.jsonl") -> None:
    (folder / name).write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n")


def some_texts(count: int = 60, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abc é\n"), int(rng.integers(1, 80)))) for _ in range(count)]


def config(folder: Path, **others: Any) -> DataConfig:
    return DataConfig(files=(str(folder / "*.jsonl"),), field="text", **{**SHARES, **others})


def silent(message: str) -> None:
    pass


def same(one: Data, two: Data) -> bool:
    assert one.summary() == two.summary()
    for name in SPLITS:
        a, b = getattr(one, name), getattr(two, name)
        assert list(a) == list(b)
        assert [b.documents[i] for i in range(-1, len(b))] == [a.documents[i] for i in range(-1, len(a))]
        assert list(a.texts) == list(b.texts) == [b.texts[i] for i in range(len(b))]
        assert list(a.texts[1:4]) == list(b.texts[1:4])
        assert list(a.ids) == list(b.ids)
    return True


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text(max_size=40), max_size=60),
    st.sampled_from([None, 7, 20]),
    st.sampled_from([None, 50, 400]),
    st.sampled_from([None, 30]),
)
def test_what_is_stored_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    piece_bytes: int | None,
    max_bytes: int | None,
    max_test_bytes: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    half = len(texts) // 2
    write_texts(folder, texts[:half], "a.jsonl")
    write_texts(folder, texts[half // 2 :], "b.jsonl")  # some of them again
    asked = config(folder, piece_bytes=piece_bytes, max_bytes=max_bytes, max_test_bytes=max_test_bytes)
    try:
        wanted: Data | str = data.load(asked)
    except BenchError as error:
        wanted = str(error)
    try:
        found: Data | str = store.load(asked, folder / "cache", silent)
    except BenchError as error:
        found = str(error)
    if isinstance(wanted, Data) and isinstance(found, Data):
        assert same(wanted, found)
    else:
        assert wanted == found


def test_what_max_bytes_cannot_reach_is_not_kept(tmp_path: Path) -> None:
    texts = ["x" * 1000 + str(i) for i in range(4000)]
    write_texts(tmp_path, texts)
    asked = config(tmp_path, max_bytes=20_000)
    sizes: list[int] = []
    remembered = spool.Spool.splits
    with pytest.MonkeyPatch.context() as patch:

        def look(self: spool.Spool) -> Any:
            sizes.append(sum(p.stat().st_size for p in self.folder.glob("*.data")))
            return remembered(self)

        patch.setattr(spool.Spool, "splits", look)
        assert same(data.load(asked), store.load(asked, tmp_path / "cache", silent))
    assert sizes[0] < 1_500_000, "of four million bytes"


def test_a_large_file_is_read_in_pieces_and_not_held(tmp_path: Path) -> None:
    text = "\n".join(some_texts(3000)).encode()
    (tmp_path / "large.txt").write_bytes(text)
    asked = DataConfig(files=(str(tmp_path / "large.txt"),), piece_bytes=500, **SHARES)
    assert same(data.load(asked), store.load(asked, tmp_path / "cache", silent))


def test_a_store_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path, some_texts())
    asked = config(tmp_path)
    first = store.load(asked, tmp_path / "cache", silent)
    with monkeypatch.context() as patch:
        patch.setattr(store, "build", None)
        assert same(first, store.load(asked, tmp_path / "cache", silent))
    write_texts(tmp_path, some_texts(seed=1))
    other = store.load(asked, tmp_path / "cache", silent)
    assert same(data.load(asked), other)
    assert other.fingerprint != first.fingerprint


def test_who_comes_second_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path, some_texts())
    asked, built, real = config(tmp_path), [], store.build

    def build(*arguments: Any) -> None:
        built.append(threading.current_thread())
        real(*arguments)

    monkeypatch.setattr(store, "build", build)
    found: list[Data] = []
    threads = [
        threading.Thread(target=lambda: found.append(store.load(asked, tmp_path / "cache", silent))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert len(found) == 3
    assert same(found[0], found[1])


def test_another_text_meanwhile_is_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "UNIT_BYTES", 1)
    for name in "abc":
        write_texts(tmp_path, some_texts(20, ord(name)), f"{name}.jsonl")
    asked, read = config(tmp_path), []
    real = spool.Spool._read

    def counted(self: spool.Spool, number: int, *others: Any) -> Any:
        read.append(number)
        if len(read) == 3:
            raise KeyboardInterrupt
        return real(self, number, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool.Spool, "_read", counted)
        with pytest.raises(KeyboardInterrupt):
            store.load(asked, tmp_path / "cache", silent)
        write_texts(tmp_path, some_texts(21, 7), "b.jsonl")
        unchanged = store.load(asked, tmp_path / "cache", silent)
    assert read == [0, 1, 2, 0, 1, 2]
    assert same(data.load(asked), unchanged)


def test_units_that_were_read_before_a_kill_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "UNIT_BYTES", 1)
    for name in "abc":
        write_texts(tmp_path, some_texts(20, ord(name)), f"{name}.jsonl")
    asked, read = config(tmp_path), []
    real = spool.Spool._read

    def counted(self: spool.Spool, number: int, *others: Any) -> Any:
        read.append(number)
        if len(read) == 3:
            raise KeyboardInterrupt
        return real(self, number, *others)

    monkeypatch.setattr(spool.Spool, "_read", counted)
    with pytest.raises(KeyboardInterrupt):
        store.load(asked, tmp_path / "cache", silent)
    assert same(data.load(asked), store.load(asked, tmp_path / "cache", silent))
    assert read == [0, 1, 2, 2]


@pytest.mark.parametrize("name", [*store.FILES, "store.json"])
def test_a_damaged_store_is_named_and_built_again(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_texts(tmp_path, some_texts())
    asked = config(tmp_path)
    store.load(asked, tmp_path / "cache", silent)
    (path,) = (tmp_path / "cache").rglob(name)
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 4
    path.write_bytes(held)
    assert same(store.load(asked, tmp_path / "cache", silent), data.load(asked))
    assert f"{path} is damaged" in caplog.text


@pytest.mark.parametrize("kind", [*spool.FILES, ".json"])
def test_what_was_read_before_a_kill_and_then_damaged_is_never_believed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_texts(tmp_path, some_texts())
    asked = config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(spool.Spool, "splits", killed)
        with pytest.raises(KeyboardInterrupt):
            store.load(asked, tmp_path / "cache", silent)
    (path,) = (tmp_path / "cache").rglob(f"0{kind}")
    path.with_name("0.json.1-ab.tmp").write_bytes(b"half a header")
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 4
    path.write_bytes(held)
    if kind == ".data":
        with pytest.raises(Damaged, match=f"{path} is damaged: delete .* and run the same command"):
            store.load(asked, tmp_path / "cache", silent)
        path.unlink()
    assert same(store.load(asked, tmp_path / "cache", silent), data.load(asked))
    assert f"{path} is damaged" in caplog.text
    assert not list(tmp_path.rglob("*.tmp"))


def killed(self: spool.Spool) -> None:
    raise KeyboardInterrupt


def test_a_large_one_that_is_damaged_is_refused_where_it_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHECKED_AT_ONCE", 0)
    monkeypatch.setattr(files, "BLOCK", 100)
    write_texts(tmp_path, some_texts())
    asked = config(tmp_path)
    store.load(asked, tmp_path / "cache", silent)
    (path,) = (tmp_path / "cache").rglob("data")
    held = bytearray(path.read_bytes())
    held[150] ^= 4
    path.write_bytes(held)
    found = store.load(asked, tmp_path / "cache", silent)
    assert found.train.texts.flat[:100].tobytes() == bytes(held[:100])  # type: ignore[attr-defined]
    with pytest.raises(Damaged, match=r"data is damaged .*: delete the folder .* and run the same command"):
        list(found.train)


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path, some_texts())
    asked = config(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(CannotWrite, match="No space left on device; make room"):
            store.load(asked, tmp_path / "cache", silent)
    assert same(data.load(asked), store.load(asked, tmp_path / "cache", silent))


def test_of_a_source_that_is_no_text_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_bytes(b'{"text": "some words"}\n' * 50 + b"\x89PNG\r\n")
    config = DataConfig(files=(str(tmp_path / "texts.jsonl"),), field="text")
    with pytest.raises(BenchError, match=r"texts\.jsonl"):
        store.load(config, tmp_path / "cache", lambda message: None)
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"] == ["corpora"]
