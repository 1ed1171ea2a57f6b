"""How far a suite is, seen from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import tiny_suite

from bench import records
from bench.cli.main import main
from bench.evaluation.audit import Audit
from bench.execution import run
from bench.execution.run import run_suite
from bench.execution.status import status

ROWS: dict[str, dict[str, Any]] = {
    "good": {"model": "byte_lm"},
    "diverges": {"model": "byte_lm", "train": {"lr": 1e4}},
    "held": {"patcher": "stride"},
    "open": {"patcher": "random"},
}


def test_each_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {"told": Audit(True, "not looked at", {})})
    results = tmp_path / "r"
    suite = tiny_suite(tmp_path, rows=ROWS)
    assert [one.state for one in status(suite, results)] == ["waiting"] * 4
    some = {label: ROWS[label] for label in ("good", "diverges")}
    done = run_suite(tiny_suite(tmp_path, rows=some), results).records
    names = {one.run_id: one for one in status(tiny_suite(tmp_path, rows=ROWS), results)}
    assert [r["run_id"] for r in done] == list(names)[:2]
    held = list(names)[2]
    with records.claim(results, "tiny", held) as mine:
        assert mine
        found = status(tiny_suite(tmp_path, rows=ROWS), results)
        assert [one.state for one in found] == ["done", "failed", "running", "waiting"]
        assert found[1].what.startswith("diverged: loss")
        assert main(["status", str(tmp_path / "tiny.yaml"), "--results", str(results)]) == 0
        shown = capsys.readouterr().out
        assert "4 runs: 1 done, 1 failed, 1 running, 1 waiting" in shown
        assert main(["status", str(tmp_path / "tiny.yaml"), "--results", str(results), "--json"]) == 0
        assert [one["state"] for one in json.loads(capsys.readouterr().out)] == [one.state for one in found]
    path = records.run_path(results, "tiny", done[0]["run_id"])
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    damaged = status(tiny_suite(tmp_path, rows=ROWS), results)[0]
    assert damaged.state == "damaged"
    assert f"{path.name} is damaged" in damaged.what
    assert [one.state for one in status(suite, results)][2] == "waiting"
