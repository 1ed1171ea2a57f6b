"""The rules in the report's page cut like the patchers that they are of."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchers import create

SCRIPT = Path(__file__).resolve().parents[3] / "bench" / "reporting" / "report" / "cuts.js"
STRIDES = ("1", "2", "4.5", "3.3", "7.125", "1.01", "64")
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed, which runs the page's rules")


def in_the_page(calls: list[tuple[str, bytes, str]]) -> list[list[bool]]:
    """What the page's `CUTS[name](data, stride)` returns for each call, all in one process."""
    program = (
        SCRIPT.read_text(encoding="utf-8")
        + "const calls = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        + "const made = calls.map(([name, data, stride]) => CUTS[name](Uint8Array.from(data), stride));"
        + "console.log(JSON.stringify([Object.keys(CUTS), made]));"
    )
    sent = json.dumps([(name, list(data), stride) for name, data, stride in calls])
    assert NODE is not None
    done = subprocess.run([NODE, "-e", program], input=sent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    names, made = json.loads(done.stdout)
    assert set(names) >= {name for name, *_ in calls}
    return list(made)


def texts() -> list[bytes]:
    rng = np.random.default_rng(0)
    alphabet = np.frombuffer(
        "ab 1 \n\t\v.,_-é東𝄞 ".encode() + bytes([0, 127, 0x80, 0xBF, 0xC3, 0xE2, 0xF5, 0xF8, 0xFF]), np.uint8
    )
    sizes = [0, 1, 2, 3, *rng.integers(1, 200, 60)]
    mixed = [bytes(rng.choice(alphabet, int(size))) for size in sizes]
    return [*mixed, *(rng.bytes(int(size)) for size in sizes), "Zoë wrote naïve_sum(x) -> 3.14; 東京\n".encode() * 3]


@pytest.mark.parametrize("name", ["bytes", "whitespace", "words", "space_words", "codepoint"])
def test_rules_without_options(name: str) -> None:
    made = in_the_page([(name, text, "1") for text in texts()])
    for text, starts in zip(texts(), made, strict=True):
        assert starts == create(name).segment(text).tolist(), text


def test_strides_whole_or_not() -> None:
    calls: list[tuple[str, bytes, str]] = [
        ("stride", b"x" * size, stride) for stride in STRIDES for size in (0, 1, 5, 1000)
    ]
    for (_, text, stride), starts in zip(calls, in_the_page(calls), strict=True):
        options: dict[str, Any] = {"stride": float(stride)}
        assert starts == create("stride", **options).segment(text).tolist(), stride
