"""The patcher contract as code (DESIGN 4): what the tests run on every patcher, and `patchbench check` on yours.

Each check returns a Finding that says in words what was seen, with the counter-example where there is one.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from patchers.audit_at_scale import checks_at_scale
from patchers.base import Patcher, Starts, Stream
from patchers.calibration import CLOSE, mean_size
from patchers.errors import BenchError
from patchers.finding import CounterExample, Finding, differing, leaking, shown
from patchers.identity import OURS
from patchers.registry import load

EDGES = (
    b"",
    b"a",
    b" ",
    b"\x00",
    b"\xff",
    b"ab",
    b" a",
    b"\n\n",
    b"\xc3\xa9",
    b"\x80\x80",
    b"\x00\x00\x00 \x00",
    b"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80!",
    b"\xe2\x82 cut short \xf0\x9f\x98",
    bytes(range(256)),
    b"aaaaaaaa" * 64,
    b" \t\r\n" * 64 + b"x",
)
MANY = 40  # documents that a check looks at, at most
LONG = 2000  # bytes of a document that a check looks at, at most
AFFORDABLE = 1.0  # seconds that one pass over the documents may take
SHORT = 200  # the same for streams, of all documents but the first: a byte of a stream may cost a model's step


def audit(
    patcher: Patcher,
    docs: Sequence[bytes],
    seed: int = 0,
    sizes: Sequence[float] = (3.0, 4.5),
    *,
    quick: bool = False,
    say: Callable[[str], None] = lambda rule: None,
) -> list[Finding]:
    """Every check on a fitted patcher, with `docs` (real text of the user's) and documents at the edges.

    A patcher is sound iff all findings have passed. One that changes its input, or returns anything but a start a
    byte, is not examined further: nothing else that could be said of it would be reliable. `quick` leaves out what is
    looked at on large batches and long documents, in thousands of calls and in another process; `say` is told each rule
    before it is looked at. A slow patcher is shown fewer documents.
    """
    texts = _affordable(patcher, [doc[:LONG] for doc in docs[:MANY] if doc]) + list(EDGES)
    before = [
        _guarded("input", lambda: check_input(patcher, texts)),
        _guarded("shape", lambda: check_shape(patcher, texts)),
    ]
    if not all(finding.passed for finding in before):
        return before
    rng = np.random.default_rng(seed)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("determinism", lambda: check_determinism(patcher, texts)),
        ("batch", lambda: check_batch(patcher, texts, rng)),
        ("threads", lambda: check_threads(patcher, texts)),
        ("causality", lambda: check_causality(patcher, texts, rng)),
        ("stream", lambda: check_stream(patcher, texts)),
        ("saving", lambda: check_saving(patcher, texts)),
        ("calibration", lambda: check_calibration(patcher, docs, sizes)),
        ("long runs", lambda: check_long_runs(patcher)),
    ]
    if not quick:
        checks += checks_at_scale(patcher, docs, seed)
    for name, check in checks:
        say(name)
        before.append(_guarded(name, check))
    return before


def _affordable(patcher: Patcher, texts: list[bytes]) -> list[bytes]:
    """As many texts as are cut in a second, at least three: rules cut each of them dozens of times."""
    begin = time.perf_counter()
    for count, text in enumerate(texts):
        with suppress(Exception):  # a rule says it
            patcher.segment(_copy(text))
        if count >= 2 and time.perf_counter() - begin > AFFORDABLE:
            return texts[: count + 1]
    return texts


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  (a plug-in under examination may raise anything; that is a finding)
        return Finding(name, False, f"it raised {type(error).__name__}: {error}", _told(error))


def _told(error: Exception) -> str:
    """An exception and the lines that it came through, from the first that is not ours on; all, where all are ours."""
    frames = list(traceback.walk_tb(error.__traceback__))
    names = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in frames]
    first = next((place for place, name in enumerate(names) if name not in OURS), 0)
    lines = traceback.StackSummary.extract(iter(frames[first:]))
    return "".join([*lines.format(), *traceback.format_exception_only(error)])


def check_shape(patcher: Patcher, texts: Sequence[bytes]) -> Finding:
    """Booleans, one a byte, and the first byte of every document that is not empty starts a patch."""
    for text in texts:
        starts = patcher.segment(text)
        got: str | None = None
        if not isinstance(starts, np.ndarray) or starts.dtype != np.bool_:
            kind = f"an array of {starts.dtype}" if isinstance(starts, np.ndarray) else f"a {type(starts).__name__}"
            got = f"segment must return a numpy array of bool, it returned {kind}"
        elif starts.shape != (len(text),):
            got = f"segment must return one start a byte: {len(text)} bytes gave an array of shape {starts.shape}"
        elif len(text) and not starts[0]:
            got = "byte 0 must start a patch, starts[0] is False"
        if got:
            detail = f"wrong length or type: {got}, for {shown(text)}"
            return Finding("shape", False, detail, example=CounterExample((text,)))
    return Finding("shape", True, f"bool, one a byte, starts[0] true ({len(texts)} documents, empty to {LONG} bytes)")


def check_input(patcher: Patcher, texts: Sequence[bytes]) -> Finding:
    """Neither a document nor the list of documents is changed."""
    for text in texts:
        given = _copy(text)
        patcher.segment(given)
        if given != text:
            detail = f"segment changed its input: {shown(text)} became {shown(given)}"
            return Finding("input", False, detail, example=CounterExample((text, given)))
    batch = [_copy(text) for text in texts]
    patcher.segment_many(batch)
    if batch != list(texts):
        return Finding("input", False, "segment_many changed its input: the list of documents is another one now")
    return Finding("input", True, "documents and lists stay as they were")


def _copy(text: bytes) -> bytes:
    """The same bytes elsewhere in memory, so that a patcher that writes to them does no harm."""
    return bytes(bytearray(text))


def check_determinism(patcher: Patcher, texts: Sequence[bytes], times: int = 3) -> Finding:
    """The same cuts each time, whatever was cut in between, and from a copy of the patcher."""
    given, first = [], []
    for text in texts:
        given.append(patcher.segment(text))
        first.append(given[-1].copy())
    for text, starts, kept in zip(texts, given, first, strict=True):
        if not np.array_equal(starts, kept):
            said = "an answer changed when other documents were cut (give new arrays): before and after it cut"
            return differing("determinism", said, text, kept, starts.copy())
    for who, other in [("it", patcher)] * times + [("a copy of the patcher", dataclasses.replace(patcher))]:
        for text, starts in zip(reversed(texts), reversed(first), strict=True):
            again = other.segment(text)
            if not np.array_equal(again, starts):
                return differing("determinism", f"not deterministic: {who} cut the same text", text, starts, again)
    return Finding("determinism", True, f"the same cuts {times + 1} times and from a copy")


def check_batch(patcher: Patcher, texts: Sequence[bytes], rng: np.random.Generator) -> Finding:
    """A document is cut alike alone and in a batch, whatever else is in it, in any order."""
    for _ in range(3):
        order = rng.permutation(len(texts))[: rng.integers(1, len(texts) + 1)]
        chosen = [texts[i] for i in order]
        together = patcher.segment_many(chosen)
        if len(together) != len(chosen):
            return Finding("batch", False, f"segment_many gave {len(together)} arrays for {len(chosen)} documents")
        for text, starts in zip(chosen, together, strict=True):
            alone = patcher.segment(text)
            if not np.array_equal(alone, starts):
                said = f"depends on the batch: among {len(chosen)} documents it cut"
                return differing("batch", said, text, alone, starts)
    return Finding("batch", True, "alone and in batches alike")


def check_threads(patcher: Patcher, texts: Sequence[bytes]) -> Finding:
    """Four threads at once cut as one does."""
    alone = [patcher.segment(text) for text in texts] * 4
    repeated = list(texts) * 4
    with ThreadPoolExecutor(4) as pool:
        for text, expected, starts in zip(repeated, alone, pool.map(patcher.segment, repeated), strict=True):
            if not np.array_equal(starts, expected):
                return differing("threads", "not safe in threads: with four of them it cut", text, expected, starts)
    return Finding("threads", True, "four threads cut as one does")


def check_causality(patcher: Patcher, texts: Sequence[bytes], rng: np.random.Generator, trials: int = 400) -> Finding:
    """`starts[:t+1]` must not move when `data[t:]` is replaced or cut off.

    That segment(x[:t]) begins segment(x) is not enough: a patch that begins with the space that made it passes.
    """
    if not patcher.causal:
        return Finding("causality", True, "declared not causal: its boundaries are predicted and paid for")
    whole = [text for text in texts if len(text) > 1]
    cuts = {text: patcher.segment(text) for text in whole}
    for _ in range(trials):
        text = whole[int(rng.integers(len(whole)))]
        starts = cuts[text]
        t = _place(starts, rng)
        for other in _continued(text, t, whole, rng):
            again = patcher.segment(other)
            seen = min(t + 1, len(other))
            moved = np.flatnonzero(starts[:seen] != again[:seen])
            if len(moved):
                at = int(moved[0])
                flag = f"starts[{at}] is {bool(starts[at])} in one and {bool(again[at])} in the other"
                said = (
                    f"a later byte moves a start: two texts that share their first {t} bytes are cut differently there"
                )
                return leaking("causality", f"{said}, {flag}", (text, other), (starts, again), at, near=t)
    return Finding("causality", True, f"no later byte moved an earlier start ({trials} places, 5 other futures each)")


def _place(starts: Starts, rng: np.random.Generator) -> int:
    """A position after the first; half of the time beside a start, where rules look."""
    near = np.flatnonzero(starts)[1:]
    if len(near) and rng.random() < 0.5:
        return int(np.clip(rng.choice(near) + rng.integers(-1, 2), 1, len(starts) - 1))
    return int(rng.integers(1, len(starts)))


def _continued(text: bytes, t: int, texts: Sequence[bytes], rng: np.random.Generator) -> list[bytes]:
    """Other texts that share data[:t]: cut off, one other byte, random bytes, and the text of another document."""
    past, foreign = text[:t], texts[int(rng.integers(len(texts)))]
    common = b" \n.,;aeTst0\x80\xc3\xff\x00"
    return [
        past,
        past + bytes([common[rng.integers(len(common))]]),
        past + bytes([common[rng.integers(len(common))]]) + text[t + 1 :],
        past + rng.bytes(int(rng.integers(1, 40))),
        past + foreign[rng.integers(len(foreign)) :],
    ]


def check_stream(patcher: Patcher, texts: Sequence[bytes]) -> Finding:
    """Byte by byte the same starts, also where the beginning is taken at once. A patcher that is not causal must
    refuse to stream."""
    if not patcher.causal:
        try:
            patcher.stream()
        except BenchError:
            return Finding("stream", True, "not causal, and refuses to stream")
        return Finding("stream", False, "declared not causal, yet it offers a stream")
    count = 0
    for i, whole in enumerate(texts):
        text = whole if i == 0 else whole[:SHORT]
        starts = patcher.segment(text)
        for primed in (0, len(text) // 2, len(text)):
            stream: object = patcher.stream()
            if not isinstance(stream, Stream):
                said = f"stream() must return a patchers.Stream, it gave a {type(stream).__name__}"
                return Finding("stream", False, said)
            begun = stream.prime(text[:primed]).tolist() if primed else [True]
            again = np.array([*begun, *(stream.push(byte) for byte in text[primed:])][: len(text)], bool)
            if not np.array_equal(starts, again):
                how = f" once it is primed with {primed} bytes" if primed else ""
                return differing("stream", f"the stream disagrees with segment{how}: it cut", text, starts, again)
        count += len(text)
    return Finding("stream", True, f"stream and segment agree on {count} bytes")


def check_saving(patcher: Patcher, texts: Sequence[bytes]) -> Finding:
    """What is loaded has the same fingerprint and cuts alike."""
    with tempfile.TemporaryDirectory() as folder:
        patcher.save(folder)
        loaded = load(folder)
    if loaded.fingerprint() != patcher.fingerprint():
        return Finding("saving", False, "after saving and loading the fingerprint is another one")
    for text in texts:
        starts, again = patcher.segment(text), loaded.segment(text)
        if not np.array_equal(starts, again):
            return differing("saving", "after saving and loading it cut", text, starts, again)
    return Finding("saving", True, f"cuts and fingerprint survive ({patcher.fingerprint()[:12]})")


def check_calibration(patcher: Patcher, docs: Sequence[bytes], sizes: Sequence[float]) -> Finding:
    """A knob brings the mean patch within 5 % of what is asked, or says that it cannot."""
    if patcher.knob is None:
        return Finding("calibration", True, "there is no knob")
    words = []
    for size in sizes:
        try:
            calibrated = patcher.calibrate(docs, size)
            realised = mean_size(calibrated, docs)
        except BenchError as error:
            words.append(f"{size:g}: {error}")
            continue
        words.append(f"{size:g} gave {realised:.2f}")
        if calibrated != patcher and abs(realised / size - 1) > CLOSE:
            return Finding(
                "calibration", False, f"asked for {size:g} bytes a patch, '{patcher.knob}' gave {realised:.2f}"
            )
    return Finding("calibration", True, f"'{patcher.knob}': " + ", ".join(words))


def check_long_runs(patcher: Patcher, size: int = 250_000) -> Finding:
    """Time grows with the length of one byte repeated, not with its square: four times the text, at most ten times."""
    slowest, detail = 0.0, ""
    for byte in (b"a", b" ", b"\x00", b"\xff"):
        for _ in range(3):  # again where it looks bad: the first call may have compiled something
            short, long = _seconds(patcher, byte * size), _seconds(patcher, byte * (4 * size))
            growing = long > 10 * max(short, 0.02)
            if not growing:
                break
        said = f"{size} times {byte!r} took {short:.2f} s and {4 * size} {long:.2f} s"
        if growing:
            return Finding("long runs", False, f"time grows faster than the text: {said}")
        if long >= slowest:
            slowest, detail = long, said
    return Finding("long runs", True, f"time grows with the length ({detail})")


def _seconds(patcher: Patcher, text: bytes) -> float:
    begin = time.process_time()
    patcher.segment(text)
    return time.process_time() - begin
