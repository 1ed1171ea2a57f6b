"""Tables are pure functions of records, mark what is not a fair number, and refuse what cannot be compared."""

import copy
import csv
import io
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_builder import make_failed, make_record, put
from rich.console import Console

from bench.evaluation.tasks import TaskNotPossible
from bench.records.record import Record
from bench.records.statistics import Bootstrap, Scores
from bench.reporting.formats import Cell, Column, Row, Style, number, rich_table
from bench.reporting.table import COLUMNS, DEFAULT, FORMATS, Table, build, render
from patchers.errors import BenchError

LEAKY = {"config.leaky": True, "patcher.leaky": True}


def suite(seeds: int = 3, **bpb: float) -> list[dict[str, Any]]:
    """Records of rows (underscores stand for hyphens) that tend to these bits per byte."""
    return [
        {**make_record(row.replace("_", "-"), seed, bpb=value), "row_index": index}
        for index, (row, value) in enumerate(bpb.items())
        for seed in range(seeds)
    ]


def labels(table: Table) -> list[str]:
    return [row.label for row in table.rows]


def bold(table: Table, column: str = "bpb") -> list[str]:
    return [row.label for row in table.rows if table.cell(row.label, column).best]


def note(table: Table, start: str) -> str:
    found = [text for text in table.notes if text.startswith(start)]
    assert len(found) == 1, table.notes
    return found[0]


# --- what is in it


def test_a_table_has_the_rows_in_the_order_of_the_suite_and_the_default_columns() -> None:
    table = build(suite(zebra=2.3, ant=2.4))
    assert labels(table) == ["zebra", "ant"]
    assert [column.id for column in table.columns] == [
        name for name in DEFAULT if name not in ("bpc", "worth", "worth_at_flops")
    ]
    assert table.cell("zebra", "row") == Cell("zebra")
    assert table.cell("zebra", "bytes_per_patch").value == pytest.approx(4.49)  # mean over seeds
    assert table.cell("zebra", "parameters").value == 1_523_456
    assert table.cell("zebra", "flops_per_byte").value == 1.2e6
    assert table.cell("zebra", "train_bytes_per_second").value == pytest.approx(39_962)
    assert table.cell("zebra", "seeds").value == 3
    assert table.cell("zebra", "flags").value is None


def test_bpb_is_the_micro_average_and_differences_are_paired() -> None:
    records = suite(stride=2.3, entropy=2.25)
    table = build(records)
    expected = []
    for record in records[:3]:
        documents = record["tasks"]["bpb"]["metrics"]["bpb"]["documents"]
        expected.append(sum(d[1] for d in documents) / sum(d[2] for d in documents))
    cell, difference = table.cell("stride", "bpb"), table.cell("entropy", "difference")
    assert cell.value == pytest.approx(sum(expected) / 3, rel=1e-12)
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low < expected[0] < cell.high
    assert isinstance(difference.value, float)
    assert difference.value == pytest.approx(-0.05, abs=0.01)
    assert difference.low is not None
    assert difference.high is not None
    assert difference.high - difference.low < (cell.high - cell.low) / 4
    assert table.cell("stride", "difference") == Cell(0.0, text="reference")


def test_a_table_does_not_depend_on_the_order_of_records_or_documents_and_leaves_them_alone() -> None:
    records = suite(stride=2.3, entropy=2.25, random=2.4)
    before = copy.deepcopy(records)
    expected = build(records)
    assert build(records) == expected
    assert records == before
    rng = random.Random(0)
    for record in records:
        rng.shuffle(record["tasks"]["bpb"]["metrics"]["bpb"]["documents"])
    rng.shuffle(records)
    assert build(records) == expected


def test_rows_and_columns_can_be_chosen_and_ordered() -> None:
    table = build(suite(a=2.3, b=2.4, c=2.5), rows=["c", "a"], columns=["seeds", "bpb", "row"])
    assert labels(table) == ["c", "a"]
    assert [column.id for column in table.columns] == ["seeds", "bpb", "row"]
    assert [c.id for c in build(suite(a=2.3), columns=["bpb"]).columns] == ["row", "bpb"], "a row has its name"


@pytest.mark.parametrize("column", [column for column in COLUMNS if column != "bpc"])
def test_every_column_that_is_named_can_be_made(column: str) -> None:
    table = build(suite(a=2.3, b=2.4), columns=[column])
    for format in FORMATS:
        assert render(table, format)


