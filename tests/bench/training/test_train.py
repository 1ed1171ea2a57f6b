"""Training: the schedule, what decays, what is learnt, how it fails, and that a kill changes nothing."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import SMALL, TEXT, random_starts
from torch import Tensor, nn

from bench.data.cut_corpus import CutDocuments, Cuts, batches, training_spans
from bench.suites.config import TrainConfig
from bench.system import tensors
from bench.system.files import CannotWrite
from bench.training import loop as training
from bench.training.loop import (
    Progress,
    TrainingFailed,
    learning_rate,
    load_checkpoint,
    make_optimizer,
    save_checkpoint,
    train,
    train_step,
)
from models.batch import Windows
from models.byte_lm import ByteLM, ByteLMConfig
from models.harness import Harness, Prediction
from models.initialization import initialise
from models.router import CosineRouter
from models.token_lm import TokenLM, TokenLMConfig

CPU = torch.device("cpu")
CONFIG = TrainConfig(bytes=3000, batch_bytes=300, window=60, lr=3e-3, dtype="float32", log_every=1)
VOCAB = 50


def corpus(seed: int = 0, with_ids: bool = True) -> CutDocuments:
    """Twenty documents of real text, cut at random."""
    rng = np.random.default_rng(seed)
    docs = [TEXT[a : a + int(rng.integers(1, 90))] for a in rng.integers(0, len(TEXT) - 1, 20)]
    starts = np.concatenate([random_starts(len(d), rng) for d in docs])
    ids = rng.integers(0, VOCAB, int(starts.sum())).astype(np.int32)
    return CutDocuments.of(docs, Cuts(starts, ids if with_ids else None))


def fresh(model: nn.Module, seed: int = 0) -> nn.Module:
    initialise(model, seed)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "harness": lambda: fresh(Harness(SMALL)),
    "priced": lambda: fresh(Harness(SMALL, "end")),
    "routed": lambda: fresh(Harness(dataclasses.replace(SMALL, pool="last"), router=CosineRouter(32, 4.0))),
    "token_lm": lambda: fresh(TokenLM(TokenLMConfig(width=32, layers=1, heads=2), VOCAB)),
    "byte_lm": lambda: fresh(ByteLM(ByteLMConfig(width=32, layers=1, heads=2, window=8))),
}


class Toy(nn.Module):
    """Predicts every byte from a single table, whatever came before; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(256))
        self.read: list[list[int]] = []

    def forward(self, batch: Windows, dtype: torch.dtype = torch.float32) -> Prediction:
        self.read.append(batch.data.tolist())
        return Prediction(-self.table.log_softmax(0)[batch.data])


# --- the schedule


def test_the_learning_rate_warms_up_and_falls_like_a_cosine() -> None:
    config = TrainConfig(bytes=1000, batch_bytes=100, window=10, lr=2.0, warmup=0.1, min_lr_ratio=0.1)
    rates = {read: learning_rate(config, read) for read in (0, 50, 100, 325, 550, 775, 1000, 1500)}
    cosine = lambda share: 2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)  # noqa: E731
    assert rates == pytest.approx(
        {0: 0, 50: 1.0, 100: 2.0, 325: cosine(0.25), 550: 1.1, 775: cosine(0.75), 1000: 0.2, 1500: 0.2}
    )


def test_without_warm_up_it_begins_at_its_highest() -> None:
    config = TrainConfig(bytes=1000, batch_bytes=100, window=10, lr=1.0, warmup=0.0, min_lr_ratio=0.0)
    assert learning_rate(config, 0) == 1.0
    assert learning_rate(config, 1000) == pytest.approx(0.0, abs=1e-12)


