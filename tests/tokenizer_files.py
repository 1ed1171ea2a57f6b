"""Small tokenizer files that the tests make themselves: of Hugging Face's `tokenizers`, SentencePiece and tiktoken.

The first ones are written by hand, so that they are the same on every machine; `trained` ones learn from real text.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

END = "<|endoftext|>"


@functools.cache
def folder() -> Path:
    """Where they lie until the process ends."""
    made = tempfile.TemporaryDirectory(prefix="patchbench-tokenizers-")
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[Any] = []


@functools.cache
def options_for(name: str) -> dict[str, Any]:
    """What the patcher of this name needs to be made: a small file, where it needs one."""
    makers = {"tokenizer": by_hand_tokenizer, "sentencepiece": by_hand_model, "tiktoken": by_hand_ranks}
    options = {"tiktoken": "ranks"}
    return {options.get(name, "file"): str(makers[name]())} if name in makers else {}


# --- by hand


def by_hand_tokenizer() -> Path:
    """Byte-level BPE with a few merges and a special token, as GPT-2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "a"), ("aa", "aa"), ("o", "w"), ("Ã", "©"), ("e", "r")]
    vocab = {letter: i for i, letter in enumerate([*alphabet, *(first + second for first, second in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return saved(tokenizer, "by-hand.json")


def saved(tokenizer: Tokenizer, name: str) -> Path:
    path = folder() / name
    tokenizer.save(str(path))
    return path


def by_hand_ranks() -> Path:
    tokens = [*(bytes([b]) for b in range(256)), b"th", b"the", b" the", b"aa", b"aaaa", b"ow", b"er"]
    path = folder() / "by-hand.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)))
    return path


def by_hand_model(name: str = "by-hand.model", **normalizer: bool) -> Path:
    """A unigram model with byte fallback. `normalizer`: add_dummy_prefix, remove_extra_whitespaces."""
    pieces = [("<unk>", 0.0, 2), *((f"<0x{b:02X}>", -9.0, 6) for b in range(256))]
    words = ["▁", "▁the", "the", "aaaa", "er", "ow", "é", "T", "h", "e"]
    pieces += [(word, -3.0 - 0.1 * i, 1) for i, word in enumerate(words)]
    pieces += [(chr(c), -6.0, 1) for c in range(ord("a"), ord("z") + 1) if chr(c) not in "he"]
    flags = {"add_dummy_prefix": 3, "remove_extra_whitespaces": 4}
    trainer = _field(3, 1) + _field(35, 1)  # model_type: unigram, byte_fallback
    spec = _field(1, b"identity") + b"".join(_field(flags[key], int(value)) for key, value in normalizer.items())
    content = b"".join(_field(1, _field(1, p.encode()) + _field(2, s) + _field(3, kind)) for p, s, kind in pieces)
    path = folder() / name
    path.write_bytes(content + _field(2, trainer) + _field(3, spec))
    return path


def _field(number: int, value: bytes | int | float) -> bytes:
    """A field of a protocol buffer: https://protobuf.dev/programming-guides/encoding/."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# --- learnt from text


def gpt2_like(texts: Iterable[str], **byte_level: bool) -> Tokenizer:
    """Byte-level BPE with a special token and a post-processor, as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **byte_level})
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def unigram_like(texts: Iterable[str]) -> Tokenizer:
    """Unigram with NFKC and Metaspace, as T5's and XLNet's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1000, unk_token="<unk>", special_tokens=["<unk>", END], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wordpiece_like(texts: Iterable[str]) -> Tokenizer:
    """WordPiece in lower case with ##, as BERT's, with what it puts around a text, truncation and padding."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", END]
    trainer = trainers.WordPieceTrainer(vocab_size=1000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    around = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(pad_id=3, pad_token="[PAD]", length=16)
    return tokenizer


def byte_fallback_like(texts: Iterable[str]) -> Tokenizer:
    """BPE over text with a token for each byte, spaces written as ▁, as Llama's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    single = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=["<unk>", *single], limit_alphabet=80, show_progress=False
    )
    words = (f"▁{word}" for text in texts for word in text.split())
    tokenizer.train_from_iterator(words, trainer)
    # The trainer makes the bytes special tokens, which would be found in a text; they are ordinary ones.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] == "<unk>"]
    return Tokenizer.from_str(json.dumps(content))


def trained_model(texts: Iterable[str], name: str, **options: Any) -> Path:
    path = folder() / name
    lines = list(itertools.chain.from_iterable(text.splitlines() for text in texts))
    with open(path, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file, vocab_size=1000, minloglevel=2, **options
        )
    return path