def test_any_number_and_any_metric_of_a_record_can_be_a_column() -> None:
    records = suite(a=2.3, b=2.4)
    for record in records:
        documents = [[i, 0.5 if record["row"] == "a" else 0.25, 1] for i in range(50)]
        metrics = {"accuracy": {"unit": "share", "documents": documents, "lower_is_better": False}}
        record["tasks"]["spelling"] = {"version": 1, "metrics": metrics, "values": {"unparsable": 0.25}}
    wanted = ["flops.per_byte.latent", "tasks.spelling.values.unparsable", "spelling.accuracy"]
    wanted += ["spelling.accuracy.difference", "spelling.accuracy.verdict", "model", "patcher"]
    table = build(records, columns=wanted)
    got = {column: table.cell("b", column).value for column in wanted}
    assert got == dict(zip(wanted, [6.1e5, 0.25, 0.25, -0.25, "worse", "harness", "b"], strict=True))
    assert bold(table, "spelling.accuracy") == ["a"], "higher is better here"


def test_bits_per_character_stand_beside_bits_per_byte_where_records_have_them() -> None:
    records = [make_record("a", seed, characters_per_byte=0.5) for seed in range(2)]
    table = build(records)
    assert [column.id for column in table.columns][2:4] == ["bpb", "bpc"]
    bpb, bpc = table.cell("a", "bpb").value, table.cell("a", "bpc").value
    assert isinstance(bpb, float)
    assert bpc == pytest.approx(2 * bpb, rel=0.01)
    assert "bpc" in note(table, "bpb: ")
    assert "bpc" not in note(build(suite(a=2.3)), "bpb: ")


def test_a_row_without_patches_has_no_patch_size() -> None:
    table = build([make_record("byte_lm", changes={"patcher": {"name": None, "priced": None}, "config.patcher": None})])
    assert table.cell("byte_lm", "bytes_per_patch") == Cell()
    assert table.cell("byte_lm", "bpb").value is not None


def test_one_seed_is_said_to_say_nothing_about_training() -> None:
    assert "one seed says nothing about training noise" in note(build(suite(1, a=2.3)), "[95 %]: ")
    assert note(build(suite(3, a=2.3)), "[95 %]: ").endswith("Student's t over seeds. Seeds 0, 1, 2.")


def test_notes_state_data_window_training_matching_machine_reference_and_margin() -> None:
    text = "\n".join(build(suite(stride=2.3, entropy=2.2)).notes)
    for words in (
        "wiki-en (",
        "120 documents, 99,712 bytes",
        "Window: 1,024 bytes",
        "Trained on 1,638,400 bytes in 100 steps",
        "matched: placement (bytes/patch of the calibration text within 0.0 % of what was wanted; furthest: stride; "
        "of the training text within 0.4 %; furthest: stride), calibrated to 4.5 bytes/patch",
        "A CPU, 2 threads",
        "10,000 resamples",
        "Seeds 0, 1, 2",
        "row minus stride",
        "0.01 bits/byte",
        "multiply-add",
    ):
        assert words in text
    assert "Not audited" not in text
    assert "Leaky" not in text


def test_notes_state_what_differs_between_rows_where_it_may() -> None:
    records = suite(1, stride=2.3, whitespace=2.3, entropy=2.3)
    for path, value in (
        ("config.bytes_per_patch", None),
        ("cost.train_bytes", 3_000_000),
        ("environment.device", "A GPU"),
        ("audits", {}),
        ("matched.deviation", None),
    ):
        put(records[1], path, value)
    put(records[2], "matched.deviation", -0.0234)
    put(records[0], "matched.elsewhere", {"train": -0.0312})
    put(records[2], "config.bytes_per_patch", {"row": "whitespace", "patcher": {}})
    table = build(records)
    assert note(table, "Trained on") == (
        "Trained on 1,638,400 to 3,000,000 bytes in 100 steps; matched: placement (bytes/patch of the "
        "calibration text within 2.3 % of what was wanted; furthest: entropy; of the training text within 3.1 %; "
        "furthest: stride), calibrated to 4.5 bytes/patch and whitespace's"
        " bytes/patch (not calibrated: whitespace)."
    )
    assert "A CPU, 2 threads and on A GPU, 2 threads: bytes/s of different machines" in note(table, "Measured on")
    assert note(table, "Not audited") == "Not audited: whitespace."


