"""Reads the same sentences in several languages: one file a language, one sentence a line."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchers.errors import BenchError
from patchers.named import nearest


@dataclass(frozen=True)
class AlignedTexts:
    """Line i of each language says the same."""

    sentences: Mapping[str, tuple[bytes, ...]]
    """By language, without the ends of lines."""
    reference: str

    @property
    def count(self) -> int:
        """Sentences of each language."""
        return len(self.sentences[self.reference])


def read_aligned(path: Path, reference: str, limit: int | None = None) -> AlignedTexts:
    """The .txt files of a folder, or of a tar archive; a language is called what stands last before .txt, as `deu` in
    newstest2019-ref.deu.txt. `limit`: so many of the first lines.

    Raises BenchError where there are no two languages, the reference is not among them, or files differ in their lines.
    """
    found: dict[str, tuple[bytes, ...]] = {}
    files: dict[str, str] = {}
    for name, content in _files(path):
        language = name.removesuffix(".txt").rpartition(".")[2]
        if language in found:
            raise BenchError(f"{path} has two files for {language!r}, {files[language]} and {name}; leave one out")
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        found[language], files[language] = tuple(line.removesuffix(b"\r") for line in lines), name
    if len(found) < 2:
        raise BenchError(f"{path} has {len(found)} .txt files; wanted one a language, and two at least")
    if reference not in found:
        near = nearest(reference, list(found))
        raise BenchError(f"{path} has no language {reference!r}{near}; there are: {', '.join(sorted(found))}")
    wanted = len(found[reference])
    for language, sentences in found.items():
        if len(sentences) != wanted:
            raise BenchError(
                f"{files[language]} has {len(sentences)} lines and {files[reference]} has {wanted}; line i of each "
                "must say the same"
            )
    if not any(found[reference][:limit]):
        raise BenchError(f"{files[reference]} has no sentences; wanted one a line")
    return AlignedTexts({language: found[language][:limit] for language in sorted(found)}, reference)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each."""
    try:
        if path.is_dir():
            for file in sorted(path.glob("*.txt")):
                yield file.name, file.read_bytes()
            return
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".txt"):
                    file_in_it = archive.extractfile(member)
                    assert file_in_it is not None
                    yield Path(member.name).name, file_in_it.read()
    except (OSError, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(f"cannot read {path}: {said}; wanted a folder of .txt files, or a tar archive") from error
