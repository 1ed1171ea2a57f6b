"""Patchers whose vocabulary a user brings as a file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from patchers.base import Patcher, Starts, state
from patchers.errors import BenchError
from patchers.losses import Losses
from patchers.vocabularies.alignment import ByteAligned, Ints, Library


@dataclasses.dataclass(frozen=True)
class FilePatcher(Patcher):
    """A patcher that is what its file says; there is nothing to fit and no knob.

    The file is read when the patcher is made, and its content is a part of the patcher: `save` keeps it, and the
    fingerprint and a run's identity have its SHA-256 in place of its path. So the same file elsewhere is the same row,
    and an edited one is another.
    """

    causal: ClassVar[bool] = False
    file_option: ClassVar[str | None] = "file"
    wanted: ClassVar[str]
    """What the file is, for messages."""
    _file: NDArray[np.uint8] | None = state()  # noqa: RUF009  the bytes of the file

    def __post_init__(self) -> None:
        if self._file is None:
            object.__setattr__(self, "_file", self._read())
            self._open()  # what is wrong with it is said now, and not after other rows have been trained

    @abstractmethod
    def _open(self) -> object:
        """What encodes, made from `content`. Raises BenchError for a file that is not what it should be."""

    @property
    def _path(self) -> str:
        assert self.file_option is not None
        path: str = getattr(self, self.file_option)
        return path

    def _read(self) -> NDArray[np.uint8]:
        path = self._path
        if not path:
            raise BenchError(
                f"patcher '{self.name}' needs '{self.file_option}': the path of {self.wanted}, "
                f"as {{name: {self.name}, {self.file_option}: PATH}}"
            )
        try:
            with open(os.path.expanduser(path), "rb") as file:
                return np.frombuffer(file.read(), dtype=np.uint8)
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise BenchError(
                f"'{self.file_option}' of patcher '{self.name}' is {path!r}, which cannot be read: {said}; "
                f"give the path of {self.wanted}"
            ) from error

    @property
    def content(self) -> bytes:
        """The file."""
        assert self._file is not None
        return self._file.tobytes()

    def _unusable(self, why: object) -> BenchError:
        """For a file that is not what it should be."""
        words = " ".join(str(why).split())[:200]
        return BenchError(f"{self._path!r} is not {self.wanted} that can be used here: {words}; give another file")

    def identity_options(self) -> dict[str, Any]:
        assert self._file is not None
        assert self.file_option is not None
        digest = hashlib.sha256(np.ascontiguousarray(self._file).data).hexdigest()
        return {**self.options(), self.file_option: f"sha256:{digest}"}


@dataclasses.dataclass(frozen=True)
class LibraryPatcher(FilePatcher):
    """Tokens of a library's tokenizer; see `patchers.vocabularies.alignment` for how they meet the bytes of a text."""

    @abstractmethod
    def _library(self) -> Library:
        """The library's tokenizer, made from `content`. May raise whatever the library raises."""

    def _open(self) -> ByteAligned:
        return self._aligned

    @functools.cached_property
    def _aligned(self) -> ByteAligned:
        try:
            return ByteAligned(self._library())
        except BenchError:
            raise
        except Exception as error:
            raise self._unusable(error) from error

    def segment(self, data: bytes) -> Starts:
        return self._aligned.starts([data])[0]

    def segment_many(self, docs: Sequence[bytes]) -> list[Starts]:
        return self._aligned.starts(docs)

    def encode(self, data: bytes) -> tuple[Ints, Starts]:
        """Token ids, int32 (P,), and starts, bool (len(data),): one start an id."""
        return self._aligned.encode([data])[0]

    def encode_many(self, docs: Sequence[bytes]) -> list[tuple[Ints, Starts]]:
        """`encode` of each document."""
        return self._aligned.encode(docs)

    @property
    def vocab_size(self) -> int:
        """How many ids there are: the tokenizer's, and 256 more where it has no token for each byte."""
        return self._aligned.vocab_size

    def tokens(self) -> list[bytes]:
        """The bytes of each id; b"" for one that spells nothing."""
        return self._aligned.tokens

    def losses(self, docs: Sequence[bytes]) -> Losses:
        return self._aligned.losses(docs)
