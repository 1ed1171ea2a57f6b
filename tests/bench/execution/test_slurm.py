"""Runs as a Slurm job array: what is submitted, what a task does when it is told to stop, and what is seen of it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
from slurm_cluster import CannotStart, cluster
from submitit.core.utils import DelayedSubmission
from test_run import Hears, numbers
from tiny_suite import TRAIN, tiny_suite, write_suite

from bench import records
from bench.cli.main import main
from bench.data.config import load
from bench.execution import slurm
from bench.execution.run import Work, described, run_suite, runs_of, training_checkpoint
from bench.execution.slurm import follow, parameters, submit, tasks_of
from bench.execution.slurm_task import do
from bench.execution.status import status
from bench.execution.workers import Job
from bench.records.record import Record
from bench.system.signals import EXIT_CODE
from patchers.errors import BenchError

TWO: dict[str, dict[str, Any]] = {"stride": {"patcher": "stride"}, "bytes": {"model": "byte_lm"}}
SETTINGS = {"partition": "work", "time": 60, "gres": "gpu:1", "cpus": 1}


class FakeSlurm:
    """Programs of Slurm's names that write down how they were called, and say what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program("srun", "exit 1")
        self.program("sbatch", f"cp $1 {folder}/script.sh; echo Submitted batch job 7")
        self.program("scontrol", f'echo "$@" >> {folder}/scontrol.txt')
        self.queue("")

    def program(self, name: str, does: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def queue(self, says: str) -> None:
        (self.folder / "queue.txt").write_text(says)
        self.program("squeue", f"cat {self.folder}/queue.txt")

    @property
    def script(self) -> list[str]:
        return (self.folder / "script.sh").read_text().splitlines()

    @property
    def requeued(self) -> str:
        path = self.folder / "scontrol.txt"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "SETTLES", -1.0)
    return FakeSlurm(folder)


def begun(tmp_path: Path, **settings: Any) -> tuple[Job, Work]:
    path = write_suite(tmp_path, TWO, seeds=[0, 1], launch={"workers": 2, "slurm": {**SETTINGS, **settings}})
    job = Job(str(path), ("train.lr=1e-3",), (), tmp_path / "r")
    return job, Work.of(job.load(), job.results, Hears())


# --- the suite


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("launch.slurm.partitoin=gpu", "launch.slurm.partitoin: unknown key, did you mean 'partition'?"),
        ("launch.slurm=work", "launch.slurm: wanted keys and values, got \"work\"|got 'work'"),
        ("launch.slurm.time=4:00:00", r'launch.slurm.time: wanted a whole number, got "4:00:00"'),
        ("launch.slurm.time=1", "time is 1 minutes and notice 90 seconds, .* raise time or lower notice"),
        ("launch.slurm.options={array: 1-9}", "launch.slurm.options: options has 'array', which is set for every"),
        ("launch.slurm.options={cpus-per-task: 3}", "options has 'cpus-per-task', for which there is the key cpus"),
        ("launch.slurm.options={exclusive: false}", "launch.slurm.options.exclusive: wanted .*, got false"),
    ],
)
def test_a_suite_that_asks_wrongly(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        tiny_suite(tmp_path, override)


def test_where_runs_are_done_says_nothing_about_what_comes_out(tmp_path: Path) -> None:
    here, there = tiny_suite(tmp_path), tiny_suite(tmp_path, launch={"slurm": SETTINGS})
    assert here.resolved() == there.resolved()


def test_leaving_runs_alone_is_for_slurm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(write_suite(tmp_path)), "--results", str(tmp_path / "r"), "--no-wait"]) == 2
    assert "--no-wait leaves runs to Slurm, and this suite has no" in capsys.readouterr().err


# --- what is submitted


def test_an_array_has_a_task_a_missing_run(tmp_path: Path, fake: FakeSlurm) -> None:
    job, work = begun(tmp_path, memory_gb=1.5, options={"nice": 5}, notice=30)
    assert submit(job, work, 2) == "7"
    asked = [line.removeprefix("#SBATCH --") for line in fake.script if line.startswith("#SBATCH")]
    wanted = ["array=0-3%2", "cpus-per-task=1", "gres=gpu:1", "job-name=patchbench-tiny", "mem=1536M", "nice=5"]
    wanted += ["nodes=1", "open-mode=append", f"output={tmp_path}/r/tiny/slurm/%A_%a_0_log.out", "partition=work"]
    assert asked == [*wanted, "requeue", "signal=TERM@30", "time=60"]
    assert any(line.startswith("srun ") and " --cpus-per-task=1 " in line for line in fake.script)
    tasks = tasks_of(work.results, "tiny")
    assert [tasks[run.run_id].name for run in work.runs] == ["7_0", "7_1", "7_2", "7_3"]
    run_id = work.runs[2].run_id
    call = DelayedSubmission.load(tmp_path / "r/tiny/slurm/7_2_submitted.pkl")
    command = [sys.executable, "-m", "bench.cli", "run", job.suite, "train.lr=1e-3", "--results", str(job.results)]
    log = str(records.log_path(work.results, "tiny", run_id))
    assert call.function is do
    assert call.args == ([*command, "--only", run_id], log, 100)


