"""Sweeps: each row at each value, labelled, told apart, and beside the rows that it goes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_suite import ROWS, tiny_suite

from bench.execution import run
from bench.execution.run import run_suite
from bench.records.fits import fits_of
from bench.records.record import run_id
from bench.suites.config import Suite
from bench.suites.sweep import apply, combinations, description, swept_label
from patchers.errors import BenchError


def labels(suite: Suite) -> list[str]:
    return [row.label for row in suite.rows]


def test_every_row_at_every_budget(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, sweep={"train.bytes": [5000, 20_000]})
    assert labels(suite) == [f"{label}@{value}" for label in ROWS for value in (5000, 20_000)]
    assert [row.train.bytes for row in suite.rows] == [5000, 20_000] * len(ROWS)
    found = suite.run_config("bpe@5000")["sweep"]
    assert found == {"row": "bpe", "key": "train.bytes", "value": 5000}
    plain = tiny_suite(tmp_path, "train.bytes=5000").run_config("bpe")
    assert {**plain, "sweep": found} == suite.run_config("bpe@5000")
    assert "sweep" not in plain
    assert run_id("bpe@5000", 0, plain, "data", {}).startswith("bpe@5000-s0-")


def test_rows_without_what_is_swept_stand_as_they_are(tmp_path: Path) -> None:
    rows = {**ROWS, "whitespace": {"patcher": "whitespace"}}
    sizes = tiny_suite(tmp_path, rows=rows, sweep={"bytes_per_patch": [3, 4.5]})
    assert labels(sizes) == ["stride@3", "stride@4.5", "bpe@3", "bpe@4.5", "tokens", "bytes", "whitespace"]
    assert [row.bytes_per_patch for row in sizes.rows] == [3, 4.5, 3, 4.5, None, None, None]
    assert sizes.row("tokens").sweep is None
    widths = tiny_suite(tmp_path, rows=rows, sweep={"token_lm.width": [16, 32], "model.latent_width": [32, 64]})
    assert labels(widths) == [
        *("stride@32", "stride@64", "bpe@32", "bpe@64", "tokens@16", "tokens@32", "bytes"),
        *("whitespace@32", "whitespace@64"),
    ]
    assert [row.sizes.width for row in widths.rows if row.model == "token_lm"] == [16, 32]  # type: ignore[union-attr]


def test_sizes_swept_without_a_size_above(tmp_path: Path) -> None:
    suite = tiny_suite(
        tmp_path, "bytes_per_patch=null", rows={"a": {"patcher": "stride"}}, sweep={"bytes_per_patch": [3]}
    )
    assert [(row.label, row.bytes_per_patch) for row in suite.rows] == [("a@3", 3)]


def test_several_keys_are_every_pair(tmp_path: Path) -> None:
    sweep = {"train.bytes": [1000, 2000], "model.latent_width": [32, 64]}
    suite = tiny_suite(tmp_path, rows={"a": ROWS["stride"]}, sweep=sweep)
    assert labels(suite) == ["a@1000@32", "a@1000@64", "a@2000@32", "a@2000@64"]
    assert suite.rows[1].sweep == {
        "row": "a", "key": "train.bytes", "value": 1000, "others": {"model.latent_width": 64},
    }  # fmt: skip


def test_rows_go_to_the_size_and_the_flops_of_their_own_budget(tmp_path: Path) -> None:
    rows = {"whitespace": {"patcher": "whitespace"}, "bpe": {"patcher": "bpe"}, "words": {"patcher": "words"}}
    suite = tiny_suite(
        *(tmp_path, "bytes_per_patch=whitespace", "match=train_flops", "match_to=words"),
        rows=rows,
        sweep={"train.bytes": [5000, 20_000]},
    )
    bpe = suite.row("bpe@20000")
    assert (bpe.bytes_per_patch, bpe.match_to) == ("whitespace@20000", "words@20000")
    assert bpe.calibrate
    # what the row that it goes to is called in the YAML is part of what the run is, its place in the sweep is not
    said = suite.run_config("bpe@20000")
    assert said["bytes_per_patch"]["row"] == "whitespace"
    assert said["match_to"]["row"] == "words"
    assert said["match_to"]["train"]["bytes"] == 20_000
    assert suite.run_config("words@5000")["match_to"] == {"row": "words"}


def test_a_row_does_not_go_to_its_own_size(tmp_path: Path) -> None:
    rows = {"stride": {"patcher": "stride"}, "bpe": {"patcher": "bpe"}}
    suite = tiny_suite(tmp_path, "bytes_per_patch=stride", rows=rows, sweep={"train.bytes": [5000, 20_000]})
    assert [row.bytes_per_patch for row in suite.rows] == [None, None, "stride@5000", "stride@20000"]


def test_budgets_of_flops(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, "match=train_flops", sweep={"train_flops": [1e9, 4e9]})
    assert labels(suite)[:2] == ["stride@1e+09", "stride@4e+09"]
    assert [row.match_to for row in suite.rows[:2]] == [1e9, 4e9]
    assert suite.run_config("bytes@1e+09")["match_to"] == 1e9


def test_a_sweep_is_run_and_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {})
    rows = {"stride": ROWS["stride"], "bytes": ROWS["bytes"]}
    suite = tiny_suite(tmp_path, "match=bytes", rows=rows, sweep={"train.bytes": [13_000, 26_000, 52_000]})
    records = run_suite(suite, tmp_path / "results").records
    assert [(r["row"], r["status"]) for r in records] == [(row.label, "ok") for row in suite.rows]
    assert [r["config"]["sweep"]["value"] for r in records] == [13_000, 26_000, 52_000] * 2
    assert all(r["matched"]["quantity"] == "train_bytes" and abs(r["matched"]["deviation"]) < 0.01 for r in records)
    found = fits_of(records, resamples=100)
    assert list(found.rows) == ["stride", "bytes"]
    assert [point.value for point in found.rows["stride"].points] == [13_000, 26_000, 52_000]
    losses = [point.loss.value for point in found.rows["stride"].points]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"sweep": {"train.byts": [1]}}, "sweep.train.byts: no key to sweep over, did you mean 'train.bytes'?"),
        ({"sweep": {"train.bytes": []}}, "sweep.train.bytes: wanted"),
        ({"sweep": {"train.bytes": [5, 5]}}, "sweep.train.bytes.1: wanted numbers above 0, each once, got 5"),
        ({"sweep": {"train.bytes": [0]}}, "sweep.train.bytes.0: wanted numbers above 0, each once, got 0"),
        ({"sweep": {"train.bytes": ["x"]}}, "sweep.train.bytes.0: wanted"),
        ({"sweep": {"train.bytes": [1.5]}}, "train.bytes: wanted a whole number, got 1.5"),
        (
            {"sweep": {"train_flops": [1e9]}},
            "sweep.train_flops: this is for match: train_flops, and match is placement",
        ),
        (
            {"sweep": {"train_flops": [1e9], "train.bytes": [1]}, "match": "train_flops"},
            "sweep.train.bytes: train_flops sets how many bytes rows read; leave one out",
        ),
        (
            {"sweep": {"train_flops": [1e9]}, "match": "train_flops", "train_flops": 1e9},
            "sweep.train_flops: train_flops says already what rows are matched to",
        ),
    ],
)
def test_what_cannot_be_swept(tmp_path: Path, others: dict[str, Any], expected: str) -> None:
    with pytest.raises(BenchError) as caught:
        tiny_suite(tmp_path, **others)
    assert expected in str(caught.value)


# --- the parts


def test_settings_go_to_their_places() -> None:
    row = {"patcher": "bpe", "train": {"lr": 1}}
    assert apply(row, {"train.bytes": 5, "model.latent_width": 3, "bytes_per_patch": 4.5, "train_flops": 1e9}) == {
        "patcher": "bpe", "train": {"lr": 1, "bytes": 5}, "options": {"latent_width": 3}, "bytes_per_patch": 4.5,
    }  # fmt: skip
    assert row == {"patcher": "bpe", "train": {"lr": 1}}


def test_no_sweep_is_one_row_as_it_was() -> None:
    assert list(combinations({})) == [{}]
    assert swept_label("stride", {}) == "stride"
    assert description("stride", {}) is None
