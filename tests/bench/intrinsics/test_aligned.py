"""The same sentences in several languages."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from bench.intrinsics.aligned import read_aligned
from patchers.errors import BenchError

TEXTS = {"src.eng.txt": "One.\r\nTwo.\r\n", "ref.deu.txt": "Eins.\nZwei.", "zho-CN.txt": "一。\n二。\n"}


def folder(tmp_path: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


def test_a_folder_and_an_archive_are_read_alike(tmp_path: Path) -> None:
    path = folder(tmp_path, {**TEXTS, "notes.md": "no language"})
    found = read_aligned(path, "eng")
    assert found.sentences == {
        "deu": (b"Eins.", b"Zwei."),
        "eng": (b"One.", b"Two."),
        "zho-CN": ("一。".encode(), "二。".encode()),
    }
    assert (found.count, found.reference) == (2, "eng")
    with tarfile.open(tmp_path / "all.tar.xz", "w:xz") as archive:
        for name in TEXTS:
            archive.add(path / name, f"inside/{name}")
    assert read_aligned(tmp_path / "all.tar.xz", "eng") == found
    assert read_aligned(path, "deu", limit=1).sentences["eng"] == (b"One.",)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"eng.txt": "a\n"}, r"has 1 .txt files; wanted one a language, and two at least"),
        ({"english.txt": "a\n", "deu.txt": "b\n"}, r"no language 'eng', did you mean 'english'\?; there are: deu, eng"),
        ({"eng.txt": "a\n", "deu.txt": "b\nc\n"}, r"deu.txt has 2 lines and eng.txt has 1; line i of each must say"),
        ({"a.eng.txt": "a\n", "b.eng.txt": "b\n"}, r"two files for 'eng', a.eng.txt and b.eng.txt"),
        ({"eng.txt": "\n\n", "deu.txt": "\n\n"}, r"eng.txt has no sentences; wanted one a line"),
        ({"eng.txt": "", "deu.txt": ""}, r"eng.txt has no sentences; wanted one a line"),
    ],
)
def test_what_is_not_aligned_is_refused(texts: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=said):
        read_aligned(folder(tmp_path, texts), "eng")


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no archive")
    for name in ("file", "nothing"):
        with pytest.raises(BenchError, match=r"cannot read .*; wanted a folder of .txt files, or a tar archive"):
            read_aligned(tmp_path / name, "eng")
