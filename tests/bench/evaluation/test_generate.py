"""Writing: greedy is what the full forward would write, rows are alone in a batch, texts end where they should."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kinds import KINDS, learnt, uncached, uncached_end, wish
from tiny import OPTIONS, SMALL, TEXT, batch_of, harness, token_lm

import patchers
from bench.evaluation.generation import can_write, continuations, stream
from models.byte_lm import ByteLM
from models.decoding.generate import BYTES, PricedWriter
from models.decoding.sampling import Sampling, Stopper, Utf8, transitions
from models.decoding.step import HarnessDecoder
from models.harness import Harness
from models.token_lm import TokenLM
from patchers import BenchError, Patcher, Starts

PROMPTS = [b"", b"T", TEXT[:30], b"\xff\xc3(\x80 \xe6\x9d", "été".encode()]












@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_is_that_of_the_full_forward(kind: str) -> None:
    module, patcher = KINDS[kind]()
    for prompt in PROMPTS:
        assert continuations(module, patcher, [prompt], wish(60)) == [uncached(module, patcher, prompt, 60)]


@pytest.mark.parametrize("kind", KINDS)
def test_512_greedy_bytes_are_the_best_of_the_full_forward(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward over prompt and text: since no logit depends on later bytes, it is as good as one for each byte."""
    module, patcher = KINDS[kind]()
    prompt, flags = TEXT[:20], []
    step = HarnessDecoder.step

    def spy(decoder: HarnessDecoder, data: np.ndarray, own: np.ndarray | None = None) -> None:
        flags.append(own)
        step(decoder, data, own)

    monkeypatch.setattr(HarnessDecoder, "step", spy)
    text = continuations(module, patcher, [prompt], wish(512))[0]
    assert len(text) == 512
    whole = prompt + text
    with torch.no_grad():
        if isinstance(module, ByteLM):
            logits = module.logits(torch.tensor(list(whole)), torch.tensor([0, len(whole)]))
        elif isinstance(module, TokenLM):
            assert text == uncached(module, patcher, prompt, 512)
            return
        else:
            assert isinstance(module, Harness)
            assert patcher is not None
            if module.price is None:
                starts = np.zeros(len(whole), bool) if module.router else patcher.segment(whole)
            else:
                told = np.array([f[0] for f in flags if f is not None])
                if module.price == "end":  # the flag of a byte is whether the next one starts a patch
                    assert told[0] == uncached_end(module, prompt, patcher.segment(prompt))
                # nothing is told of the last byte, which no position reads
                starts = np.append(np.concatenate((patcher.segment(prompt), told)), False)[: len(whole)]
            logits = module.logits(batch_of([whole], [starts]))
            if module.price is not None:
                pairs = logits.double().view(-1, 2, 256)[len(prompt) :]
                chosen = pairs[torch.arange(512), :, torch.tensor(list(text))]
                flag = (chosen[:, 1] > chosen[:, 0]).numpy()
                want = starts[len(prompt) + (module.price == "end") :]
                assert (flag[: len(want)][:511] == want[:511]).all()
                logits = logits.double().view(-1, 2, 256).logsumexp(1)
    assert bytes(logits[len(prompt) :].argmax(1).tolist()) == text




@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_greedy_writing_with_every_pooling(options: dict[str, object]) -> None:
    module = harness(config=dataclasses.replace(SMALL, **options))  # type: ignore[arg-type]
    patcher = patchers.create("whitespace")
    assert continuations(module, patcher, [TEXT[:20]], wish(80))[0] == uncached(module, patcher, TEXT[:20], 80)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}], ids=str
)
def test_a_row_gets_what_it_gets_alone(kind: str, sampling: dict[str, Any]) -> None:
    module, patcher = KINDS[kind]()
    until = (b"e", b"\x00")
    together = continuations(module, patcher, PROMPTS, wish(50, 7, until, **sampling))
    for row, prompt in enumerate(PROMPTS):
        assert continuations(module, patcher, [prompt], wish(50, 7 + row, until, **sampling))[0] == together[row]
    assert together == continuations(module, patcher, PROMPTS, wish(50, 7, until, **sampling))


