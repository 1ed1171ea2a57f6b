"""Cutting a corpus: once, at a bit a byte, in as many processes as there are cores, and never a damaged answer."""

from __future__ import annotations

import itertools
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cuts import DOCS, Answers, Counting, yes

from bench.data import documents as texts
from bench.data import segment
from bench.data.cut_corpus import CutDocuments, Cuts, cut, training_spans
from bench.data.documents import FlatTexts
from bench.data.packed_starts import Bits, EvenStarts, Ranks, count, count_in
from bench.data.segment import cut_cached
from bench.system.files import MappedFile, SummedFile
from bench.system.signals import TimeLimit, time_limit
from patchers import create
from patchers.errors import BenchError

PLUGIN = """
import os
import numpy as np
from patchers import Patcher, register

@register("segmenting-test-thirds")
class Thirds(Patcher):
    def segment(self, data):
        with open({log!r}, "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        return np.arange(len(data)) % 3 == 0
"""


def documents(count: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [bytes(rng.integers(97, 105, int(size), np.uint8)) for size in rng.integers(1, 60, count)]


def everything(cuts: Cuts) -> tuple[list[bool], list[int] | None]:
    return cuts.starts[:].tolist(), None if cuts.ids is None else cuts.ids[:].tolist()


def test_cuts_are_computed_once(tmp_path: Path) -> None:
    counting = Counting()
    first = cut_cached(counting.patcher(), DOCS, "data", tmp_path)
    again = cut_cached(counting.patcher(), DOCS, "data", tmp_path)
    assert counting.calls == 1
    assert everything(again) == everything(first) == everything(cut(counting.patcher(), DOCS))
    assert again.starts[:].dtype == np.bool_


def test_cached_ids_come_back(tmp_path: Path) -> None:
    counting = Counting()
    first = cut_cached(counting.patcher(), DOCS, "data", tmp_path, with_ids=True)
    calls = counting.calls
    again = cut_cached(counting.patcher(), DOCS, "data", tmp_path, with_ids=True)
    assert counting.calls == calls
    assert everything(first) == everything(again)
    assert again.ids is not None
    assert bytes(again.ids[:].astype(np.uint8)) == b"apabgmadla"
    assert cut_cached(counting.patcher(), DOCS, "data", tmp_path).ids is None


def test_other_patchers_and_other_data_are_cut_anew(tmp_path: Path) -> None:
    counting = Counting()
    cut_cached(counting.patcher(2), DOCS, "data", tmp_path)
    other = cut_cached(counting.patcher(3), DOCS, "data", tmp_path)
    assert other.starts[:5].tolist() == [True, False, False, True, False]
    elsewhere = cut_cached(counting.patcher(2), [b"xyz"], "other data", tmp_path)
    assert elsewhere.starts[:].tolist() == [True, False, True]
    assert counting.calls == 3


def test_the_cache_takes_a_bit_a_byte_and_leaves_no_parts(tmp_path: Path) -> None:
    cut_cached(create("whitespace"), [b"ab " * 100_000], "data", tmp_path)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert sorted(p.name for p in files) == ["cuts.json", "starts"]
    assert sum(p.stat().st_size for p in files) < 300_000 / 8 + 1000


def test_a_wrong_answer_is_not_cached(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(BenchError, match="wanted a bool array"):
            cut_cached(Answers({b"abc": yes(2)}), [b"abc"], "data", tmp_path)


def test_a_damaged_cache_is_named_and_cut_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    docs, patcher = documents(200), create("stride")
    first = everything(cut_cached(patcher, docs, "data", tmp_path))
    for name in ("starts", "cuts.json"):
        (path,) = tmp_path.rglob(name)
        held = bytearray(path.read_bytes())
        held[len(held) // 2] ^= 1
        path.write_bytes(held)
        assert everything(cut_cached(patcher, docs, "data", tmp_path)) == first
        assert f"{path} is damaged" in caplog.messages[-1]


@pytest.mark.parametrize("with_ids", [False, True])
def test_runs_are_put_together_at_any_bit(with_ids: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = [bytes(range(97, 97 + n)) for n in (3, 5, 1, 8, 2, 13, 1, 1, 7)]
    monkeypatch.setattr(texts.FlatTexts.runs, "__defaults__", (4,))
    patcher = Counting().patcher()
    assert everything(cut_cached(patcher, docs, "data", tmp_path, with_ids)) == everything(cut(patcher, docs, with_ids))


def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts.FlatTexts.runs, "__defaults__", (1000,))
    monkeypatch.setattr(segment, "PARALLEL_FROM", 0)
    monkeypatch.setattr(segment, "cores", lambda: 2)


def test_processes_cut_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchers import load_plugin

    log = tmp_path / "log"
    (tmp_path / "thirds.py").write_text(PLUGIN.format(log=str(log)))
    load_plugin(tmp_path / "thirds.py")
    docs, patcher = documents(100), create("segmenting-test-thirds")
    small_runs(monkeypatch)
    said: list[str] = []
    found = everything(cut_cached(patcher, docs, "data", tmp_path, say=said.append))
    assert str(multiprocessing.current_process().pid) not in log.read_text().split()
    assert said[-1].startswith("cutting with segmenting-test-thirds: 100%")
    assert found == everything(cut(patcher, docs))


def test_processes_do_not_cut_with_code_that_was_edited_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They import the file as it is then; the cuts would be kept as those of the code that this process has."""
    from patchers import load_plugin

    path, source = tmp_path / "edited.py", PLUGIN.format(log=str(tmp_path / "log")).replace("thirds", "edited")
    path.write_text(source)
    load_plugin(path)
    patcher = create("segmenting-test-edited")
    path.write_text(source.replace("% 3", "% 4"))
    small_runs(monkeypatch)
    with pytest.raises(BenchError, match="'segmenting-test-edited' of other code than its plug-in has now"):
        cut_cached(patcher, documents(100), "data", tmp_path)
    assert not list(tmp_path.rglob("starts"))


def test_processes_that_cut_do_without_torch() -> None:
    code = "import sys, bench.data.segment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[3]).returncode == 0


HANGS = """
import time
import numpy as np
from patchers import Patcher, register

@register("segmenting-test-hangs")
class Hangs(Patcher):
    def segment(self, data):
        time.sleep(100)
"""


@pytest.mark.slow  # processes that load torch
def test_processes_that_hang_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchers import load_plugin

    (tmp_path / "hangs.py").write_text(HANGS)
    load_plugin(tmp_path / "hangs.py")
    small_runs(monkeypatch)
    began = time.monotonic()
    with pytest.raises(TimeLimit), time_limit(5):
        cut_cached(create("segmenting-test-hangs"), documents(100), "data", tmp_path)
    assert time.monotonic() - began < 60
    assert not [process for process in multiprocessing.active_children() if process.is_alive()]


@pytest.mark.slow  # processes that load torch
def test_processes_that_never_come_to_an_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is quick with the first texts, and then waits."""
    from patchers import load_plugin

    quick = "if data in FIRST:\n            return np.arange(len(data)) == 0\n        time.sleep"
    source = HANGS.replace("hangs", "waits").replace("time.sleep", quick)
    (tmp_path / "waits.py").write_text(f"FIRST = {documents(100)[:50]!r}\n{source}")
    load_plugin(tmp_path / "waits.py")
    small_runs(monkeypatch)
    monkeypatch.setattr(segment, "PATIENCE", 12.0)
    monkeypatch.setattr(segment, "TIMED", 500)
    began = time.monotonic()
    with pytest.raises(BenchError, match="'segmenting-test-waits' had not come to an end after 12 seconds"):
        cut_cached(create("segmenting-test-waits"), documents(100), "data", tmp_path)
    assert time.monotonic() - began < 60
    assert not [process for process in multiprocessing.active_children() if process.is_alive()]


@pytest.mark.slow  # processes that load torch
def test_a_process_that_dies_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchers import load_plugin

    dies = HANGS.replace("hangs", "dies").replace("time.sleep(100)", "import os; os.kill(os.getpid(), 9)")
    (tmp_path / "dies.py").write_text(dies)
    load_plugin(tmp_path / "dies.py")
    small_runs(monkeypatch)
    with pytest.raises(BenchError, match="a process that cut with 'segmenting-test-dies' was killed; out of memory"):
        cut_cached(create("segmenting-test-dies"), documents(100), "data", tmp_path)


def test_what_was_cut_before_a_kill_is_not_cut_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(texts.FlatTexts.runs, "__defaults__", (1000,))
    docs, patcher = documents(100), create("stride")
    calls: list[int] = []

    def counted(patcher: object, some: Sequence[bytes], with_ids: bool = False) -> Cuts:
        calls.append(len(some))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return cut(create("stride"), some, with_ids)

    monkeypatch.setattr(segment, "cut", counted)
    with pytest.raises(KeyboardInterrupt):
        cut_cached(patcher, docs, "data", tmp_path)
    _, damaged = sorted(tmp_path.rglob("*.cuts"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    damaged.with_name(f"{damaged.name}.1-ab.tmp").write_bytes(b"half a run")
    assert everything(cut_cached(patcher, docs, "data", tmp_path)) == everything(cut(patcher, docs))
    runs = list(FlatTexts.of(docs).runs())
    assert len(calls) == 3 + len(runs) - 1, "one of two was whole"
    assert f"{damaged} is damaged" in caplog.text
    assert not list(tmp_path.rglob("*.tmp")), "nothing is left of a killed process"


# --- starts that are not in memory


def on_disk(folder: Path, content: bytes) -> MappedFile:
    with SummedFile(folder / "file") as file:
        file.write(content)
    return MappedFile(folder / "file", file.sums, "remedy")


@given(st.lists(st.booleans(), max_size=100), st.integers(0, 110), st.integers(0, 110))
def test_bits_are_the_flags_that_were_packed(flags: list[bool], begin: int, end: int) -> None:
    bits = Bits(np.packbits(np.array(flags, bool)), len(flags))
    assert bits[begin:end].tolist() == flags[begin:end]
    assert count(bits) == sum(flags)
    assert [Ranks(bits).before(at) for at in range(len(flags) + 1)] == [sum(flags[:at]) for at in range(len(flags) + 1)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(0, 50), st.integers(0, 50))
def test_even_starts_are_those_of_every_document(sizes: list[int], begin: int, end: int) -> None:
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    want = np.zeros(offsets[-1], bool)
    want[[a for a, b in itertools.pairwise(offsets) if a < b]] = True
    assert EvenStarts(offsets)[begin:end].tolist() == want[begin:end].tolist()
    with_size = want | (np.arange(len(want)) % 2.5 < 1)
    assert EvenStarts(offsets, 2.5)[begin:end].tolist() == with_size[begin:end].tolist()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9).filter(any), st.integers(1, 7))
def test_starts_in_spans(sizes: list[int], window: int) -> None:
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    flags = np.random.default_rng(sum(sizes)).random(offsets[-1]) < 0.4
    spans = training_spans(offsets, window)
    counts, begun = count_in(flags, spans)
    assert counts.tolist() == [int(flags[a:b].sum()) for a, b in spans]
    assert begun.tolist() == [bool(flags[a]) for a, _ in spans]


def test_windows_of_a_corpus_on_disk(tmp_path: Path) -> None:
    docs = documents(50)
    flat = FlatTexts.of(docs)
    ids = np.arange(10_000, dtype=np.int32)
    starts = np.random.default_rng(0).random(len(flat.flat)) < 0.3
    starts[flat.offsets[:-1]] = True
    memory = CutDocuments.of(docs, Cuts(starts, ids))
    stored = FlatTexts(on_disk(tmp_path, b"".join(docs)), flat.offsets)
    disk = CutDocuments.of(stored, Cuts(Bits(np.packbits(starts), len(starts)), ids))
    spans = training_spans(flat.offsets, 16)[np.random.default_rng(1).permutation(40)]
    for name, value in vars(memory.windows(spans)).items():
        assert (value == getattr(disk.windows(spans), name)).all(), name
    assert memory.bytes_per_patch == disk.bytes_per_patch
