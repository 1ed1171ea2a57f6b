"""Makes the corpus of the suite `study` from unpacked Debian packages:

    python -m bench.data.debian_docs FOLDER OUT.jsonl.xz

FOLDER is where `dpkg -x PACKAGE.deb FOLDER` has put the packages (docs/corpora.md has their names and versions;
PACKAGES says what is read of each). One JSON object a line, `{"source": ..., "text": ...}`: sources of documentation
(reStructuredText, AsciiDoc) as they are, HTML pages as their text, dictionaries as runs of entries. Documents are
shuffled by the hash of their text, and a text that stands in two packages is kept once.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from patchers.errors import BenchError

SHORTEST = 400
"""Characters of a document: less is a page of links."""
ENTRIES = 8_000
"""Characters of dictionary entries that make a document, about."""
BLOCKS = {
    *("p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ul", "ol", "dl", "dt", "dd", "tr", "table", "pre", "br"),
    *("hr", "section", "blockquote"),
}
HIDDEN = {"script", "style", "title"}
LIMITS = {"dict-gcide": 16_000_000, "dict-wn": 12_000_000, "erlang-doc": 11_650_000, "vim-doc": 6_000_000}
"""Bytes of text of one source at most, so that no two dictionaries are half of the corpus."""


class _Text(HTMLParser):
    """The text of a page: a block begins a line, white space is as it stands in the source."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in HIDDEN
        self._line(tag)

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in HIDDEN and self.hidden > 0
        self._line(tag)

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)

    def _line(self, tag: str) -> None:
        if tag in BLOCKS and self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\n")


def page_text(page: str) -> str:
    """What a reader of an HTML page sees, without its layout."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    lines = (line.rstrip() for line in "".join(parser.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _plain(path: Path) -> Iterator[str]:
    yield _read(path)


def _page(path: Path) -> Iterator[str]:
    yield page_text(_read(path))


def _dictionary(path: Path) -> Iterator[str]:
    """Entries of a dictd database (`.dict.dz`, which gzip reads), in runs."""
    held = ""
    for entry in re.split(r"\n(?=\S)", _read(path)):
        held += entry.rstrip("\n") + "\n"
        if len(held) >= ENTRIES:
            yield held
            held = ""
    yield held


def _read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix in (".gz", ".dz") else data).decode("utf-8", "replace")


LINUX_SOURCES = "usr/share/doc/linux-doc-*/**/*.rst.txt"
PACKAGES: dict[str, tuple[str, tuple[str, ...], Callable[[Path], Iterator[str]]]] = {
    "linux-doc": ("linux-doc-6.12", ("usr/share/doc/linux-doc-*/**/*.rst.gz", LINUX_SOURCES), _plain),
    "python-doc": ("python3.11-doc", ("usr/share/doc/python3.11/**/*.rst.txt",), _plain),
    "llvm-doc": ("llvm-14-doc", ("usr/share/doc/llvm-14-doc/**/*.rst.txt",), _plain),
    "git-doc": ("git-doc", ("usr/share/doc/git-doc/**/*.txt",), _plain),
    "postgresql-doc": ("postgresql-doc-15", ("usr/share/doc/postgresql-doc-15/html/**/*.html",), _page),
    "octave-doc": ("octave-doc", ("usr/share/doc/octave/octave.html/*.html",), _page),
    "vim-doc": ("vim-doc", ("usr/share/doc/vim/html/*.html",), _page),
    "erlang-doc": ("erlang-doc", ("usr/share/doc/erlang-doc/**/*.html",), _page),
    "debian-handbook": ("debian-handbook", ("usr/share/doc/debian-handbook/html/en-US/*.html",), _page),
    "dict-gcide": ("dict-gcide", ("usr/share/dictd/gcide.dict.dz",), _dictionary),
    "dict-wn": ("dict-wn", ("usr/share/dictd/wn.dict.dz",), _dictionary),
}
"""Source -> the Debian package, what is read of it, and how."""


def documents(folder: Path) -> list[dict[str, str]]:
    """All documents, each text once, in the order of their hashes. Raises BenchError for a package that is missing."""
    found: dict[str, dict[str, str]] = {}
    for source, (package, patterns, read) in PACKAGES.items():
        paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
        if not paths:
            raise BenchError(
                f"{folder} has nothing of the package {package} ({patterns[0]}): "
                f"`apt-get download {package}` and `dpkg -x {package}_*.deb {folder}`"
            )
        texts = {text for path in paths for text in read(path) if len(text) >= SHORTEST}
        size = 0
        for digest, text in sorted((hashlib.sha256(text.encode()).hexdigest(), text) for text in texts):
            size += len(text.encode())
            if size > LIMITS.get(source, size):
                break
            found.setdefault(digest, {"source": source, "text": text})
    return [found[digest] for digest in sorted(found)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.data.debian_docs", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, help="a .jsonl or .jsonl.xz")
    given = parser.parse_args()
    try:
        made = documents(given.folder)
    except BenchError as error:
        print(f"patchbench: error: {error}", file=sys.stderr)
        return 2
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in made).encode()
    given.out.write_bytes(lzma.compress(lines, preset=6) if given.out.suffix == ".xz" else lines)
    size = sum(len(document["text"].encode()) for document in made)
    print(f"wrote {len(made):,} documents, {size:,} bytes of text, to {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
