"""Verdicts from records in a folder, as the command gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from record_builder import make_failed, make_record

from bench import records
from bench.claims.config import load_claims
from bench.claims.verdicts import SAID, Finding, judge
from bench.cli.main import main
from bench.reporting.verdicts import verdicts_table

ROOT = Path(__file__).resolve().parents[3]
SOURCE = {"paper": "Somebody 2024", "where": "table 1", "figure": "61.1", "scale": "8B parameters"}
BPB = {"stride": 2.30, "entropy": 2.25, "whitespace": 2.31, "bpe": 2.291}
Called = Callable[..., tuple[int, str, str]]


def difference(row: str, reference: str = "stride", **more: Any) -> dict[str, Any]:
    return {"name": "difference", "suite": "quick", "row": row, "reference": reference, "at_most": -0.01, **more}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three seeds of four rows of the suite quick."""
    monkeypatch.chdir(tmp_path)
    for row, bpb in BPB.items():
        for seed in range(3):
            records.write(tmp_path / "results", make_record(row, seed, bpb=bpb))
    return tmp_path / "results"


def claims(folder: Path, tests: dict[str, Any], **more: Any) -> str:
    listed = {
        name: {"claim": f"{name} is so.", "source": SOURCE, **(test if "test" in test else {"test": test})}
        for name, test in tests.items()
    }
    (folder / "own.yaml").write_text(json.dumps({"claims": listed, **more}), encoding="utf-8")
    return str(folder / "own.yaml")


