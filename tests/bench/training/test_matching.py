"""Matching: what should be equal is, is said in the record, and fails the run where it is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_suite import ROWS, tiny_suite

from bench.data.config import load
from bench.data.cut_corpus import batches, training_spans
from bench.execution import run
from bench.execution.run import run_suite
from bench.suites.config import Suite
from bench.training import matching
from bench.training.checkpoint import load_model
from bench.training.matching import Goal, prepare_matched
from bench.training.prepare import Prepared, flops, make_model, parameters, training_flops
from bench.training.sizing import NotMatched
from models.harness import Harness, HarnessConfig
from patchers.errors import BenchError

ALL: dict[str, dict[str, Any]] = {
    **ROWS,
    "whitespace": {"patcher": "whitespace"},
    "entropy": {"patcher": {"name": "entropy", "model": "ngram"}},
    "routed": {"patcher": "hnet"},
}


def silent(message: str) -> None: ...


def all_prepared(suite: Suite, cache: Path) -> dict[str, tuple[Prepared, Goal]]:
    data = load(suite.data)
    return {row.label: prepare_matched(suite, row, data, cache, silent) for row in suite.rows}


@pytest.mark.parametrize("to", ["stride", "bytes", "routed", 3e10])
def test_training_flops_are_those_of_the_reference(tmp_path: Path, to: str | float) -> None:
    """Solved bytes times the row's own cost a byte, patcher included, as the batches really come."""
    said = f"match_to={to}" if isinstance(to, str) else f"train_flops={to}"
    suite = tiny_suite(tmp_path, "match=train_flops", said, "train.bytes=40000", rows=ALL)
    found = all_prepared(suite, tmp_path / "cache")
    goals = {label: goal.value for label, (_, goal) in found.items()}
    assert len(set(goals.values())) == 1
    for label, (prepared, goal) in found.items():
        corpus, train = prepared.train, prepared.row.train
        spans = training_spans(corpus.offsets, train.window)
        read = sum(int((b[:, 1] - b[:, 0]).sum()) for b in batches(spans, train.batch_bytes, train.bytes, 0))
        spent = training_flops(flops(matching.expected(prepared)), read)
        assert goal.value is not None
        assert spent == pytest.approx(goal.value, rel=0.01), label
        assert goal.compare(matching.expected(prepared), read)["value"] == spent
    if isinstance(to, str):
        assert found[to][0].row.train.bytes == 40_000
    else:
        assert goals["stride"] == to
    # the dearer a byte, the fewer are read
    read_bytes = {label: prepared.row.train.bytes for label, (prepared, _) in found.items()}
    assert read_bytes["whitespace"] > read_bytes["stride"] > read_bytes["bpe"], "bpe pays for 512 symbols"


def test_the_record_says_what_was_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {})
    rows = {label: ROWS[label] for label in ("stride", "bpe", "bytes")}
    suite = tiny_suite(tmp_path, "match=train_flops", "match_to=bpe", rows=rows)
    by_row = {record["row"]: record for record in run_suite(suite, tmp_path / "results").records}
    for label, record in by_row.items():
        assert record["status"] == "ok", record["error"]
        matched = record["matched"]
        assert (matched["quantity"], matched["row"], matched["tolerance"]) == ("train_flops", "bpe", 0.01)
        assert matched["value"] == pytest.approx(record["flops"]["train"])
        assert matched["deviation"] == pytest.approx(matched["value"] / matched["reference"] - 1)
        assert abs(matched["deviation"]) < 0.01
        assert record["config"]["match_to"]["row"] == "bpe"
        # the learning rate has come down to its end over the bytes that were solved for
        assert record["loss_curve"][-1][3] < 0.12 * suite.row(label).train.lr
    assert by_row["stride"]["cost"]["train_bytes"] > by_row["bpe"]["cost"]["train_bytes"]
    assert by_row["bpe"]["cost"]["train_bytes"] == pytest.approx(20_000, rel=0.01)