def test_another_seed_writes_another_text() -> None:
    module, patcher = KINDS["stride"]()
    one, other = (continuations(module, patcher, [b"T"], wish(50, seed, temperature=1.0))[0] for seed in (1, 2))
    assert one != other


def test_two_units_that_change_ranks_by_rounding_change_no_other_draw() -> None:
    """A neighbour in the batch moves a logit by float32's rounding, which must not decide about other units."""
    logits = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    logits[0, 200] = logits[0, 10]
    first, second = logits.clone(), logits.clone()
    first[0, 10] += 1e-6
    second[0, 200] += 1e-6
    grid = (np.arange(500) + 0.5) / 500
    for sampling in (Sampling(1.0), Sampling(0.7, top_k=150), Sampling(1.0, top_p=0.95)):
        assert (sampling.draw(first.expand(500, 256), grid) == sampling.draw(second.expand(500, 256), grid)).all()


def test_sampling_follows_the_probabilities() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))
    grid = (np.arange(1000) + 0.5) / 1000

    def shares(sampling: Sampling, allowed: torch.Tensor | None = None) -> list[float]:
        every = sampling.draw(logits.expand(1000, 4), grid, None if allowed is None else allowed.expand(1000, 4))
        return (np.bincount(every, minlength=4) / 1000).tolist()

    assert shares(Sampling(1.0)) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=2e-3)
    assert shares(Sampling(0.5)) == pytest.approx(list(np.array([0.25, 0.0625, 0.0225, 0.01]) / 0.345), abs=2e-3)
    assert shares(Sampling(1.0, top_k=2)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=2e-3)
    assert shares(Sampling(1.0, top_p=0.6)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=2e-3)
    assert shares(Sampling(1.0, top_p=0.5)) == [1, 0, 0, 0]
    assert shares(Sampling(1.0), torch.tensor([[False, True, False, True]])) == pytest.approx(
        [0, 5 / 7, 0, 2 / 7], abs=2e-3
    )
    assert shares(Sampling()) == [1, 0, 0, 0]
    assert Sampling(1.0).draw(logits, np.array([1 - 1e-16])) == [3]


def test_pairs_are_sampled_with_the_probability_of_the_pair() -> None:
    """A byte and its flag, drawn one after the other, at temperature 1."""
    module = harness("end")
    writer = PricedWriter(module, [b"The "], [np.array([True, False, False, False])], 1.0, np.array([0.3]))
    want = writer.decoder.logits.double().softmax(1).view(2, 256)
    byte = writer.logits.double().softmax(1)[0]
    assert torch.allclose(byte, want.sum(0), atol=1e-12)
    for unit in (0, 101, 255):
        share = np.mean(
            [bool(writer._flags(np.array([unit]), np.array([u]))[0]) for u in (np.arange(1000) + 0.5) / 1000]
        )
        assert share == pytest.approx(float(want[1, unit] / want[:, unit].sum()), abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_end_before_a_stop_string_or_after_so_many_bytes(kind: str) -> None:
    module, patcher = KINDS[kind]()
    whole = continuations(module, patcher, [TEXT[:10]], wish(40, temperature=1.0))[0]
    assert len(whole) == 40
    stop = whole[17:19]
    ended = continuations(module, patcher, [TEXT[:10]], wish(40, until=(stop, b"\x00nowhere"), temperature=1.0))[0]
    assert ended == whole[: whole.find(stop)]
    pieces = [
        p for step in stream(module, patcher, [TEXT[:10]], wish(40, until=(stop,), temperature=1.0)) for p in step
    ]
    assert [p.done for p in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].done == "until"
    assert continuations(module, patcher, [b"", b"a"], wish(0)) == [b"", b""]
    assert len(continuations(module, patcher, [b""], wish(1))[0]) == 1


AB = st.lists(st.sampled_from([b"a", b"b", b"\n"]), max_size=3).map(b"".join)


@given(st.lists(AB, max_size=8), st.lists(AB, max_size=3))
def test_a_stopper_shows_all_before_the_first_stop_and_nothing_of_it(parts: list[bytes], until: list[bytes]) -> None:
    stopper, shown = Stopper(until), b""
    for part in parts:
        shown += stopper.push(part)
        if stopper.found:
            break
    else:
        shown += stopper.end()
    text = b"".join(parts)
    places = [text.find(u) for u in until if u and u in text]
    assert shown == text[: min(places, default=len(text))]


@pytest.mark.parametrize("kind", KINDS)
def test_valid_utf8_where_it_is_asked_for(kind: str) -> None:
    module, patcher = KINDS[kind]()
    prompts = [b"", "東".encode()[:2], "é".encode(), "\U0001f600".encode()[:1]]
    for size in (1, 2, 3, 4, 31):
        texts = continuations(module, patcher, prompts, wish(size, 3, utf8=True, temperature=2.0))
        for prompt, text in zip(prompts, texts, strict=True):
            assert len(text) == size
            if size >= 3:
                (prompt + text).decode()
            elif prompt in (b"", "é".encode()):
                text.decode()
    with pytest.raises(UnicodeDecodeError):
        b"".join(continuations(module, patcher, prompts, wish(31, 3, temperature=2.0))).decode()


EDGES = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF]
EDGES += [0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]


