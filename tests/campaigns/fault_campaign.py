"""Everything that can go wrong with a run, done on purpose:
PYTHONPATH=tests python -m campaigns.fault_campaign [--seed 0] [-o FOLDER]

Runs of a tiny suite are killed (`kill -9`) in every phase, run out of disk in every phase, find one bit of each kind of
file flipped, or their source in another form, their plug-in edited after they were killed, and share a results folder
with others; a search (`tune`) is killed in the midst of its trials, and `intrinsics` in what it fits; `verdict`,
`agree` and `intrinsics` find a bit flipped of what they read. After each the same command is run again and its records,
less what a clock says, its weights, or what it prints are compared with those of a run that nothing disturbed.
`report.md` and `report.json` go to FOLDER; exit code 1 where something was lost, believed, or left lying about.

Moments are drawn from --seed, within how long each phase takes on this machine, or among its operations on files. The
campaign may be stopped: the same command goes on from the report, which is written after each case.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from tiny_suite import TRAIN, write_suite, write_texts

from bench import __version__, records
from bench.cli.main import main
from bench.system.files import write_atomic
from bench.system.tensors import load_tensors
from campaigns import fault_driver
from campaigns.fault_driver import FILLER, PHASES, hashes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ROWS: dict[str, dict[str, Any]] = {
    "tokens": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
    "stride": {"patcher": "stride"},
}
BY_CLOCK = ("seconds", "bytes_per_second", "busy_share", "peak_memory_bytes", "seconds_per_megabyte")
"""Endings of the keys of a record's cost that no two runs have in common."""
PLUGIN = """
import numpy as np
from patchers import Patcher, register

@register("faults-every")
class Every(Patcher):
    def segment(self, data):
        return np.arange(len(data)) % {size} == 0
"""
SEARCH: dict[str, Any] = {
    "suite": "tiny.yaml",
    "rows": ["stride"],
    "rounds": [{"trials": 3, "bytes": 4000}, {"best": 1, "bytes": 8000}],
    "sensitivity": [0.5],
    "space": {"train.lr": {"low": 1e-3, "high": 1e-2}, "train.weight_decay": [0.01, 0.1]},
}
CLAIMS = """
claims:
  C1:
    claim: Tokens are better than strides.
    source: {paper: Nobody 2024, where: table 1}
    test: {name: difference, suite: tiny, row: tokens, reference: stride, at_most: -0.01}
"""
VIEWS = {
    "verdict": (("verdict", "claims.yaml"), ("tiny/runs/tokens*.json",)),
    "agree": (("agree", "tiny.yaml", "tiny.yaml"), ("tiny/runs/stride*.json",)),
    "intrinsics": (
        ("intrinsics", "tiny.yaml", "--columns", "bytes_per_patch"),
        ("cache/corpora/*/data", "cache/patchers/bpe*/arrays.npz"),
    ),
}
"""Commands that train nothing, and what they read."""
SOURCES: dict[str, Callable[[bytes], bytes]] = {
    "half of a parquet file": lambda text: as_parquet()[: len(as_parquet()) // 2],
    "a parquet file with a byte changed in its footer": lambda text: as_parquet()[:-20] + b"\xff" + as_parquet()[-19:],
    "an Arrow file that ends early": lambda text: b"ARROW1\0\0" + text[:200],
    "a picture": lambda text: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4,
    "a program": lambda text: b"\x7fELF\x02\x01\x01" + bytes(200) + text,
    "gzip of half a stream": lambda text: gzip.compress(text)[:300],
    "text with zeros in it": lambda text: text[:300] + bytes(50) + text[350:],
}
"""What the first of the source's files is found to be, given what it was."""
DISK = 8 * 2**20
LEFT = (".part", ".tmp", ".training.")
"""What names of files of unfinished work have in them."""


@dataclass
class Case:
    """One accident, and what came of it."""

    kind: str
    what: str
    hit: str = ""
    """Where it really happened."""
    wrong: list[str] = field(default_factory=list)
    """What is not as it should be."""

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.what}"


