"""`tasks:` and `eval:` of a suite: how they are read, what they make of a run, and what is kept when one fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import Told, material
from tiny_suite import ROWS, tiny_suite

from bench import records
from bench.data.config import Data, DataConfig, Document, load
from bench.evaluation.run_tasks import run_tasks, with_domains
from bench.evaluation.tasks import BitsPerByte, Material, Metric, Noise, Speed, Task, TaskNotPossible, TaskResult
from bench.execution.run import run_suite, runs_of
from bench.execution.task_inputs import byte_model
from bench.execution.task_inputs import material as material_of
from bench.records.comparison import check_comparable
from bench.reporting.table import build, render
from bench.suites.config import Suite, suite_from_tree
from bench.system.files import CannotWrite, Damaged
from bench.system.signals import TimeLimit
from bench.system.yaml import parse
from bench.training.loop import train
from bench.training.prepare import make_model, prepare
from patchers.errors import BenchError

SUITE = """\
data: {corpus: wiki-en}
rows:
  stride: {patcher: stride}
"""


def suite(more: str) -> Suite:
    return suite_from_tree(parse(SUITE + more, "mine.yaml"), "mine", [], [])


# --- how they are read


def test_tasks_with_and_without_options() -> None:
    read = suite("tasks: [bpb, {name: noise, levels: [0.1, 0.2], choices: {file: x.txt}}, {name: speed}]\n")
    assert [type(task) for task in read.tasks] == [BitsPerByte, Noise, Speed]
    noise = read.tasks[1]
    assert isinstance(noise, Noise)
    assert noise.levels == (0.1, 0.2)
    assert noise.choices is not None
    assert noise.choices.file == "x.txt"
    assert json.loads(json.dumps(read.resolved())) == read.resolved()
    assert read.resolved()["tasks"][0] == "bpb"


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[bpb, {name: noise, levles: [1]}]", r"mine.yaml, line 4: tasks.1.levles: unknown key, did you mean 'levels'"),
        ("[{name: noise, levels: [0.1, 2]}]", r"line 4: tasks.0.levels.1: wanted .*less than or equal to 1, got 2"),
        ("[{name: noise, operators: [drap]}]", r"tasks.0.operators.0: unknown noise 'drap', did you mean 'drop'"),
        ("[{name: noise, choices: {}}]", r"tasks.0.choices: choices come from exactly one of file and dataset"),
        ("[{name: nois}]", r"line 4: tasks.0.name: unknown task 'nois', did you mean 'noise'"),
        ("[nois]", r"line 4: tasks.0: unknown task 'nois', did you mean 'noise'"),
        ("[{levels: [0.1]}]", r"line 4: tasks.0.name: wanted a task's name, got None"),
        ("[bpb, {name: bpb}]", r"line 4: tasks.1: the task bpb stands here twice"),
        ("[3]", r"line 4: tasks.0: wanted text or .*, got 3"),
    ],
)
def test_what_is_wrong_with_tasks(tasks: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        suite(f"tasks: {tasks}\n")


def test_further_texts() -> None:
    read = suite("eval: {fr: wiki-fr, mine: {files: '*.txt', max_test_bytes: 1000}}\n")
    assert read.eval["fr"] == DataConfig(corpus="wiki-fr")
    assert read.eval["mine"].files == ("*.txt",)
    assert set(read.resolved()["eval"]) == {"fr", "mine"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("{wiki.fr: wiki-fr}", r"line 4: eval.wiki.fr: 'wiki.fr' cannot name a column; use letters, digits"),
        ("{bpb: wiki-fr}", r"line 4: eval.bpb: 'bpb' cannot name a column"),
        ("{fr: wiki-frr}", r"line 4: eval.fr.corpus: unknown corpus 'wiki-frr', did you mean 'wiki-fr'"),
        ("{fr: {corpus: wiki-fr, tests: 0.1}}", r"line 4: eval.fr.tests: unknown key, did you mean 'test'"),
    ],
)
def test_what_is_wrong_with_further_texts(texts: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        suite(f"eval: {texts}\n")


# --- what a run is


def other_texts(folder: Path, name: str = "other", count: int = 40) -> dict[str, Any]:
    path = folder / f"{name}.jsonl"
    lines = [json.dumps({"text": f"{name} {n} Straße " * 5}) for n in range(count)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return {"files": [str(path)], "field": "text", "test": 0.4, "calibration": 0.2}


def test_a_run_is_also_what_it_is_asked(tmp_path: Path) -> None:
    def ids(*overrides: str, **others: Any) -> list[str]:
        one = tiny_suite(tmp_path, *overrides, rows={"stride": ROWS["stride"]}, **others)
        return [run.run_id for run in runs_of(one, with_domains(load(one.data), one.eval))]

    plain = ids()
    assert ids("tasks=[{name: bpb}]") == plain
    assert ids("tasks=[bpb, speed]") == ids("tasks=[bpb, {name: speed, repeats: 3}]") != plain
    assert ids("tasks=[bpb, {name: speed, repeats: 2}]") != ids("tasks=[bpb, speed]")
    domain = other_texts(tmp_path)
    asked = ids(eval={"other": domain})
    assert asked != plain
    assert ids(eval={"another": domain}) not in (asked, plain)
    assert ids(eval={"other": other_texts(tmp_path, "more")}) not in (asked, plain)


def test_further_texts_may_not_be_known_ones(tmp_path: Path) -> None:
    one = tiny_suite(tmp_path)
    data = load(one.data)
    same = with_domains(data, {"same": one.data}).domains["same"]
    assert same == data.test
    wider = DataConfig(files=one.data.files, field="text", calibration=0.2, test=0.6)
    with pytest.raises(BenchError, match=r"eval.wider: of its \d+ test documents \d+ are in the"):
        with_domains(data, {"wider": wider})


# --- what a task is given


def test_models_beside_the_trained_one(tmp_path: Path) -> None:
    one = tiny_suite(tmp_path, rows={"stride": ROWS["stride"]})
    data, row, device = load(one.data), one.rows[0], torch.device("cpu")
    prepared = prepare(one, row, data, tmp_path / "cache", lambda _: None)
    module = make_model(row, prepared.patcher, 3)
    train(module, prepared.train, row.train, 3, device)
    given = material_of(prepared, data, module, 3, device, tmp_path)
    texts = data.test.texts[:4]

    def bits(model: Any) -> float:
        return float(sum(n.sum() for n in model.nats(texts)))

    trained = bits(byte_model(prepared, module, device))
    fresh = bits(given.untrained())
    assert fresh == bits(byte_model(prepared, make_model(row, prepared.patcher, 3).eval(), device)) > trained
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert bits(given.tuned(texts, 30)) < trained, "it has learnt these texts"
    assert bits(given.tuned(texts, 2)) == bits(given.tuned(texts, 2))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    for nothing, steps in (([], 3), (texts, 0)):
        with pytest.raises(BenchError, match="tuning needs texts and at least one step"):
            given.tuned(nothing, steps)


# --- when one fails


class Says(Task):
    """Raises what it is told."""

    def run(self, model: Any, material: Material) -> TaskResult:
        raise ERRORS[self.name]


class Refuses(Says):
    name = "refuses"


class Lacks(Says):
    name = "lacks"


class Breaks(Says):
    name = "breaks"


class Leaves(Says):
    name = "leaves"


ERRORS = {
    "refuses": TaskNotPossible("this model has no letters"),
    "lacks": BenchError("no file at x.txt"),
    "breaks": ZeroDivisionError("division by zero"),
    "leaves": SystemExit(3),
}


def test_the_other_tasks_of_a_run_are_kept() -> None:
    docs = [Document("a", b"abcd"), Document("b", b"xy")]
    out, seconds = run_tasks([Refuses(), BitsPerByte(), Lacks(), Breaks(), Leaves(), Speed()], Told(), material(docs))
    assert list(out) == list(seconds) == ["refuses", "bpb", "lacks", "breaks", "leaves", "speed"]
    assert out["bpb"]["metrics"]["bpb"]["documents"] == [["a", 4, 4], ["b", 2, 2]]
    kinds = {name: said["error"]["kind"] for name, said in out.items() if "error" in said}
    assert kinds == {
        "refuses": "TaskNotPossible", "lacks": "BenchError", "breaks": "ZeroDivisionError", "leaves": "SystemExit",
        "speed": "TaskNotPossible",
    }  # fmt: skip
    assert out["lacks"]["error"] == {"kind": "BenchError", "message": "no file at x.txt"}
    assert "ZeroDivisionError" in out["breaks"]["error"]["traceback"]
    assert out["speed"]["options"]["repeats"] == 3
    assert out["speed"]["version"] == 1


@pytest.mark.parametrize("error", [CannotWrite("the disk is full"), Damaged("x is damaged"), TimeLimit("too long")])
def test_what_is_no_tasks_own_fault_is_not_kept_as_its_result(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run would count as done."""
    monkeypatch.setitem(ERRORS, "breaks", error)
    with pytest.raises(type(error), match=str(error)):
        run_tasks([Breaks()], Told(), material([Document("a", b"abcd")]))


