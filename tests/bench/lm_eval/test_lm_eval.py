"""Models of every kind in lm-evaluation-harness: exact over bytes, and nothing is lost between a file and the model."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import numpy as np
import pytest
from lm_eval import evaluator
from model_kinds import KINDS, model_of
from tiny import TEXT, shaken, silence
from tiny_suite import EVERY_KIND as ROWS
from tiny_suite import tiny_suite

from bench.cli.main import main
from bench.data.config import load
from bench.evaluation.byte_model import CutModel
from bench.evaluation.likelihood import likelihoods, total
from bench.evaluation.multiple_choice import Item
from bench.lm_eval import adapter as ours
from bench.lm_eval.task_files import documents, last_words, multiple_choice, questions, write_task
from bench.training.checkpoint import save_model
from bench.training.prepare import make_model, prepare
from patchers.errors import BenchError

TEXTS = [
    *(
        "[1, 2, 3]",
        "{{x}}",
        "{% raw %}",
        "a\r\nb\r\n",
        "nul\0nul",
        "ends\n\n\n",
        "  begins",
        "12",
        "2020-01-01",
        "été 東京",
    ),
    *("1", "true", "null", '{"a": 1}', "x" * 300),
]
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "benchmarks"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is asked of the hub, nothing is left in a cache, and lm-eval's log is as it was."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)  # it runs pip and a compiler
    datasets.disable_progress_bars()
    logger = logging.getLogger("lm_eval")
    before = logger.level
    yield
    logger.setLevel(before)


class Spy(ours.PatchbenchLM):
    """Remembers what it was asked."""

    def __init__(self, model: CutModel) -> None:
        super().__init__(model)
        self.asked: list[tuple[Any, ...]] = []

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        self.asked += [request.args for request in requests]
        return super().loglikelihood(requests)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        self.asked += [request.args for request in requests]
        return super().loglikelihood_rolling(requests)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        self.asked += [request.args for request in requests]
        return super().generate_until(requests)


def uniform(kind: str) -> CutModel:
    model = model_of(kind)
    silence(model.module)
    return model


def evaluated(adapter: ours.PatchbenchLM, folder: Path, name: str) -> dict[str, Any]:
    """What lm-eval's own entry point says."""
    manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(adapter, tasks=[name], task_manager=manager, bootstrap_iters=0)
    assert found is not None
    return dict(found)


# --- documents


@pytest.mark.parametrize("kind", ["stride", "byte_lm", "router"])
def test_a_uniform_model_has_exactly_eight_bits_per_byte(kind: str, tmp_path: Path) -> None:
    write_task(tmp_path, "texts", documents(TEXTS))
    adapter = Spy(uniform(kind))
    found = evaluated(adapter, tmp_path, "texts")["results"]["texts"]
    assert found["bits_per_byte,none"] == pytest.approx(8.0, rel=1e-15)
    assert adapter.asked == [(text,) for text in TEXTS], "texts come as they are"


@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_byte_are_ours(kind: str, tmp_path: Path) -> None:
    texts = [*TEXTS, (TEXT * 3).decode()]
    write_task(tmp_path, "texts", documents(texts))
    model = model_of(kind)
    found = evaluated(ours.PatchbenchLM(model), tmp_path, "texts")["results"]["texts"]["bits_per_byte,none"]
    data = [text.encode() for text in texts]
    nats = sum(total(nats) for nats in model.nats(data))
    assert abs(found - nats / math.log(2) / sum(map(len, data))) < 1e-6


# --- choices


ITEMS = [
    Item("a", "The harness reads", ("bytes", "[1, 2]", "{{x}}", "a\r\n"), 0),
    Item("b", "1", ("2", "3"), 1),
    Item("c", "It ends\n", ("here\n", "th\0re"), 1),
]


def test_choices_come_as_they_are_and_the_metrics_are_those_of_the_likelihoods(tmp_path: Path) -> None:
    write_task(tmp_path, "choices", multiple_choice(ITEMS))
    adapter = Spy(model_of("stride"))
    found = evaluated(adapter, tmp_path, "choices")["results"]["choices"]
    wanted = [(item.context, f" {choice}") for item in ITEMS for choice in item.choices]
    assert adapter.asked == wanted
    logs = [one.log for one in likelihoods(adapter.model, [(a.encode(), b.encode()) for a, b in wanted])]
    right = {"acc,none": 0, "acc_norm,none": 0, "acc_bytes,none": 0}
    for item in ITEMS:
        own = np.array([logs.pop(0) for _ in item.choices])
        characters, size = [len(c) for c in item.choices], [len(c.encode()) for c in item.choices]
        right["acc,none"] += own.argmax() == item.answer
        right["acc_norm,none"] += (own / characters).argmax() == item.answer
        right["acc_bytes,none"] += (own / size).argmax() == item.answer
    assert {name: found[name] for name in right} == pytest.approx({name: n / 3 for name, n in right.items()})


