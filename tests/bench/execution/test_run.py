"""Suites: every run once, whoever runs it and however often it is interrupted, and a failed one fails alone."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_suite import TRAIN, tiny_suite, write_suite

from bench import records
from bench.cli.main import main
from bench.data.config import load
from bench.evaluation.audit import Audit, alone
from bench.execution import run
from bench.execution.run import peak_memory, reset_peak_memory, run_suite, runs_of
from bench.records.record import Record
from bench.reporting.table import build
from bench.suites.config import Suite
from bench.training.loop import Progress, train
from patchers.errors import BenchError

QUICK = {"bytes": {"model": "byte_lm"}}
TWO = {"stride": {"patcher": "stride"}, "bytes": {"model": "byte_lm"}}


@pytest.fixture(autouse=True)
def _without_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have tests of their own and cost more than these trainings."""
    monkeypatch.setattr(run, "audit", lambda model, texts: {"told": Audit(True, "not looked at", {})})


class Hears:
    """A listener that remembers, and does something after a step if it is told to."""

    def __init__(self, after_step: Callable[[Progress], None] | None = None) -> None:
        self.began: list[str] = []
        self.ended: list[Record] = []
        self.said: list[str] = []
        self.steps: list[int] = []
        self.after_step = after_step

    def say(self, message: str) -> None:
        self.said.append(message)

    def run_begins(self, run_id: str, number: int, total: int) -> None:
        self.began.append(f"{number}/{total} {run_id}")

    def trained(self, progress: Progress, total_bytes: int) -> None:
        self.steps.append(progress.step)
        if self.after_step is not None:
            self.after_step(progress)

    def run_ends(self, record: Record) -> None:
        self.ended.append(record)


def numbers(record: Record) -> Any:
    """What a run found out, without how long it took."""
    return {key: record[key] for key in ("status", "tasks", "loss_curve", "parameters", "flops", "patcher")}


def left_over(results: Path) -> list[str]:
    """Files that belong to work in progress."""
    return [p.name for p in results.rglob("*") if any(x in p.name for x in (".part", ".tmp", ".training."))]


# --- what a run leaves


def test_a_suite_of_every_kind_of_row(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, "seeds=[0,1]")
    hears = Hears()
    found = run_suite(suite, tmp_path / "results", hears).records
    data = load(suite.data)
    labels = ["stride", "bpe", "tokens", "bytes"]
    assert [(r["row"], r["seed"]) for r in found] == [(label, seed) for seed in (0, 1) for label in labels]
    assert [r["status"] for r in found] == ["ok"] * 8
    assert hears.began == [f"{i + 1}/8 {r['run_id']}" for i, r in enumerate(found)]
    assert [r["run_id"] for r in hears.ended] == [r["run_id"] for r in found]
    assert found == [records.find(tmp_path / "results", "tiny", r["run_id"]) for r in found]
    assert left_over(tmp_path / "results") == []
    for r in found:
        row = suite.row(r["row"])
        assert r["config"] == suite.run_config(row.label)
        assert r["data"] == data.summary()
        assert r["cost"]["train_bytes"] >= row.train.bytes
        assert r["cost"]["train_steps"] == len(r["loss_curve"])
        assert r["cost"]["peak_memory_bytes"] > 10_000_000
        assert 0 < r["cost"]["train_busy_share"] <= 1
        assert r["flops"]["train"] > 0
        documents = r["tasks"]["bpb"]["metrics"]["bpb"]["documents"]
        assert [(d[0], d[2]) for d in documents] == [(d.id, len(d.data)) for d in data.test.documents]
        assert all(0 < d[1] < 12 * d[2] for d in documents)
        assert r["loss_curve"][-1][2] < r["loss_curve"][0][2]
        audits = dict(r["audits"])
        cuts = audits.pop("cuts", None)
        assert (cuts is None) == (r["patcher"]["name"] is None or r["patcher"]["kind"] == "in-model")
        assert cuts is None or cuts["passed"]
        assert audits == {"told": {"passed": True, "detail": "not looked at", "values": {}}}
        assert (tmp_path / "results/tiny/checkpoints" / r["run_id"] / "model.json").exists()
    by_row = {r["row"]: r for r in found if r["seed"] == 0}
    assert by_row["bpe"]["patcher"]["priced"] in ("start", "end")
    assert 0 < by_row["bpe"]["tasks"]["bpb"]["values"]["flag_bits_share"] < 1
    assert by_row["stride"]["patcher"]["bytes_per_patch"]["calibration"] == pytest.approx(3.5, rel=0.05)
    assert by_row["bytes"]["patcher"]["name"] is None
    paired = [[row[:2] + row[3:] for row in r["loss_curve"]] for r in found if r["seed"] == 0]
    assert paired[0] == paired[1] == paired[2] == paired[3], "the same bytes at the same steps for every row"
    assert by_row["stride"]["loss_curve"] != found[4]["loss_curve"], "and other ones at another seed"