# --- further texts in bits per byte


def test_bits_per_byte_of_further_texts_and_what_they_cost_more() -> None:
    class Latin(Told):
        """One bit a byte of ASCII, three for others."""

        def score(self, docs: Any, mute_latent: bool = False) -> Any:
            said = super().score(docs)
            for nats, doc in zip(said.nats, docs, strict=True):
                nats *= np.where(np.frombuffer(doc, np.uint8) < 128, 1, 3)
            return said

    domains = {"code": [Document("c", b"x = 1")], "fr": [Document("f", "été".encode())]}
    out = BitsPerByte().run(Latin(), material([Document("a", b"abcd")], domains))
    assert set(out.metrics) == {"bpb", "code", "fr", "bpc_fr"}
    french: Any = out.metrics["fr"].documents
    assert french == [("f", pytest.approx(13), 5)]
    assert out.metrics["bpc_fr"].value == pytest.approx(13 / 3)
    assert out.values == {"penalty_code": pytest.approx(0), "penalty_fr": pytest.approx(13 / 5 - 1)}
    assert isinstance(out.metrics["code"], Metric)


# --- from a suite to a table


def test_from_a_suite_to_a_table(tmp_path: Path) -> None:
    noise = {"name": "noise", "documents": 3, "level_documents": 2, "items": 4, "levels": [0.1]}
    one = tiny_suite(
        tmp_path,
        rows={"stride": ROWS["stride"], "bytes": ROWS["bytes"]},
        eval={"other": other_texts(tmp_path)},
        tasks=["bpb", noise, "speed"],
    )
    found = run_suite(one, tmp_path / "results").records
    assert [r["status"] for r in found] == ["ok", "ok"], found[0]["error"]
    stride, plain = found
    assert records.complaint(stride) is None
    for record in found:
        assert "error" not in record["tasks"]["noise"], record["tasks"]["noise"]
        assert set(record["tasks"]["bpb"]["metrics"]) == {"bpb", "bpc", "other", "bpc_other"}
        assert record["data"]["eval"]["other"]["documents"] > 1
        assert set(record["cost"]["task_seconds"]) == {"bpb", "noise", "speed"}
        assert record["tasks"]["noise"]["options"]["documents"] == 3
    assert "cut" in stride["tasks"]["noise"]["metrics"]
    assert "cut" not in plain["tasks"]["noise"]["metrics"]
    shown = render(
        build(found, columns=["bpb.bpb", "bpb.other", "noise.after", "tasks.bpb.values.penalty_other"]), "md"
    )
    assert "other" in shown
    wanted = build(found, preferred=["bpb", "noise.never", "bpb.other", "seeds"])
    assert [column.id for column in wanted.columns] == ["row", "bpb", "bpb.other", "seeds"]
    moved = json.loads(json.dumps(plain))
    moved["data"]["eval"]["other"]["fingerprint"] = "f" * 64
    with pytest.raises(BenchError, match=r"data.eval.other.fingerprint is \S+ in the first and f+"):
        check_comparable([stride, moved])
    moved = json.loads(json.dumps(plain))
    moved["tasks"]["noise"]["options"]["levels"] = [0.2]
    with pytest.raises(BenchError, match=r"tasks.noise.options.levels is \[0.1\] in the first and \[0.2\] in"):
        check_comparable([stride, moved])


def test_data_without_further_texts_is_described_as_ever(tmp_path: Path) -> None:
    data: Data = load(tiny_suite(tmp_path).data)
    assert set(data.summary()) == {"name", "fingerprint", "splits"}