@given(st.floats(0, 0.9), st.floats(0, 1), st.integers(1, 10_000))
def test_it_never_leaves_its_bounds(warmup: float, lowest: float, total: int) -> None:
    config = TrainConfig(bytes=total, batch_bytes=100, window=10, lr=1.0, warmup=warmup, min_lr_ratio=lowest)
    rates = [learning_rate(config, read) for read in np.linspace(0, total, 50).astype(int)]
    top = int(np.argmax(rates))
    assert all(0 <= r <= 1 + 1e-12 for r in rates)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert learning_rate(config, total) == pytest.approx(lowest, abs=1e-9)


def test_each_step_has_the_rate_of_the_middle_of_its_batch() -> None:
    progress = train(Toy(), corpus(), CONFIG, 0, CPU)
    before = 0
    for _, read, _, rate in progress.curve:
        assert rate == learning_rate(CONFIG, before + (int(read) - before) // 2)
        before = int(read)


# --- the optimizer


class Still(nn.Module):
    """A model whose loss depends on no weight: what moves is moved by weight decay alone."""

    def __init__(self, model: nn.Module, slope: float = 0.0) -> None:
        super().__init__()
        self.model, self.slope = model, slope

    def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
        return Prediction(sum((p.sum() for p in self.parameters()), torch.zeros(1)) * self.slope)


def one_step(model: nn.Module, slope: float, config: TrainConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """Every weight before and after a step at learning rate 0.01."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) + 0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    still = Still(model, slope)
    data = corpus()
    batch = data.windows(training_spans(data.offsets, 60))
    assert math.isfinite(train_step(still, still, make_optimizer(still, config), batch, 0.01, config))
    return {name: (before[name], p.detach()) for name, p in model.named_parameters()}


def matrices(model: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Linear)}


@pytest.mark.parametrize("kind", MODELS)
def test_only_matrices_of_products_decay(kind: str) -> None:
    model = MODELS[kind]()
    config = dataclasses.replace(CONFIG, weight_decay=0.1)
    decayed = set()
    for name, (before, after) in one_step(model, 0.0, config).items():
        if not torch.equal(before, after):
            decayed.add(name)
            rate = 0.01 * 64 / before.shape[1]
            assert torch.allclose(after, before * (1 - rate * 0.1), atol=1e-7)
    products = matrices(model)
    assert products - decayed <= {n for n in products if n.startswith("router.")}
    assert decayed <= products
    assert any("attention.qkv" in name for name in decayed)


def test_lookups_and_matrices_of_each_width_have_a_learning_rate_of_their_own() -> None:
    """The first step of Adam is the learning rate in size, whatever the gradient."""
    model = MODELS["harness"]()
    moves = one_step(model, 1e-3, dataclasses.replace(CONFIG, weight_decay=0.0, lookup_lr=4.0))
    sizes = {name: float((before - after).mean()) / 0.01 for name, (before, after) in moves.items()}
    products = matrices(model)
    inputs = {name: moves[name][0].shape[1] for name in products}
    assert len(set(inputs.values())) > 1
    assert {name: sizes[name] for name in products} == pytest.approx({n: 64 / inputs[n] for n in products}, rel=1e-2)
    fast = {name for name in sizes.keys() - products if sizes[name] == pytest.approx(4, rel=1e-2)}
    slow = {name for name in sizes.keys() - products if sizes[name] == pytest.approx(1, rel=1e-2)}
    assert fast | slow == sizes.keys() - products
    assert {"byte", "ngrams.table", "patch_state.patch"} <= fast
    assert {name for name in sizes if "norm" in name} == slow


def test_gradients_are_clipped_together() -> None:
    """A gradient of 256 equal parts has norm 1 when each part is 1/16; Adam's memory of it tells what it was."""
    toy = Toy()
    still = Still(toy, slope=100.0)
    config = dataclasses.replace(CONFIG, clip=0.5, beta1=0.0)
    optimizer = make_optimizer(still, config)
    data = corpus()
    train_step(still, still, optimizer, data.windows(training_spans(data.offsets, 60)), 0.01, config)
    seen = optimizer.state[toy.table]["exp_avg"]
    assert float(seen.norm()) == pytest.approx(0.5, rel=1e-4)


# --- what is learnt


@pytest.mark.parametrize("kind", ["priced", "routed", "token_lm", "byte_lm"])
def test_a_tiny_text_is_learnt_by_heart(kind: str) -> None:
    text = TEXT[:40]
    starts = random_starts(40, np.random.default_rng(0))
    ids = (np.arange(starts.sum()) % VOCAB).astype(np.int32)
    config = TrainConfig(bytes=2400, batch_bytes=40, window=40, lr=1e-2, dtype="float32", log_every=1)
    curve = train(MODELS[kind](), CutDocuments.of([text], Cuts(starts, ids)), config, 0, CPU).curve
    assert len(curve) == 60
    assert curve[0][2] > 1.5
    assert curve[-1][2] < 0.2


def test_the_curve_says_what_happened() -> None:
    config = dataclasses.replace(CONFIG, log_every=4)
    told: list[tuple[int, int, int]] = []
    data, toy = corpus(), Toy()
    progress = train(toy, data, config, 5, CPU, report=lambda p, total: told.append((p.step, p.bytes, total)))
    spans = training_spans(data.offsets, 60)
    read = [len(data.windows(b).data) for b in batches(spans, config.batch_bytes, config.bytes, 5)]
    assert told == [(i + 1, sum(read[: i + 1]), 3000) for i in range(len(read))]
    assert [len(r) for r in toy.read] == read
    steps = [int(row[0]) for row in progress.curve]
    assert steps == sorted({*range(0, len(read), 4), len(read) - 1})
    assert [int(row[1]) for row in progress.curve] == [sum(read[: s + 1]) for s in steps]
    assert progress.curve[0][2] == 8.0, "the loss before the first update, of a table that knows nothing"
    assert progress.curve[-1][2] < 8.0
    assert 0 < progress.busy_seconds < progress.seconds
    assert not toy.training


def test_every_model_reads_the_same_bytes_in_the_same_order_at_a_seed() -> None:
    docs = [TEXT[i : i + 70] for i in range(0, 90, 9)]
    read = []
    for cut_seed, seed in ((0, 0), (1, 0), (0, 1)):
        rng = np.random.default_rng(cut_seed)
        starts = np.concatenate([random_starts(len(d), rng) for d in docs])
        toy = Toy()
        train(toy, CutDocuments.of(docs, Cuts(starts)), CONFIG, seed, CPU)
        read.append(toy.read)
    assert read[0] == read[1]
    assert read[0] != read[2]


def test_bfloat16_trains_about_as_float32_does() -> None:
    ends = []
    for dtype in ("float32", "bfloat16"):
        config = dataclasses.replace(CONFIG, dtype=dtype)
        ends.append(train(MODELS["harness"](), corpus(), config, 0, CPU).curve[-1][2])
    assert ends[0] != ends[1]
    assert ends[0] == pytest.approx(ends[1], abs=0.1)


# --- failures


class Turns(Toy):
    """Loses its mind at a step."""

    def __init__(self, at: int, nats: float, bad_gradient: bool = False) -> None:
        super().__init__()
        self.at, self.nats, self.bad_gradient = at, nats, bad_gradient

    def forward(self, batch: Windows, dtype: torch.dtype = torch.float32) -> Prediction:
        prediction = super().forward(batch, dtype)
        if len(self.read) - 1 != self.at:
            return prediction
        zero = (self.table * 0).sum()
        return Prediction(prediction.nats * 0 + self.nats + (zero.abs().sqrt() if self.bad_gradient else zero))


@pytest.mark.parametrize("nats", [math.nan, math.inf, -math.inf, 16.01 * math.log(2)])
def test_a_loss_that_is_no_number_or_absurd_ends_the_run_with_its_step(nats: float) -> None:
    with pytest.raises(TrainingFailed, match=r"step 3; lower train.lr \(it is 0.003\)") as error:
        train(Turns(3, nats), corpus(), CONFIG, 0, CPU)
    assert error.value.step == 3


def test_a_high_loss_alone_is_no_failure() -> None:
    assert train(Turns(3, 15.9 * math.log(2)), corpus(), CONFIG, 0, CPU).bytes >= 3000


STEPS = len(list(batches(training_spans(corpus().offsets, 60), CONFIG.batch_bytes, CONFIG.bytes, 0)))


@pytest.mark.parametrize("at", [3, STEPS - 1])
def test_a_gradient_that_is_no_number_ends_the_run(at: int) -> None:
    """The loss of the next step shows it; after the last step there is none, and the weights must tell."""
    with pytest.raises(TrainingFailed, match=r"lower train\.lr") as error:
        train(Turns(at, 5.0, bad_gradient=True), corpus(), CONFIG, 0, CPU)
    assert error.value.step == min(at + 1, STEPS - 1)


def test_a_learning_rate_without_sense_fails() -> None:
    config = dataclasses.replace(CONFIG, lr=1e4, bytes=30_000)
    with pytest.raises(TrainingFailed, match=r"lower train.lr \(it is 10000\)"):
        train(MODELS["harness"](), corpus(), config, 0, CPU)


# --- stop and go on


class Killed(Exception):
    pass


def killer(at: int) -> Callable[[Progress, int], None]:
    def report(progress: Progress, total: int) -> None:
        if progress.step == at:
            raise Killed

    return report


def outcome(model: nn.Module, progress: Progress) -> tuple[Any, ...]:
    weights = {name: p.detach().numpy().tobytes() for name, p in model.state_dict().items()}
    return weights, progress.step, progress.bytes, progress.curve


def undisturbed(make: Callable[[], nn.Module], config: TrainConfig) -> tuple[Any, ...]:
    torch.manual_seed(0)
    model = make()
    return outcome(model, train(model, corpus(), config, 0, CPU))


def interrupted(make: Callable[[], nn.Module], config: TrainConfig, path: Path, kills: list[int]) -> tuple[Any, ...]:
    for kill in kills:
        torch.manual_seed(0 if kill == kills[0] else kill)
        with pytest.raises(Killed):
            train(make(), corpus(), config, 0, CPU, path, killer(kill))
    torch.manual_seed(99)
    model = make()
    return outcome(model, train(model, corpus(), config, 0, CPU, path))


EAGER = dataclasses.replace(CONFIG, checkpoint_seconds=1e-9)  # a checkpoint at each step


@pytest.mark.parametrize("kind", MODELS)
def test_a_killed_training_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    kills = sorted(np.random.default_rng(len(kind)).choice(np.arange(2, 11), 2, replace=False).tolist())
    want = undisturbed(MODELS[kind], EAGER)
    assert interrupted(MODELS[kind], EAGER, tmp_path / "a" / "b.safetensors", kills) == want


def test_in_bfloat16_too(tmp_path: Path) -> None:
    config = dataclasses.replace(EAGER, dtype="bfloat16")
    want = undisturbed(MODELS["harness"], config)
    assert interrupted(MODELS["harness"], config, tmp_path / "c", [4]) == want


def test_from_an_older_checkpoint_and_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done after the checkpoint is done again, and ends up alike."""
    want = undisturbed(MODELS["harness"], EAGER)
    saved: list[int] = []

    def sometimes(path: Path, model: nn.Module, optimizer: Any, progress: Progress) -> None:
        if progress.step % 4 == 0:
            saved.append(progress.step)
            save_checkpoint(path, model, optimizer, progress)

    monkeypatch.setattr(training, "save_checkpoint", sometimes)
    assert interrupted(MODELS["harness"], EAGER, tmp_path / "c", [3, 7, 10]) == want
    assert saved == [4, 8], "from the start, from step 4 and from step 8"


class Noisy(Toy):
    """Draws random numbers as dropout would."""

    def forward(self, batch: Windows, dtype: torch.dtype = torch.float32) -> Prediction:
        prediction = super().forward(batch, dtype)
        return Prediction(prediction.nats * (0.5 + torch.rand(len(batch.data))))


def test_random_numbers_go_on_too(tmp_path: Path) -> None:
    want = undisturbed(Noisy, EAGER)
    assert want != undisturbed(Toy, EAGER)
    assert interrupted(Noisy, EAGER, tmp_path / "c", [5]) == want


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    """Killed while it was scored: the weights are there, and nothing is trained again."""
    first, second = Toy(), Toy()
    done = train(first, corpus(), CONFIG, 0, CPU, tmp_path / "c")
    again = train(second, corpus(), CONFIG, 0, CPU, tmp_path / "c")
    assert second.read == []
    assert outcome(second, again) == outcome(first, done)
    assert again.seconds == done.seconds


def test_a_damaged_checkpoint_is_named_and_not_gone_on_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(Toy(), corpus(), CONFIG, 0, CPU, tmp_path / "c")
    held = bytearray((tmp_path / "c").read_bytes())
    held[-1] ^= 1
    (tmp_path / "c").write_bytes(held)
    again = Toy()
    assert outcome(again, train(again, corpus(), CONFIG, 0, CPU, tmp_path / "c")) == undisturbed(Toy, CONFIG)
    assert f"{tmp_path / 'c'} is damaged" in caplog.text


def test_checkpoints_come_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(training, "save_checkpoint", lambda path, model, optimizer, p: saved.append(p.step))
    steps = train(Toy(), corpus(), CONFIG, 0, CPU, tmp_path / "c").step
    assert saved == [steps], "a minute has not passed: one at the end"
    saved.clear()
    train(Toy(), corpus(), EAGER, 0, CPU, tmp_path / "c")
    assert saved == [*range(1, steps + 1), steps]
    assert steps == STEPS


def test_a_checkpoint_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while one is written, the one before can be read."""
    path = tmp_path / "c"
    model = MODELS["harness"]()
    optimizer = make_optimizer(model, CONFIG)
    save_checkpoint(path, model, optimizer, Progress(step=1))
    before = path.read_bytes()

    def dies(tensors: Any, file: Path, **others: Any) -> None:
        Path(file).write_bytes(before[:1000])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tensors, "save_file", dies)
        with pytest.raises(CannotWrite, match="No space left on device; make room"):
            save_checkpoint(path, model, optimizer, Progress(step=2))
    assert path.read_bytes() == before
    assert load_checkpoint(path, model).step == 1
    save_checkpoint(path, model, optimizer, Progress(step=3, curve=[[0, 1, 8.0, 1e-3]]))
    assert load_checkpoint(path, model) == Progress(step=3, curve=[[0, 1, 8.0, 1e-3]])
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch by torch
def test_compiling_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)  # pytest keeps every line of it
    config = dataclasses.replace(CONFIG, bytes=900)
    plain = train(MODELS["harness"](), corpus(), config, 0, CPU).curve
    compiled = train(MODELS["harness"](), corpus(), dataclasses.replace(config, compile=True), 0, CPU).curve
    assert [row[2] for row in compiled] == pytest.approx([row[2] for row in plain], abs=1e-3)


# --- what waits for a device


class Reads(torch.overrides.TorchFunctionMode):
    """Counts what makes the host wait for a device, were there one: values of tensors that are read."""

    NAMES = ("item", "cpu", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in self.NAMES
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["harness", "priced", "byte_lm", "token_lm"])
def test_the_host_reads_one_value_a_step(kind: str) -> None:
    """The loss, and that of the step before. (What the worker reads is on the CPU, and so is what a CPU's own kernels
    read: modes are a thread's own, and kernels lie below them.)"""
    counts: list[int] = []
    with Reads() as reads:

        def report(progress: Progress, total: int) -> None:
            counts.append(reads.count)

        train(MODELS[kind](), corpus(), CONFIG, 0, CPU, report=report)
    assert len(counts) > 5
    assert counts[0] == 0, "nothing before the second step"
    assert set(np.diff(counts[:-1])) == {1}