def test_numbers_are_the_same_in_another_folder(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, rows={"bpe": {"patcher": "bpe"}})
    (one,), (two,) = (run_suite(suite, tmp_path / name).records for name in "ab")
    assert one["run_id"] == two["run_id"]
    assert numbers(one) == numbers(two)


# --- once and not again


def test_running_again_does_only_what_is_missing(tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = run_suite(tiny_suite(tmp_path, rows=TWO), results).records
    written = {path: path.stat().st_mtime_ns for path in results.glob("tiny/**/*.json")}

    again = Hears()
    assert run_suite(tiny_suite(tmp_path, rows=TWO), results, again).records == first
    assert (again.began, again.steps) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in results.glob("tiny/**/*.json")} == written

    changed = Hears()
    suite = tiny_suite(tmp_path, "rows.bytes.train.lr=1e-3", rows=TWO)
    second = run_suite(suite, results, changed).records
    assert second[0] == first[0]
    assert changed.began == [f"2/2 {second[1]['run_id']}"]
    assert second[1]["run_id"] != first[1]["run_id"]

    records.run_path(results, "tiny", first[0]["run_id"]).unlink()
    deleted = Hears()
    run_suite(suite, results, deleted)
    assert deleted.began == [f"1/2 {first[0]['run_id']}"]


def test_how_often_checkpoints_come_is_no_other_run(tmp_path: Path) -> None:
    first = run_suite(tiny_suite(tmp_path, rows=QUICK), tmp_path / "r").records
    again = Hears()
    run_suite(tiny_suite(tmp_path, "train.checkpoint_seconds=1", rows=QUICK), tmp_path / "r", again)
    assert first
    assert again.began == []


# --- interrupted


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, "train.checkpoint_seconds=1e-9", rows=TWO)

    def interrupt(progress: Progress) -> None:
        if progress.step == 7:
            raise KeyboardInterrupt

    stopped = Hears(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, tmp_path / "a", stopped)
    assert not list((tmp_path / "a/tiny").glob("runs/*"))
    went_on = Hears()
    found = run_suite(suite, tmp_path / "a", went_on).records
    assert went_on.steps[0] == 7, "six steps were kept, the seventh is done again"
    undisturbed = run_suite(suite, tmp_path / "b").records
    assert [numbers(r) for r in found] == [numbers(r) for r in undisturbed]
    assert left_over(tmp_path / "a") == []


