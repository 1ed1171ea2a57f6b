"""Runs on two ranks (real torchrun, gloo): the numbers of one process, whatever is dealt out, resumed or killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_cases import CASES, STOPS_AT, Case, as_read, corpus, cut_alike, resumable, scored, trained
from test_run import left_over, numbers
from tiny_suite import TRAIN, tiny_suite, write_suite

from bench.cli.main import main
from bench.data.cut_corpus import batches, training_spans
from bench.execution.run import run_suite
from bench.system.signals import Stopped, heed_sigterm
from bench.training.loop import Alone
from bench.training.parallel import shares

HERE = Path(__file__).resolve().parents[2]
FAST = ["harness in parts fsdp", "hnet in parts ddp", "priced ddp", "token_lm without tokens fsdp"]
RESUMED = {"harness in parts fsdp", "priced ddp", "hnet ddp", "token_lm fsdp"}
LOSS = 1e-5


def torchrun(*arguments: str, ranks: int = 2, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [*command, f"--max-restarts={restarts}", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def on_two(folder: Path, names: list[str]) -> dict[str, Any]:
    """What two ranks found at these cases, some of which one process had begun."""
    for name in set(names) & RESUMED:
        before = signal.getsignal(signal.SIGTERM)
        heed_sigterm()
        with suppress(Stopped):
            trained(CASES[name], Alone, resumable(folder, "one", name), STOPS_AT)
        signal.signal(signal.SIGTERM, before)
    done = torchrun(str(HERE / "rank_cases.py"), str(folder), *names)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found | {"folder": folder}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return on_two(tmp_path_factory.mktemp("two"), FAST)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return on_two(tmp_path_factory.mktemp("rest"), [name for name in CASES if name not in FAST])


UNDISTURBED: dict[tuple[Any, ...], list[float]] = {}


def undisturbed(case: Case) -> list[float]:
    """Losses of one process that takes whole batches, and what its model makes of the documents."""
    key = (case.kind, case.batch_bytes, case.whole, case.dtype)
    if key not in UNDISTURBED:
        model, losses = trained(case, Alone)
        UNDISTURBED[key] = [*losses, as_read(model)]
    return UNDISTURBED[key]


def check(found: dict[str, Any], name: str) -> None:
    case = CASES[name]
    *losses, read = undisturbed(case)
    assert len(losses) >= 20
    tolerance = LOSS if case.dtype == "float32" else 2e-2
    assert found["cases"][name][:-1] == pytest.approx(losses, abs=tolerance)
    assert found["cases"][name][-1] == pytest.approx(read, rel=tolerance)
    if name not in RESUMED:
        return
    # one process, then two
    assert found["resumed"][name][:-1] == pytest.approx(losses[STOPS_AT:], abs=tolerance)
    assert found["resumed"][name][-1] == pytest.approx(read, rel=tolerance)
    # two, then one
    path = resumable(found["folder"], "two", name)
    assert list(path.parent.glob(f"{path.name}.step-*"))
    model, resumed = trained(case, Alone, path)
    assert resumed == pytest.approx(losses[STOPS_AT:], abs=tolerance)
    assert as_read(model) == pytest.approx(read, rel=tolerance)
    assert list(path.parent.glob(f"{path.name}*")) == [path], "the checkpoint is of one process now"


@pytest.mark.parametrize("name", FAST)
def test_two_ranks_train_as_one_process_does(two: dict[str, Any], name: str) -> None:
    check(two, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in FAST])
def test_two_ranks_train_every_kind_of_model_as_one_process_does(rest: dict[str, Any], name: str) -> None:
    check(rest, name)


@pytest.mark.parametrize("kind", ["harness", "hnet"])
def test_one_process_in_parts_trains_as_with_whole_batches(kind: str) -> None:
    case = CASES[f"{kind} in parts ddp"]
    model, losses = trained(case, dataclasses.replace(case.how, recompute=True))
    assert [*losses, as_read(model)] == pytest.approx(undisturbed(case), abs=LOSS, rel=LOSS)


def test_some_batches_have_nothing_for_a_rank() -> None:
    """What `without tokens` is about: steps at which a rank has no window, or windows in which no token begins."""
    case, docs = CASES["token_lm without tokens fsdp"], corpus(CASES["token_lm without tokens fsdp"].whole)
    dealt = [
        [sum(int(docs.windows(part).starts.sum()) for part in own) for own in shares(picked, 2, None)]
        for picked in batches(training_spans(docs.offsets, 60), case.batch_bytes, case.config.bytes, 0)
    ]
    assert sum(0 in tokens for tokens in dealt) > 5
    assert sum(0 not in tokens for tokens in dealt) > 5


def test_two_ranks_score_every_document_as_one_process_does(two: dict[str, Any]) -> None:
    assert two["scores"] == scored()


def test_two_ranks_cut_as_one_process_does(two: dict[str, Any], tmp_path: Path) -> None:
    assert two["cuts"] == cut_alike(tmp_path)
    assert [p.name for p in (two["folder"] / "cache" / "cuts").rglob("*") if ".part" in p.name] == []


def test_ranks_fail_together_or_end(two: dict[str, Any]) -> None:
    first, second = two["failures"]
    assert (first["all"], second["all"]) == (True, True)
    assert second["alike"] == "ValueError: of the second"
    assert first["alike"] == "RankFailed: ValueError: of the second"
    assert first["one"] is False


# --- whole suites

DIES = """
import os, signal
from pathlib import Path
from bench import ranks
from bench.parallel import RankEngine

