"""Everything that the README tells one to type is typed here; what would train for minutes only as far as that."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_record
from rich.table import Table
from torch import nn

from bench import records
from bench.claims.config import load_claims
from bench.cli import main as cli
from bench.cli import readme
from bench.execution.plan import RowPlan
from bench.execution.run import Outcome
from bench.execution.workers import Job
from bench.suites.catalog import shipped_suites
from bench.suites.config import Suite, load_suite
from bench.training.checkpoint import save_model
from bench.training.prepare import make_model
from patchers import get, load_plugin

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The words of every command in the README's shell blocks, lines that end in a backslash joined."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words]


def named(program: str) -> list[list[str]]:
    return [words[1:] for words in commands() if words[0] == program]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the files that the README has one write, and with records of its suites."""
    folder = tmp_path_factory.mktemp("readme")
    for code in blocks("python"):
        first = re.match(r"# (\S+\.py)\n", code)
        assert first is not None, "a file begins with its name"
        (folder / first[1]).write_text(code, encoding="utf-8")
    said = [*named("patchbench"), *table_commands()]
    shown = {name for words in said if words[0] in ("table", "agree") for name in words[1 : 2 + (words[0] == "agree")]}
    for name in {name.partition("@")[0] for name in shown}:
        shutil.copytree(ROOT / "results" / name / "runs", folder / "results" / name / "runs")
    small = ["model.latent_layers=1", "model.ngram_rows=97", "model.patch_rows=97"]
    suite = load_suite("quick", small)
    row = suite.row("stride")
    model = make_model(row, row.patcher, 0)
    nn.init.zeros_(model.get_submodule("head").get_parameter("weight"))  # it writes byte 0, which is text
    save_model(folder / "results" / "quick" / "checkpoints" / "RUN_ID", suite, row, row.patcher, model)
    return folder


@pytest.fixture
def house(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def table_commands() -> list[list[str]]:
    """Those that make the README's own tables."""
    return [shlex.split(block[2])[1:] for block in readme.BLOCK.finditer(README)]


def test_there_is_something_to_type() -> None:
    assert {words[0] for words in commands()} == {"make", "patchbench"}
    assert {"run", "plan", "table", "list"} <= {words[0] for words in named("patchbench")}


@pytest.mark.parametrize("words", named("make"), ids=" ".join)
def test_make(words: list[str]) -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        assert re.search(rf"^{target}:", rules, re.MULTILINE), f"no rule for {target}"


Act = Callable[[pytest.MonkeyPatch], None]


def stub_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything up to the training: the suite, its overrides, its plug-ins."""

    def run_suite(suite: Suite, results: Path, listener: Any, only: str | None = None) -> Outcome:
        labels = [row.label for row in suite.rows]
        return Outcome([make_record(label, seed, documents=20) for label in labels for seed in suite.seeds])

    def run_on_workers(job: Job, suite: Suite, workers: int, listener: Any, beside: Any) -> Outcome:
        assert job.load() == suite
        assert workers > 1
        return run_suite(suite, job.results, listener)

    monkeypatch.setattr("bench.execution.run.run_suite", run_suite)
    monkeypatch.setattr("bench.execution.workers.run_on_workers", run_on_workers)


def stub_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan_rows(suite: Suite, cache: Path, results: Path) -> list[RowPlan]:
        assert suite.rows
        return []

    def tables(suite: Suite, rows: list[RowPlan], pretrained: Any) -> list[Table]:
        return [Table("row")]

    monkeypatch.setattr("bench.execution.plan.plan_rows", plan_rows)
    monkeypatch.setattr("bench.execution.plan.tables", tables)


def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pass


# What is not here fails: a command that is new in the README is looked at by someone.
ACTS: dict[str, Act] = {
    "run": stub_run,
    "plan": stub_plan,
    **dict.fromkeys(
        ("table", "list", "agree", "check", "segment", "new-patcher", "generate", "trace", "plot", "report"), nothing
    ),
    **dict.fromkeys(("verdict", "intrinsics", "schema"), nothing),
}


@pytest.mark.parametrize("words", named("patchbench"), ids=" ".join)
def test_patchbench(
    words: list[str], house: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """In bytes, since a model that knows nothing writes any."""
    assert words[0] in ACTS, f"no test knows how to try `patchbench {words[0]}`"
    ACTS[words[0]](monkeypatch)
    code = cli.main(words)
    told = capsysbinary.readouterr()
    assert code == 0, told.err
    assert told.out.strip() or b"wrote" in told.err


@pytest.mark.parametrize("words", table_commands(), ids=" ".join)
def test_a_table_of_the_readme(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)  # they are made of the records that are there
    assert cli.main([*words, "--format", "md"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    if words[0] == "verdict":
        wanted = [claim.id for claim in load_claims(words[1]).claims]
    elif "--channels" in words:
        wanted = ["stride", "entropy", "none"]  # a row a cut, and the control
    elif "--rows" in words:
        wanted = words[words.index("--rows") + 1].split(",")
    else:
        wanted = [row.label for row in load_suite(words[1]).rows]
    for name in wanted:
        assert f"| {name}" in told.replace("**", "")


def test_tables_are_what_the_records_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are there yet; a table without records has an empty place."""
    monkeypatch.chdir(ROOT)
    made = [block[0] for block in readme.BLOCK.finditer(README) if block[3].strip()]
    for block in made:
        assert readme.refreshed(block) == block, "run python -m bench.cli.readme"


def test_the_plug_in_of_the_readme_registers_itself(house: Path) -> None:
    found = [(path, re.search(r'@register\("(\w+)"\)', path.read_text())) for path in house.glob("*.py")]
    plugins = [(path, name) for path, name in found if name is not None]
    assert plugins
    for path, name in plugins:
        load_plugin(path)
        starts = get(name[1])().segment(b"some text of twenty-four")
        assert starts.shape == (24,)
        assert starts[0]


def test_the_script_of_the_readme(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = load_suite("quick")
    for row in suite.rows:
        changes = {"suite": "quick", "config": suite.run_config(row.label)}
        records.write(house / "results", make_record(row.label, documents=20, changes=changes))
    stub_run(monkeypatch)
    runpy.run_path(str(house / "compare.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "difference" in told
    assert "token_lm" in told


def test_what_is_mentioned_is_there() -> None:
    for module in re.findall(r"`python -m ([\w.]+)", README):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for suite in re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE):
        assert suite in shipped_suites(), suite
    for path in re.findall(r"`((?:results|bench|models|patchers|tests)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path
