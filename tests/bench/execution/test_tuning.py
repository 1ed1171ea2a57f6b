"""The search over sizes and training, on a suite so small that it takes seconds."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_suite import write_suite

from bench.cli.main import main
from bench.evaluation.byte_model import CutModel
from bench.execution.tuning import Trial, Tuning, as_yaml, best_values, draws, load_search
from bench.suites.config import load_suite
from bench.system.files import locked
from patchers import BenchError

SPACE = {"train.lr": {"low": 1e-3, "high": 2e-2}, "local": [{"options.local_width": 16}, {"options.local_width": 32}]}


def write_search(folder: Path, **changes: Any) -> Path:
    suite = write_suite(folder, rows={"stride": {"patcher": "stride"}, "none": {"patcher": "none"}})
    search = {
        "suite": str(suite),
        "rows": ["stride", "none"],
        "rounds": [{"trials": 2, "bytes": 4000}, {"best": 1, "bytes": 6000}],
        "sensitivity": [0.5, 2],
        "space": SPACE,
        **changes,
    }
    path = folder / "search.yaml"
    path.write_text(json.dumps(search))
    return path


def test_draws_depend_on_seed_row_and_number_alone() -> None:
    first = list(itertools.islice(draws(SPACE, 0, "stride"), 5))
    assert list(itertools.islice(draws(SPACE, 0, "stride"), 3)) == first[:3]
    assert list(itertools.islice(draws(SPACE, 0, "none"), 5)) != first
    assert list(itertools.islice(draws(SPACE, 1, "stride"), 5)) != first
    assert all(1e-3 <= one["train.lr"] <= 2e-2 for one in first)
    assert {one["options.local_width"] for one in itertools.islice(draws(SPACE, 0, "stride"), 20)} == {16, 32}


def test_a_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = write_search(tmp_path)
    heard: list[str] = []
    tuning = Tuning(path, tmp_path / "results", heard.append)
    tuning.run(["stride"])
    assert len(heard) == 2 + 1 + 2, "two trials, the best of them for longer, and the two of its rate"
    lines = tuning.log.read_text().splitlines()
    trials = [json.loads(line) for line in lines]
    assert {trial["row"] for trial in trials} == {"stride"}
    first, second = sorted((t for t in trials if t["stage"] == "0"), key=lambda t: t["bpb"])
    verified = next(t for t in trials if t["stage"] == "1")
    assert (verified["values"], verified["bytes"]) == (first["values"], 6000)
    rates = [t["values"]["train.lr"] / first["values"]["train.lr"] for t in trials if t["stage"].startswith("sens")]
    assert rates == pytest.approx([0.5, 2], rel=0.01)
    assert first["bpb"] <= second["bpb"] < 10
    best = best_values(tuning, "stride")
    assert best is not None
    assert best.values == first["values"]

    tuning.log.write_text("\n".join(lines[:1]) + "\n")  # as if it had been killed after the first
    heard.clear()
    tuning.run()
    again = [json.loads(line) for line in tuning.log.read_text().splitlines()]
    mine = {(t["stage"], t["number"]): t["bpb"] for t in again if t["row"] == "stride"}
    assert mine == {(t["stage"], t["number"]): t["bpb"] for t in trials}, "the same trials, the same numbers"
    assert len(heard) == 4 + 5, "what was missing of the first row, and the second"


def test_a_round_waits_for_the_trials_of_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that another is at is the best of the round; the next round must begin with it."""

    def tried(self: Tuning, trial: Trial) -> Trial:
        return replace(trial, bpb=3.0)

    monkeypatch.setattr(Tuning, "tried", tried)
    tuning = Tuning(write_search(tmp_path, sensitivity=[]), tmp_path / "results", lambda said: None)
    theirs = list(tuning.trials_of("stride", 0, tuning.search.rounds[0]))[1]
    held, let_go = threading.Event(), threading.Event()

    def another() -> None:
        with locked(tuning.locks / "stride-0-1.lock", -1.0):
            held.set()
            let_go.wait(60)
            with tuning.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(replace(theirs, bpb=2.0))) + "\n")

    thread = threading.Thread(target=another)
    thread.start()
    assert held.wait(60)
    threading.Timer(0.5, let_go.set).start()
    tuning.run(["stride"])
    thread.join()
    (verified,) = [t for t in tuning.done().values() if t.stage == "1"]
    assert verified.values == theirs.values