step, taken = RankEngine.step, Path({taken!r})

def counted(self, *arguments):
    with taken.open("a") as file:
        file.write(f"{{ranks.rank()}}\\n")
    if taken.read_text().count("1") == {at} and ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

RankEngine.step = counted
"""
ROWS: dict[str, dict[str, Any]] = {
    "stride": {"patcher": "stride"},
    "tokens": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
}


def found_by(results: Path) -> list[Any]:
    held = [json.loads(path.read_text()) for path in sorted((results / "tiny" / "runs").glob("*.json"))]
    assert [record["status"] for record in held] == ["ok"] * len(held), held
    return [numbers(record) for record in held]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_rank_that_is_killed_changes_no_number(way: str, tmp_path: Path) -> None:
    path = write_suite(tmp_path, ROWS, train={**TRAIN, "checkpoint_seconds": 1e-9})
    spread = ["launch.devices=2", f"launch.parallel={way}", "launch.micro_bytes=300"]
    assert main(["run", str(path), *spread, "--results", str(tmp_path / "undisturbed")]) == 0
    undisturbed = found_by(tmp_path / "undisturbed")
    assert len(undisturbed) == 2

    steps, dies = tmp_path / "steps", tmp_path / "dies.py"
    dies.write_text(DIES.format(taken=str(steps), at=7))
    arguments = ["-m", "bench.execution.torchrun_entry", str(path), *spread, "--results", str(tmp_path / "killed")]
    done = torchrun(*arguments, "--plugin", str(dies), restarts=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found_by(tmp_path / "killed") == undisturbed
    taken = steps.read_text().count("1")
    assert taken - sum(len(each["loss_curve"]) for each in undisturbed) == 1, "from the last checkpoint on"
    assert left_over(tmp_path / "killed") == []

    alone = [numbers(record) for record in run_suite(tiny_suite(tmp_path, rows=ROWS), tmp_path / "alone").records]
    for one, two in zip(alone, undisturbed, strict=True):
        assert [row[:2] for row in one["loss_curve"]] == [row[:2] for row in two["loss_curve"]]
        # 1e-5, and both are rounded to 1e-5
        losses = [np.array([row[2] for row in each["loss_curve"]]) for each in (one, two)]
        assert np.abs(np.rint(losses[0] * 1e5) - np.rint(losses[1] * 1e5)).max() <= 2
        sums = [each["tasks"]["bpb"]["metrics"]["bpb"]["documents"] for each in (one, two)]
        assert [row[0] for row in sums[0]] == [row[0] for row in sums[1]]
        assert [row[1] for row in sums[0]] == pytest.approx([row[1] for row in sums[1]], rel=1e-4)


@pytest.mark.slow
def test_a_run_that_fails_on_ranks_fails_once(tmp_path: Path) -> None:
    path = write_suite(tmp_path, {"bytes": {"model": "byte_lm"}}, train={**TRAIN, "lr": 1e6})
    arguments = ["run", str(path), "launch.devices=2", "--results", str(tmp_path / "r")]
    assert main(arguments) == 1
    (record,) = [json.loads(found.read_text()) for found in (tmp_path / "r" / "tiny" / "runs").glob("*.json")]
    assert record["error"]["kind"] == "diverged"
