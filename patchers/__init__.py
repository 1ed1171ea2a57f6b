"""Ways of cutting bytes into patches. A plug-in needs two of these names: `Patcher` and `register`."""

from patchers import (
    bpe,
    bpe_predicted,
    entropy,
    hnet,
    lz,
    rules,
    sentencepiece_file,
    tiktoken_file,
    tokenizer,
    unigram,
)
from patchers.base import Kind, Patcher, Starts, Stream, state
from patchers.errors import BenchError
from patchers.registry import GROUP, create, get, load, load_plugin, names, register, without_file

# imported so that they register themselves
BUILT_IN = (
    *(rules, entropy, bpe, bpe_predicted, unigram, lz, hnet),
    *(tokenizer, sentencepiece_file, tiktoken_file),
)

__all__ = [
    "BUILT_IN",
    "GROUP",
    "BenchError",
    "Kind",
    "Patcher",
    "Starts",
    "Stream",
    "create",
    "get",
    "load",
    "load_plugin",
    "names",
    "register",
    "state",
    "without_file",
]