def test_last_words_are_right_where_they_are_what_is_written(tmp_path: Path) -> None:
    """A model that knows nothing writes the first byte there is."""
    task = last_words([(context, "") for context in ("T", "The ", "It pools")])
    for row, text in zip(task.rows, ("\0\0", "\0no", "\0"), strict=True):
        row["continuation"] = text
    write_task(tmp_path, "words", task)
    found = evaluated(Spy(uniform("byte_lm")), tmp_path, "words")["results"]["words"]
    assert found["acc,none"] == pytest.approx(2 / 3)
    assert found["perplexity,none"] == pytest.approx(256 ** (6 / 3), rel=1e-12)


def test_last_words_begin_with_the_space_that_lm_eval_leaves_out(tmp_path: Path) -> None:
    write_task(tmp_path, "words", last_words([("I look at", "him"), ("[1", "2]")]))
    adapter = Spy(model_of("stride"))
    evaluated(adapter, tmp_path, "words")
    assert adapter.asked == [("I look at", " him"), ("[1", " 2]")]


# --- writing


def test_writing_ends_where_the_task_says(tmp_path: Path) -> None:
    write_task(tmp_path, "asked", questions([("The ", "x"), ("It\n", "y")], max_bytes=12))
    adapter = Spy(model_of("stride"))
    found = evaluated(adapter, tmp_path, "asked")
    texts = adapter.model.generate([b"The ", b"It\n"], 12, [b"\n"])
    got = {s["doc"]["prompt"]: s["resps"][0][0] for s in found["samples"]["asked"]}
    assert got == {"The ": texts[0].decode(errors="replace"), "It\n": texts[1].decode(errors="replace")}


class Request:
    def __init__(self, *args: Any) -> None:
        self.args = args


