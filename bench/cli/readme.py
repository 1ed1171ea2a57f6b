"""Renews the tables of the README from records: python -m bench.cli.readme [--check]

A table stands between `<!-- patchbench table ... -->`, or `<!-- patchbench verdict ... -->`, and `<!-- end -->`; the
comment is the command that makes it.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

from bench import BenchError
from bench.cli.main import main as patchbench

BLOCK = re.compile(r"(<!-- (patchbench (?:table|verdict)\b[^>]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """The same text with every table made anew. Raises BenchError where a command fails."""

    def made(block: re.Match[str]) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = patchbench([*shlex.split(block[2])[1:], "--format", "md"])
        if code != 0:
            raise BenchError(f"`{block[2]}` in the README ended with exit code {code}")
        return f"{block[1]}\n{out.getvalue().strip()}\n\n{block[4]}"

    return BLOCK.sub(made, text)


def main() -> int:
    path = Path("README.md")
    text = path.read_text(encoding="utf-8")
    fresh = refreshed(text)
    if "--check" not in sys.argv[1:]:
        path.write_text(fresh, encoding="utf-8")
        return 0
    if fresh != text:
        print("README.md has tables that its records do not give: run python -m bench.cli.readme", file=sys.stderr)
    return int(fresh != text)


if __name__ == "__main__":
    sys.exit(main())