def test_what_is_left_out_is_the_clusters(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, launch={"slurm": {}})
    assert suite.launch.slurm is not None
    given = {name for name, value in parameters(suite.launch.slurm, "tiny", 3).items() if value}
    assert given == {"job_name", "array_parallelism", "stderr_to_stdout", "additional_parameters"}


def test_runs_whose_tasks_are_there_are_not_submitted_again(tmp_path: Path, fake: FakeSlurm) -> None:
    job, work = begun(tmp_path)
    submit(job, work, None)
    fake.queue("7_0|RUNNING|None\n7_1|PENDING|Resources\n7_2|PENDING|BeginTime\n7_3|COMPLETING|None\n")
    assert submit(job, work, None) is None
    fake.queue("7_0|RUNNING|None\n7_1|PENDING|Resources\n7_3|CANCELLED|None\n")
    fake.program("sbatch", f"cp $1 {fake.folder}/script.sh; echo Submitted batch job 6")
    assert submit(job, work, None) == "6"
    tasks = tasks_of(work.results, "tiny")
    assert [tasks[run.run_id].name for run in work.runs] == ["7_0", "7_1", "6_0", "6_1"]


def test_what_is_not_there_is_one_sentence(
    tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job, work = begun(tmp_path)
    fake.program("sbatch", "echo sbatch: error: invalid partition: work >&2; exit 1")
    with pytest.raises(BenchError, match=r"^Slurm does not take the runs: sbatch: error: invalid partition: work; see"):
        submit(job, work, None)
    assert capsys.readouterr().err == ""
    assert tasks_of(work.results, "tiny") == {}
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match=r"there is no sbatch here; .* launch\.slurm=null"):
        submit(job, work, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"needs submitit: pip install 'patchbench\[slurm\]'"):
        submit(job, work, None)


# --- what a task does


def did(tmp_path: Path, code: str, requeues: int = 3) -> Any:
    """What `do` ends with, as submitit calls it."""
    call = [
        [sys.executable, "-c", f"import os, sys; print('heard', flush=True); {code}"],
        str(tmp_path / "logs/one.log"),
        requeues,
    ]
    job = submitit.DebugExecutor(tmp_path / "submitit").submit(do, *call)
    return job.submission().result()


def test_a_task_that_is_told_to_stop_goes_back_into_the_queue(
    tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    fake.queue("RUNNING\n")
    assert did(tmp_path, "") is None
    assert did(tmp_path, "sys.exit(1)") is None, "its run has failed, and a record says so"
    with pytest.raises(SystemExit, match=r"^2$"):
        did(tmp_path, "sys.exit(2)")
    with pytest.raises(SystemExit, match=r"^137$"):
        did(tmp_path, "os.kill(os.getpid(), 9)")
    assert fake.requeued == ""
    for stopped in (f"sys.exit({EXIT_CODE})", "os.kill(os.getpid(), 15)"):
        with pytest.raises(SystemExit):
            did(tmp_path, stopped)
    assert fake.requeued == "requeue 41\n" * 2
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "41")  # which is the job id of one of its tasks, too
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with pytest.raises(SystemExit):
        did(tmp_path, f"sys.exit({EXIT_CODE})")
    assert fake.requeued.splitlines()[2:] == ["requeue 41_3"], "and not the whole array"
    assert (tmp_path / "logs/one.log").read_text() == "heard\n" * 7