def test_notes_say_which_rows_were_trained_by_which_version() -> None:
    records = suite(1, stride=2.3, whitespace=2.3, entropy=2.3)
    assert "different versions" not in "".join(build(records).notes)
    put(records[1], "environment.training_version", 3)
    assert note(build(records), "Trained by").endswith("(version 2 or older: stride, entropy; version 3: whitespace).")
    for record in records:
        put(record, "environment.training_version", 3)
    assert "different versions" not in "".join(build(records).notes)


def test_notes_say_how_closely_flops_are_those_of_the_reference() -> None:
    records = suite(1, stride=2.3, whitespace=2.2, bpe=2.3)
    for record, deviation in zip(records, (0.0, -0.0041, 0.002), strict=True):
        record["config"]["match"] = "train_flops"
        record["matched"].update(quantity="train_flops", row="stride", deviation=deviation, elsewhere={})
    said = "matched: train_flops (training FLOPs within 0.4 % of stride's; furthest: whitespace)"
    assert said in note(build(records), "Trained on")
    del records[2]["matched"]  # of a version that did not check
    assert f"{said[:-1]}; not checked: bpe)" in note(build(records), "Trained on")
    for record in records[:2]:
        del record["matched"]
    assert "matched: train_flops, calibrated" in note(build(records), "Trained on")


# --- which is best


def test_the_best_is_bold_alone_where_the_paired_difference_shows_it() -> None:
    assert bold(build(suite(a=2.30, b=2.25, c=2.40))) == ["b"]


def test_all_that_tie_are_bold() -> None:
    table = build(suite(a=2.300, b=2.302, c=2.40))
    assert bold(table) == ["a", "b"]
    assert build(suite(a=2.300, b=2.302), columns=["verdict"]).cell("b", "verdict").value == "tie"


def test_a_difference_within_the_margin_is_a_tie_however_certain() -> None:
    records = suite(a=2.3, b=2.3)
    for ours, other in zip(records[:3], records[3:], strict=True):
        documents = ours["tasks"]["bpb"]["metrics"]["bpb"]["documents"]
        moved = [[i, bits + 0.005 * size, size] for i, bits, size in documents]
        put(other, "tasks.bpb.metrics.bpb.documents", moved)
    table = build(records, columns=["bpb", "difference", "verdict"])
    difference = table.cell("b", "difference")
    assert [difference.low, difference.high] == pytest.approx([0.005, 0.005])
    assert [table.cell(label, "verdict").value for label in "ab"] == ["reference", "tie"]
    assert bold(table) == ["a", "b"]


def test_a_row_alone_is_not_best() -> None:
    assert bold(build(suite(a=2.3))) == []
    records = suite(a=2.3) + [make_record("leaky", seed, bpb=2.5, changes=LEAKY) for seed in range(3)]
    assert bold(build(records)) == []


def test_leaky_rows_are_marked_and_never_ranked() -> None:
    records = suite(a=2.30, b=2.25) + [make_record("bpe", seed, bpb=1.9, changes=LEAKY) for seed in range(3)]
    table = build(records, columns=["bpb", "difference", "verdict"])
    assert bold(table) == ["b"]
    leaky = table.rows[2]
    assert leaky.marked == "leaky"
    assert table.cell("bpe", "flags").value == "leaky", "the mark cannot be chosen away"
    assert table.cell("bpe", "verdict").value is None
    assert isinstance(table.cell("bpe", "difference").value, float), "how much the leak is worth"
    assert "bpe" in note(table, "Leaky: ")
    assert labels(build(records, sort="bpb")) == ["b", "a", "bpe"]
    assert labels(build(records, sort="-bpb")) == ["a", "b", "bpe"]


def test_a_leaky_row_is_the_reference_only_where_it_is_named_or_alone() -> None:
    records = [make_record("bpe", seed, changes=LEAKY) for seed in range(2)]
    assert "row minus bpe" in note(build(records), "Difference")
    both = records + suite(2, a=2.4)
    assert "row minus a" in note(build(both), "Difference")
    assert "row minus bpe" in note(build(both, reference="bpe"), "Difference")


def test_priced_rows_say_so_and_are_ranked() -> None:
    records = suite(a=2.30) + [
        make_record("bpe", seed, bpb=2.2, changes={"patcher.priced": "start"}) for seed in range(3)
    ]
    table = build(records)
    assert bold(table) == ["bpe"]
    assert table.cell("bpe", "flags").value == "priced (start)"
    assert note(table, "Priced: ")