def test_what_is_drawn_does_not_depend_on_neighbours() -> None:
    adapter = ours.PatchbenchLM(model_of("stride"))
    some = {"until": ["\n"], "do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
    others = {**some, "max_gen_toks": 5}
    alike = adapter.generate_until([Request("T", some), Request("T", some), Request("T", some)])
    mixed = adapter.generate_until([Request("x", others), Request("T", some), Request("y", others)])
    assert alike[1] == mixed[1]
    assert len(set(alike)) > 1
    with pytest.raises(BenchError, match="beam"):
        adapter.generate_until([Request("T", {**some, "num_beams": 2, "beam": 1})])


def test_bytes_that_are_no_text_pass_and_half_a_character_does_not() -> None:
    assert ours.as_bytes(b"\xff\xfe".decode(errors="surrogateescape")) == b"\xff\xfe"
    with pytest.raises(BenchError, match="surrogate"):
        ours.as_bytes("a\ud800")


# --- the command


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    suite = tiny_suite(place, rows=ROWS)
    data = load(suite.data)
    out = {}
    for label in ("causal", "leaky"):
        row = suite.row(label)
        prepared = prepare(suite, row, data, place / "cache", lambda message: None)
        save_model(place / label, suite, row, prepared.patcher, shaken(make_model(row, prepared.patcher, 0)))
        out[label] = place / label
    return out


def called(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_scores_tasks_and_says_how_sure_it_is(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_task(tmp_path, "texts", documents(TEXTS))
    write_task(tmp_path, "choices", multiple_choice(ITEMS))
    wanted = ("lm-eval", checkpoints["causal"], "--tasks", "texts,choices", "--include-path", tmp_path)
    code, out, _ = called(capsys, *wanted, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["texts"]["items"] == len(TEXTS)
    bits = found["texts"]["metrics"]["bits_per_byte"]
    assert bits["interval"][0] < bits["value"] < bits["interval"][1]
    assert set(found["choices"]["metrics"]) == {"acc", "acc_norm", "acc_bytes"}
    code, out, _ = called(capsys, *wanted, "--limit", 2)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["task", "texts", "choices", "choices", "choices"]
    assert all(line.split()[-1] == "2" for line in out.splitlines()[1:])


def test_what_is_wrong_with_one_task_is_told_and_the_others_are_kept(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_task(tmp_path, "good", multiple_choice(ITEMS))
    write_task(tmp_path, "gone", multiple_choice(ITEMS))
    (tmp_path / "gone.parquet").unlink()
    no_answer = multiple_choice(ITEMS)
    no_answer.rows[1]["answer"] = 7
    write_task(tmp_path, "no_answer", no_answer)
    write_task(tmp_path, "words", last_words([("I look at", "him")]))
    names = "gone,no_answer,good,words"
    code, out, err = called(
        capsys, "lm-eval", checkpoints["leaky"], "--tasks", names, "--include-path", tmp_path, "--json"
    )
    found = json.loads(out)
    assert code == 1
    assert "gone.parquet" in found["gone"]["error"]
    assert "patchbench lm-eval-tasks DIR FILE" in found["gone"]["error"], "what to do where data cannot be had"
    assert "item 1 has 2 choices and says that number 7 is right" in found["no_answer"]["error"]
    assert "cannot write" in found["words"]["error"]
    assert found["good"]["items"] == 3
    assert "leaky" in err, "its numbers are no likelihoods"


def test_bad_calls_are_one_sentence(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path, "choices", multiple_choice(ITEMS))
    # lm-eval's own ten thousand files are not looked through in a test
    manager = lm_eval.tasks.TaskManager
    monkeypatch.setattr(ours, "TaskManager", lambda include_path, include_defaults: manager(None, include_path, False))
    for wrong, args in {
        "did you mean 'choices'": ("--tasks", "choice", "--include-path", tmp_path),
        "is no folder": ("--tasks", "choices", "--include-path", tmp_path / "none"),
        "no --include-path": ("--tasks", "choices"),
        "no task is named": ("--tasks", ",", "--include-path", tmp_path),
        "at least 1 item": ("--tasks", "choices", "--include-path", tmp_path, "--limit", 0),
    }.items():
        code, out, err = called(capsys, "lm-eval", checkpoints["causal"], *args)
        assert (code, out) == (2, "")
        assert wrong in err
        assert len(err.splitlines()) == 1
    code, _, err = called(capsys, "lm-eval", tmp_path, "--tasks", "choices")
    assert code == 2
    assert "holds no trained model" in err


# --- intervals


def test_intervals_of_what_lm_eval_makes_of_items() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(400) < 0.3).astype(float)
    mean = ours.with_interval(float(right.mean()), right.tolist())
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * math.sqrt(0.21 / 400), rel=0.1)
    logs, sizes = -rng.random(400) * 100, rng.integers(1, 50, 400)
    ratio = logs.sum() / sizes.sum()
    pairs = list(zip(logs.tolist(), sizes.tolist(), strict=True))
    for value in (-ratio / math.log(2), math.exp(-ratio)):
        found = ours.with_interval(value, pairs)
        assert found.low < value < found.high
    perplexity = ours.with_interval(math.exp(-logs.mean()), logs.tolist())
    assert perplexity.low < math.exp(-logs.mean()) < perplexity.high
    for none in (
        ours.with_interval(0.123, right.tolist()),
        ours.with_interval(1.0, [1.0]),
        ours.with_interval(1, ["a"]),
    ):
        assert math.isnan(none.low)
        assert math.isnan(none.high)


# --- the field's own items


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the files of the field's benchmarks are not here")
def test_the_fields_own_items_run_offline(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "hellaswag_val_full": SHARED / "hellaswag_val_full.txt.bz2",
        **{name: SHARED / f"{name}.jsonl.xz" for name in ("arc_easy", "piqa", "lambada_openai")},
    }
    code, out, _ = called(capsys, "lm-eval-tasks", tmp_path / "tasks", *files.values())
    assert code == 0
    assert [int(line.split()[1]) for line in out.splitlines()] == [10042, 2376, 1838, 5153]
    code, out, _ = called(
        capsys,
        "lm-eval",
        checkpoints["causal"],
        "--tasks",
        ",".join(files),
        "--include-path",
        tmp_path / "tasks",
        "--json",
    )
    found = json.loads(out)
    assert code == 0
    assert {name: found[name]["items"] for name in files} == dict(zip(files, [10042, 2376, 1838, 5153], strict=True))