class Campaign:
    """A suite, the folders of its runs, and what a run comes to that nothing disturbs."""

    def __init__(self, folder: Path, seed: int, wanted: dict[str, str] | None = None) -> None:
        """`wanted` is what an earlier part of the campaign found undisturbed."""
        self.folder, self.seed = folder, seed
        self.random = random.Random(seed)
        make_suite(folder)
        os.chdir(folder)  # so that the suite, and with it the runs, are called the same wherever that is
        torch.set_num_threads(1)
        load_libraries()
        self.wanted = wanted or self.by_an_interpreter_of_its_own()
        self.undisturbed = folder / "undisturbed"
        if wrong := self.again(self.undisturbed):
            sys.exit(f"{wrong[0]} from what report.json is about: delete it, and begin anew")
        self.phases = [line for line in self.report() if "phase" in line]

    def by_an_interpreter_of_its_own(self) -> dict[str, str]:
        with self.results() as results:
            process = self.start(results, {})
            _, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            return outcome(results)

    @functools.cached_property
    def unrecorded(self) -> Path:
        """The caches of a whole run: the next one looks at them."""
        folder = self.folder / "unrecorded"
        shutil.copytree(self.undisturbed / "cache", folder / "cache")
        return folder

    @functools.cache  # noqa: B019 - there is one campaign
    def killed_in(self, phase: str) -> Path:
        """What a run leaves that is killed in the middle."""
        folder = self.folder / f"killed in {phase}"
        most = next(line["operations"] for line in self.phases if (line["phase"], line["nth"]) == (phase, 1))
        self.run(folder, {"phase": phase, "nth": 1, "operation": most // 2})
        return folder

    # --- running

    def run(self, results: Path, fault: dict[str, Any], *command: str) -> subprocess.CompletedProcess[str]:
        """The command, with the accident."""
        return forked(self.arguments(results, *command), self.reported(fault), self.folder)

    def start(self, results: Path, fault: dict[str, Any], *others: str, cores: int = 1) -> subprocess.Popen[str]:
        """The same by an interpreter of its own; `others` are further arguments."""
        environment = {
            **os.environ,
            "PATCHBENCH_FAULT": json.dumps(self.reported(fault)),
            "OMP_NUM_THREADS": str(cores),
        }
        environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(HERE.parent), str(HERE)))
        command = [sys.executable, str(HERE / "fault_driver.py"), *self.arguments(results), *others]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    def arguments(self, results: Path, *command: str) -> list[str]:
        return [*(command or ("run", "tiny.yaml")), "--results", str(results)]

    def reported(self, fault: dict[str, Any]) -> dict[str, Any]:
        (self.folder / "report").unlink(missing_ok=True)
        return {**fault, "report": str(self.folder / "report")}

    def report(self) -> list[dict[str, Any]]:
        """What the last command has told."""
        path = self.folder / "report"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @contextmanager
    def results(self) -> Iterator[Path]:
        """An empty folder for one case."""
        folder = self.folder / "case"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def again(self, results: Path) -> list[str]:
        """Run the same command, and say what is not as if nothing had happened."""
        told = self.run(results, {})
        if told.returncode != 0:
            return [f"the same command ends with {told.returncode}: {told.stderr.strip()[-300:]}"]
        return self.differences(results)

    def differences(self, results: Path) -> list[str]:
        found = outcome(results)
        wrong = [f"{name} differs" for name in sorted(self.wanted) if found.get(name) != self.wanted[name]]
        wrong += [f"{name} is one too many" for name in sorted(found.keys() - self.wanted.keys())]
        left = [p.name for p in results.rglob("*") if any(mark in p.name for mark in LEFT)]
        return wrong + [f"left lying about: {name}" for name in sorted(left)]

    # --- kinds of accidents

    def moment(self, phase: str) -> dict[str, Any]:
        """At random within a phase: by the clock, or before one of its operations on files."""
        one = self.random.choice([line for line in self.phases if line["phase"] == phase])
        where = {"phase": phase, "nth": one["nth"]}
        if one["operations"] and self.random.random() < 0.5:
            return {**where, "operation": self.random.randint(1, one["operations"])}
        return {**where, "after": self.random.random() * one["seconds"]}

    def kill(self, case: Case, phase: str) -> None:
        """Until it is hit in this phase: a moment may come when the phase is over, on a machine with other work."""
        tries: list[str] = []
        while len(tries) < 8 and case.hit.partition(",")[0] != phase:
            with self.results() as results:
                told = self.run(results, self.moment(phase))
                hit = next((line for line in self.report() if "killed in" in line), None)
                if told.returncode == -signal.SIGKILL and hit is not None:
                    case.hit = f"{hit['killed in'] or 'between two phases'}, {hit['why']}"
                    case.wrong += self.again(results)
                tries.append(case.hit)
        if case.hit.partition(",")[0] != phase:
            case.wrong.append(f"not hit in {len(tries)} tries")

    def kill_cutting(self, case: Case, victim: str) -> None:
        """One of the processes that cut a corpus is killed, or the one that began them."""
        with self.results() as results:
            process = self.start(results, {"parallel": 4000}, cores=2)
            children = wait_for(cutters, process)
            time.sleep(self.random.random())
            os.kill(process.pid if victim == "parent" else children[0], signal.SIGKILL)
            process.communicate(timeout=600)
            case.hit = "segmentation"
            case.wrong = orphans(children) + self.again(results)

    def kill_workers(self, case: Case, victim: str) -> None:
        """`run --workers 2`: one of the workers is killed while it trains, or the process that began them."""
        with self.results() as results:
            process = self.start(results, {}, "--workers", "2", cores=2)
            wait_for(functools.partial(has_trained, results), process)
            children = workers(process.pid)
            os.kill(process.pid if victim == "parent" else self.random.choice(children), signal.SIGKILL)
            case.hit = "training"
            if victim == "parent":
                case.wrong = self.again(results)  # at once: what the workers do meanwhile must not matter
                case.wrong += orphans(children)
            process.communicate(timeout=600)
            if victim != "parent":
                case.wrong = self.again(results)

    def full_disk(self, case: Case, phase: str, nth: int, leave: int) -> None:
        with self.results() as results, disk(results):
            told = self.run(results, {"phase": phase, "nth": nth, "fill": str(results), "leave": leave})
            full = next((line for line in self.report() if "full" in line), None)
            if full is None:
                case.wrong.append(f"the phase did not begin: {told.stderr.strip()[-300:]}")
            else:
                lines = [line for line in told.stderr.splitlines() if " done: " not in line]
                case.hit = lines[-1].replace(str(results), "DIR") if lines else "no word"
                if told.returncode != 2 or len(lines) != 1 or "No space left on device" not in lines[0]:
                    case.wrong.append(f"exit code {told.returncode} and {len(lines)} lines: {told.stderr[-300:]}")
                now = hashes(results)
                case.wrong += [f"{name} has changed" for name in full["files"] if now.get(name) != full["files"][name]]
                (results / FILLER).unlink()
                case.wrong += self.again(results)

    def flip(self, case: Case, before: Path, name: str, again: bool = True) -> None:
        """One bit of a file, given the state of a results folder that has it; `again` where a run looks at it."""
        with self.results() as results:
            shutil.copytree(before, results, dirs_exist_ok=True)
            path = next(iter(sorted(results.glob(name))))
            held = bytearray(path.read_bytes())
            place, bit = self.random.randrange(len(held)), self.random.randrange(8)
            held[place] ^= 1 << bit
            path.write_bytes(held)
            told = self.run(results, {}) if again else self.ask(path.parent)
            case.hit = f"byte {place} of {len(held)}, bit {bit}"
            if path.name not in told.stderr:
                case.wrong.append("nothing was said")
            if told.returncode == 2:
                case.hit += ", refused"
                if len(told.stderr.splitlines()) != 1:
                    case.wrong.append(f"not one line: {told.stderr[-300:]}")
            else:
                case.hit += ", made again"
                case.wrong += self.differences(results) if told.returncode == 0 else [told.stderr[-300:]]

    def ask(self, model: Path) -> subprocess.CompletedProcess[str]:
        """Somebody who wants to use a trained model."""
        folder = next(p for p in (model, model.parent) if (p / "model.json").exists())
        return forked(["generate", str(folder), "--prompt", "the", "--max-bytes", "1"], {}, self.folder)

    def flip_unfinished(self, case: Case, phase: str, name: str) -> None:
        """The same of what a killed run goes on from."""
        self.flip(case, self.killed_in(phase), name)

    def other_source(self, case: Case, what: str) -> None:
        """Of a suite that has been run, a file of the source is found in another form, and put back."""
        path = self.folder / "0.jsonl"
        text = path.read_bytes()
        with self.results() as results:
            shutil.copytree(self.undisturbed, results, dirs_exist_ok=True)
            before = hashes(results / "tiny")
            try:
                path.write_bytes(SOURCES[what](text))
                told = self.run(results, {})
            finally:
                path.write_bytes(text)
            lines = told.stderr.splitlines()
            case.hit = lines[-1] if lines else "no word"
            if told.returncode != 2 or len(lines) != 1 or path.name not in told.stderr:
                case.wrong.append(f"exit code {told.returncode} and {len(lines)} lines: {told.stderr[-300:]}")
            if hashes(results / "tiny") != before:
                case.wrong.append("records or models have changed")
            case.wrong += self.again(results)

    @functools.cache  # noqa: B019 - there is one campaign
    def with_plugin(self, size: int) -> dict[str, str]:
        """What a run of this version of the plug-in comes to undisturbed."""
        (self.folder / "every.py").write_text(PLUGIN.format(size=size))
        with self.results() as results:
            told = self.run(results, {}, "run", "edited.yaml")
            assert told.returncode == 0, told.stderr
            return outcome(results)

    def edit(self, case: Case, phase: str) -> None:
        """Killed in a phase; the plug-in is edited, run, edited back, and run: each version has its own numbers."""
        wanted = {size: self.with_plugin(size) for size in (3, 5)}
        command, path = ("run", "edited.yaml"), self.folder / "every.py"
        with self.results() as results:
            path.write_text(PLUGIN.format(size=3))
            self.run(results, {"phase": phase, "nth": 1, "operation": self.random.randint(1, 3)}, *command)
            hit = next((line for line in self.report() if "killed in" in line), None)
            case.hit = "it ended before" if hit is None else f"{hit['killed in']}, {hit['why']}"
            done = outcome(results)
            for size, more in ((5, done), (3, {})):
                path.write_text(PLUGIN.format(size=size))
                told = self.run(results, {}, *command)
                if told.returncode:
                    case.wrong.append(f"exit code {told.returncode}: {told.stderr[-300:]}")
                found = outcome(results)
                expected = wanted[size] | more if size == 5 else wanted[3] | wanted[5]
                case.wrong += [f"{name} differs" for name in expected if found.get(name) != expected[name]]
                case.wrong += [f"{name} is one too many" for name in found.keys() - expected.keys()]
            case.wrong += [f"left: {p.name}" for p in results.rglob("*") if any(mark in p.name for mark in LEFT)]

    @functools.cached_property
    def searched(self) -> list[Any]:
        with self.results() as results:
            told = self.run(results, {}, "tune", "search.yaml")
            assert told.returncode == 0, told.stderr
            return trials(results)

    def kill_search(self, case: Case, nth: int) -> None:
        wanted = self.searched
        with self.results() as results:
            moment = {"phase": "training", "nth": nth, "after": self.random.random() / 20}
            self.run(results, moment, "tune", "search.yaml")
            hit = next((line for line in self.report() if "killed in" in line), None)
            case.hit = "it ended before" if hit is None else f"training {nth}, {len(trials(results))} trials were there"
            told = self.run(results, {}, "tune", "search.yaml")
            if told.returncode:
                case.wrong.append(f"exit code {told.returncode}: {told.stderr[-300:]}")
            case.wrong += ["its trials differ"] if trials(results) != wanted else []

    def view(self, case: Case, what: str, name: str) -> None:
        """One bit of what a command reads is flipped: it says so and prints nothing, or what it would have printed."""
        command = VIEWS[what][0]
        with self.results() as results:
            shutil.copytree(self.undisturbed, results, dirs_exist_ok=True)
            wanted = self.run(results, {}, *command)
            assert wanted.returncode == 0, wanted.stderr
            path = next(iter(sorted(results.glob(name))))
            whole = path.read_bytes()
            held = bytearray(whole)
            place, bit = self.random.randrange(len(held)), self.random.randrange(8)
            held[place] ^= 1 << bit
            path.write_bytes(held)
            told = self.run(results, {}, *command)
            case.hit = f"byte {place} of {len(held)}, bit {bit}, {'refused' if told.returncode else 'made again'}"
            if path.name not in told.stderr:
                case.wrong.append("nothing was said")
            if told.returncode and (told.returncode, len(told.stderr.splitlines()), told.stdout) != (2, 1, ""):
                case.wrong.append(f"exit code {told.returncode}: {told.stdout[-100:]}{told.stderr[-300:]}")
            if not told.returncode and told.stdout != wanted.stdout:
                case.wrong.append("it printed something else")
            path.write_bytes(whole)
            if self.run(results, {}, *command).stdout != wanted.stdout:
                case.wrong.append("put back, it prints something else")

    def kill_view(self, case: Case, phase: str) -> None:
        """`intrinsics` of a suite that was not run, killed while it builds or fits what it needs."""
        command = VIEWS["intrinsics"][0]
        with self.results() as results:
            wanted = self.run(results, {}, *command)
            assert wanted.returncode == 0, wanted.stderr
            shutil.rmtree(results / "cache")
            self.run(results, {"phase": phase, "nth": 1, "operation": self.random.randint(1, 3)}, *command)
            hit = next((line for line in self.report() if "killed in" in line), None)
            case.hit = "not hit" if hit is None else f"{hit['killed in']}, {hit['why']}"
            case.wrong += ["not hit"] if hit is None else []
            told = self.run(results, {}, *command)
            if (told.returncode, told.stdout) != (0, wanted.stdout):
                case.wrong.append(f"exit code {told.returncode}, other output: {told.stderr[-300:]}")
            case.wrong += [f"left: {p.name}" for p in results.rglob("*") if any(mark in p.name for mark in LEFT)]

    def together(self, case: Case, count: int) -> None:
        """Processes that are begun at once with the same command."""
        with self.results() as results:
            processes = [self.start(results, {}) for _ in range(count)]
            told = [process.communicate(timeout=1200)[1] for process in processes]
            done = Counter(line.split()[1] for err in told for line in err.splitlines() if " done: " in line)
            case.hit = f"{len(done)} runs, {done.total()} times done"
            case.wrong = [f"{run} was done {times} times" for run, times in done.items() if times > 1]
            case.wrong += [err[-300:] for p, err in zip(processes, told, strict=True) if p.returncode]
            case.wrong += self.differences(results)

    # --- all of them

    def plan(self, kills: int) -> list[tuple[Case, Callable[[Case], None]]]:
        """Every case, and how it comes about."""
        made: list[tuple[Case, Callable[[Case], None]]] = []

        def add(kind: str, what: str, how: Callable[..., None], *arguments: Any) -> None:
            made.append((Case(kind, what), lambda case: how(case, *arguments)))

        for number in range(kills):
            phase = PHASES[number % len(PHASES)]
            add("kill -9", f"{phase} {number // len(PHASES) + 1}", self.kill, phase)
        add("flipped bit", "tiny/runs/tokens*.json", self.flip, self.undisturbed, "tiny/runs/tokens*.json")
        parts = ("model.json", "model.safetensors", "sums.json", "patcher/patcher.json", "patcher/arrays.npz")
        for name in (f"tiny/checkpoints/tokens*/{part}" for part in parts):
            add("flipped bit", name, self.flip, self.undisturbed, name, False)
        caches = [f"corpora/*/{n}" for n in ("data", "ends", "digests", "titles", "title_ends", "store.json")]
        caches += [f"cuts/bpe*/{n}" for n in ("starts", "ids", "cuts.json")]
        caches += [f"patchers/bpe*/{n}" for n in ("arrays.npz", "patcher.json", "sums.json")]
        for name in caches:
            add("flipped bit", f"cache/{name}", self.flip, self.unrecorded, f"cache/{name}")
        unfinished = [
            ("data build", f"cache/corpora/*.part/spool/0.{n}") for n in ("data", "titles", "entries", "json")
        ]
        unfinished += [("segmentation", "cache/cuts/*.part/*.cuts")]
        unfinished += [("training", "tiny/checkpoints/*.training.safetensors")]
        for phase, name in unfinished:
            add("flipped bit", name, self.flip_unfinished, phase, name)
        for phase in PHASES if can_mount() else ():
            for nth, leave in ((1, 0), (2, 0), (1, 10_000)):
                if any((line["phase"], line["nth"]) == (phase, nth) for line in self.phases):
                    add("full disk", f"{phase} {nth}, {leave:,} bytes left", self.full_disk, phase, nth, leave)
        for what in SOURCES:
            add("other source", what, self.other_source, what)
        for phase in PHASES:
            add("edited plug-in", f"after a kill in {phase}", self.edit, phase)
        for nth in (1, 2, 4):
            add("kill -9", f"tune, trial {nth}", self.kill_search, nth)
        for what, (_, names) in VIEWS.items():
            for name in names:
                add("flipped bit", f"{name}, read by {what}", self.view, what, name)
        for phase in ("data build", "fitting"):
            add("kill -9", f"intrinsics, {phase}", self.kill_view, phase)
        for victim in ("parent", "child"):
            add("kill -9", f"processes that cut, the {victim}", self.kill_cutting, victim)
        for victim in ("parent", "child"):
            add("kill -9", f"--workers 2, the {victim}", self.kill_workers, victim)
        for count in (2, 4):
            add("together", f"{count} processes", self.together, count)
        return made


