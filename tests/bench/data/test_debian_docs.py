"""The corpus of the study, made from a few files laid out as the packages have them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.data.config import DataConfig, load
from bench.data.debian_docs import PACKAGES, documents, page_text
from patchers import BenchError

ROOT = Path(__file__).resolve().parents[3]
LONG = "A sentence of documentation, number {}. " * 20
HEAD = "<html><head><title>T</title><style>p {{}}</style></head>"
PAGE = HEAD + "<body><h1>Head</h1><p>{}</p><pre>a\n  b</pre></body></html>"


def tree(folder: Path) -> Path:
    """A file of every kind that PACKAGES names."""
    doc = folder / "usr/share/doc"
    texts = {
        "linux-doc-6.12/Documentation/one.rst.gz": LONG.format(*range(1, 21)),
        "linux-doc-6.12/html/_sources/two.rst.txt": LONG.format(*range(2, 22)),
        "python3.11/html/_sources/a.rst.txt": LONG.format(*range(3, 23)),
        "llvm-14-doc/html/_sources/a.rst.txt": LONG.format(*range(4, 24)),
        "git-doc/git.txt": LONG.format(*range(5, 25)),
        "postgresql-doc-15/html/a.html": PAGE.format(LONG.format(*range(6, 26))),
        "octave/octave.html/a.html": PAGE.format(LONG.format(*range(7, 27))),
        "vim/html/a.html": PAGE.format(LONG.format(*range(8, 28))),
        "erlang-doc/lib/x/a.html": PAGE.format(LONG.format(*range(9, 29))),
        "debian-handbook/html/en-US/a.html": PAGE.format(LONG.format(*range(10, 30))),
    }
    for name, text in texts.items():
        path = doc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    (doc / "git-doc/short.txt").write_text("A page of links.")
    (doc / "git-doc/again.txt").write_text(texts["git-doc/git.txt"])
    (folder / "usr/share/dictd").mkdir(parents=True)
    for name in ("gcide", "wn"):
        entries = "".join(f"word{i}\n    n 1: {f'{name} meaning ' * 20}\n" for i in range(200))
        (folder / f"usr/share/dictd/{name}.dict.dz").write_bytes(gzip.compress(entries.encode()))
    return folder


def test_every_package_is_read_once_and_in_an_order_of_its_own(tmp_path: Path) -> None:
    found = documents(tree(tmp_path))
    assert {document["source"] for document in found} == PACKAGES.keys()
    texts = [document["text"] for document in found]
    assert len(set(texts)) == len(texts), "the copy is kept once"
    assert all(len(text) >= 400 for text in texts), "a page of links is none"
    assert documents(tmp_path) == found
    words = [d["text"] for d in found if d["source"] == "dict-wn"]
    assert len(words) > 5
    assert all(text.startswith("word") for text in words), "entries are whole"


def test_pages_are_their_text() -> None:
    assert page_text(PAGE.format("one <b>two</b>")) == "Head\none two\na\n  b\n"


def test_the_command_makes_what_a_suite_reads(tmp_path: Path) -> None:
    tree(tmp_path / "u")
    out = tmp_path / "docs-en.jsonl.xz"
    command = [sys.executable, "-m", "bench.data.debian_docs", str(tmp_path / "u"), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote ")
    data = load(DataConfig(files=(str(out),), field="text", test=0.3, calibration=0.3))
    assert json.dumps(data.summary())


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"nothing of the package linux-doc-6\.12 .*`apt-get download linux-doc"):
        documents(tmp_path)
