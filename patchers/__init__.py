"""Ways of cutting bytes into patches. A plug-in needs two of these names: `Patcher` and `register`."""

from patchers.base import Kind, Patcher, Starts, Stream, state
from patchers.errors import BenchError
from patchers.registry import BUILT_IN, GROUP, create, get, load, load_plugin, names, register, without_file

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
