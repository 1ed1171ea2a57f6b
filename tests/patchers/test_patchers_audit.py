"""The audit catches what it is there for: one broken patcher for each rule."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from patcher_cases import texts
from tiny import TEXT

import patchers
from patchers import BenchError, Patcher, Starts, registry
from patchers.audit import (
    audit,
    check_calibration,
    check_causality,
    check_long_runs,
    check_saving,
    check_stream,
)
from patchers.audit_at_scale import check_costs, checks_at_scale
from patchers.base import ClockStream
from patchers.costs import measured
from patchers.finding import Finding

BROKEN = Path(__file__).resolve().parents[1] / "broken_patchers.py"


@pytest.fixture(autouse=True)
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[str, str]]]:
    patchers.names()  # so that ours are there, which are imported when they are first asked for
    monkeypatch.setattr(registry.PATCHERS, "classes", dict(registry.PATCHERS.classes))
    module = patchers.load_plugin(BROKEN)
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Patcher) and value.name:
            registry.PATCHERS.classes[value.name] = value
    return module.CAUGHT


def failed(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.detail for finding in findings if not finding.passed}


@pytest.mark.parametrize(
    "name",
    [
        "broken_reads_next",
        "broken_starts_at_space",
        "broken_batch",
        "broken_nondeterministic",
        "broken_length",
        "broken_mutates",
        "broken_crowd",
        "broken_far",
        "broken_negative",
        "broken_nan",
        "broken_modest",
        "broken_tired",
        "broken_long_alone",
        "broken_learns_by_itself",
        "broken_buffer",
        "broken_remembers",
        "broken_fickle_cost",
        "broken_training_cost",
        "broken_memory",
    ],
)
def test_each_broken_patcher_is_caught_in_the_right_words(
    name: str, broken: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN_PATCHERS_PARENT", str(os.getpid()))
    check, words = broken[name]
    docs = texts()[1][:20]
    # (one changes after so many calls that the streams of the short checks, which are recomputed, would see it)
    short = {} if name == "broken_tired" else failed(audit(patchers.create(name), docs, quick=True))
    at_scale = {rule for rule, _ in checks_at_scale(patchers.create(name), docs, 0)}
    if check in at_scale:
        assert short == {}, "the short checks call it sound"
        rules = dict(checks_at_scale(patchers.create(name), docs, 0))
        found = failed([rules[check]()])
    else:
        found = short
    assert check in found
    assert words in found[check]


def test_work_in_another_process_is_seen() -> None:
    """Its time is not this process's own."""

    class Delegates(Patcher):
        name = "delegates"

        def segment(self, data: bytes) -> Starts:
            subprocess.run([sys.executable, "-S", "-c", "sum(range(20_000_000))"], check=True)
            return np.arange(len(data)) % 4 == 0

    doubt = measured(Delegates(), [TEXT * (4000 // len(TEXT))] * 2).doubt
    assert doubt is not None
    assert "claims 0 FLOPs a byte and takes" in doubt


def test_all_rules_are_looked_at_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    findings = audit(patchers.create("whitespace"), texts()[1][:20], say=told.append)
    assert failed(findings) == {}
    assert told == [finding.name for finding in findings][2:]
    assert told[-5:] == ["costs", "large batches", "long documents", "many calls", "fresh process"]


@pytest.mark.parametrize("name", ["none", "bytes", "stride", "random", "words", "codepoint", "lz"])
def test_rules_are_sound_at_scale(name: str) -> None:
    found = [check() for _, check in checks_at_scale(patchers.create(name), texts()[1][:20], 0, seconds=2.0)]
    assert failed(found) == {}


def test_a_slow_plug_in_that_claims_nothing_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It burns a matrix product a byte with numpy, which nobody counts; time shows it."""

    class Burns(Patcher):
        name = "burns"

        def segment(self, data: bytes) -> Starts:
            a = np.ones((256, 256), np.float32)
            for _ in data:
                a @ a
            starts = np.zeros(len(data), bool)
            starts[::4] = True
            return starts

        def flops_per_byte(self) -> float:
            return 0.0

    cost = measured(Burns(), [b"some text of no great length"] * 20)
    assert cost.counted is None
    assert cost.implied > 1e6
    assert cost.doubt is not None
    assert cost.doubt.startswith("cost not verified: it claims 0 FLOPs a byte and takes")
    finding = check_costs(Burns(), [b"some text of no great length"] * 20)
    assert finding.passed, "slow code is not unsound"
    assert "cost not verified" in finding.detail


def test_a_cheap_plug_in_is_believed() -> None:
    class Cheap(Patcher):
        name = "cheap"

        def segment(self, data: bytes) -> Starts:
            starts = np.zeros(len(data), bool)
            starts[::4] = True
            return starts

    assert measured(Cheap(), [TEXT * 1000]).doubt is None


def test_the_plain_prefix_test_is_too_weak() -> None:
    """The patcher that starts at the space passes it; the audit's suffixes catch it, and give the counter-example."""
    patcher, docs = patchers.create("broken_starts_at_space"), texts()[1][:5]
    for doc in docs:
        for t in range(0, len(doc), 7):
            assert np.array_equal(patcher.segment(doc[:t]), patcher.segment(doc)[:t])
    finding = check_causality(patcher, docs, np.random.default_rng(0))
    assert not finding.passed
    assert "is True in one and False in the other" in finding.detail or "is False in one and True" in finding.detail
    assert "two texts that share their first" in finding.detail
    assert "|" in finding.detail
    example = finding.example
    assert example is not None
    assert example.position is not None
    shared = example.position
    assert example.texts[0][:shared] == example.texts[1][:shared]
    assert [bool(starts[shared]) for starts in example.cuts] in ([True, False], [False, True])


def test_one_place_in_a_thousand_is_found() -> None:
    """A leak that shows only beside rare bytes."""

    class Rare(Patcher):
        def segment(self, data: bytes) -> Starts:
            starts = np.frombuffer(data, dtype=np.uint8) == ord("Q")
            starts[:1] = True
            return starts

    docs = [(b"x" * 300 + b"Q" + b"y" * 700) for _ in range(5)]
    assert not check_causality(Rare(), docs, np.random.default_rng(0)).passed


def test_a_sound_patcher_passes_everything() -> None:
    for name in ("whitespace", "lz", "words"):
        assert failed(audit(patchers.create(name), texts()[1][:20], quick=True)) == {}


def test_priced_patchers_need_not_be_causal_but_must_not_stream() -> None:
    bpe = patchers.create("bpe", encoding="cl100k_base")
    assert "predicted and paid for" in check_causality(bpe, [b"some text"], np.random.default_rng(0)).detail
    assert check_stream(bpe, [b"some text"]).passed

    class Streams(Patcher):
        causal: ClassVar[bool] = False

        def segment(self, data: bytes) -> Starts:
            return np.ones(len(data), dtype=bool)

        def stream(self) -> patchers.Stream:
            return patchers.create("bytes").stream()

    finding = check_stream(Streams(), [b"some text"])
    assert not finding.passed
    assert "yet it offers a stream" in finding.detail


def test_an_exception_is_a_finding() -> None:
    class Raises(Patcher):
        def segment(self, data: bytes) -> Starts:
            starts = np.ones(len(data), dtype=bool)
            starts[5] = False
            return starts

    (finding, *_) = [f for f in audit(Raises(), [b"a longer text"]) if not f.passed]
    assert "it raised IndexError" in finding.detail


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda n: [True] * n, "it returned a list"),
        (lambda n: np.ones(n, dtype=np.int64), "an array of int64"),
        (lambda n: np.ones((n, 1), dtype=bool), "an array of shape"),
        (lambda n: np.zeros(n, dtype=bool), "byte 0 must start a patch"),
    ],
)
def test_malformed_starts(returned, words: str) -> None:  # type: ignore[no-untyped-def]
    class Malformed(Patcher):
        def segment(self, data: bytes) -> Starts:
            return returned(len(data))

    found = failed(audit(Malformed(), [b"some text"]))
    assert words in found["shape"]
    assert len(found) == 1  # nothing else is said of it