def test_rows_whose_tokenizer_loses_something_say_so() -> None:
    lost = {"changed_share": 0.04, "words": "its tokens do not give back 4 % of the bytes: lower case 4 % ('A')"}
    kept = {"changed_share": 0.0, "words": "its tokens give back every byte"}
    table = build(
        [
            make_record("lossy", changes={"patcher.losses": lost}),
            make_record("lossless", changes={"patcher.losses": kept}),
            make_record("stride"),
        ]
    )
    assert table.cell("lossy", "flags").value == "not lossless"
    assert [table.cell(row, "flags").value for row in ("lossless", "stride")] == [None, None]
    assert [note for note in table.notes if "lossless" in note] == [
        "lossy, not lossless: its tokens do not give back 4 % of the bytes: lower case 4 % ('A'). A model over tokens "
        "reads and pays these bytes one by one."
    ]


def test_rows_can_be_sorted_by_any_column() -> None:
    records = [*suite(1, b=2.3, a=2.2, c=2.4), make_failed("d")]
    assert labels(build(records, sort="bpb")) == ["a", "b", "c", "d"]
    assert labels(build(records, sort="-bpb")) == ["c", "b", "a", "d"]
    assert labels(build(records, sort="row")) == ["a", "b", "c", "d"]
    assert labels(build(records, sort="parameters")) == ["b", "a", "c", "d"], "ties keep the suite's order"


def test_rows_can_be_grouped() -> None:
    records = suite(1, a=2.3, tokens=2.2, b=2.4)
    put(records[1], "config.model.kind", "token_lm")
    table = build(records, group="model")
    assert [(name, [row.label for row in rows]) for name, rows in table.groups()] == [
        ("harness", ["a", "b"]),
        ("token_lm", ["tokens"]),
    ]
    for format in FORMATS:
        assert "token" in render(table, format)
    read = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [row["group"] for row in read] == ["harness", "harness", "token_lm"]


# --- references


def test_the_reference_is_the_first_row_or_the_named_one() -> None:
    records = suite(a=2.3, b=2.4)
    assert build(records).cell("a", "difference").text == "reference"
    table = build(records, reference="b")
    assert table.cell("b", "difference").text == "reference"
    value = table.cell("a", "difference").value
    assert isinstance(value, float)
    assert value < 0
    assert table.columns[3].title == "difference to b"


def test_the_reference_need_not_be_shown() -> None:
    table = build(suite(a=2.3, b=2.4, c=2.5), rows=["a", "b"], reference="c")
    assert labels(table) == ["a", "b"]
    assert table.cell("a", "difference").low is not None


def test_a_reference_without_a_number_is_refused() -> None:
    with pytest.raises(BenchError, match=r"row 'b' has no number .*at step 17: the loss is NaN"):
        build([*suite(a=2.3), make_failed("b")], reference="b")


def test_differences_are_over_common_seeds() -> None:
    records = [*suite(3, a=2.3), make_record("b", 1, bpb=2.4), make_record("c", 7, bpb=2.4)]
    table = build(records)
    assert isinstance(table.cell("b", "difference").value, float)
    assert table.cell("c", "difference") == Cell(), "no seed in common, no paired difference"
    assert "(b: 1; c: 7; differences are over the seeds that both rows have)" in note(table, "[95 %]")


# --- what has no number


def test_a_failed_row_shows_its_failure_and_no_number() -> None:
    table = build([*suite(a=2.3), make_failed("b"), make_failed("b", 1)])
    assert table.rows[1].marked == "failed"
    values = {c.id: table.cell("b", c.id).value for c in table.columns}
    assert values.pop("row") == "b"
    assert values.pop("flags") == "failed: Divergence at step 17"
    assert values.pop("seeds") == 0
    assert set(values.values()) == {None}
    assert note(table, "No number for b") == "No number for b, seeds 0, 1: Divergence at step 17: the loss is NaN"


def test_what_a_user_can_mend_is_told_in_its_own_words() -> None:
    record = make_failed("b")
    record["error"] = {"kind": "BenchError", "message": f"wanted {'a much ' * 8}smaller size;\nask for one"}
    table = build([*suite(a=2.3), record])
    assert table.cell("b", "flags").value == "failed: wanted a much a much a much a much a mu…"
    assert note(table, "No number for b").endswith("seed 0: wanted " + "a much " * 8 + "smaller size; ask for one")


