"""Ways of cutting bytes into patches. A plug-in needs two of these names: `Patcher` and `register`."""

from patchers import bpe, entropy, rules
from patchers.base import Kind, Patcher, Starts, Stream, state
from patchers.errors import BenchError
from patchers.registry import GROUP, create, get, load, load_plugin, names, register

__all__ = [
    "GROUP",
    "BenchError",
    "Kind",
    "Patcher",
    "Starts",
    "Stream",
    "bpe",
    "create",
    "entropy",
    "get",
    "load",
    "load_plugin",
    "names",
    "register",
    "rules",
    "state",
]
