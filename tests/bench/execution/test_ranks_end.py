"""Two ranks end with the command that began them, and at its time limit alike: each with a checkpoint to go on from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_ranks import found_by
from test_run import left_over
from tiny_suite import TRAIN, write_suite

from bench.cli.main import main
from bench.system.signals import EXIT_CODE, STOPS_WITHIN

ROOT = Path(__file__).resolve().parents[3]
ROWS: dict[str, dict[str, Any]] = {"bytes": {"model": "byte_lm"}}
LONG: dict[str, Any] = {"rows": ROWS, "train": {**TRAIN, "bytes": 3_000_000, "checkpoint_seconds": 0.5}}
ALARM = """
import os, signal
from pathlib import Path
from bench.system import distributed
from bench.training.parallel import RankEngine

step, taken = RankEngine.step, Path({taken!r})

def counted(self, *arguments):
    with taken.open("a") as file:
        file.write(f"{{distributed.rank()}}\\n")
    if distributed.rank() == 1 and taken.read_text().count("1") == 5:
        os.kill(os.getpid(), signal.SIGALRM)  # as its timer does
    return step(self, *arguments)

RankEngine.step = counted
"""


def processes_of(group: int) -> set[int]:
    """All living descendants of a process."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = path.read_text().rpartition(")")
        except OSError:
            continue
        state, parent = fields.split()[:2]
        if state != "Z":
            parents[int(path.parent.name)] = int(parent)
    found = {group}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {group}


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_ranks_end_with_the_command_and_go_on_from_their_checkpoint(how: signal.Signals, tmp_path: Path) -> None:
    path, results = write_suite(tmp_path, **LONG), tmp_path / "r"
    command = [sys.executable, "-m", "bench.cli", "run", str(path), "launch.devices=2", "--results", str(results)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not (kept := list(results.glob("tiny/checkpoints/*.training.safetensors.step-*"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    begun = processes_of(process.pid)
    assert len(begun) >= 3, "torchrun and two ranks"
    process.send_signal(how)
    told = time.monotonic()
    while any(alive(one) for one in begun):
        assert time.monotonic() - told < STOPS_WITHIN, [Path(f"/proc/{one}/cmdline").read_text() for one in begun]
        time.sleep(0.1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: EXIT_CODE, signal.SIGINT: 130, signal.SIGKILL: -9}[how], out + err
    assert "Traceback" not in err
    assert not list(results.glob("tiny/runs/*")), "stopping is no failure of the run"
    assert list(results.glob("tiny/checkpoints/*.training.safetensors.step-*")), kept


@pytest.mark.slow
def test_a_time_limit_stops_all_ranks_at_the_same_step(tmp_path: Path) -> None:
    path = write_suite(tmp_path, ROWS)
    spread = ["launch.devices=2", "launch.time_limit=500"]
    assert main(["run", str(path), *spread, "--results", str(tmp_path / "undisturbed")]) == 0
    taken, alarm = tmp_path / "steps", tmp_path / "alarm.py"
    alarm.write_text(ALARM.format(taken=str(taken)))
    results = tmp_path / "r"
    assert main(["run", str(path), *spread, "--results", str(results), "--plugin", str(alarm)]) == 1
    assert sorted(taken.read_text().split()) == ["0"] * 5 + ["1"] * 5
    (record,) = [json.loads(found.read_text()) for found in (results / "tiny/runs").glob("*.json")]
    assert record["error"]["kind"] == "TimeLimit"
    (kept,) = results.glob("tiny/checkpoints/*.training.safetensors.step-*")
    assert kept.name.endswith("step-000000005")
    assert main(["run", str(path), *spread, "--results", str(results)]) == 0
    assert found_by(results) == found_by(tmp_path / "undisturbed")
    assert left_over(results) == []