def test_a_list_that_is_sorted_in_place_is_seen() -> None:
    class Sorts(Patcher):
        def segment(self, data: bytes) -> Starts:
            return np.ones(len(data), dtype=bool)

        def segment_many(self, docs: Sequence[bytes]) -> list[Starts]:
            assert isinstance(docs, list)
            docs.sort()
            return [self.segment(doc) for doc in docs]

    assert "the list of documents is another one" in failed(audit(Sorts(), [b"some text"]))["input"]


def test_a_stream_that_disagrees_is_shown() -> None:
    class Late(Patcher):
        def segment(self, data: bytes) -> Starts:
            return np.ones(len(data), dtype=bool)

        def stream(self) -> patchers.Stream:
            return patchers.create("stride", stride=2).stream()

    finding = check_stream(Late(), [b"some text"])
    assert "disagrees with segment: it cut '|s|o|m|e" in finding.detail
    assert finding.example is not None
    assert finding.example.texts == (b"some text", b"some text")
    assert finding.example.position == 1
    assert finding.example.as_json()["cuts"] == [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 2, 4, 6, 8]]


def test_a_stream_that_forgets_what_it_was_primed_with_is_shown() -> None:
    class Forgetful(ClockStream):
        def prime(self, data: bytes) -> Starts:
            starts = super().prime(data)
            self._position = 0
            return starts

    class Primed(Patcher):
        def segment(self, data: bytes) -> Starts:
            return np.arange(len(data)) % 4 == 0

        def stream(self) -> patchers.Stream:
            return Forgetful(self)

    finding = check_stream(Primed(), [b"some more text"])
    assert not finding.passed
    assert "disagrees with segment once it is primed with 7 bytes" in finding.detail