def make_suite(folder: Path) -> Path:
    for number in range(4):
        write_texts(folder, 30, seed=number).rename(folder / f"{number}.jsonl")
    (folder / "search.yaml").write_text(json.dumps(SEARCH))
    (folder / "claims.yaml").write_text(CLAIMS)
    source = {"files": ["?.jsonl"], "field": "text", "calibration": 0.2, "test": 0.2}
    train = {**TRAIN, "checkpoint_seconds": 0.01}
    every: dict[str, dict[str, Any]] = {"every": {"patcher": "faults-every", "calibrate": False}}
    edited = write_suite(folder, every, data=source, train=train, plugins=["every.py"])
    edited.rename(folder / "edited.yaml")
    return write_suite(folder, ROWS, data=source, train=train)


def as_parquet() -> bytes:
    made = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"line {i} of a table" for i in range(40)]}), made)
    return made.getvalue()


def trials(results: Path) -> list[Any]:
    """What a search has found, without what the clock says."""
    path = results / "tuning" / "search.jsonl"
    held = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return sorted(({k: v for k, v in one.items() if k != "seconds"} for one in held), key=json.dumps)


def outcome(results: Path) -> dict[str, str]:
    """A digest of every number of every record but what the clock says or the audit draws, and one of the weights."""
    found: dict[str, str] = {}
    for path in sorted(results.glob("*/runs/*.json")):
        record = records.read(path)
        if "cost" in record:
            record["cost"] = timeless(record["cost"])
            # They draw other documents in each run, so that no patcher can know them; and only in processes of
            # multiprocessing, where `fault_driver` is not, are those of the model made.
            record["audits"] = all(audit["passed"] for audit in record["audits"].values())
            for of_git in ("commit", "dirty"):  # whoever works on the code meanwhile changes no number
                record["environment"].pop(of_git)
        found[path.name] = records.digest(record)
    for path in sorted(results.glob("*/checkpoints/*/model.safetensors")):
        digest = hashlib.sha256()
        for name, held in sorted(load_tensors(path)[0].items()):
            digest.update(name.encode() + held.numpy().tobytes())
        found[f"weights of {path.parent.name}"] = digest.hexdigest()
    return found


def timeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: timeless(v) for k, v in value.items() if not k.endswith(BY_CLOCK)}


# --- processes


def forked(arguments: list[str], fault: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which has all its libraries from this one: they take seconds to load.

    What it writes goes through files in `folder`.
    """
    files = [folder / name for name in ("stdout", "stderr")]
    process = os.fork()
    if process == 0:
        code = 70  # EX_SOFTWARE
        try:
            for number, path in enumerate(files, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            signal.alarm(300)
            fault_driver.begin(fault)
            code = main(arguments)
        except BaseException:  # noqa: BLE001 - the child must not go on with the campaign
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    out, err = (path.read_text() for path in files)
    return subprocess.CompletedProcess(arguments, code, out, err)


def load_libraries() -> None:
    """What torch loads when it is used first."""
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    torch.optim.AdamW([parameter], fused=True).step()


def children_of(process: int) -> list[int]:
    with suppress(OSError):
        return [int(c) for c in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def workers(process: int) -> list[int]:
    """The processes that it has begun, but for the one that keeps track of their resources."""
    found = []
    for child in children_of(process):
        with suppress(OSError):
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def cutters(process: subprocess.Popen[str]) -> list[int]:
    found = workers(process.pid)
    return found if len(found) == 2 else []


def has_trained(results: Path, process: subprocess.Popen[str]) -> bool:
    return any(results.glob("tiny/checkpoints/*.training.safetensors"))


def wait_for(happens: Callable[[subprocess.Popen[str]], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 300
    while not (found := happens(process)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not happen: {process.communicate()}")
        time.sleep(0.005)
    return found


def orphans(processes: Sequence[int]) -> list[str]:
    """Those that live on ten seconds after their parent."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(alive(p) for p in processes):
        time.sleep(0.1)
    left = [p for p in processes if alive(p)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    return [f"{len(left)} processes live on without their parent"] if left else []


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """A small one, mounted there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@functools.cache
def can_mount() -> bool:
    if os.geteuid() or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(Path(folder)):
                return True
        except subprocess.CalledProcessError:
            return False


# --- the report


def markdown(told: dict[str, Any], cases: list[Case]) -> str:
    lines = [
        "# Faults",
        "",
        f"`PYTHONPATH=tests python -m campaigns.fault_campaign --seed {told['seed']}`,",
        f"patchbench {__version__}. After each accident the",
        "same command was run again. *As if nothing had happened*: every number of every record, but for what a clock",
        "or a memory gauge says, and every byte of the weights are those of a run that nothing disturbed, and no file",
        f"of unfinished work is left. So far {len(cases)} of {told['planned']} cases.",
        "",
    ]
    lines += ["| accident | cases | as if nothing had happened |", "|---|--:|--:|"]
    groups: dict[str, list[Case]] = {}
    for case in cases:
        phase = case.hit.partition(",")[0]
        groups.setdefault(f"{case.kind}: {phase}" if case.kind == "kill -9" else case.kind, []).append(case)
    lines += [f"| {name} | {len(group)} | {sum(not c.wrong for c in group)} |" for name, group in groups.items()]
    lines += ["", *(f"Left out: {what}." for what in told["left_out"])]
    lines += ["", "## Each", "", "| kind | aimed at | what happened | wrong |", "|---|---|---|---|"]
    cell = "| {} | {} | {} | {} |"
    lines += [cell.format(c.kind, c.what, c.hit.replace("|", "/"), "; ".join(c.wrong) or "nothing") for c in cases]
    return "\n".join(lines) + "\n"


def write_report(folder: Path, told: dict[str, Any], cases: list[Case]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown(told, cases))
    write_atomic(folder / "report.json", json.dumps({**told, "cases": [asdict(c) for c in cases]}, indent=1).encode())


def campaign() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=54, help="the phases in turn")
    parser.add_argument("--only", help="cases whose names match this regular expression")
    parser.add_argument("--cases", type=int, help="stop after so many")
    parser.add_argument("-o", dest="out", type=Path, default=ROOT / "results/faults")
    given = parser.parse_args()
    out, path = given.out.resolve(), given.out.resolve() / "report.json"
    told: dict[str, Any] = {"seed": given.seed, "left_out": [] if can_mount() else ["full disks, which take root"]}
    cases: list[Case] = []
    before = json.loads(path.read_text()) if path.exists() else {}
    if before.get("seed") == given.seed:
        told, cases = before, [Case(**case) for case in before.pop("cases")]
    with tempfile.TemporaryDirectory(prefix="patchbench-faults-") as folder:
        done = Campaign(Path(folder), given.seed, told.get("wanted"))
        told["wanted"] = done.wanted
        known = {case.name for case in cases}
        plan = done.plan(given.kills)
        told["planned"] = len(plan)
        missing = [(case, how) for case, how in plan if case.name not in known]
        missing = [(case, how) for case, how in missing if re.search(given.only or "", case.name)]
        for case, how in missing[: given.cases]:
            done.random = random.Random(f"{given.seed} {case.name}")
            how(case)
            cases.append(case)
            print(f"{case.name} ({case.hit}): {'; '.join(case.wrong) or 'fine'}", flush=True)
            write_report(out, told, cases)
        os.chdir(HERE)
    return 1 if any(case.wrong for case in cases) else 0


if __name__ == "__main__":
    sys.exit(campaign())