@pytest.mark.parametrize("to", ["stride", "single"])
def test_inference_flops_are_those_of_the_reference(tmp_path: Path, to: str) -> None:
    """The latent model pays: longer patches get a larger one, and the local models are the same."""
    rows = {label: row for label, row in ALL.items() if label != "bytes"}
    rows |= {"single": {"patcher": "bytes"}, "long": {"patcher": {"name": "stride", "stride": 9}, "calibrate": False}}
    # in so small a model a second head would cost more than all else
    changes = "match=inference_flops", f"match_to={to}", "model.latent_logits=false"
    suite = tiny_suite(tmp_path, *changes, rows=rows)
    found = all_prepared(suite, tmp_path / "cache")
    for label, (prepared, goal) in found.items():
        sizes, base = prepared.row.sizes, suite.row(label).sizes
        matched = goal.compare(matching.expected(prepared), 20_000)
        assert matched["row"] == to
        assert abs(matched["deviation"]) < 0.005, label
        assert prepared.row.train.bytes == 20_000
        assert matched["set"] == matching.changes(base, sizes)
        assert (sizes == base) == (label == to)
        if isinstance(sizes, HarnessConfig):
            assert sizes.latent_width % (2 * sizes.latent_heads) == sizes.latent_width % sizes.local_width == 0
            latent = ("latent_width", "latent_layers", "latent_hidden")
            assert dataclasses.replace(sizes, **{n: getattr(base, n) for n in latent}) == base
            make_model(prepared.row, prepared.patcher, 0)
    count = {label: parameters(make_model(p.row, p.patcher, 0))["non_embedding"] for label, (p, _) in found.items()}
    assert count["long"] > count["whitespace"] > count["stride"] > count["single"]


def test_a_grown_model_is_trained_and_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "audit", lambda model, texts: {})
    rows = {"stride": ROWS["stride"], "long": {"patcher": {"name": "stride", "stride": 9}, "calibrate": False}}
    suite = tiny_suite(tmp_path, "match=inference_flops", "train.bytes=3000", rows=rows)
    stride, long = run_suite(suite, tmp_path / "results").records
    assert long["status"] == "ok", long["error"]
    assert long["flops"]["per_byte"]["total"] == pytest.approx(stride["flops"]["per_byte"]["total"], rel=0.01)
    assert long["parameters"]["non_embedding"] > stride["parameters"]["non_embedding"]
    assert stride["matched"]["set"] == {}
    kept = load_model(tmp_path / "results" / "tiny" / "checkpoints" / long["run_id"]).module
    assert isinstance(kept, Harness)
    assert matching.changes(suite.row("long").sizes, kept.config) == long["matched"]["set"]


def test_what_no_latent_model_can_match(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, "match=inference_flops", rows={"stride": ROWS["stride"], "lm": {"model": "byte_lm"}})
    with pytest.raises(NotMatched, match="row 'lm' has no latent model that could grow"):
        all_prepared(suite, tmp_path / "cache")
    dear = {"stride": ROWS["stride"], "dear": {"patcher": "stride", "options": {"local_width": 128}}}
    suite = tiny_suite(tmp_path, "match=inference_flops", rows=dear)
    with pytest.raises(NotMatched, match=r"row 'dear' should cost .* with the smallest latent model: match to a row"):
        all_prepared(suite, tmp_path / "cache")


def test_placement_is_checked_where_the_knob_is_set_and_on_the_training_text(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, rows=ALL)
    for label, (prepared, goal) in all_prepared(suite, tmp_path / "cache").items():
        matched = goal.compare(prepared, 20_000)
        assert matched["quantity"] == "bytes_per_patch"
        knob = label not in ("tokens", "bytes", "whitespace")
        assert matched["reference"] == (3.5 if knob else None)
        assert matched["tolerance"] == (0.15 if label == "routed" else 0.01)
        if label in ("stride", "bpe", "entropy"):
            sizes = prepared.bytes_per_patch
            assert sizes is not None
            assert matched["value"] == sizes["calibration"]
            assert abs(matched["deviation"]) < 0.01
            assert matched["elsewhere"] == {"train": sizes["train"] / 3.5 - 1}
        else:
            assert matched["deviation"] is None
            assert matched["elsewhere"] == {}