def test_a_row_of_which_some_seeds_failed_says_so() -> None:
    table = build([*suite(3, a=2.3), *suite(2, b=2.2), make_failed("b", 2)])
    assert table.cell("b", "flags").value == "1 of 3 seeds failed"
    assert table.cell("b", "seeds") == Cell(2, text="2 of 3")
    assert note(table, "No number for b, seed 2: ")


def test_a_task_that_failed_is_named() -> None:
    records = suite(2, a=2.3, b=2.2)
    put(records[-1], "tasks.noise", {"version": 1, "error": {"kind": "ZeroDivisionError", "message": "no\nwords"}})
    put(
        records[0],
        "tasks.speed",
        {"version": 1, "error": {"kind": TaskNotPossible.__name__, "message": "it cannot write"}},
    )
    table = build(records, columns=["bpb"])
    assert [table.cell(label, "flags").value for label in ("a", "b")] == [None, "task noise failed"]
    assert note(table, "No result") == "No result of the task noise for b, seed 1: ZeroDivisionError: no words"
    assert not any("cannot write" in text for text in table.notes), "not to be asked is no failure"
    assert isinstance(table.cell("b", "bpb").value, float), "its other tasks have their numbers"


def test_a_run_whose_audit_failed_carries_no_number() -> None:
    records = suite(1, a=2.3, cheat=1.2)
    put(records[1], "audits.kraft", {"passed": False, "detail": "the sum is 1.7"})
    table = build(records)
    assert table.cell("cheat", "bpb") == Cell()
    assert table.cell("cheat", "parameters") == Cell()
    assert table.cell("cheat", "flags").value == "failed: kraft audit"
    assert note(table, "No number for cheat").endswith("the kraft audit failed: the sum is 1.7")
    assert "1.2" not in re.sub(r"1\.2\d*M", "", render(table, "md").split("cheat")[1].split("\n")[0])
    put(records[1], "config.leaky", True)
    assert isinstance(build(records).cell("cheat", "bpb").value, float), "leaky rows fail by design, and are marked"


def test_only_failures_make_a_table_too() -> None:
    table = build([make_failed("a"), make_failed("b")])
    assert table.cell("a", "flags").value == "failed: Divergence at step 17"
    for format in FORMATS:
        assert "Divergence" in render(table, format)


def test_a_failed_run_that_was_mended_is_forgotten() -> None:
    ok = make_record("a", changes={"config.train.lr": 1e-3})
    failed = make_failed("a")
    assert failed["run_id"] != ok["run_id"]
    assert build([failed, ok]) == build([ok, failed]) == build([ok])


def test_a_metric_in_which_nothing_was_counted_has_no_number() -> None:
    records = suite(1, a=2.3, b=2.4)
    for record, count in zip(records, (0, 1), strict=True):
        metrics = {"x": {"unit": "share", "documents": [["d", 0, count], ["e", 1, count]], "lower_is_better": True}}
        record["tasks"]["t"] = {"version": 1, "metrics": metrics}
    table = build(records, columns=["t.x"])
    assert table.cell("a", "t.x") == Cell()
    assert table.cell("b", "t.x").value == 0.5


# --- what cannot be compared


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.fingerprint", "f" * 64),
        ("data.splits.train.fingerprint", "f" * 64),
        ("data.splits.calibration.fingerprint", "f" * 64),
        ("data.splits.test.fingerprint", "f" * 64),
        ("config.train.window", 2048),
        ("tasks.bpb.version", 2),
    ],
)
def test_rows_that_differ_in_what_must_be_the_same_are_refused_and_the_field_is_named(path: str, value: Any) -> None:
    records = suite(1, a=2.3, b=2.4, c=2.5)
    put(records[1], path, value)
    with pytest.raises(BenchError) as caught:
        build(records)
    message = str(caught.value)
    assert f"{path} is " in message
    assert "'a' (seed 0)" in message
    assert "'b' (seed 0)" in message
    assert str(value)[:8] in message
    assert labels(build(records, rows=["a", "c"])) == ["a", "c"], "the others can be"
    with pytest.raises(BenchError, match=re.escape(path)):
        build(records, rows=["a", "c"], reference="b")


