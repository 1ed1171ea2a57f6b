"""patchbench from Python: the same as the command line, with patchers that are in no file."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas
import pytest
from record_builder import make_record
from tiny_suite import MODEL, TRAIN, write_suite, write_texts

import bench
from bench import records
from bench.cli.main import main
from bench.data.config import DataConfig, load
from bench.suites.config import Suite
from patchers import BenchError, Patcher, Starts, create, register

ROOT = Path(__file__).resolve().parents[2]


@register("api_test_every")
class Every(Patcher):
    """A start every `size` bytes."""

    size: int = 4

    def segment(self, data: bytes) -> Starts:
        starts = np.zeros(len(data), bool)
        starts[:: self.size] = True
        return starts


class NotRegistered(Patcher):
    """One that is known by the name of its class."""

    def segment(self, data: bytes) -> Starts:
        return np.arange(len(data)) % 3 == 0


def mapping(folder: Path, **rows: Any) -> dict[str, Any]:
    write_texts(folder)
    files = {"files": [folder / "texts.jsonl"], "field": "text", "calibration": 0.2, "test": 0.2}
    return {"data": files, "model": MODEL, "train": TRAIN, "rows": {label: {"patcher": p} for label, p in rows.items()}}


# --- suites


def test_a_mapping_is_the_suite_that_its_yaml_would_be(tmp_path: Path) -> None:
    path = write_suite(tmp_path)
    tree = json.loads(path.read_text())
    from_file, from_mapping = bench.load_suite(path), bench.load_suite({**tree, "name": "tiny"})
    assert from_mapping.resolved() == from_file.resolved()
    changed = bench.load_suite(path, {"train.bytes": 5000, "seeds": [3, 4]})
    assert changed.resolved() == bench.load_suite(path, ["train.bytes=5000", "seeds=[3, 4]"]).resolved()
    assert bench.load_suite(changed) is changed
    assert (changed.seeds, changed.rows[0].train.bytes) == ((3, 4), 5000)


def test_patchers_are_given_as_classes_and_objects(tmp_path: Path) -> None:
    rows = {"by-class": Every, "object": Every(size=7), "named": {"name": Every, "size": 5}, "bare": NotRegistered}
    suite = bench.load_suite(mapping(tmp_path, **rows))
    options = {row.label: row.patcher_options() or {} for row in suite.rows}
    assert [options[label]["options"].get("size") for label in rows] == [4, 7, 5, None]
    assert [options[label]["name"] for label in rows] == [*["api_test_every"] * 3, "not_registered"]
    assert all(len(one["code"]) == 64 for one in options.values())
    calibrated = bench.load_suite({**mapping(tmp_path, own=bench.load_suite("quick").row("stride").patcher)})
    assert calibrated.row("own").patcher == bench.load_suite("quick").row("stride").patcher


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": {"a": {"patcher": int}}}, "wanted a name, a subclass of patchers.Patcher or an object of one"),
        ({"train": {"lr": object()}}, r"train\.lr: a suite has numbers, texts, lists and patchers, got <object"),
        ({"train": {"rate": 1}}, r"the suite: train\.rate: unknown key"),
        ({"rows": {"a": {"patcher": "strid"}}}, "unknown patcher 'strid', did you mean 'stride'"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(bench.BenchError, match=said):
        bench.load_suite({**mapping(tmp_path, a=Every), **changes})


def test_other_wrong_calls(tmp_path: Path) -> None:
    suite = bench.load_suite(mapping(tmp_path, a=Every))
    with pytest.raises(bench.BenchError, match="takes no overrides"):
        bench.load_suite(suite, ["seeds=[1]"])
    with pytest.raises(bench.BenchError, match="overrides are a list or a mapping, got 'seeds=1'; write"):
        bench.load_suite("quick", "seeds=1")
    learnt = create("bpe", vocab=300).fit([b"some text that is cut"])
    with pytest.raises(bench.BenchError, match=r"rows\.a\.patcher: this bpe has learnt already"):
        bench.load_suite(mapping(tmp_path, a=learnt))
    with pytest.raises(bench.BenchError, match="no records of suite 'notebook'"):
        bench.results(suite, results=tmp_path)
    with pytest.raises(AttributeError, match="module 'bench' has no attribute 'nothing'"):
        _ = cast(Any, bench).nothing


# --- runs


def test_a_run_from_python_is_that_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_suite(tmp_path, {"stride": {"patcher": "stride"}, "bytes": {"model": "byte_lm"}})
    made = bench.run(path, {"seeds": [0, 1]}, workers=1, results="from-python", progress=False)
    assert capsys.readouterr().err == ""
    assert main(["run", str(path), "seeds=[0, 1]", "--workers", "1", "--results", "from-shell"]) == 0
    capsys.readouterr()
    ours, theirs = (records.load_all(tmp_path / name, "tiny") for name in ("from-python", "from-shell"))
    for one, other in zip(ours, theirs, strict=True):
        assert (one["run_id"], one["tasks"]["bpb"]["metrics"]) == (other["run_id"], other["tasks"]["bpb"]["metrics"])
    assert [record["run_id"] for record in made.records] == [record["run_id"] for record in ours]
    assert main(["table", str(path), "seeds=[0, 1]", "--results", "from-python", "--format", "csv"]) == 0
    assert capsys.readouterr().out.rstrip() == made.table("csv")


SCRIPT = """
import json, sys
import numpy as np
import bench
from patchers import Patcher

