"""Tiny models in Hugging Face's format, saved by `transformers` itself: over tokens, over bytes, and BLT's port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXT = "The quick brown fox jumps over a lazy dog; été, naïve, 東京, привет. Cut here and there into units of text.\n"
END = "<|endoftext|>"


def bpe(vocab: int = 320, prefix_space: bool = False) -> Any:
    """A byte-level BPE tokenizer as GPT-2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def wordpiece() -> Any:
    """A lower-casing WordPiece tokenizer as BERT's, with unknown tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    tokenizer.train_from_iterator([TEXT.lower()], trainer)
    return tokenizer


def unigram() -> Any:
    """A Unigram tokenizer with Metaspace as SentencePiece's, without bytes to fall back on."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def llama() -> Any:
    """BPE over characters with Metaspace and a token for each byte, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    fallback = [f"<0x{b:02X}>" for b in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", *fallback], show_progress=False)
    tokenizer.train_from_iterator(["the quick brown fox"] * 3, trainer)
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Any, **special: str) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_gpt2(folder: Path, tokenizer: Any | None = None, positions: int = 512, **special: str) -> Any:
    """GPT-2's architecture over this tokenizer (by default `bpe`); its weights are large, so that texts differ."""
    from transformers import GPT2Config, GPT2LMHeadModel

    if tokenizer is None:
        tokenizer, special = bpe(), {"bos_token": END, "eos_token": END}
    save_tokenizer(folder, tokenizer, **special)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=positions, n_embd=32, n_layer=2, n_head=2,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return _saved(folder, GPT2LMHeadModel(config))


def save_byte_llama(folder: Path) -> Any:
    """Llama's architecture over ByT5's vocabulary: 3 special ids, 256 bytes, and 125 that no text has."""
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    ByT5Tokenizer().save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, initializer_range=0.3, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return _saved(folder, LlamaForCausalLM(config))


def save_blt(folder: Path) -> Any:
    """BLT's port: patches by its own entropy model, ids of bytes from 4 on, no tokenizer."""
    from transformers import BltConfig, BltForCausalLM

    small = {
        "vocab_size": 260, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48
    }  # fmt: skip
    local = {**small, "hidden_size_global": 64, "cross_attn_k": 2}
    config = BltConfig(
        vocab_size=260, patching_threshold=5.3, encoder_hash_byte_group_vocab=64, encoder_hash_byte_group_size=[3, 4],
        local_attention_window_len=16, patcher_config=small, encoder_config=local, decoder_config=local,
        global_config={**small, "hidden_size": 64}, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    module = BltForCausalLM(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return _saved(folder, module)


def _saved(folder: Path, module: Any) -> Any:
    module.eval().save_pretrained(folder)
    return module