def found(results: Path, tests: dict[str, Any], **more: Any) -> dict[str, Finding]:
    loaded = load_claims(claims(results.parent, tests, **more))
    return {one.claim.id: one for one in judge(loaded, results, resamples=2000)}


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Called:
    def run(*args: str) -> tuple[int, str, str]:
        code = main(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# --- verdicts


def test_each_verdict(results: Path) -> None:
    said = found(
        results,
        {
            "yes": difference("entropy"),
            "no": difference("whitespace"),
            "open": difference("bpe"),
            "other": {**difference("entropy"), "suite": "standard"},
        },
    )
    assert {name: one.said for name, one in said.items()} == {
        "yes": "supported",
        "no": "refuted",
        "open": "undecided",
        "other": "no records",
    }
    assert said["yes"].tested[0].estimate.value == pytest.approx(-0.05, abs=0.01)
    assert len(said["yes"].records) == 6
    assert said["open"].need is not None
    assert said["yes"].need is None


def test_all_of_several_conditions_must_hold(results: Path) -> None:
    both = [difference("entropy"), difference("whitespace")]
    said = found(results, {"and": {"test": both}, "well": {"test": [both[0], difference("entropy", "bpe")]}})
    assert said["and"].said == "refuted"
    assert said["and"].deciding is not None
    assert said["and"].deciding.what == "bpb.bpb: whitespace minus stride"
    assert said["well"].said == "supported"


def test_a_leaky_row_is_told(results: Path) -> None:
    for seed in range(3):
        records.write(results, make_record("cheat", seed, bpb=1.7, changes={"config.leaky": True}))
    loaded = load_claims(claims(results.parent, {"yes": difference("entropy"), "cheat": difference("cheat")}))
    notes = {note.split(": ")[0]: note for note in verdicts_table(loaded, judge(loaded, results, resamples=2000)).notes}
    assert "Leaky: cheat; the model is told where patches begin and does not pay for it" in notes["cheat"]
    assert "Leaky" not in notes["yes"]


def test_rows_of_different_training_code_are_told(results: Path) -> None:
    for seed in range(3):
        now = make_record("now", seed, bpb=2.2, changes={"environment.training_version": 3})
        records.write(results, now)
    loaded = load_claims(claims(results.parent, {"yes": difference("entropy"), "now": difference("now")}))
    notes = {note.split(": ")[0]: note for note in verdicts_table(loaded, judge(loaded, results, resamples=2000)).notes}
    assert "(version 2 or older: stride; version 3: now)" in notes["now"]
    assert "different versions" not in notes["yes"]


def test_a_list_is_corrected_for(results: Path) -> None:
    # at this margin the difference is shown alone, and no more where it is one of thirteen of that kind
    alone = found(results, {"C1": difference("entropy", at_most=-0.01)})["C1"].tested[0]
    margin = alone.estimate.high + 0.1 * (alone.estimate.high - alone.estimate.value)
    near = difference("entropy", at_most=margin)
    assert found(results, {"C1": near})["C1"].said == "supported"
    many = found(results, {f"C{i}": near for i in range(13)})
    assert {one.alone for one in many.values()} == {"supported"}
    assert {one.said for one in many.values()} == {"undecided"}
    assert all(one.p_in_list == pytest.approx(min(1, 13 * one.p)) for one in many.values())


def test_claims_without_records_are_not_corrected_for(results: Path) -> None:
    gone = {f"D{i}": {**difference("entropy"), "suite": "standard"} for i in range(50)}
    one = found(results, {"C1": difference("entropy"), **gone})["C1"]
    assert one.p_in_list == one.p


def test_claims_that_nothing_could_decide_are_not_corrected_for(results: Path) -> None:
    for row in ("entropy", "stride"):
        records.write(results, make_record(row, 0, bpb=BPB[row], changes={"suite": "channels"}))
    blind = {f"D{i}": {**difference("entropy"), "suite": "channels"} for i in range(50)}
    found_here = found(results, {"C1": difference("entropy"), **blind})
    assert found_here["C1"].p_in_list == found_here["C1"].p
    assert found_here["D0"].said == "undecided"


def test_nothing_is_said_without_a_signal(results: Path) -> None:
    level = {"name": "level", "suite": "quick", "row": "entropy", "at_most": 2.0}
    said = found(
        results,
        {
            "deaf": {"test": difference("entropy"), "needs": level},
            "well": {"test": difference("entropy"), "needs": {**level, "at_most": 3.0}},
        },
    )
    assert (said["deaf"].said, said["well"].said) == ("undecided", "supported")
    assert re.match(r"there is no signal to read: bpb\.bpb: entropy is \+2\.", said["deaf"].why)
    [note] = [note for note in verdicts_table(load_claims("own.yaml"), list(said.values())).notes if "well: " in note]
    assert re.search(r"Needs: bpb\.bpb: entropy \+2\.\d+ \[\+2\.\d+, \+2\.\d+\], wanted at most \+3\.000\.", note)


def test_a_level_is_less_a_number_of_the_records(results: Path) -> None:
    level = {"name": "level", "suite": "quick", "row": "entropy", "less": "tasks.bpb.values.latent_gain", "at_least": 1}
    one = found(results, {"C1": level})["C1"]
    assert one.tested[0].estimate.value == pytest.approx(2.25 - 0.41, abs=0.15)


def test_one_seed_wants_others(results: Path) -> None:
    for row, bpb in BPB.items():
        changes = {"suite": "channels"}
        records.write(results, make_record(row, 0, bpb=bpb, changes=changes))
    here = {**difference("entropy"), "suite": "channels"}
    alone = found(results, {"C1": here})["C1"]
    assert alone.said == "undecided"
    assert alone.why.startswith("it rests on one seed")
    assert alone.need is None
    lent = found(results, {"C1": here}, spread=["quick"])["C1"]
    assert lent.said == "supported"
    assert lent.tested[0].measured.spread is not None


def test_what_trainings_differ_by_is_taken_from_the_same_text_only(results: Path) -> None:
    for row in ("entropy", "stride"):
        records.write(results, make_record(row, 0, bpb=BPB[row], documents=50, changes={"suite": "channels"}))
    one = found(results, {"C1": {**difference("entropy"), "suite": "channels"}}, spread=["quick"])["C1"]
    assert one.why.startswith("it rests on one seed")


# --- what is missing


def test_rows_that_have_not_run_or_failed_say_how_to_run_them(results: Path) -> None:
    records.write(results, {**make_failed("hnet", message="the loss is NaN"), "suite": "quick"})
    said = found(results, {"C1": difference("token_lm"), "C2": difference("hnet"), "C3": difference("entropy", "none")})
    assert said["C1"].why == f"row token_lm of suite quick has not been run: `patchbench run quick --results {results}`"
    assert said["C2"].why.startswith(
        "row hnet of suite quick failed (Divergence at step 17: the loss is NaN): `patchbench run quick"
    )
    assert {one.said for one in said.values()} == {"no records"}


def test_a_task_that_failed_says_how_to_try_it_again(results: Path) -> None:
    error = {"kind": "ValueError", "message": "broken", "step": None}
    for row in ("entropy", "stride"):
        changes = {"suite": "robustness", "tasks.noise": {"version": 1, "error": error}}
        records.write(results, make_record(row, 0, changes=changes))
    one = found(results, {"C1": {**difference("entropy", metric="noise.after"), "suite": "robustness"}})["C1"]
    assert one.why == (
        f"the task noise failed in row entropy of suite robustness (ValueError: broken): `patchbench run robustness "
        f"--results {results} --retry-tasks`"
    )


def test_a_task_of_the_suite_that_its_records_have_not_is_a_command(results: Path) -> None:
    """Records of before the suite had the task are no reason to refuse all claims."""
    for row in ("stride", "entropy"):
        records.write(results, make_record(row, 0, changes={"suite": "robustness"}))
    one = found(results, {"C1": {**difference("entropy", metric="noise.after"), "suite": "robustness"}})["C1"]
    assert (
        one.why
        == f"row entropy of suite robustness has no noise.after: `patchbench run robustness --results {results}`"
    )


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (difference("entrpy"), "claims.C1.test: suite quick has no row 'entrpy', did you mean 'entropy'?; it has: "),
        (difference("entropy", metric="bpb.bbp"), "suite quick has no metric 'bpb.bbp', did you mean 'bpb.bpb'?"),
        ({**difference("entropy"), "suite": "quik"}, "unknown suite 'quik', did you mean 'quick'?"),
        (
            {"name": "slope", "suite": "quick", "rows": ["stride", "entropy"], "over": "flops.tran", "at_most": 0},
            "the records of row stride of suite quick have no number at 'flops.tran'",
        ),
    ],
)
def test_what_is_misspelt_gets_its_nearest_name(results: Path, call: Called, test: dict[str, Any], said: str) -> None:
    code, out, err = call("verdict", claims(results.parent, {"C1": test}))
    assert (code, out) == (2, "")
    assert err.startswith("patchbench: error: own.yaml, line 1: claims.C1.test: ")
    assert said in err