def test_sensitivity_of_an_earlier_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Around the best of that round, whatever is the best of a later one."""

    def tried(self: Tuning, trial: Trial) -> Trial:
        return replace(trial, bpb=trial.number + 2.0 if trial.bytes == 4000 else 9.0 - trial.number)

    monkeypatch.setattr(Tuning, "tried", tried)
    rounds = [{"trials": 2, "bytes": 4000}, {"best": 2, "bytes": 6000}]
    tuning = Tuning(write_search(tmp_path, rounds=rounds, sensitivity_bytes=4000), tmp_path / "results", print)
    tuning.run(["stride"])
    done = tuning.done()
    best, around = done["stride", "0", 0].values, done["stride", "sensitivity x2", 0]
    assert around.bytes == 4000
    assert around.values == {**best, "train.lr": pytest.approx(2 * best["train.lr"], rel=0.01)}


def test_every_trial_costs_what_it_should(tmp_path: Path) -> None:
    cheap = Tuning(write_search(tmp_path, flops_per_byte=1e3), tmp_path / "results", print)
    with pytest.raises(BenchError, match="0 cost 1000 FLOPs a byte, within 10%, and 2 trials are wanted"):
        next(cheap.trials_of("none", 0, cheap.search.rounds[0]))


def test_the_test_split_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores stay as they are when the test split is another."""
    tuning = Tuning(write_search(tmp_path), tmp_path / "results", print)
    trial = next(iter(tuning.trials_of("none", 0, tuning.search.rounds[0])))
    asked: list[bytes] = []

    def heard(self: CutModel, docs: list[bytes]) -> list[np.ndarray]:
        asked.extend(docs)
        return whole(self, docs)

    data = tuning.data(load_suite(str(tmp_path / "tiny.yaml")))
    whole = CutModel.nats
    monkeypatch.setattr(CutModel, "nats", heard)
    assert tuning.tried(trial).bpb is not None
    assert set(asked) <= {document.data for document in data.calibration.documents}
    assert not set(asked) & {document.data for document in data.test.documents}


def test_what_is_no_search_is_said(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"rounds\[?.?0.*the first rounds say `trials`"):
        load_search(write_search(tmp_path, rounds=[{"best": 1, "bytes": 4000}]))
    with pytest.raises(BenchError, match="sensitivity_bytes: no round trains on 5000 bytes"):
        load_search(write_search(tmp_path, sensitivity_bytes=5000))
    with pytest.raises(BenchError, match="no row of this search"):
        load_search(write_search(tmp_path, only={"strid": {}}))


def test_values_as_yaml() -> None:
    assert as_yaml({"train.lr": 0.004, "options.local_width": 64}) == "options: {local_width: 64}\ntrain: {lr: 0.004}"


def test_an_exchange_gives_each_row_the_other_rows_best_shared_values(tmp_path: Path) -> None:
    rounds = [{"trials": 2, "bytes": 4000}, {"exchange": ["train"], "bytes": 4000}, {"best": 1, "bytes": 6000}]
    tuning = Tuning(write_search(tmp_path, rounds=rounds, sensitivity=[]), tmp_path / "results", lambda said: None)
    tuning.run()
    done = tuning.done().values()
    drawn = {
        row: min((t for t in done if (t.row, t.stage) == (row, "0")), key=lambda t: t.bpb or 9)
        for row in ("stride", "none")
    }
    for row, other in (("stride", "none"), ("none", "stride")):
        (exchanged,) = [t for t in done if (t.row, t.stage) == (row, "1")]
        assert exchanged.values == {**drawn[row].values, "train.lr": drawn[other].values["train.lr"]}
        (verified,) = [t for t in done if (t.row, t.stage) == (row, "2")]
        best = min((drawn[row], exchanged), key=lambda t: t.bpb or 9)
        assert verified.values == best.values, "the best of all trials of that length"


