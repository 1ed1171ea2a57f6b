from bench.api import Cut as Cut
from bench.api import Results as Results
from bench.api import check as check
from bench.api import cut as cut
from bench.api import load_suite as load_suite
from bench.api import results as results
from bench.api import run as run
from patchers.errors import BenchError as BenchError

__version__: str
__all__ = ["BenchError", "Cut", "Results", "__version__", "check", "cut", "load_suite", "results", "run"]
