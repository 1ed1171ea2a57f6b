"""patchbench: which way of cutting text into units is best, at what, and by how much.

    import bench

    results = bench.run("quick")         # what `patchbench run quick` does; a live table in a notebook
    results.frame()                      # a pandas DataFrame, one row a record
    bench.cut("entropy:model=ngram", "How long is a patch of text?")

`bench.api` has what can be done from Python; it is imported when it is first used. The three packages of this project
have common names, so the first thing to make sure of is that the `patchers` and `models` that Python finds are the
ones beside this one.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "BenchError": "patchers.errors",
    **dict.fromkeys(("Cut", "Results", "check", "cut", "load_suite", "results", "run"), "bench.api"),
}
"""Where each public name is; `__init__.pyi` says the same to type checkers."""

__all__ = ["BenchError", "Cut", "Results", "__version__", "check", "cut", "load_suite", "results", "run"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _check_siblings() -> None:
    root = Path(__file__).resolve().parent.parent
    for name in ("patchers", "models"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != root / name:
            raise ImportError(
                f"patchbench needs its own package {name!r} in {root}, but Python finds {found or 'none'}; "
                "install patchbench with make or pip in an environment of its own, and do not run it from a "
                f"folder that has a {name!r} of its own"
            )


_check_siblings()
