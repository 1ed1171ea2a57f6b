"""A trained model on disk scores what it scored, and what is no model says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SMALL, shaken
from tiny_suite import EVERY_KIND as ROWS
from tiny_suite import tiny_suite

from bench.data.config import Data, load
from bench.evaluation.byte_model import CutModel
from bench.suites.config import Suite
from bench.training import checkpoint
from bench.training.checkpoint import load_model, save_model
from bench.training.prepare import after_training, make_model, prepare
from models.harness import Harness
from patchers.errors import BenchError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


@pytest.fixture(scope="module")
def suite(place: Path) -> Suite:
    return tiny_suite(place, rows=ROWS)


@pytest.fixture(scope="module")
def data(suite: Suite) -> Data:
    return load(suite.data)


def saved(label: str, folder: Path, suite: Suite, data: Data, cache: Path) -> CutModel:
    """A row's model with all weights shaken, put into a folder; what it is in memory."""
    row = suite.row(label)
    prepared = prepare(suite, row, data, cache, lambda message: None)
    model = shaken(make_model(row, prepared.patcher, 0))
    prepared = after_training(prepared, model, data, lambda message: None)
    save_model(folder, suite, row, prepared.patcher, model)
    return CutModel(model, prepared.scoring_patcher, row.train.window, with_ids=prepared.with_ids)


@pytest.mark.parametrize("label", ROWS)
def test_what_was_saved_scores_the_same(label: str, suite: Suite, data: Data, place: Path) -> None:
    folder = place / "models" / label
    before = saved(label, folder, suite, data, place / "cache")
    after = load_model(str(folder), torch.device("cpu"))
    texts = [*data.test.texts, b"", b"\xff\x00\xfe"]
    one, two = before.score(texts), after.score(texts)
    assert [n.tobytes() for n in one.nats] == [n.tobytes() for n in two.nats]
    assert (one.flag_nats is None) == (two.flag_nats is None) == (label not in ("end", "start"))
    assert (after.window, after.with_ids) == (120, label == "tokens")
    assert not after.module.training
    names = {p.name for p in folder.iterdir()}
    assert names == {"model.json", "model.safetensors", "sums.json"} | ({"patcher"} if label != "bytes" else set())
    header = json.loads((folder / "model.json").read_text())
    assert (header["row"], header["suite"], header["leaky"]) == (label, "tiny", label == "leaky")


def test_saving_again_replaces_the_whole(suite: Suite, data: Data, place: Path, tmp_path: Path) -> None:
    saved("end", tmp_path / "m", suite, data, place / "cache")
    (tmp_path / "m" / "stray").write_text("of an older version")
    (tmp_path / "m.part").mkdir()  # by a process that was killed
    (tmp_path / "m.part" / "model.json").write_text("half a")
    after = saved("bytes", tmp_path / "m", suite, data, place / "cache")
    (nats,) = load_model(tmp_path / "m").nats([b"some text"])
    assert nats.tolist() == after.nats([b"some text"])[0].tolist()
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"model.json", "model.safetensors", "sums.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["m"], "no part is left"


def edit(folder: Path, **values: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("head.weight")
    save_file(weights, folder / "model.safetensors")


SPOILT: dict[str, tuple[Any, str]] = {
    "no header": (lambda f: (f / "model.json").unlink(), "holds no trained model"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no trained model"),
    "no JSON": (lambda f: (f / "model.json").write_text("{"), "model.json is damaged"),
    "a list": (lambda f: (f / "model.json").write_text("[]"), "has format None, this patchbench reads format 1"),
    "cut short": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
        "holds no trained model",
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "holds no trained model"),
    "of the future": (lambda f: edit(f, format=2), "has format 2, this patchbench reads format 1"),
    "a weight less": (lose_a_weight, "does not hold what its header says"),
    "an unknown size": (lambda f: edit(f, sizes={"width": 16, "depth": 1}), "does not hold what its header says"),
    "other sizes": (lambda f: edit(f, sizes={"width": 8, "heads": 1}), "does not hold what its header says"),
    "no patcher": (lambda f: edit(f, patcher=True), "no saved patcher can be read"),
}


@pytest.mark.parametrize(("spoil", "told"), SPOILT.values(), ids=SPOILT)
def test_what_is_no_model_is_one_clear_error(
    spoil: Any, told: str, suite: Suite, data: Data, place: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    saved("bytes", folder, suite, data, place / "cache")
    (folder / "sums.json").unlink()  # as before there were checksums, which would tell of it first
    edit(folder, sealed=False)
    spoil(folder)
    with pytest.raises(BenchError, match=told) as error:
        load_model(folder)
    assert str(folder) in str(error.value)


def test_one_flipped_bit_anywhere_is_named(suite: Suite, data: Data, place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    saved("end", folder, suite, data, place / "cache")
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        before = path.read_bytes()
        held = bytearray(before)
        held[len(held) // 2] ^= 1
        path.write_bytes(held)
        with pytest.raises(BenchError, match=f"{path} is damaged"):
            load_model(folder)
        path.write_bytes(before)
    (folder / "sums.json").unlink()
    with pytest.raises(BenchError, match=r"sums.json is damaged .*: delete .* and run its suite again"):
        load_model(folder)


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(
            BenchError, match=f"{folder} holds no trained model .*give a folder results/SUITE/checkpoints"
        ):
            load_model(folder)


def test_a_name_that_no_folder_can_have_is_one_clear_error() -> None:
    with pytest.raises(BenchError, match=r"cannot look into x+ \(File name too long\); give a folder results/SUITE"):
        load_model(Path("x" * 300))


def test_a_model_from_before_there_was_a_choice_is_what_it_was() -> None:
    """Its header says nothing of boundary inputs and latent logits: it was told the prefix, and had one head."""
    sizes = {key: value for key, value in vars(SMALL).items() if key not in ("boundary_inputs", "latent_logits")}
    old = checkpoint._module({"kind": "harness", "sizes": sizes, "price": None}, None)
    assert isinstance(old, Harness)
    assert old.latent_head is None
    assert old.patch_state is not None
    assert old.patch_state.patch is not None
    new = checkpoint._module({"kind": "harness", "sizes": sizes | {"boundary_inputs": "none"}, "price": None}, None)
    assert isinstance(new, Harness)
    assert new.patch_state is None
