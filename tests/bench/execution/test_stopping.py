"""Told to stop: a checkpoint, exit code 75, the same numbers afterwards. Over time: a failure, and the others go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from test_run import Hears, numbers, start
from tiny_suite import TRAIN, tiny_suite, write_suite

from bench import records
from bench.evaluation.audit import Audit
from bench.execution import run
from bench.execution.run import run_suite
from bench.execution.status import status
from bench.system import signals
from bench.system.signals import EXIT_CODE, Stopped, TimeLimit, time_limit

SLOW: dict[str, Any] = {"rows": {"stride": {"patcher": "stride"}}, "train": {**TRAIN, "bytes": 1_500_000}}
HANGS = """
import time
import numpy as np
from patchers import Patcher, register

@register("stopping-test-hangs")
class Hangs(Patcher):
    def segment(self, data):
        while True:
            time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def _without_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {"told": Audit(True, "not looked at", {})})


def until(happens: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigterm_writes_a_checkpoint_and_ends_with_75(tmp_path: Path) -> None:
    path = write_suite(tmp_path, **SLOW)
    results = tmp_path / "r"
    process = start(path, results)
    until(lambda: list(results.glob("tiny/locks/*.lock")), process)
    until(lambda: list(results.glob("cache/cuts/*/cuts.json")), process)
    time.sleep(0.5)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (EXIT_CODE, ""), err
    assert err.endswith("patchbench: error: stopped by SIGTERM; the same command goes on from here\n")
    suite = tiny_suite(tmp_path, **SLOW)
    (one,) = status(suite, results)
    assert one.state == "waiting"
    kept = list(results.glob("tiny/checkpoints/*.training.safetensors"))
    if kept:  # else it was told before the first step
        with safe_open(kept[0], framework="pt") as held:
            step = json.loads(held.metadata()["notes"])["step"]
        assert f"in {step:,} steps" in one.what


def test_a_training_stops_between_steps_and_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, rows={"bpe": {"patcher": "bpe"}})

    def told(progress: Any) -> None:
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    signals.heed_sigterm()
    stopped = Hears(told)
    try:
        with pytest.raises(Stopped):
            run_suite(suite, tmp_path / "a", stopped)
    finally:
        signal.signal(signal.SIGTERM, before)
        signals._asked = False
    assert stopped.steps == [1, 2, 3, 4]
    assert not list((tmp_path / "a/tiny").glob("runs/*"))
    went_on = Hears()
    (found,) = run_suite(suite, tmp_path / "a", went_on).records
    assert went_on.steps[0] == 5
    (undisturbed,) = run_suite(suite, tmp_path / "b").records
    assert numbers(found) == numbers(undisturbed)


def test_outside_of_training_it_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals.heed_sigterm()
    try:
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
        signals._asked = False


def test_a_training_that_is_over_its_time_ends_its_step_and_goes_on_once_it_has_more(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, "launch.time_limit=500", rows={"bpe": {"patcher": "bpe"}})

    def told(progress: Any) -> None:
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGALRM)  # as the timer does

    over = Hears(told)
    (failed,) = run_suite(suite, tmp_path / "a", over).records
    assert over.steps == [1, 2, 3, 4]
    assert (failed["status"], failed["error"]["kind"]) == ("failed", "TimeLimit")
    assert failed["error"]["message"].startswith("it took more than 500 seconds")
    (kept,) = (tmp_path / "a/tiny/checkpoints").glob("*.training.safetensors")
    went_on = Hears()
    (found,) = run_suite(suite, tmp_path / "a", went_on).records
    assert went_on.steps[0] == 5
    assert not kept.exists()
    (undisturbed,) = run_suite(suite, tmp_path / "b").records
    assert numbers(found) == numbers(undisturbed)


def test_a_step_that_hangs_is_ended_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.1)
    begin = time.monotonic()
    with pytest.raises(TimeLimit, match=r"more than 0\.05 seconds"), time_limit(0.05), signals.put_off():
        time.sleep(30)
    assert time.monotonic() - begin < 10


def test_a_plugin_that_hangs_has_failed_with_its_own_traceback(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    rows = {"hangs": {"patcher": "stopping-test-hangs"}, "bytes": {"model": "byte_lm"}}
    suite = tiny_suite(tmp_path, "launch.time_limit=4", rows=rows, plugins=[str(tmp_path / "hangs.py")])
    hangs, well = run_suite(suite, tmp_path / "r").records
    assert well["status"] == "ok"
    assert (hangs["status"], hangs["error"]["kind"]) == ("failed", "TimeLimit")
    assert hangs["error"]["message"].startswith("it took more than 4 seconds")
    assert 'hangs.py", line 10, in segment' in hangs["error"]["traceback"]
    assert str(tmp_path) not in json.dumps(hangs["error"])
    log = records.log_path(tmp_path / "r", "tiny", hangs["run_id"]).read_text()
    assert f'{tmp_path}/hangs.py", line 10, in segment' in log
    states = {one.run_id: one for one in status(suite, tmp_path / "r")}
    assert states[hangs["run_id"]].state == "failed"
    assert states[hangs["run_id"]].what.startswith("TimeLimit: it took more than 4 seconds")
    assert states[hangs["run_id"]].log is not None
    assert states[well["run_id"]].state == "done"


def test_a_limit_is_over_with_its_block() -> None:
    with time_limit(0.05):
        pass
    with time_limit(None):
        time.sleep(0.1)
    with pytest.raises(TimeLimit, match=r"more than 0\.05 seconds"), time_limit(0.05):
        time.sleep(5)
