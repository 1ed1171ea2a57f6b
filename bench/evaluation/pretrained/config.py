"""What a row says of a pretrained model, where its files are, and what they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from patchers.errors import BenchError

READ = (".json", ".safetensors", ".bin", ".model", ".txt")
"""Endings of the files that a model and its tokenizer are loaded from."""

VERSION = 1
"""Raised when the same model would get other numbers than before."""


@dataclass(frozen=True)
class PretrainedConfig:
    """A causal language model in Hugging Face's format, over tokens or over bytes."""

    hf: str
    """A folder that `save_pretrained` wrote, or the name of a model that is in the Hugging Face cache."""

    revision: str | None = None
    """Of a name: a branch, a tag or a commit."""

    download: bool = False
    """Whether a name that is not in the cache may be fetched; nothing is, unless this is true."""

    bos: str = "auto"
    """The token that stands before each window: `auto` (the tokenizer's or the model's BOS, else its EOS, else none),
    `none`, or a token."""

    byte_offset: Annotated[int, Field(ge=0)] | None = None
    """The id of byte 0, for a model over bytes that has no tokenizer."""


@dataclass(frozen=True)
class PretrainedFiles:
    """A pretrained model that is on this machine."""

    config: PretrainedConfig
    folder: Path = field(repr=False)
    fingerprint: str
    """SHA-256 of the names and the content of all files that are read, 16 hex digits."""

    def identity(self) -> dict[str, Any]:
        """What a run's numbers depend on. Where the folder lies is no part of it."""
        c = self.config
        return {
            "kind": "pretrained",
            "hf": Path(c.hf).name if Path(c.hf).expanduser().is_dir() else c.hf,
            "files": self.fingerprint,
            **({} if c.bos == "auto" else {"bos": c.bos}),
            **({} if c.byte_offset is None else {"byte_offset": c.byte_offset}),
            **({} if VERSION == 1 else {"version": VERSION}),
        }


def locate(config: PretrainedConfig) -> PretrainedFiles:
    """Find the files of a model. Raises BenchError where there are none, saying how they would be found."""
    folder = Path(config.hf).expanduser()
    if not folder.is_dir():
        folder = _in_cache(config)
    elif config.revision is not None:
        raise BenchError(f"a revision is for the name of a model, and {config.hf} is a folder; leave revision out")
    if not (folder / "config.json").is_file():
        raise BenchError(f"{config.hf} has no config.json, so no model that `save_pretrained` of transformers wrote")
    return PretrainedFiles(config, folder, _fingerprint(folder))


def check_installed() -> None:
    """Raises BenchError where the library is not there that loads such models."""
    if find_spec("transformers") is None:
        raise BenchError(
            "a row with `model: {hf: ...}` needs the package transformers, which is not installed: "
            "pip install 'patchbench[hf]'"
        )


def _in_cache(config: PretrainedConfig) -> Path:
    """The snapshot of a model by its name, fetched where that is allowed."""
    check_installed()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    missing = f"{config.hf!r} is neither a folder nor a model in the Hugging Face cache of this machine"
    patterns = [f"*{ending}" for ending in READ]
    try:
        found = snapshot_download(
            config.hf, revision=config.revision, local_files_only=not config.download, allow_patterns=patterns
        )
    except HFValidationError as error:
        raise BenchError(f"{missing}: give the folder of a saved model") from error
    except (OSError, ValueError) as error:  # all that the library raises for what is not there or not reached
        if config.download:
            raise BenchError(f"{missing}, and it cannot be fetched ({' '.join(str(error).split())})") from error
        raise BenchError(
            f"{missing}: give the folder of a saved model, or let it be fetched with `download: true`"
        ) from error
    return Path(found)


def _fingerprint(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in READ and path.is_file():
            seen = path.stat()
            whole.update(f"{path.name}\0{_digest(path, seen.st_size, seen.st_mtime_ns)}\n".encode())
    return whole.hexdigest()[:16]


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, read once while its size and its time of change are these."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
