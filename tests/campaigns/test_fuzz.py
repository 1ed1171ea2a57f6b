"""Suite files and command lines that are wrong in every way: one line and exit code 2, no traceback, no hanging."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.listing import LISTS
from campaigns import fuzz
from campaigns.fuzz import Case, Sandbox
from patchers.errors import BenchError


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with fuzz.sandbox(trained=False) as made:
        yield made


@settings(max_examples=100, derandomize=True, database=None)
@given(number=st.integers(0, 10**9))
def test_whatever_is_wrong_is_one_line_and_exit_code_2(box: Sandbox, number: int) -> None:
    case = box.case(0, number)
    outcome = box.run(case)
    assert outcome.wrong is None, f"{outcome.wrong}\n{case.told()}\n{outcome.detail}"


@pytest.mark.slow
def test_five_thousand_cases_on_a_suite_that_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--cases", "5000", "--seed", "1", "--trained"])
    monkeypatch.setattr(fuzz, "_limit_memory", lambda: None)  # it could not be taken back
    assert fuzz.main() == 0


# --- the campaign itself


def test_a_case_comes_out_again_from_its_number(box: Sandbox) -> None:
    cases = [box.case(3, number) for number in range(40)]
    random.seed(99)  # nothing is drawn from anywhere else
    assert [box.case(3, number) for number in range(40)] == cases
    assert len({*cases}) > 30
    assert {case.suite == b"" for case in cases} == {True, False}


def test_what_it_looks_for_is_seen(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: BaseException) -> object:
        def instead(*_: object, **__: object) -> None:
            raise error

        return instead

    case = Case(("list", "patchers"))
    assert box.run(case) == fuzz.Outcome(0)
    assert box.run(Case(("list", "pears"))).code == 2
    for error, said in (
        (RuntimeError("x"), "RuntimeError in "),
        (BenchError(" "), "exit code 2 with 1 lines"),
        (KeyboardInterrupt(), "exit code 130"),
        (SystemExit(0), "SystemExit in "),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(LISTS, "patchers", raises(error))
            assert said in (box.run(case).wrong or ""), error
    with monkeypatch.context() as patch:
        patch.setattr(fuzz, "SECONDS", 0.2)
        patch.setitem(LISTS, "patchers", lambda: [0 for _ in iter(int, 1)])
        assert "too slow" in (box.run(case).wrong or "")


def test_what_fails_is_made_small(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(case: Case, *_: object) -> fuzz.Outcome:
        return fuzz.Outcome(2, "odd" if b"pool" in case.suite and "fuzzed.yaml" in case.args else None)

    monkeypatch.setattr(fuzz, "_judged", judged)
    case = Case(("table", "fuzzed.yaml", "train.lr=x", "seeds=[0]"), b"a: 1\nb: 2\nmodel: {pool: x}\nc: 3\n")
    assert box.smallest(case, "odd") == Case(("table", "fuzzed.yaml"), b"model: {pool: x}\n")
