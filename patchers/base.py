"""The patcher contract: bytes in, starts out.

`starts` is a boolean array with one entry a byte; `starts[t]` is true where byte t begins a patch, and
`starts[0]` is true for every non-empty document. Everything else (lengths, ids, masks) is derived from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from patchers.errors import BenchError
from patchers.identity import code_identity
from patchers.losses import Losses

Starts = NDArray[np.bool_]
Kind = Literal["rule", "fitted", "in-model"]


class Stream(ABC):
    """Cuts a document while it is being written."""

    @abstractmethod
    def push(self, byte: int) -> bool:
        """Take the next byte of the document; say whether the byte after it starts a patch.

        Byte 0 of a document always starts a patch, so nothing is asked before the first push.
        """

    def prime(self, data: bytes) -> Starts:
        """Take the beginning of a document at once; for a stream that has taken nothing yet.

        Returns what segment gives for it and one entry more, what `push` of its last byte would say: shape
        (len(data) + 1,), the first one true. This default pushes byte by byte; an override for speed leaves the stream
        as the pushes would.
        """
        return np.array([True, *(self.push(byte) for byte in data)])


def state() -> Any:
    """A dataclass field for what `fit` learns: None, a JSON value, an array, or a dict of arrays."""
    return dataclasses.field(default=None, repr=False, compare=False, kw_only=True)


def as_array(data: bytes) -> NDArray[np.uint8]:
    """The bytes of a document as a read-only uint8 array, without a copy."""
    return np.frombuffer(data, dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class Patcher(ABC):
    """One way of cutting bytes into patches. A frozen dataclass whose public fields are its YAML options.

    Fields with a leading underscore are what `fit` learnt (declare them with `state()`); `save` writes both.
    The smallest patcher defines `segment` alone. For a causal patcher `starts[t]` is a function of `data[:t]`
    only; that is declared here and verified by `patchers.audit`, never trusted.
    """

    name: ClassVar[str] = ""
    causal: ClassVar[bool] = True
    kind: ClassVar[Kind] = "rule"
    knob: ClassVar[str | None] = None
    file_option: ClassVar[str | None] = None  # the option that names a file without which there is no patcher
    source: ClassVar[str] = "a plug-in"
    version: ClassVar[int] = 1  # raised when the same options would cut otherwise than before

    @abstractmethod
    def segment(self, data: bytes) -> Starts:
        """Starts of one document, shape (len(data),)."""

    def segment_many(self, docs: Sequence[bytes]) -> list[Starts]:
        """Starts of several documents; each one as `segment` gives it alone."""
        return [self.segment(doc) for doc in docs]

    def fit(self, docs: Sequence[bytes], seed: int = 0) -> Self:
        """A new patcher that has learnt from `docs`; rules have nothing to learn and return themselves."""
        return self

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        """A new patcher whose knob makes the mean patch of `docs` that long; itself where there is no knob.

        Raises BenchError when the size is out of reach.
        """
        if self.knob is None:
            return self
        raise BenchError(
            f"patcher '{self.name}' names '{self.knob}' as its knob but does not say how to set it: "
            "override calibrate() or leave the row with calibrate: false"
        )

    def stream(self) -> Stream:
        """A new stream over an empty document. Raises BenchError for a patcher that is not causal."""
        if not self.causal:
            raise BenchError(
                f"patcher '{self.name}' is not causal and cannot cut a document that is still being written: "
                "generate with a causal patcher, or with a model that predicts its boundaries"
            )
        return RecomputingStream(self)

    def router(self, width: int) -> Any:
        """In-model patchers only: an nn.Module from encoder states of that width to starts and gates."""
        raise BenchError(f"patcher '{self.name}' is of kind '{self.kind}': only kind 'in-model' has a router")

    def learned(self, module: Any) -> Self:
        """In-model patchers only: the patcher that a trained model holds."""
        raise BenchError(f"patcher '{self.name}' is of kind '{self.kind}': only 'in-model' ones are learnt in a model")

    def flops_per_byte(self) -> float:
        """Forward FLOPs spent on one byte of text to segment it; 0 for rules."""
        return 0.0

    def training_flops(self) -> float:
        """FLOPs that `fit` spent; 0 for whatever only counts."""
        return 0.0

    def options(self) -> dict[str, Any]:
        """The public fields, as they would stand in a YAML."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if not f.name.startswith("_")}

    def identity_options(self) -> dict[str, Any]:
        """What of the options decides how it cuts: all of them, and what a file has in place of its path."""
        return self.options()

    def losses(self, docs: Sequence[bytes]) -> Losses | None:
        """What its tokens do not give back of these texts; None for a patcher without tokens, or whose tokens are the
        text's very bytes."""
        return None

    # -- keeping
    # ------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write `patcher.json` and, where there are arrays, `arrays.npz`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        header, arrays = self._content()
        (folder / "patcher.json").write_text(json.dumps(header, indent=1, sort_keys=True) + "\n")
        if arrays:
            with open(folder / "arrays.npz", "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The patcher that `save` wrote there. Raises BenchError when it is another one's, of other code of its
        plug-in, or not readable."""
        header = read_header(folder)
        if header["name"] != cls.name:
            raise BenchError(f"{folder} holds patcher '{header['name']}', not '{cls.name}': use patchers.load(folder)")
        code = code_identity(cls) or ""
        if header.get("code", code) != code:
            raise BenchError(
                f"{folder} holds patcher '{cls.name}' of other code than its plug-in has now ({header['code'][:12]}, "
                f"not {code[:12]}), which may cut otherwise: put the plug-in back as it was, or train again"
            )
        values: dict[str, Any] = {**header["options"], **header["state"]}
        if header["arrays"]:
            with np.load(Path(folder) / "arrays.npz", allow_pickle=False) as arrays:
                for key in header["arrays"]:
                    name, _, part = key.partition("/")
                    if part:
                        values.setdefault(name, {})[part] = arrays[key]
                    else:
                        values[name] = arrays[key]
        return cls(**values)

    def fingerprint(self) -> str:
        """sha256 (hex) of all that decides how this patcher cuts: what `save` writes."""
        header, arrays = self._content()
        header["options"] = self.identity_options()
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for key in sorted(arrays):
            digest.update(f"{key} {arrays[key].dtype.str} {arrays[key].shape}".encode())
            digest.update(np.ascontiguousarray(arrays[key]).data)
        return digest.hexdigest()

    def _content(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        plain: dict[str, Any] = {}
        arrays: dict[str, NDArray[Any]] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.name.startswith("_"):
                continue
            if isinstance(value, np.ndarray):
                arrays[field.name] = value
            elif isinstance(value, Mapping) and value and all(isinstance(v, np.ndarray) for v in value.values()):
                arrays.update({f"{field.name}/{part}": array for part, array in value.items()})
            else:
                plain[field.name] = value
        header = {
            "name": self.name,
            "version": self.version,
            "code": code_identity(type(self)) or "",
            "options": self.options(),
            "state": plain,
            "arrays": sorted(arrays),
        }
        return header, arrays


def read_header(folder: str | Path) -> dict[str, Any]:
    """What `Patcher.save` wrote into patcher.json."""
    path = Path(folder) / "patcher.json"
    try:
        header: dict[str, Any] = json.loads(path.read_text())
        missing = {"name", "options", "state", "arrays"} - header.keys()
    except (OSError, ValueError) as error:
        raise BenchError(f"no saved patcher can be read from {path}: {error}") from error
    if missing:
        raise BenchError(f"{path} is not a saved patcher: it has no '{sorted(missing)[0]}'")
    return header


class RecomputingStream(Stream):
    """The default stream: segments the document so far, with one byte of filling, again at each push.

    Causality makes it right: `starts[t]` may not depend on byte t, so the filling does not matter. A push
    costs one `segment` of all bytes so far; patchers that are streamed over long documents override `stream`.
    """

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher
        self._data = bytearray()

    def push(self, byte: int) -> bool:
        self._data.append(byte)
        return bool(self._patcher.segment(bytes(self._data) + b"\0")[-1])

    def prime(self, data: bytes) -> Starts:
        self._data = bytearray(data)
        return self._patcher.segment(data + b"\0")


class RecentStream(Stream):
    """For rules that read at most the last `reach` bytes: segments those alone."""

    def __init__(self, patcher: Patcher, reach: int) -> None:
        self._patcher, self._reach = patcher, reach
        self._tail = b""

    def push(self, byte: int) -> bool:
        self._tail = (self._tail + bytes([byte]))[-self._reach :]
        return bool(self._patcher.segment(self._tail + b"\0")[-1])

    def prime(self, data: bytes) -> Starts:
        self._tail = data[-self._reach :]
        return self._patcher.segment(data + b"\0")


class ClockStream(Stream):
    """For rules that read the position only: segments zeros, twice as many each time they run out."""

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher
        self._starts = patcher.segment(bytes(1024))
        self._position = 0

    def push(self, byte: int) -> bool:
        self._position += 1
        if self._position == len(self._starts):
            self._starts = self._patcher.segment(bytes(2 * self._position))
        return bool(self._starts[self._position])

    def prime(self, data: bytes) -> Starts:
        self._position = len(data)
        if self._position >= len(self._starts):
            self._starts = self._patcher.segment(bytes(2 * self._position))
        return self._starts[: self._position + 1].copy()