DRIVER = (
    "import sys, bench.execution.run; bench.execution.run.audit = lambda *a: {}; "
    "from bench.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


def start(suite: Path, results: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, without the audits."""
    command = [sys.executable, "-c", DRIVER, "run", str(suite), "--results", str(results)]
    root = Path(__file__).resolve().parents[3]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_kill_9_then_the_same_command(tmp_path: Path) -> None:
    rows = {"stride": {"patcher": "stride"}}
    settings = {**TRAIN, "bytes": 150_000, "checkpoint_seconds": 0.02}
    path, results = write_suite(tmp_path, rows, train=settings), tmp_path / "killed"
    process = start(path, results)
    deadline = time.monotonic() + 240
    while not (kept := list(results.glob("tiny/checkpoints/*.training.safetensors"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(results.glob("tiny/runs/*"))
    (results / "tiny/checkpoints" / f"{kept[0].name}.1.part").write_bytes(b"half a checkpoint")
    with safe_open(kept[0], framework="pt") as held:
        step = json.loads(held.metadata()["notes"])["step"]
    assert 0 < step < 70

    suite = tiny_suite(tmp_path, rows=rows, train=settings)
    went_on = Hears()
    (found,) = run_suite(suite, results, went_on).records
    assert went_on.steps[0] == step + 1
    (undisturbed,) = run_suite(suite, tmp_path / "undisturbed").records
    assert numbers(found) == numbers(undisturbed)
    weights = "tiny/checkpoints/{}/model.safetensors".format(found["run_id"])
    one, two = (load_file(folder / weights) for folder in (results, tmp_path / "undisturbed"))
    assert {k: v.numpy().tobytes() for k, v in one.items()} == {k: v.numpy().tobytes() for k, v in two.items()}
    assert left_over(results) == []


def test_a_checkpoint_that_outlived_its_run_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that was killed when it had just written the record."""

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    suite = tiny_suite(tmp_path, rows=QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(run, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            run_suite(suite, tmp_path / "r")
    assert left_over(tmp_path / "r")
    again = Hears()
    (found,) = run_suite(suite, tmp_path / "r", again).records
    assert (found["status"], again.began) == ("ok", [])
    assert left_over(tmp_path / "r") == []


# --- several at once


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    path, results = write_suite(tmp_path), tmp_path / "results"
    suite = tiny_suite(tmp_path)
    expected = [r.run_id for r in runs_of(suite, load(suite.data))]
    processes = [start(path, results) for _ in range(2)]
    outputs = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    lines = [line for _, err in outputs for line in err.splitlines() if " done: " in line]
    assert sorted(line.split()[1] for line in lines) == sorted(expected), "each run once, by one of them"
    assert sorted(p.stem for p in results.glob("tiny/runs/*")) == sorted(expected)
    assert all(r["status"] == "ok" for r in records.load_all(results, "tiny"))
    assert outputs[0][0] == outputs[1][0], "both print the table of all runs"
    assert left_over(results) == []


def while_held(suite: Suite, results: Path, then: Callable[[str], None]) -> tuple[list[Record], Hears, str]:
    """Run the suite while somebody else has its first run; when all that is left is waited for, do `then`."""
    waiting = threading.Event()

    class Waits(Hears):
        def say(self, message: str) -> None:
            super().say(message)
            if message.startswith("waiting for another process"):
                waiting.set()

    hears = Waits()
    found: list[Record] = []
    first = runs_of(suite, load(suite.data))[0].run_id
    with records.claim(results, suite.name, first) as mine:
        assert mine
        thread = threading.Thread(target=lambda: found.extend(run_suite(suite, results, hears).records))
        thread.start()
        assert waiting.wait(60)
        assert [b.split()[1] for b in hears.began] != [first]
        then(first)
    thread.join(60)
    assert not thread.is_alive()
    return found, hears, first


def test_what_another_process_does_is_waited_for(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, rows=TWO)
    theirs = run_suite(suite, tmp_path / "theirs").records[0]
    found, hears, first = while_held(suite, tmp_path / "r", lambda _: void(records.write(tmp_path / "r", theirs)))
    assert [r["row"] for r in found] == ["stride", "bytes"]
    assert found[0] == records.read(records.run_path(tmp_path / "theirs", "tiny", first))
    assert [b.split()[1] for b in hears.began] == [found[1]["run_id"]]
    assert f"waiting for another process at {first}" in hears.said


def void(_: object) -> None:
    pass


def test_what_another_process_failed_at_is_not_tried_at_once_again(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, "rows.stride.train.lr=1e4", rows=TWO)
    theirs = run_suite(suite, tmp_path / "theirs").records[0]
    assert theirs["status"] == "failed"
    found, hears, _ = while_held(suite, tmp_path / "r", lambda _: void(records.write(tmp_path / "r", theirs)))
    assert [r["status"] for r in found] == ["failed", "ok"]
    assert len(hears.began) == 1


def test_what_another_process_left_when_it_died_is_done(tmp_path: Path) -> None:
    found, hears, first = while_held(tiny_suite(tmp_path, rows=TWO), tmp_path / "r", void)
    assert [r["status"] for r in found] == ["ok", "ok"]
    assert [b.split()[1] for b in hears.began] == [found[1]["run_id"], first]


# --- failures

RAISES = """
from patchers import Patcher, register

@register("run-test-raises")
class Raises(Patcher):
    def segment(self, data):
        raise ZeroDivisionError("the plug-in's own fault")
"""
MISCOUNTS = """
import numpy as np
from patchers import Patcher, register

@register("run-test-miscounts")
class Miscounts(Patcher):
    def segment(self, data):
        return np.ones(len(data) + 1, dtype=bool)
"""


LEAVES = RAISES.replace("run-test-raises", "run-test-leaves").replace("raise ZeroDivisionError", "raise SystemExit")
NOT_A_NUMBER = """
import numpy as np
from patchers import Patcher, register

@register("run-test-nan")
class NotANumber(Patcher):
    def segment(self, data):
        return np.full(len(data), np.nan)
"""


def test_a_failed_run_is_a_record_and_the_others_go_on(tmp_path: Path) -> None:
    texts = {"raises": RAISES, "miscounts": MISCOUNTS, "leaves": LEAVES, "nan": NOT_A_NUMBER}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    rows: dict[str, dict[str, Any]] = {
        "diverges": {"patcher": "stride", "train": {"lr": 1e4}},
        "raises": {"patcher": "run-test-raises"},
        "miscounts": {"patcher": "run-test-miscounts"},
        "leaves": {"patcher": "run-test-leaves"},
        "nan": {"patcher": "run-test-nan"},
        "bytes": {"model": "byte_lm"},
    }
    plugins = [str(tmp_path / f"{name}.py") for name in texts]
    suite = tiny_suite(tmp_path, "train.checkpoint_seconds=1e-9", rows=rows, plugins=plugins)
    found = {r["row"]: r for r in run_suite(suite, tmp_path / "r").records}
    assert {label: r["status"] for label, r in found.items()} == {
        "diverges": "failed", "raises": "failed", "miscounts": "failed", "leaves": "failed", "nan": "failed",
        "bytes": "ok",
    }  # fmt: skip
    assert all("tasks" not in r for r in found.values() if r["status"] == "failed")
    error = found["diverges"]["error"]
    assert error["kind"] == "diverged"
    assert f"at step {error['step']}; lower train.lr (it is 10000)" in error["message"]
    error = found["raises"]["error"]
    assert (error["kind"], error["message"]) == ("ZeroDivisionError", "the plug-in's own fault")
    assert 'File "raises.py", line 7, in segment' in error["traceback"]
    log = records.log_path(tmp_path / "r", "tiny", found["raises"]["run_id"]).read_text()
    assert f'File "{tmp_path}/raises.py", line 7, in segment' in log
    assert (found["leaves"]["error"]["kind"], found["leaves"]["error"]["message"]) == ("SystemExit", error["message"])
    error = found["miscounts"]["error"]
    assert error["kind"] == "BenchError"
    assert "patcher 'run-test-miscounts' gave bool of shape" in error["message"]
    assert "patcher 'run-test-nan' gave float64 of shape" in found["nan"]["error"]["message"]
    assert left_over(tmp_path / "r") == []

    again = Hears()
    run_suite(suite, tmp_path / "r", again)
    tried = ["diverges", "raises", "miscounts", "leaves", "nan"]
    assert [r["row"] for r in again.ended] == tried, "failed ones are tried again"
    assert again.steps[0] == 1, "from their beginning"


def test_a_run_that_fails_its_audit_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audits = {"fine": Audit(True, "as it should be", {}), "kraft": Audit(False, "sums to 1.3", {"high": 1.3})}
    monkeypatch.setattr(run, "audit", lambda model, texts: audits)
    rows: dict[str, dict[str, Any]] = {"bytes": {"model": "byte_lm"}, "leaky": {"patcher": "bpe", "leaky": True}}
    honest, leaky = run_suite(tiny_suite(tmp_path, rows=rows), tmp_path / "r").records
    assert honest["status"] == "failed"
    assert honest["error"]["kind"] == "AuditFailed"
    assert honest["error"]["message"] == "kraft: sums to 1.3"
    assert "tasks" not in honest
    assert not (tmp_path / "r/tiny/checkpoints" / honest["run_id"]).exists()
    assert leaky["status"] == "ok", "a row that is marked as leaky is kept, with its failed audit"
    assert leaky["patcher"]["leaky"]
    assert leaky["audits"]["kraft"] == {"passed": False, "detail": "sums to 1.3", "values": {"high": 1.3}}


def test_a_number_that_is_none_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However weights came to be NaN, the run has failed instead of scoring NaN."""

    def ruined(model: Any, *others: Any) -> Progress:
        progress = train(model, *others)
        with torch.no_grad():
            next(model.parameters()).fill_(math.nan)
        return progress

    monkeypatch.setattr(run, "train", ruined)
    monkeypatch.setattr(run, "audit", lambda model, texts: {"alone": alone(model, texts[:3])})
    (found,) = run_suite(tiny_suite(tmp_path, rows=QUICK), tmp_path / "r").records
    assert found["status"] == "failed"
    assert found["error"]["kind"] == "AuditFailed"


@pytest.mark.parametrize("results", ["texts.jsonl", "texts.jsonl/deep"])
def test_a_results_folder_that_cannot_be_written(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tiny_suite(tmp_path, rows=QUICK)
    with pytest.raises(BenchError, match="cannot write"):
        run_suite(suite, tmp_path / results)
    assert main(["run", str(tmp_path / "tiny.yaml"), "--results", str(tmp_path / results)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("patchbench: error: cannot write to the results folder")
    assert told.count("\n") == 1


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, rows=QUICK)
    (found,) = run_suite(suite, tmp_path / "r").records
    path = records.run_path(tmp_path / "r", "tiny", found["run_id"])
    path.write_text(path.read_text().replace('"status": "ok"', '"status": "OK"'))
    with pytest.raises(BenchError, match=f"{path.name} is damaged"):
        run_suite(suite, tmp_path / "r")


# --- memory


def test_the_peak_is_that_of_a_run() -> None:
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory(device)
    held = torch.ones(30_000_000)
    assert peak_memory(device) > before + 100_000_000
    del held
    reset_peak_memory(device)
    assert peak_memory(device) < before + 60_000_000


TIRES = """
import numpy as np
from patchers import Patcher, register

calls = 0

@register("run-test-tires")
class Tires(Patcher):
    def segment(self, data):
        global calls
        calls += 1
        return np.arange(len(data)) % (4 if calls <= 20 else 5) == 0
"""
COSTS = """
import numpy as np
from patchers import Patcher, register

@register("run-test-nan-cost")
class Costs(Patcher):
    def segment(self, data):
        return np.arange(len(data)) % 4 == 0

    def flops_per_byte(self):
        return float("nan")
"""


def test_cuts_that_were_used_are_cut_again(tmp_path: Path) -> None:
    """A patcher that changes after so many calls has no number: what was trained on is not what it gives now."""
    (tmp_path / "tires.py").write_text(TIRES)
    rows: dict[str, dict[str, Any]] = {"tired": {"patcher": "run-test-tires"}, "stride": {"patcher": "stride"}}
    suite = tiny_suite(tmp_path, rows=rows, plugins=[str(tmp_path / "tires.py")])
    tired, stride = run_suite(suite, tmp_path / "results").records
    assert tired["status"] == "failed"
    ways = ("the cut that was used is not the one that run-test-tires gives now", "it cuts only one at byte")
    assert any(way in tired["error"]["message"] for way in ways), tired["error"]
    assert stride["audits"]["cuts"]["passed"]
    assert stride["audits"]["cuts"]["values"]["documents"] > 12, "of both splits"
    assert stride["cost"]["cutting"]["doubt"] is None


def test_a_cost_that_is_no_number_is_found_out_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "costs.py").write_text(COSTS)
    rows: dict[str, dict[str, Any]] = {"nan": {"patcher": "run-test-nan-cost"}}
    suite = tiny_suite(tmp_path, rows=rows, plugins=[str(tmp_path / "costs.py")])
    monkeypatch.setattr(run, "train", lambda *arguments: pytest.fail("nothing is trained"))
    (record,) = run_suite(suite, tmp_path / "results").records
    assert record["status"] == "failed"
    message = record["error"]["message"]
    assert "a byte costs nan FLOPs: flops_per_byte() must give a finite number of at least 0" in message


BURNS = """
import numpy as np
from patchers import Patcher, register

@register("run-test-burns")
class Burns(Patcher):
    def segment(self, data):
        a = np.ones((256, 256), np.float32)
        for _ in data[::4]:
            a @ a
        return np.arange(len(data)) % 4 == 0
"""


def test_a_cost_that_is_doubted_is_marked_and_cannot_be_matched(tmp_path: Path) -> None:
    (tmp_path / "burns.py").write_text(BURNS)
    rows: dict[str, dict[str, Any]] = {"stride": {"patcher": "stride"}, "burns": {"patcher": "run-test-burns"}}
    suite = tiny_suite(tmp_path, rows=rows, plugins=[str(tmp_path / "burns.py")])
    records_ = run_suite(suite, tmp_path / "results").records
    assert [r["status"] for r in records_] == ["ok", "ok"]
    table = build(records_, columns=["row", "bpb", "cut_seconds", "flags"])
    assert "cost not verified" in str(table.cell("burns", "flags").value)
    assert "cost not verified" not in str(table.cell("stride", "flags").value)
    assert any(note.startswith("burns: cost not verified: it claims 0 FLOPs a byte") for note in table.notes)
    assert float(table.cell("burns", "cut_seconds").value or 0) > float(table.cell("stride", "cut_seconds").value or 0)
    matched = tiny_suite(tmp_path, "match=train_flops", rows=rows, plugins=[str(tmp_path / "burns.py")])
    failed = next(r for r in run_suite(matched, tmp_path / "matched").records if r["row"] == "burns")
    assert failed["status"] == "failed"
    assert "cannot take part in match: train_flops: cost not verified" in failed["error"]["message"]


FAILS = """
import os
from bench.tasks import Metric, Task, TaskResult, register_task

@register_task("run-test-moody")
class Moody(Task):
    def run(self, model, material):
        if "RUN_TEST_MOODY" in os.environ:
            raise RuntimeError("not today")
        return TaskResult({"ones": Metric("bits/byte", [(d.id, 1.0, 1.0) for d in material.test])}, {})
"""


def test_a_task_that_failed_is_tried_again_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "moody.py").write_text(FAILS)
    monkeypatch.setenv("RUN_TEST_MOODY", "yes")
    rows: dict[str, dict[str, Any]] = {"stride": {"patcher": "stride"}}
    write_suite(tmp_path, rows, plugins=["moody.py"], tasks=["bpb", "run-test-moody"])
    command = ["run", "tiny.yaml", "--results", "r"]

    def found() -> dict[str, Any]:
        (path,) = (tmp_path / "r" / "tiny" / "runs").glob("*.json")
        record: dict[str, Any] = json.loads(path.read_text())
        return record

    main(command)
    before = found()
    assert before["tasks"]["run-test-moody"]["error"]["message"] == "not today"
    monkeypatch.delenv("RUN_TEST_MOODY")
    main(command)
    assert found() == before, "a plain run leaves what is done"
    monkeypatch.setattr(run, "train", lambda *arguments: pytest.fail("nothing is trained"))
    assert main([*command, "--retry-tasks"]) == 0
    assert "its failed tasks are tried again" in capsys.readouterr().err
    after = found()
    assert after["tasks"]["run-test-moody"]["metrics"]["ones"]
    assert after["tasks"]["bpb"] == before["tasks"]["bpb"]
    assert "again" not in after
    assert main([*command, "--retry-tasks"]) == 0
    assert found() == after, "there is nothing left to try"
