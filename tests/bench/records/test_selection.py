"""Which records are shown: those of the suite as it is now, in its order, and it is said what was left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_failed, make_record
from tiny_suite import write_suite

from bench import records
from bench.records.selection import select, suites_with_records
from bench.suites.config import Suite, load_suite
from patchers.errors import BenchError


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path, {"stride": {"patcher": "stride"}, "words": {"patcher": "words"}})


def store(results: Path, suite: Suite, row: str, seed: int = 0, **changes: Any) -> records.Record:
    """A record of this row as the suite has it now, but for what is changed."""
    tasks = {task.name: task.identity() for task in suite.tasks}
    record = make_record(
        row, seed, documents=5, changes={"suite": suite.name, "config": suite.run_config(row), **changes}
    )
    record["run_id"] = records.run_id(row, seed, record["config"], record["data"]["fingerprint"], tasks)
    records.write(results, record)
    return record


def test_records_of_the_present_configuration_are_shown_and_the_others_counted(tmp_path: Path, suite: Path) -> None:
    results = tmp_path / "results"
    before, now = load_suite(str(suite), ["train.lr=1e-2"]), load_suite(str(suite))
    store(results, before, "stride")
    store(results, before, "words")
    wanted = store(results, now, "stride")
    chosen = select(results, str(suite))
    assert [r["run_id"] for r in chosen.records] == [wanted["run_id"]]
    assert chosen.suite == "tiny"
    assert chosen.rows == ("stride",)
    assert "2 records of other configurations are left out" in chosen.notes[0]
    of_before = select(results, str(suite), ["train.lr=1e-2"])
    assert {r["row"] for r in of_before.records} == {"stride", "words"}
    assert "1 record of another configuration is left out" in of_before.notes[0]


def test_rows_stand_in_the_order_that_the_suite_has_now(tmp_path: Path, suite: Path) -> None:
    now = load_suite(str(suite))
    store(tmp_path, now, "words", row_index=0)
    store(tmp_path, now, "stride", row_index=7)
    assert select(tmp_path, str(suite)).rows == ("stride", "words")


def test_without_records_of_the_present_configuration_all_are_shown(tmp_path: Path, suite: Path) -> None:
    store(tmp_path, load_suite(str(suite), ["train.lr=1e-2"]), "stride")
    chosen = select(tmp_path, str(suite))
    assert len(chosen.records) == 1
    assert chosen.rows == ()
    assert chosen.notes == ()
    with pytest.raises(
        BenchError, match=r"none of the 1 records of suite 'tiny' .* is of train\.lr=0\.5; make them with"
    ):
        select(tmp_path, str(suite), ["train.lr=0.5"])


def test_all_can_be_asked_for(tmp_path: Path, suite: Path) -> None:
    store(tmp_path, load_suite(str(suite), ["train.lr=1e-2"]), "stride")
    store(tmp_path, load_suite(str(suite)), "words")
    assert len(select(tmp_path, str(suite)).records) == 1
    everything = select(tmp_path, str(suite), everything=True)
    assert len(everything.records) == 2
    assert everything.notes == ()


def test_a_suite_that_is_nowhere_has_all_its_records_shown(tmp_path: Path) -> None:
    for row in ("a", "b"):
        records.write(tmp_path, make_record(row, documents=5, changes={"suite": "gone"}))
    chosen = select(tmp_path, "gone")
    assert [r["row"] for r in chosen.records] == ["a", "b"]
    assert chosen.notes == ()


def test_of_records_that_differ_in_their_tasks_alone_those_of_the_present_tasks_are_shown(
    tmp_path: Path, suite: Path
) -> None:
    now = load_suite(str(suite))
    wanted = store(tmp_path, now, "stride")
    other = {**wanted, "run_id": "stride-s0-000000000000"}
    records.write(tmp_path, other)
    records.write(tmp_path, {**wanted, "seed": 1, "run_id": "stride-s1-000000000000"})
    chosen = select(tmp_path, str(suite))
    assert {r["run_id"] for r in chosen.records} == {wanted["run_id"], "stride-s1-000000000000"}, "seed 1 has no other"


def test_a_failed_record_of_the_present_configuration_counts(tmp_path: Path, suite: Path) -> None:
    now = load_suite(str(suite))
    failed = make_failed("stride") | {"suite": "tiny", "config": now.run_config("stride")}
    records.write(tmp_path, failed)
    store(tmp_path, load_suite(str(suite), ["train.lr=1e-2"]), "words")
    assert [r["status"] for r in select(tmp_path, str(suite)).records] == ["failed"]


def test_what_is_not_there_is_said(tmp_path: Path, suite: Path) -> None:
    with pytest.raises(BenchError, match=r"no records of suite 'tiny' in .* which has records of: no suite; make them"):
        select(tmp_path, str(suite))
    with pytest.raises(BenchError, match="check the path"):
        select(tmp_path, "nowhere.yaml")
    records.write(tmp_path, make_record("a", documents=5))
    assert suites_with_records(tmp_path) == ["quick"]
    with pytest.raises(BenchError, match="which has records of: quick"):
        select(tmp_path, "gone")


def test_a_suite_that_was_broken_is_said_where_its_file_is_named(tmp_path: Path, suite: Path) -> None:
    tree = json.loads(suite.read_text()) | {"sedes": [0]}
    suite.write_text(json.dumps(tree))
    with pytest.raises(BenchError, match="sedes"):
        select(tmp_path, str(suite))