def test_rows_with_other_documents_are_refused() -> None:
    records = suite(1, a=2.3, b=2.4)
    records[1]["tasks"]["bpb"]["metrics"]["bpb"]["documents"].pop()
    with pytest.raises(BenchError, match=r"tasks.bpb.metrics.bpb.documents are 120 .* and 119 .* 119 of them the same"):
        build(records)


def test_rows_that_count_bytes_differently_are_refused() -> None:
    records = suite(1, a=2.3, b=2.4)
    records[1]["tasks"]["bpb"]["metrics"]["bpb"]["documents"][5][2] += 1
    with pytest.raises(BenchError, match="counts them wrongly"):
        build(records)


def test_seeds_of_another_config_are_refused() -> None:
    records = [make_record("a", 0), make_record("a", 1, changes={"config.train.lr": 1e-3})]
    with pytest.raises(BenchError, match=r"config\.train\.lr is 0\.003 at seed 0 and 0\.001 at seed 1"):
        build(records)


@pytest.mark.parametrize(
    ("path", "value"),
    [("config.train.lr", 1e-3), ("data.fingerprint", "f" * 64), ("tasks.bpb.version", 2), ("config.extra", 1)],
)
def test_two_records_of_one_seed_are_refused(path: str, value: Any) -> None:
    with pytest.raises(BenchError, match=rf"'a' has two records of seed 0, .* differ in {re.escape(path)}"):
        build([make_record("a"), make_record("a", changes={path: value})])


def test_unknown_names_are_refused_with_the_nearest() -> None:
    records = suite(1, stride=2.3, entropy=2.4)
    with pytest.raises(BenchError, match="unknown row 'entropi', did you mean 'entropy'"):
        build(records, rows=["entropi"])
    with pytest.raises(BenchError, match="unknown row 'strid', did you mean 'stride'"):
        build(records, reference="strid")
    with pytest.raises(BenchError, match="unknown column 'flop_per_byte', did you mean 'flops_per_byte'"):
        build(records, columns=["flop_per_byte"])
    with pytest.raises(BenchError, match="unknown column 'verdit', did you mean 'verdict'"):
        build(records, sort="-verdit")
    with pytest.raises(BenchError, match=r"unknown format 'htm', did you mean 'html'\?; there are: terminal, md"):
        render(build(records), "htm")
    with pytest.raises(BenchError, match="none of the rows has a number for column 'bpc'"):
        build(records, columns=["bpc"])
    with pytest.raises(BenchError, match="no records"):
        build([])


# --- how it is written


@pytest.mark.parametrize(
    ("value", "style", "expected"),
    [
        (2.34567, "bits", "2.346"),
        (0.0123, "signed", "+0.012"),
        (-0.0123, "signed", "-0.012"),
        (-0.0001, "signed", "0.000"),
        (4.5, "ratio", "4.50"),
        (1234567, "count", "1,234,567"),
        (0, "si", "0"),
        (512, "si", "512"),
        (0.25, "si", "0.25"),
        (999.6, "si", "1.00k"),
        (1_523_456, "si", "1.52M"),
        (39_961.5, "si", "40.0k"),
        (999_999, "si", "1.00M"),
        (923_456, "si", "923k"),
        (5.9e12, "si", "5.90T"),
        (3.2e21, "si", "3200E"),
        (41.0, "number", "41"),
    ],
)
def test_numbers_for_people(value: float, style: Style, expected: str) -> None:
    assert number(value, style) == expected


NASTY = r"a|b*c_d & 50% of $5 #1 {x} ~ ^ \ <b>[i]`"


def nasty() -> Table:
    columns = (Column("row", "row", "text"), Column("x", "a_b|c", "signed", True), Column("flags", "flags", "text"))
    rows = (
        Row("[odd]", (Cell("[odd]"), Cell(-0.5, -0.75, 0.25, best=True), Cell(NASTY))),
        Row("*also", (Cell("*also"), Cell(), Cell('line\nbreak, comma and "quotes"')), marked="failed"),
    )
    return Table(columns, rows, (f"a note: {NASTY}",))


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_a_table_of_equal_rows() -> None:
    lines = render(build([*suite(a=2.30, b=2.25), make_failed("c")], columns=["bpb", "flags"]), "md").split("\n")
    assert cells_of(lines[0]) == ["row", "bpb [95 %]", "flags"]
    assert cells_of(lines[1])[1].endswith("-:")
    assert re.fullmatch(r"\*\*2\.\d{3}\*\* \[2\.\d{3}, 2\.\d{3}\]", cells_of(lines[3])[1])
    assert cells_of(lines[4]) == ["c", "—", "failed: Divergence at step 17"]
    assert len({len(line) for line in lines[:5]}) == 1, "columns are aligned in the source too"
    assert lines[5] == ""
    assert all(line.startswith("- ") for line in lines[6:])


