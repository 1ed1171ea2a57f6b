"""The trace of decoding: which parts ran for which byte, what it cost, how it looks; and the commands."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_kinds import KINDS, wish
from tiny import TEXT, batch_of

import patchers
from bench.cli.main import main
from bench.evaluation.generation import Screen, continuations
from bench.evaluation.trace import PARTS, as_table, letter, trace
from bench.reporting.plots.trace import draw
from bench.suites.config import load_suite
from bench.training.checkpoint import load_model, save_model
from bench.training.prepare import make_model
from models.flops import Shapes, harness_flops
from models.harness import Harness
from patchers import BenchError

SUITE = """\
data: {corpus: wiki-en}
model: {local_width: 16, local_heads: 1, encoder_layers: 1, decoder_layers: 1, local_window: 16,
        latent_width: 32, latent_heads: 1, latent_layers: 1, ngrams: [3], ngram_rows: 64, patch_rows: 64}
train: {bytes: 4000, batch_bytes: 1000, window: 200, dtype: float32}
rows:
  stride: {patcher: stride, calibrate: false}
  bytes: {model: byte_lm}
"""
PATCHED = [kind for kind in KINDS if not kind.endswith("_lm")]


@pytest.mark.parametrize("kind", PATCHED)
def test_the_latent_model_runs_once_a_patch(kind: str) -> None:
    module, patcher = KINDS[kind]()
    assert isinstance(module, Harness)
    assert patcher is not None
    made = trace(module, patcher, TEXT[:40], wish(20))
    assert len(made.steps) == 60
    assert made.text[:40] == TEXT[:40]
    assert made.text[40:] == continuations(module, patcher, [TEXT[:40]], wish(20))[0], "it traces what is generated"
    assert [s.written for s in made.steps] == [False] * 40 + [True] * 20
    starts = np.array([s.start for s in made.steps])
    ran = np.array(["latent" in s.parts for s in made.steps])
    if module.price == "start":
        assert (ran[1:] == starts[1:]).all(), "one byte late: the flag comes with the byte"
    else:
        assert (ran[:-1] == starts[1:]).all(), "the patch before has just ended"
    if patcher.causal and module.router is None:
        assert (starts == patcher.segment(made.text)).all()
    elif module.price is not None:
        assert (starts[:40] == patcher.segment(TEXT[:40])).all()
    assert made.latent_steps == ran.sum() < 60


def test_entropy_nats_and_scores_are_the_models() -> None:
    module, patcher = KINDS["entropy"]()
    assert isinstance(module, Harness)
    assert patcher is not None
    made = trace(module, patcher, TEXT[:30], wish(0))
    with torch.no_grad():
        log_p = module.logits(batch_of([TEXT[:30]], [patcher.segment(TEXT[:30])])).double().log_softmax(1)
    assert np.allclose([s.nats for s in made.steps], -log_p[torch.arange(30), torch.tensor(list(TEXT[:30]))], atol=1e-4)
    assert np.allclose([s.entropy for s in made.steps], -(log_p.exp() * log_p).sum(1), atol=1e-4)
    assert [s.score for s in made.steps] == patcher.scores(TEXT[:30]).tolist()  # type: ignore[attr-defined]
    assert made.threshold == patcher.options()["threshold"]


def test_flops_add_up_to_those_of_the_whole() -> None:
    module, patcher = KINDS["stride"]()
    assert isinstance(module, Harness)
    assert patcher is not None
    made = trace(module, patcher, TEXT[:41], wish(0))

    def whole(patches: int) -> float:
        return sum(harness_flops(module.config, 256, Shapes(np.array([41]), np.array([patches]))).values())

    assert sum(s.flops for s in made.steps) == pytest.approx(whole(made.latent_steps + 1))
    assert sum(s.flops_each_byte for s in made.steps) == pytest.approx(whole(41))
    cheap = [s.flops for s in made.steps[1:] if "latent" not in s.parts]
    assert max(cheap) < min(s.flops for s in made.steps if "latent" in s.parts)
    for step in made.steps:
        assert set(step.micros) == set(PARTS)
        assert step.micros["local_encoder"] > 0
        assert step.micros["local_decoder"] > 0
        assert step.parts == ("local_encoder", *(("latent",) if "latent" in step.parts else ()), "local_decoder")


def test_json_table_and_pictures(tmp_path: Path) -> None:
    module, patcher = KINDS["entropy"]()
    made = trace(module, patcher, TEXT[:120], wish(5, utf8=True, temperature=1.0))
    told = json.loads(json.dumps(made.as_json(), allow_nan=False))
    assert [s["byte"] for s in told["steps"]] == list(made.text)
    assert told["steps"][-1]["flops_so_far"] == pytest.approx(sum(s.flops for s in made.steps))
    assert as_table(made).row_count == len(made.steps) == len(TEXT[:120]) + 5
    for name in ("t.png", "t.svg"):
        draw(made, tmp_path / name)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "t.svg").read_text()
    assert "<svg" in drawn
    # matplotlib writes each text as a comment beside its outlines
    for said in (
        "entropy in nats",
        f"threshold {made.threshold:.3g}",
        "patches",
        "latent step",
        "written by the model",
    ):
        assert f"<!-- {said}" in drawn or f"<!-- bold: {said}" in drawn, said
    assert drawn.count("<!-- ⏎ -->") == TEXT[:120].count(b"\n")
    with pytest.raises(BenchError, match="cannot write"):
        draw(made, tmp_path / "t.nothing")
    empty = trace(module, patcher, b"", wish(0))
    assert empty.as_json()["steps"] == []
    with pytest.raises(BenchError, match="nothing to draw"):
        draw(empty, tmp_path / "t.png")
    long = replace(made, steps=made.steps * (1 + 60 * 72 // len(made.steps)))
    with pytest.raises(BenchError, match=r"has room for 4,320 bytes, got .* give a shorter prompt"):
        draw(long, tmp_path / "t.png")
    assert [letter(b) for b in b" \na\xff"] == ["␣", "⏎", "a", "·"]


def test_models_without_patches_have_no_trace() -> None:
    for kind in ("byte_lm", "token_lm"):
        with pytest.raises(BenchError, match="no patches"):
            trace(*KINDS[kind](), b"a", wish(1))


def test_a_screen_shows_whole_characters_and_a_pipe_gets_the_bytes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    screen = Screen(terminal)
    shown = []
    for i, byte in enumerate(data := "é東".encode() + b"\xffa\xc3"):
        screen.show(bytes([byte]), final=i == len(data) - 1)
        shown.append(terminal.getvalue())
    assert shown[:5] == ["", "é", "é", "é", "é東"]
    assert shown[-1] == "é東\ufffda\ufffd"
    pipe = io.TextIOWrapper(io.BytesIO())
    Screen(pipe).show(data)
    assert pipe.buffer.getvalue() == data


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    suite = load_suite(str(tmp_path / "tiny.yaml"), [])
    for label, patcher in (("stride", patchers.create("stride")), ("bytes", None)):
        row = suite.row(label)
        save_model(tmp_path / label, suite, row, patcher, make_model(row, patcher, 0))
    return tmp_path / "stride"


def test_the_command_generate(checkpoint: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    module = load_model(checkpoint).module.cpu()
    want = continuations(module, patchers.create("stride"), [b"\xc3("], wish(30, 5, temperature=1.0))[0]
    prompt = checkpoint.parent / "prompt"
    prompt.write_bytes(b"\xc3(")
    sampled = ["--max-bytes", "30", "--temperature", "1", "--seed", "5"]
    assert main(["generate", str(checkpoint), "--prompt-file", str(prompt), *sampled]) == 0
    assert capfdbinary.readouterr().out == want
    assert main(["generate", str(checkpoint), "--prompt", "\udcc3(", *sampled, "--json"]) == 0
    told = json.loads(capfdbinary.readouterr().out)
    assert bytes.fromhex(told["hex"]) == want
    assert told["text"] == want.decode(errors="replace")
    assert (told["bytes"], told["ended_by"]) == (30, "max_bytes")
    assert main(["generate", str(checkpoint), "--max-bytes", "9", "--until", "\udcff", "--utf8"]) == 0
    assert len(capfdbinary.readouterr().out.decode()) > 0
    for wrong in (["--top-p", "2"], ["--prompt-file", "nowhere"], ["--temperature", "-1"]):
        assert main(["generate", str(checkpoint), *wrong]) == 2
        assert capfdbinary.readouterr().err.startswith(b"patchbench: error: ")
    assert main(["generate", str(checkpoint.parent)]) == 2


def test_the_command_trace(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = checkpoint.parent / "t.png"
    call = ["trace", str(checkpoint), "--prompt", "Hello there", "--max-bytes", "3"]
    assert main([*call, "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 15
    assert "latent" in out
    assert picture.stat().st_size > 1000
    assert main([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert bytes(s["byte"] for s in told["steps"])[:11] == b"Hello there"
    assert main(["trace", str(checkpoint.with_name("bytes"))]) == 2
    assert "no patches" in capsys.readouterr().err


def test_entropies_are_finite_where_a_byte_is_impossible() -> None:
    made = trace(*KINDS["start"](), b"", wish(3))
    assert all(math.isfinite(s.entropy) and math.isfinite(s.nats) for s in made.steps)
