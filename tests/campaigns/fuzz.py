"""Thousands of suite files, searches, claims, plug-ins, data files and command lines that are wrong:
PYTHONPATH=tests python -m campaigns.fuzz [--cases 20000] [--seed 0] [--seconds S]

Each is given to the command line in this process, as the console script does it. What must come out: exit code 0 with
nothing to complain about, or 2 with one line on standard error and nothing on standard output (1 from `check`, `run`,
`verdict` and `lm-eval` alone, which document it); no traceback, no warning, no run of other code that is called done,
within SECONDS and MEMORY. What would train, fit, read large texts or begin processes is made harmless, and refuses in
one line like anything else; suites are loaded, planned, tabled and drawn, models are made and write, on a folder with
two tiny suites that have been run, one of them with a plug-in.

A case comes out again from its number (`--only N`). One that fails is told once a kind, with its command line and its
suite file made as small as still fails in the same way. Exits 1 when any failed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import pyarrow
import pyarrow.parquet
import typer

import bench.cli.main
from bench.claims.config import shipped_claims
from bench.claims.predicates import PREDICATES
from bench.cli import check
from bench.data import config as reading
from bench.data import store
from bench.data.config import DataConfig
from bench.evaluation.tasks.registry import TASKS
from bench.execution import plan, run, tuning, workers
from bench.execution.run import run_suite
from bench.suites.catalog import shipped_suites
from bench.suites.config import load_suite
from campaigns import mutations
from patchers import Patcher
from patchers.audit import EDGES, _guarded, check_shape
from patchers.errors import BenchError
from patchers.finding import Finding
from patchers.registry import PATCHERS
from patchers.registry import PLUGIN as PLUGIN_MODULE

SECONDS = 10.0
"""Of the processor, for one case; what imports matplotlib for the first time takes the longest."""
MEMORY = 3 * 2**30
"""Bytes of address space for all cases, beyond what the process has when they begin."""
MAY_FAIL = {"check", "run", "verdict", "lm-eval"}
"""Commands whose exit code is 1 where what they were asked about is not sound."""

TINY = """\
data: {files: [texts.jsonl], field: text, calibration: 0.2, test: 0.2}
model: {local_width: 16, local_heads: 1, encoder_layers: 1, decoder_layers: 1, local_window: 16,
        latent_width: 32, latent_heads: 1, latent_layers: 1, ngrams: [3], ngram_rows: 64, patch_rows: 64}
byte_lm: {width: 16, layers: 1, heads: 1, window: 16}
train: {bytes: 2000, batch_bytes: 1000, window: 200, dtype: float32}
bytes_per_patch: 4
rows:
  stride: {patcher: stride}
  words: {patcher: {name: words, every: 2}}
  bytes: {model: byte_lm}
"""
SEARCH = """\
suite: tiny.yaml
rows: [stride, bytes]
rounds:
  - {trials: 2, bytes: 1000}
  - {exchange: [train], bytes: 1000}
  - {best: 1, bytes: 2000}
sensitivity: [0.5, 2]
space:
  train.lr: {low: 1e-3, high: 16e-3}
  train.batch_bytes: [500, 1000]
only:
  stride: {local: [{options.local_width: 16, options.local_heads: 1}, {options.local_width: 32}]}
"""
CLAIMS = """\
about: What is claimed of bottles.
spread: [tiny]
claims:
  C1:
    claim: Words are better than strides.
    source: {paper: "A. Nobody 2024", arxiv: "2412.09871", where: figure 6, figure: "0.1", scale: 8B parameters}
    test: {name: difference, suite: tiny, row: words, reference: stride, at_most: -0.01}
  C2:
    claim: So are bytes.
    source: {paper: "A. Nobody 2024", where: table 1}
    needs: {name: level, suite: tiny, row: bytes, at_most: 9}
    test:
      - {name: ratio, suite: tiny, row: bytes, reference: stride, at_most: 1.0}
      - {name: contrast, suite: tiny, weights: {words: 1, stride: -1}, at_least: 0}
  C3:
    claim: And where there is more of it.
    source: {paper: "A. Nobody 2024", where: table 1}
    test: {name: slope, suite: tiny, rows: [stride, words], over: flops.train, at_most: 0}
  C4:
    claim: They cross.
    source: {paper: "A. Nobody 2024", where: table 1}
    test: {name: crossing, suite: tiny, rows: [stride, words], references: [bytes, bytes], margin: 0.01}
