"""A suite on several ranks of one run: `torchrun --standalone --nproc-per-node=2 -m bench.train_entry SUITE ...`.

Every rank does the same steps (`bench.ranks`); `launch.parallel`, `micro_bytes` and `recompute` say how a model is
spread.
`patchbench run` begins this where a suite has `launch: {devices: N}`. Killed ranks are begun again by torchrun
(`--max-restarts`) and go on from the last checkpoint, as does another number of ranks. A run that fails has a record
that says so, and the exit code is 0 all the same: torchrun would train it again.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bench import ranks
from bench.commands.options import DEFAULT_RESULTS, Overrides, Plugins, Results, SuiteArgument
from bench.stopping import EXIT_CODE, Stopped, heed_sigterm
from patchers.errors import BenchError


def train(
    suite: SuiteArgument,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    only: Annotated[str | None, typer.Option(metavar="RUN_ID", hidden=True)] = None,
) -> None:
    """Do what is missing of a suite as one rank of those that torchrun began."""
    from bench.config import load_suite
    from bench.progress import Display
    from bench.run import Silent, run_suite

    config = load_suite(suite, overrides or [], plugin or [])
    ranks.begin()
    try:
        if ranks.is_first():
            with Display() as display:
                run_suite(config, results, display, only)
        else:
            run_suite(config, results, Silent(), only)
    finally:
        ranks.end()


def main() -> int:
    heed_sigterm()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    try:
        app(standalone_mode=False)
    except BenchError as error:
        print(f"patchbench: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Stopped:
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
