"""The first pass over a source: writes its texts to disk with the hashes that choose and order them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.data.config import SPLITS, DataConfig, Unit, units
from bench.system.files import Damaged, MappedFile, SummedFile, Sums, read_header, warn, write_header, writing

ENTRY = np.dtype(
    [("digest", ">u8", 4), ("unit", ">i4"), ("begin", ">i8"), ("size", ">i8"), ("title", ">i8"), ("title_size", ">i8")]
)
"""A text: its SHA-256, and where it and its title lie in the spool of its unit."""
PACKED = struct.Struct(">32siqqqq")
"""The same, for one."""

FILES = (".data", ".titles", ".entries")
SAID_EVERY = 2**26
"""Bytes between two words about how far the reading is."""

Say = Callable[[str], None]
Skipped = tuple[int, str]
"""How many texts of a unit were invalid and passed over, and what was wrong with the first."""


@dataclass
class Spool:
    """Texts of a source, unit by unit: `N.data`, `N.titles` and `N.entries`, with `N.json` when the unit is whole."""

    folder: Path
    config: DataConfig
    entries: np.ndarray = field(default_factory=lambda: np.zeros(0, ENTRY))
    cutoff: bytes | None = None
    """What comes after it in the order cannot be among the first `max_bytes`."""
    skipped: int = 0
    """Texts that were invalid and passed over."""
    first_skipped: str = ""
    handles: dict[str, int] = field(default_factory=dict)

    def fill(self, say: Say) -> None:
        """Read the units that are not whole yet."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for number, unit in enumerate(units(self.config)):
            path = self.folder / str(number)
            found = _whole(path, unit) or self._read(number, unit, path, say)
            entries, (skipped, first) = found
            self.skipped, self.first_skipped = self.skipped + skipped, self.first_skipped or first
            self.entries = np.concatenate([self.entries, entries], dtype=ENTRY)
            if self.config.max_bytes is not None:
                self._cut_off(self.entries)

    def _read(self, number: int, unit: Unit, path: Path, say: Say) -> tuple[np.ndarray, Skipped]:
        rows, since, said = bytearray(), 0, 0
        skipped, first = 0, ""
        with SummedFile(path.with_suffix(".data")) as data, SummedFile(path.with_suffix(".titles")) as titles:
            for text in unit.texts():
                if text.invalid is not None:
                    skipped, first = skipped + 1, first or text.invalid
                digest = hashlib.sha256(text.data).digest()
                if not text.data or (self.cutoff is not None and digest[8:] + digest[:8] > self.cutoff):
                    continue
                title = json.dumps([text.title, text.topic]).encode()
                rows += PACKED.pack(digest, number, data.size, len(text.data), titles.size, len(title))
                data.write(text.data)
                titles.write(title)
                since += len(text.data)
                # What is read may be far more than what is wanted: pass over what cannot be in the result.
                if self.config.max_bytes is not None and since > 4 * self.config.max_bytes + 2**20:
                    self._cut_off(np.concatenate([self.entries, np.frombuffer(rows, ENTRY)], dtype=ENTRY))
                    since = 0
                if data.size - said > SAID_EVERY:
                    said = data.size
                    say(f"reading {self.config.label}: {(int(self.entries['size'].sum()) + said) / 1e6:,.0f} MB")
        with SummedFile(path.with_suffix(".entries")) as entries:
            entries.write(rows)
        sums = {name: file.sums.as_json() for name, file in zip(FILES, (data, titles, entries), strict=True)}
        write_header(path.with_suffix(".json"), {"state": unit.state, "files": sums, "skipped": [skipped, first]})
        return np.frombuffer(rows, ENTRY), (skipped, first)

    def _cut_off(self, entries: np.ndarray) -> None:
        """Remember the last text in the order that `max_bytes` can reach among these."""
        assert self.config.max_bytes is not None
        ordered = in_order(entries)
        last = int(np.searchsorted(ordered["size"].cumsum(), self.config.max_bytes, side="right"))
        if last < len(ordered):
            digest = ordered["digest"][last].tobytes()
            self.cutoff = digest[8:] + digest[:8]

    def splits(self) -> dict[str, np.ndarray]:
        """The entries of each split, in order. Raises BenchError as `bench.data.config.load` does."""
        config, ordered = self.config, in_order(self.entries)
        if not len(ordered):
            raise config.no_text()
        ordered = ordered[: config.within("all", ordered["size"])]
        place = ordered["digest"][:, 0].astype(np.float64) / 2**64
        bounds = {"test": (0.0, config.test), "calibration": (config.test, config.test + config.calibration)}
        bounds["train"] = (config.test + config.calibration, np.inf)
        splits = {name: ordered[(place >= bounds[name][0]) & (place < bounds[name][1])] for name in SPLITS}
        if len(splits["test"]):
            splits["test"] = splits["test"][: config.within("test", splits["test"]["size"])]
        config.check_splits(len(ordered), {name: len(split) for name, split in splits.items()})
        return splits

    def documents(self, entries: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
        """Text and title of each entry. Raises Damaged for one that is not as it was read."""
        for entry in entries:
            text = self._piece(int(entry["unit"]), ".data", int(entry["begin"]), int(entry["size"]))
            if hashlib.sha256(text).digest() != entry["digest"].tobytes():
                file = self.folder / f"{entry['unit']}.data"
                raise Damaged(f"{file} is damaged: delete {self.folder} and run the same command, which reads again")
            yield text, self._piece(int(entry["unit"]), ".titles", int(entry["title"]), int(entry["title_size"]))

    def _piece(self, unit: int, kind: str, begin: int, size: int) -> bytes:
        name = f"{unit}{kind}"
        if name not in self.handles:
            self.handles[name] = os.open(self.folder / name, os.O_RDONLY)
        return os.pread(self.handles[name], size, begin)  # and not mapped: what is looked at once is not kept

    def close(self) -> None:
        for handle in self.handles.values():
            os.close(handle)
        self.handles.clear()


def in_order(entries: np.ndarray) -> np.ndarray:
    """Entries in the order of `bench.data.config.read`, the first of each text that comes more than once."""
    first, second, third, fourth = (entries["digest"][:, i] for i in range(4))
    ordered = entries[np.lexsort((np.arange(len(entries)), first, fourth, third, second))]
    again = (ordered["digest"][1:] == ordered["digest"][:-1]).all(1)
    return ordered[np.concatenate((np.ones(min(1, len(ordered)), bool), ~again))]


def _whole(path: Path, unit: Unit) -> tuple[np.ndarray, Skipped] | None:
    """The entries of a unit that was read to its end, as it is now, and what was skipped; None where there are none.

    Each text has its own checksum, which is looked at when it is copied; of their file only the size is.
    """
    if not path.with_suffix(".json").exists():
        return None
    try:
        header = read_header(path.with_suffix(".json"))
        if header.get("state") != unit.state or header.get("files", {}).keys() != set(FILES):
            return None
        files = {name: MappedFile(path.with_suffix(name), Sums.of_json(header["files"][name]), "") for name in FILES}
        files[".titles"].check_all()
        skipped, first = header.get("skipped", (0, ""))
        return np.asarray(files[".entries"][:]).view(ENTRY), (skipped, first)
    except Damaged as error:
        warn(f"{error}; its source is read again")
        return None