def test_rows_on_other_texts_are_not_compared(results: Path, call: Called) -> None:
    records.write(results, make_record("hnet", 0, documents=50, changes={"suite": "quick"}))
    code, _, err = call("verdict", claims(results.parent, {"C1": difference("hnet")}))
    assert code == 2
    assert "cannot be compared: data.fingerprint is" in err


def test_a_folder_without_records_has_no_verdicts(tmp_path: Path, call: Called) -> None:
    code, out, _ = call("verdict", "paper", "--results", str(tmp_path), "--format", "yaml")
    assert code == 0
    assert set(yaml.safe_load(out).values()) == {"no records"}


# --- formats


TESTS = {
    "C1": difference("entropy"),
    "C2": difference("whitespace"),
    "C3": difference("bpe"),
    "C4": difference("token_lm"),
}


@pytest.mark.parametrize("format", ["terminal", "md", "latex", "html"])
def test_every_format_has_all_that_a_reader_needs(results: Path, call: Called, format: str) -> None:
    code, out, err = call("verdict", claims(results.parent, TESTS), "--format", format)
    assert (code, err) == (0, "")
    words = " ".join(out.replace("\\_", "_").replace("\\`", "`").split())
    for said in ("supported", "refuted", "undecided", "no records", "61.1 (8B parameters)", "C1 is so."):
        assert said in words
    assert "patchbench run quick --results" in words
    assert re.search(r"(\$-\$|-)0\.0\d\d", words)
    assert "6 records of quick" in words


