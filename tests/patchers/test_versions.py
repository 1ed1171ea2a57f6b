"""A built-in whose cuts change gets a new version, so that no old number is taken for one of the new rule.

`cuts.json` has the version of each patcher and a hash of its cuts of a fixed text. Where a rule was changed on purpose,
raise `version` in its class and run `python tests/patchers/test_versions.py`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_files import options_for

import patchers

KEPT = Path(__file__).with_name("cuts.json")
TRAINED = {"bpe_predicted", "hnet"}
"""Their cuts come from trained weights, which differ in their last digits from processor to processor."""
TEXT = (
    "The harness reads bytes; naïve café, 東京, привет. Costs: 3.50 (or 4,000)!\n\tdef cut(data):\r\n    return data"
    "[::4]  # aaaa aaaa aaaa aaaa, and the quick brown fox jumps over the lazy dog again and again and again.\n\n"
).encode() * 3 + bytes(range(256))
LEARNT = [TEXT[i : i + 150] for i in range(0, len(TEXT) - 150, 37)]
OPTIONS: dict[str, dict[str, Any]] = {
    "bpe": {"vocab": 320},
    "unigram": {"vocab": 320},
    "superbpe": {"vocab": 330, "transition": 300},
    **{name: {"model": "ngram"} for name in ("entropy", "entropy_jump", "entropy_both", "entropy_spike")},
}


def cuts_of(name: str) -> str:
    """SHA-256 of the starts of the fixed text, by a patcher that has learnt from it where it learns."""
    known = set(patchers.get(name).__dataclass_fields__)
    options = {key: value for key, value in OPTIONS.get(name, {}).items() if key in known}
    patcher = patchers.create(name, **options_for(name), **options).fit(LEARNT, 0)
    return hashlib.sha256(np.packbits(patcher.segment(TEXT)).tobytes()).hexdigest()[:16]


def built_in() -> list[str]:
    ours = [name for name in patchers.names() if patchers.get(name).__module__.startswith("patchers.")]
    return [name for name in ours if name not in TRAINED]


@pytest.mark.parametrize("name", built_in())
def test_cuts_change_with_the_version_alone(name: str) -> None:
    kept = json.loads(KEPT.read_text())
    assert name in kept, f"run python {Path(__file__).name}, which keeps the cuts of {name}"
    version = patchers.get(name).version
    same = kept[name]["cuts"] == cuts_of(name)
    assert same or kept[name]["version"] != version, f"the cuts of {name} changed: raise {name}'s version"
    assert same, f"run python {Path(__file__).name}, which keeps the cuts of the new version of {name}"
    assert kept[name]["version"] == version


if __name__ == "__main__":
    found = {name: {"version": patchers.get(name).version, "cuts": cuts_of(name)} for name in built_in()}
    KEPT.write_text(json.dumps(found, indent=1) + "\n")