def test_a_task_that_slurm_is_ending_stays_away(
    tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    fake.queue("COMPLETING\n")
    with pytest.raises(SystemExit, match=f"^{EXIT_CODE}$"):
        did(tmp_path, f"sys.exit({EXIT_CODE})")
    fake.queue("RUNNING\n")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(SystemExit, match="put back into the queue 3 times and not done"):
        did(tmp_path, f"sys.exit({EXIT_CODE})")
    assert fake.requeued == ""


def test_a_task_has_the_cores_that_slurm_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    did(tmp_path, "print(os.environ['OMP_NUM_THREADS'])")
    assert (tmp_path / "logs/one.log").read_text() == "heard\n3\n"


# --- what is seen


def ended(work: Work, index: int, **others: Any) -> Record:
    """A record of a run that has failed, which needs no training."""
    record = described(work.suite, work.runs[index], work.data)
    record |= {"status": "failed", "error": {"kind": "diverged", "message": "at step 3"}, **others}
    records.write(work.results, record)
    return record


def test_status_of_runs_in_slurm(tmp_path: Path, fake: FakeSlurm) -> None:
    job, work = begun(tmp_path)
    submit(job, work, None)
    fake.queue("7_0|RUNNING|None\n7_1|PENDING|Resources\n7_2|OUT_OF_MEMORY|OutOfMemory\n7_3|COMPLETED|None\n")
    ended(work, 3)
    outside = work.results.absolute() / "tiny/slurm/7_2_0_log.out"
    outside.write_text("Killed")
    inside = records.log_path(work.results, "tiny", work.runs[0].run_id)
    inside.parent.mkdir()
    inside.write_text("at work")
    running, waiting, lost, failed = status(work.suite, work.results)
    assert (running.state, running.what, running.log) == ("running", "Slurm task 7_0, RUNNING", str(inside))
    assert (waiting.state, waiting.what, waiting.log) == ("waiting", "Slurm task 7_1, PENDING (Resources)", None)
    assert (lost.state, lost.log) == ("failed", str(outside))
    assert lost.what == "its Slurm task 7_2, OUT_OF_MEMORY (OutOfMemory) before the run was done; run the suite again"
    assert (failed.state, failed.what) == ("failed", "diverged: at step 3")
    fake.program("squeue", "exit 1")
    assert [one.state for one in status(work.suite, work.results)] == ["waiting"] * 4
    assert status(work.suite, work.results)[0].what == "Slurm task 7_0, UNKNOWN"


def test_looking_on_ends_when_every_task_has(tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    job, work = begun(tmp_path)
    submit(job, work, None)
    fake.queue("7_0|RUNNING|None\n7_1|PENDING|Resources\n7_2|RUNNING|None\n7_3|CANCELLED|None\n")

    def later(seconds: float) -> None:
        ended(work, 0)
        fake.queue("7_1|FAILED|NonZeroExitCode\n7_2|CANCELLED|None\n")

    monkeypatch.setattr(slurm, "time", SimpleNamespace(monotonic=time.monotonic, sleep=later))
    hears = Hears()
    lost = follow(work, hears)
    first, second, third, fourth = (run.run_id for run in work.runs)
    assert "Slurm: 2 running, 1 pending" in hears.said
    assert [record["run_id"] for record in hears.ended] == [first, second]
    assert hears.ended[1]["error"]["message"] == "its Slurm task 7_1, FAILED (NonZeroExitCode)"
    assert [record["run_id"] for record in work.outcome().records] == [first, second]
    assert [line.split()[0] for line in lost] == [fourth, third]
    assert lost[1].endswith("its Slurm task 7_2, CANCELLED; the same command submits it again")


# --- a real one


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Calls Slurm's programs on a cluster of their own."""
    try:
        with cluster() as environment:
            for name in ("SLURM_CONF", "PATH"):
                monkeypatch.setenv(name, environment[name])
            monkeypatch.setenv("OMP_NUM_THREADS", "1")
            yield lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except CannotStart as error:
        pytest.skip(str(error))


def until(happens: Callable[[], object], process: subprocess.Popen[str], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_real_array_whose_tasks_are_stopped_and_cancelled_ends_with_the_local_table(
    tmp_path: Path, real: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    train = {**TRAIN, "bytes": 400_000, "checkpoint_seconds": 0.2}
    launch = {"slurm": {"partition": "work", "cpus": 1, "time": 30}}
    path = write_suite(tmp_path, TWO, seeds=[0, 1], train=train, launch=launch)
    results = tmp_path / "there"
    command = [sys.executable, "-m", "bench.cli", "run", str(path), "--results", str(results)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    suite = tiny_suite(tmp_path, rows=TWO, seeds=[0, 1], train=train, launch=launch)
    runs = runs_of(suite, load(suite.data))
    try:
        until(lambda: list(results.glob("tiny/slurm/*.json")), process)
        array = next(results.glob("tiny/slurm/*.json")).stem

        until(training_checkpoint(results, suite, runs[1]).exists, process)  # byte_lm trains at once, the other fits
        real("scancel", f"{array}_1")
        real("scontrol", "requeue", f"{array}_1")
        until(training_checkpoint(results, suite, runs[0]).exists, process)
        real("scancel", "--signal=TERM", f"{array}_0")  # as at the end of its time
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert err.startswith(f"Slurm has the runs as job {array}, ")
    for run in runs[:2]:
        assert "stopped by SIGTERM" in records.log_path(results, "tiny", run.run_id).read_text()
    # scancel sends its signal once more where Slurm tells it to try again, as it does of a task on its way back
    heard = [
        len(re.findall(r"STEP \S+ ON \S+ CANCELLED", one.log.read_text())) for one in tasks_of(results, "tiny").values()
    ]
    assert heard[0] in (1, 2)
    assert heard[1:] == [1, 0, 0]
    restarts = [re.findall(r"Restarts=(\d+)", real("scontrol", "show", "job", f"{array}_{n}"))[0] for n in range(4)]
    assert restarts == [str(count) for count in heard], "once for each signal, and no other task"
    there = run_suite(suite, results).records
    here = run_suite(suite, tmp_path / "here").records
    assert [numbers(record) for record in there] == [numbers(record) for record in here]
    assert [one.state for one in status(suite, results)] == ["done"] * 4

    def table(folder: Path) -> list[str]:
        columns = "row,bytes_per_patch,bpb,bpc,difference,parameters,flops_per_byte,train_flops,seeds,flags"
        assert main(["table", str(path), "--results", str(folder), "--columns", columns]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "Measured on" not in line]  # threads

    assert table(results) == table(tmp_path / "here")
    assert "stride" in out