def test_json_has_every_digit_and_the_names_of_the_records(results: Path, call: Called) -> None:
    _, out, _ = call("verdict", claims(results.parent, TESTS), "--format", "json")
    read = json.loads(out)
    first, last = read["verdicts"][0], read["verdicts"][3]
    assert read["claims"] == "own"
    assert first["verdict"] == first["uncorrected"] == "supported"
    assert first["p"] <= first["p_holm"] <= 0.05
    [condition] = first["conditions"]
    assert condition["low"] < condition["value"] < condition["high"] < condition["at_most"]
    assert len(first["records"]) == 6
    assert all((results / "quick" / "runs" / f"{name}.json").exists() for name in first["records"])
    assert first["scale"].startswith("923k non-embedding parameters, 1.64MB read; wiki-en, ")
    assert (last["verdict"], last["conditions"], last["scale"]) == ("no records", [], None)


# --- expectations


def test_a_finding_can_be_guarded(results: Path, call: Called) -> None:
    own = claims(results.parent, TESTS)
    guard = results.parent / "findings.yaml"
    guard.write_text(call("verdict", own, "--format", "yaml")[1])
    assert yaml.safe_load(guard.read_text()) == {
        "C1": "supported",
        "C2": "refuted",
        "C3": "undecided",
        "C4": "no records",
    }
    assert call("verdict", own, "--expect", str(guard))[0] == 0
    for seed in range(3):
        [old] = (results / "quick" / "runs").glob(f"entropy-s{seed}-*.json")
        old.unlink()
        records.write(results, make_record("entropy", seed, bpb=2.31))
    code, out, err = call("verdict", own, "--expect", str(guard))
    assert code == 1
    assert err == "patchbench: C1: expected supported, found refuted\n"
    assert "refuted" in out, "the table is printed all the same"
    guard.write_text("C2: refuted\n")
    assert call("verdict", own, "--expect", str(guard))[0] == 0, "of the others nothing is expected"


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (
            "C1: suported\n",
            "line 1: C1: wanted one of supported, refuted, undecided, no records, got 'suported', did you",
        ),
        ("C9: refuted\n", "a verdict is expected of 'C9', which is no claim here, did you mean 'C"),
        ("", "wanted a line `ID: verdict` for each claim"),
        ("- C1\n", "wanted a line `ID: verdict` for each claim"),
        (None, "`patchbench verdict --format yaml` writes such a file"),
    ],
)
def test_what_cannot_be_expected(results: Path, call: Called, expected: str | None, said: str) -> None:
    guard = results.parent / "findings.yaml"
    if expected is not None:
        guard.write_text(expected)
    code, _, err = call("verdict", claims(results.parent, TESTS), "--expect", str(guard))
    assert code == 2
    assert said in err


# --- with the records that are kept


def test_the_paper_is_judged_by_the_records_that_are_kept(call: Called) -> None:
    code, out, err = call("verdict", "--results", str(ROOT / "results"), "--format", "json")
    assert (code, err) == (0, "")
    verdicts = json.loads(out)["verdicts"]
    assert [one["id"] for one in verdicts] == [f"C{number}" for number in range(1, 14)]
    for one in verdicts:
        assert one["verdict"] in SAID
        assert one["published"]["figure"]
        if one["verdict"] == "no records":
            assert "`patchbench run " in one["why"]
            continue
        assert one["records"]
        assert one["scale"]
        for condition in one["conditions"]:
            assert condition["low"] < condition["value"] < condition["high"], one["id"]
        if one["verdict"] == "undecided":
            assert one["need"] or one["why"]


def test_the_report_has_a_section_of_verdicts(results: Path, call: Called) -> None:
    own = claims(results.parent, TESTS)
    page = results.parent / "report.html"
    assert call("report", "quick", "--claims", own, "-o", str(page))[0] == 0
    text = page.read_text(encoding="utf-8")
    assert '<section class="suite" id="claims"' in text
    assert "Of 4 claims: <strong>1</strong> supported, <strong>1</strong> refuted" in text
    assert '<a href="#claims">claims</a>' in text
    assert call("report", "quick", "--claims", claims(results.parent, {"C4": TESTS["C4"]}), "-o", str(page))[0] == 0
    assert 'id="claims"' not in page.read_text(encoding="utf-8"), "nothing to say"
