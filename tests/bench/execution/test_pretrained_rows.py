"""Suites with rows of pretrained models: run, recorded, shown beside trained rows, and what is wrong with one said."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pretrained_models as tiny
import pytest
import torch
from tiny_suite import tiny_suite, write_suite

from bench import records
from bench.cli.main import main
from bench.evaluation.audit import Audit
from bench.evaluation.pretrained.config import PretrainedConfig
from bench.evaluation.pretrained.load import load
from bench.execution import run
from bench.execution.plan import plan_pretrained
from bench.execution.run import Silent, data_of, run_suite, runs_of
from bench.execution.status import status
from bench.records.record import Record
from bench.records.selection import select
from bench.reporting.table import Comparison, build, render
from bench.suites.config import Suite, load_suite
from patchers.errors import BenchError

Rows = dict[str, dict[str, Any]]
TASKS = [
    "bpb",
    {"name": "noise", "documents": 4, "level_documents": 2, "items": 4, "operators": ["drop", "upper_case"]},
    {"name": "spelling", "items": 2, "tune": 0, "tune_items": 4, "shots": 1},
    {"name": "probe", "test_words": 20, "train_words": 50, "places": 2},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.manual_seed(0)
    made = {kind: tmp_path_factory.mktemp("saved") / kind for kind in ("gpt2", "bytes", "blt")}
    tiny.save_gpt2(made["gpt2"])
    tiny.save_byte_llama(made["bytes"])
    tiny.save_blt(made["blt"])
    return {kind: str(folder) for kind, folder in made.items()}


@pytest.fixture
def rows(folders: dict[str, str]) -> Rows:
    """Pretrained ones before and behind a trained one, whose audits have tests of their own."""
    return {
        "gpt2": {"model": {"hf": folders["gpt2"]}},
        "trained": {"model": "byte_lm"},
        "byte-llama": {"model": {"hf": folders["bytes"]}},
    }


@pytest.fixture
def unaudited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained rows are not audited here."""
    monkeypatch.setattr(run, "audit", lambda model, texts: {"told": Audit(True, "not looked at", {})})


def by_row(found: list[Record]) -> dict[str, Record]:
    assert all(record["status"] == "ok" for record in found), [record["error"] for record in found]
    return {record["row"]: record for record in found}


@pytest.mark.usefixtures("unaudited")
def test_trained_and_pretrained_rows_side_by_side(tmp_path: Path, rows: Rows) -> None:
    suite = tiny_suite(tmp_path, "seeds=[0,1]", rows=rows, tasks=TASKS[:1])
    results = tmp_path / "results"
    found = run_suite(suite, results).records
    labels = [(record["row"], record["seed"]) for record in found]
    assert labels == [("gpt2", 0), ("byte-llama", 0), ("trained", 0), ("trained", 1)], "once, whatever the seeds"
    gpt2, trained = by_row(found)["gpt2"], by_row(found)["trained"]
    files = suite.pretrained[0].files.fingerprint
    assert gpt2["config"]["model"] == {"kind": "pretrained", "hf": "gpt2", "files": files}
    assert gpt2["config"]["train"] == {"window": trained["config"]["train"]["window"]}
    counts = [[d[::2] for d in r["tasks"]["bpb"]["metrics"]["bpb"]["documents"]] for r in (gpt2, trained)]
    assert counts[0] == counts[1], "the same raw bytes"
    assert all(audit["passed"] for audit in gpt2["audits"].values())
    assert gpt2["audits"].keys() == {"future", "alone", "kraft_next", "kraft_short"}
    assert gpt2["pretrained"]["class"] == "GPT2LMHeadModel"
    assert gpt2["pretrained"]["vocabulary"]["lossless"]
    assert "train" not in gpt2["flops"]
    assert str(Path(rows["gpt2"]["model"]["hf"]).parent) not in json.dumps(gpt2), "no path of this machine"

    comparison = Comparison(found, reference=None)
    assert comparison.reference == "trained"
    table = comparison.table()
    assert [row.label for row in table.rows] == ["trained", "gpt2", "byte-llama"]
    assert table.cell("gpt2", "flags").value == "pretrained"
    assert "pretrained" not in str(table.cell("trained", "flags").value)
    assert table.cell("gpt2", "bpb").value is not None
    assert table.cell("gpt2", "difference").value is None
    assert table.cell("gpt2", "bytes_per_patch").value == pytest.approx(gpt2["patcher"]["bytes_per_patch"]["test"])
    assert any(note.startswith("Pretrained: gpt2, byte-llama; trained elsewhere") for note in table.notes)
    assert "pretrained" in render(table, "md")

    again = run_suite(suite, results).records
    assert again == found
    assert select(results, str(tmp_path / "tiny.yaml"), ["seeds=[0,1]"]).rows == ("trained", "gpt2", "byte-llama")
    assert all(one.state == "done" for one in status(suite, results))


