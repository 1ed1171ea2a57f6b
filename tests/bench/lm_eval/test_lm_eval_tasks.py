"""Tasks for lm-eval: what is in a file arrives in the task, and what is wrong with a file is one sentence."""

from __future__ import annotations

import bz2
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import yaml

from bench.cli.main import main
from bench.evaluation.multiple_choice import Item
from bench.lm_eval.task_files import documents, multiple_choice, task_of_file, write_task
from patchers.errors import BenchError

HELLASWAG = ["Roof: A man sits. he", "3", "wraps.", "rips it.", "holds a [1, 2].", "starts.\tnow"]
LINES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "arc.jsonl": (
        [{"query": "Question: Why?", "choices": ["a", "b"], "gold": 1}],
        [{"context": "Question: Why?\nAnswer:", "choices": ["a", "b"], "answer": 1}],
    ),
    "piqa.jsonl": (
        [{"query": "Question: How?\n", "choices": ["a", "b"], "gold": 0}],
        [{"context": "Question: How?\nAnswer:", "choices": ["a", "b"], "answer": 0}],
    ),
    "lambada.jsonl": (
        [{"context": "I look", "continuation": "at"}],
        [{"context": "I look", "continuation": " at"}],
    ),
    "swag.jsonl": (
        [{"ctx": "He", "endings": ["a", "b"], "label": "1", "activity_label": "Roof"}],
        [{"context": "Roof: He", "choices": ["a", "b"], "answer": 1}],
    ),
    "texts.jsonl": ([{"text": "[1]\r\n"}, {"text": "2020-01-01"}], [{"text": "[1]\r\n"}, {"text": "2020-01-01"}]),
}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.mark.parametrize("name", LINES)
def test_files_in_known_forms(name: str, tmp_path: Path) -> None:
    given, wanted = LINES[name]
    found, task = task_of_file(written(tmp_path / name, given))
    assert found == name.removesuffix(".jsonl")
    assert task.rows == wanted


def test_hellaswags_own_form_and_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "Hella-Swag.v1.txt.bz2"
    path.write_bytes(bz2.compress("\n".join(HELLASWAG * 2).encode() + b"\n"))
    name, task = task_of_file(path)
    assert name == "hella_swag"
    assert task.rows == [{"context": HELLASWAG[0], "choices": HELLASWAG[2:], "answer": 3}] * 2
    (tmp_path / "prose.txt").write_bytes("été\r\n\n".encode())
    assert task_of_file(tmp_path / "prose.txt")[1].rows == [{"text": "été\r\n\n"}]


def test_a_task_finds_its_data_by_absolute_path_and_the_data_is_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["[1, 2, 3]", "{{x}}", "a\r\n", "nul\0", "ends\n\n", "2020-01-01", "12", ""]
    path = write_task(Path("tasks"), "texts", documents(texts))
    config = yaml.safe_load(path.read_text())
    data = Path(config["dataset_kwargs"]["data_files"]["test"])
    assert data == tmp_path / "tasks" / "texts.parquet"
    assert [row["text"] for row in parquet.read_table(data).to_pylist()] == texts
    assert config["doc_to_target"] == "text", "a template would make a list of [1, 2, 3]"
    monkeypatch.chdir("/")
    assert data.exists()


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"query": "Question: Why?", "choices": ["a", "b"], "gold": 1}
    bad: dict[str, list[dict[str, Any]]] = {
        "no choice is right": [good, {**good, "gold": 2}],
        "has no 'choices'": [good, {"query": "Question: Why?", "gold": 0}],
        "wanted one of these": [{"question": "Why?"}],
        "there is nothing|items have nothing": [],
        "wanted ctx, endings and label": [{"ctx": "a", "endings": ["b", "c"], "label": 0}, {"ctx": "a"}],
    }
    for wrong, rows in bad.items():
        code = main(["lm-eval-tasks", str(tmp_path / "out"), str(written(tmp_path / "bad.jsonl", rows))])
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, "")
        assert any(part in captured.err for part in wrong.split("|")), captured.err
        assert len(captured.err.splitlines()) == 1
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    for name, wrong in {"bad.jsonl": "line 1", "bad.txt": "not UTF-8", "none.jsonl": "cannot read"}.items():
        assert main(["lm-eval-tasks", str(tmp_path / "out"), str(tmp_path / name)]) == 2
        assert wrong in capsys.readouterr().err
    with pytest.raises(BenchError, match="no items"):
        write_task(tmp_path, "empty", documents([]))
    with pytest.raises(BenchError, match="says that 2 is right"):
        multiple_choice([Item("x", "a", ("b", "c"), 2)])