def test_a_stream_is_a_stream() -> None:
    class Duck(Patcher):
        def segment(self, data: bytes) -> Starts:
            return np.ones(len(data), dtype=bool)

        def stream(self) -> Any:
            return iter(())

    assert "must return a patchers.Stream, it gave a tuple_iterator" in check_stream(Duck(), [b"a"]).detail


def test_a_knob_that_misses_is_seen() -> None:
    @patchers.register("broken_knob")
    class Misses(Patcher):
        knob: ClassVar[str | None] = "size"
        size: int = 4

        def segment(self, data: bytes) -> Starts:
            return np.arange(len(data)) % self.size == 0

        def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
            return type(self)(size=round(1.1 * bytes_per_patch))

    finding = check_calibration(Misses(), [b"x" * 1000], [10.0])
    assert not finding.passed
    assert "asked for 10 bytes a patch, 'size' gave 10.99" in finding.detail
    with pytest.raises(BenchError, match="does not say how to set it: override calibrate"):
        Patcher.calibrate(Misses(), [b"x"], 3.0)


def test_state_that_is_not_saved_is_seen() -> None:
    @patchers.register("broken_saving")
    class Forgets(Patcher):
        size: int = 3

        def segment(self, data: bytes) -> Starts:
            return np.arange(len(data)) % vars(self).get("hidden", 5) == 0

    forgets = Forgets()
    object.__setattr__(forgets, "hidden", 2)
    assert "after saving and loading it cut" in check_saving(forgets, [b"some text"]).detail


def test_quadratic_time_is_seen() -> None:
    class Quadratic(Patcher):
        def segment(self, data: bytes) -> Starts:
            until = time.process_time() + 0.02 * (len(data) / 1000) ** 2
            while time.process_time() < until:
                pass
            return np.ones(len(data), dtype=bool)

    finding = check_long_runs(Quadratic(), size=1000)
    assert not finding.passed
    assert "grows faster than the text" in finding.detail
