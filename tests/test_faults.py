"""The campaign of faults, a little of it: `python tests/fault_campaign.py` is the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_short_campaign(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fault_campaign.py")), "--short", "-o", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    cases = json.loads((tmp_path / "report.json").read_text())["cases"]
    assert {case["kind"] for case in cases} >= {"kill -9", "flipped bit"}
    assert sum(case["kind"] == "kill -9" for case in cases) >= 3, "some come too late on a busy machine"
    assert "| kill -9: " in (tmp_path / "report.md").read_text()