def test_markdown_escapes_what_would_break_it() -> None:
    lines = render(nasty(), "md").split("\n")
    assert [len(cells_of(line)) for line in lines[:4]] == [3, 3, 3, 3]
    assert cells_of(lines[2])[2] == r"a\|b\*c_d & 50% of $5 #1 {x} ~ ^ \\ \<b>[i]\`"
    assert cells_of(lines[2])[1] == "**-0.500** [-0.750, +0.250]"


def test_csv_reads_back_equal() -> None:
    records = [*suite(a=2.30, b=2.25), *(make_record("bpe", s, changes=LEAKY) for s in range(3)), make_failed("c")]
    table = build(records)
    read = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [row["row"] for row in read] == labels(table)
    for got, row in zip(read, table.rows, strict=True):
        for column, cell in zip(table.columns, row.cells, strict=True):
            exact = {column.id: cell.value}
            if column.interval:
                exact |= {f"{column.id}_low": cell.low, f"{column.id}_high": cell.high}
            for name, value in exact.items():
                same = got[name] == "" if value is None else type(value)(got[name]) == value
                assert same, f"{name}: {got[name]} is not {value!r}"
    odd = list(csv.DictReader(io.StringIO(render(nasty(), "csv"))))
    assert [odd[0]["flags"], odd[1]["flags"]] == [NASTY, 'line\nbreak, comma and "quotes"']


def test_json_has_everything() -> None:
    table = build(suite(a=2.30, b=2.25))
    got = json.loads(render(table, "json"))
    assert [row["label"] for row in got["rows"]] == ["a", "b"]
    cell = table.cell("b", "bpb")
    assert got["rows"][1]["cells"]["bpb"] == {"value": cell.value, "low": cell.low, "high": cell.high, "best": True}
    assert got["rows"][1]["cells"]["parameters"] == 1_523_456
    assert tuple(got["notes"]) == table.notes


def test_html_is_well_formed_and_escaped() -> None:
    class Checker(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.text: list[str] = []
            self.values: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag in {"figure", "table", "thead", "tbody", "tr", "th", "td", "strong", "small", "figcaption"} | {
                *("ul", "li"),
            }
            self.open.append(tag)
            self.values += [value or "" for name, value in attrs if name == "data-value"]

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

        def handle_data(self, data: str) -> None:
            self.text.append(data)

    checker = Checker()
    checker.feed(render(nasty(), "html"))
    assert checker.open == []
    assert NASTY in "".join(checker.text)
    assert "-0.5" in checker.values
    assert '<tr class="failed">' in render(nasty(), "html")
    assert "<strong>-0.500</strong> <small>[-0.750, +0.250]</small>" in render(nasty(), "html")


def test_latex_is_booktabs_and_escaped() -> None:
    text = render(nasty(), "latex")
    for line in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\begin{tabular}{lrl}",
        r"{}[odd] & \textbf{$-$0.500} {\scriptsize [$-$",
    ):
        assert line in text
    assert r"50\% of \$5 \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}" in text
    assert r"a\_b\textbar{}c [95 \%]" in text
    assert r"{}*also & --- & line break" in text
    odd = Table(nasty().columns, nasty().rows, ("naïve 5 µs × 東\x1b…",))
    assert r"naïve 5 µs $\times$ [U+6771][U+001B]…\par" in render(odd, "latex")


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive-latex-recommended)"
)
def test_latex_compiles_and_fits_the_page(tmp_path: Path) -> None:
    records = [*suite(a=2.30, b=2.25), make_failed("c"), make_record("bpe", changes=LEAKY)]
    odd = Table(nasty().columns, nasty().rows, ("naïve 5 µs × 東京 → \x00…", "".join(map(chr, range(1, 0x250)))))
    compiled(tmp_path, build(records, group="model"), nasty(), odd)
    narrow, wide = build(records, columns=["bpb"]), build(records)
    assert len(wide.columns) > 8
    assert "Overfull" not in compiled(tmp_path, narrow, wide)


