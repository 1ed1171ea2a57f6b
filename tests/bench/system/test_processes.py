"""A command ends with the process that began it, however that one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import signal, sys, time
from pathlib import Path
from bench.system.processes import stop_with_parent

def stopped(number, frame):
    Path("stopped").write_text("")
    if "deaf" not in sys.argv:
        sys.exit(75)

signal.signal(signal.SIGTERM, stopped)
stop_with_parent(0.5)
Path("watches").write_text("")
while True:
    time.sleep(0.05)
"""
PARENT = """
import os, subprocess, sys, time
from bench.system.processes import PARENT
process = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], env={**os.environ, PARENT: str(os.getpid())})
print(process.pid, flush=True)
time.sleep(600)
"""


def is_there(process: int) -> bool:
    """Whether a process is alive (and no zombie that nobody waits for)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(happens: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happens():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("how", ["", "deaf", "early"])
def test_a_command_is_told_to_stop_when_its_parent_was_killed(tmp_path: Path, how: str) -> None:
    child = CHILD if how != "early" else f"import time; time.sleep(1)\n{CHILD}"
    command = [sys.executable, "-c", PARENT, child, how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    number = int(parent.stdout.readline())
    if how != "early":  # killed before the child has begun to look
        wait_until((tmp_path / "watches").exists)
        assert is_there(number)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until((tmp_path / "stopped").exists)
    wait_until(lambda: not is_there(number))
