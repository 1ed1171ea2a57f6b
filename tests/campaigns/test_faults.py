"""The campaign of faults, a little of it: `PYTHONPATH=tests python -m campaigns.fault_campaign` is the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_short_campaign(tmp_path: Path) -> None:
    """A kill in each phase, three damaged files and, where one may mount one, two full disks; in two parts."""
    some = r"^kill -9, .* 1$|runs/|bpe.*/starts|\.part/spool/0.titles|full disk, (segm|record).* 1, 0"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "tests")))}
    command = [sys.executable, "-m", "campaigns.fault_campaign", "--only", some, "-o", str(tmp_path)]
    for more in (["--cases", "3"], []):
        told = subprocess.run([*command, *more], capture_output=True, text=True, env=environment)
        assert told.returncode == 0, told.stdout + told.stderr
    cases = json.loads((tmp_path / "report.json").read_text())["cases"]
    assert len({(case["kind"], case["what"]) for case in cases}) == len(cases) >= 9
    assert not [case for case in cases if case["wrong"]]
    assert "| kill -9: training | 1 | 1 |" in (tmp_path / "report.md").read_text()