def compiled(folder: Path, *tables: Table) -> str:
    """What pdflatex says of an article with these tables."""
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
    document = [rf"\documentclass{{article}}{packages}\begin{{document}}"]
    document += [render(table, "latex") for table in tables] + [r"\end{document}"]
    (folder / "t.tex").write_text("\n".join(document), "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "t.pdf").stat().st_size > 1000
    return done.stdout


def printed(table: Table, width: int) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(rich_table(table, width))
    return capture.get()


def test_the_terminal_gets_whole_lines_and_a_star_where_there_is_no_colour() -> None:
    text = render(build([*suite(a=2.30, b=2.25), make_failed("c")]), "terminal")
    lines = text.split("\n")
    assert re.search(r"^ b .* \*2\.\d{3} \[2\.\d{3}, 2\.\d{3}\]", text, re.MULTILINE)
    assert sum(line.startswith(" a ") for line in lines) == 1, "one part, however wide"
    assert "\x1b" not in text
    assert "[odd]" in render(nasty(), "terminal"), "no markup is read from data"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_gets_the_columns_below_one_another_and_every_number_whole(width: int) -> None:
    table = build([*suite(alpha=2.30, beta=2.25), make_failed("gamma")])
    text = printed(table, width)
    parts = [line for line in text.split("\n") if line.startswith(" alpha ")]
    assert len(parts) > 1
    assert max(map(len, text.split("\n"))) <= width
    whole = next(line for line in render(table, "terminal").split("\n") if line.startswith(" alpha ")).split()
    assert " ".join(parts).replace(" alpha ", " ").split() == [word.lstrip("*") for word in whole[1:]]


def test_intervals_are_those_of_the_bootstrap() -> None:
    records = suite(a=2.3)
    entries = [sorted(r["tasks"]["bpb"]["metrics"]["bpb"]["documents"]) for r in records]
    both = np.array([[entry[1:] for entry in documents] for documents in entries], dtype=float)
    expected = Bootstrap({"a": Scores((0, 1, 2), both[:, :, 0], both[:, :, 1])}).estimate("a")
    cell = build(records).cell("a", "bpb")
    assert (cell.value, cell.low, cell.high) == (expected.value, expected.low, expected.high)


def test_rows_that_are_at_chance_are_named() -> None:
    def guessing(row: str, right: float, **more: Any) -> Record:
        documents = [[f"{i:04}", float(i < 100 * right), 1] for i in range(100)]
        metric = {"unit": "accuracy", "lower_is_better": False, "documents": documents, **more}
        return make_record(row, changes={"tasks.noise": {"version": 1, "metrics": {"choice": metric}}})

    one = [guessing("stride", 0.27), guessing("bpe", 0.6)]
    [told] = [note for note in build(one, columns=["noise.choice"]).notes if "chance" in note]
    assert told.startswith("At chance in noise.choice (guessing: 0.25), so that it says nothing of stride: ")
    both = [guessing("stride", 0.5, chance=0.5), guessing("bpe", 0.45, chance=0.5)]
    [told] = [note for note in build(both, columns=["noise.choice"]).notes if "chance" in note]
    assert "(guessing: 0.50), so that it says nothing of any row" in told
    none = [guessing("stride", 0.9), guessing("bpe", 0.8)]
    assert not [note for note in build(none, columns=["noise.choice"]).notes if "chance" in note]


def test_rows_whose_untrained_model_does_as_well_are_named() -> None:
    def probed(row: str, trained: float, untrained: float) -> Record:
        metrics = {
            name: {
                "unit": "accuracy",
                "lower_is_better": False,
                "documents": [[f"{i:04}", float(i < 100 * right), 1] for i in range(100)],
            }
            for name, right in (("letters", trained), ("untrained_letters", untrained))
        }
        return make_record(row, changes={"tasks.probe": {"version": 2, "metrics": metrics}})

    rows = [probed("stride", 0.7, 0.9), probed("bpe", 0.9, 0.6)]
    [told] = [note for note in build(rows, columns=["probe.letters"]).notes if "before its training" in note]
    assert told.startswith("probe.letters of stride: the same model before its training is not shown to do worse")
    assert not [n for n in build(rows, columns=["probe.untrained_letters"]).notes if "before its training" in n]