@pytest.mark.parametrize(
    ("split", "factor", "fails"),
    [("calibration", 1.009, False), ("calibration", 1.011, True), ("train", 1.049, False), ("train", 0.949, True)],
)
def test_a_patch_size_that_is_off_is_an_error(tmp_path: Path, split: str, factor: float, fails: bool) -> None:
    """One percent where the knob is set, five on the training text, which fitted patchers know already."""
    suite = tiny_suite(tmp_path, rows={"stride": ROWS["stride"]})
    prepared, goal = all_prepared(suite, tmp_path / "cache")["stride"]
    sizes = {"calibration": 3.5, "train": 3.5, "test": 9.0} | {split: 3.5 * factor}
    prepared = dataclasses.replace(prepared, bytes_per_patch=sizes)
    if not fails:
        matched = goal.compare(prepared, 20_000)
        found = matched["deviation"] if split == "calibration" else matched["elsewhere"][split]
        assert found == pytest.approx(factor - 1)
        return
    with pytest.raises(NotMatched, match=f"'stride'{' on the train split' if split == 'train' else ''} is 3"):
        goal.compare(prepared, 20_000)


def test_a_size_of_another_row_is_the_reference(tmp_path: Path) -> None:
    rows = {"whitespace": ALL["whitespace"], "bpe": {"patcher": "bpe"}}
    suite = tiny_suite(tmp_path, "bytes_per_patch=whitespace", rows=rows)
    found = all_prepared(suite, tmp_path / "cache")
    size = found["whitespace"][0].bytes_per_patch
    assert size is not None
    assert found["bpe"][1].value == pytest.approx(size["calibration"])
    assert found["bpe"][1].to == "whitespace"


@pytest.mark.parametrize(("factor", "fails"), [(1.009, False), (0.991, False), (1.011, True), (0.989, True)])
def test_more_than_a_percent_off_is_an_error(tmp_path: Path, factor: float, fails: bool) -> None:
    suite = tiny_suite(tmp_path, "match=train_flops", rows={"stride": ROWS["stride"]})
    prepared, goal = all_prepared(suite, tmp_path / "cache")["stride"]
    goal = dataclasses.replace(goal, value=training_flops(flops(prepared), 20_000) / factor)
    if not fails:
        assert goal.compare(prepared, 20_000)["deviation"] == pytest.approx(factor - 1)
        return
    with pytest.raises(NotMatched) as caught:
        goal.compare(prepared, 20_000)
    assert f"train_flops of row 'stride' is {goal.measure.of(prepared, 20_000):.6g}, {factor - 1:+.1%} from the" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_an_unmatched_run_fails_and_says_so_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = dataclasses.replace(matching.MEASURES["placement"], tolerance=-1.0)
    monkeypatch.setitem(matching.MEASURES, "placement", measure)
    suite = tiny_suite(tmp_path, rows={"bpe": ROWS["bpe"]})
    (record,) = run_suite(suite, tmp_path / "results").records
    assert record["status"] == "failed"
    assert record["error"]["kind"] == "NotMatched"
    assert record["error"]["message"].startswith("bytes_per_patch of row 'bpe' is 3.")
    assert issubclass(NotMatched, BenchError)


def test_bytes_are_those_that_were_asked_for(tmp_path: Path) -> None:
    rows = {"stride": ROWS["stride"], "long": {"patcher": "stride", "train": {"bytes": 40_000}}}
    suite = tiny_suite(tmp_path, "match=bytes", "bytes_per_patch=null", rows=rows)
    found = all_prepared(suite, tmp_path / "cache")
    assert {label: goal.value for label, (_, goal) in found.items()} == {"stride": 20_000, "long": 40_000}
    prepared, goal = found["long"]
    assert goal.compare(prepared, 40_100)["deviation"] == pytest.approx(0.0025)
    with pytest.raises(NotMatched):
        goal.compare(prepared, 20_000)


def test_a_cut_that_is_learnt_is_taken_as_it_is_wanted_until_it_is_there(tmp_path: Path) -> None:
    prepared, _ = all_prepared(tiny_suite(tmp_path, rows={"routed": ALL["routed"]}), tmp_path / "cache")["routed"]
    even = matching.expected(prepared)
    assert even.bytes_per_patch == {"calibration": 3.5, "train": 3.5}
    assert np.count_nonzero(even.train.cuts.starts[:]) == pytest.approx(len(even.train.data) / 3.5, rel=0.05)
    assert matching.expected(even) is even


