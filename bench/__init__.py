"""patchbench: which way of cutting text into units is best, at what, and by how much.

The three packages of this project have common names, so the first thing to make sure of is that the
`patchers` and `models` that Python finds are the ones beside this one.
"""

import importlib.util
from pathlib import Path

__version__ = "0.1.0"


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

from patchers.errors import BenchError  # noqa: E402  (only now is it known to be ours)

__all__ = ["BenchError", "__version__"]
