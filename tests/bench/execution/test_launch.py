"""Many runs at once: the same numbers as one after another, and a worker that dies costs one run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import Hears, left_over, numbers
from tiny_suite import tiny_suite, write_suite

from bench import records
from bench.cli.main import main
from bench.execution import workers
from bench.execution.run import run_suite
from bench.execution.workers import Job, run_on_workers
from bench.suites.config import load_suite
from bench.system.processes import threads_each
from bench.system.signals import Stopped
from patchers.errors import BenchError

THREE: dict[str, dict[str, Any]] = {
    "stride": {"patcher": "stride"},
    "bytes": {"model": "byte_lm"},
    "bpe": {"patcher": "bpe"},
}
DIES = """
import os, signal
from patchers import Patcher, register

@register("launch-test-dies")
class Dies(Patcher):
    def segment(self, data):
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""

EVERY = """
import numpy as np
from patchers import Patcher, register

@register("every-meanwhile")
class Every(Patcher):
    def segment(self, data):
        return np.arange(len(data)) % {every} == 0
"""


def job(path: Path, results: Path) -> Job:
    return Job(str(path), (), (), results)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_workers_find_the_numbers_of_one_process(tmp_path: Path) -> None:
    path = write_suite(tmp_path, THREE)
    suite = tiny_suite(tmp_path, rows=THREE)
    listeners: list[Hears] = []

    def beside() -> Hears:
        listeners.append(Hears())
        return listeners[-1]

    found = run_on_workers(job(path, tmp_path / "two"), suite, 2, Hears(), beside).records
    alone = run_suite(suite, tmp_path / "one").records
    assert [numbers(r) for r in found] == [numbers(r) for r in alone]
    assert [r["row"] for r in found] == list(THREE)
    assert len(listeners) == 2
    assert sorted(r["row"] for hears in listeners for r in hears.ended) == sorted(THREE), "each run once"
    assert all(hears.began and hears.steps for hears in listeners), "both had something to do, and said so"
    assert all(records.log_path(tmp_path / "two", "tiny", r["run_id"]).exists() for r in found)
    assert left_over(tmp_path / "two") == []

    again = run_on_workers(job(path, tmp_path / "two"), suite, 2, Hears(), Hears).records
    assert again == found


def test_a_worker_that_dies_costs_one_run(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(DIES)
    rows = {"dies": {"patcher": "launch-test-dies"}, "bytes": {"model": "byte_lm"}}
    plugins = [str(tmp_path / "dies.py")]
    path = write_suite(tmp_path, rows, plugins=plugins)
    suite = tiny_suite(tmp_path, rows=rows, plugins=plugins)
    dead, well = run_on_workers(job(path, tmp_path / "r"), suite, 1, Hears(), Hears).records
    assert well["status"] == "ok"
    assert dead["error"]["kind"] == "died"
    assert dead["error"]["message"] == "its process ended with signal 9 (SIGKILL); out of memory?"
    assert "about to die" in records.log_path(tmp_path / "r", "tiny", dead["run_id"]).read_text()


def test_what_concerns_all_runs_is_one_error(tmp_path: Path) -> None:
    path = write_suite(tmp_path, THREE)
    suite = tiny_suite(tmp_path, rows=THREE)
    with pytest.raises(BenchError, match="no field 'nothing'"):
        run_on_workers(Job(str(path), ("data.field=nothing",), (), tmp_path / "r"), suite, 2, Hears(), Hears)


def test_workers_refuse_a_plug_in_that_was_edited_meanwhile(tmp_path: Path) -> None:
    """They read it anew, and would train what the one who asked did not mean."""
    plugin = tmp_path / "meanwhile.py"
    plugin.write_text(EVERY.format(every=8))
    path = write_suite(tmp_path, {"mine": {"patcher": "every-meanwhile"}}, plugins=[str(plugin)])
    suite = load_suite(str(path))
    plugin.write_text(EVERY.format(every=3))
    with pytest.raises(BenchError, match=r"a plug-in was edited while mine-.* waited: run the same command"):
        run_on_workers(job(path, tmp_path / "r"), suite, 1, Hears(), Hears)
    assert not list((tmp_path / "r").glob("*/runs/*.json"))


def test_runs_of_others_are_waited_for(tmp_path: Path) -> None:
    rows = {"bytes": {"model": "byte_lm"}}
    path, suite = write_suite(tmp_path, rows), tiny_suite(tmp_path, rows=rows)
    theirs = run_suite(suite, tmp_path / "theirs").records[0]

    class Holds(Hears):
        """Another process finishes the run as soon as ours are under way."""

        def say(self, message: str) -> None:
            super().say(message)
            if "on 1 workers" in message:
                records.write(tmp_path / "r", theirs)

    hears = Hears()
    found = run_on_workers(job(path, tmp_path / "r"), suite, 1, Holds(), lambda: hears).records
    assert found == run_suite(suite, tmp_path / "theirs").records
    assert hears.began == []


ORPHAN = """
import multiprocessing, time
from bench.system.processes import end_with_parent

def child():
    end_with_parent()
    print("begun", flush=True)
    time.sleep(100)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""


def test_no_process_outlives_the_one_that_began_it(tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(ORPHAN)
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(tmp_path / "orphan.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "begun\n"
        parent.kill()
        began = time.monotonic()
        parent.stdout.read()  # until all have closed it
    assert time.monotonic() - began < 60


def test_a_run_has_not_failed_because_nobody_listens(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    remote = workers._Remote(theirs, tmp_path, "tiny")
    remote.say("heard")
    ours.close()
    with pytest.raises(Stopped):
        remote.say("not heard")


def test_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [threads_each(n) for n in (1, 2, 3, 16)] == [1, 1, 1, 1], "no more than OMP_NUM_THREADS allows"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [threads_each(n) for n in (1, 2, 3, 16)] == [8, 4, 2, 1]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"bytes": {"model": "byte_lm"}}
    path = write_suite(tmp_path, rows)
    before = signal.getsignal(signal.SIGINT)
    arguments = ["run", str(path), "--results", str(tmp_path / "r"), "--workers", "2"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert " done: bpb " in captured.err
    assert "bytes" in captured.out
    assert main(arguments) == 0
    assert "nothing to do: all 1 runs are done" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("cores", "gibibytes", "wanted"), [(2, 20, 2), (8, 5, 2), (4, 1, 1), (1, 64, 1)])
def test_on_a_cpu_there_are_as_many_workers_as_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch, cores: int, gibibytes: int, wanted: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers, "free_memory", lambda: gibibytes * 2**30)
    assert workers.workers_by_default() == wanted
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert workers.workers_by_default() == 3