# --- what a suite may say


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"match_to": "stride"}, "match_to: this is for match: train_flops or inference_flops, and match is placement"),
        ({"train_flops": 1e9}, "train_flops: this is for match: train_flops, and match is placement"),
        (
            {"match": "inference_flops", "train_flops": 1e9},
            "train_flops: this is for match: train_flops, and match is i",
        ),
        (
            {"match": "train_flops", "match_to": "strid"},
            "match_to: wanted the label of a row, got 'strid', did you mean",
        ),
        ({"match": "train_flops", "match_to": "bpe", "train_flops": 1e9}, "train_flops: match_to says already"),
        ({"match": "train_flops", "train_flops": 0}, "train_flops: wanted greater than 0, got 0"),
        ({"match": "train_flop"}, "match: wanted 'placement', 'train_flops', 'inference_flops' or 'bytes'"),
    ],
)
def test_what_is_matched_is_said_once(tmp_path: Path, others: dict[str, Any], expected: str) -> None:
    with pytest.raises(BenchError) as caught:
        tiny_suite(tmp_path, **others)
    assert expected in str(caught.value)


def test_only_the_reference_says_how_much_it_reads(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, "match=train_flops", "rows.stride.train.bytes=5000")
    assert suite.row("stride").train.bytes == 5000
    with pytest.raises(BenchError, match=r"rows.bpe.train.bytes: match: train_flops sets this; leave it out"):
        tiny_suite(tmp_path, "match=train_flops", "rows.bpe.train.bytes=5000")
    with pytest.raises(BenchError, match=r"rows.stride.train.bytes: match: train_flops sets this"):
        tiny_suite(tmp_path, "match=train_flops", "train_flops=1e9", "rows.stride.train.bytes=5000")


def test_what_a_run_is_names_the_reference(tmp_path: Path) -> None:
    plain = tiny_suite(tmp_path)
    assert "match_to" not in plain.run_config("bpe")
    by_flops = tiny_suite(tmp_path, "match=train_flops")
    said = by_flops.run_config("bpe")["match_to"]
    assert said["row"] == "stride"
    assert said["train"] == plain.run_config("stride")["train"]
    assert by_flops.run_config("stride")["match_to"] == {"row": "stride"}
    more = tiny_suite(tmp_path, "match=train_flops", "rows.stride.train.bytes=5000")
    assert more.run_config("bpe") != by_flops.run_config("bpe")


def test_a_control_is_grown_to_the_flops_of_a_row(tmp_path: Path) -> None:
    """Its local model; the patches of both are as they are."""
    rows: dict[str, dict[str, Any]] = {
        "stride": {"patcher": "stride", "options": {"latent_layers": 4}},
        "none": {"patcher": "none"},
        "grown": {"patcher": "none", "grow_to": "stride"},
    }
    suite = tiny_suite(tmp_path, rows=rows)
    work = run.Work.of(suite, tmp_path / "results", run.Silent())
    ready = {
        label: prepare_matched(suite, suite.row(label), work.data, tmp_path / "results" / "cache", lambda message: None)
        for label in rows
    }
    costs = {label: flops(prepared)["total"] for label, (prepared, _) in ready.items()}
    assert costs["none"] < 0.8 * costs["stride"]
    assert costs["grown"] == pytest.approx(costs["stride"], rel=0.005)
    prepared, goal = ready["grown"]
    assert {key.partition("_")[0] for key in goal.set} <= {"local", "decoder"}, "no other part has grown"
    assert prepared.row.sizes != ready["none"][0].row.sizes
    assert suite.run_config("grown")["grow_to"]["row"] == "stride"
    assert "grow_to" not in suite.run_config("none")
    (record,) = [r for r in run.run_suite(suite, tmp_path / "results").records if r["row"] == "grown"]
    assert record["status"] == "ok", record["error"]
    assert record["matched"]["set"] == dict(goal.set)


def test_what_cannot_be_grown_to_is_said(tmp_path: Path) -> None:
    def rows(**grown: Any) -> dict[str, dict[str, Any]]:
        return {"stride": {"patcher": "stride"}, "grown": {"patcher": "none", **grown}}

    with pytest.raises(BenchError, match=r"rows\.grown\.grow_to: wanted the label of another row.*got .strid."):
        tiny_suite(tmp_path, rows=rows(grow_to="strid"))
    with pytest.raises(BenchError, match="wanted the label of another row"):
        tiny_suite(tmp_path, rows=rows(grow_to="grown"))
    bytes_row: dict[str, Any] = {"model": "byte_lm", "grow_to": "stride"}
    with pytest.raises(BenchError, match="only a harness has a local model that could grow, and this is a byte_lm"):
        tiny_suite(tmp_path, rows={"stride": {"patcher": "stride"}, "b": bytes_row})
