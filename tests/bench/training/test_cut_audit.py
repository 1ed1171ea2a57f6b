"""Cuts that were used are cut again alone: a start that moved is found, and one patcher's calls may not change it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_suite import tiny_suite

from bench import records
from bench.data.config import Data, load
from bench.data.cut_corpus import CutDocuments, Cuts
from bench.evaluation.audit import Audit
from bench.execution import run
from bench.training.cut_audit import audit_cuts
from bench.training.prepare import Prepared, prepare

TIRED = """
import numpy as np
from patchers import Patcher, register

calls = 0

@register("cut-audit-tired")
class Tired(Patcher):
    def segment(self, data):
        global calls
        calls += 1
        return np.arange(len(data)) % (4 if calls < 80 else 5) == 0
"""


REMEMBERS = """
import numpy as np
from patchers import Patcher, register

seen = {}

@register("cut-audit-remembers")
class Remembers(Patcher):
    def segment(self, data):
        starts = np.isin(np.frombuffer(data, np.uint8), list(b"aeiou"))
        starts[:12] = np.arange(len(data))[:12] % 4 == 0
        of_kind = seen.setdefault(data[:12], [])
        shared = [self.shared(data, text) for text, _ in of_kind]
        if shared:
            best = int(np.argmax([2 * n + (len(text) > n) for n, (text, _) in zip(shared, of_kind)]))
            known = of_kind[best][1][: shared[best] + 1][: len(data)]
            starts[: len(known)] = known
        if not shared or max(shared) < len(data):
            of_kind.append((data, starts.copy()))
        return starts

    def shared(self, one, two):
        for n, (a, b) in enumerate(zip(one, two)):
            if a != b:
                return n
        return min(len(one), len(two))
"""


WATCHES = """
import sys
import numpy as np
from patchers import Patcher, register

AUDITS = ("patchers.audit", "patchers.audit_at_scale", "patchers.audit_apart", "bench.evaluation.audit")

@register("cut-audit-watches")
class Watches(Patcher):
    def segment(self, data):
        starts, frame = np.arange(len(data)) % 4 == 0, sys._getframe()
        while frame is not None:
            if frame.f_globals.get("__name__") in AUDITS:
                return starts
            frame = frame.f_back
        return starts | ((np.arange(len(data)) + len(data)) % 4 == 0)  # how long the text will be
"""


def ready(tmp_path: Path) -> tuple[Prepared, Data]:
    suite = tiny_suite(tmp_path, rows={"stride": {"patcher": "stride"}})
    data = load(suite.data)
    return prepare(suite, suite.rows[0], data, tmp_path / "cache", lambda message: None), data


def moved(prepared: Prepared, document: int) -> Prepared:
    """With one start of a training document in another place."""
    corpus = prepared.train
    starts = corpus.cuts.starts[: int(corpus.offsets[-1])].copy()
    starts[int(corpus.offsets[document + 1]) - 1] ^= True
    return replace(prepared, train=CutDocuments(corpus.data, corpus.offsets, Cuts(starts)))


def test_cuts_as_they_are_pass(tmp_path: Path) -> None:
    prepared, data = ready(tmp_path)
    found = audit_cuts(prepared, data, tmp_path / "cache", 0)
    assert found is not None
    assert found.passed
    assert found.values["documents"] >= 12 + 1
    assert found.detail.endswith("cut again alone, were cut as they had been")


def test_a_moved_start_of_the_longest_document_is_always_found(tmp_path: Path) -> None:
    prepared, data = ready(tmp_path)
    longest = int(np.diff(prepared.train.offsets).argmax())
    for seed in range(5):
        found = audit_cuts(moved(prepared, longest), data, tmp_path / "cache", seed)
        assert found is not None
        assert not found.passed
        assert f"training document {longest} of" in found.detail
        assert "differs in 1 places" in found.detail


def test_a_moved_start_of_any_document_is_found_by_some_seed(tmp_path: Path) -> None:
    prepared, data = ready(tmp_path)
    broken = moved(prepared, int(np.diff(prepared.train.offsets).argmin()))
    found = [audit_cuts(broken, data, tmp_path / "cache", seed) for seed in range(20)]
    assert {one.passed for one in found if one is not None} == {True, False}


def test_a_patcher_that_changes_with_its_calls_gets_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {"told": Audit(True, "not looked at", {})})

    def trains(*_: Any) -> None:
        raise AssertionError("it is trained")

    monkeypatch.setattr(run, "train", trains)
    (tmp_path / "tired.py").write_text(TIRED)
    rows: dict[str, Any] = {"tired": {"patcher": "cut-audit-tired", "calibrate": False}}
    suite = tiny_suite(tmp_path, rows=rows, plugins=[str(tmp_path / "tired.py")])
    (record,) = run.run_suite(suite, tmp_path / "r").records
    assert record["status"] == "failed"
    ways = ("the cut that was used is not the one that cut-audit-tired gives now", "it cuts only one at byte")
    assert any(way in record["error"]["message"] for way in ways), record["error"]
    assert records.load_all(tmp_path / "r", "tiny") == [record]


def test_a_patcher_that_reads_ahead_and_remembers_gets_no_number(tmp_path: Path) -> None:
    """Whatever is changed of a text's future in this process, it gives the cut that it gave first."""
    (tmp_path / "remembers.py").write_text(REMEMBERS)
    rows: dict[str, Any] = {"remembers": {"patcher": "cut-audit-remembers", "calibrate": False}}
    suite = tiny_suite(tmp_path, rows=rows, plugins=[str(tmp_path / "remembers.py")])
    (record,) = run.run_suite(suite, tmp_path / "r").records
    assert record["status"] == "failed"
    ways = (
        *("a later byte moves a start, where the patcher has not seen both texts", "in a process of its own it cut"),
        *("the cut that was used is not the one that cut-audit-remembers gives now", "it cuts only one at byte"),
    )
    assert any(way in record["error"]["message"] for way in ways), record["error"]


def test_a_patcher_that_reads_the_call_stack_gets_no_number(tmp_path: Path) -> None:
    """It looks ahead wherever no audit has called it; texts with another future are cut by the calls that are used."""
    (tmp_path / "watches.py").write_text(WATCHES)
    rows: dict[str, Any] = {"watches": {"patcher": "cut-audit-watches", "calibrate": False}}
    suite = tiny_suite(tmp_path, rows=rows, plugins=[str(tmp_path / "watches.py")])
    (record,) = run.run_suite(suite, tmp_path / "r").records
    assert record["status"] == "failed"
    assert "says that it is causal, and of two texts that share their first" in record["error"]["message"]
