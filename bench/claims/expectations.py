"""Verdicts that are expected, so that a finding can be guarded: a file with a line `ID: verdict` for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.claims.verdicts import SAID, Finding
from bench.system.yaml import parse
from patchers.errors import BenchError
from patchers.named import nearest


def read_expected(path: Path) -> dict[str, str]:
    """Raises BenchError for a file that cannot be read, or that expects what no verdict is."""
    try:
        tree = parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(
            f"cannot read the verdicts expected in {path}: {error}; "
            "`patchbench verdict --format yaml` writes such a file"
        ) from error
    if not isinstance(tree.value, dict) or not tree.value:
        raise tree.at().error("wanted a line `ID: verdict` for each claim")
    for name, said in tree.value.items():
        if said not in SAID:
            near = nearest(str(said), list(SAID))
            raise tree.at(name).error(f"wanted one of {', '.join(SAID)}, got {said!r}{near}")
    return dict(tree.value)


def changed(findings: Sequence[Finding], expected: dict[str, str]) -> list[str]:
    """A sentence for each claim whose verdict is not the one that was expected. Claims that nothing is expected of may
    be anything. Raises BenchError where an expected claim is not there."""
    found = {one.claim.id: one.said for one in findings}
    for name in expected:
        if name not in found:
            near = nearest(name, list(found))
            raise BenchError(
                f"a verdict is expected of {name!r}, which is no claim here{near}; there are: {', '.join(found)}"
            )
    return [f"{name}: expected {said}, found {found[name]}" for name, said in expected.items() if found[name] != said]