"""
EXPECTED = "C1: undecided\nC2: no records\nC3: supported\nC4: refuted\n"
LANGUAGES = {"x.eng.txt": b"One and two\nthree\n", "x.deu.txt": b"Eins und zwei\ndrei\n", "x.rus.txt": b"\xd0\xb8\nx\n"}
MORPHEMES = b"bottles\tbottle s\nstanding\tstand ing\n"
ITEMS = '{"ctx": "One and", "endings": [" two", " three"], "label": 0}\n' * 3
PLUGIN = """\
import numpy as np
from patchers import Patcher, register

@register("fuzz-halves")
class Halves(Patcher):
    def segment(self, data):
        return np.arange(len(data)) % max(1, len(data) // 2) == 0
"""
OWN = PLUGIN.replace("fuzz-halves", "fuzz-own").replace("len(data) // 2", "9 // 2")
"""What `fuzzed.py` was when `plugged.yaml` was run: a sound one."""
PLUGGED = TINY.partition("\nrows:")[0] + "\nplugins: [fuzzed.py]\nrows:\n  own: {patcher: fuzz-own, calibrate: false}\n"


@dataclass(frozen=True)
class Case:
    """A command line, and the files `fuzzed.yaml` (a suite or a search), `fuzzed.py` (a plug-in) and `fuzzed.data` that
    it may name."""

    args: tuple[str, ...]
    suite: bytes = b""
    plugin: bytes = b""
    data: bytes = b""

    def files(self) -> dict[str, bytes]:
        return {"fuzzed.yaml": self.suite, "fuzzed.py": self.plugin, "fuzzed.data": self.data}

    def told(self) -> str:
        text = f"patchbench {' '.join(shlex.quote(arg) for arg in self.args)}"
        used = {name: held[:3000] for name, held in self.files().items() if any(name in arg for arg in self.args)}
        return ascii(text)[1:-1] + "".join(f"\n    {name}: {held!r}" for name, held in used.items())


@dataclass(frozen=True)
class Outcome:
    """What a case came to: its exit code, or what is wrong with it."""

    code: int | None
    wrong: str | None = None
    detail: str = ""


class TooSlow(BaseException):
    """The time of a case is over; no Exception, so that nobody takes it for a failure of his own."""


class Sandbox:
    """A folder to run in, with a suite that was run, and all that is long made harmless."""

    def __init__(self, folder: Path, trained: bool) -> None:
        lines = (json.dumps({"text": f"{i} green bottles are standing on the wall, " * 3}) for i in range(60))
        self.files = {
            "tiny.yaml": TINY.encode(), "texts.jsonl": "\n".join(lines).encode(), "plug.py": PLUGIN.encode(),
            "items.jsonl": ITEMS.encode(), "search.yaml": SEARCH.encode(), "texts.parquet": _parquet(),
            "claims.yaml": CLAIMS.encode(), "expected.yaml": EXPECTED.encode(), "plugged.yaml": PLUGGED.encode(),
            "aligned.tar": _archive(), "morphemes.txt": MORPHEMES,
        }  # fmt: skip
        self.folder = folder
        self.clean()
        (folder / "fuzzed.py").write_text(OWN)
        suites = [load_suite(name) for name in ("tiny.yaml", "plugged.yaml")] if trained else []
        records = [record for suite in suites for record in run_suite(suite, Path("results")).records]
        assert all(record["status"] == "ok" for record in records), records
        self.good = _good_values([record["run_id"] for record in records])
        self.root: Any = typer.main.get_command(bench.cli.main.app)
        self.texts = [TINY, *(path.read_text(encoding="utf-8") for path in shipped_suites().values())]
        self.claims = [path.read_text(encoding="utf-8") for path in shipped_claims().values()]

    def clean(self) -> None:
        """Put the files back, and remove what cases have left."""
        for name in os.listdir(self.folder):
            if name not in self.files and name != "results":
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, content in self.files.items():
            (self.folder / name).write_bytes(content)

    def case(self, seed: int, number: int) -> Case:
        rng = random.Random(f"{seed}-{number}")
        if number % 2:
            return Case(mutations.command_line(rng, self.root, self.good))
        kind = rng.randrange(14)
        if kind == 0:
            search = mutations.suite_file(rng, [SEARCH])
            return Case(("tune", "fuzzed.yaml", *rng.choice(((), (), ("--show",), ("--rows", "stride")))), search)
        if kind == 1:
            name = rng.choice(("fuzz-own", "fuzz-own", "fuzz-halves"))
            segment = ("segment", "-p", name, "some words")
            calls: list[tuple[str, ...]] = [("check", name), ("check", name, "--quick"), segment, ("plan", "tiny.yaml")]
            return Case((*rng.choice(calls), "--plugin", "fuzzed.py"), plugin=mutations.plugin_file(rng, OWN))
        if kind == 2:
            data = mutations.data_file(rng, self.files["texts.parquet"], self.files["texts.jsonl"])
            field = rng.choice(("data.field=text", "data.field=null", "data.field=x"))
            readers: list[tuple[str, ...]] = [("data", "build", "tiny.yaml"), ("status", "tiny.yaml")]
            suited = (*rng.choice(readers), "data.files=fuzzed.data", field)
            return Case(rng.choice((suited, suited, ("segment", "-p", "words", "fuzzed.data"))), data=data)
        if kind == 3:
            return self._of_claims(rng)
        if kind == 4:
            data = mutations.data_file(rng, self.files["aligned.tar"], MORPHEMES)
            what: list[tuple[str, ...]] = [("tiny.yaml",), ("-p", "stride")]
            option = rng.choice(("--aligned", "--morphemes"))
            return Case(("intrinsics", *rng.choice(what), option, "fuzzed.data"), data=data)
        if kind == 5:
            edited = mutations.plugin_file(rng, OWN) if rng.random() < 0.5 else mutations.edited_plugin(rng, OWN)
            views: list[tuple[str, ...]] = [("status", "--json"), ("status", "--json"), ("table",), ("plan",)]
            view, *options = rng.choice(views)
            return Case((view, "plugged.yaml", *options), plugin=edited)
        suite = mutations.suite_file(rng, self.texts)
        if kind == 6:
            views = [("agree", "fuzzed.yaml", "tiny.yaml"), ("agree", "tiny", "fuzzed.yaml")]
            views += [("intrinsics", "fuzzed.yaml")]
            return Case(rng.choice(views), suite)
        command = rng.choice(("plan", "plan", "plan", "table", "table", "fit", "run", "status", "data build")).split()
        changes = [mutations.override(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        return Case((*command, "fuzzed.yaml", *changes), suite)

    def _of_claims(self, rng: random.Random) -> Case:
        """Claims, or verdicts that are expected, that are wrong."""
        form = rng.choice(((), ("--format", rng.choice(("md", "latex", "html", "json", "yaml")))))
        if rng.random() < 0.2:
            expected = mutations.suite_file(rng, [EXPECTED], mutations.CLAIM_KEYS)
            return Case(("verdict", "claims.yaml", "--expect", "fuzzed.yaml", *form), expected)
        claims = mutations.suite_file(rng, [CLAIMS, CLAIMS, *self.claims], mutations.CLAIM_KEYS)
        views: list[tuple[str, ...]] = [("verdict", "fuzzed.yaml", *form), ("verdict", "fuzzed.yaml", *form)]
        views += [("verdict", "fuzzed.yaml", "--expect", "expected.yaml")]
        views += [("report", "tiny", "--claims", "fuzzed.yaml", "-o", "out.html")]
        return Case(rng.choice(views), claims)

    def run(self, case: Case) -> Outcome:
        """Run a case and judge what came out."""
        self.clean()
        for name, held in case.files().items():
            (self.folder / name).write_bytes(held)
        _forget_plugin()
        out, err = (_stream(errors) for errors in ("strict", "backslashreplace"))
        began = time.process_time()
        code: int | None = None
        with warnings.catch_warnings(record=True) as warned, _streams(out, err):
            warnings.simplefilter("always")
            try:
                with _limit(SECONDS):
                    code = bench.cli.main.main(list(case.args))
            except TooSlow:
                return Outcome(None, f"too slow: {_where()}", f"not done after {SECONDS:g} s")
            except (Exception, SystemExit):  # noqa: BLE001 - whatever it raises is what is looked for
                return Outcome(None, _where(), traceback.format_exc(limit=-6))
        if warned:
            return Outcome(code, f"warning: {warned[0].category.__name__}: {warned[0].message}", str(warned[0]))
        return _judged(case, code, _text(out), _text(err), time.process_time() - began)

    def smallest(self, case: Case, wrong: str) -> Case:
        """A part of the case that fails in the same way: fewer arguments, fewer lines of the suite."""

        def same(smaller: Case) -> bool:
            return self.run(smaller).wrong == wrong

        place = len(case.args) - 1
        while place > 0:
            smaller = replace(case, args=(*case.args[:place], *case.args[place + 1 :]))
            case = smaller if same(smaller) else case
            place -= 1
        lines = case.suite.splitlines(keepends=True)
        place = len(lines) - 1
        while place >= 0 and len(lines) < 200:
            fewer = [*lines[:place], *lines[place + 1 :]]
            lines = fewer if same(replace(case, suite=b"".join(fewer))) else lines
            place -= 1
        return replace(case, suite=b"".join(lines))


def _forget_plugin() -> None:
    """What a case has left of `fuzzed.py` in this process, where another one has none of it."""
    for name in [name for name in sys.modules if name.startswith(f"{PLUGIN_MODULE}fuzzed")]:
        del sys.modules[name]
    for registry in (PATCHERS, TASKS, PREDICATES):
        for name, cls in list(registry.classes.items()):
            if cls.__module__.startswith(f"{PLUGIN_MODULE}fuzzed"):
                del registry.classes[name]


def _good_values(run_ids: Sequence[str]) -> dict[str, Sequence[str]]:
    """Values that are right, by the names of parameters of commands."""
    suites = ("tiny.yaml", "tiny", "quick", "standard", "fuzzed.yaml")
    binaries = ("texts.parquet", "fuzzed.data", "texts.jsonl")
    checkpoints = [f"results/tiny/checkpoints/{run_id}" for run_id in run_ids or ("none",)]
    cutters = ("stride", "whitespace", "words:every=2", "lz", "bpe:encoding=gpt2", "entropy:threshold=2", "fuzz-halves")
    return {
        "suite": suites, "small": (*suites, "study@2e6"), "large": suites, "search": ("search.yaml", "fuzzed.yaml"),
        "overrides": (
            *("train.lr=1e-3", "seeds=[0,1]", "rows.more.patcher=random", "data.test=0.3"),
            *(f"data.files={name}" for name in binaries),
        ),
        "results": ("results", "new"), "plugin": ("plug.py",), "workers": ("1", "2"), "only": run_ids or ("none",),
        "rows": ("stride", "bytes,stride"), "columns": ("bpb", "row,bpb,bpb.bpb.verdict", "flops.per_byte.latent"),
        "reference": ("stride", "bytes", "eng"), "sort": ("bpb", "-bpb"), "group": ("model", "patcher"),
        "output": ("out.svg", "out", "out.html"), "kind": ("differences", "curves"),
        "patcher": (*cutters, *checkpoints), "setting": ("stride=3", "every=2"), "bytes_per_patch": ("4", "2.5"),
        "text": ("some words", "texts.jsonl", "-", "é\udcff"), "html": ("out.html",), "name": ("my-words",),
        "folder": ("made", "."), "checkpoint": checkpoints, "prompt": ("One", ""), "prompt_file": ("items.jsonl", "-"),
        "max_bytes": ("0", "1", "5"), "until": ("a", " "), "temperature": ("0", "1"), "top_k": ("1", "5"),
        "top_p": ("0.5",), "seed": ("0", "7"), "picture": ("out.png",), "tasks": ("a,b", "hellaswag"),
        "include_path": (".",), "limit": ("2",), "num_fewshot": ("0",), "files": ("items.jsonl", *binaries),
        "claims": ("claims.yaml", "paper", "fuzzed.yaml"), "expect": ("expected.yaml",), "sentences": ("1", "2"),
        "aligned": ("aligned.tar", "fuzzed.data", "."), "morphemes": ("morphemes.txt", "fuzzed.data"),
        "corpus": ("wiki-en",), "what": ("patchers", "suites"), "format": ("md", "latex", "csv", "html", "json"),
    }  # fmt: skip


def _parquet() -> bytes:
    texts = pyarrow.table({"text": [f"{i} green bottles are standing on the wall" for i in range(60)]})
    made = io.BytesIO()
    pyarrow.parquet.write_table(texts, made)
    return made.getvalue()


def _archive() -> bytes:
    """The same sentences in three languages."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in LANGUAGES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


@contextlib.contextmanager
def harmless() -> Iterator[None]:
    """Nothing in the block trains, fits, asks a network, or begins another process; every corpus is the tiny one."""
    tiny = DataConfig(files=("texts.jsonl",), field="text", calibration=0.2, test=0.2)

    def refuse(*_: Any, **__: Any) -> Any:
        raise BenchError("nothing is fitted, trained or fetched in a campaign; leave it out")

    def small(config: DataConfig) -> DataConfig:
        if config.dataset is not None:
            refuse()
        return tiny if config.corpus is not None else config

    def shape_alone(patcher: Patcher, *_: Any, **__: Any) -> list[Finding]:
        """The rule without which nothing else can be said of a patcher."""
        return [_guarded("shape", lambda: check_shape(patcher, EDGES))]

    load, stored = reading.load, store.load

    def load_small(config: DataConfig) -> Any:
        return load(small(config))

    def load_stored(config: DataConfig, *more: Any, **named: Any) -> Any:
        return stored(small(config), *more, **named)

    with contextlib.ExitStack() as changes:
        root = typer.main.get_command(bench.cli.main.app)  # which takes as long to make as most cases take
        for module, name, instead in (
            (typer.main, "get_command", lambda app: root),
            *((reading, "load", load_small), (check, "load", load_small), (plan, "load", load_small)),
            *((store, "load", load_stored), (check, "audit", shape_alone), (check, "rate", lambda *_: 1.0)),
            *((plan, "plan_rows", refuse), (run.Work, "attempt", refuse), (tuning, "LOOKED_AT", 3)),
            *((tuning, "prepare", refuse), (tuning, "prepare_matched", refuse)),
            *((workers, "run_on_ranks", refuse), (workers, "run_on_workers", refuse)),
        ):
            changes.enter_context(mock.patch.object(module, name, instead))
        fits = "bench.data.fitted_patchers.fit_cached", "bench.training.prepare.fit_cached"
        for name in (*fits, "bench.system.signals.heed_sigterm"):
            changes.enter_context(mock.patch(name, refuse if "fit" in name else lambda: None))
        if find_spec("lm_eval") is not None:  # without it the command refuses by itself
            changes.enter_context(mock.patch("bench.lm_eval.adapter.evaluate", refuse))
        yield


def _judged(case: Case, code: int, out: str, err: str, seconds: float) -> Outcome:
    lines = [line for line in err.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("patchbench: warning: ")]
    wrong = None
    if "Traceback" in err or "Traceback" in out:
        wrong = "a traceback was printed"
    elif code not in (0, 2) and not (code == 1 and set(case.args) & MAY_FAIL):
        wrong = f"exit code {code}"
    elif code == 2 and (len(told) != 1 or not told[0].startswith("patchbench: error: ") or len(told[0]) < 25):
        wrong = f"exit code 2 with {len(told)} lines on standard error"
    elif code == 2 and out:
        wrong = "exit code 2 after output"
    elif code == 0 and case.args[:3] == ("status", "plugged.yaml", "--json") and _is_stale(case, out):
        wrong = "a run of other code is called done"
    elif seconds > SECONDS:
        wrong = "too slow"
    return Outcome(code, wrong, f"{out[-500:]}\n{err[-1500:]}" if wrong else "")


def _is_stale(case: Case, out: str) -> bool:
    """Whether a run is said to be done although its plug-in is not what it was."""
    done = any(run["state"] == "done" for run in json.loads(out))
    return done and ast.dump(ast.parse(case.plugin)) != ast.dump(ast.parse(OWN))


def _where() -> str:
    """The exception that is being handled, and the last of our own lines that it came through."""
    kind, error, trace = sys.exc_info()
    assert kind is not None
    root = str(Path(__file__).resolve().parents[2])
    frames = [f for f in traceback.extract_tb(trace) if f.filename.startswith(root) and "campaigns" not in f.filename]
    at = f"{Path(frames[-1].filename).name}, {frames[-1].name}" if frames else "outside of our code"
    return f"{kind.__name__} in {at}" if not isinstance(error, SystemExit) else f"SystemExit in {at}"


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _stream(errors: str) -> io.TextIOWrapper:
    """As Python opens the standard streams in a UTF-8 locale."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


@contextlib.contextmanager
def _streams(out: io.TextIOWrapper, err: io.TextIOWrapper) -> Iterator[None]:
    given = io.TextIOWrapper(io.BytesIO(b"what is piped \xff in\n"))
    with mock.patch.object(sys, "stdin", given), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@contextlib.contextmanager
def sandbox(trained: bool) -> Iterator[Sandbox]:
    """A sandbox in a temporary folder, which is the working directory in the block; `trained`: with a run suite."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        made = Sandbox(Path(name), trained)
        with harmless():
            yield made


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long, whatever is left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case, which is run and told in full")
    parser.add_argument("--trained", action="store_true", help="with a suite that has been run, and its models")
    asked = parser.parse_args()
    began, codes, failed = time.perf_counter(), Counter[int | None](), dict[str, list[int]]()
    slowest = (0.0, 0)
    with sandbox(asked.trained) as box:
        _limit_memory()
        for number in range(asked.cases) if asked.only is None else [asked.only]:
            case, at = box.case(asked.seed, number), time.process_time()
            outcome = box.run(case)
            if time.perf_counter() - began > asked.seconds:
                break
            slowest = max(slowest, (time.process_time() - at, number))
            codes[outcome.code] += 1
            if asked.only is not None:
                print(f"{case.told()}\n{outcome}")
            if outcome.wrong is not None:
                if outcome.wrong not in failed:
                    print(f"case {number}: {outcome.wrong}", flush=True)
                failed.setdefault(outcome.wrong, []).append(number)
            if number % 250 == 249:
                print(f"{number + 1} cases in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        for wrong, numbers in failed.items():
            case = box.smallest(box.case(asked.seed, numbers[0]), wrong)
            print(f"\n{wrong}: {len(numbers)} cases ({', '.join(map(str, numbers[:5]))})\n  {case.told()}")
            print("  " + "\n  ".join(box.run(case).detail.splitlines()))
    said = ", ".join(f"{count} with exit code {code}" for code, count in codes.most_common())
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{codes.total()} cases of seed {asked.seed} in {seconds:.0f} s, the slowest {slowest}: {said}")
    print(f"{sum(map(len, failed.values()))} failed, in {len(failed)} ways; peak {peak:.2f} GB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