STEP = {step}

class Stepping(Patcher):
    def segment(self, data):
        starts = np.zeros(len(data), bool)
        starts[::STEP] = True
        return starts

suite = json.load(open("suite.json"))
suite["rows"] = {{"mine": {{"patcher": Stepping}}, "stride": {{"patcher": "stride"}}}}
found = bench.run(suite, workers={workers})
frame = found.frame(intervals=False).set_index("row")
size = frame["patcher.bytes_per_patch.test"]["mine"]
print("ran", "\\t".join([*frame["run_id"], *map(str, frame["bpb.bpb"]), str(size)]))
assert bench.check(Stepping, quick=True).sound
"""


def test_a_class_of_a_script_runs_in_worker_processes(tmp_path: Path) -> None:
    """Without a file that they could import, without the guard of `__main__`, and under a name of its own code."""
    tree = mapping(tmp_path)
    tree["data"]["files"] = ["texts.jsonl"]
    (tmp_path / "suite.json").write_text(json.dumps(tree))

    def ran(step: int, workers: int) -> tuple[list[str], str]:
        (tmp_path / "mine.py").write_text(SCRIPT.format(step=step, workers=workers))
        done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return next(line for line in done.stdout.splitlines() if line.startswith("ran"))[4:].split("\t"), done.stderr

    first, said = ran(5, workers=2)
    assert said.count("done: bpb") == 2
    again, said = ran(5, workers=1)
    assert again == first, "the same runs, which are there"
    assert "done: bpb" not in said
    edited, said = ran(6, workers=2)
    assert (edited[0] != first[0], edited[1]) == (True, first[1]), "its constant is part of its code"
    assert float(edited[-1]) > float(first[-1])
    assert said.count("done: bpb") == 1
    assert "the plug-in of row mine was edited" in said


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    import threading

    lock = threading.Lock()

    class Holding(Patcher):
        def segment(self, data: bytes) -> Starts:
            with lock:
                return np.arange(len(data)) % 4 == 0

    Holding.__module__ = "a_notebook"
    suite = mapping(tmp_path, a=Holding)
    with pytest.raises(bench.BenchError, match=r"cannot be sent to worker processes \(.*workers=1"):
        bench.run(suite, results=tmp_path / "results", workers=2, progress=False)
    assert len(bench.run(suite, results=tmp_path / "results", workers=1, progress=False)) == 1
    with pytest.raises(bench.BenchError, match=r"is in no file, and `launch\.devices` and"):
        bench.run({**mapping(tmp_path, a=Every), "launch": {"devices": 2}}, results=tmp_path, progress=False)


# --- results


@pytest.fixture
def results(tmp_path: Path) -> bench.Results:
    for row, bpb in (("stride", 2.3), ("words", 2.2)):
        for seed in (0, 1):
            changes = {"suite": "made", "row_index": row == "words"}
            record = make_record(row, seed, bpb=bpb, documents=30, characters_per_byte=0.9, changes=changes)
            records.write(tmp_path, record)
    failed = make_record("gone", changes={"suite": "made", "row_index": 2})
    kept = ("run_id", "suite", "row", "row_index", "seed", "config", "data", "environment")
    error = {"kind": "diverged", "message": "loss 99", "step": 3}
    records.write(tmp_path, {**{key: failed[key] for key in kept}, "status": "failed", "error": error})
    return bench.results("made", results=tmp_path)


def test_the_frame_has_a_row_a_record(results: bench.Results) -> None:
    frame = results.frame()
    assert list(frame["row"]) == ["stride", "stride", "words", "words", "gone"]
    for line, record in zip(frame.to_dict("records"), results.records, strict=True):
        if record["status"] == "failed":
            assert (line["error"], np.isnan(line["bpb.bpb"])) == ("diverged: loss 99", True)
            continue
        documents = record["tasks"]["bpb"]["metrics"]["bpb"]["documents"]
        assert line["bpb.bpb"] == sum(d[1] for d in documents) / sum(d[2] for d in documents)
        assert line["bpb.bpb_low"] < line["bpb.bpb"] < line["bpb.bpb_high"]
        assert line["bpb.bpc"] > line["bpb.bpb"]
        for path in ("config.model.local_width", "flops.per_byte.total", "cost.train_bytes", "data.fingerprint"):
            assert line[path] == records.dig(record, path)
    assert "bpb.bpb_low" not in results.frame(intervals=False)


def test_documents_add_up_to_the_metric(results: bench.Results) -> None:
    documents = results.documents()
    assert len(documents) == 4 * 30
    sums = documents.groupby(["row", "seed"])[["total", "count"]].sum()
    frame = results.frame(intervals=False).set_index(["row", "seed"])["bpb.bpb"].dropna()
    pandas.testing.assert_series_equal(sums["total"] / sums["count"], frame, check_names=False)
    with pytest.raises(bench.BenchError, match=r"no record has a metric 'bpb\.bpd', did you mean 'bpb\.bp[bc]'"):
        results.documents("bpb.bpd")


def test_comparisons_are_those_of_the_table(results: bench.Results) -> None:
    compared = results.compare("stride")
    table = results.table("json", columns=["bpb", "difference", "verdict"], reference="stride")
    cells = {row["label"]: row["cells"] for row in json.loads(table)["rows"]}
    for label in ("stride", "words"):
        line = compared.loc[label]
        assert [line["value"], line["low"], line["high"]] == [cells[label]["bpb"][k] for k in ("value", "low", "high")]
    shown = cells["words"]["difference"]
    assert [compared.loc["words", f"difference{end}"] for end in ("", "_low", "_high")] == [
        shown[k] for k in ("value", "low", "high")
    ]
    assert list(compared["verdict"][:2]) == ["reference", "better"]
    assert compared["value"].isna()["gone"]
    assert compared["verdict"].isna()["gone"]
    assert results.compare("words").loc["stride", "verdict"] == "worse"


def test_tables_pictures_and_what_a_notebook_shows(results: bench.Results) -> None:
    assert str(results) == results.table()
    assert results.table("latex").startswith("%")
    shown = results._repr_html_()
    assert "<table>" in shown
    assert "diverged" in shown
    picture = results.plot("differences")
    assert picture.axes
    assert cast(Any, picture)._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(bench.BenchError, match="unknown format 'markdown'"):
        results.table("markdown")
    with pytest.raises(bench.BenchError, match="unknown row 'wrds', did you mean 'words'"):
        results.compare("wrds")


# --- patchers


def test_a_cut_is_what_the_patcher_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_texts(tmp_path).rename(tmp_path.parent / "learnt-from.jsonl")
    few = DataConfig(files=(str(path),), field="text", test=0.2, calibration=0.2)
    monkeypatch.setattr("bench.api._corpus", lambda: load(few))  # and not wiki-en, which takes a while
    text = "naïve café, 東京"
    for patcher in ("whitespace", "stride:stride=3", Every, Every(size=5), NotRegistered):
        cut = bench.cut(patcher, text, results=tmp_path)
        assert b"".join(cut.patches) == text.encode()
        assert cut.lengths.tolist() == [len(patch) for patch in cut.patches]
        assert np.array_equal(cut.starts, cut.patcher.segment(text.encode()))
        assert "<span" in cut._repr_html_()
    assert not list(tmp_path.iterdir()), "a rule leaves nothing behind"
    fitted = bench.cut("bpe:vocab=300", text.encode(), results=tmp_path)
    assert fitted.scores is None
    assert np.array_equal(bench.cut(fitted.patcher, text).starts, fitted.starts), "what has learnt is taken as it is"
    calibrated = bench.cut("stride", "x" * 60, bytes_per_patch=6, results=tmp_path).patcher
    documents = [document.data for document in load(few).calibration.documents]
    patches = sum(int(calibrated.segment(data).sum()) for data in documents)
    assert sum(map(len, documents)) / patches == pytest.approx(6, rel=0.01), "on text it was not fitted on"


def test_check_finds_what_the_command_finds() -> None:
    verdict = bench.check(Every(size=3), quick=True, progress=False)
    assert verdict.sound
    assert "sound: all" in str(verdict)
    assert "<pre>" in verdict._repr_html_()

    @register("api_test_peeks")
    class Peeks(Patcher):
        def segment(self, data: bytes) -> Starts:
            starts = np.frombuffer(data, np.uint8) == ord("e")
            starts[:1] = True
            return starts

    assert not bench.check(Peeks, quick=True, progress=False).sound


# --- what imports cost


def cpu_seconds(*command: str) -> float:
    """The least of a few times."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(3))


@pytest.mark.parametrize("what", ["import bench", "from bench.cli.main import main; main(['--help'])"])
def test_imports_are_quick(what: str) -> None:
    assert cpu_seconds(sys.executable, "-c", what) < 0.5
    heavy = ["torch", "numba", "pandas", "matplotlib", "datasets", "sklearn", "scipy", "pyarrow", "tokenizers"]
    code = f"import sys\n{what}\nprint('\\nheavy:', [name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_cutting_with_a_rule_needs_no_torch() -> None:
    code = "import sys, bench; print(bench.cut('whitespace', 'a b').patches, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["[b'a", "',", "b'b']", "False"]


def test_what_the_package_names_is_there() -> None:
    assert set(bench.__all__) <= set(dir(bench))
    assert all(getattr(bench, name) is not None for name in bench.__all__)
    assert isinstance(bench.load_suite("quick"), Suite)
    assert bench.BenchError is BenchError
