"""The command `patchbench`: registers all commands and turns errors into exit codes.

What a user can mend is one line on standard error, `patchbench: error: ...`, and exit code 2. Whatever needs
torch is imported by the command that needs it, so that `list` and `--help` answer at once.
"""

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from bench import BenchError, __version__
from bench.cli.commands import (
    claims,
    cutting,
    data,
    evaluating,
    fitting,
    intrinsics,
    lists,
    reports,
    suites,
    tuning,
    writing,
)
from bench.system.signals import EXIT_CODE, Stopped
from patchers.registry import PLUGIN

app = typer.Typer(
    name="patchbench",
    help="Given the same bytes, the same compute and the same model, which way of cutting text into units is best?",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def patchbench(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"patchbench {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


# In the order that --help shows them.
for command in (
    *(suites.run, suites.status, suites.plan, reports.table, fitting.fit, fitting.agree, reports.plot, reports.report),
    claims.verdict,
    tuning.tune,
    *(cutting.check, cutting.segment, intrinsics.intrinsics, cutting.new_patcher),
    *(writing.generate, writing.trace),
    *(evaluating.lm_eval, evaluating.lm_eval_tasks),
):
    app.command()(command)
app.command(name="list")(lists.list_)
app.command()(lists.schema)
app.add_typer(data.data, name="data")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. A BenchError or a wrong call is one line and 2."""
    try:
        code = app(args=args, prog_name="patchbench", standalone_mode=False)
    except BenchError as error:
        return _fail(str(error))
    except Stopped:
        return _fail("stopped by SIGTERM; the same command goes on from here", EXIT_CODE)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "patchbench"
        message = error.format_message().replace("Value error, ", "")
        return _fail(f"{message} See {command} --help.")
    except typer.Abort:
        return _fail("stopped")
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # wherever it was looked at first
            return _fail(f"no file or folder can have the name {str(error.filename)[:80]}...; give a shorter one")
        where = _in_plugin(error)
        if where is None:
            raise
        return _fail(f"{where}: {type(error).__name__}: {error}")
    if code == 130:
        return _fail("stopped by the keyboard; the same command goes on from here", 130)
    return code if isinstance(code, int) else 0


def _in_plugin(error: BaseException) -> str | None:
    """The last line of a plug-in file that an exception came through; None where it is not a plug-in's."""
    where = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).startswith(PLUGIN):
            where = f"plug-in {frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}"
    return where


def _fail(message: str, code: int = 2) -> int:
    print(f"patchbench: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
