"""`python -m bench.records.rewrite RESULTS ...`: writes records anew as this version lays out their files.

What a record says stays as it is, to the bit; a damaged one is named and left alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.records.record import file_content, read
from bench.system.files import write_atomic
from patchers.errors import BenchError


def rewrite(results: Path) -> tuple[int, int, int]:
    """Records that changed their form, and the bytes of all records before and after. Raises BenchError for a damaged
    one, after the others."""
    changed = before = after = 0
    problems = []
    for path in sorted(results.glob("*/runs/*.json")):
        size = path.stat().st_size
        try:
            new = file_content(read(path))
        except BenchError as error:
            problems.append(str(error))
            continue
        if new != path.read_bytes():
            write_atomic(path, new)
            changed += 1
        before, after = before + size, after + len(new)
    if problems:
        raise BenchError("\n".join(problems))
    return changed, before, after


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.records.rewrite", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    for folder in parser.parse_args(arguments).results:
        try:
            changed, before, after = rewrite(folder)
        except BenchError as error:
            raise SystemExit(str(error)) from error
        print(f"{folder}: {changed} records rewritten, {before:,} bytes before, {after:,} after")


if __name__ == "__main__":
    main()
