"""From a row to what is trained: patchers fitted once, sizes as wanted, models alike, costs as they are."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny_suite import tiny_suite
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bench.data.config import Data, load
from bench.data.cut_corpus import CutDocuments, cut, training_spans
from bench.data.fitted_patchers import fit_cached
from bench.evaluation.byte_model import CutModel
from bench.suites.config import Suite
from bench.training.cut_audit import audit_cuts
from bench.training.prepare import (
    Prepared,
    after_training,
    flops,
    make_model,
    parameters,
    patcher_summary,
    prepare,
    training_flops,
)
from models.batch import Patches
from models.byte_lm import ByteLMConfig
from models.flops import Shapes, harness_flops
from models.harness import Harness, HarnessConfig
from patchers import Patcher, Starts, register

ROWS: dict[str, dict[str, Any]] = {
    "stride": {"patcher": "stride"},
    "free": {"patcher": {"name": "stride", "stride": 6}, "calibrate": False},
    "whitespace": {"patcher": "whitespace"},
    "bpe": {"patcher": "bpe"},
    "entropy": {"patcher": {"name": "entropy", "model": "ngram"}},
    "tokens": {"model": "token_lm", "patcher": {"name": "bpe", "vocab": 300}, "calibrate": False},
    "bytes": {"model": "byte_lm"},
    "routed": {"patcher": "hnet"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepare")


@pytest.fixture(scope="module")
def suite(place: Path) -> Suite:
    return tiny_suite(place, rows=ROWS)


@pytest.fixture(scope="module")
def data(suite: Suite) -> Data:
    return load(suite.data)


@pytest.fixture(scope="module")
def prepared(suite: Suite, data: Data, place: Path) -> dict[str, Prepared]:
    return {row.label: prepare(suite, row, data, place / "cache", lambda message: None) for row in suite.rows}


# --- patchers


def test_knobs_are_turned_to_the_wanted_size(prepared: dict[str, Prepared]) -> None:
    sizes = {label: p.bytes_per_patch for label, p in prepared.items()}
    for label in ("stride", "bpe", "entropy"):
        assert sizes[label] is not None
        assert sizes[label]["calibration"] == pytest.approx(3.5, rel=0.05)  # type: ignore[index]
        assert sizes[label]["test"] == pytest.approx(3.5, rel=0.15)  # type: ignore[index]
    assert prepared["free"].patcher is not None
    assert prepared["free"].patcher.options()["stride"] == 6
    assert (sizes["bytes"], sizes["routed"]) == (None, None)


def test_sizes_are_those_of_the_cut_text(prepared: dict[str, Prepared], data: Data) -> None:
    for label in ("whitespace", "bpe"):
        p = prepared[label]
        assert p.patcher is not None
        assert p.bytes_per_patch is not None
        for name, split in (("train", data.train), ("calibration", data.calibration), ("test", data.test)):
            starts = [p.patcher.segment(text) for text in split.texts]
            assert p.bytes_per_patch[name] == split.bytes / sum(int(s.sum()) for s in starts)
        assert (p.train.cuts.starts[:] == np.concatenate([p.patcher.segment(t) for t in data.train.texts])).all()


def test_all_rows_can_go_to_the_size_of_one(place: Path, data: Data) -> None:
    suite = tiny_suite(place, "bytes_per_patch=whitespace", rows=ROWS)
    sizes = {}
    for label in ("whitespace", "stride", "bpe"):
        found = prepare(suite, suite.row(label), data, place / "cache", lambda message: None).bytes_per_patch
        assert found is not None
        sizes[label] = found["calibration"]
    assert sizes["whitespace"] == pytest.approx(3.8, rel=0.02)
    assert sizes["stride"] == pytest.approx(sizes["whitespace"], rel=0.02)
    assert sizes["bpe"] == pytest.approx(sizes["whitespace"], rel=0.02)


def test_a_row_can_go_to_a_size_of_its_own(place: Path, data: Data) -> None:
    rows = {**ROWS, "bpe": {"patcher": "bpe", "bytes_per_patch": "whitespace"}}
    suite = tiny_suite(place, rows={**rows, "entropy": {**ROWS["entropy"], "bytes_per_patch": 5}})
    for label, size in {"stride": 3.5, "bpe": 3.8, "entropy": 5}.items():
        found = prepare(suite, suite.row(label), data, place / "cache", lambda message: None).bytes_per_patch
        assert found is not None
        assert found["calibration"] == pytest.approx(size, rel=0.03), label


def test_nothing_is_fitted_or_cut_twice(
    suite: Suite, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = prepare(suite, suite.row("bpe"), data, tmp_path, said.append)
    assert said == ["fitting bpe", "cutting with bpe"]

    def never(*others: Any) -> Any:
        raise AssertionError

    said.clear()
    monkeypatch.setattr("bench.data.segment.cut", never)
    monkeypatch.setattr("patchers.bpe.BPE.fit", never)
    again = prepare(suite, suite.row("bpe"), data, tmp_path, said.append)
    assert said == ["cutting with bpe"]
    assert first.patcher is not None
    assert again.patcher is not None
    assert again.patcher.fingerprint() == first.patcher.fingerprint()
    assert (again.train.cuts.starts[:] == first.train.cuts.starts[:]).all()
    assert again.bytes_per_patch == first.bytes_per_patch


@register("prepare-test-slow")
class Slow(Patcher):
    """While it is fitted, another process wants the same patcher."""

    fits: ClassVar[list[threading.Thread]] = []
    meanwhile: ClassVar[Any] = None

    def segment(self, data: bytes) -> Starts:
        return np.arange(len(data)) == 0

    def fit(self, docs: Any, seed: int = 0) -> Slow:
        Slow.fits.append(threading.Thread(target=Slow.meanwhile))
        Slow.fits[-1].start()
        time.sleep(0.2)
        return self


def test_what_another_process_fits_is_waited_for(data: Data, tmp_path: Path) -> None:
    found = []
    Slow.meanwhile = lambda: found.append(fit_cached(Slow(), data, None, tmp_path, lambda message: None))
    assert fit_cached(Slow(), data, None, tmp_path, lambda message: None) == Slow()
    Slow.fits[0].join(30)
    assert found == [Slow()]
    assert len(Slow.fits) == 1
    kept, lock = sorted((tmp_path / "patchers").iterdir())
    assert lock.suffix == ".lock"
    assert (kept / "patcher.json").exists()


def test_a_damaged_patcher_is_named_and_fitted_again(
    data: Data, suite: Suite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = suite.row("bpe")
    assert row.patcher is not None
    first = fit_cached(row.patcher, data, 3.0, tmp_path, lambda message: None)
    for path in sorted(tmp_path.rglob("*.json")):
        held = bytearray(path.read_bytes())
        held[len(held) // 2] ^= 1
        path.write_bytes(held)
        assert fit_cached(row.patcher, data, 3.0, tmp_path, lambda message: None) == first
        assert f"{path} is damaged" in caplog.messages[-1]


def test_other_settings_are_fitted_anew(suite: Suite, data: Data, tmp_path: Path) -> None:
    row = suite.row("stride")
    assert row.patcher is not None
    for size in (3.0, 4.0, None):
        patcher = fit_cached(row.patcher, data, size, tmp_path, lambda message: None)
        assert patcher.options()["stride"] == pytest.approx(size or 4.0, rel=0.1)
    less = dataclasses.replace(data, calibration=data.test)
    fit_cached(row.patcher, less, 3.0, tmp_path, lambda message: None)
    assert len([path for path in (tmp_path / "patchers").iterdir() if path.is_dir()]) == 4


def test_what_a_record_says_of_the_cut(prepared: dict[str, Prepared], data: Data) -> None:
    summary = patcher_summary(prepared["bpe"])
    patcher = prepared["bpe"].patcher
    assert patcher is not None
    assert summary == {
        "name": "bpe",
        "kind": "fitted",
        "causal": False,
        "priced": prepared["bpe"].row.price,
        "leaky": False,
        "fingerprint": patcher.fingerprint(),
        "options": patcher.options(),
        "learnt_from": {split: getattr(data, split).bytes for split in ("train", "calibration")},
        "bytes_per_patch": prepared["bpe"].bytes_per_patch,
        "test_cut": prepared["bpe"].test_cut,
    }
    sizes, test_cut = prepared["bpe"].bytes_per_patch, prepared["bpe"].test_cut
    assert sizes is not None
    assert test_cut is not None
    assert test_cut["mean"] == pytest.approx(sizes["test"])
    assert patcher.options()["vocab"] != 4096, "the calibrated one, not what was asked for"
    assert patcher_summary(prepared["stride"])["learnt_from"] == {"calibration": data.calibration.bytes}
    nothing = patcher_summary(prepared["bytes"])
    assert (nothing["name"], nothing["causal"], nothing["priced"]) == (None, True, None)


def test_a_model_over_a_tokenizer_that_loses_something_pays_for_every_byte(
    place: Path, data: Data, tmp_path: Path
) -> None:
    """What its tokens do not give back are tokens of single bytes: of equal weights each token costs log2(V) bits."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "tower": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "words.json"))
    patcher = {"name": "tokenizer", "file": str(tmp_path / "words.json")}
    suite = tiny_suite(place, rows={"lossy": {"model": "token_lm", "patcher": patcher}})
    made = prepare(suite, suite.row("lossy"), data, tmp_path / "cache", lambda message: None)
    losses = patcher_summary(made)["losses"]
    assert 0 < losses["changed_share"] < 1
    model = make_model(made.row, made.patcher, 0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    text = b"the Tower, the tower"
    nats = CutModel(model, made.patcher, 64, with_ids=True).nats([text])[0]
    tokens = 1 + len(" Tower,") + len(" ") + 1 + len(" ") + 1
    assert nats.sum() == pytest.approx(tokens * np.log(3 + 256))
    assert np.count_nonzero(nats) == tokens
    starts = CutModel(model, made.patcher, 64, with_ids=True).cuts([b"", text])
    assert starts is not None
    assert [cut.tolist() for cut in starts] == [[], (nats > 0).tolist()]
    audited = audit_cuts(made, data, tmp_path / "cache", 0)
    assert audited is not None
    assert audited.passed, audited.detail


def test_an_in_model_patcher_cuts_after_training(
    prepared: dict[str, Prepared], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepared["routed"]
    model = make_model(before.row, before.patcher, 0)
    after = after_training(before, model, data, lambda message: None)
    assert before.scoring_patcher is None
    assert after.scoring_patcher is None, "the model cuts by itself"
    assert after.patcher is not None
    assert after.bytes_per_patch is not None
    assert after.bytes_per_patch["test"] == CutDocuments.of(
        data.test.texts, cut(after.patcher, data.test.texts)
    ).bytes_per_patch  # fmt: skip
    monkeypatch.setattr("bench.training.prepare.DESCRIBED_BYTES", 1000)
    part = after_training(before, model, data, lambda message: None).train
    assert 1000 <= len(part.data) < 1500, "the beginning of a split says enough"
    same = prepared["stride"]
    assert after_training(same, model, data, lambda message: None) is same


# --- models


def test_models_of_a_seed_begin_alike(prepared: dict[str, Prepared]) -> None:
    def weights(label: str, seed: int) -> dict[str, torch.Tensor]:
        return dict(make_model(prepared[label].row, prepared[label].patcher, seed).named_parameters())

    stride, bpe, other = weights("stride", 3), weights("bpe", 3), weights("stride", 4)
    for name, value in stride.items():
        assert torch.equal(bpe[name][: len(value)], value), name
    assert bpe["head.weight"].shape[0] == 512
    assert not torch.equal(other["head.weight"], stride["head.weight"])


def test_parameters_are_counted_in_three_columns(prepared: dict[str, Prepared]) -> None:
    model = make_model(prepared["stride"].row, prepared["stride"].patcher, 0)
    assert isinstance(model, Harness)
    assert model.ngrams is not None
    counted = parameters(model)
    assert model.patch_state is not None
    looked_up = [model.byte, model.ngrams.table, *model.patch_state.parameters()]
    assert {tuple(p.shape) for p in looked_up} == {(257, 16), (62, 16), (2, 16), (25, 16), (61, 16)}
    assert counted["total"] == sum(p.numel() for p in model.parameters())
    assert counted["non_embedding"] == counted["total"] - sum(p.numel() for p in looked_up)
    assert counted["active"] == counted["non_embedding"] + 5 * 16, "a byte looks up one row of each table here"


def test_parameters_of_the_baselines(prepared: dict[str, Prepared]) -> None:
    tokens, patcher = prepared["tokens"], prepared["tokens"].patcher
    size = patcher.vocab_size  # type: ignore[union-attr]
    counted = parameters(make_model(tokens.row, patcher, 0))
    assert counted["total"] - counted["non_embedding"] == (size + 1) * 16
    assert counted["active"] - counted["non_embedding"] == 16
    row = dataclasses.replace(
        prepared["bytes"].row, sizes=ByteLMConfig(width=16, layers=1, heads=1, ngrams=(2, 3), ngram_rows=11)
    )
    counted = parameters(make_model(row, None, 0))
    assert counted["total"] - counted["non_embedding"] == 257 * 16 + (2 * 11 + 1) * 16
    assert counted["active"] - counted["non_embedding"] == 3 * 16


# --- compute


def test_latent_steps_are_those_of_the_windows(prepared: dict[str, Prepared], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is what the model does to the training windows, patches that a window's edge splits included."""
    seen: list[Shapes] = []

    def counted(config: HarnessConfig, outputs: int, shapes: Shapes, routed: bool) -> dict[str, float]:
        seen.append(shapes)
        return harness_flops(config, outputs, shapes, routed)

    monkeypatch.setattr("bench.training.prepare.harness_flops", counted)
    for label in ("stride", "whitespace", "bpe"):
        p = prepared[label]
        per_byte = flops(p)
        batch = p.train.windows(training_spans(p.train.offsets, p.row.train.window))
        starts = batch.starts.clone()
        starts[batch.offsets[:-1]] = True
        assert seen[-1].patches.tolist() == Patches.of(starts, batch.offsets).first.diff().tolist()
        assert seen[-1].lengths.tolist() == batch.lengths.tolist()
        assert seen[-1].patches.sum() > p.train.cuts.starts[:].sum(), "some windows begin inside of a patch"
        assert per_byte["total"] == pytest.approx(sum(v for k, v in per_byte.items() if k != "total"))


def test_patchers_cost_too(prepared: dict[str, Prepared]) -> None:
    entropy = prepared["entropy"]
    assert entropy.patcher is not None
    assert flops(entropy)["patcher"] == entropy.patcher.flops_per_byte()
    costly = dataclasses.replace(entropy, patcher=Costs())
    assert flops(costly)["total"] == flops(entropy)["total"] + 1000 - entropy.patcher.flops_per_byte()
    assert flops(prepared["bytes"])["patcher"] == 0
    heads = {}
    for label in ("bpe", "stride"):
        one = prepared[label].row
        assert isinstance(one.sizes, HarnessConfig)
        local_alone = dataclasses.replace(one, sizes=dataclasses.replace(one.sizes, latent_logits=False))
        heads[label] = flops(dataclasses.replace(prepared[label], row=local_alone))["head"]
    assert heads["bpe"] == 2 * heads["stride"], "512 symbols where 256 are"


class Costs(Slow):
    def flops_per_byte(self) -> float:
        return 1000.0


def test_tokens_cost_by_the_token(prepared: dict[str, Prepared]) -> None:
    p = prepared["tokens"]
    assert p.with_ids
    size = p.patcher.vocab_size  # type: ignore[union-attr]
    tokens = p.train.cuts.starts[:].sum()
    assert flops(p)["head"] == pytest.approx(2 * 16 * size * tokens / len(p.train.data))


def test_training_is_three_forward_passes_and_one_of_the_patcher() -> None:
    assert training_flops({"latent": 7.0, "head": 3.0, "patcher": 5.0, "total": 15.0}, 100) == (3 * 10 + 5) * 100
