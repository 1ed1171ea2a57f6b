"""The noise task: its measures on models whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from asking import Told, material

from bench.data.config import Document
from bench.evaluation.byte_model import CutModel, Scores
from bench.evaluation.multiple_choice import ChoiceSource
from bench.evaluation.noise import NONE, OPERATORS, Noised
from bench.evaluation.noise.boundaries import agreement, encoded
from bench.evaluation.tasks import Noise, TaskNotPossible
from bench.evaluation.tasks.noise_measures import parted
from patchers import create
from patchers.errors import BenchError

WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "goes", "home", "where"),
    *("their", "friends", "wait", "until", "it", "is", "dark"),
)


def documents(count: int = 6, words: int = 60) -> list[Document]:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, words)) for _ in range(count)]
    return [Document(f"{n:016x}", text.encode(), topic="all") for n, text in enumerate(texts)]


SMALL: dict[str, Any] = {"documents": 4, "level_documents": 3, "items": 5, "levels": (0.1,)}


def rate(metric: Any) -> float:
    return float(metric.value)


# --- models that know nothing, and models that know what matters


def test_noise_costs_a_uniform_model_nothing() -> None:
    out = Noise(**SMALL).run(Told(per_byte=8 * math.log(2)), material(documents()))
    for name, metric in out.metrics.items():
        if name.startswith("after"):
            assert all(total == 0 for _, total, _ in metric.documents), name
            assert len(metric.documents) == 4
    assert rate(out.metrics["on_0"]) == pytest.approx(8)
    assert {n: v for n, v in out.values.items() if n.endswith("_noisy")} == pytest.approx(
        {n: 8 for n in out.values if n.endswith("_noisy")}
    )
    assert out.values["on_ant_speak"] > 15 > out.values["on_drop_10"] / 8 * 9.5 > 8
    assert "cut" not in out.metrics, "it cuts nothing"
    assert out.metrics["choice"].lower_is_better is False
    assert out.metrics["after"].lower_is_better is True


class Upset(Told):
    """One bit a byte, and one more for each capital letter that stood before it."""

    def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
        capitals = [np.cumsum([65 <= b <= 90 for b in d]) for d in docs]
        return Scores([math.log(2) * (1 + np.concatenate(([0], c[:-1]))) for c in capitals], None)


def test_what_follows_noise_pays_for_it() -> None:
    noise = Noise(measures=("after",), operators=("upper_case", "repeat"), documents=3)
    texts = parted(documents(), 128, 64, 3)
    out = noise.run(Upset(), material(documents()))
    letters = [sum(c.isalpha() for c in t.first) for t in texts]
    expected = [(t.id, n * len(t.second), len(t.second)) for t, n in zip(texts, letters, strict=True)]
    upper: Any = out.metrics["after_upper_case"].documents
    assert upper == [(i, pytest.approx(b, rel=1e-5), c) for i, b, c in expected]
    assert rate(out.metrics["after_repeat"]) == 0
    both: Any = out.metrics["after"].documents
    assert [(b, c) for _, b, c in both] == [(pytest.approx(b, rel=1e-5), 2 * c) for _, b, c in expected]


def test_bits_on_noisy_text_over_clean_and_over_noisy_bytes() -> None:
    noise = Noise(measures=("on",), operators=("ant_speak", "drop", "repeat"), levels=(0.2, 0.025), level_documents=3)
    texts = parted(documents(), 128, 64, 3)
    out = noise.run(Told(), material(documents()))  # one bit a byte
    clean = sum(len(t.text) for t in texts)
    assert set(out.metrics) == {"on_0", "on_2_5", "on_20"}
    assert out.values["on_ant_speak"] == pytest.approx(sum(2 * len(t.text) - 1 for t in texts) / clean, rel=1e-5)
    assert out.values["on_ant_speak_noisy"] == 1
    dropped = sum(len(OPERATORS["drop"](t.text, 0.2).text) for t in texts)
    repeated = sum(len(OPERATORS["repeat"](t.text, 0.2).text) for t in texts)
    assert out.values["on_drop_20"] == pytest.approx(dropped / clean, rel=1e-5)
    assert rate(out.metrics["on_20"]) == pytest.approx((dropped + repeated) / (2 * clean), rel=1e-5)


class Knows(Told):
    """Finds bytes of a text less surprising when they stood in it before: what a context is good for."""

    def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
        return Scores([np.array([1.0 if d[t : t + 6] in d[:t] else 5.0 for t in range(len(d))]) for d in docs], None)


def test_multiple_choice_by_gain_and_per_byte(tmp_path: Any) -> None:
    path = tmp_path / "items.txt"
    # The right choice repeats the context; a wrong one repeats itself, which makes it cheap wherever it stands.
    item = f"abcdefgh ijklmnop\n1\n{'xy' * 100}\nabcdefgh ijk\nqwertzuiop\nmnbvcxasdf\n"
    path.write_text(item + item.replace("abcdefgh", "stuvwxyz"))
    source = ChoiceSource(file=str(path))
    expected: Any = (("gain", 1.0), ("per_byte", 0.0), (None, 0.0))
    for score, accuracy in expected:
        noise = Noise(measures=("choice",), choices=source, score=score)
        out = noise.run(Knows(), material(documents()))
        assert rate(out.metrics["choice"]) == accuracy, score
    out = Noise(measures=("choice",), choices=source, score="gain").run(Knows(), material(documents()))
    assert len([n for n in out.values if n.startswith("choice_")]) == 15
    # What was capital is not found again; with both in capitals it is.
    assert out.values["choice_upper_case_prompt"] == 0
    assert out.values["choice_upper_case_both"] == 100
    assert out.values["change_upper_case_prompt"] == -100
    assert out.values["robustness_upper_case_prompt"] == pytest.approx(-100 / 3)
    places = [n for n in out.values if n.startswith("choice_") and n.endswith("_both")]
    assert 100 * rate(out.metrics["choice_both"]) == pytest.approx(np.mean([out.values[n] for n in places]))
    every = [v for n, v in out.values.items() if n.startswith("choice_")]
    assert out.values["robustness"] == pytest.approx(100 * (np.mean(every) - 25) / 75)


def test_the_cut_of_a_rule_is_stable_where_noise_does_not_touch_it() -> None:
    model = CutModel(torch_nothing(), create("whitespace"), 1024)
    noise = Noise(measures=("cut",), operators=("upper_case", "ant_speak", "drop"), documents=4)
    out = noise.run(model, material(documents()))
    assert out.values["cut_upper_case"] == 1
    assert out.values["cut_ant_speak"] == 0, "a cut at each letter, and between words at the space that stood there"
    assert 0.5 < out.values["cut_drop"] < 1
    assert out.metrics["cut"].lower_is_better is False
    assert 0 < rate(out.metrics["cut"]) < 1


def torch_nothing() -> Any:
    from torch import nn

    return nn.Identity()


# --- alignment of cuts


def starts(size: int, *at: int) -> np.ndarray:
    out = np.zeros(size, dtype=bool)
    out[[0, *at]] = True
    return out


def test_agreement_by_hand() -> None:
    same = Noised("abcdef", np.arange(6))
    assert agreement("abcdef", starts(6, 2, 4), same, starts(6, 2, 5)) == (2, 4)
    dropped = Noised("abdef", np.array([0, 1, 3, 4, 5]))  # c is gone, and the boundary before it
    assert agreement("abcdef", starts(6, 2, 4), dropped, starts(5, 3)) == (2, 3)
    repeated = Noised("abbbc", np.array([0, 1, 1, 1, 2]))  # each b may start; it counts once
    assert agreement("abc", starts(3, 1), repeated, starts(5, 1, 2)) == (2, 3)
    spaced = Noised("A B", np.array([0, NONE, 1]))
    assert agreement("ab", starts(2, 1), spaced, starts(3, 1, 2)) == (2, 3)
    swapped = Noised("ba", np.array([1, 0]))
    assert agreement("ab", starts(2, 1), swapped, starts(2, 1)) == (0, 2)


def test_agreement_counts_bytes_not_characters() -> None:
    clean = "aéb"  # bytes: a, é é, b
    same = Noised(clean, np.arange(3))
    assert agreement(clean, starts(4, 2), same, starts(4, 2)) == (2, 2), "inside a character"
    assert agreement(clean, starts(4, 3), Noised("Éb", np.array([1, 2])), starts(3, 2)) == (2, 2)
    assert agreement("", np.zeros(0, bool), Noised("", np.zeros(0, np.int64)), np.zeros(0, bool)) == (0, 0)


# --- texts, and what cannot be done


def test_parts_meet_before_a_word() -> None:
    some = [Document("a", b"too short"), *documents(), Document("b", "東京".encode() * 60), Document("c", b"\xff" * 99)]
    found = parted(some, 64, 48, 9)
    assert [h.id for h in found] == [*(d.id for d in documents()), "b", "c"]
    by_id = {d.id: d.data for d in some}
    for h in found:
        assert encoded(h.text) == by_id[h.id][: len(encoded(h.text))]
        assert len(h.first) <= 64
        assert len(h.second) <= 48
    for h in found[:-2]:
        assert h.second[0] == " "
        assert h.second[1].isalnum()
        assert not h.first.endswith(" ")
    assert parted(some, 64, 48, 2) == found[:2]


def test_what_cannot_be_done_is_one_sentence(tmp_path: Any) -> None:
    with pytest.raises(TaskNotPossible, match="this model cuts nothing, so there is no cut to be stable"):
        Noise(measures=("cut",)).run(Told(), material(documents()))
    with pytest.raises(BenchError, match="noise needs test documents of about 64 characters or more; there is none"):
        Noise(measures=("after",)).run(Told(), material([Document("a", b"short")]))
    with pytest.raises(BenchError, match=r"cannot read .*missing\.txt"):
        Noise(choices=ChoiceSource(file=str(tmp_path / "missing.txt"))).run(Told(), material(documents()))


def test_a_cut_without_a_boundary_has_no_stability() -> None:
    found = Noise(**SMALL).run(Told(every=10**6), material(documents()))
    assert not [name for name in (*found.metrics, *found.values) if name.startswith("cut")]
    assert found.metrics["after"].documents


def test_the_record_says_what_the_noise_was() -> None:
    notes = Noise(**SMALL).run(Told(every=3), material(documents())).notes
    assert set(notes["operators"]) == set(OPERATORS)
    assert notes["operators"]["drop"] == "each character is left out with a chance of `level`; 0.1 in tables"
    assert (notes["documents"], notes["items"]) == (4, 5)
