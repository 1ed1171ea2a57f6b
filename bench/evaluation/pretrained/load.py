"""Loads a pretrained model and its tokenizer; the library is imported when one is asked for, which takes seconds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from bench.evaluation.pretrained.config import PretrainedConfig, PretrainedFiles, check_installed
from bench.evaluation.pretrained.model import PretrainedModel
from bench.evaluation.pretrained.vocabulary import ByteVocabulary, TokenVocabulary, Vocabulary, byte_ids, says_of
from patchers.errors import BenchError

EVERY_KIND = "a é 東 🙂 \0"
"""Characters of one to four bytes."""

UNREADABLE = (AttributeError, EOFError, ImportError, KeyError, OSError, TypeError, ValueError)
"""What the library raises for files that it cannot make sense of."""

ON_THIS_MACHINE = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no Python of a model's folder runs (left open, the library asks at the terminal)."""

NO_TOKENIZER = "save it beside the model; for one over bytes without any, say which id byte 0 has with `byte_offset`"


def load(files: PretrainedFiles, window: int, device: torch.device) -> PretrainedModel:
    """The model of these files, in float32.

    Raises BenchError where they hold no causal language model, or no tokenizer whose tokens are known to be bytes.
    """
    check_installed()
    with _quiet():
        module = _module(files)
        found = PretrainedModel(module.eval().to(device), _vocabulary(files, module.config), window, device)
    if found.vocabulary.largest >= found.size:
        raise BenchError(
            f"{files.config.hf}: its tokenizer has ids up to {found.vocabulary.largest}, and its model "
            f"{found.size} outputs: they do not belong together"
        )
    return found


def untrained(model: PretrainedModel, seed: int) -> PretrainedModel:
    """The same with fresh weights, as the library initialises them."""
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = type(model.module)(model.config)
    return PretrainedModel(module.eval().to(model.device), model.vocabulary, model.window, model.device)


def _module(files: PretrainedFiles) -> nn.Module:
    from transformers import AutoModelForCausalLM

    library: Any = AutoModelForCausalLM
    try:
        found, said = library.from_pretrained(
            files.folder, **ON_THIS_MACHINE, dtype=torch.float32, output_loading_info=True
        )
    except (*UNREADABLE, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BenchError(f"transformers cannot load {files.config.hf} as a causal language model: {reason}") from error
    if said["missing_keys"]:
        missing = sorted(said["missing_keys"])
        raise BenchError(
            f"the files of {files.config.hf} lack {len(missing)} weights of its model, {missing[0]} first, which would "
            "be random: wanted a model as `save_pretrained` writes it"
        )
    module: nn.Module = found
    return module


def _vocabulary(files: PretrainedFiles, config: Any) -> Vocabulary:
    from transformers import AutoTokenizer

    library: Any = AutoTokenizer
    wanted = files.config
    if wanted.byte_offset is not None:
        if wanted.bos not in ("auto", "none"):
            raise BenchError(f"{wanted.hf}: with byte_offset there is no tokenizer that knows the token {wanted.bos!r}")
        bos = None if wanted.bos == "none" else _before_a_text(config)
        return ByteVocabulary(np.arange(256) + wanted.byte_offset, bos)
    try:
        tokenizer = library.from_pretrained(files.folder, **ON_THIS_MACHINE)
    except UNREADABLE as error:
        raise BenchError(
            f"{wanted.hf} has no tokenizer that transformers can load ({' '.join(str(error).split())[:200]}): "
            f"{NO_TOKENIZER}"
        ) from error
    bos = _bos(tokenizer, wanted)
    if not tokenizer.is_fast:
        return ByteVocabulary(_ids_of_bytes(tokenizer, wanted), bos)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # what looks like a special token in a text is text
    says = says_of(backend)
    special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    ids = byte_ids(says, special)
    if ids is not None:
        return ByteVocabulary(ids, bos)
    in_text = set(backend.get_vocab(with_added_tokens=True).values()) - special
    if not in_text or not backend.encode("a b", add_special_tokens=False).ids:
        raise BenchError(f"the tokenizer of {wanted.hf} makes no token of any text: {NO_TOKENIZER}")
    return TokenVocabulary(backend, says, bos, max(*in_text, bos or 0))


def _bos(tokenizer: Any, wanted: PretrainedConfig) -> int | None:
    if wanted.bos == "none":
        return None
    if wanted.bos == "auto":
        return _before_a_text(tokenizer)
    found = tokenizer.convert_tokens_to_ids(wanted.bos)
    # The library answers with the unknown token's id for a token that it does not know.
    if found is None or (found == tokenizer.unk_token_id and wanted.bos != tokenizer.unk_token):
        raise BenchError(f"{wanted.hf}: its tokenizer knows no token {wanted.bos!r}; wanted auto, none or a token")
    return int(found)


def _before_a_text(of: Any) -> int | None:
    """BOS of a tokenizer or of a model's config; else EOS, as in lm-evaluation-harness: it ends the text before."""
    found = of.bos_token_id if of.bos_token_id is not None else of.eos_token_id
    if isinstance(found, list):  # several may end what a model writes
        found = found[0]
    return None if found is None else int(found)


def _ids_of_bytes(tokenizer: Any, wanted: PretrainedConfig) -> np.ndarray:
    """Of a tokenizer written in Python, if it is one over bytes, such as ByT5's."""
    ids = np.array(tokenizer.convert_tokens_to_ids([chr(b) for b in range(256)]), dtype=object)
    data = np.frombuffer(EVERY_KIND.encode(), np.uint8)
    if None in ids or tokenizer(EVERY_KIND, add_special_tokens=False).input_ids != ids[data].tolist():
        raise BenchError(
            f"{wanted.hf}: its tokenizer {type(tokenizer).__name__} is neither one of the library tokenizers "
            "(tokenizer.json) nor one over bytes, so which bytes its tokens stand for is not known"
        )
    return ids.astype(np.int64)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's advice and progress bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
