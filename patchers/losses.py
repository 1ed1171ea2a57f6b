"""What a tokenizer loses or changes: the bytes of a text that its tokens do not give back, by kind, with an example."""

from __future__ import annotations

import dataclasses
import unicodedata

OTHER = "other changes"


@dataclasses.dataclass(frozen=True)
class Loss:
    """One kind of loss."""

    size: int
    """How many bytes of the texts are of this kind."""
    text: bytes
    """An example: what stood in the text,"""
    token: bytes | None
    """and what its token says; None where no token stands for it."""


@dataclasses.dataclass(frozen=True)
class Losses:
    """Of some texts."""

    total_bytes: int
    kinds: dict[str, Loss]

    @property
    def changed_bytes(self) -> int:
        return sum(loss.size for loss in self.kinds.values())

    @property
    def lossless(self) -> bool:
        return not self.kinds

    def words(self) -> str:
        """For a person: each kind with its share of the bytes and an example, the largest first."""
        if self.lossless:
            return "its tokens give back every byte"
        kinds = sorted(self.kinds.items(), key=lambda item: -item[1].size)
        each = [f"{name} {_share(loss.size, self.total_bytes)} ({_example(loss)})" for name, loss in kinds]
        changed = _share(self.changed_bytes, self.total_bytes)
        return f"its tokens do not give back {changed} of the bytes: {', '.join(each)}"

    def as_json(self) -> dict[str, object]:
        """`changed_share` of the bytes; by kind the same, and an example; and all in words."""
        total = max(1, self.total_bytes)
        return {
            "changed_share": self.changed_bytes / total,
            "words": self.words(),
            "kinds": {
                name: {"share": loss.size / total, "example": _example(loss)} for name, loss in self.kinds.items()
            },
        }


def _share(part: int, total: int) -> str:
    return f"{100 * part / max(1, total):.2g} %"


def _example(loss: Loss) -> str:
    return _quoted(loss.text) if loss.token is None else f"{_quoted(loss.text)} becomes {_quoted(loss.token)}"


def _quoted(data: bytes) -> str:
    try:
        text = repr(data.decode())
    except UnicodeDecodeError:
        text = repr(data)
    return text if len(text) <= 40 else f"{text[:40]}… ({len(data)} bytes)"


def kind_of(text: bytes, token: bytes | None, unknown: bool) -> str:
    """What happened to a stretch of text, given what the tokens there say (None: nothing stands there)."""
    try:
        before = text.decode()
    except UnicodeDecodeError:
        return "bytes that are not UTF-8" if token is None else OTHER  # or a part of a character
    if unknown:
        return "unknown token"
    after = "" if token is None else token.decode(errors="replace")
    if after.split() == before.split():
        return "white space"
    if not after:
        return "dropped characters"
    bare_before, bare_after = "".join(before.split()), "".join(after.split())
    if bare_after == bare_before.lower():
        return "lower case"
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        if bare_after == "".join(unicodedata.normalize(form, bare_before).split()):
            return f"normalization ({form})"
    if bare_after == unicodedata.normalize("NFKC", bare_before).casefold():
        return "normalization (NFKC) and case folding"
    if bare_after.lower() == _without_accents(bare_before).lower():
        return "accents"
    rest = iter(bare_before)
    if all(character in rest for character in bare_after):
        return "dropped characters"
    return OTHER


def _without_accents(text: str) -> str:
    """Without combining marks, as BERT's normalizer leaves it."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