@pytest.mark.parametrize(("kind", "options"), [("gpt2", {}), ("bytes", {}), ("blt", {"byte_offset": 4})])
def test_every_task_that_needs_no_training(
    tmp_path: Path, folders: dict[str, str], kind: str, options: dict[str, Any]
) -> None:
    """Over text with words to probe; BLT's port takes a document at a time, and is asked less."""
    rows: Rows = {kind: {"model": {"hf": folders[kind], **options}}}
    if kind == "blt":
        suite = tiny_suite(tmp_path, rows=rows)
    else:
        suite = tiny_suite(tmp_path, rows=rows, tasks=TASKS, data=words_to_probe(tmp_path))
    found = by_row(run_suite(suite, tmp_path / "results").records)[kind]
    for name, task in found["tasks"].items():
        assert "error" not in task, (name, task["error"])
        assert task["metrics"]
    if kind == "gpt2":
        metrics = found["tasks"]["noise"]["metrics"]
        assert {"after", "choice", "cut"} <= metrics.keys()
        assert found["tasks"]["probe"]["values"]["patches_per_word"] > 1
    assert found["parameters"]["total"] > found["parameters"]["non_embedding"] > 0
    assert found["flops"]["counted_by"] == ("torch" if kind == "blt" else "formula")


def words_to_probe(folder: Path) -> dict[str, Any]:
    """A corpus of made-up words in clauses, each of which comes again and again."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), int(rng.integers(4, 7)))) for _ in range(160)]
    texts = [", ".join(" ".join(rng.choice(words, 5)) for _ in range(10)) + "." for _ in range(60)]
    path = folder / "words.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return {"files": [str(path)], "field": "text", "calibration": 0.3, "test": 0.3}


def test_what_takes_training_says_so_and_the_rest_has_numbers(tmp_path: Path, folders: dict[str, str]) -> None:
    tasks = ["bpb", {"name": "spelling", "items": 2, "tune_items": 4}, "speed"]
    rows: Rows = {"gpt2": {"model": {"hf": folders["gpt2"]}}}
    suite = tiny_suite(tmp_path, rows=rows, tasks=tasks, data=words_to_probe(tmp_path))
    found = by_row(run_suite(suite, tmp_path / "results").records)["gpt2"]["tasks"]
    assert found["spelling"]["error"]["kind"] == "TaskNotPossible"
    assert "a pretrained model is not trained further here: set `tune: 0`" in found["spelling"]["error"]["message"]
    assert found["speed"]["error"]["kind"] == "TaskNotPossible"
    assert found["bpb"]["metrics"]


def test_other_files_in_the_same_folder_are_another_run(tmp_path: Path, folders: dict[str, str]) -> None:
    model = Path(shutil.copytree(folders["gpt2"], tmp_path / "model"))
    rows: Rows = {"gpt2": {"model": {"hf": str(model)}}}

    def ids() -> list[str]:
        suite = tiny_suite(tmp_path, rows=rows)
        return [one.run_id for one in runs_of(suite, data_of(suite, tmp_path / "results", Silent()))]

    before = ids()
    assert ids() == before
    torch.manual_seed(1)
    tiny.save_gpt2(model)
    assert ids() != before


def test_a_model_that_reads_the_future_has_no_number(
    tmp_path: Path, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bidirectional(*arguments: Any) -> Any:
        model = load(*arguments)
        library: Any = model.module
        library.transformer.h[0].attn.forward = mixing(library.transformer.h[0].attn.forward)
        return model

    def mixing(forward: Callable[..., Any]) -> Callable[..., Any]:
        def mixed(states: torch.Tensor, *others: Any, **named: Any) -> Any:
            out, *rest = forward(states, *others, **named)
            return (out + out.mean(1, keepdim=True), *rest)

        return mixed

    monkeypatch.setattr("bench.evaluation.pretrained.load.load", bidirectional)
    suite = tiny_suite(tmp_path, rows={"gpt2": {"model": {"hf": folders["gpt2"]}}})
    (found,) = run_suite(suite, tmp_path / "results").records
    assert found["status"] == "failed"
    assert found["error"]["kind"] == "AuditFailed"
    assert "the model reads the future" in found["error"]["message"]


# --- ranked apart


def test_pretrained_rows_are_ranked_among_themselves(tmp_path: Path, folders: dict[str, str]) -> None:
    torch.manual_seed(2)
    other = tmp_path / "saved" / "other"
    tiny.save_gpt2(other)
    rows: Rows = {
        "one": {"model": {"hf": folders["gpt2"]}},
        "two": {"model": {"hf": str(other)}},
        "byte-llama": {"model": {"hf": folders["bytes"]}},
    }
    found = run_suite(tiny_suite(tmp_path, rows=rows), tmp_path / "results").records
    table = build(found, sort="bpb")
    values = {row.label: float(table.cell(row.label, "bpb").value or 0) for row in table.rows}
    assert list(values) == sorted(values, key=lambda label: values[label])
    assert table.cell(next(iter(values)), "bpb").best
    compared = Comparison(found)
    assert compared.reference == "one"
    assert compared.table(["difference"]).cell("two", "difference").value is not None
    assert any(note.startswith("Pretrained: one, two, byte-llama") for note in table.notes)
    assert not any(note.startswith("Trained on") for note in table.notes)


# --- plans and mistakes


def test_the_plan_counts_them(tmp_path: Path, folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = write_suite(tmp_path, {"gpt2": {"model": {"hf": folders["gpt2"]}}})
    (planned,) = plan_pretrained(load_suite(str(path)))
    (found,) = run_suite(load_suite(str(path)), tmp_path / "results").records
    assert planned.parameters == found["parameters"]
    assert planned.flops_per_byte == found["flops"]["per_byte"]
    assert planned.bytes_per_patch == found["patcher"]["bytes_per_patch"]["test"]
    assert main(["plan", str(path)]) == 0
    assert "pretrained rows, scored as they are" in capsys.readouterr().out
    assert main(["plan", str(path), "--json"]) == 0
    assert [row["label"] for row in json.loads(capsys.readouterr().out)] == ["gpt2"]


def test_the_commands_take_such_rows(
    tmp_path: Path, folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_suite(tmp_path, {"gpt2": {"model": {"hf": folders["gpt2"]}}}))
    results = ["--results", str(tmp_path / "results")]
    assert main(["run", path, *results]) == 0
    captured = capsys.readouterr()
    assert "pretrained" in captured.out
    assert "[1/1] gpt2-s0-" in captured.err
    assert main(["run", path, *results]) == 0
    assert "nothing to do: all 1 runs are done" in capsys.readouterr().err
    assert main(["status", path, *results]) == 0
    assert "1 runs: 1 done" in capsys.readouterr().out
    assert main(["report", path, *results, "-o", str(tmp_path / "page.html")]) == 0
    assert 'class="pretrained"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line


def test_mistakes_are_one_sentence(
    tmp_path: Path, folders: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ["--results", str(tmp_path / "results")]

    def run_with(row: dict[str, Any]) -> str:
        return told(["run", str(write_suite(tmp_path, {"gpt2": row})), *results], capsys)

    missing = run_with({"model": {"hf": "./no/such/folder"}})
    assert "rows.gpt2.model.hf: './no/such/folder' is neither a folder nor a model in the Hugging Face" in missing
    assert "rows.gpt2.model: missing key 'hf'" in run_with({"model": {"bos": "none"}})
    assert "rows.gpt2.model.hg: unknown key, did you mean 'hf'?" in run_with({"model": {"hg": "x"}})
    trained = run_with({"model": {"hf": folders["gpt2"]}, "patcher": "stride"})
    assert "rows.gpt2.patcher: a pretrained row is scored as it is and takes only model; leave this out" in trained
    monkeypatch.setattr("bench.evaluation.pretrained.config.find_spec", lambda name: None)
    assert "needs the package transformers, which is not installed" in run_with({"model": {"hf": folders["gpt2"]}})


def test_trained_rows_are_matched_among_themselves(tmp_path: Path, rows: Rows) -> None:
    """The first row is pretrained; the reference of `match` is the first that is trained."""
    both = rows | {"other": {"model": "byte_lm", "options": {"width": 32}}}
    suite: Suite = tiny_suite(tmp_path, "match=train_flops", rows=both)
    assert [row.match_to for row in suite.rows] == ["trained", "trained"]
    with pytest.raises(BenchError, match="match_to: wanted the label of a row, got 'gpt2'"):
        tiny_suite(tmp_path, "match=train_flops", "match_to=gpt2", rows=both)
    swept = tiny_suite(tmp_path, rows=both, sweep={"train.bytes": [2000, 4000]})
    assert swept.labels == ["trained@2000", "trained@4000", "other@2000", "other@4000", "gpt2", "byte-llama"]
    assert records.digest(suite.resolved()["rows"]["gpt2"]) == records.digest(swept.resolved()["rows"]["gpt2"])


def test_the_suite_of_the_how_to(tmp_path: Path, folders: dict[str, str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "own-model.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert "hf: ./my-model" in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("./my-model", folders["gpt2"]), encoding="utf-8")
    suite = load_suite(str(path))
    assert suite.labels == ["byte_lm", "mine"]
    assert {task.name for task in suite.tasks} == {"bpb", "noise"}
    keys = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert keys == {field.name for field in dataclasses.fields(PretrainedConfig)}