def test_an_exchange_keeps_to_what_a_trial_costs(tmp_path: Path) -> None:
    """Sizes of another row may cost more than every trial should, or not go together with the row's own."""
    rounds = [{"trials": 1, "bytes": 4000}, {"exchange": ["options"], "bytes": 4000}]
    space = {"options.local_width": [16]}
    only = {"none": {"options.local_width": [512]}, "stride": {"options.local_window": [8]}}
    for wanted, left in ((None, ["1"]), (1e3, [])):
        path = write_search(tmp_path, rounds=rounds, sensitivity=[], space=space, only=only, flops_per_byte=wanted)
        heard: list[str] = []
        tuning = Tuning(path, tmp_path / "results", heard.append)
        tuning.log.parent.mkdir(parents=True, exist_ok=True)
        done = [
            Trial("stride", "0", 0, {"options.local_width": 16, "options.local_window": 8}, 4000, 3.0),
            Trial("none", "0", 0, {"options.local_width": 512}, 4000, 2.5),
        ]
        tuning.log.write_text("".join(json.dumps(vars(trial)) + "\n" for trial in done))
        assert [trial.stage for trial in tuning.trials_of("stride", 1, tuning.search.rounds[1])] == left
        assert heard == ([] if left else ["stride 1 #1: left out, as none's values do not fit it"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": ["strid"]}, r"rows.*suite .* has no row 'strid', did you mean 'stride'\?"),
        ({"rounds": []}, "rounds.*wanted one round at least"),
        ({"space": {"train.warmup": [0.1]}}, "sensitivity.*is of train.lr, of which row 'stride' has no values"),
        (
            {"rounds": [{"trials": 1, "bytes": 4000}, {"exchange": ["trian"], "bytes": 4000}]},
            "exchange.*no row has values of 'trian'.*so none could be exchanged",
        ),
    ],
)
def test_what_a_search_cannot_do_is_said_before_it_begins(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        load_search(write_search(tmp_path, **changes))


def test_trials_that_cannot_be_drawn_are_said(tmp_path: Path) -> None:
    """A row that is not searched, and a space of fewer values than trials: nothing was trained, unsaid."""
    tuning = Tuning(write_search(tmp_path, space={"train.lr": [1e-3]}), tmp_path / "results", lambda said: None)
    with pytest.raises(BenchError, match="no row 'strid' in this search, did you mean 'stride'"):
        tuning.run(["strid"])
    with pytest.raises(BenchError, match="of 1 draws for row 'stride' 1 can be trained, and 2 trials are wanted"):
        list(tuning.trials_of("stride", 0, tuning.search.rounds[0]))


@pytest.mark.parametrize("wrong", [{"bytes": 4000}, {"bytes": 4000, "best": 1, "exchange": ["train"]}])
def test_a_later_round_says_one_thing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = write_search(tmp_path, rounds=[{"trials": 2, "bytes": 4000}, wrong])
    with pytest.raises(BenchError, match="the later rounds say `best` or `exchange`"):
        load_search(path)


@pytest.mark.parametrize(
    "value", [{"low": 1}, {"low": 2, "high": 1}, {"low": 0, "high": 1}, {"low": "a", "high": 1}, {}, [], 5, "x", True]
)
def test_a_space_that_nothing_can_be_drawn_from_is_said(tmp_path: Path, value: Any) -> None:
    for changes in ({"space": {"train.lr": value}}, {"only": {"stride": {"train.lr": value}}}):
        with pytest.raises(BenchError, match=r"train\.lr.*wanted \{low: A, high: B\} with 0 < A < B, or a list of"):
            load_search(write_search(tmp_path, **changes))


def test_the_table_of_a_search_shows_each_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_search(tmp_path)
    log = tmp_path / "results" / "tuning" / "search.jsonl"
    log.parent.mkdir(parents=True)
    values = {"train.lr": 0.002}
    done = [Trial("stride", stage, n, values, 4000, bpb, 1e5, 1.0) for stage, n, bpb in (("0", 0, 3.5), ("0", 1, 3.25))]
    log.write_text("".join(json.dumps(vars(trial)) + "\n" for trial in done))
    assert main(["tune", str(path), "--results", str(tmp_path / "results"), "--show"]) == 0
    out = capsys.readouterr().out
    assert "3.2500" in out
    assert "3.5000" in out
