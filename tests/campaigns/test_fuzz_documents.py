"""Random documents for every patcher; and the campaign itself, which must see every broken rule."""

from __future__ import annotations

import random

import broken_patchers
import pytest
from patcher_cases import CASES, LABELS, fitted, texts

from campaigns.documents import broken, campaign, document
from patchers import Patcher, create

DOCS = [document(random.Random(i), [b"some words; some more words\n" * 9]) for i in range(60)]


@pytest.mark.parametrize(
    ("patcher", "rule"),
    [
        (broken_patchers.ReadsNext(), "causality"),
        (broken_patchers.StartsAtSpace(), "causality"),
        (broken_patchers.BatchDependent(), "alone as in a batch"),
        (broken_patchers.NonDeterministic(), "alone as in a batch"),
        (broken_patchers.WrongLength(), "shape"),
        (broken_patchers.Mutates(), "input"),
    ],
)
def test_a_broken_rule_is_seen(patcher: Patcher, rule: str) -> None:
    docs = [bytes(bytearray(doc)) for doc in DOCS if len(doc) > 1]  # one writes into them; shorter ones Python shares
    assert rule in [found.partition(":")[0] for found in broken(patcher, docs, random.Random(0))]


def test_documents_are_of_all_kinds() -> None:
    rng = random.Random(1)
    docs = [document(rng, [b"plain text, as it is written"]) for _ in range(400)]
    assert min(map(len, docs)) == 0
    assert {len(doc) for doc in docs} >= {0, 1, 2, 3}
    assert any(b"plain" in doc for doc in docs)
    assert any(b"\x00" in doc for doc in docs)
    assert len({*docs}) > 250


def test_sound_patchers_pass() -> None:
    for name in ("stride", "whitespace", "words"):
        assert campaign(create(name), [b"some words"], 100, seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)), ids=LABELS)
def test_ten_thousand_documents(case: int) -> None:
    assert campaign(fitted(case), texts()[1], 10_000, seed=1) == []