@settings(max_examples=1000)
@given(st.one_of(st.binary(max_size=6), st.lists(st.sampled_from(EDGES), max_size=4).map(bytes)))
def test_utf8_transitions_are_pythons(data: bytes) -> None:
    state = 0
    for byte in data:
        state = int(transitions()[state, byte]) if state >= 0 else -1
    try:
        data.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert (state == 0) == valid


@given(st.text(max_size=4), st.integers(0, 3))
def test_where_a_text_ends(text: str, cut: int) -> None:
    data = b"\xff" + text.encode()[: len(text.encode()) - cut]
    state = Utf8.state_of(data)
    possible = [b for b in range(0x80, 0xC0) if transitions()[state, b] >= 0]
    for byte in range(0x80, 0xC0):
        rest = data[1:] + bytes([byte])
        try:
            rest.decode()
            fits = True
        except UnicodeDecodeError as error:
            fits = error.reason == "unexpected end of data"
        assert fits == (byte in possible), (data, byte)


def test_units_of_several_bytes_keep_utf8() -> None:
    units = [*BYTES, b"\xc3\xa9t", b"\xa9\xc3", b"\xe6\x9d", b""]
    utf8 = Utf8(units)
    states = np.array([0, Utf8.state_of(b"\xc3")])
    allowed = utf8.allowed(states, np.array([9, 9]))
    assert allowed[:, 256:].tolist() == [[True, False, True, False], [False, True, False, False]]
    assert utf8.after(states, np.array([256, 257])).tolist() == [0, 1]
    assert utf8.allowed(states, np.array([2, 1]))[:, 256:].tolist() == [[False] * 4, [False] * 4]


def test_wishes_that_cannot_be_met_say_so() -> None:
    for bad in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(BenchError):
            wish(4, **bad)
    with pytest.raises(BenchError):
        wish(-1)
    with pytest.raises(BenchError, match="not causal"):
        continuations(harness(), learnt("bpe"), [b"a"], wish())
    with pytest.raises(BenchError, match="spelled"):
        continuations(token_lm(300), Unspelled(), [b"a"], wish())
    assert not can_write(token_lm(300), Unspelled())


class Unspelled(Patcher):
    """Has ids, and does not say what they stand for."""

    def segment(self, data: bytes) -> Starts:
        return np.ones(len(data), bool)

    def encode(self, data: bytes) -> tuple[np.ndarray, Starts]:
        return np.frombuffer(data, np.uint8).astype(np.int32), self.segment(data)


def test_a_published_vocabulary_can_be_written_with() -> None:
    """Its ids are ranks, so that id b < 256 is not byte b."""
    patcher = patchers.create("bpe", encoding="cl100k_base")
    model = token_lm(patcher.vocab_size)  # type: ignore[attr-defined]
    assert can_write(model, patcher)
    text = continuations(model, patcher, [TEXT[:30]], wish(60))[0]
    assert text == uncached(model, patcher, TEXT[:30], 60)
    spelled = patcher.tokens()  # type: ignore[attr-defined]
    assert b"".join(spelled[i] for i in patcher.encode(TEXT)[0]) == TEXT  # type: ignore[attr-defined]
    assert (len(spelled), spelled[0]) == (100256, b"!")
