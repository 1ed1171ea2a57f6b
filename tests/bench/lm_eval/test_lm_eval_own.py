"""Our noise and spelling tasks as lm-eval's: what the tasks themselves ask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.cli.main import main
from bench.data.config import Data, DataConfig, load
from bench.evaluation.tasks.operations import OPERATIONS
from bench.lm_eval.own_tasks import OWN, noise, spelling
from bench.lm_eval.task_files import Exported


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Texts of made-up words, of different letters each, in clauses."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.permutation(list("abcdefghilmnoprstu"))[: int(rng.integers(4, 10))]) for _ in range(400)]
    texts = ["; ".join(" ".join(rng.choice(words, 5)) for _ in range(12)) + "." for _ in range(60)]
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return load(DataConfig(files=(str(path),), field="text", calibration=0.1, test=0.3))


@pytest.fixture(scope="module")
def own(data: Data) -> dict[str, dict[str, Exported]]:
    return {kind: tasks(data, 5, 0) for kind, tasks in OWN.items()}


def test_noise_is_put_where_the_name_says(own: dict[str, dict[str, Exported]]) -> None:
    tasks = own["noise"]
    assert len([name for name in tasks if name.startswith("choice_")]) == 15
    clean = tasks["choice"].rows
    for name, (prompt, choices) in {"prompt": (True, False), "choices": (False, True), "both": (True, True)}.items():
        for row, was in zip(tasks[f"choice_upper_case_{name}"].rows, clean, strict=True):
            assert row["context"] == (was["context"].upper() if prompt else was["context"])
            assert row["choices"] == ([c.upper() for c in was["choices"]] if choices else was["choices"])
            assert row["answer"] == was["answer"]
    assert tasks["text_upper_case"].rows == [{"text": row["text"].upper()} for row in tasks["text"].rows]


def test_spelling_has_every_task_with_solved_ones_before_it(own: dict[str, dict[str, Exported]]) -> None:
    tasks = own["spelling"]
    assert {f"{name}_written" for name in OPERATIONS} | set(OPERATIONS) <= set(tasks)
    assert len([name for name in tasks if name.endswith("_random")]) == 7
    for name in OPERATIONS:
        for row, written_row in zip(tasks[name].rows, tasks[f"{name}_written"].rows, strict=True):
            assert row["choices"][row["answer"]] == written_row["answer"] + "\n"
            assert row["context"] == written_row["prompt"]
            assert row["context"].count("\n") == 4
            assert not row["context"].endswith((" ", "\n"))


def test_our_own_are_the_same_each_time(data: Data, own: dict[str, dict[str, Exported]]) -> None:
    assert noise(data, 5) == own["noise"]
    assert spelling(data, 5) == own["spelling"]
    assert noise(data, 5, seed=1) != own["noise"]


def test_the_command_writes_them_under_one_tag_a_kind(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.data.config.load", lambda config: data)
    assert main(["lm-eval-tasks", str(tmp_path), "--limit", "3"]) == 0
    command = capsys.readouterr().err.split()
    assert command[-3:] == [str(tmp_path), "--tasks", "patchbench_noise,patchbench_spelling"]
    configs = [yaml.safe_load(path.read_text()) for path in tmp_path.glob("*.yaml")]
    assert {config["tag"] for config in configs} == {"patchbench_noise", "patchbench_spelling"}
    assert all(config["task"].startswith(config["tag"]) for config in configs)
