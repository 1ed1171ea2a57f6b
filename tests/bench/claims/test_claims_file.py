"""Files of claims: strict, with the line of what is wrong; and those that ship."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.claims.config import load_claims, shipped_claims
from bench.claims.predicates import Crossing, Difference, Predicate
from bench.suites.config import load_suite
from patchers.errors import BenchError

SOURCE = {"paper": "Somebody 2024", "where": "table 1", "arxiv": "2412.09871", "figure": "61.1", "scale": "8B"}
TEST = {"name": "difference", "suite": "quick", "row": "entropy", "reference": "stride", "at_most": -0.01}


def write(folder: Path, **changes: Any) -> str:
    claim = {"claim": "Entropy is better.", "source": SOURCE, "test": TEST, **changes}
    claim = {key: value for key, value in claim.items() if value is not None}
    path = folder / "claims.yaml"
    path.write_text(json.dumps({"claims": {"C1": claim}}, indent=1), encoding="utf-8")
    return str(path)


def test_a_claim_is_read(tmp_path: Path) -> None:
    loaded = load_claims(write(tmp_path, test=[TEST, {**TEST, "reference": "random"}], reading="better by the margin"))
    [claim] = loaded.claims
    assert claim.tests[0] == Difference("entropy", "stride", suite="quick", at_most=-0.01)
    assert [type(test) for test in claim.tests] == [Difference, Difference]
    assert (claim.id, claim.claim, claim.reading) == ("C1", "Entropy is better.", "better by the margin")
    assert claim.source.figure == "61.1"


def test_a_paper_may_give_no_figure(tmp_path: Path) -> None:
    source = {"paper": "Somebody 2024", "where": "figure 6"}
    assert load_claims(write(tmp_path, source=source)).claims[0].source.figure == "no figure is given"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"claim": " "}, r"line 4: claims\.C1\.claim: nothing stands here"),
        ({"claim": None}, r"claims\.C1: missing key 'claim'"),
        ({"source": {**SOURCE, "wher": "x"}}, r"claims\.C1\.source\.wher: unknown key, did you mean 'where'\?"),
        ({"source": {"paper": "x"}}, r"claims\.C1\.source: missing key 'where'"),
        (
            {"test": {**TEST, "name": "diference"}},
            r"test\.name: unknown predicate 'diference', did you mean 'difference'",
        ),
        (
            {"test": {"suite": "quick"}},
            r"test\.name: wanted a predicate's name, got None; there are: contrast, crossing",
        ),
        ({"test": {**TEST, "referenc": "x"}}, r"test\.referenc: unknown key, did you mean 'reference'"),
        ({"test": {**TEST, "at_most": "low"}}, r"test\.at_most: wanted a number, got \"low\""),
        ({"test": {k: v for k, v in TEST.items() if k != "at_most"}}, r"test: a margin is fixed beforehand"),
        ({"test": []}, r"claims\.C1\.test: "),
        ({"needs": {**TEST, "row": 3}}, r"claims\.C1\.needs\.row: wanted text, got 3"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=r"claims\.yaml, line \d+: ") as error:
        load_claims(write(tmp_path, **changes))
    assert re.search(said, str(error.value)), str(error.value)


def test_files_are_found_by_path_or_by_name(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"unknown claims 'papr', did you mean 'paper'\?; there are: paper"):
        load_claims("papr")
    with pytest.raises(BenchError, match=r"no claims at .*nothing\.yaml"):
        load_claims(str(tmp_path / "nothing.yaml"))


def test_a_plug_in_of_the_file_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "from bench.claims import Numbers, Quantity, register_predicate\n\n"
        "@register_predicate('half-of-it')\n"
        "class Half(Quantity):\n"
        "    row: str = ''\n\n"
        "    def value(self, of: Numbers):\n"
        "        return of.metric(self.row) / 2\n",
        encoding="utf-8",
    )
    test = {"name": "half-of-it", "suite": "quick", "row": "stride", "at_most": 2}
    path = Path(write(tmp_path, test=test))
    path.write_text(
        path.read_text().replace("{\n", '{"plugins": [' + json.dumps(str(tmp_path / "half.py")) + "],\n", 1)
    )
    [claim] = load_claims(str(path)).claims
    assert claim.tests[0].name == "half-of-it"
    missing = path.read_text().replace("half.py", "gone.py")
    path.write_text(missing)
    with pytest.raises(BenchError, match=r"plugins\.0: no plug-in file at"):
        load_claims(str(path))


# --- those that ship


def rows_of(predicate: Predicate) -> list[str]:
    """The labels that a built-in predicate names."""
    if isinstance(predicate, Crossing):
        return [*predicate.rows, *predicate.references]
    named = [getattr(predicate, key, None) for key in ("row", "reference")]
    return [*(name for name in named if name is not None), *getattr(predicate, "weights", ())]


@pytest.mark.parametrize("name", sorted(shipped_claims()))
def test_claims_that_ship_name_rows_that_their_suites_have(name: str) -> None:
    loaded = load_claims(name)
    predicates = [predicate for claim in loaded.claims for predicate in (*claim.tests, claim.needs) if predicate]
    for predicate in predicates:
        suite = load_suite(predicate.suite)
        for row in rows_of(predicate):
            assert suite.row(row)
    assert {type(predicate).name for predicate in predicates} >= {
        "difference",
        "contrast",
        "ratio",
        "crossing",
        "level",
    }
    for suite_name in loaded.spread:
        load_suite(suite_name)


def test_the_paper_has_thirteen_claims_and_margins_that_matter() -> None:
    claims = load_claims("paper").claims
    assert [claim.id for claim in claims] == [f"C{number}" for number in range(1, 14)]
    for claim in claims:
        assert claim.source.where
        assert claim.source.arxiv or claim.source.paper == "patchbench"
        for test in claim.tests:
            if isinstance(test, Difference) and test.metric == "bpb.bpb":
                bounds = [abs(bound) for bound in (test.at_least, test.at_most) if bound is not None]
                assert min(bounds) >= 0.01, "a smaller difference does not matter"


@pytest.mark.parametrize("suite", ["patch_scaling", "hash_ngrams", "decoder_injection", "entropy_models"])
def test_suites_of_claims_have_the_corpus_and_the_settings_of_the_study(suite: str) -> None:
    own, study = load_suite(suite), load_suite("study")
    assert own.data == study.data
    assert 2 <= len(own.rows) <= 4
    theirs = study.row("entropy@8000000")
    for row in own.rows:
        assert row.train.bytes in (2_000_000, 8_000_000)
        assert row.train.window == theirs.train.window
        assert row.train.lr == theirs.train.lr
    if suite != "patch_scaling":
        assert any(row.sizes == theirs.sizes and row.train == theirs.train for row in own.rows), "one is the study's"
