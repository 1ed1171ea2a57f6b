"""Byte-pair encoding: a patch is a token. Learnt with the tokenizers library, encoded with tiktoken."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Self

from tokenizers import Tokenizer, models, trainers

from patchers.errors import BenchError
from patchers.registry import register
from patchers.vocabularies.encodings import Encoder, from_tokens, published
from patchers.vocabularies.tokens import byte_letters, readable, spelled, words_of_bytes
from patchers.vocabularies.vocabulary import VocabularyPatcher

# What a superword may hold: anything but digits, in groups of three, and the ends of lines.
_SUPERWORDS = r"\p{N}{1,3}+|[^\r\n\p{N}]++[\r\n]*+|[\r\n]++"
_STRETCH = re.compile(r"\d{1,3}|[^\r\n\d]+[\r\n]*|[\r\n]+")
_RUN = 256  # tokens that superwords are learnt from in one piece, so that learning stays linear in a document


@register("bpe")
class BPE(VocabularyPatcher):
    """Tokens of byte-level BPE (Sennrich et al. 2016; Radford et al. 2019).

    Either `vocab` tokens learnt from the training documents, which are cut into words as cl100k_base does, or
    a published `encoding`, which has no knob: `calibrate` returns the patcher as it is.
    """

    source: ClassVar[str] = "tiktoken; byte-level BPE (Sennrich et al. 2016)"
    encoding: Literal["gpt2", "cl100k_base", "o200k_base"] | None = None

    @functools.cached_property
    def _encoder(self) -> Encoder:
        if self.encoding is not None:
            return published(self.encoding)
        return self._encoder_of(self.tokens()[: self.vocab])

    def fit(self, docs: Sequence[bytes], seed: int = 0) -> Self:
        if self.encoding is not None:
            return self
        merges = learn_merges(readable(docs), max(self.learnt, self.vocab), words_of_bytes(), byte_letters())
        return self._with([spelled(token) for token in merges])

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        return self if self.encoding is not None else super().calibrate(docs, bytes_per_patch)

    def tokens(self) -> list[bytes]:
        return super().tokens() if self.encoding is None else published(self.encoding).tokens

    def _encoder_of(self, tokens: list[bytes]) -> Encoder:
        return from_tokens(tokens)


@register("superbpe")
class SuperBPE(VocabularyPatcher):
    """BPE inside words up to `transition` tokens, then merges across words (Liu et al. 2025, section 2).

    The second stage still keeps lines apart and digits in groups of three. A `vocab` below `transition` has
    no superwords yet.
    """

    source: ClassVar[str] = "SuperBPE (Liu et al. 2025)"
    transition: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transition < 256:
            raise BenchError(f"transition must be at least 256, got {self.transition}")

    def fit(self, docs: Sequence[bytes], seed: int = 0) -> Self:
        first = [spelled(t) for t in learn_merges(readable(docs), self.transition, words_of_bytes(), byte_letters())]
        tokens = [bytes([b]) for b in range(256)] + first
        encoder = self._encoder_of(tokens)
        letters = {chr(0x10000 + i): i for i in range(len(tokens))}  # one letter a token of the first stage

        def written() -> Iterator[str]:
            for text in readable(docs):
                for stretch in _STRETCH.findall(text):
                    ids = encoder.encode(stretch.encode())[0].tolist()
                    for at in range(0, len(ids), _RUN):
                        yield "".join(chr(0x10000 + i) for i in ids[at : at + _RUN])

        second = learn_merges(written(), max(self.learnt, self.vocab), None, letters)
        joined = (b"".join(tokens[letters[letter]] for letter in merge) for merge in second)
        return self._with(list(dict.fromkeys([*first, *joined])))

    def _encoder_of(self, tokens: list[bytes]) -> Encoder:
        return from_tokens(tokens, _SUPERWORDS)


def learn_merges(texts: Iterable[str], vocab: int, words: Any, letters: dict[str, int]) -> list[str]:
    """What the merges make, in their order, as strings over `letters`; a token that is made twice comes once."""
    tokenizer = Tokenizer(models.BPE())
    if words is not None:
        tokenizer.pre_tokenizer = words
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        initial_alphabet=sorted(letters),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return list(dict.fromkeys(first + second for first, second in merges))
