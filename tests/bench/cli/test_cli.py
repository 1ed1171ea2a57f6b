"""The command line: what goes wrong is one line and exit code 2; what goes right is on standard output."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_builder import make_failed, make_record
from rich.console import Console

from bench import __version__
from bench.cli.commands import reports
from bench.cli.listing import LISTS
from bench.cli.main import main
from bench.execution.run import Outcome
from bench.reporting.table import FORMATS
from bench.system.progress import Display

TINY = """\
# Small enough for a test.
data: {files: [texts.jsonl], field: text, calibration: 0.2, test: 0.2}
model: {local_width: 16, local_heads: 1, encoder_layers: 1, decoder_layers: 1, local_window: 16,
        latent_width: 32, latent_heads: 1, latent_layers: 1, ngrams: [3], ngram_rows: 64, patch_rows: 64}
train: {bytes: 4000, batch_bytes: 1000, window: 200, dtype: float32}
bytes_per_patch: 4
rows:
  stride: {patcher: stride}
  random: {patcher: random}
"""

ROOT = Path(__file__).resolve().parents[3]
Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Run the command in a folder with a tiny suite; exit code, standard output, standard error."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    lines = (json.dumps({"text": f"{i} green bottles are standing on the wall, " * 3}) for i in range(60))
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        code = main(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def replace(old: str, new: str) -> None:
    path = Path("tiny.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def nothing() -> None:
    pass


def empty_corpus() -> None:
    Path("texts.jsonl").write_text("\n")


def one_document() -> None:
    Path("texts.jsonl").write_text('{"text": "alone"}\n')


def damaged_archive() -> None:
    Path("texts.txt.xz").write_bytes(b"no archive")


MISTAKES: list[tuple[str, Callable[[], None], tuple[str, ...], str]] = [
    (
        "unknown patcher",
        lambda: replace("{patcher: stride}", "{patcher: stripe}"),
        (),
        "tiny.yaml, line 8: rows.stride.patcher.name: unknown patcher 'stripe', did you mean 'stride'?",
    ),
    (
        "misspelt key",
        lambda: replace("window: 200", "widnow: 200"),
        (),
        "tiny.yaml, line 5: train.widnow: unknown key, did you mean 'window'?",
    ),
    ("wrong type", lambda: replace("4000", "lots"), (), 'line 5: train.bytes: wanted a whole number, got "lots"'),
    ("override", nothing, ("train.lr=fast",), "override 'train.lr=fast': train.lr: wanted a number, got \"fast\""),
    ("no override", nothing, ("fast",), "override 'fast' is not key=value"),
    ("missing file", lambda: replace("texts.jsonl", "text.jsonl"), (), "no file matches 'text.jsonl'"),
    ("empty corpus", empty_corpus, (), "texts.jsonl holds no text"),
    ("small corpus", one_document, (), "texts.jsonl is too small"),
    ("damaged file", damaged_archive, ("data.files=texts.txt.xz", "data.field=null"), "cannot read texts.txt.xz"),
    ("missing plug-in", nothing, ("--plugin", "none.py"), "no plug-in file at none.py"),
    ("results under a file", nothing, ("--results", "tiny.yaml/deep"), "cannot write to the results folder"),
    ("results is a file", nothing, ("--results", "tiny.yaml"), "cannot write to the results folder tiny.yaml"),
    ("unknown option", nothing, ("--result", "x"), "No such option"),
]


def is_one_error_line(err: str) -> bool:
    return err.startswith("patchbench: error: ") and err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize(("change", "args", "expected"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    call: Called, change: Callable[[], None], args: tuple[str, ...], expected: str
) -> None:
    change()
    code, out, err = call("run", "tiny.yaml", *args)
    assert code == 2
    assert out == ""
    assert expected in err
    assert is_one_error_line(err)
    assert not list(Path().glob("results/*/runs/*"))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run"], "Missing argument 'SUITE'. See patchbench run --help."),
        (["run", "quik"], "unknown suite 'quik', did you mean 'quick'?"),
        (["run", "none.yaml"], "no suite at none.yaml"),
        (["rnu", "quick"], "No such command 'rnu'"),
        (["list"], "Missing argument"),
        (["list", "patcher"], "'patcher' is not one of 'patchers', 'models', 'tasks', 'corpora', 'suites'"),
        (["table", "quick"], "no records of suite 'quick' in results, which has records of: no suite"),
        (["table"], "no records in results"),
        (["table", "--format", "word"], "'word' is not one of"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(call: Called, args: list[str], expected: str) -> None:
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert expected in err
    assert is_one_error_line(err)


def test_what_a_plugin_raises_is_one_line(call: Called) -> None:
    Path("broken.py").write_text("raise RuntimeError('the plug-in itself')")
    code, _, err = call("list", "patchers", "--plugin", "broken.py")
    assert code == 2
    assert is_one_error_line(err)
    assert "broken.py, line 1" in err
    assert "RuntimeError: the plug-in itself" in err


def test_the_keyboard_stops_without_a_traceback(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> list[dict[str, Any]]:
        raise KeyboardInterrupt

    monkeypatch.setitem(LISTS, "corpora", stop)
    code, _, err = call("list", "corpora")
    assert code == 130
    assert is_one_error_line(err)


def test_help_and_version(call: Called) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "plan", "table", "check", "segment", "new-patcher", "list"):
        assert f" {command} " in out
        assert call(command, "--help")[0] == 0
    assert call() == (0, out, "")
    assert call("--version") == (0, f"patchbench {__version__}\n", "")


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("patchers", {"stride", "whitespace", "entropy", "bpe"}),
        ("models", {"harness", "token_lm", "byte_lm"}),
        ("tasks", {"bpb"}),
        ("corpora", {"wiki-en", "python-stdlib"}),
        ("suites", {"quick", "standard"}),
    ],
)
def test_list(call: Called, what: str, some: set[str]) -> None:
    code, out, err = call("list", what, "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert some <= {entry["name"] for entry in listed}
    assert all(len(entry) > 1 for entry in listed)
    code, out, err = call("list", what)
    assert (code, err) == (0, "")
    heading, *lines = out.splitlines()
    assert len(lines) == len(listed), "one line each where there is no terminal"
    assert heading.split()[0] == "name"


def test_list_says_what_patchers_are(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {entry["name"]: entry for entry in json.loads(call("list", "patchers", "--json")[1])}
    assert len(listed) >= 16
    assert all(entry["source"] for entry in listed.values())
    assert {entry["kind"] for entry in listed.values()} == {"rule", "fitted", "in-model"}
    assert (listed["stride"]["boundaries"], listed["stride"]["knob"]) == ("causal", "stride")
    assert (listed["bpe"]["boundaries"], listed["bpe"]["knob"]) == ("priced", "vocab")
    assert all((entry["boundaries"] == "causal") == entry["causal"] for entry in listed.values())
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "72")
    heading, *lines = re.sub(r"\x1b\[[\d;]*m", "", call("list", "patchers")[1]).splitlines()
    assert heading.split() == ["name", "kind", "boundaries", "knob", "source"]
    assert [line.split()[0] for line in lines] == list(listed), "one line each, however narrow"
    assert max(map(len, lines)) <= 72
    assert any(line.endswith("…") for line in lines)


def test_neither_help_nor_a_list_nor_a_rule_waits_for_torch(tmp_path: Path) -> None:
    for args in (["--help"], ["list", "patchers"], ["segment", "-p", "whitespace", "a text"]):
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bench.cli.main import main; "
            f"code = main({args!r}); sys.exit('torch was loaded' if 'torch' in sys.modules else code)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_suite_is_read_without_torchs_compiler() -> None:
    """It takes as long to load as all the rest, and tables, plots and verdicts have no use for it."""
    code = "import sys, bench.suites.config, bench.execution.run; sys.exit('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_that_another_process_failed_at_is_no_success(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome([make_record("random"), make_failed("stride")])
    monkeypatch.setattr("bench.execution.run.run_suite", lambda *_: outcome)
    code, out, err = call("run", "tiny.yaml")
    assert (code, err) == (1, ""), "it was waited for, and there is something to do"
    assert "No number for stride" in out


def test_list_shows_plugins(call: Called) -> None:
    Path("mine.py").write_text(
        "from patchers import Patcher, register\n"
        "@register('cli-test-mine')\n"
        "class Mine(Patcher):\n"
        "    def segment(self, data): ...\n"
    )
    assert "cli-test-mine" in call("list", "patchers", "--plugin", "mine.py")[1]


def record(**others: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "error": None,
        "cost": {"train_seconds": 50.0, "score_seconds": 2.2},
        "tasks": {"bpb": {"metrics": {"bpb": {"documents": [["a", 10, 4], ["b", 10, 4]]}}}},
    } | others


def test_run_then_nothing_to_do_then_tables(call: Called) -> None:
    code, out, err = call("run", "tiny.yaml")
    assert code == 0, err
    assert [line.split(" done: ")[0][:14] for line in err.splitlines()] == ["[1/2] stride-s", "[2/2] random-s"]
    assert "stride" in out
    assert "random" in out
    made = {path: path.stat().st_mtime_ns for path in Path("results/tiny/runs").glob("*.json")}
    assert len(made) == 2

    assert call("run", "tiny.yaml") == (
        0,
        out,
        "nothing to do: all 2 runs are done (delete a record to repeat its run)\n",
    )
    assert {path: path.stat().st_mtime_ns for path in made} == made

    code, again, err = call("table", "tiny")
    assert (code, err) == (0, "")
    assert again == out
    for format in reports.Format:
        code, out, err = call("table", "--format", format.value)
        assert (code, err) == (0, "")
        assert "stride" in out
    lines = call("table", "--format", "csv", "--rows", "random,stride", "--columns", "row,bpb", "--reference", "random")
    assert [line.split(",")[0] for line in lines[1].splitlines()[-2:]] == ["random", "stride"]
    code, out, err = call("table", "tiny", "--columns", "bbp")
    assert (code, out) == (2, "")
    assert is_one_error_line(err)
    code, out, err = call("table", "tinny")
    assert "no records of suite 'tinny' in results, which has records of: tiny" in err


def test_plan_trains_nothing(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.execution.plan.CALIBRATION_SECONDS", 0.0)
    code, out, err = call("plan", "tiny.yaml", "seeds=[0,1,2]")
    assert (code, err) == (0, "")
    for part in ("tiny: 2 rows x 3 seeds", "stride", "random", "parameters", "train FLOPs"):
        assert part in out
    assert not Path("results").exists()
    Path("results", "cache").mkdir(parents=True)
    assert call("plan", "tiny.yaml")[0] == 0
    assert any(Path("results", "cache").iterdir()), "what was fitted is there for the next plan, and for the run"
    code, out, err = call("plan", "tiny.yaml", "train.bytes=none")
    assert (code, out) == (2, "")
    assert is_one_error_line(err)


def test_a_failed_run_is_exit_code_1_and_no_number(call: Called) -> None:
    code, out, err = call("run", "tiny.yaml", "rows.random.train.lr=1e9")
    assert code == 1
    assert "random-s0-" in err
    assert " failed: " in err
    assert "Traceback" not in err
    assert "stride" in out


def test_a_plugin_that_raises_is_a_failed_run_that_says_so(call: Called) -> None:
    Path("mine.py").write_text(
        "from patchers import Patcher, register\n"
        "@register('cli-test-raises')\n"
        "class Mine(Patcher):\n"
        "    def segment(self, data):\n"
        "        raise RuntimeError('the plug-in itself')\n"
    )
    replace("  random: {patcher: random}\n", "")
    code, _, err = call("run", "tiny.yaml", "--plugin", "mine.py", "rows.stride.patcher=cli-test-raises")
    assert code == 1
    assert " failed: RuntimeError: the plug-in itself" in err
    (path,) = Path("results/tiny/runs").glob("*.json")
    error = json.loads(path.read_text())["error"]
    assert (error["kind"], error["message"]) == ("RuntimeError", "the plug-in itself")
    assert 'mine.py", line 5, in segment' in error["traceback"]


def test_formats_are_those_of_tables() -> None:
    assert {format.value for format in reports.Format} == set(FORMATS)


class Trained:
    def __init__(self, read: int) -> None:
        self.bytes = read
        self.curve = [[0, read, 7.5, 1e-3]]


def shown(display: Display) -> None:
    with display:
        display.say("reading texts")
        display.run_begins("stride-s0-abc", 1, 2)
        display.trained(Trained(100), 200)
        display.trained(Trained(150), 200)
        display.say("scoring")
        display.run_ends(record())
        display.run_begins("[bold]-s0-abc", 2, 2)  # no markup of rich's
        display.run_ends(record(status="failed", error={"kind": "diverged", "message": "at step 3"}))
        display.line("end")
    assert display.ran == 2


def test_display_without_a_terminal_is_a_line_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown(Display())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "[1/2] stride-s0-abc done: bpb 2.500 (52 s)",
        "[2/2] [bold]-s0-abc failed: diverged: at step 3",
        "end",
    ]


def test_display_on_a_terminal_has_a_bar() -> None:
    file = io.StringIO()
    shown(Display(Console(file=file, force_terminal=True, width=120, highlight=False)))
    for part in ("reading texts", "stride-s0-abc  7.500 bpb", "scoring", "done: bpb 2.500"):
        assert part in file.getvalue()


@pytest.mark.parametrize("command", ["report", "table", "fit", "status", "run"])
def test_a_name_that_is_too_long_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "quick", "--results", "x" * 300]) == 2
    assert main([command, "x" * 300]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"(patchbench: error: [^\n]*x{60}[^\n]*\n){2}", err)


@pytest.mark.parametrize(("arguments", "code"), [(["list", "patchers"], 0), (["run", "no-such-suite"], 2)])
def test_the_module_ends_with_the_commands_own_code(arguments: list[str], code: int) -> None:
    """Slurm's tasks are this command, and are put back into the queue by its exit code."""
    command = [sys.executable, "-m", "bench.cli", *arguments]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == code


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "line 1: SyntaxError: "),
        ("x = '\x00'\n", "Error: "),
        ("\n1 / 0\n", "line 2, in <module>: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "line 1, in <module>: SystemExit: 3"),
        ("import no_such_module\n", "line 1, in <module>: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "from patchers import Patcher, register\n@register('cli-raises')\nclass R(Patcher):\n"
            "    def segment(self, data):\n        return data[len(data)]\n",
            "line 5, in segment: IndexError: index out of range",
        ),
    ],
)
def test_a_fault_of_a_plugin_is_one_line_that_says_where(text: str, words: str, call: Called, tmp_path: Path) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(text)
    code, out, err = call("segment", "-p", "cli-raises", "some words", "--plugin", str(path))
    assert (code, out) == (2, "")
    assert err.startswith(f"patchbench: error: plug-in {path}")
    assert words in err
    assert err.count("\n") == 1


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LISTS, "patchers", lambda: [][0])
    with pytest.raises(IndexError):
        main(["list", "patchers"])
